//! One attempt of a job: its room, its working copy, its environment, its steps, its end, what it leaves. Schedules nothing and judges
//! nothing. It outlives the server: another one finds its room and goes on where this one was.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use andon_attest::token::{Who, change_of};
use andon_model::event::{Event, JobEnd, Purpose, TestCounts};
use andon_model::{Actor, Digest, JobName, Oid, Pins, RunId, RunnerName, Span, Time};
use andon_pipeline::definition::{Job, Pipeline};
use andon_pipeline::secrets::Asks;
use andon_pipeline::{Definition, JobState};
use andon_runner::log::{Packing, marks};
use andon_runner::remote::{Following, Trouble, Which, Work};
use andon_runner::{End, News, Order, Room, Running, Service, Step, StepEnd, gather, machine_env};
use andon_sandbox::Bounds;
use andon_validation::memory;
use andon_validation::tests::TestCase;
use tokio_util::sync::CancellationToken;

use super::early::{self, Red};
use super::parcels::Parcels;
use super::reports::{Gathered, gather_reports};
use crate::secrets::Given;
use crate::{Line, Project, Refusal, State};

/// Time between asking a job to end and killing it.
pub(in crate::stations) const GRACE: Span = Span::secs(5);
/// Bytes that a job may print: far beyond any log that helps, and it cannot fill a disk.
const LOG_LIMIT: u64 = 4 << 30;
/// Between two tries to fetch what an attempt left on a runner.
const AGAIN: Duration = Duration::from_millis(500);

/// Where the output of an attempt grows while it runs.
pub fn live_log(project: &Project, run: RunId, job: &JobName, attempt: u32) -> PathBuf {
    project.room.join("logs").join(format!("{run}-{job}-{attempt}.log"))
}

/// Where attempts have their rooms.
pub(super) fn rooms(project: &Project) -> PathBuf {
    project.room.join("attempts")
}

/// Which attempt.
#[derive(Debug, Clone)]
pub(super) struct Id {
    pub run: RunId,
    pub job: JobName,
    pub attempt: u32,
}

impl Id {
    /// The name of its room.
    pub(super) fn name(&self) -> String {
        format!("{}-{}-{}", self.run, self.job, self.attempt)
    }

    pub(super) fn room(&self, project: &Project) -> Room {
        Room::at(&rooms(project).join(self.name()))
    }

    /// The runner that has it, and by which assignment; none: it is not on one.
    pub(super) fn assigned(&self, project: &Project) -> Option<(RunnerName, Which)> {
        let state = project.state();
        let job = state.runs.all.get(&self.run)?.job(&self.job)?;
        let (runner, number) = job.runner.clone().filter(|_| job.attempts == self.attempt)?;
        matches!(job.state, JobState::Running { .. }).then_some(())?;
        Some((runner, Which { project: project.name.clone(), attempt: self.name(), number }))
    }

    /// When it began, if the journal says that it still runs.
    pub(super) fn runs_since(&self, state: &State) -> Option<Time> {
        let job = state.runs.all.get(&self.run)?.job(&self.job)?;
        match job.state {
            JobState::Running { since } if job.attempts == self.attempt => Some(since),
            _ => None,
        }
    }
}

/// An attempt under way, wherever it runs.
pub(super) enum Held {
    /// On the server's own machine.
    Here(Running),
    /// On a runner.
    There(Following),
}

impl Held {
    fn stop(&mut self) {
        match self {
            Held::Here(running) => running.stop(),
            Held::There(following) => following.stop(),
        }
    }

    async fn next(&mut self) -> News {
        match self {
            Held::Here(running) => running.next().await,
            Held::There(following) => following.next().await,
        }
    }
}

