//! `andon run local`: the same plan on a developer's machine. The jobs, their order and their verdict come from the very code that the
//! server uses; only the working copies are made here. Asks no server.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use andon_git::Repository;
use andon_line::stations::pipeline::{Gathered, gather_reports, job_end, plain_env, plain_order};
use andon_line::view;
use andon_model::event::{Event, JobEnd, PlannedJob, Purpose, Recorded, TestCounts, Verdict};
use andon_model::{Actor, Digest, JobName, RunId, Span, Time};
use andon_pipeline::definition::Job;
use andon_pipeline::plan::{Decision, plan};
use andon_pipeline::{JobState, Places, Plan, Runs};
use andon_runner::{Room, Runner, parcel};
use andon_validation::{JobResult, RunReport, verdict};
use clap::Args;
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::here::{Here, git};
use super::print_json;
use crate::cli::Common;
use crate::client::{Failure, status};
use crate::say::say;

/// Lines of a red job's output that are shown.
const LINES: usize = 40;
/// There is only one run here.
const RUN: RunId = RunId(1);

/// Options of `andon run local`.
#[derive(Debug, Args)]
pub struct Local {
    /// Only these jobs, and those whose outputs they take.
    #[arg(long = "job")]
    jobs: Vec<JobName>,
    /// Show the plan and its hash, and run nothing.
    #[arg(long)]
    show: bool,
    /// Take the files as they stand here, not as they are committed.
    #[arg(long)]
    dirty: bool,
    /// Leave out what a change since this commit does not need: `andon/main`.
    #[arg(long)]
    since: Option<String>,
    /// Jobs that run side by side; default: one per core.
    #[arg(long)]
    slots: Option<usize>,
}

/// Plans, and runs the plan. Exit status 1 when it is not green.
pub fn run(common: &Common, options: Local) -> Result<(), Failure> {
    let here = Here::find()?;
    let text = match options.dirty {
        true => std::fs::read_to_string(here.root.join("andon.yaml"))
            .map_err(|error| format!("andon.yaml: {error}\nhint: andon init writes a first one"))?,
        false => git(&here.root, &["show", &format!("{}:andon.yaml", here.commit)])
            .map_err(|error| format!("{error}\nhint: commit andon.yaml, or give --dirty"))?,
    };
    let definition = andon_pipeline::read(&text).map_err(|problems| {
        let words: Vec<String> = problems.iter().map(ToString::to_string).collect();
        words.join("\n■ ")
    })?;
    let plan = Plan::of(&definition);
    if options.show {
        show(common, &plan);
        return Ok(());
    }
    let changed = match &options.since {
        Some(since) => Some(here.changed(since, options.dirty)?),
        None => None,
    };
    let mut jobs = plan.jobs(changed.as_deref());
    if !options.jobs.is_empty() {
        let wanted = wanted(&plan, &options.jobs)?;
        for job in jobs.iter_mut().filter(|job| !wanted.contains(&job.name)) {
            job.not_needed = Some("it was not asked for".into());
        }
        jobs.iter_mut().filter(|job| wanted.contains(&job.name)).for_each(|job| job.not_needed = None);
    }
    let room =
        tempfile::Builder::new().prefix("andon-local-").tempdir().map_err(|error| error.to_string())?;
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let world = World {
        runner: Runner::new(
            std::env::current_exe().map_err(|error| error.to_string())?,
            room.path(),
            format!("andon-local-{}", std::process::id()),
        ),
        room: room.path().to_owned(),
        here,
        dirty: options.dirty,
        quiet: common.json,
        jobs: plan.jobs.iter().map(|job| (job.name.clone(), job.job.clone())).collect(),
    };
    let hash = plan.hash();
    if !common.json {
        let what = if options.dirty { " with what is changed here" } else { "" };
        say!("○ {} of {}{what}", view::count(jobs.len(), "job"), world.here.commit.short());
        say!("  plan {hash}");
    }
    let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
    let slots = options.slots.unwrap_or(cores).max(1);
    let (runs, report) = runtime.block_on(Arc::new(world).execute(jobs, hash.clone(), slots))?;
    let said = verdict::of(&report);
    end(common, &runs, &report, &said, &hash);
    if said == Verdict::Green {
        return Ok(());
    }
    // What a red job printed is worth looking at.
    let kept = room.keep();
    if !common.json {
        say!("  whole output: {}", kept.join("logs").display());
    }
    Err(Failure { words: String::new(), status: status::NO })
}

