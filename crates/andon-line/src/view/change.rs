//! One change on one page: from commit to users, with the proof of its landing.

use andon_gate::Standing;
use andon_gate::state::Change;
use andon_model::event::{DefinitionEdit, Event, Purpose, Recorded, Role};
use andon_model::{ChangeId, EnvironmentName, RunId, Time};
use serde::{Deserialize, Serialize};

use super::queue::{ChangeRow, row};
use super::wall::serves;
use super::{Fact, Frame, Mark, Moment, fact, frame, moments, verdict};
use crate::State;

/// The page of a change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChangeView {
    /// Over every page.
    pub frame: Frame,
    /// The answer.
    pub heading: String,
    /// Whose, since when, what follows.
    pub sentence: String,
    /// As in the queue.
    pub row: ChangeRow,
    /// Numbers.
    pub facts: Vec<Fact>,
    /// Runs made for it, newest first.
    pub runs: Vec<RunLine>,
    /// That what landed is what was tested.
    pub proof: Option<Proof>,
    /// What it makes of `andon.yaml`; none: nothing.
    #[serde(default)]
    pub definition: Option<DefinitionView>,
    /// Where users can have it: environment, mark, words.
    pub places: Vec<(String, Mark, String)>,
    /// All reasons of its newest red verdict.
    pub reasons: Vec<String>,
    /// What happened, newest first.
    pub timeline: Vec<Moment>,
}

/// What a change makes of `andon.yaml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DefinitionView {
    /// In a sentence: who has to approve it, or who did.
    pub says: String,
    /// Whether it may land as far as this goes.
    pub mark: Mark,
    /// The role that approves it; none: nobody does, or it is approved.
    pub asks: Option<Role>,
    /// What differs from trunk, what loosens first; empty until its run is made.
    pub edits: Vec<DefinitionEdit>,
}

/// A run in a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunLine {
    /// Its number.
    pub number: u32,
    /// The patch set it tested.
    pub patch_set: u32,
    /// Its verdict.
    pub mark: Mark,
    /// In words.
    pub words: String,
    /// When it was asked for.
    pub queued: Time,
}

/// The proof that is stored with a landing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Proof {
    /// The commit on trunk.
    pub commit: String,
    /// The tree that the run tested.
    pub tested_tree: String,
    /// The tree of trunk, read after landing.
    pub landed_tree: String,
    /// The run.
    pub run: u32,
}

/// An environment that changes pass, and what the newest one waits for in front of it.
pub type Place = (EnvironmentName, Option<String>);

/// The view at this moment.
pub fn change(
    state: &State,
    project: &str,
    environments: &[Place],
    change: &Change,
    now: Time,
) -> ChangeView {
    let row = row(state, change, now);
    let heading = match &change.standing {
        Standing::Landed { .. } => format!("{} {} is on {}", change.id, change.push.title, state.trunk),
        Standing::Refused { .. } => format!("{} {} does not land", change.id, change.push.title),
        Standing::Abandoned { .. } => format!("{} {} was taken back", change.id, change.push.title),
        _ => format!("{} {}", change.id, change.push.title),
    };
    let whose = change.push.author.split(" <").next().unwrap_or_default();
    // A reason may begin with the name of a test, which is written as it is written.
    let said = match &change.standing {
        Standing::Refused { why, .. } => format!("refused: {}", why.lines().next().unwrap_or_default()),
        _ => row.words.clone(),
    };
    let sentence = format!("By {whose}. {}", capital(&said));
    let mut facts = vec![
        fact(
            change.push.patch_set.to_string(),
            if change.push.patch_set == 1 { "patch set" } else { "patch sets" },
        ),
        fact(now.since(change.first_pushed).to_string(), "since it was first pushed"),
    ];
    if let Standing::Landed { at, .. } = change.standing {
        facts[1] = fact(at.since(change.first_pushed).to_string(), "from first push to trunk");
    }
    ChangeView {
        frame: frame(state, project, now),
        heading,
        sentence,
        row,
        facts,
        runs: runs(state, change),
        proof: proof(state, change.id),
        definition: definition(state, change),
        places: places(state, environments, change.id),
        reasons: reasons(state, change),
        timeline: moments(state.feed.iter().filter(|event| concerns(state, change.id, event)), 200),
    }
}

fn definition(state: &State, change: &Change) -> Option<DefinitionView> {
    if !crate::stations::definition::edits(state, change) {
        return None;
    }
    let edited = state.queue.edited(change);
    let edits = edited.map(|edited| edited.edits.clone()).unwrap_or_default();
    let over = matches!(change.standing, Standing::Landed { .. } | Standing::Abandoned { .. });
    let (says, mark, asks) = match (change.approved(), edited.map(|edited| edited.asks)) {
        (Some(approval), _) if approval.by_push => {
            (format!("Approved by {}, by pushing it.", approval.by), Mark::Go, None)
        }
        (Some(approval), _) => (
            format!("Approved by {} for patch set {}: {}", approval.by, approval.patch_set, approval.why),
            Mark::Go,
            None,
        ),
        (None, Some(Some(rule))) if !over => {
            let words = format!(
                "It lands with {}. Until then trunk's limits and questions hold beside its own.",
                andon_gate::plan::approver(rule)
            );
            (words, Mark::Wait, Some(rule.role))
        }
        (None, None) if !over && state.queue.trunk.is_some() => {
            ("What it changes is told when its run is made.".to_owned(), Mark::Wait, None)
        }
        _ => ("Nobody has to approve that here.".to_owned(), Mark::None, None),
    };
    Some(DefinitionView { says, mark, asks, edits })
}

