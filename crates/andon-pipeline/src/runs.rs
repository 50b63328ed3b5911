//! All runs as the journal tells them, and how long jobs take. Decides nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use andon_model::event::{CoverageFigures, Event, JobEnd, Purpose, Recorded, TestCounts, Verdict};
use andon_model::{Digest, JobName, Oid, RunId, Span, Time};
use serde::Serialize;

pub use crate::attempts::{JobRun, JobState, RedTest, StepRun};

/// One execution of the pipeline.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Run {
    /// Its number.
    pub id: RunId,
    /// Why it exists.
    pub purpose: Purpose,
    /// The commit whose tree is tested.
    pub commit: Oid,
    /// The tree.
    pub tree: Oid,
    /// Trunk as it was.
    pub parent: Option<Oid>,
    /// When it was asked for.
    pub queued: Time,
    /// When its first job began.
    pub started: Option<Time>,
    /// Its jobs.
    pub jobs: Vec<JobRun>,
    /// What it built.
    pub artifact: Option<(Digest, u64)>,
    /// When it ended, and the verdict.
    pub finished: Option<(Time, Verdict)>,
    /// All tests.
    pub tests: TestCounts,
    /// Coverage, where reported.
    pub coverage: Option<CoverageFigures>,
    /// Blob with all tests and the coverage of all files.
    pub report: Option<Digest>,
    /// The expanded definition: its hash, and the name of its blob.
    pub plan: Option<Digest>,
    /// The run that this one makes once more.
    pub again: Option<RunId>,
    /// Whether trunk moved to what it tested.
    pub landed: bool,
    #[serde(skip)]
    places: HashMap<JobName, usize>,
}

impl Run {
    /// The job of this name.
    pub fn job(&self, name: &JobName) -> Option<&JobRun> {
        self.jobs.get(*self.places.get(name)?)
    }

    /// Whether what it made may be used by runs of trunk and of any change: it is of trunk itself, or trunk is what it tested. What a change
    /// makes that has not landed is for that change alone.
    pub fn is_trusted(&self) -> bool {
        self.landed || self.purpose == Purpose::Trunk
    }

    /// Whether this run may use what the other made.
    pub fn may_use(&self, other: &Run) -> bool {
        let change = |run: &Run| match run.purpose {
            Purpose::Gate { change, .. } => Some(change),
            Purpose::Trunk => None,
        };
        other.is_trusted() || (change(self).is_some() && change(self) == change(other))
    }

    /// Whether a red job has already decided it.
    pub fn is_lost(&self) -> bool {
        self.jobs
            .iter()
            .any(|job| job.is_settled() && matches!(job.state, JobState::Ended { .. }) && !job.passed())
    }
}

/// How long a job usually takes: an exponentially weighted mean, half of it the last few attempts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Usual {
    /// Milliseconds.
    pub millis: f64,
    /// Attempts seen.
    pub seen: u32,
}

/// Weight of the newest attempt in [`Usual`]. Three attempts make up two thirds of the mean, so a job that became slow is seen soon.
const NEWEST: f64 = 0.3;

/// Green attempts whose times are kept for [`Runs::timeout`].
const KEPT: usize = 20;
/// Green attempts that have to be known before a timeout follows from them.
const KNOWN: usize = 5;
/// A timeout where nothing is said and nothing is known.
pub const UNKNOWN: Span = Span::secs(30 * 60);
/// The shortest timeout that is not said by anybody.
const SHORTEST: Span = Span::secs(5 * 60);
/// How often a job may take what it usually takes at most.
const TIMES: u64 = 4;
/// Runs kept for each key that was green; the newest may not be one that everybody may use.
const GREENS: usize = 8;

/// All runs of a project.
#[derive(Debug, Clone, Default)]
pub struct Runs {
    /// By number.
    pub all: BTreeMap<RunId, Run>,
    /// Durations by job.
    pub usual: BTreeMap<JobName, Usual>,
    /// Coverage of trunk's newest landing, in percent, for the ratchet.
    pub trunk_coverage: Option<f64>,
    /// Jobs that a runner has, also those of runs that are over.
    pub running: BTreeSet<(RunId, JobName)>,
    /// The number of the last assignment to a runner.
    pub assigned: u64,
    green: BTreeMap<(JobName, Digest), VecDeque<RunId>>,
    recent: BTreeMap<JobName, VecDeque<Span>>,
}

impl Runs {
    /// The number that the next run gets.
    pub fn next_id(&self) -> RunId {
        self.all.keys().next_back().map_or(RunId(1), |id| id.next())
    }

    /// Runs without a verdict, oldest first.
    pub fn open(&self) -> impl Iterator<Item = &Run> {
        self.all.values().filter(|run| run.finished.is_none())
    }

