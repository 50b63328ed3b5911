//! The pipeline's controller: gives jobs to the runner, gathers what they leave, asks for the verdict. The order of jobs is decided in
//! andon-pipeline, the verdict in andon-validation.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use andon_model::event::{Event, JobEnd, Purpose, TestCounts};
use andon_model::{Digest, JobName, Oid, Pins, RunId};
use andon_pipeline::definition::{Job, Pipeline};
use andon_pipeline::plan::{Decision, plan};
use andon_pipeline::{Definition, JobState};
use andon_runner::{End, Order, gather};
use andon_validation::junit::{self, Limits, Report};
use andon_validation::limits::{CoverageLimits, judge};
use andon_validation::{Coverage, JobResult, RunReport, coverage, diff, verdict};
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

use super::Pulse;
use crate::{Line, Project, Refusal};

/// The station's name in the journal.
const PIPELINE: &str = "pipeline";
/// Time between asking a job to end and killing it.
const GRACE: andon_model::Span = andon_model::Span::secs(5);
/// Bytes that a job may print: far beyond any log that helps, and it cannot fill a disk.
const LOG_LIMIT: u64 = 4 << 30;
/// Largest coverage report that is read, in bytes.
const COVERAGE_LIMIT: u64 = 256 << 20;
/// Largest stored report that is read again, in bytes.
const STORED_LIMIT: u64 = 512 << 20;

/// What one attempt of a job left behind, as its blob keeps it.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Gathered {
    tests: Vec<Report>,
    coverage: Coverage,
    unreadable: Vec<String>,
    warnings: Vec<String>,
}

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
            Decision::Judge { run } => give_verdict(line, project, run).await?,
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
        let events = attempt_job(&line, &project, run, &job, attempt, &token).await;
        project.jobs.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
        drop(slot);
        if let Err(error) = line.tell(&project, "runner", events).await {
            tracing::error!(%error, %run, %job, "the end of a job could not be recorded");
        }
        line.wake_others(&project);
    });
    Ok(())
}

/// Where the output of an attempt grows while it runs.
pub fn live_log(project: &Project, run: RunId, job: &JobName, attempt: u32) -> PathBuf {
    project.room.join("logs").join(format!("{run}-{job}-{attempt}.log"))
}

async fn attempt_job(
    line: &Arc<Line>,
    project: &Arc<Project>,
    run: RunId,
    name: &JobName,
    attempt: u32,
    token: &CancellationToken,
) -> Vec<Event> {
    let begun = line.now();
    let log = live_log(project, run, name, attempt);
    let copy = project.room.join("copies").join(format!("{run}-{name}-{attempt}"));
    let outcome = match Attempt::prepare(line, project, run, name, &copy, &log).await {
        Ok(attempt) => attempt.run(line, token.clone()).await,
        Err(error) => (JobEnd::Broken { why: error.to_string() }, Gathered::default(), None),
    };
    let (ended, gathered, artifact) = outcome;
    let mut tests = TestCounts::default();
    gathered.tests.iter().for_each(|report| tests += report.counts);
    let blobs = line.blobs.clone();
    let kept = tokio::task::spawn_blocking(move || {
        let log = std::fs::File::open(&log).and_then(|file| blobs.put(file)).ok().map(|(digest, _)| {
            let _ = std::fs::remove_file(&log);
            digest
        });
        let report = serde_json::to_vec(&gathered).ok().and_then(|bytes| blobs.put(&bytes[..]).ok());
        let _ = std::fs::remove_dir_all(&copy);
        (log, report.map(|(digest, _)| digest))
    })
    .await;
    let (log, report) = kept.unwrap_or((None, None));
    let took = line.now().since(begun);
    let finished = Event::JobFinished { run, job: name.clone(), attempt, ended, took, log, tests, report };
    artifact.into_iter().chain([finished]).collect()
}

/// What goes with an artifact of this commit.
async fn pins(project: &Project, definition: &Definition, commit: &Oid) -> Result<Pins, Refusal> {
    let mut folders = BTreeMap::new();
    for folder in definition.folders() {
        if let Some(tree) = project.repository.object(commit, &folder).await? {
            folders.insert(folder, tree);
        }
    }
    Ok(Pins { folders, configuration: Some(definition.configuration()) })
}

/// One attempt of a job, ready to run.
struct Attempt {
    run: RunId,
    commit: andon_model::Oid,
    job: Job,
    pins: Pins,
    order: Order,
}

