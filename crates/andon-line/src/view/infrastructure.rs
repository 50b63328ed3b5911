//! Infrastructure of an environment: its states with their versions, who holds them, the runs and what they wait for.

use andon_environment::blueprint::Plan;
use andon_environment::infrastructure::{Run, Stage};
use andon_environment::states::Stored;
use andon_model::event::{InfraTool, PlanCounts};
use andon_model::{EnvironmentName, InfraRunId, StateName, Time};
use serde::{Deserialize, Serialize};

use super::{Frame, Mark, ago, frame};
use crate::{Project, Refusal, State};

/// Runs shown; older ones are in the journal.
const RUNS: usize = 50;

/// The page of an environment's infrastructure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InfrastructureView {
    /// Over every page.
    pub frame: Frame,
    /// The environment.
    pub environment: String,
    /// The answer.
    pub heading: String,
    /// Since when, by what.
    pub sentence: String,
    /// Its states by name.
    pub states: Vec<StateView>,
    /// Runs, newest first.
    pub runs: Vec<InfraRunView>,
    /// Output values that services may use.
    pub outputs: Vec<(String, String)>,
    /// Of what the last look could not tell whether it is as the code says.
    #[serde(default)]
    pub unknown: Vec<String>,
    /// What runs made, or were making, and no state knows.
    #[serde(default)]
    pub lost: Vec<LostView>,
}

/// Something that a run left.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LostView {
    /// Its address in the code.
    pub address: String,
    /// All that is known of it.
    pub words: String,
}

/// A state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StateView {
    /// Its name.
    pub name: String,
    /// Who holds it, in a sentence; none: it is free.
    pub lock: Option<String>,
    /// Its versions, newest first.
    pub versions: Vec<VersionView>,
}

/// A version of a state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VersionView {
    /// Counts from 1.
    pub number: u32,
    /// The document's own number.
    pub serial: u64,
    /// When.
    pub at: Time,
    /// By whom.
    pub by: String,
    /// Length in clear.
    pub bytes: u64,
    /// The version that was brought back with it.
    pub restored_from: Option<u32>,
    /// The run that could not store it itself.
    #[serde(default)]
    pub recovered: Option<String>,
}

/// A run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InfraRunView {
    /// `T4`
    pub run: String,
    /// `plan`, `apply`, `destroy`, `look for drift`.
    pub action: String,
    /// How it counts.
    pub mark: Mark,
    /// What it does or waits for, since when.
    pub words: String,
    /// Place in the environment's queue, from 1; none: it is over.
    pub place: Option<u32>,
    /// What its plan would do.
    pub counts: Option<PlanCounts>,
    /// Addresses that people have to approve.
    pub guarded: Vec<String>,
    /// Who approved.
    pub approvals: Vec<String>,
    /// When it was asked for.
    pub at: Time,
    /// By whom.
    pub by: String,
    /// How often it was planned; what the tool said begins anew with each.
    #[serde(default)]
    pub attempt: u32,
    /// The tool and its version.
    pub tool: Option<String>,
    /// The plan itself, where one was asked for.
    #[serde(default)]
    pub plan: Option<Plan>,
}

/// The view at this moment. An environment that is gone is shown as long as something is known of it.
pub fn infrastructure(
    project: &Project,
    environment: &EnvironmentName,
    now: Time,
) -> Result<InfrastructureView, Refusal> {
    let state = project.state();
    let of_it = |name: &StateName| &name.environment == environment;
    let states: Vec<StateView> = state
        .states
        .iter()
        .filter(|(name, _)| of_it(name))
        .map(|(name, stored)| one_state(name, stored, now))
        .collect();
    let mut runs: Vec<InfraRunView> = Vec::new();
    let of_environment =
        state.estate.infrastructure.runs.values().filter(|run| &run.asked.environment == environment);
    for run in of_environment.rev().take(RUNS) {
        runs.push(one_run(&state, run, now));
    }
    if states.is_empty() && runs.is_empty() && !state.estate.environments.contains_key(environment) {
        return Err(Refusal::Unknown(format!("there is no environment {environment}")));
    }
    let in_force = |tool| state.estate.infrastructure.in_force(environment, tool);
    let (made, set_up) = (in_force(InfraTool::Terraform), in_force(InfraTool::Ansible));
    let applied = made.into_iter().chain(set_up).max_by_key(|applied| applied.run);
    let open = runs.iter().rev().find(|run| run.place == Some(1));
    let heading = match (open, applied) {
        (Some(run), _) => format!("{environment}: {} {}", run.run, run.words),
        (None, Some(applied)) => {
            format!("{environment} has the infrastructure of {}", applied.commit.short())
        }
        (None, None) => format!("{environment} has no infrastructure of the line's making"),
    };
    let sentence = match applied {
        Some(applied) => format!(
            "{} applied it {}; reality was looked at {}.",
            applied.run,
            ago(now, applied.at),
            ago(now, applied.looked)
        ),
        None if states.is_empty() => {
            "Say `infrastructure: { terraform: FOLDER }` or `infrastructure: { ansible: ... }` at the environment in andon.yaml.".into()
        }
        None => "Its state is kept here; the tool is run by people.".into(),
    };
    let unknown = [made, set_up].into_iter().flatten().flat_map(|applied| applied.unknown.clone()).collect();
    let lost = state.estate.infrastructure.lost.of(environment);
    let lost = lost.map(|l| LostView { address: l.address.clone(), words: l.sentence() }).collect();
    let outputs = made.map(|applied| applied.outputs.iter()).into_iter().flatten();
    let outputs = outputs.map(|(name, value)| (name.clone(), value.to_string())).collect();
    Ok(InfrastructureView {
        frame: frame(&state, project.name.as_str(), now),
        environment: environment.to_string(),
        heading,
        sentence,
        states,
        runs,
        outputs,
        unknown,
        lost,
    })
}