/// Begins it. Its start is recorded already.
pub(super) async fn begin(line: &Line, project: &Project, id: &Id) -> Result<Held, String> {
    let words = |error: Refusal| error.to_string();
    let Some((runner, which)) = id.assigned(project) else {
        let (order, ..) = order(line, project, id, false).await.map_err(words)?;
        return line.runner.start(&order).await.map(Held::Here);
    };
    let (order, landed, docker) = order(line, project, id, true).await.map_err(words)?;
    let commit = project.state().runs.all.get(&id.run).map(|run| run.commit.clone());
    if let Some(commit) = commit {
        let alone = project.repository.stand_alone(&commit, &order.workdir).await;
        alone.map_err(|error| error.to_string())?;
    }
    // What is said of it here is the beginning of its output there: both have the same bytes at the same place.
    let said = match std::fs::read_to_string(&order.log) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.to_string()),
        said => said.unwrap_or_default(),
    };
    let work = Work::of(&order, landed, docker, said);
    match line.crew.begin(&runner, which.clone(), work, order.room.clone()).await {
        // It may have arrived all the same: that is seen by whoever follows.
        Ok(()) | Err(Trouble::Silent(_)) => Ok(Held::There(follow_it(line, project, id, &runner, which))),
        Err(trouble) => Err(format!("on the runner {runner}: {trouble}")),
    }
}

fn follow_it(line: &Line, project: &Project, id: &Id, runner: &RunnerName, which: Which) -> Following {
    let log = live_log(project, id.run, &id.job, id.attempt);
    line.crew.follow(runner, which, log, line.settings.runner_lease.duration())
}

/// Follows one that an earlier server handed to a runner.
pub(super) fn follow_there(
    line: &Line,
    project: &Project,
    id: &Id,
    runner: &RunnerName,
    which: Which,
) -> Held {
    Held::There(follow_it(line, project, id, runner, which))
}

/// Fetches what an attempt on a runner left into its working copy here. The error is why it could not within the runner's lease.
async fn fetch(
    line: &Line,
    project: &Project,
    id: &Id,
    runner: &RunnerName,
    which: &Which,
) -> Result<(), Refusal> {
    let (_, definition) = defined(project, id).await?;
    let definition = definition.as_ref().as_ref().map_err(|problem| Refusal::Broken(problem.clone()))?;
    let job = declared(definition, &id.job)?;
    let mut patterns: Vec<String> = job.reports.all().map(str::to_owned).collect();
    patterns.extend(job.outputs.iter().chain(&job.artifact).cloned());
    patterns.extend(job.cache.iter().flat_map(|cache| cache.paths.iter().cloned()));
    if patterns.is_empty() {
        return Ok(());
    }
    let tree = id.room(project).dir().join("tree");
    loop {
        match line.crew.take(runner, which.clone(), patterns.clone(), tree.clone()).await {
            Ok(()) => return Ok(()),
            Err(Trouble::Silent(why)) => {
                let silent = line.crew.silent_for(runner);
                if silent.is_some_and(|silent| silent >= line.settings.runner_lease.duration()) {
                    return Err(Refusal::Broken(format!(
                        "the runner {runner} was not reached any more, and its lease is over: {why}"
                    )));
                }
                tokio::time::sleep(AGAIN).await;
            }
            Err(trouble) => return Err(Refusal::Broken(format!("on the runner {runner}: {trouble}"))),
        }
    }
}

/// Follows it to its end, recording each step; asks it to end when `cancel` says so. None: the server stops, and it goes on without.
pub(super) async fn follow(
    line: &Line,
    project: &Project,
    id: &Id,
    mut running: Held,
    cancel: &CancellationToken,
    stop: &CancellationToken,
) -> Option<End> {
    let mut asked = false;
    let (mut told, here) = (false, matches!(running, Held::Here(_)));
    let red = early::watch(
        id.room(project).dir().join("tree"),
        reports_of(project, id).await,
        counting(line, project),
    );
    tokio::pin!(red);
    loop {
        tokio::select! {
            () = stop.cancelled() => return None,
            () = cancel.cancelled(), if !asked => {
                asked = true;
                running.stop();
            }
            red = &mut red, if here && !told => {
                told = true;
                if let Err(error) = tell_red(line, project, id, red).await {
                    tracing::error!(%error, attempt = id.name(), "a red test could not be told early");
                }
            }
            news = running.next() => match news {
                News::Ended(end) => return Some(end),
                News::Steps(steps) => {
                    if let Err(error) = record(line, project, id, steps).await {
                        tracing::error!(%error, attempt = id.name(), "a step could not be recorded");
                    }
                }
            }
        }
    }
}

