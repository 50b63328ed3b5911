//! Infrastructure in the terminal: states, their versions and locks, runs of the tool.

use andon_line::view::{InfraRunView, InfrastructureView, Mark};
use andon_model::{InfraRunId, StateName, Time};
use clap::Subcommand;
use serde_json::json;

use super::{Place, infra_log as log};
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
    /// What trunk would do there; changes nothing. Prints the plan.
    Plan {
        /// The environment.
        environment: String,
    },
    /// Apply again what is in force; where nothing is, what trunk says.
    Apply {
        /// The environment.
        environment: String,
        /// Return when it is over.
        #[arg(long)]
        wait: bool,
    },
    /// Approve a plan that the guard holds.
    Approve {
        /// The run, as `T4`.
        run: String,
        /// The environment's name, typed by you.
        #[arg(long)]
        environment: String,
        /// The reason.
        #[arg(long, default_value = "")]
        why: String,
    },
    /// Stop a run: it saves and ends; what does not in time is ended by force.
    Stop {
        /// The run, as `T4`; or an environment: the run that works there.
        run: String,
        /// Return when it is over.
        #[arg(long)]
        wait: bool,
    },
    /// Take what a run left off the display: you looked after it.
    Forget {
        /// The environment.
        environment: String,
        /// Its address, as `andon infra show` prints it.
        address: String,
        /// What became of it.
        #[arg(long)]
        why: String,
    },
    /// Everything that the tool said in a run; with --json as the tool said it, one value a line.
    Log {
        /// The run, as `T4`; or an environment: the run that works there, else the newest.
        run: String,
        /// Go on until the run is over or waits for people.
        #[arg(short, long)]
        follow: bool,
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
        Infra::Plan { environment } => {
            let run = begin(&place, &environment, "plan")?;
            until_over(&place, &run)?;
            place.show(&format!("/infrastructure-runs/{run}"), show_plan).map(drop)
        }
        Infra::Apply { environment, wait } => {
            let run = begin(&place, &environment, "apply")?;
            if !wait {
                say!("● {run} applies the infrastructure of {environment}");
                return Ok(());
            }
            let over = until_over(&place, &run)?;
            place.show(&format!("/infrastructure-runs/{run}"), show_plan)?;
            if over.mark == Mark::Go {
                Ok(())
            } else {
                Err(Failure { words: String::new(), status: status::NO })
            }
        }
        Infra::Approve { run, environment, why } => {
            let run = number(&run)?;
            let body = json!({ "environment": environment, "why": why });
            let words = |answer: &serde_json::Value| match answer["missing"].as_u64() {
                Some(0) => format!("{run} is applied now"),
                missing => format!("{run} waits for {} more", missing.unwrap_or_default()),
            };
            place.command(&format!("/infrastructure-runs/{run}/approve"), &body, words).map(drop)
        }
        Infra::Stop { run, wait } => {
            let path = match run.parse::<InfraRunId>() {
                Ok(run) => format!("/infrastructure-runs/{run}/stop"),
                Err(_) => format!("{}/stop", at(&run)?),
            };
            let words = |answer: &serde_json::Value| {
                format!("{} is being stopped", answer["run"].as_str().unwrap_or(&run))
            };
            if !wait {
                return place.command(&path, &json!({}), words).map(drop);
            }
            let answer = place.client.post(&format!("{}{path}", place.base), &json!({}))?;
            let run = number(answer["run"].as_str().unwrap_or(&run))?;
            until_ended(&place, &run)?;
            place.show(&format!("/infrastructure-runs/{run}"), show_plan).map(drop)
        }
        Infra::Forget { environment, address, why } => {
            let body = json!({ "address": address, "why": why });
            let words = |_: &serde_json::Value| format!("{address} is not shown any more");
            place.command(&format!("{}/forget", at(&environment)?), &body, words).map(drop)
        }
        Infra::Log { run, follow } => log::print(&place, &run, follow),
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
pub(super) fn at(environment: &str) -> Result<String, Failure> {
    let name: andon_model::EnvironmentName =
        environment.parse().map_err(|error: andon_model::name::NotAName| usage(error.to_string()))?;
    Ok(format!("/infrastructure/{name}"))
}

fn named(state: &str) -> Result<(String, Option<String>), Failure> {
    let name: StateName =
        state.parse().map_err(|error: andon_model::name::NotAName| usage(error.to_string()))?;
    Ok((at(name.environment.as_str())?, name.layer.map(String::from)))
}

pub(super) fn number(run: &str) -> Result<InfraRunId, Failure> {
    run.parse().map_err(|error: andon_model::id::NotAnId| usage(error.to_string()))
}

fn begin(place: &Place, environment: &str, what: &str) -> Result<InfraRunId, Failure> {
    let path = at(environment)?;
    let answer = place.client.post(&format!("{}{path}/{what}", place.base), &json!({}))?;
    number(answer["run"].as_str().unwrap_or_default())
}

/// Waits for the end of a run, or until people have to approve it.
#[allow(
    clippy::disallowed_methods,
    reason = "the command line looks at another process until what it waits for is there"
)]
fn until_over(place: &Place, run: &InfraRunId) -> Result<InfraRunView, Failure> {
    loop {
        let view: InfraRunView =
            super::read(place.client.get(&format!("{}/infrastructure-runs/{run}", place.base))?)?;
        let held = !view.guarded.is_empty() && view.mark == Mark::Wait;
        if view.place.is_none() || held {
            return Ok(view);
        }
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
}

/// Waits for the end of a run, whatever it waits for.
#[allow(
    clippy::disallowed_methods,
    reason = "the command line looks at another process until what it waits for is there"
)]
fn until_ended(place: &Place, run: &InfraRunId) -> Result<InfraRunView, Failure> {
    loop {
        let view = until_over(place, run)?;
        if view.place.is_none() {
            return Ok(view);
        }
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
}

/// The plan as a diff: what happens to each resource, and which attributes differ.
fn show_plan(view: &InfraRunView) {
    say!("{} {} {}: {}", view.mark.sign(), view.run, view.action, view.words);
    let Some(plan) = &view.plan else { return };
    for change in &plan.changes {
        say!("  {} {}", change.word(), change.address);
        if !change.replaced_by.is_empty() {
            say!("      because of {}", change.replaced_by.join(", "));
        }
        for attribute in &change.attributes {
            if let Some(before) = &attribute.before {
                say!("    - {} = {before}", attribute.path);
            }
            if let Some(after) = &attribute.after {
                say!("    + {} = {after}", attribute.path);
            }
        }
    }
    for address in &view.guarded {
        say!("  ▲ needs approval: {address}");
    }
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
    for what in &view.unknown {
        say!("▲ unknown: {what}");
    }
    for lost in &view.lost {
        say!("■ in no state: {}", lost.words);
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
            let mut from =
                version.restored_from.map_or_else(String::new, |from| format!(" (version {from} again)"));
            if let Some(run) = &version.recovered {
                from.push_str(&format!(" (found after {run}, which could not store it)"));
            }
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