impl Attempt {
    async fn prepare(
        line: &Line,
        project: &Project,
        run: RunId,
        name: &JobName,
        copy: &Path,
        log: &Path,
    ) -> Result<Attempt, Refusal> {
        let found = project.state().runs.all.get(&run).cloned();
        let found = found.ok_or_else(|| Refusal::Broken(format!("{run} is not known")))?;
        let defined = project.definition(&found.commit).await?;
        let definition = defined.as_ref().as_ref().map_err(|problem| Refusal::Broken(problem.clone()))?;
        let job = definition.pipeline.jobs.get(name).cloned();
        let job = job.ok_or_else(|| Refusal::Broken(format!("{name} is not in andon.yaml")))?;
        std::fs::create_dir_all(log.parent().unwrap_or(log))?;
        std::fs::create_dir_all(copy)?;
        let (tree, tmp) = (copy.join("tree"), copy.join("tmp"));
        std::fs::create_dir_all(&tmp)?;
        project.repository.check_out(&found.commit, &tree).await?;
        let mut env = job_env(&definition.pipeline, &job, project, name, &tmp);
        env.insert("ANDON_RUN".into(), run.to_string());
        env.insert("ANDON_COMMIT".into(), found.commit.to_string());
        env.insert("ANDON_SERVER".into(), line.settings.url.clone());
        if let Purpose::Gate { change, .. } = found.purpose {
            env.insert("ANDON_CHANGE".into(), change.0.to_string());
        }
        let order = Order {
            script: job.run.clone(),
            workdir: tree,
            env,
            timeout: job.timeout,
            grace: GRACE,
            log: log.to_owned(),
            log_limit: LOG_LIMIT,
        };
        let pins = match job.artifact {
            Some(_) => pins(project, definition, &found.commit).await?,
            None => Pins::default(),
        };
        Ok(Attempt { run, commit: found.commit, job, pins, order })
    }

    async fn run(self, line: &Line, token: CancellationToken) -> (JobEnd, Gathered, Option<Event>) {
        let end = line.runner.run(&self.order, token.cancelled_owned()).await;
        let ended = match end {
            End::Exited(0) => JobEnd::Passed,
            End::Exited(code) => JobEnd::Failed { code },
            End::TimedOut => JobEnd::TimedOut { after: self.order.timeout },
            End::TooMuchOutput => JobEnd::Broken { why: format!("it printed more than {LOG_LIMIT} bytes") },
            End::Cancelled => JobEnd::Broken { why: "stopped: nobody waits for it any more".into() },
            End::Broken(why) => JobEnd::Broken { why },
        };
        let (blobs, passed) = (line.blobs.clone(), ended == JobEnd::Passed);
        let done = tokio::task::spawn_blocking(move || {
            let gathered = gather_reports(&self.order.workdir, &self.job);
            let artifact = self
                .job
                .artifact
                .as_ref()
                .filter(|_| passed)
                .map(|what| pack(&blobs, &self.order.workdir, what));
            (gathered, artifact, self)
        })
        .await;
        let (gathered, artifact, own) = match done {
            Ok(done) => done,
            Err(error) => return (JobEnd::Broken { why: error.to_string() }, Gathered::default(), None),
        };
        match artifact {
            None => (ended, gathered, None),
            Some(Ok((artifact, bytes))) => {
                let Attempt { run, commit, pins, .. } = own;
                (ended, gathered, Some(Event::ArtifactBuilt { run, artifact, bytes, commit, pins }))
            }
            Some(Err(error)) => {
                let mut gathered = gathered;
                gathered.unreadable.push(error.to_string());
                (ended, gathered, None)
            }
        }
    }
}

/// The environment of a job: what the machine offers to find programs, what the file says, and what Andon knows.
pub(super) fn job_env(
    pipeline: &Pipeline,
    job: &Job,
    project: &Project,
    name: &JobName,
    tmp: &Path,
) -> BTreeMap<String, String> {
    let of_machine =
        ["PATH", "HOME", "LANG", "LC_ALL", "USER", "SSL_CERT_FILE", "http_proxy", "https_proxy", "no_proxy"];
    let machine = of_machine.iter().filter_map(|key| Some(((*key).to_owned(), std::env::var(key).ok()?)));
    let mut env: BTreeMap<String, String> = machine.collect();
    env.extend([
        ("CI".to_owned(), "true".to_owned()),
        ("ANDON".to_owned(), "true".to_owned()),
        ("ANDON_PROJECT".to_owned(), project.name.to_string()),
        ("ANDON_JOB".to_owned(), name.to_string()),
        ("TMPDIR".to_owned(), tmp.display().to_string()),
    ]);
    env.extend(pipeline.env.clone());
    env.extend(job.env.clone());
    env
}

fn pack(blobs: &andon_store::Blobs, workdir: &Path, what: &str) -> std::io::Result<(Digest, u64)> {
    let mut file = tempfile::tempfile_in(workdir.parent().unwrap_or(workdir))?;
    gather::pack(workdir, what, std::io::BufWriter::new(&file))?;
    std::io::Seek::rewind(&mut file)?;
    blobs.put(file)
}

fn gather_reports(workdir: &Path, job: &Job) -> Gathered {
    let mut made = Gathered::default();
    let root = workdir.display().to_string();
    for pattern in job.reports.junit.iter() {
        for path in found(workdir, pattern, &mut made) {
            let read = std::fs::File::open(&path).map_err(|error| error.to_string()).and_then(|file| {
                junit::read(std::io::BufReader::new(file), Limits::default())
                    .map_err(|error| error.to_string())
            });
            match read {
                Ok(report) => made.tests.push(report),
                Err(why) => made.unreadable.push(format!("{}: {why}", shown(workdir, &path))),
            }
        }
    }
    for pattern in job.reports.coverage.iter() {
        for path in found(workdir, pattern, &mut made) {
            let read = within(&path, COVERAGE_LIMIT)
                .and_then(|bytes| coverage::read(&bytes, &root).map_err(|error| error.to_string()));
            match read {
                Ok(reading) => {
                    made.coverage.merge(&reading.coverage);
                    made.warnings.extend(reading.warnings);
                }
                Err(why) => made.unreadable.push(format!("{}: {why}", shown(workdir, &path))),
            }
        }
    }
    made
}

