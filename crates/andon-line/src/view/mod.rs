//! What is shown of a project, as values: the same facts in the same words for the pages, the terminal and programs. No markup, no HTTP.
//!
//! A view is built from the state at one moment. Every view begins with the answer (`heading`, `sentence`), then the few numbers that
//! decide, then the detail; everything that waits says what for.

pub mod andon;
pub mod change;
pub mod coverage;
pub mod data;
pub mod environment;
pub mod flags;
pub mod flow;
pub mod hosts;
pub mod infrastructure;
mod isolation;
pub mod parity;
pub mod provenance;
pub mod queue;
pub mod recovery;
pub mod release;
pub mod run;
pub mod runners;
pub mod secrets;
pub mod shells;
pub mod tests;
pub mod traffic;
pub mod wall;

use andon_model::event::{JobEnd, Recorded, Verdict};
use andon_model::{Span, Time};
use serde::{Deserialize, Serialize};

use crate::State;

pub use andon::{AndonView, AndonsView};
pub use andon_runner::log::{self, Log, Place};
pub use change::ChangeView;
pub use coverage::{CoverageView, SourceView};
pub use environment::{EnvironmentView, EnvironmentsView};
pub use flags::FlagsView;
pub use flow::FlowView;
pub use hosts::HostsView;
pub use infrastructure::{InfraRunView, InfrastructureView};
pub use parity::ParityView;
pub use queue::{ChangeRow, QueueView};
pub use recovery::RecoveryView;
pub use release::{ReleaseView, ReleasesView};
pub use run::RunView;
pub use runners::RunnersView;
pub use shells::ShellsView;
pub use tests::TestsView;
pub use traffic::TrafficView;
pub use wall::WallView;

/// A state's mark: shape and colour in the browser, a sign in the terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mark {
    /// Runs, is well.
    Go,
    /// Is under way.
    Live,
    /// Waits.
    Wait,
    /// Stopped, failed.
    Stop,
    /// Is not there, does not matter.
    None,
}

impl Mark {
    /// The sign in the terminal.
    pub fn sign(self) -> char {
        match self {
            Mark::Go => '●',
            Mark::Live => '○',
            Mark::Wait => '▲',
            Mark::Stop => '■',
            Mark::None => '–',
        }
    }
}

/// A number that decides, with what it means.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fact {
    /// The number as people read it.
    pub value: String,
    /// What it is, with its doubt.
    pub label: String,
    /// Its state, where it has one.
    pub mark: Mark,
}

/// Where the output of a job is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// In this file, which does not change any more.
    Whole(std::path::PathBuf),
    /// In this file, which grows, or is not there yet.
    Growing(std::path::PathBuf),
}

impl Output {
    /// Opens it.
    pub fn open(&self) -> std::io::Result<Log> {
        match self {
            Output::Whole(file) => Log::open(file),
            Output::Growing(file) => Log::growing(file),
        }
    }

    /// Whether more may come.
    pub fn grows(&self) -> bool {
        matches!(self, Output::Growing(_))
    }
}

/// A fact without a state.
pub fn fact(value: impl Into<String>, label: impl Into<String>) -> Fact {
    Fact { value: value.into(), label: label.into(), mark: Mark::None }
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Moment {
    /// Its place in the journal.
    pub seq: u64,
    /// When.
    pub at: Time,
    /// How it counts.
    pub mark: Mark,
    /// Who.
    pub by: String,
    /// What, in a sentence.
    pub words: String,
    /// Where more of it is shown: a path below the project.
    pub link: Option<String>,
}

/// What stands over every page.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Frame {
    /// The project.
    pub project: String,
    /// Its branch.
    pub trunk: String,
    /// Where the branch stands, short.
    pub commit: Option<String>,
    /// The cord: green, yellow (something waits or is wrong but the line runs), red.
    pub cord: Mark,
    /// The andon that stops the line, with its title.
    pub andon: Option<(String, String)>,
    /// What waits or is wrong although the line runs.
    pub says: Option<String>,
    /// The newest event seen.
    pub seq: u64,
    /// When the view was made.
    pub now: Time,
}

/// The frame of this moment.
pub fn frame(state: &State, project: &str, now: Time) -> Frame {
    let andon = state.open_andon();
    let says = wrong(state);
    let cord = match (&andon, &says) {
        (Some(_), _) => Mark::Stop,
        (None, Some(_)) => Mark::Wait,
        (None, None) => Mark::Go,
    };
    Frame {
        project: project.to_owned(),
        trunk: state.trunk.clone(),
        commit: state.queue.trunk.as_ref().map(|commit| commit.short().to_owned()),
        cord,
        andon,
        says,
        seq: state.feed.back().map_or(0, |event| event.seq),
        now,
    }
}

/// What is not as it should be while the line runs: a release that stands still, an environment that differs from code.
fn wrong(state: &State) -> Option<String> {
    let paused = state.releases.under_way().find_map(|release| Some((release, release.paused.as_ref()?)));
    if let Some((release, pause)) = paused {
        return Some(format!("{} is paused by {}: {}", release.id, pause.by, pause.why));
    }
    let drifting = state.estate.environments.values().find_map(|e| Some((e, &e.drifts.first()?.1)));
    let tainted = state.estate.environments.values().find_map(|e| Some((e, e.tainted.as_ref()?)));
    drifting
        .map(|(environment, drift)| format!("{} differs from its code: {}", environment.name, drift.what))
        .or_else(|| tainted.map(|(environment, taint)| format!("{} is {taint}", environment.name)))
}

