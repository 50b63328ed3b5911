//! Which job to start next, and where. Pure: all runs and the places in, decisions out.
//!
//! The order among jobs that may start: older run first; then earlier stage; then what was never seen (it may fail in a new way); then the
//! quicker one; then by name, so that the same state always gives the same plan.

use std::collections::{BTreeSet, HashMap};

use andon_model::event::JobEnd;
use andon_model::{GroupName, JobName, RunId, RunnerName, Time};

use crate::runners::Places;
use crate::runs::{JobRun, JobState, Run, Runs};

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// Give the job to a runner.
    Start {
        /// The run.
        run: RunId,
        /// The job.
        job: JobName,
        /// Counts from 1.
        attempt: u32,
        /// None: the server's own machine.
        on: Option<RunnerName>,
    },
    /// Ask people whether the run may go on.
    Ask {
        /// The run.
        run: RunId,
        /// The job that waits for them.
        job: JobName,
        /// Nobody is waited for after this.
        until: Time,
    },
    /// Somebody said yes to this patch set before: nobody is asked twice.
    Carry {
        /// The run.
        run: RunId,
        /// The job.
        job: JobName,
        /// The run in which they said it.
        from: RunId,
    },
    /// Nobody said yes in time.
    Expire {
        /// The run.
        run: RunId,
        /// The job that waited.
        job: JobName,
        /// The reason.
        why: String,
    },
    /// The job will not be run.
    Skip {
        /// The run.
        run: RunId,
        /// The job.
        job: JobName,
        /// The reason.
        why: String,
    },
    /// All jobs are settled: the verdict is due.
    Judge {
        /// The run.
        run: RunId,
    },
}

/// The next decisions, where jobs may run on these places.
pub fn plan(runs: &Runs, places: &Places, now: Time) -> Vec<Decision> {
    let mut decisions = Vec::new();
    let mut ready = Vec::new();
    for run in runs.open() {
        let lost = run.is_lost();
        // A run that is decided waits for what runs, not for what would be tried again.
        if run
            .jobs
            .iter()
            .all(|job| job.is_settled() || (lost && matches!(job.state, JobState::Ended { .. })))
        {
            decisions.push(Decision::Judge { run: run.id });
            continue;
        }
        if lost {
            decisions.extend(skip_rest(run));
            continue;
        }
        decisions.extend(run.jobs.iter().filter_map(|job| expired(run, job, now)));
        for (stage, job) in due(run) {
            match &job.plan.approve {
                Some(approve) => {
                    let (run_id, name) = (run.id, job.plan.name.clone());
                    decisions.push(match runs.approved_before(run, job) {
                        Some(from) => Decision::Carry { run: run_id, job: name, from },
                        None => Decision::Ask { run: run_id, job: name, until: now + approve.within },
                    });
                }
                None => ready.push((run, stage, job)),
            }
        }
    }
    let usual = |job: &JobRun| runs.usual.get(&job.plan.name).map_or(-1.0, |usual| usual.millis);
    ready.sort_by(|(run, stage, job), (other_run, other_stage, other)| {
        (run.id, stage)
            .cmp(&(other_run.id, other_stage))
            .then_with(|| usual(job).total_cmp(&usual(other)))
            .then_with(|| job.plan.name.cmp(&other.plan.name))
    });
    let mut held: BTreeSet<&GroupName> = holders(runs).map(|(group, ..)| group).collect();
    let mut left = places.clone();
    for (run, _, job) in ready {
        if left.is_full() {
            break;
        }
        let Some(on) = left.choose(&job.plan.runs_on, broke_on(job)) else { continue };
        if job.plan.group.as_ref().is_some_and(|group| !held.insert(group)) {
            continue;
        }
        left.take(on.as_ref());
        decisions.push(Decision::Start {
            run: run.id,
            job: job.plan.name.clone(),
            attempt: job.attempts + 1,
            on,
        });
    }
    decisions
}

/// The runner on which the last attempt broke: another one is better, where there is one.
fn broke_on(job: &JobRun) -> Option<&RunnerName> {
    let broke = matches!(job.state, JobState::Ended { end: JobEnd::Broken { .. }, .. });
    job.runner.as_ref().filter(|_| broke).map(|(runner, _)| runner)
}