/// Each step once, also where an earlier server recorded some of them.
async fn record(line: &Line, project: &Project, id: &Id, steps: Vec<StepEnd>) -> Result<(), Refusal> {
    line.decide(project, Actor::line("runner"), |state, _| {
        let runs = id.runs_since(state).is_some();
        Ok((if runs { unrecorded(state, id, steps) } else { Vec::new() }, ()))
    })
    .await
}

/// Where an attempt's reports of tests will stand.
async fn reports_of(project: &Project, id: &Id) -> Vec<String> {
    let Ok((_, defined)) = defined(project, id).await else { return Vec::new() };
    let job = defined.as_ref().as_ref().ok().and_then(|definition| definition.pipeline.jobs.get(&id.job));
    job.map(|job| job.reports.of_tests().map(str::to_owned).collect()).unwrap_or_default()
}

/// Which red tests are news: those that are not in quarantine.
fn counting(line: &Line, project: &Project) -> impl Fn(&TestCase) -> bool + Clone + Send + 'static {
    let (held, now) = (project.state().quarantine.clone(), line.now());
    move |case| held.of(&memory::key(case), now).is_none()
}

/// Tells the first red test of an attempt that still runs, once.
async fn tell_red(line: &Line, project: &Project, id: &Id, red: Red) -> Result<(), Refusal> {
    line.decide(project, Actor::line("runner"), |state, _| {
        let news = id.runs_since(state).is_some() && !is_told(state, id);
        Ok((news.then(|| red_event(id, red)).into_iter().collect(), ()))
    })
    .await
}

fn is_told(state: &State, id: &Id) -> bool {
    let job = state.runs.all.get(&id.run).and_then(|run| run.job(&id.job));
    job.is_some_and(|job| job.red_test.is_some())
}

fn red_event(id: &Id, red: Red) -> Event {
    Event::TestRed {
        run: id.run,
        job: id.job.clone(),
        attempt: id.attempt,
        test: red.test,
        message: red.message,
    }
}

/// Those of the steps that the journal does not know yet.
fn unrecorded(state: &State, id: &Id, steps: Vec<StepEnd>) -> Vec<Event> {
    let job = state.runs.all.get(&id.run).and_then(|run| run.job(&id.job));
    let known = job.map_or(0, |job| job.steps.len());
    let new = steps.into_iter().filter(|step| step.step as usize > known);
    new.map(|step| Event::StepFinished {
        run: id.run,
        job: id.job.clone(),
        attempt: id.attempt,
        step: step.step,
        name: step.name,
        ended: job_end(step.end),
        took: step.took,
        log_at: step.log_at,
    })
    .collect()
}

