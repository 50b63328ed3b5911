//! The pipeline's controller: gives jobs to the runner, asks for the verdict. The order of jobs is decided in andon-pipeline.
//!
//! [`attempt`] is one attempt of a job from working copy to event, [`reports`] what its report files say, [`verdict`] what the whole run is worth,
//! [`parcels`] and [`caches`] what a working copy begins with and what is kept of it, [`replays`] what need not be run, [`again`] a run made once more, [`approval`] people who are asked.

pub mod again;
pub mod approval;
mod attempt;
mod caches;
mod parcels;
mod replays;
mod reports;
mod verdict;

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use andon_model::event::Event;
use andon_model::{Digest, JobName, RunId};
use andon_pipeline::JobState;
use andon_pipeline::plan::{Decision, next_expiry, plan};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

pub use attempt::{OF_MACHINE, live_log};
pub(super) use attempt::{job_env, pins};
pub use reports::{Gathered, gather_reports};

use replays::Keys;

use super::Pulse;
use crate::{Line, Project, Refusal};

/// The station's name in the journal.
const PIPELINE: &str = "pipeline";
/// Time between two looks when nothing happens.
const LOOK: Duration = Duration::from_secs(30);
/// The shortest time between two looks.
const SOON: Duration = Duration::from_millis(20);

pub(super) async fn run(line: Arc<Line>, project: Arc<Project>, stop: CancellationToken) {
    if let Err(error) = after_restart(&line, &project).await {
        tracing::error!(%error, "interrupted jobs could not be recorded");
    }
    let mut pulse = Pulse::new(&line, &project, stop.clone(), LOOK);
    let mut keys = Keys::default();
    loop {
        let done = step(&line, &project, &mut keys, &stop).await;
        // What time alone decides is looked at when its time has come.
        let next = next_expiry(&project.state().runs).map(|at| at.since(line.now()).duration());
        pulse.every(next.map_or(LOOK, |next| next.clamp(SOON, LOOK)));
        if !pulse.beat(done, PIPELINE).await {
            return;
        }
    }
}

/// Jobs that ran when the server stopped ended with it: they are run again, and it is not the change's fault.
async fn after_restart(line: &Line, project: &Project) -> Result<(), Refusal> {
    // Working copies of attempts that nobody knows any more.
    let _ = std::fs::remove_dir_all(project.room.join("copies"));
    line.decide(project, andon_model::Actor::line(PIPELINE), |state, _| {
        let mut lost = Vec::new();
        for run in state.runs.open() {
            for job in run.jobs.iter().filter(|job| matches!(job.state, JobState::Running { .. })) {
                let why = "the server stopped under it".into();
                lost.push(Event::JobLost {
                    run: run.id,
                    job: job.plan.name.clone(),
                    attempt: job.attempts,
                    why,
                });
            }
        }
        Ok((lost, ()))
    })
    .await
}

async fn step(
    line: &Arc<Line>,
    project: &Arc<Project>,
    keys: &mut Keys,
    stop: &CancellationToken,
) -> Result<(), Refusal> {
    cancel_unneeded(project);
    while keys.replay(line, project).await? {}
    let decisions = plan(&project.state().runs, line.slots.available_permits(), line.now());
    for decision in decisions {
        match decision {
            Decision::Ask { run, job, until } => {
                line.tell(project, PIPELINE, vec![Event::ApprovalAsked { run, job, until }]).await?;
            }
            Decision::Expire { run, job, why } => approval::expire(line, project, run, job, why).await?,
            Decision::Start { run, job, attempt } => {
                // Another project may have been quicker: then a job that ends wakes us again.
                let Ok(slot) = Arc::clone(&line.slots).try_acquire_owned() else { continue };
                let key = keys.of(run, &job);
                start(line, project, (run, job, attempt), key, slot, stop).await?;
            }
            Decision::Skip { run, job, why } => {
                line.tell(project, PIPELINE, vec![Event::JobSkipped { run, job, why }]).await?;
            }
            Decision::Judge { run } => verdict::give(line, project, run).await?,
        }
    }
    Ok(())
}

fn cancel_unneeded(project: &Project) {
    let state = project.state();
    let jobs = project.jobs.lock().unwrap_or_else(PoisonError::into_inner);
    for ((run, _), token) in jobs.iter() {
        if state.runs.all.get(run).is_none_or(|run| run.finished.is_some()) {
            token.cancel();
        }
    }
}

async fn start(
    line: &Arc<Line>,
    project: &Arc<Project>,
    (run, job, attempt): (RunId, JobName, u32),
    key: Option<Digest>,
    slot: OwnedSemaphorePermit,
    stop: &CancellationToken,
) -> Result<(), Refusal> {
    let keyed = key.map(|key| Event::JobKeyed { run, job: job.clone(), key });
    let started = Event::JobStarted { run, job: job.clone(), attempt };
    line.tell(project, PIPELINE, keyed.into_iter().chain([started]).collect()).await?;
    let token = stop.child_token();
    let key = (run, job.clone());
    project.jobs.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone(), token.clone());
    let (line, project) = (Arc::clone(line), Arc::clone(project));
    tokio::spawn(async move {
        let events = attempt::run(&line, &project, run, &job, attempt, &token).await;
        project.jobs.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
        drop(slot);
        if let Err(error) = line.tell(&project, "runner", events).await {
            tracing::error!(%error, %run, %job, "the end of a job could not be recorded");
        }
        line.wake_others(&project);
    });
    Ok(())
}

impl Line {
    /// A place for a job became free: other projects may have been waiting for it.
    fn wake_others(&self, project: &Project) {
        for other in self.projects().iter().filter(|other| other.name != project.name) {
            if let Some(last) = other.state().feed.back() {
                self.nudge(last);
            }
        }
    }
}