/// Every job that may start now, of runs that are not decided.
pub fn due_jobs(runs: &Runs) -> impl Iterator<Item = (&Run, &JobRun)> {
    runs.open().filter(|run| !run.is_lost()).flat_map(|run| due(run).map(move |(_, job)| (run, job)))
}

/// What a job that has not begun waits for, for people.
pub fn waits_for(runs: &Runs, places: &Places, run: &Run, job: &JobRun) -> String {
    if job.lost > 0 {
        return "waits to be run again: the machine or the server stopped under it".into();
    }
    let missing = |need: &&JobName| !run.job(need).is_some_and(JobRun::passed);
    let needs: Vec<&str> = job.plan.needs.iter().filter(missing).map(JobName::as_str).collect();
    if !needs.is_empty() {
        return format!("waits for {}", needs.join(", "));
    }
    let stages = stages(run);
    let before = |other: &&JobRun| {
        stages.get(other.plan.stage.as_str()) < stages.get(job.plan.stage.as_str()) && !other.passed()
    };
    if let Some(other) = run.jobs.iter().find(before) {
        return format!("waits for the stage {}", other.plan.stage);
    }
    let holder = holders(runs).find(|(group, ..)| Some(*group) == job.plan.group.as_ref());
    match holder {
        Some((group, run, job)) => format!("waits for {run} {job}: one job of {group} at a time"),
        None => places.waits_for(&job.plan.runs_on),
    }
}

/// Groups of which a job runs, with that job.
fn holders(runs: &Runs) -> impl Iterator<Item = (&GroupName, RunId, &JobName)> {
    runs.running.iter().filter_map(|(run, job)| {
        let group = runs.all.get(run)?.job(job)?.plan.group.as_ref()?;
        Some((group, *run, job))
    })
}

/// Stages in the order in which they are mentioned.
fn stages(run: &Run) -> HashMap<&str, usize> {
    let mut places = HashMap::new();
    for job in &run.jobs {
        let next = places.len();
        places.entry(job.plan.stage.as_str()).or_insert(next);
    }
    places
}

/// The jobs that may start, each with the place of its stage.
fn due(run: &Run) -> impl Iterator<Item = (usize, &JobRun)> {
    let stages = stages(run);
    let place = move |job: &JobRun| stages.get(job.plan.stage.as_str()).copied().unwrap_or(0);
    // Stages behind the first one that is not passed wait for it.
    let first = run.jobs.iter().filter(|job| !job.passed()).map(&place).min().unwrap_or(0);
    run.jobs.iter().filter_map(move |job| {
        let begins = match &job.state {
            JobState::Waiting => true,
            JobState::Ended { end, .. } => !job.is_settled() && *end != JobEnd::Passed,
            _ => false,
        };
        let stage = place(job);
        let ready = begins
            && stage <= first
            && job.plan.needs.iter().all(|need| run.job(need).is_some_and(JobRun::passed));
        ready.then_some((stage, job))
    })
}

/// When the first of those who are asked is waited for no longer.
pub fn next_expiry(runs: &Runs) -> Option<Time> {
    let until = |job: &JobRun| match job.state {
        JobState::Asked { until, .. } => Some(until),
        _ => None,
    };
    runs.open().flat_map(|run| run.jobs.iter().filter_map(until)).min()
}

fn expired(run: &Run, job: &JobRun, now: Time) -> Option<Decision> {
    let JobState::Asked { until, .. } = job.state else { return None };
    let within = job.plan.approve.as_ref()?.within;
    let why = format!("nobody said yes within {within}");
    (now >= until).then(|| Decision::Expire { run: run.id, job: job.plan.name.clone(), why })
}

fn skip_rest(run: &Run) -> Vec<Decision> {
    let lost = run
        .jobs
        .iter()
        .find(|job| matches!(job.state, JobState::Ended { .. }) && job.is_settled() && !job.passed());
    let why = lost.map_or_else(String::new, |job| match &job.state {
        JobState::Ended { end: JobEnd::Broken { .. }, .. } => {
            format!("the infrastructure broke under {}: the run says nothing", job.plan.name)
        }
        _ => format!("{} is red: the run is decided", job.plan.name),
    });
    let waiting =
        run.jobs.iter().filter(|job| matches!(job.state, JobState::Waiting | JobState::Asked { .. }));
    waiting.map(|job| Decision::Skip { run: run.id, job: job.plan.name.clone(), why: why.clone() }).collect()
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
