//! All runs as the journal tells them, and how long jobs take. Decides nothing.

use std::collections::BTreeMap;

use andon_model::event::{
    CoverageFigures, Event, JobEnd, JobIsolation, PlannedJob, Purpose, Recorded, TestCounts, Verdict,
};
use andon_model::{Digest, JobName, Oid, RunId, Span, Time};
use serde::Serialize;

/// Where a job of a run stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum JobState {
    /// Not begun.
    Waiting,
    /// A runner has it.
    Running {
        /// Since when.
        since: Time,
    },
    /// Its last attempt ended.
    Ended {
        /// How.
        end: JobEnd,
        /// When it ended.
        at: Time,
        /// How long the attempt took.
        took: Span,
        /// Its output.
        log: Option<Digest>,
        /// Its tests.
        tests: TestCounts,
        /// Blob with what its report files say.
        report: Option<Digest>,
    },
    /// Will not be run.
    Skipped {
        /// The reason.
        why: String,
    },
}

/// A job of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct JobRun {
    /// As planned.
    pub plan: PlannedJob,
    /// Where it stands.
    pub state: JobState,
    /// Attempts begun.
    pub attempts: u32,
    /// Attempts that were lost; they do not use up retries.
    pub lost: u32,
    /// Steps of the newest attempt that ended, in order.
    pub steps: Vec<StepRun>,
    /// What separates the newest attempt from its neighbours and from the host.
    pub isolation: JobIsolation,
}

impl JobRun {
    /// Whether it is green.
    pub fn passed(&self) -> bool {
        matches!(self.state, JobState::Ended { end: JobEnd::Passed, .. })
    }

    /// Whether nothing more will happen to it.
    pub fn is_settled(&self) -> bool {
        match &self.state {
            JobState::Ended { end: JobEnd::Passed, .. } | JobState::Skipped { .. } => true,
            JobState::Ended { .. } => self.attempts.saturating_sub(self.lost) > self.plan.retries,
            JobState::Waiting | JobState::Running { .. } => false,
        }
    }
}

/// A step of an attempt that ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepRun {
    /// What people call it.
    pub name: String,
    /// How.
    pub end: JobEnd,
    /// How long it took.
    pub took: Span,
    /// Where its output begins in the attempt's, in bytes.
    pub log_at: u64,
}

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
}

impl Run {
    /// The job of this name.
    pub fn job(&self, name: &JobName) -> Option<&JobRun> {
        self.jobs.iter().find(|job| &job.plan.name == name)
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

/// All runs of a project.
#[derive(Debug, Clone, Default)]
pub struct Runs {
    /// By number.
    pub all: BTreeMap<RunId, Run>,
    /// Durations by job.
    pub usual: BTreeMap<JobName, Usual>,
    /// Coverage of trunk's newest landing, in percent, for the ratchet.
    pub trunk_coverage: Option<f64>,
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
            Event::RunQueued { run, purpose, commit, tree, parent, jobs } => {
                let waiting = |plan: &PlannedJob| JobRun {
                    plan: plan.clone(),
                    state: JobState::Waiting,
                    attempts: 0,
                    lost: 0,
                    steps: Vec::new(),
                    isolation: JobIsolation::default(),
                };
                let made = Run {
                    id: *run,
                    purpose: purpose.clone(),
                    commit: commit.clone(),
                    tree: tree.clone(),
                    parent: parent.clone(),
                    queued: at,
                    started: None,
                    jobs: jobs.iter().map(waiting).collect(),
                    artifact: None,
                    finished: None,
                    tests: TestCounts::default(),
                    coverage: None,
                    report: None,
                };
                self.all.insert(*run, made);
            }
            Event::JobStarted { run, job, attempt, isolation } => {
                if let Some(run) = self.all.get_mut(run) {
                    run.started.get_or_insert(at);
                    with(run, job, |j| {
                        (j.state, j.attempts) = (JobState::Running { since: at }, *attempt);
                        (j.steps, j.isolation) = (Vec::new(), isolation.clone());
                    });
                }
            }
            Event::JobFinished { run, job, ended, took, log, tests, report, .. } => {
                let (log, report) = (log.clone(), report.clone());
                let state =
                    JobState::Ended { end: ended.clone(), at, took: *took, log, tests: *tests, report };
                if let Some(run) = self.all.get_mut(run) {
                    with(run, job, |j| j.state = state);
                }
                self.learn(job, *took);
            }
            Event::StepFinished { run, job, name, ended, took, log_at, .. } => {
                let step = StepRun { name: name.clone(), end: ended.clone(), took: *took, log_at: *log_at };
                if let Some(run) = self.all.get_mut(run) {
                    with(run, job, |j| j.steps.push(step));
                }
            }
            Event::JobLost { run, job, .. } => {
                if let Some(run) = self.all.get_mut(run) {
                    with(run, job, |j| (j.state, j.lost) = (JobState::Waiting, j.lost + 1));
                }
            }
            Event::JobSkipped { run, job, why } => {
                if let Some(run) = self.all.get_mut(run) {
                    with(run, job, |j| j.state = JobState::Skipped { why: why.clone() });
                }
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
                if let Some(figures) = self.all.get(run).and_then(|run| run.coverage) {
                    self.trunk_coverage = Some(figures.percent());
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

    fn learn(&mut self, job: &JobName, took: Span) {
        let millis = took.0 as f64;
        self.usual
            .entry(job.clone())
            .and_modify(|u| {
                u.millis += NEWEST * (millis - u.millis);
                u.seen += 1;
            })
            .or_insert(Usual { millis, seen: 1 });
    }
}

fn with(run: &mut Run, name: &JobName, change: impl FnOnce(&mut JobRun)) {
    if let Some(job) = run.jobs.iter_mut().find(|job| &job.plan.name == name) {
        change(job);
    }
}