/// `3 minutes ago`, for sentences.
pub fn ago(now: Time, then: Time) -> String {
    match now.since(then) {
        Span(0..2000) => "just now".into(),
        span => format!("{span} ago"),
    }
}

/// A verdict's mark and words.
pub fn verdict(verdict: &Verdict) -> (Mark, String) {
    match verdict {
        Verdict::Green => (Mark::Go, "green".into()),
        Verdict::Red { headline, .. } => (Mark::Stop, headline.clone()),
        Verdict::Broken { why } => (Mark::Wait, format!("broken infrastructure: {why}")),
    }
}

/// A job's end, as mark and words.
pub fn job_end(end: &JobEnd) -> (Mark, String) {
    match end {
        JobEnd::Passed => (Mark::Go, "passed".into()),
        JobEnd::Failed { code } => (Mark::Stop, format!("failed with exit status {code}")),
        JobEnd::TimedOut { after } => (Mark::Stop, format!("stopped after {after}")),
        JobEnd::Quiet { after } => (Mark::Stop, format!("stopped: it printed nothing for {after}")),
        JobEnd::OutOfMemory { limit: Some(limit) } => {
            (Mark::Stop, format!("was killed: it used more memory than its limit of {} MiB", limit >> 20))
        }
        JobEnd::OutOfMemory { limit: None } => (Mark::Stop, "was killed: memory ran out".into()),
        JobEnd::TooMuchOutput { most } => {
            (Mark::Stop, format!("stopped: it printed more than {} MiB", most >> 20))
        }
        JobEnd::Broken { why } => (Mark::Wait, why.clone()),
        JobEnd::Refused { why } => (Mark::Stop, format!("was refused: {why}")),
    }
}

/// `2 changes`, `1 change`.
pub fn count(n: usize, one: &str) -> String {
    match n {
        1 => format!("1 {one}"),
        n => format!("{n} {one}s"),
    }
}

/// The moments among these events, newest first.
pub fn moments<'a>(events: impl DoubleEndedIterator<Item = &'a Recorded>, most: usize) -> Vec<Moment> {
    events.rev().filter_map(moment).take(most).collect()
}

/// An event in words; none for those that only matter inside a station.
pub fn moment(recorded: &Recorded) -> Option<Moment> {
    let (mark, words, link) = super::words::of(&recorded.event)?;
    let by = recorded.by.to_string();
    Some(Moment { seq: recorded.seq, at: recorded.at, mark, by, words, link })
}

impl crate::Line {
    /// The page of a change.
    pub fn change_view(
        &self,
        project: &crate::Project,
        id: andon_model::ChangeId,
    ) -> Result<ChangeView, crate::Refusal> {
        let state = project.state();
        let found = state
            .queue
            .changes
            .get(&id)
            .ok_or_else(|| crate::Refusal::Unknown(format!("there is no change {id}")))?;
        let now = self.now();
        let waits = |name: &andon_model::EnvironmentName| {
            let waits = crate::stations::environment::waits::waits_for(project, &state, name, now);
            (name.clone(), waits.map(|waits| waits.why))
        };
        let places: Vec<_> = wall::places(project, &state).iter().map(waits).collect();
        Ok(change::change(&state, project.name.as_str(), &places, found, now))
    }

    /// The page of a run, with its report once it is over.
    pub async fn run_view(
        &self,
        project: &crate::Project,
        id: andon_model::RunId,
    ) -> Result<RunView, crate::Refusal> {
        let unknown = || crate::Refusal::Unknown(format!("there is no {id}"));
        let digest = project.state().runs.all.get(&id).ok_or_else(unknown)?.report.clone();
        let report = match digest {
            Some(digest) => Some(self.run_report(digest).await?),
            None => None,
        };
        let state = project.state();
        let found = state.runs.all.get(&id).ok_or_else(unknown)?;
        Ok(run::run(&state, &self.job_places(), project.name.as_str(), found, report.as_ref(), self.now()))
    }

    /// The steps of a job's newest attempt that are over, with the byte at which the output of each begins.
    pub fn steps_of(
        &self,
        project: &crate::Project,
        id: andon_model::RunId,
        name: &andon_model::JobName,
    ) -> Vec<(String, u64)> {
        let state = project.state();
        let job = state.runs.all.get(&id).and_then(|run| run.job(name));
        job.map(|job| job.steps.iter().map(|step| (step.name.clone(), step.log_at)).collect())
            .unwrap_or_default()
    }

    /// The output of a job's newest attempt, whole or still growing.
    pub fn log(
        &self,
        project: &crate::Project,
        id: andon_model::RunId,
        name: &andon_model::JobName,
    ) -> Result<Output, crate::Refusal> {
        let state = project.state();
        let job = state.runs.all.get(&id).and_then(|run| run.job(name));
        let job = job.ok_or_else(|| crate::Refusal::Unknown(format!("{id} has no job {name}")))?;
        match &job.state {
            andon_pipeline::JobState::Ended { log: Some(log), .. } => Ok(Output::Whole(self.blobs.path(log))),
            _ if job.attempts > 0 => {
                Ok(Output::Growing(crate::stations::pipeline::live_log(project, id, name, job.attempts)))
            }
            _ => Err(crate::Refusal::Unknown(format!("{name} has not begun"))),
        }
    }
}