fn show(common: &Common, plan: &Plan) {
    if common.json {
        print_json(&json!({ "hash": plan.hash(), "plan": plan }));
        return;
    }
    say!("plan {}", plan.hash());
    for job in &plan.jobs {
        let needs: Vec<&str> = job.job.needs.iter().map(|need| need.value.as_str()).collect();
        let needs = if needs.is_empty() { String::new() } else { format!(", needs {}", needs.join(", ")) };
        say!("  {} ({}{needs})", job.name, job.job.stage);
        if let Some(approve) = &job.job.approve {
            say!("      asks people: {}", approve.why);
        }
        for step in job.job.all_steps() {
            step.run.lines().for_each(|line| say!("      {line}"));
        }
    }
}

/// The named jobs and those whose outputs they take.
fn wanted(plan: &Plan, named: &[JobName]) -> Result<BTreeSet<JobName>, Failure> {
    let known: BTreeMap<&JobName, &Job> = plan.jobs.iter().map(|job| (&job.name, &job.job)).collect();
    let mut wanted = BTreeSet::new();
    let mut left: Vec<JobName> = named.to_vec();
    while let Some(name) = left.pop() {
        let Some(job) = known.get(&name) else {
            let all: Vec<&str> = known.keys().map(|name| name.as_str()).collect();
            return Err(format!("there is no job {name}\nhint: there are {}", all.join(", ")).into());
        };
        if wanted.insert(name) {
            left.extend(job.takes.iter().map(|take| take.value.clone()));
        }
    }
    Ok(wanted)
}

/// What jobs are run with.
struct World {
    runner: Runner,
    room: PathBuf,
    here: Here,
    dirty: bool,
    quiet: bool,
    jobs: BTreeMap<JobName, Job>,
}

/// An attempt that ended.
struct Done {
    job: JobName,
    attempt: u32,
    end: JobEnd,
    took: Span,
    gathered: Gathered,
    tail: Vec<String>,
}

