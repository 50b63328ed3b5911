//! The pipeline's controller: gives jobs to the runner, asks for the verdict. The order of jobs is decided in andon-pipeline.
//!
//! [`attempt`] is one attempt of a job from working copy to event, [`reports`] what its report files say, [`early`] its first red test, [`verdict`] what the whole run is worth,
//! [`parcels`] and [`caches`] what a working copy begins with and what is kept of it, [`replays`] what need not be run, [`again`] a run made
//! once more, [`approval`] people who are asked.

pub mod again;
pub mod approval;
mod attempt;
mod caches;
mod early;
mod parcels;
mod replays;
mod reports;
mod verdict;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use andon_model::event::{Event, JobIsolation};
use andon_model::{Digest, RunnerName};
use andon_pipeline::JobState;
use andon_pipeline::plan::{Decision, next_expiry, plan};
use andon_runner::End;
use andon_runner::remote::Which;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

use attempt::{Held, Id};
pub(super) use attempt::{hand_over, home, job_env, job_order, keep_log, pins, with_engine};
pub use attempt::{job_end, live_log, plain_env, plain_order};
pub use reports::{Gathered, gather_reports};

use replays::Keys;

use super::Pulse;
use crate::runners::Slot;
use crate::{Line, Project, Refusal};

/// Between two tries to record how a job ended.
const AGAIN: Duration = Duration::from_secs(1);
/// The station's name in the journal.
const PIPELINE: &str = "pipeline";
/// Time between two looks when nothing happens.
const LOOK: Duration = Duration::from_secs(30);
/// The shortest time between two looks.
const SOON: Duration = Duration::from_millis(20);

pub(super) async fn run(line: Arc<Line>, project: Arc<Project>, stop: CancellationToken) {
    after_restart(&line, &project, &stop).await;
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

/// Attempts that an earlier server began: what still runs is taken up, what ended meanwhile is gathered, and what is gone is recorded as
/// lost and run again. What the journal does not know is ended.
async fn after_restart(line: &Arc<Line>, project: &Arc<Project>, stop: &CancellationToken) {
    // Of servers of before attempts had rooms.
    let _ = std::fs::remove_dir_all(project.room.join("copies"));
    let mut begun: BTreeMap<String, Id> = BTreeMap::new();
    for run in project.state().runs.all.values() {
        for job in run.jobs.iter().filter(|job| matches!(job.state, JobState::Running { .. })) {
            let id = Id { run: run.id, job: job.plan.name.clone(), attempt: job.attempts };
            begun.insert(id.name(), id);
        }
    }
    let (own, names) = (Arc::clone(line), begun.keys().cloned().collect::<BTreeSet<_>>());
    let rooms = attempt::rooms(project);
    let swept = tokio::task::spawn_blocking(move || own.runner.sweep(&rooms, |name| names.contains(name)));
    // What will not go must not keep the others from being taken up.
    if let Err(error) = swept.await.map_err(std::io::Error::other).and_then(|swept| swept) {
        tracing::error!(%error, project = %project.name, "attempts that nobody knows are not all ended");
    }
    for id in begun.into_values() {
        if let Some((runner, which)) = id.assigned(project) {
            // Whether it is there is seen once that runner is back.
            let slot = line.take_slot(&runner, true).map(Place::There);
            let follow = attempt::follow_there(line, project, &id, &runner, which);
            take_up(line, project, id, slot, stop, async { Ok(follow) });
            continue;
        }
        let room = id.room(project);
        let adopted = match room.dir().exists() {
            true => line.runner.adopt(&room).await,
            false => Ok(None),
        };
        match adopted {
            Ok(Some(running)) => {
                // Its place is its own, also where there are fewer now.
                let slot = Arc::clone(&line.slots).try_acquire_owned().ok().map(Place::Here);
                take_up(line, project, id, slot, stop, async { Ok(Held::Here(running)) });
            }
            Ok(None) => {
                lose(line, project, &id, "the machine or the process that held it went down", stop).await
            }
            Err(why) => {
                tracing::error!(attempt = id.name(), why, "an attempt is given up");
                lose(line, project, &id, &why, stop).await;
            }
        }
    }
}

/// Records that an attempt counts for nothing, however often that takes: until then its job would seem to run.
async fn lose(line: &Line, project: &Project, id: &Id, why: &str, stop: &CancellationToken) {
    let room = id.room(project);
    // What stays is swept at the next start.
    let _ = tokio::task::spawn_blocking(move || room.remove()).await;
    let Id { run, job, attempt } = id.clone();
    let lost = Event::JobLost { run, job, attempt, why: why.to_owned() };
    while let Err(error) = line.tell(project, PIPELINE, vec![lost.clone()]).await {
        tracing::error!(%error, attempt = id.name(), "a lost attempt could not be recorded, it is tried again");
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(AGAIN) => {}
        }
    }
}