    /// Takes in what happened.
    pub fn evolve(&mut self, recorded: &Recorded) {
        let at = recorded.at;
        match &recorded.event {
            Event::RunQueued { run, purpose, commit, tree, parent, jobs, plan, again } => {
                let made = Run {
                    id: *run,
                    purpose: purpose.clone(),
                    commit: commit.clone(),
                    tree: tree.clone(),
                    parent: parent.clone(),
                    queued: at,
                    started: None,
                    jobs: jobs.iter().map(JobRun::planned).collect(),
                    artifact: None,
                    finished: None,
                    tests: TestCounts::default(),
                    coverage: None,
                    report: None,
                    plan: plan.clone(),
                    again: *again,
                    landed: false,
                    places: jobs.iter().enumerate().map(|(at, job)| (job.name.clone(), at)).collect(),
                };
                self.all.insert(*run, made);
            }
            Event::JobStarted { run, job, attempt, isolation } => {
                if let Some(found) = self.all.get_mut(run) {
                    found.started.get_or_insert(at);
                    self.running.insert((*run, job.clone()));
                    with(found, job, |j| {
                        (j.state, j.attempts) = (JobState::Running { since: at }, *attempt);
                        (j.steps, j.isolation) = (Vec::new(), isolation.clone());
                        (j.runner, j.red_test) = (None, None);
                    });
                }
            }
            Event::JobAssigned { run, job, attempt, runner, number } => {
                self.assigned = self.assigned.max(*number);
                self.with(*run, job, |j| {
                    if j.attempts == *attempt {
                        j.runner = Some((runner.clone(), *number));
                    }
                });
            }
            Event::JobFinished { run, job, ended, took, log, tests, report, .. } => {
                let (log, report) = (log.clone(), report.clone());
                let state =
                    JobState::Ended { end: ended.clone(), at, took: *took, log, tests: *tests, report };
                self.finished(*run, job, ended, state);
                self.learn(job, *took, *ended == JobEnd::Passed);
            }
            Event::StepFinished { run, job, name, ended, took, log_at, .. } => {
                let step = StepRun { name: name.clone(), end: ended.clone(), took: *took, log_at: *log_at };
                if let Some(run) = self.all.get_mut(run) {
                    with(run, job, |j| j.steps.push(step));
                }
            }
            Event::TestRed { run, job, attempt, test, message } => {
                let seen = RedTest { test: test.clone(), message: message.clone(), at };
                self.with(*run, job, |j| {
                    if j.attempts == *attempt {
                        j.red_test.get_or_insert(seen);
                    }
                });
            }
            Event::JobLost { run, job, .. } => {
                self.running.remove(&(*run, job.clone()));
                self.with(*run, job, |j| (j.state, j.lost) = (JobState::Waiting, j.lost + 1));
            }
            Event::JobSkipped { run, job, why } => {
                self.with(*run, job, |j| j.state = JobState::Skipped { why: why.clone() });
            }
            Event::JobKeyed { run, job, key } => self.with(*run, job, |j| j.key = Some(key.clone())),
            // What it runs depends on what the others took: it is no answer to the same question in another run.
            Event::TestsHanded { run, job, .. } => self.with(*run, job, |j| j.key = None),
            Event::JobOutputs { run, job, outputs, bytes, .. } => {
                self.with(*run, job, |j| j.outputs = Some((outputs.clone(), *bytes)));
            }
            Event::JobReplayed { run, job, from, key } => self.replayed(*run, job, *from, key.as_ref()),
            Event::ApprovalAsked { run, job, until } => {
                self.with(*run, job, |j| j.state = JobState::Asked { since: at, until: *until });
            }
            Event::ApprovalGiven { run, job, why } => self.answered(*run, job, recorded, JobEnd::Passed, why),
            Event::ApprovalRefused { run, job, why } => {
                self.answered(*run, job, recorded, JobEnd::Refused { why: why.clone() }, why);
            }
            Event::ArtifactBuilt { run, artifact, bytes, .. } => {
                if let Some(run) = self.all.get_mut(run) {
                    run.artifact = Some((artifact.clone(), *bytes));
                }
            }
            Event::RunFinished { run, verdict, tests, coverage, report } => {
                if let Some(run) = self.all.get_mut(run) {
                    run.finished = Some((at, verdict.clone()));
                    (run.tests, run.coverage, run.report) = (*tests, *coverage, report.clone());
                }
            }
            Event::Landed { run, .. } => {
                if let Some(found) = self.all.get_mut(run) {
                    found.landed = true;
                    self.trunk_coverage =
                        found.coverage.map(|figures| figures.percent()).or(self.trunk_coverage);
                }
            }
            _ => {}
        }
    }

    /// How long the rest of a run will take if every job takes its usual time and all run side by side; none for unknown jobs.
    pub fn estimate(&self, run: &Run) -> Option<Span> {
        let left = run.jobs.iter().filter(|job| !job.is_settled());
        let millis: Option<f64> = left.map(|job| self.usual.get(&job.plan.name).map(|u| u.millis)).sum();
        millis.map(|ms| Span(ms as u64))
    }