impl World {
    async fn execute(
        self: Arc<World>,
        jobs: Vec<PlannedJob>,
        hash: Digest,
        slots: usize,
    ) -> Result<(Runs, RunReport), Failure> {
        let begun = std::time::Instant::now();
        let now = || Time(i64::try_from(begun.elapsed().as_millis()).unwrap_or(i64::MAX));
        let mut runs = Runs::default();
        let tell = |runs: &mut Runs, event: Event| {
            runs.evolve(&Recorded {
                seq: 0,
                at: now(),
                by: Actor::line("this machine"),
                project: None,
                event,
            });
        };
        let (commit, tree) = (self.here.commit.clone(), self.here.tree.clone());
        // There is one machine, whatever its labels would be.
        let jobs = jobs.into_iter().map(|job| PlannedJob { runs_on: Vec::new(), ..job }).collect();
        let (purpose, plan_hash) = (Purpose::Trunk, Some(hash));
        let queued = Event::RunQueued {
            run: RUN,
            purpose,
            commit,
            tree,
            parent: None,
            jobs,
            plan: plan_hash,
            again: None,
        };
        tell(&mut runs, queued);
        self.not_needed(&runs);
        let stop = CancellationToken::new();
        let mut running: JoinSet<Result<Done, String>> = JoinSet::new();
        let mut results: BTreeMap<JobName, (JobEnd, Gathered)> = BTreeMap::new();
        loop {
            let mut judged = false;
            for decision in plan(&runs, &Places::here(slots.saturating_sub(running.len())), now()) {
                match decision {
                    Decision::Start { job, attempt, .. } if !stop.is_cancelled() => {
                        tell(
                            &mut runs,
                            Event::JobStarted {
                                run: RUN,
                                job: job.clone(),
                                attempt,
                                isolation: Default::default(),
                            },
                        );
                        let timeout = self.jobs.get(&job).and_then(|job| job.timeout);
                        let timeout = runs.timeout(&job, timeout);
                        let planned = self.jobs.get(&job);
                        let secrets = planned.is_some_and(|job| !job.secrets.is_empty());
                        let identity = planned.is_some_and(|job| job.identity.is_some());
                        self.say(match (secrets, identity) {
                            (false, false) => format!("○ {job} begins"),
                            (true, _) => {
                                format!("○ {job} begins, without its secrets: the server alone has them")
                            }
                            (false, true) => {
                                format!(
                                    "○ {job} begins, without its identity: the server alone vouches for it"
                                )
                            }
                        });
                        running.spawn(Arc::clone(&self).attempt(job, attempt, timeout, stop.clone()));
                    }
                    Decision::Start { job, .. } => {
                        tell(&mut runs, Event::JobSkipped { run: RUN, job, why: "it was stopped".into() });
                    }
                    Decision::Ask { job, .. } => {
                        self.say(format!("● {job} asks people on the server; nobody is asked here"));
                        let why = "nobody is asked here".to_owned();
                        tell(&mut runs, Event::ApprovalGiven { run: RUN, job, why });
                    }
                    Decision::Skip { job, why, .. } | Decision::Expire { job, why, .. } => {
                        self.say(format!("– {job} is not run: {why}"));
                        tell(&mut runs, Event::JobSkipped { run: RUN, job, why });
                    }
                    // There is no run before this one.
                    Decision::Carry { .. } => {}
                    Decision::Judge { .. } => judged = true,
                }
            }
            if judged {
                break;
            }
            let ended = tokio::select! {
                ended = running.join_next() => ended,
                _ = tokio::signal::ctrl_c(), if !stop.is_cancelled() => {
                    self.say("■ stopping what runs".into());
                    stop.cancel();
                    continue;
                }
            };
            // Nothing runs, and what was decided makes another look necessary.
            let Some(ended) = ended else { continue };
            let done = ended.map_err(|error| error.to_string())??;
            self.told(&done);
            let Done { job, attempt, end, took, gathered, .. } = done;
            let mut tests = TestCounts::default();
            gathered.tests.iter().for_each(|report| tests += report.counts);
            results.insert(job.clone(), (end.clone(), gathered));
            let finished = Event::JobFinished {
                run: RUN,
                job,
                attempt,
                ended: end,
                took,
                log: None,
                tests,
                report: None,
            };
            tell(&mut runs, finished);
        }
        let report = report(&runs, results);
        Ok((runs, report))
    }

    fn say(&self, words: String) {
        if !self.quiet {
            say!("{words}");
        }
    }

    fn not_needed(&self, runs: &Runs) {
        for job in runs.all.get(&RUN).iter().flat_map(|run| &run.jobs) {
            if let JobState::NotNeeded { why } = &job.state {
                self.say(format!("– {} is not needed: {why}", job.plan.name));
            }
        }
    }

    fn told(&self, done: &Done) {
        let (mark, words) = view::job_end(&done.end);
        let attempt = if done.attempt > 1 { format!(", attempt {}", done.attempt) } else { String::new() };
        self.say(format!("{} {} {words} after {}{attempt}", mark.sign(), done.job, done.took));
        done.tail.iter().for_each(|line| self.say(format!("    {line}")));
    }

