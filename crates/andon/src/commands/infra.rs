//! Infrastructure in the terminal: states, their versions and locks, runs of the tool.

use andon_line::view::InfrastructureView;
use andon_model::{StateName, Time};
use clap::Subcommand;
use serde_json::json;

use super::Place;
use crate::cli::Common;
use crate::client::{Failure, status};
use crate::say::say;

/// `andon infra …`. A state is named by its environment, or `ENVIRONMENT/LAYER`.
#[derive(Debug, Subcommand)]
pub enum Infra {
    /// What is in force in an environment, what runs, what waits and what for.
    Show {
        /// The environment.
        environment: String,
    },
    /// The versions of its states, and who holds them.
    State {
        /// The environment.
        environment: String,
    },
    /// Make an old version of a state the newest.
    #[command(disable_version_flag = true)]
    Restore {
        /// The state.
        state: String,
        /// The version, as `andon infra state` lists it.
        #[arg(long)]
        version: u32,
    },
    /// Hold a state, so that nothing changes meanwhile.
    Lock {
        /// The state.
        state: String,
        /// The reason; whoever meets the lock reads it.
        #[arg(long)]
        why: String,
    },
    /// End a maintenance lock; with --force, as an owner, any lock.
    Unlock {
        /// The state.
        state: String,
        /// Also a lock that somebody else's work holds.
        #[arg(long)]
        force: bool,
    },
}

/// Does it.
pub fn infra(common: &Common, infra: Infra) -> Result<(), Failure> {
    let place = Place::find(common)?;
    match infra {
        Infra::Show { environment } => place.show(&at(&environment)?, show).map(drop),
        Infra::State { environment } => place.show(&at(&environment)?, show_states).map(drop),
        Infra::Restore { state, version } => {
            let (path, layer) = named(&state)?;
            let body = json!({ "version": version, "layer": layer });
            let words = |answer: &serde_json::Value| {
                format!("{state} is as in version {version} again; its serial is {}", answer["serial"])
            };
            place.command(&format!("{path}/restore"), &body, words).map(drop)
        }
        Infra::Lock { state, why } => {
            let (path, layer) = named(&state)?;
            let body = json!({ "why": why, "layer": layer });
            place.command(&format!("{path}/lock"), &body, |_| format!("{state} is held by you")).map(drop)
        }
        Infra::Unlock { state, force } => {
            let (path, layer) = named(&state)?;
            let body = json!({ "force": force, "layer": layer });
            place.command(&format!("{path}/unlock"), &body, |_| format!("{state} is free")).map(drop)
        }
    }
}

fn usage(words: String) -> Failure {
    Failure { words, status: status::USAGE }
}

/// The path of an environment's infrastructure. Its name is checked here: it becomes part of an address.
fn at(environment: &str) -> Result<String, Failure> {
    let name: andon_model::EnvironmentName =
        environment.parse().map_err(|error: andon_model::name::NotAName| usage(error.to_string()))?;
    Ok(format!("/infrastructure/{name}"))
}

fn named(state: &str) -> Result<(String, Option<String>), Failure> {
    let name: StateName =
        state.parse().map_err(|error: andon_model::name::NotAName| usage(error.to_string()))?;
    Ok((at(name.environment.as_str())?, name.layer.map(String::from)))
}

fn show(view: &InfrastructureView) {
    say!("{} {}", view.frame.cord.sign(), view.heading);
    say!("  {}", view.sentence);
    for run in &view.runs {
        let place = run.place.map_or_else(String::new, |place| format!("{place}. "));
        say!("{} {place}{:<5} {:<14} {}", run.mark.sign(), run.run, run.action, run.words);
        if let Some(counts) = &run.counts {
            say!("        {counts}");
        }
        for address in &run.guarded {
            say!("        ▲ {address}");
        }
    }
    for (name, value) in &view.outputs {
        say!("  {name} = {value}");
    }
    locks(view);
}

fn locks(view: &InfrastructureView) {
    for state in &view.states {
        match &state.lock {
            Some(lock) => say!("▲ {} is held by {lock}", state.name),
            None => say!("● {} is free", state.name),
        }
    }
}

fn show_states(view: &InfrastructureView) {
    locks(view);
    for state in &view.states {
        say!("  {:<24} {:>7} {:>7}  {:<20} {:>10}  by", state.name, "version", "serial", "when", "bytes");
        for version in &state.versions {
            let from =
                version.restored_from.map_or_else(String::new, |from| format!(" (version {from} again)"));
            let when = |at: Time| at.rfc3339().chars().take(19).collect::<String>().replace('T', " ");
            say!(
                "  {:<24} {:>7} {:>7}  {:<20} {:>10}  {}{from}",
                "",
                version.number,
                version.serial,
                when(version.at),
                version.bytes,
                version.by
            );
        }
    }
    if view.states.is_empty() {
        say!("– {} has no state yet", view.environment);
    }
}