/// Gathers what it left, records its end, and only then lets go of what it was made in.
pub(super) async fn finish(line: &Line, project: &Project, id: &Id, end: &End) -> Result<(), Refusal> {
    let Some(since) = id.runs_since(&project.state()) else { return Ok(()) };
    let mut ended = job_end(end.clone());
    let (room, there) = (id.room(project), id.assigned(project));
    let mut left = match ended {
        // Nothing it wrote is worth reading: it may not even have begun.
        JobEnd::Broken { .. } => Left::default(),
        _ => match leavings_of(line, project, id, room.dir().join("tree"), ended == JobEnd::Passed).await {
            Ok(left) => left,
            Err(error) => {
                ended = JobEnd::Broken { why: error.to_string() };
                Left::default()
            }
        },
    };
    let built = match left.built {
        None => None,
        Some(Ok(built)) => Some(built),
        Some(Err(why)) => {
            left.gathered.unreadable.push(why);
            None
        }
    };
    let (gathered, outputs) = (left.gathered, left.outputs);
    if matches!(ended, JobEnd::Failed { .. }) && left.reports_only && forgiven(project, line.now(), &gathered)
    {
        ended = JobEnd::Passed;
    }
    let red = early::first(&gathered.tests, counting(line, project));
    let mut tests = TestCounts::default();
    gathered.tests.iter().for_each(|report| tests += report.counts);
    let (blobs, log) = (line.blobs.clone(), live_log(project, id.run, &id.job, id.attempt));
    let path = log.clone();
    let kept = tokio::task::spawn_blocking(move || {
        let log = keep_log(&blobs, &path);
        let report = serde_json::to_vec(&gathered).ok().and_then(|bytes| blobs.put(&bytes[..]).ok());
        (log, report.map(|(digest, _)| digest))
    });
    let (kept, report) = kept.await.map_err(|error| Refusal::Broken(error.to_string()))?;
    let whole = kept.is_some();
    // Once more all of them: what could not be recorded at its time is now.
    let steps = room.steps().unwrap_or_default();
    line.decide(project, Actor::line("runner"), |state, now| {
        if id.runs_since(state).is_none() {
            return Ok((Vec::new(), ()));
        }
        let (took, job) = (now.since(since), id.job.clone());
        let mut events = unrecorded(state, id, steps);
        events.extend(red.filter(|_| !is_told(state, id)).map(|red| red_event(id, red)));
        events.extend(built);
        events.extend(outputs);
        events.push(Event::JobFinished {
            run: id.run,
            job,
            attempt: id.attempt,
            ended,
            took,
            log: kept,
            tests,
            report,
        });
        Ok((events, ()))
    })
    .await?;
    if let Some((runner, which)) = there {
        let crew = Arc::clone(&line.crew);
        // One that cannot be told now is told when it is back.
        tokio::spawn(async move { drop(crew.let_go(&runner, &which).await) });
    }
    let tidied = tokio::task::spawn_blocking(move || {
        if whole {
            let _ = std::fs::remove_file(marks::path(&log));
            let _ = std::fs::remove_file(log);
        }
        // What cannot be removed now is swept at the next start.
        let _ = room.remove();
    });
    drop(tidied);
    Ok(())
}

/// Whether all that was red in it are tests in quarantine: then its status says nothing new. Only where it left all that it declares, since a command that
/// failed kept those behind it from running.
fn forgiven(project: &Project, now: Time, gathered: &Gathered) -> bool {
    let whole = gathered.unreadable.is_empty();
    let state = project.state();
    let cases = gathered.tests.iter().flat_map(|report| &report.cases);
    let red: Vec<_> = cases.filter(|case| case.outcome.is_red()).collect();
    let counted: u32 = gathered.tests.iter().map(|report| report.counts.failed).sum();
    let held =
        |case: &&andon_validation::junit::TestCase| state.quarantine.of(&memory::key(case), now).is_some();
    whole && !red.is_empty() && counted as usize == red.len() && red.iter().all(held)
}

/// What an attempt left.
#[derive(Default)]
struct Left {
    /// What its reports say.
    gathered: Gathered,
    /// Its artifact as an event, or why there is none.
    built: Option<Result<Event, String>>,
    /// What it hands on, as an event.
    outputs: Option<Event>,
    /// Nothing but reports was expected of it.
    reports_only: bool,
}

/// The same wherever it ran.
async fn leavings_of(
    line: &Line,
    project: &Project,
    id: &Id,
    tree: PathBuf,
    passed: bool,
) -> Result<Left, Refusal> {
    let mut called = tree.clone();
    if let Some((runner, which)) = id.assigned(project) {
        fetch(line, project, id, &runner, &which).await?;
        called = line.crew.workdir(&runner, &which).unwrap_or(called);
    }
    leavings(line, project, id, tree, called, passed).await
}

