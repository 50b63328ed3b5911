//! One module per subject. A command asks the server once and prints what it says, in words or as JSON.

pub mod access;
pub mod changes;
mod coverage;
pub mod data;
pub mod environments;
pub mod file;
mod handout;
pub mod haproxy;
mod here;
pub mod hosts;
pub mod identity;
pub mod infra;
mod infra_log;
pub mod local;
pub mod people;
pub mod places;
pub mod provenance;
pub mod recovery;
pub mod runners;
pub mod secrets;
pub mod shell;
pub mod tests;
pub mod watch;

use clap::Subcommand;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::cli::Common;
use crate::client::{Client, Failure};
use crate::say::say;

/// Everything that asks the server.
#[derive(Debug, Subcommand)]
pub enum Ask {
    /// Write a first andon.yaml for this repository, create its project, add the git remote.
    Init(file::Init),
    /// Check andon.yaml: every mistake with its line and its mend.
    Check(file::Check),
    /// Print the JSON Schema of andon.yaml, for editors.
    Schema,
    /// git asks here for the token.
    #[command(hide = true)]
    Credential {
        /// get, store, erase.
        action: String,
    },
    /// Log in: by a token, or by the owner link.
    Login(access::Login),
    /// Projects of the server.
    #[command(subcommand)]
    Project(access::Project),
    /// Accounts.
    #[command(subcommand)]
    User(access::User),
    /// Tokens for git and programs.
    #[command(subcommand)]
    Token(access::Token),
    /// The line at a glance: changes, services, environments, flow.
    Wall,
    /// What lands next, what waits and what for.
    Queue,
    /// One change, from commit to users.
    #[command(subcommand)]
    Change(changes::Change),
    /// One run of the pipeline.
    #[command(subcommand)]
    Run(changes::Run),
    /// Coverage by folder, or of a file line by line.
    Coverage(coverage::Coverage),
    /// Follow a change until users have it.
    Watch(watch::Watch),
    /// Environments: create, rebuild, destroy, drift.
    #[command(subcommand)]
    Env(environments::Env),
    /// Make a backup of everything.
    Backup(recovery::Backup),
    /// Make a data directory from a backup.
    Restore(recovery::Restore),
    /// Make everything again from a backup and code, beside what runs, and time it.
    Drill,
    /// Backups and drills. Exit status 1 when the last drill is red.
    Recovery,
    /// Hosts: the machines that instances run on.
    #[command(subcommand)]
    Host(hosts::Host),
    /// Runners: the machines that jobs run on beside the server's own.
    #[command(subcommand)]
    Runner(runners::Runner),
    /// HAProxy as the data plane: its configuration, and whether it is up to date.
    #[command(subcommand)]
    Haproxy(haproxy::Haproxy),
    /// Infrastructure: states, versions, locks, plans.
    #[command(subcommand)]
    Infra(infra::Infra),
    /// Secrets: values for jobs and services that nobody gets back.
    #[command(subcommand)]
    Secret(secrets::Secret),
    /// Identities of jobs: the key that signs their tokens.
    #[command(subcommand)]
    Identity(identity::Identity),
    /// Provenance: what the server vouches for, and whether a file is that.
    #[command(subcommand)]
    Provenance(provenance::Provenance),
    /// Databases: templates with masked data, migrations.
    #[command(subcommand)]
    Data(data::Data),
    /// Releases: promote, pause, abort, roll back, why.
    #[command(subcommand)]
    Release(places::Release),
    /// Flags: switch, ramp, open to groups, kill.
    #[command(subcommand)]
    Flag(people::Flag),
    /// The cord: pull it, treat its andons.
    #[command(subcommand)]
    Cord(people::Cord),
    /// Tests: their order, their shards, how good the order is.
    #[command(subcommand)]
    Tests(tests::Tests),
    /// The five metrics and where time goes.
    Flow,
}