    /// When an attempt is stopped: as said, else by how long the job usually takes.
    pub fn timeout(&self, job: &JobName, said: Option<Span>) -> Span {
        let known = self.recent.get(job).filter(|times| times.len() >= KNOWN);
        match (said, known) {
            (Some(said), _) => said,
            (None, None) => UNKNOWN,
            (None, Some(times)) => {
                let mut times: Vec<Span> = times.iter().copied().collect();
                times.sort_unstable();
                // The nearest rank of the 95th percentile.
                let most = times[(times.len() * 95).div_ceil(100) - 1];
                Span(most.0.saturating_mul(TIMES)).max(SHORTEST)
            }
        }
    }

    /// Whether a timeout follows from known times: for the words about it.
    pub fn is_timeout_known(&self, job: &JobName) -> bool {
        self.recent.get(job).is_some_and(|times| times.len() >= KNOWN)
    }

    /// The newest run in which the job was green with this key and whose results this run may use.
    pub fn green_before(&self, run: &Run, job: &JobName, key: &Digest) -> Option<RunId> {
        let known = self.green.get(&(job.clone(), key.clone()))?;
        let usable =
            |id: &&RunId| self.all.get(id).is_some_and(|other| other.id != run.id && run.may_use(other));
        known.iter().rev().find(usable).copied()
    }

    /// The newest run of the same patch set in which a person said yes to the same question.
    pub fn approved_before(&self, run: &Run, job: &JobRun) -> Option<RunId> {
        let Purpose::Gate { .. } = run.purpose else { return None };
        let said = |other: &&Run| {
            other.id < run.id
                && other.purpose == run.purpose
                && other.job(&job.plan.name).is_some_and(|before| {
                    before.passed() && before.answered.is_some() && before.plan.approve == job.plan.approve
                })
        };
        self.all.values().rev().find(said).map(|other| other.id)
    }

    fn with(&mut self, run: RunId, job: &JobName, change: impl FnOnce(&mut JobRun)) {
        if let Some(run) = self.all.get_mut(&run) {
            with(run, job, change);
        }
    }

    fn finished(&mut self, run: RunId, job: &JobName, ended: &JobEnd, state: JobState) {
        self.running.remove(&(run, job.clone()));
        let mut green = None;
        self.with(run, job, |j| {
            match ended {
                JobEnd::Passed => green = j.key.clone(),
                JobEnd::Broken { .. } => j.broken += 1,
                _ => j.red += 1,
            }
            j.state = state;
        });
        if let Some(key) = green {
            let known = self.green.entry((job.clone(), key)).or_default();
            known.push_back(run);
            if known.len() > GREENS {
                // One that everybody may use is worth more than a newer one that is for one change alone.
                let trusted = |id: &RunId| self.all.get(id).is_some_and(Run::is_trusted);
                let oldest = known.iter().position(|id| !trusted(id)).unwrap_or(0);
                known.remove(oldest);
            }
        }
    }

    fn replayed(&mut self, run: RunId, job: &JobName, from: RunId, key: Option<&Digest>) {
        let Some(before) = self.all.get(&from).and_then(|run| run.job(job)).cloned() else { return };
        self.with(run, job, |j| {
            j.state = before.state;
            (j.steps, j.isolation, j.runner) = (before.steps, before.isolation, before.runner);
            j.red_test = before.red_test;
            j.outputs = before.outputs;
            j.answered = before.answered;
            j.key = key.cloned();
            // Its own run, wherever it was replayed from last.
            j.replayed = Some(before.replayed.unwrap_or(from));
        });
    }

    fn answered(&mut self, run: RunId, job: &JobName, recorded: &Recorded, end: JobEnd, why: &str) {
        let at = recorded.at;
        self.with(run, job, |j| {
            let since = match j.state {
                JobState::Asked { since, .. } => since,
                _ => at,
            };
            let (took, tests) = (at.since(since), TestCounts::default());
            j.state = JobState::Ended { end, at, took, log: None, tests, report: None };
            j.answered = Some((recorded.by.clone(), why.to_owned()));
        });
    }

    fn learn(&mut self, job: &JobName, took: Span, passed: bool) {
        let millis = took.0 as f64;
        self.usual
            .entry(job.clone())
            .and_modify(|u| {
                u.millis += NEWEST * (millis - u.millis);
                u.seen += 1;
            })
            .or_insert(Usual { millis, seen: 1 });
        if passed {
            let times = self.recent.entry(job.clone()).or_default();
            times.push_back(took);
            if times.len() > KEPT {
                times.pop_front();
            }
        }
    }
}

fn with(run: &mut Run, name: &JobName, change: impl FnOnce(&mut JobRun)) {
    if let Some(job) = run.places.get(name).and_then(|at| run.jobs.get_mut(*at)) {
        change(job);
    }
}