/// `called`: what the working copy was called where it ran.
async fn leavings(
    line: &Line,
    project: &Project,
    id: &Id,
    tree: PathBuf,
    called: PathBuf,
    passed: bool,
) -> Result<Left, Refusal> {
    let (commit, definition) = defined(project, id).await?;
    let definition = definition.as_ref().as_ref().map_err(|problem| Refusal::Broken(problem.clone()))?;
    let job = declared(definition, &id.job)?.clone();
    let pins = match job.artifact {
        Some(_) => pins(project, definition, &commit).await?,
        None => Pins::default(),
    };
    let (blobs, run, attempt) = (line.blobs.clone(), id.run, id.attempt);
    let mut parcels = Parcels::of(project, id.run, &id.job, &job)?;
    let read = tokio::task::spawn_blocking(move || {
        let mut gathered = gather_reports(&tree, &called, &job);
        gathered.warnings.extend(parcels.read_note(&tree));
        let mut outputs = None;
        if passed {
            let (handed, said) = parcels.take_out(&blobs, &tree, attempt);
            outputs = handed;
            for words in said {
                match words {
                    Ok(warning) => gathered.warnings.push(warning),
                    Err(wrong) => gathered.unreadable.push(wrong),
                }
            }
        }
        let packed = job.artifact.as_ref().filter(|_| passed).map(|what| pack(&blobs, &tree, what));
        let built = packed.map(|packed| match packed {
            Ok((artifact, bytes)) => Ok(Event::ArtifactBuilt { run, artifact, bytes, commit, pins }),
            Err(error) => Err(error.to_string()),
        });
        Left { gathered, built, outputs, reports_only: job.artifact.is_none() && job.outputs.is_empty() }
    });
    read.await.map_err(|error| Refusal::Broken(error.to_string()))
}

/// Commit and definition of its run.
async fn defined(
    project: &Project,
    id: &Id,
) -> Result<(Oid, std::sync::Arc<crate::project::Defined>), Refusal> {
    let commit = project.state().runs.all.get(&id.run).map(|run| run.commit.clone());
    let commit = commit.ok_or_else(|| Refusal::Broken(format!("{} is not known", id.run)))?;
    let defined = project.definition(&commit).await?;
    Ok((commit, defined))
}

fn declared<'a>(definition: &'a Definition, name: &JobName) -> Result<&'a Job, Refusal> {
    let job = definition.pipeline.jobs.get(name);
    job.ok_or_else(|| Refusal::Broken(format!("{name} is not in andon.yaml")))
}

/// What is to be run, whether it is of trunk, and whether it asks for the container engine. `there`: on a runner, which has tools and homes of
/// its own.
async fn order(line: &Line, project: &Project, id: &Id, there: bool) -> Result<(Order, bool, bool), Refusal> {
    let (commit, definition) = defined(project, id).await?;
    let definition = definition.as_ref().as_ref().map_err(|problem| Refusal::Broken(problem.clone()))?;
    let job = declared(definition, &id.job)?;
    let (room, log) = (id.room(project), live_log(project, id.run, &id.job, id.attempt));
    std::fs::create_dir_all(log.parent().unwrap_or(&log))?;
    let tree = room.dir().join("tree");
    std::fs::create_dir_all(room.dir())?;
    project.repository.check_out(&commit, &tree).await?;
    Parcels::of(project, id.run, &id.job, job)?.put_in(line, &room).await?;
    let purpose = project.state().runs.all.get(&id.run).map(|run| run.purpose.clone());
    let landed = matches!(purpose, Some(Purpose::Trunk));
    let home = home(project, landed);
    let mut env = match there {
        false => job_env(&definition.pipeline, job, project, &id.job, &home, &room.tmp()),
        true => {
            let mut env = own_env(project.name.as_str(), &id.job);
            env.extend(definition.pipeline.env.clone());
            env.extend(job.env.clone());
            env
        }
    };
    let path = env.get("PATH").cloned();
    env.insert("ANDON_RUN".into(), id.run.to_string());
    env.insert("ANDON_COMMIT".into(), commit.to_string());
    env.insert("ANDON_SERVER".into(), line.settings.url.clone());
    if job.reports.of_tests().next().is_some() {
        std::fs::create_dir_all(room.tmp())?;
        let run = project.state().runs.all.get(&id.run).cloned();
        if let Some(run) = run {
            line.hand_tests(project, &run, &room.tmp(), &mut env).await?;
        }
        if there || job.image.is_some() {
            // Where this program is on the runner, the runner knows; and an image has a path of its own, on which this program is not.
            env.remove("PATH");
            env.extend(path.map(|path| ("PATH".to_owned(), path)));
        }
    }
    let asks = match purpose {
        Some(Purpose::Gate { change, .. }) => {
            env.insert("ANDON_CHANGE".into(), change.0.to_string());
            line.asks_of(project, change)
        }
        _ => Asks::Landed,
    };
    let given = line.give_secrets(project, &job.secrets, asks)?;
    let timeout = project.state().runs.timeout(&id.job, job.timeout);
    let mut secrets = hand_over(given, &mut env, &log)?;
    if let Some(identity) = &job.identity {
        let (trunk, run) = {
            let state = project.state();
            (state.trunk.clone(), state.runs.all.get(&id.run).cloned())
        };
        let who = Who {
            url: &line.settings.url,
            project: &project.name,
            trunk: &trunk,
            environment: None,
            job: &id.job,
            run: Some(id.run),
            attempt: id.attempt,
            unlanded: run.as_ref().and_then(|run| change_of(&run.purpose)),
            commit: &commit,
            tree: run.as_ref().map(|run| &run.tree),
        };
        secrets.extend(line.give_identity(identity, &who, timeout, &room.tmp(), &mut env).await?);
    }
    // Whoever has no tests to ask for has no token to hide: output without secrets is kept several times as fast.
    if job.reports.of_tests().next().is_some() {
        let token = line.job_token(&project.name, id.run, &id.job, id.attempt);
        env.insert("ANDON_JOB_TOKEN".into(), token.clone());
        secrets.push(token);
    }
    let called = format!("{}-{}", project.name, id.name());
    let mut order = job_order(project, job, called, &room, tree, env, log);
    order.writes = vec![home];
    order.timeout = timeout;
    order.secrets = secrets;
    if job.docker && !there {
        with_engine(line, &mut order)?;
    }
    Ok((order, landed, job.docker))
}