    async fn attempt(
        self: Arc<World>,
        name: JobName,
        attempt: u32,
        timeout: Span,
        stop: CancellationToken,
    ) -> Result<Done, String> {
        let job = self.jobs.get(&name).cloned().ok_or_else(|| format!("{name} is not in the plan"))?;
        let begun = std::time::Instant::now();
        let room = Room::at(&self.room.join("attempts").join(format!("{name}-{attempt}")));
        let logs = self.room.join("logs");
        let (tree, log) = (room.dir().join("tree"), logs.join(format!("{name}-{attempt}.log")));
        std::fs::create_dir_all(room.dir())
            .and_then(|()| std::fs::create_dir_all(&logs))
            .map_err(|e| e.to_string())?;
        let repository = Repository::at(self.here.objects.clone());
        repository.check_out(&self.here.commit, &tree).await.map_err(|error| error.to_string())?;
        self.put_in(&job, &tree)?;
        // Kept between runs: tools have their caches there.
        let home = self.here.objects.join("andon-home");
        let mut env = plain_env(&self.here.name(), &home, &name, &room.tmp());
        env.insert("ANDON_COMMIT".into(), self.here.commit.to_string());
        env.extend(job.env.clone());
        let called = format!("{name}-{attempt}");
        let mut order = plain_order(&job, called, &room, tree.clone(), env, log.clone());
        order.timeout = timeout;
        order.reads.push(self.here.objects.join("objects"));
        order.writes.push(home);
        let end = job_end(self.runner.run(&order, stop.cancelled_owned()).await);
        let mut gathered = gather_reports(&tree, &tree, &job);
        if end == JobEnd::Passed && !job.outputs.is_empty() {
            let file = self
                .outputs(&name)
                .and_then(|path| std::fs::File::create(path).map_err(|error| error.to_string()))?;
            let missing =
                parcel::pack(&tree, &job.outputs, false, file).map_err(|error| error.to_string())?;
            gathered
                .unreadable
                .extend(missing.iter().map(|what| format!("the output {what} is not there after the job")));
        }
        let took = Span(u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX));
        let tail = if end == JobEnd::Passed { Vec::new() } else { tail(&log) };
        // What cannot be removed goes with everything else of this run.
        let _ = room.remove();
        Ok(Done { job: name, attempt, end, took, gathered, tail })
    }

    /// What the working copy begins with.
    fn put_in(&self, job: &Job, tree: &Path) -> Result<(), String> {
        if self.dirty {
            self.here.overlay(tree)?;
        }
        if !job.reads.is_empty() {
            parcel::narrow(tree, &job.reads).map_err(|error| error.to_string())?;
        }
        for take in &job.takes {
            let file = std::fs::File::open(self.outputs(&take.value)?).map_err(|error| error.to_string())?;
            parcel::unpack(file, tree).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    fn outputs(&self, job: &JobName) -> Result<PathBuf, String> {
        let folder = self.room.join("outputs");
        std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
        Ok(folder.join(format!("{job}.tar")))
    }
}

/// The last lines of a log.
fn tail(log: &Path) -> Vec<String> {
    use std::io::{Read, Seek, SeekFrom};
    let mut bytes = Vec::new();
    if let Ok(mut file) = std::fs::File::open(log) {
        let length = file.metadata().map_or(0, |meta| meta.len());
        let _ = file.seek(SeekFrom::Start(length.saturating_sub(64 << 10)));
        let _ = file.read_to_end(&mut bytes);
    }
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines[lines.len().saturating_sub(LINES)..].to_vec()
}

/// What the verdict is given on, as the server puts it together.
fn report(runs: &Runs, mut results: BTreeMap<JobName, (JobEnd, Gathered)>) -> RunReport {
    let jobs = runs.all.get(&RUN).map(|run| run.jobs.clone()).unwrap_or_default();
    let mut warnings = Vec::new();
    let results: Vec<JobResult> = jobs
        .iter()
        .map(|job| {
            let (end, gathered) = match results.remove(&job.plan.name) {
                Some((end, gathered)) => (Some(end), gathered),
                None => (job.passed().then_some(JobEnd::Passed), Gathered::default()),
            };
            warnings.extend(gathered.warnings);
            JobResult {
                job: job.plan.name.clone(),
                end,
                tests: gathered.tests,
                unreadable: gathered.unreadable,
            }
        })
        .collect();
    RunReport::of(results, None, None, vec![], warnings)
}

fn end(common: &Common, runs: &Runs, report: &RunReport, said: &Verdict, hash: &Digest) {
    let (mark, words) = view::verdict(said);
    if common.json {
        let jobs = runs.all.get(&RUN).map(|run| run.jobs.clone());
        print_json(
            &json!({ "plan": hash, "verdict": said, "jobs": jobs, "tests": report.counts, "warnings": report.warnings }),
        );
        return;
    }
    for line in report.failures() {
        say!(
            "  ■ {}: {}",
            line.test.full_name(),
            line.test.outcome.message().lines().next().unwrap_or_default()
        );
    }
    for warning in &report.warnings {
        say!("  ▲ {warning}");
    }
    say!("{} {words}", mark.sign());
    if let Verdict::Red { reasons, .. } = said {
        reasons.iter().for_each(|reason| say!("  ■ {reason}"));
    }
    let _ = std::io::stdout().flush();
}