fn found(workdir: &Path, pattern: &str, made: &mut Gathered) -> Vec<PathBuf> {
    match gather::find(workdir, pattern) {
        Ok(paths) if paths.is_empty() => {
            made.unreadable.push(format!("the report {pattern} was not written"));
            paths
        }
        Ok(paths) => paths,
        Err(error) => {
            made.unreadable.push(format!("the report {pattern}: {error}"));
            Vec::new()
        }
    }
}

fn shown(workdir: &Path, path: &Path) -> String {
    path.strip_prefix(workdir).unwrap_or(path).display().to_string()
}

fn within(path: &Path, most: u64) -> Result<Vec<u8>, String> {
    let length = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if length > most {
        return Err(format!("it has {length} bytes, more than the {most} that are read"));
    }
    std::fs::read(path).map_err(|error| error.to_string())
}

async fn give_verdict(line: &Arc<Line>, project: &Project, id: RunId) -> Result<(), Refusal> {
    let found = {
        let state = project.state();
        state.runs.all.get(&id).cloned().map(|run| (run, state.runs.trunk_coverage))
    };
    let Some((run, before)) = found else { return Ok(()) };
    let defined = project.definition(&run.commit).await?;
    let limits = match &*defined {
        Ok(definition) => definition.validation.coverage.clone().unwrap_or_default(),
        Err(_) => Default::default(),
    };
    let limits = CoverageLimits {
        lines: limits.lines,
        per_file: limits.per_file,
        diff: limits.diff,
        ratchet: limits.ratchet,
    };
    // A run of trunk changes nothing, and what a team brings along with its first push is not what it changes.
    let text = match (&run.purpose, &run.parent) {
        (Purpose::Gate { .. }, Some(parent)) => {
            Some(project.repository.diff(Some(parent), &run.commit).await?)
        }
        _ => None,
    };
    let blobs = line.blobs.clone();
    let judged = tokio::task::spawn_blocking(move || {
        let (mut results, mut merged, mut warnings) = (Vec::new(), Coverage::default(), Vec::new());
        for job in &run.jobs {
            let (end, stored) = match &job.state {
                JobState::Ended { end, report, .. } => (Some(end.clone()), report.as_ref()),
                _ => (None, None),
            };
            let gathered: Gathered = stored
                .and_then(|digest| blobs.read(digest, STORED_LIMIT).ok())
                .and_then(|bytes| serde_json::from_slice(&bytes).ok())
                .unwrap_or_default();
            merged.merge(&gathered.coverage);
            warnings.extend(gathered.warnings);
            results.push(JobResult {
                job: job.plan.name.clone(),
                end,
                tests: gathered.tests,
                unreadable: gathered.unreadable,
            });
        }
        let diff = text.map(|text| diff::read(&text));
        let breaches = judge(&limits, &merged, diff.as_ref(), before);
        let report = RunReport::of(results, Some(&merged), diff.as_ref(), breaches, warnings);
        let verdict = verdict::of(&report);
        let bytes = serde_json::to_vec(&report).map_err(std::io::Error::other)?;
        let (digest, _) = blobs.put(&bytes[..])?;
        Ok::<_, std::io::Error>((report, verdict, digest))
    })
    .await
    .map_err(|error| Refusal::Broken(error.to_string()))?;
    let (report, verdict, digest) = judged?;
    line.decide(project, andon_model::Actor::line("validation"), |state, _| {
        let open = state.runs.all.get(&id).is_some_and(|run| run.finished.is_none());
        let (tests, coverage, report) = (report.counts, report.coverage, Some(digest));
        let finished = Event::RunFinished { run: id, verdict, tests, coverage, report };
        Ok((if open { vec![finished] } else { vec![] }, ()))
    })
    .await
}

impl Line {
    /// Everything that was tested in a run, as kept with its verdict.
    pub async fn run_report(&self, digest: Digest) -> Result<RunReport, Refusal> {
        let blobs = self.blobs.clone();
        let read = tokio::task::spawn_blocking(move || blobs.read(&digest, STORED_LIMIT)).await;
        let bytes = read.map_err(|error| Refusal::Broken(error.to_string()))??;
        serde_json::from_slice(&bytes).map_err(|error| Refusal::Broken(error.to_string()))
    }

    /// A place for a job became free: other projects may have been waiting for it.
    fn wake_others(&self, project: &Project) {
        for other in self.projects().iter().filter(|other| other.name != project.name) {
            if let Some(last) = other.state().feed.back() {
                self.nudge(last);
            }
        }
    }
}