/// The container engine, for a job on the server's own machine that asks for it.
pub(in crate::stations) fn with_engine(line: &Line, order: &mut Order) -> std::io::Result<()> {
    let hint = "the owner of the server decides: andon serve --docker-in-jobs";
    andon_runner::engine::give(order, line.settings.docker_in_jobs, hint)
}

/// Keeps an output that is over, packed; none: it could not be kept.
pub(in crate::stations) fn keep_log(blobs: &andon_store::Blobs, path: &Path) -> Option<Digest> {
    let file = std::fs::File::open(path).ok()?;
    blobs.put(Packing::of(file)).ok().map(|(digest, _)| digest)
}

/// Secrets become variables; what was not given is said in the output, where whoever misses it looks. Returns what the log may not show.
pub(in crate::stations) fn hand_over(
    given: Given,
    env: &mut BTreeMap<String, String>,
    log: &Path,
) -> std::io::Result<Vec<String>> {
    if !given.refused.is_empty() {
        let mut file = std::fs::File::options().create(true).append(true).open(log)?;
        for why in &given.refused {
            writeln!(file, "andon: {why}")?;
        }
    }
    let values: Vec<String> = given.values.values().cloned().collect();
    env.extend(given.values.into_iter().map(|(name, value)| (name.into(), value)));
    Ok(values)
}

/// What a job of the file is for the runner, without a home. How long it may take where the file does not say is known by whoever has seen it before.
pub(in crate::stations) fn job_order(
    project: &Project,
    job: &Job,
    name: String,
    room: &Room,
    workdir: PathBuf,
    env: BTreeMap<String, String>,
    log: PathBuf,
) -> Order {
    Order {
        // A working copy borrows its commits from the repository.
        reads: vec![project.repository.dir().join("objects")],
        ..plain_order(job, name, room, workdir, env, log)
    }
}

