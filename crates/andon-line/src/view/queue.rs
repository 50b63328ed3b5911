//! The queue: what lands next, what waits and what for, what was decided lately.

use andon_gate::Standing;
use andon_gate::plan::waits_for;
use andon_gate::state::Change;
use andon_model::{RunId, Span, Time};
use andon_pipeline::JobState;
use serde::{Deserialize, Serialize};

use super::{Frame, Mark, ago, count, frame};
use crate::State;
use crate::stations::pipeline::approval::asked;

/// Decided changes that the page shows.
const RECENT: usize = 30;

/// The page of the queue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QueueView {
    /// Over every page.
    pub frame: Frame,
    /// The answer.
    pub heading: String,
    /// Since when, what follows by itself.
    pub sentence: String,
    /// Changes on their way, next first.
    pub open: Vec<ChangeRow>,
    /// Decided ones, newest first.
    pub recent: Vec<ChangeRow>,
}

/// A change in a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChangeRow {
    /// `#12`.
    pub id: String,
    /// Its number.
    pub number: u32,
    /// First line of its message.
    pub title: String,
    /// As git has it.
    pub author: String,
    /// Its newest patch set.
    pub patch_set: u32,
    /// The commit pushed, short.
    pub head: String,
    /// `waiting`, `testing`, `green`, `landed`, `refused`, `abandoned`.
    pub standing: String,
    /// The same as a mark.
    pub mark: Mark,
    /// What it waits for, or what was said about it.
    pub words: String,
    /// Since when it stands so.
    pub since: Time,
    /// Its newest run.
    pub run: Option<u32>,
    /// How far the run is, in percent of its usual time.
    pub progress: Option<u8>,
    /// Andon that it says it fixes.
    pub fixes: Option<String>,
}

/// The view at this moment.
pub fn queue(state: &State, project: &str, now: Time) -> QueueView {
    let open: Vec<ChangeRow> = state.queue.open().map(|change| row(state, change, now)).collect();
    let mut decided: Vec<&Change> = state.queue.changes.values().filter(|c| !c.standing.is_open()).collect();
    decided.sort_by_key(|change| std::cmp::Reverse(since(change)));
    let hold = state.hold().first().copied();
    let heading = match (open.len(), hold) {
        (0, None) => "The queue is empty".to_owned(),
        (n, None) => format!("{} on the way to {}", count(n, "change"), state.trunk),
        (n, Some(andon)) => format!("{} wait for {andon}", count(n, "change")),
    };
    let sentence = match (&hold, state.queue.landed.last().and_then(|id| state.queue.changes.get(id))) {
        (Some(andon), _) => format!("The line is stopped. Only what names {andon} lands."),
        (None, Some(last)) => {
            format!("Last landing: {} {}, {}.", last.id, last.push.title, ago(now, since(last)))
        }
        (None, None) => "Nothing has landed yet: git push andon HEAD:refs/for/".to_owned() + &state.trunk,
    };
    let recent = decided.into_iter().take(RECENT).map(|change| row(state, change, now)).collect();
    QueueView { frame: frame(state, project, now), heading, sentence, open, recent }
}

/// Since when a change stands as it does.
pub(super) fn since(change: &Change) -> Time {
    match &change.standing {
        Standing::Waiting { since } | Standing::Testing { since, .. } | Standing::Green { since, .. } => {
            *since
        }
        Standing::Landed { at, .. } | Standing::Refused { at, .. } | Standing::Abandoned { at, .. } => *at,
    }
}

/// Who a run waits for, when nothing of it goes on without them.
pub(super) fn waits_for_a_person(state: &State, run: RunId, now: Time) -> Option<String> {
    let found = state.runs.all.get(&run).filter(|run| run.finished.is_none())?;
    if found.jobs.iter().any(|job| matches!(job.state, JobState::Running { .. })) {
        return None;
    }
    found.jobs.iter().find_map(|job| match (&job.state, &job.plan.approve) {
        (JobState::Asked { until, .. }, Some(approve)) => {
            let (name, who) = (&job.plan.name, asked(approve));
            Some(format!("{name} of {run} waits for {who}, {} left", until.since(now)))
        }
        _ => None,
    })
}

/// A change as a row.
pub fn row(state: &State, change: &Change, now: Time) -> ChangeRow {
    let waits = waits_for(&state.queue, change, &state.hold());
    let (standing, mark, words) = match &change.standing {
        Standing::Waiting { .. } => {
            ("waiting", Mark::Wait, waits.unwrap_or_else(|| "waits for the gate to take it".into()))
        }
        Standing::Testing { run, .. } => match waits_for_a_person(state, *run, now) {
            Some(waits) => ("testing", Mark::Wait, waits),
            None => ("testing", Mark::Live, testing(state, *run, now)),
        },
        Standing::Green { .. } => match waits {
            Some(waits) => ("green", Mark::Wait, format!("green; {waits}")),
            None => ("green", Mark::Go, "green, landing".into()),
        },
        Standing::Landed { commit, .. } => ("landed", Mark::Go, format!("landed as {}", commit.short())),
        Standing::Refused { why, .. } => ("refused", Mark::Stop, why.clone()),
        Standing::Abandoned { why, .. } => ("abandoned", Mark::None, format!("taken back: {why}")),
    };
    let run = change.runs.last().map(|(_, run)| *run);
    ChangeRow {
        id: change.id.to_string(),
        number: change.id.0,
        title: change.push.title.clone(),
        author: change.push.author.clone(),
        patch_set: change.push.patch_set,
        head: change.push.head.short().to_owned(),
        standing: standing.to_owned(),
        mark,
        words,
        since: since(change),
        run: run.map(|run| run.0),
        progress: run.and_then(|run| progress(state, run, now)),
        fixes: change.fixes().map(|andon| andon.to_string()),
    }
}

fn testing(state: &State, run: andon_model::RunId, now: Time) -> String {
    let Some(run) = state.runs.all.get(&run) else { return "is being tested".into() };
    let done = run.jobs.iter().filter(|job| job.is_settled()).count();
    let jobs = format!("{done} of {} done", count(run.jobs.len(), "job"));
    let left = crate::intake::usual(state).map(|usual| usual.0.saturating_sub(now.since(run.queued).0));
    match left {
        Some(ms) if ms > 0 => format!("{jobs}, lands in about {}", Span(ms.max(1000))),
        _ => jobs,
    }
}

fn progress(state: &State, run: andon_model::RunId, now: Time) -> Option<u8> {
    let run = state.runs.all.get(&run).filter(|run| run.finished.is_none())?;
    let usual = crate::intake::usual(state)?.0.max(1);
    Some((now.since(run.queued).0 * 100 / usual).min(96) as u8)
}
