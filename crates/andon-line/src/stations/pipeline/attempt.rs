//! One attempt of a job: its working copy, its environment, its end, what it leaves. Schedules nothing and judges nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use andon_model::event::{Event, JobEnd, Purpose, TestCounts};
use andon_model::{Digest, JobName, Oid, Pins, RunId};
use andon_pipeline::Definition;
use andon_pipeline::definition::{Job, Pipeline};
use andon_runner::{End, Order, gather};
use tokio_util::sync::CancellationToken;

use super::parcels::Parcels;
use super::reports::{Gathered, gather_reports};
use crate::{Line, Project, Refusal};

/// Time between asking a job to end and killing it.
const GRACE: andon_model::Span = andon_model::Span::secs(5);
/// Bytes that a job may print: far beyond any log that helps, and it cannot fill a disk.
const LOG_LIMIT: u64 = 4 << 30;

/// Where the output of an attempt grows while it runs.
pub fn live_log(project: &Project, run: RunId, job: &JobName, attempt: u32) -> PathBuf {
    project.room.join("logs").join(format!("{run}-{job}-{attempt}.log"))
}

/// Runs it to its end; what it left behind as events.
pub(super) async fn run(
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
    let outcome = match Attempt::prepare(line, project, run, name, attempt, &copy, &log).await {
        Ok(attempt) => attempt.run(line, token.clone()).await,
        Err(error) => (JobEnd::Broken { why: error.to_string() }, Gathered::default(), Vec::new()),
    };
    let (ended, gathered, left) = outcome;
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
    left.into_iter().chain([finished]).collect()
}

/// What goes with an artifact of this commit.
pub(in crate::stations) async fn pins(
    project: &Project,
    definition: &Definition,
    commit: &Oid,
) -> Result<Pins, Refusal> {
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
    attempt: u32,
    parcels: Parcels,
    warnings: Vec<String>,
}

impl Attempt {
    async fn prepare(
        line: &Line,
        project: &Project,
        run: RunId,
        name: &JobName,
        attempt: u32,
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
        let parcels = Parcels::of(project, run, name, &job)?;
        let (parcels, warnings) = parcels.put_in(line, tree.clone()).await?;
        let mut env = job_env(&definition.pipeline, &job, project, name, &tmp);
        env.insert("ANDON_RUN".into(), run.to_string());
        env.insert("ANDON_COMMIT".into(), found.commit.to_string());
        env.insert("ANDON_SERVER".into(), line.settings.url.clone());
        if let Purpose::Gate { change, .. } = found.purpose {
            env.insert("ANDON_CHANGE".into(), change.0.to_string());
        }
        let order = Order {
            script: job.script(),
            workdir: tree,
            env,
            timeout: project.state().runs.timeout(name, job.timeout),
            grace: GRACE,
            log: log.to_owned(),
            log_limit: LOG_LIMIT,
        };
        let pins = match job.artifact {
            Some(_) => pins(project, definition, &found.commit).await?,
            None => Pins::default(),
        };
        Ok(Attempt { run, commit: found.commit, job, pins, order, attempt, parcels, warnings })
    }

    async fn run(self, line: &Line, token: CancellationToken) -> (JobEnd, Gathered, Vec<Event>) {
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
            let mut gathered = gather_reports(&self.order.workdir, &self.job);
            gathered.warnings.extend(self.warnings.clone());
            let mut left = Vec::new();
            if passed {
                let (outputs, said) = self.parcels.take_out(&blobs, &self.order.workdir, self.attempt);
                left.extend(outputs);
                for words in said {
                    match words {
                        Ok(warning) => gathered.warnings.push(warning),
                        Err(wrong) => gathered.unreadable.push(wrong),
                    }
                }
            }
            let artifact = self
                .job
                .artifact
                .as_ref()
                .filter(|_| passed)
                .map(|what| pack(&blobs, &self.order.workdir, what));
            (gathered, left, artifact, self)
        })
        .await;
        let (mut gathered, mut left, artifact, own) = match done {
            Ok(done) => done,
            Err(error) => {
                return (JobEnd::Broken { why: error.to_string() }, Gathered::default(), Vec::new());
            }
        };
        match artifact {
            None => {}
            Some(Ok((artifact, bytes))) => {
                let Attempt { run, commit, pins, .. } = own;
                left.push(Event::ArtifactBuilt { run, artifact, bytes, commit, pins });
            }
            Some(Err(error)) => gathered.unreadable.push(error.to_string()),
        }
        (ended, gathered, left)
    }
}

/// What the machine offers to find programs: variables that every job gets as they are.
pub const OF_MACHINE: [&str; 9] =
    ["PATH", "HOME", "LANG", "LC_ALL", "USER", "SSL_CERT_FILE", "http_proxy", "https_proxy", "no_proxy"];

/// The environment of a job: what the machine offers to find programs, what the file says, and what Andon knows.
pub(in crate::stations) fn job_env(
    pipeline: &Pipeline,
    job: &Job,
    project: &Project,
    name: &JobName,
    tmp: &Path,
) -> BTreeMap<String, String> {
    let machine = OF_MACHINE.iter().filter_map(|key| Some(((*key).to_owned(), std::env::var(key).ok()?)));
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