/// The same without what only a server has.
pub fn plain_order(
    job: &Job,
    name: String,
    room: &Room,
    workdir: PathBuf,
    env: BTreeMap<String, String>,
    log: PathBuf,
) -> Order {
    let services = job.services.iter().map(|(name, service)| Step {
        name: format!("service {name}"),
        script: service.run.clone(),
        env: service.env.clone(),
        timeout_ms: None,
        service: Some(Service {
            variable: format!("{}_PORT", name.as_str().to_uppercase().replace('-', "_")),
            port: service.port,
            within_ms: service.within.0,
        }),
    });
    let steps = services.chain(job.all_steps().into_iter().map(|step| Step {
        name: step.name.value,
        script: step.run,
        env: step.env,
        timeout_ms: step.timeout.map(|timeout| timeout.0),
        service: None,
    }));
    Order {
        name,
        room: room.dir().to_owned(),
        steps: steps.collect(),
        workdir,
        env,
        timeout: job.timeout.unwrap_or(andon_pipeline::runs::UNKNOWN),
        quiet: job.quiet,
        grace: GRACE,
        log,
        secrets: Vec::new(),
        log_limit: LOG_LIMIT,
        limits: bounds(job),
        image: job.image.clone(),
        network: job.network,
        reads: Vec::new(),
        writes: Vec::new(),
    }
}

/// What all processes of the job may use together.
pub(super) fn bounds(job: &Job) -> Bounds {
    let andon_model::Limits { memory, cpu_millis, processes } = job.limits.planned();
    Bounds { memory, cpu_millis, processes }
}

/// The home of the project's jobs, kept between them: tools have their caches there. What is on trunk has one of its own, which no change
/// that has not landed can put anything into: secrets are used there.
pub(in crate::stations) fn home(project: &Project, landed: bool) -> PathBuf {
    project.room.join(if landed { "home-of-trunk" } else { "home" })
}

/// How it ended, as the journal says it.
pub fn job_end(end: End) -> JobEnd {
    match end {
        End::Exited(0) => JobEnd::Passed,
        End::Exited(code) => JobEnd::Failed { code },
        End::TimedOut(millis) => JobEnd::TimedOut { after: Span(millis) },
        End::Quiet(millis) => JobEnd::Quiet { after: Span(millis) },
        End::OutOfMemory(limit) => JobEnd::OutOfMemory { limit },
        End::TooMuchOutput(most) => JobEnd::TooMuchOutput { most },
        End::Cancelled => JobEnd::Broken { why: "stopped: nobody waits for it any more".into() },
        End::Broken(why) => JobEnd::Broken { why },
    }
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

/// The environment of a job: what the machine offers to find programs, what the file says, and what Andon knows.
pub(in crate::stations) fn job_env(
    pipeline: &Pipeline,
    job: &Job,
    project: &Project,
    name: &JobName,
    home: &Path,
    tmp: &Path,
) -> BTreeMap<String, String> {
    let mut env = plain_env(project.name.as_str(), home, name, tmp);
    env.extend(pipeline.env.clone());
    env.extend(job.env.clone());
    env
}

/// What every job has, whatever the file says: on a server and on a developer's machine.
pub fn plain_env(project: &str, home: &Path, name: &JobName, tmp: &Path) -> BTreeMap<String, String> {
    let mut env = machine_env(|name| std::env::var(name).ok());
    if let Err(error) = std::fs::create_dir_all(home) {
        tracing::error!(%error, project, "its jobs have no home");
    }
    env.extend(own_env(project, name));
    env.insert("TMPDIR".into(), tmp.display().to_string());
    env.insert("HOME".into(), home.display().to_string());
    env
}

/// What of that no machine has part in.
fn own_env(project: &str, name: &JobName) -> BTreeMap<String, String> {
    let said = [("CI", "true"), ("ANDON", "true"), ("ANDON_PROJECT", project), ("ANDON_JOB", name.as_str())];
    said.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn pack(blobs: &andon_store::Blobs, workdir: &Path, what: &str) -> std::io::Result<(Digest, u64)> {
    let mut file = tempfile::tempfile_in(workdir.parent().unwrap_or(workdir))?;
    gather::pack(workdir, what, std::io::BufWriter::new(&file))?;
    std::io::Seek::rewind(&mut file)?;
    blobs.put(file)
}
