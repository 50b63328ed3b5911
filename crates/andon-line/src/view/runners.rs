//! Runners, as the page and the terminal show them: which take jobs, and what each has.

use andon_model::{RunnerName, Time};
use andon_pipeline::Standing;
use serde::{Deserialize, Serialize};

use super::{Mark, ago, count};
use crate::Line;

/// All of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunnersView {
    /// The answer.
    pub heading: String,
    /// Jobs that the server's own machine can take beside those it has.
    pub here: usize,
    /// Those that joined.
    pub runners: Vec<RunnerRow>,
    /// Where machines dial this server; none: it lets none in.
    pub dial: Option<String>,
}

/// One runner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunnerRow {
    /// Its name.
    pub name: String,
    /// Its state.
    pub mark: Mark,
    /// The same in words.
    pub words: String,
    /// What jobs may ask for.
    pub labels: Vec<String>,
    /// Jobs at once.
    pub slots: u32,
    /// Jobs that it has: `unit of shop run-3`.
    pub jobs: Vec<String>,
    /// It gets no job any more.
    pub leaving: bool,
    /// Since when it is a runner.
    pub joined: Time,
}

/// As it stands.
pub fn runners(line: &Line) -> RunnersView {
    let (known, places, now) = (line.runners().clone(), line.job_places(), line.now());
    let row = |runner: &andon_pipeline::runners::Runner| {
        let standing =
            places.runners.iter().find(|place| place.name == runner.name).map(|place| place.standing);
        let jobs = jobs(line, &runner.name);
        let (mark, words) = match (&runner.leaving, standing) {
            (Some(leaving), _) => {
                let what = if leaving.forget { "leaves" } else { "gets no more jobs" };
                let since = ago(now, leaving.since);
                let mark = if jobs.is_empty() { Mark::None } else { Mark::Live };
                (mark, format!("{what} since {since} ({}): {} to go", leaving.why, count(jobs.len(), "job")))
            }
            (None, Some(Standing::Takes)) => {
                (Mark::Go, format!("has {} of {}", jobs.len(), count(runner.slots as usize, "job")))
            }
            (None, _) => (Mark::Wait, "not connected; what runs there goes on".to_owned()),
        };
        RunnerRow {
            name: runner.name.to_string(),
            mark,
            words,
            labels: runner.labels.iter().map(ToString::to_string).collect(),
            slots: runner.slots,
            jobs,
            leaving: runner.leaving.is_some(),
            joined: runner.joined,
        }
    };
    let runners: Vec<RunnerRow> = known.joined.values().map(row).collect();
    let taking = runners.iter().filter(|runner| runner.mark == Mark::Go).count();
    let heading = match (runners.len(), taking) {
        (0, _) => "All jobs run on the server's own machine".to_owned(),
        (_, 1) => "1 runner takes jobs".to_owned(),
        (_, 0) => "No runner takes jobs".to_owned(),
        (_, n) => format!("{n} runners take jobs"),
    };
    RunnersView { heading, here: places.here, runners, dial: line.runners_dial().map(str::to_owned) }
}

/// Jobs of all projects that this runner has.
fn jobs(line: &Line, runner: &RunnerName) -> Vec<String> {
    let mut all = Vec::new();
    for project in line.projects() {
        let state = project.state();
        for (run, job) in &state.runs.running {
            let found = state.runs.all.get(run).and_then(|run| run.job(job));
            if found.and_then(|job| job.runner.as_ref()).is_some_and(|(name, _)| name == runner) {
                all.push(format!("{job} of {} {run}", project.name));
            }
        }
    }
    all
}