fn runs(state: &State, change: &Change) -> Vec<RunLine> {
    let line = |(patch_set, id): &(u32, RunId)| {
        let run = state.runs.all.get(id)?;
        let (mark, words) = match &run.finished {
            None => (Mark::Live, "is under way".into()),
            Some((_, said)) => verdict(said),
        };
        Some(RunLine { number: id.0, patch_set: *patch_set, mark, words, queued: run.queued })
    };
    change.runs.iter().rev().filter_map(line).collect()
}

fn proof(state: &State, id: ChangeId) -> Option<Proof> {
    state.queue.proofs.get(&id).map(|proof| Proof {
        commit: proof.commit.to_string(),
        tested_tree: proof.tested_tree.to_string(),
        landed_tree: proof.landed_tree.to_string(),
        run: proof.run.0,
    })
}

fn places(state: &State, declared: &[Place], id: ChangeId) -> Vec<(String, Mark, String)> {
    use andon_environment::DeploymentState;
    // A change without an artifact goes nowhere by itself.
    let Some(place) = state.estate.landings.iter().position(|l| l.change == id && l.artifact.is_some())
    else {
        return Vec::new();
    };
    let has =
        |d: &&andon_environment::Deployment| {
            let artifact = state.estate.landings[place].artifact.as_ref();
            let released =
                |name: &EnvironmentName| {
                    state.estate.deployments.values().rev().find(|d| {
                        d.environment == *name && matches!(d.state, DeploymentState::Released { .. })
                    })
                };
            // A change that leaves the artifact as what serves is there already.
            let unchanged = Some(&d.artifact) == artifact
                && released(&d.environment).is_some_and(|serving| serving.id == d.id);
            unchanged
                || state.estate.landings.iter().position(|l| l.run == d.run).is_some_and(|have| have >= place)
        };
    let mut places = Vec::new();
    for (name, waits) in declared {
        let here = state.estate.deployments.values().filter(|d| &d.environment == name).filter(has);
        // Of several that reached everyone the first one counts: since then they have it.
        let best = here.rev().max_by_key(|d| match d.state {
            DeploymentState::Released { .. } if serves(state, d) => 4,
            DeploymentState::Ready => 3,
            DeploymentState::Up => 2,
            DeploymentState::Starting => 1,
            _ => 0,
        });
        let (mark, words) = match best.map(|d| (&d.state, d)) {
            None => match waits {
                Some(why) => (Mark::Wait, format!("waits: {why}")),
                None => (Mark::Wait, "not there yet".to_owned()),
            },
            Some((DeploymentState::Released { .. }, d)) if !serves(state, d) => {
                (Mark::Wait, format!("nobody has it any more: users went back from {}", d.id))
            }
            Some((DeploymentState::Released { at }, d)) => {
                (Mark::Go, format!("everyone has it since {} ({})", at.hh_mm_ss(), d.id))
            }
            Some((DeploymentState::Failed { why }, d)) => (Mark::Stop, format!("{}: {why}", d.id)),
            Some((DeploymentState::Superseded, d)) => (Mark::None, format!("{} was superseded", d.id)),
            Some((_, d)) => (Mark::Live, format!("{} is on its way to users", d.id)),
        };
        places.push((name.to_string(), mark, words));
    }
    places
}

fn reasons(state: &State, change: &Change) -> Vec<String> {
    let Standing::Refused { why, run, .. } = &change.standing else { return Vec::new() };
    let run = run.and_then(|run| state.runs.all.get(&run));
    match run.and_then(|run| run.finished.as_ref()) {
        Some((_, andon_model::event::Verdict::Red { headline, reasons })) => {
            std::iter::once(headline).chain(reasons).cloned().collect()
        }
        _ => why.lines().map(str::to_owned).collect(),
    }
}

/// Whether an event is part of a change's story.
pub fn concerns(state: &State, id: ChangeId, recorded: &Recorded) -> bool {
    let runs_for_it = |run: &RunId| matches!(state.runs.all.get(run).map(|r| &r.purpose), Some(Purpose::Gate { change, .. }) if *change == id);
    match &recorded.event {
        Event::ChangePushed(push) => push.change == id,
        Event::ChangeAbandoned { change, .. }
        | Event::ChangeRefused { change, .. }
        | Event::DefinitionApproved { change, .. }
        | Event::DefinitionEdited { change, .. }
        | Event::Landed { change, .. }
        | Event::CordFixLanded { change, .. }
        | Event::RunQueued { purpose: Purpose::Gate { change, .. }, .. } => *change == id,
        Event::RunFinished { run, .. }
        | Event::JobFinished { run, .. }
        | Event::ArtifactBuilt { run, .. }
        | Event::JobLost { run, .. } => runs_for_it(run),
        Event::DeploymentStarted { changes, .. } => changes.contains(&id),
        Event::DeploymentFinished { deployment, .. }
        | Event::EnvironmentTested { deployment, .. }
        | Event::ReleaseStarted { deployment, .. } => {
            state.estate.deployments.get(deployment).is_some_and(|d| d.changes.contains(&id))
        }
        Event::WeightChanged { release, .. } | Event::ReleaseFinished { release, .. } => {
            let deployment =
                state.releases.get(*release).and_then(|r| state.estate.deployments.get(&r.deployment));
            deployment.is_some_and(|d| d.changes.contains(&id))
        }
        _ => false,
    }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    let first: String = chars.next().map(|c| c.to_uppercase().collect()).unwrap_or_default();
    let rest = first + chars.as_str();
    if rest.ends_with(['.', '!', '?']) { rest } else { rest + "." }
}