/// Does what was said.
pub fn run(common: &Common, ask: Ask) -> Result<(), Failure> {
    match ask {
        Ask::Init(options) => file::init(common, options),
        Ask::Check(options) => file::check(common, options),
        Ask::Schema => {
            file::schema();
            Ok(())
        }
        Ask::Credential { action } => file::credential(common, &action),
        Ask::Login(login) => access::login(common, login),
        Ask::Project(project) => access::project(common, project),
        Ask::User(user) => access::user(common, user),
        Ask::Token(token) => access::token(common, token),
        Ask::Queue => changes::queue(common),
        Ask::Change(change) => changes::change(common, change),
        Ask::Run(run) => changes::run(common, run),
        Ask::Identity(wanted) => identity::identity(common, wanted),
        Ask::Provenance(wanted) => provenance::provenance(common, wanted),
        Ask::Secret(secret) => secrets::secret(common, secret),
        Ask::Tests(tests) => tests::tests(common, tests),
        Ask::Wall => places::wall(common),
        Ask::Watch(options) => watch::watch(common, options),
        Ask::Env(env) => environments::env(common, env),
        Ask::Backup(options) => recovery::backup(common, &options),
        Ask::Restore(options) => recovery::restore(common, &options),
        Ask::Drill => recovery::drill(common),
        Ask::Recovery => recovery::recovery(common),
        Ask::Host(host) => hosts::host(common, host),
        Ask::Runner(runner) => runners::runner(common, runner),
        Ask::Haproxy(wanted) => haproxy::haproxy(common, wanted),
        Ask::Infra(infra) => infra::infra(common, infra),
        Ask::Data(data) => data::data(common, data),
        Ask::Release(release) => places::release(common, release),
        Ask::Flag(flag) => people::flag(common, flag),
        Ask::Cord(cord) => people::cord(common, cord),
        Ask::Coverage(wanted) => coverage::coverage(common, wanted),
        Ask::Flow => people::flow(common),
    }
}

/// The server and the project that a command is about.
pub struct Place {
    /// The server.
    pub client: Client,
    /// `/api/v1/PROJECT`.
    pub base: String,
    json: bool,
}

impl Place {
    /// Finds the project: said, of the git remote, or the only one.
    pub fn find(common: &Common) -> Result<Place, Failure> {
        let client = Client::new(common.server.clone(), common.token.clone())?;
        let project = match common.project.clone().or_else(|| of_remote(&client.login.server)) {
            Some(project) => project,
            None => only(&client)?,
        };
        if project.parse::<andon_model::ProjectName>().is_err() {
            return Err(format!("{project:?} is not a project's name").into());
        }
        Ok(Place { base: format!("/api/v1/{project}"), client, json: common.json })
    }

    /// Reads a view and prints it.
    pub fn show<T: DeserializeOwned>(&self, path: &str, words: impl FnOnce(&T)) -> Result<T, Failure> {
        let value = self.client.get(&format!("{}{path}", self.base))?;
        let view: T = read(value.clone())?;
        if self.json {
            print_json(&value);
        } else {
            words(&view);
        }
        Ok(view)
    }

    /// Commands, and says so.
    pub fn command(
        &self,
        path: &str,
        body: &Value,
        words: impl FnOnce(&Value) -> String,
    ) -> Result<Value, Failure> {
        let value = self.client.post(&format!("{}{path}", self.base), body)?;
        if self.json {
            print_json(&value);
        } else {
            say!("● {}", words(&value));
        }
        Ok(value)
    }
}

/// An answer as its type; a server of another version may answer otherwise.
pub fn read<T: DeserializeOwned>(value: Value) -> Result<T, Failure> {
    serde_json::from_value(value).map_err(|error| {
        format!("the server's answer is not understood: {error}\nhint: use the same version of andon here and there").into()
    })
}

/// Prints JSON as programs like it: whole, on lines.
pub fn print_json(value: &Value) {
    say!("{}", serde_json::to_string_pretty(value).unwrap_or_default());
}

fn of_remote(server: &str) -> Option<String> {
    let out = std::process::Command::new("git").args(["remote", "get-url", "andon"]).output().ok()?;
    let url = String::from_utf8(out.stdout).ok()?;
    let rest = url.trim().split_once("://")?.1;
    let (host, path) = rest.split_once('/')?;
    let host = host.rsplit('@').next()?;
    server.ends_with(host).then(|| path.trim_end_matches(".git").to_owned())
}

fn only(client: &Client) -> Result<String, Failure> {
    let projects = client.get("/api/v1/projects")?;
    let names: Vec<&str> =
        projects.as_array().into_iter().flatten().filter_map(|p| p["name"].as_str()).collect();
    match names[..] {
        [one] => Ok(one.to_owned()),
        [] => Err("there is no project yet\nhint: andon init, in your repository".into()),
        _ => Err(format!("which project? {}\nhint: give --project", names.join(", ")).into()),
    }
}
