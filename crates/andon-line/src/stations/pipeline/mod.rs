//! The pipeline's controller: gives jobs to the runner, asks for the verdict. The order of jobs is decided in andon-pipeline.
//!
//! [`attempt`] is one attempt of a job from working copy to event, [`reports`] what its report files say, [`verdict`] what the whole run is worth.

mod attempt;
mod reports;
mod verdict;

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use andon_model::event::Event;
use andon_model::{JobName, RunId};
use andon_pipeline::JobState;
use andon_pipeline::plan::{Decision, plan};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

pub(super) use attempt::job_env;
pub use attempt::live_log;
pub(in crate::stations) use reports::Gathered;

use super::Pulse;
use crate::{Line, Project, Refusal};

/// The station's name in the journal.
const PIPELINE: &str = "pipeline";

pub(super) async fn run(line: Arc<Line>, project: Arc<Project>, stop: CancellationToken) {
    if let Err(error) = after_restart(&line, &project).await {
        tracing::error!(%error, "interrupted jobs could not be recorded");
    }
    let mut pulse = Pulse::new(&line, &project, stop.clone(), Duration::from_secs(30));
    loop {
        let done = step(&line, &project, &stop).await;
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

async fn step(line: &Arc<Line>, project: &Arc<Project>, stop: &CancellationToken) -> Result<(), Refusal> {
    cancel_unneeded(project);
    let decisions = plan(&project.state().runs, line.slots.available_permits());
    for decision in decisions {
        match decision {
            Decision::Start { run, job, attempt } => {
                // Another project may have been quicker: then a job that ends wakes us again.
                let Ok(slot) = Arc::clone(&line.slots).try_acquire_owned() else { continue };
                start(line, project, run, job, attempt, slot, stop).await?;
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
    run: RunId,
    job: JobName,
    attempt: u32,
    slot: OwnedSemaphorePermit,
    stop: &CancellationToken,
) -> Result<(), Refusal> {
    let started = Event::JobStarted { run, job: job.clone(), attempt };
    line.tell(project, PIPELINE, vec![started]).await?;
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