async fn step(
    line: &Arc<Line>,
    project: &Arc<Project>,
    keys: &mut Keys,
    stop: &CancellationToken,
) -> Result<(), Refusal> {
    cancel_unneeded(project);
    while keys.replay(line, project).await? {}
    let decisions = plan(&project.state().runs, &line.job_places(), line.now());
    for decision in decisions {
        match decision {
            Decision::Ask { run, job, until } => {
                line.tell(project, PIPELINE, vec![Event::ApprovalAsked { run, job, until }]).await?;
            }
            Decision::Carry { run, job, from } => {
                line.tell(project, PIPELINE, vec![Event::JobReplayed { run, job, from, key: None }]).await?;
            }
            Decision::Expire { run, job, why } => approval::expire(line, project, run, job, why).await?,
            Decision::Start { run, job, attempt, on } => {
                // Another project may have been quicker: then a job that ends wakes us again.
                let slot = match &on {
                    None => Arc::clone(&line.slots).try_acquire_owned().ok().map(Place::Here),
                    Some(runner) => line.take_slot(runner, false).map(Place::There),
                };
                let Some(slot) = slot else { continue };
                let key = keys.of(run, &job);
                start(line, project, Id { run, job, attempt }, on, key, slot, stop).await?;
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

/// A place for a job, until it is dropped.
#[allow(dead_code, reason = "held, not read")]
enum Place {
    Here(OwnedSemaphorePermit),
    There(Slot),
}

async fn start(
    line: &Arc<Line>,
    project: &Arc<Project>,
    id: Id,
    on: Option<RunnerName>,
    key: Option<Digest>,
    slot: Place,
    stop: &CancellationToken,
) -> Result<(), Refusal> {
    let isolation = isolation(line, project, &id, on.as_ref()).await?;
    let (run, job, attempt) = (id.run, id.job.clone(), id.attempt);
    let assigned = on.map(|runner| {
        // Nobody else gives out numbers of this project.
        let number = project.state().runs.assigned + 1;
        Event::JobAssigned { run, job: job.clone(), attempt, runner, number }
    });
    let keyed = key.map(|key| Event::JobKeyed { run, job: job.clone(), key });
    let started = Event::JobStarted { run, job, attempt, isolation };
    line.tell(project, PIPELINE, keyed.into_iter().chain([started]).chain(assigned).collect()).await?;
    let (own, of, begun) = (Arc::clone(line), Arc::clone(project), id.clone());
    let begin = async move { attempt::begin(&own, &of, &begun).await };
    take_up(line, project, id, Some(slot), stop, begin);
    Ok(())
}

/// What will separate the attempt from everything else.
async fn isolation(
    line: &Arc<Line>,
    project: &Project,
    id: &Id,
    on: Option<&RunnerName>,
) -> Result<JobIsolation, Refusal> {
    let commit = project.state().runs.all.get(&id.run).map(|run| run.commit.clone());
    let Some(commit) = commit else { return Ok(JobIsolation::default()) };
    let defined = project.definition(&commit).await?;
    let Ok(definition) = &*defined else { return Ok(JobIsolation::default()) };
    let Some(job) = definition.pipeline.jobs.get(&id.job) else { return Ok(JobIsolation::default()) };
    let (own, bounds, network) = (Arc::clone(line), attempt::bounds(job), job.network);
    let image = job.image.clone();
    if let Some(runner) = on {
        return Ok(line.crew.isolation(runner, &bounds, network, image.as_deref()));
    }
    let asked = tokio::task::spawn_blocking(move || own.runner.isolation(&bounds, network, image.as_deref()));
    asked.await.map_err(|error| Refusal::Broken(error.to_string()))
}

/// Whether the journal says that this runner has this assignment.
pub(super) fn has_assigned(line: &Line, runner: &RunnerName, which: &Which) -> bool {
    let Ok(project) = line.project(which.project.as_str()) else { return false };
    let running = project.state().runs.running.clone();
    running.into_iter().any(|(run, job)| {
        let attempt =
            project.state().runs.all.get(&run).and_then(|run| run.job(&job)).map_or(0, |job| job.attempts);
        Id { run, job, attempt }.assigned(&project) == Some((runner.clone(), which.clone()))
    })
}

/// Looks after an attempt in a task of its own, from its beginning, or from where it was found, to its recorded end.
fn take_up(
    line: &Arc<Line>,
    project: &Arc<Project>,
    id: Id,
    slot: Option<Place>,
    stop: &CancellationToken,
    begin: impl Future<Output = Result<Held, String>> + Send + 'static,
) {
    let token = CancellationToken::new();
    let key = (id.run, id.job.clone());
    project.jobs.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone(), token.clone());
    let (line, project, stop) = (Arc::clone(line), Arc::clone(project), stop.clone());
    tokio::spawn(async move {
        let end = match begin.await {
            Ok(running) => attempt::follow(&line, &project, &id, running, &token, &stop).await,
            Err(why) => Some(End::Broken(why)),
        };
        // None: the server stops. The attempt does not, and the next server takes it up.
        if let Some(end) = end {
            while let Err(error) = attempt::finish(&line, &project, &id, &end).await {
                tracing::error!(%error, attempt = id.name(), "the end of a job could not be recorded, it is tried again");
                tokio::select! {
                    // The next server finds it in its room.
                    () = stop.cancelled() => break,
                    () = tokio::time::sleep(AGAIN) => {}
                }
            }
        }
        project.jobs.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
        drop(slot);
        // A place for a job became free: other projects may have been waiting for it.
        line.wake_all();
    });
}