/// One run with its plan.
pub fn run(
    project: &Project,
    id: InfraRunId,
    plan: Option<Plan>,
    now: Time,
) -> Result<InfraRunView, Refusal> {
    let state = project.state();
    let run = state.estate.infrastructure.runs.get(&id);
    let run = run.ok_or_else(|| Refusal::Unknown(format!("there is no infrastructure run {id}")))?;
    Ok(InfraRunView { plan, ..one_run(&state, run, now) })
}

fn one_state(name: &StateName, stored: &Stored, now: Time) -> StateView {
    let version = |(place, version): (usize, &andon_environment::states::Version)| VersionView {
        number: u32::try_from(place + 1).unwrap_or(u32::MAX),
        serial: version.stored.serial,
        at: version.at,
        by: version.by.to_string(),
        bytes: version.stored.bytes,
        restored_from: version.stored.restored_from,
        recovered: version.stored.recovered.map(|run| run.to_string()),
    };
    StateView {
        name: name.to_string(),
        lock: stored.lock.as_ref().map(|lock| lock.sentence(name, now)),
        versions: stored.versions.iter().enumerate().map(version).rev().collect(),
    }
}

fn one_run(state: &State, run: &Run, now: Time) -> InfraRunView {
    let environment = &run.asked.environment;
    let place = state.estate.infrastructure.open(environment).position(|open| open.id() == run.id());
    let since = format!("since {} ({})", run.since.hh_mm_ss(), ago(now, run.since));
    let (mark, words) = match (&run.finished, run.stage) {
        (Some(end), _) if end.ok => (Mark::Go, end.why.clone()),
        (Some(end), _) => (Mark::Stop, end.why.clone()),
        (None, _) if run.stopping.is_some() => {
            let forced = run.stopping.as_ref().is_some_and(|stopping| stopping.force);
            let how = if forced { "is being ended by force" } else { "is being stopped: it saves and ends" };
            (Mark::Wait, format!("{how}, {since}"))
        }
        (None, Stage::Queued) => (Mark::Wait, format!("waits for {}, {since}", waits_for(state, run, now))),
        (None, Stage::Planning) => (Mark::Live, format!("is planning {since}")),
        (None, Stage::Waiting) => {
            (Mark::Wait, format!("waits for {}, {since}", super::count(run.missing() as usize, "approval")))
        }
        (None, Stage::Ready) => (Mark::Live, format!("is about to be applied {since}")),
        (None, _) => (Mark::Live, format!("is being applied {since}")),
    };
    InfraRunView {
        run: run.id().to_string(),
        action: run.asked.action.to_string(),
        mark,
        words,
        place: place.map(|place| u32::try_from(place + 1).unwrap_or(u32::MAX)),
        counts: run.planned.as_ref().map(|planned| planned.counts),
        guarded: run.planned.as_ref().map(|planned| planned.guarded.clone()).unwrap_or_default(),
        approvals: run.approvals.iter().map(|(user, ..)| user.to_string()).collect(),
        at: run.at,
        by: run.by.to_string(),
        attempt: run.attempt,
        tool: run.tool.clone(),
        plan: None,
    }
}

/// What a queued run waits for: the run before it, or whoever holds the state.
fn waits_for(state: &State, run: &Run, now: Time) -> String {
    let environment = &run.asked.environment;
    let before =
        state.estate.infrastructure.open(environment).take_while(|open| open.id() != run.id()).last();
    if let Some(before) = before {
        return format!("{} ({})", before.id(), before.asked.action);
    }
    let name = StateName::of(environment.clone());
    let lock = state.states.get(&name).and_then(|stored| stored.lock.as_ref());
    lock.map_or_else(
        || "its start".to_owned(),
        |lock| format!("the state, held by {}", lock.sentence(&name, now)),
    )
}
