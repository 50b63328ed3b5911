//! All pages and forms as a table: method, path, the role each needs. A form needs the role that its command needs.

use std::sync::Arc;

use andon_line::Line;
use andon_model::event::Role;
use axum::Extension;
use axum::routing::{MethodRouter, get, post};
use http::Method;

use crate::log::tail::Tails;
use crate::{account, act, assets, door, hosts, live, show};

/// One route.
#[derive(Debug, Clone)]
pub struct Page {
    /// The method it answers.
    pub method: Method,
    /// Its path, in axum's form.
    pub path: &'static str,
    /// The role it needs; none: everyone may come in.
    pub needs: Option<Role>,
    /// What answers.
    pub handler: MethodRouter<Arc<Line>>,
}

/// Pages of a project, all shown by one handler.
pub const SHOWN: [&str; 19] = [
    "/{project}",
    "/{project}/queue",
    "/{project}/changes/{change}",
    "/{project}/runs/{run}",
    "/{project}/runs/{run}/{job}",
    "/{project}/coverage/{run}",
    "/{project}/coverage/{run}/{*folder}",
    "/{project}/source/{run}/{*path}",
    "/{project}/environments",
    "/{project}/environments/{environment}",
    "/{project}/environments/{environment}/diff/{other}",
    "/{project}/tests",
    "/{project}/releases",
    "/{project}/environments/{environment}/infrastructure",
    "/{project}/releases/{release}",
    "/{project}/flags",
    "/{project}/andons",
    "/{project}/andons/{andon}",
    "/{project}/flow",
];

/// Everything that browsers come for.
pub fn pages() -> Vec<Page> {
    use Role::{Deployer, Developer, Owner, Releaser, Viewer};
    let page = |method, path, needs, handler| Page { method, path, needs, handler };
    let see = |path, handler| page(Method::GET, path, Some(Viewer), handler);
    let form = |path, needs, handler| page(Method::POST, path, Some(needs), handler);
    let open = |method, path, handler| page(method, path, None, handler);
    let mut all = vec![
        open(Method::GET, "/assets/{name}", get(assets::serve)),
        open(Method::GET, "/login", get(door::login)),
        open(Method::POST, "/login", post(door::log_in)),
        open(Method::GET, "/enter", get(door::invited)),
        open(Method::POST, "/enter", post(door::enter)),
        see("/", get(show::projects)),
        form("/", Owner, post(act::create_project)),
        see("/recovery", get(show::recovery)),
        form("/recovery/backup", Owner, post(act::back_up)),
        form("/recovery/drill", Owner, post(act::drill)),
        see("/hosts", get(hosts::show)),
        form("/hosts/{host}/{command}", Owner, post(hosts::treat)),
        form("/runners/{runner}/{command}", Owner, post(hosts::treat_runner)),
        see("/account", get(account::account)),
        form("/account/password", Viewer, post(account::password)),
        form("/account/tokens", Viewer, post(account::issue)),
        form("/account/revoke", Viewer, post(account::revoke)),
        form("/account/leave", Viewer, post(account::leave)),
        see("/{project}/live", get(live::live).layer(Extension(Tails::default()))),
        see("/{project}/jump", get(show::jump)),
        form("/{project}/cord/pull", Developer, post(act::pull)),
        form("/{project}/andons/{andon}/{command}", Developer, post(act::treat)),
        form("/{project}/changes/{change}/abandon", Developer, post(act::abandon)),
        form("/{project}/changes/{change}/approve", Viewer, post(act::approve_definition)),
        form("/{project}/runs", Developer, post(act::test_trunk)),
        form("/{project}/runs/{run}", Developer, post(act::run_again)),
        form("/{project}/runs/{run}/{job}/{command}", Viewer, post(act::answer)),
        form("/{project}/tests/quarantine", Developer, post(act::quarantine)),
        form("/{project}/tests/quarantine/end", Developer, post(act::end_quarantine)),
        form("/{project}/environments", Developer, post(act::create_environment)),
        form("/{project}/environments/{environment}/destroy", Developer, post(act::destroy)),
        form("/{project}/environments/{environment}/extend", Developer, post(act::extend)),
        form("/{project}/environments/{environment}/hold", Deployer, post(act::hold)),
        form("/{project}/environments/{environment}/scale", Deployer, post(act::scale)),
        form("/{project}/environments/{environment}/rebuild", Deployer, post(act::rebuild)),
        form(
            "/{project}/environments/{environment}/infrastructure/{infrarun}/approve",
            Deployer,
            post(act::approve_infrastructure),
        ),
        form(
            "/{project}/environments/{environment}/infrastructure/{infrarun}/stop",
            Deployer,
            post(act::stop_infrastructure),
        ),
        form("/{project}/environments/{environment}/infrastructure/forget", Deployer, post(act::forget_lost)),
        form("/{project}/environments/{environment}/deploy", Deployer, post(act::deploy)),
        form("/{project}/environments/{environment}/rollback", Releaser, post(act::roll_back)),
        form("/{project}/releases/{release}/{command}", Releaser, post(act::move_release)),
        form("/{project}/flags/{command}", Releaser, post(act::flag)),
    ];
    all.extend(SHOWN.map(|path| see(path, get(show::show))));
    all
}
