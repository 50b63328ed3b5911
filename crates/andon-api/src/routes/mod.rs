//! The JSON doors as a table: what programs and the command line read and command. Each handler is one call into andon-line.

mod accounts;
mod coverage;
mod data;
mod environments;
mod hosts;
mod identity;
mod infrastructure;
mod infrastructure_runs;
mod line;
mod output;
mod people;
mod places;
mod provenance;
mod recovery;
mod routers;
mod runners;
mod runs;
mod secrets;
mod shells;
mod tests;
mod traffic;

use andon_model::event::Role;
use axum::routing::{delete, get, post};
use http::{Method, StatusCode};
use serde::Deserialize;

use crate::answer::Trouble;
use crate::door::Door;
use crate::events;

use accounts::{enter, issue, me, revoke, set_user, users};
use environments::{
    compare, create_environment, deploy, destroy_environment, environments, extend_environment, hold,
    one_environment, rebuild_environment, roll_back, scale,
};
use line::{
    abandon, artifact, create_project, healthy, one_change, one_run, projects, queue, test_trunk, wall,
};
use people::{andons, change_flag, export_flags, flags, flow, import_flags, one_andon, pull, treat_andon};
use places::{instance_log, move_release, one_release, releases};

/// The doors of the API.
pub fn doors() -> Vec<Door> {
    use Role::{Deployer, Developer, Owner, Releaser, Viewer};
    let read = |path, handler| Door::new(Method::GET, path, Viewer, handler);
    let change = |path, needs, handler| Door::new(Method::POST, path, needs, handler);
    let mut doors = vec![
        Door::public(Method::GET, "/healthz", get(healthy)),
        Door::public(Method::POST, "/api/v1/enter", post(enter)),
        read("/api/v1/me", get(me)),
        read("/api/v1/projects", get(projects)),
        change("/api/v1/projects", Owner, post(create_project)),
        read("/api/v1/{project}/queue", get(queue)),
        read("/api/v1/{project}/changes/{change}", get(one_change)),
        change("/api/v1/{project}/changes/{change}/abandon", Developer, post(abandon)),
        // Who approves is said by trunk's andon.yaml.
        change("/api/v1/{project}/changes/{change}/approve", Viewer, post(line::approve)),
        read("/api/v1/{project}/runs/{run}", get(one_run)),
        change("/api/v1/{project}/runs", Developer, post(test_trunk)),
        read("/api/v1/{project}/runs/{run}/jobs/{job}/log", get(output::log)),
        read("/api/v1/{project}/artifacts/{digest}", get(artifact)),
        read("/api/v1/{project}/events", get(events::stream)),
        read("/api/v1/{project}/journal", get(events::journal)),
        read("/api/v1/{project}/wall", get(wall)),
        read("/api/v1/{project}/environments", get(environments)),
        change("/api/v1/{project}/environments", Developer, post(create_environment)),
        read("/api/v1/{project}/environments/{environment}", get(one_environment)),
        change("/api/v1/{project}/environments/{environment}/destroy", Developer, post(destroy_environment)),
        change("/api/v1/{project}/environments/{environment}/rebuild", Deployer, post(rebuild_environment)),
        change("/api/v1/{project}/environments/{environment}/extend", Developer, post(extend_environment)),
        read("/api/v1/{project}/environments/{environment}/diff/{other}", get(compare)),
        change("/api/v1/{project}/environments/{environment}/scale", Deployer, post(scale)),
        change("/api/v1/{project}/environments/{environment}/hold", Deployer, post(hold)),
        change("/api/v1/{project}/environments/{environment}/deploy", Deployer, post(deploy)),
        change("/api/v1/{project}/environments/{environment}/rollback", Releaser, post(roll_back)),
        read("/api/v1/{project}/instances/{instance}/log", get(instance_log)),
        read("/api/v1/{project}/releases", get(releases)),
        read("/api/v1/{project}/releases/{release}", get(one_release)),
        change("/api/v1/{project}/releases/{release}/{command}", Releaser, post(move_release)),
        read("/api/v1/{project}/flags", get(flags)),
        read("/api/v1/{project}/flags.json", get(export_flags)),
        change("/api/v1/{project}/flags.json", Releaser, post(import_flags)),
        change("/api/v1/{project}/flags/{flag}/{command}", Releaser, post(change_flag)),
        read("/api/v1/{project}/andons", get(andons)),
        change("/api/v1/{project}/andons", Developer, post(pull)),
        read("/api/v1/{project}/andons/{andon}", get(one_andon)),
        change("/api/v1/{project}/andons/{andon}/{command}", Developer, post(treat_andon)),
        read("/api/v1/{project}/flow", get(flow)),
        read("/api/v1/recovery", get(recovery::recovery)),
        change("/api/v1/backups", Owner, post(recovery::back_up)),
        Door::new(Method::GET, "/api/v1/backups/{name}", Owner, get(recovery::backup)),
        change("/api/v1/drills", Owner, post(recovery::drill)),
        read("/api/v1/hosts", get(hosts::hosts)),
        read("/api/v1/traffic", get(traffic::traffic)),
        change("/api/v1/hosts", Owner, post(hosts::invite)),
        change("/api/v1/hosts/{host}/{command}", Owner, post(hosts::treat)),
        read("/metrics", get(routers::metrics)),
        Door::new(Method::GET, "/api/v1/routers/table", Owner, get(routers::table)),
        change("/api/v1/routers/counts", Owner, post(routers::report)).only_reads(),
        read("/api/v1/runners", get(runners::runners)),
        change("/api/v1/runners", Owner, post(runners::invite)),
        change("/api/v1/runners/{runner}/{command}", Owner, post(runners::treat)),
        read("/api/v1/users", get(users)),
        change("/api/v1/users", Viewer, post(set_user)),
        change("/api/v1/tokens", Viewer, post(issue)),
        Door::new(Method::DELETE, "/api/v1/tokens/{digest}", Viewer, delete(revoke)),
    ];
    doors.extend(infrastructure::doors());
    doors.extend(infrastructure_runs::doors());
    doors.extend(data::doors());
    doors.extend(runs::doors());
    doors.extend(coverage::doors());
    doors.extend(shells::doors());
    doors.extend(identity::doors());
    doors.extend(provenance::doors());
    doors.extend(secrets::doors());
    doors.extend(tests::doors());
    doors
}

fn number<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, Trouble> {
    text.parse().map_err(|error: T::Err| Trouble(StatusCode::BAD_REQUEST, error.to_string()))
}

/// A reason, where one may be given.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Why {
    #[serde(default)]
    pub(crate) why: String,
}
