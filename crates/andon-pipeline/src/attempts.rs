//! Where one job of a run stands, as its attempts left it. Decides nothing.

use andon_model::event::{JobEnd, JobIsolation, PlannedJob, TestCounts};
use andon_model::{Actor, Digest, RunId, RunnerName, Span, Time};
use serde::Serialize;

/// Where a job of a run stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum JobState {
    /// Not begun.
    Waiting,
    /// A person is asked.
    Asked {
        /// Since when.
        since: Time,
        /// Red from then on.
        until: Time,
    },
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
    /// This change does not need it: it counts as passed.
    NotNeeded {
        /// The reason.
        why: String,
    },
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

/// The first red test that an attempt's reports showed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RedTest {
    /// Its full name.
    pub test: String,
    /// The first line of what it said.
    pub message: String,
    /// When it was seen.
    pub at: Time,
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
    /// Attempts that were lost with the server; they do not use up retries.
    pub lost: u32,
    /// Steps of the newest attempt that ended, in order.
    pub steps: Vec<StepRun>,
    /// The first red test of the newest attempt, as far as its reports are written.
    pub red_test: Option<RedTest>,
    /// What separates the newest attempt from its neighbours and from the host.
    pub isolation: JobIsolation,
    /// The runner that has or had the newest attempt, with the number of the assignment; none: the server's own machine.
    pub runner: Option<(RunnerName, u64)>,
    /// Attempts that ended red.
    pub red: u32,
    /// Attempts whose infrastructure broke.
    pub broken: u32,
    /// All that it depends on, as one digest, where it says what it reads.
    pub key: Option<Digest>,
    /// What it hands on.
    pub outputs: Option<(Digest, u64)>,
    /// The run whose attempt counts for this one.
    pub replayed: Option<RunId>,
    /// Who said yes or no, and why.
    pub answered: Option<(Actor, String)>,
}

impl JobRun {
    /// A job of a run that was just asked for.
    pub(crate) fn planned(plan: &PlannedJob) -> JobRun {
        let state = match &plan.not_needed {
            Some(why) => JobState::NotNeeded { why: why.clone() },
            None => JobState::Waiting,
        };
        JobRun {
            plan: plan.clone(),
            state,
            attempts: 0,
            lost: 0,
            steps: Vec::new(),
            red_test: None,
            isolation: JobIsolation::default(),
            runner: None,
            red: 0,
            broken: 0,
            key: None,
            outputs: None,
            replayed: None,
            answered: None,
        }
    }

    /// Whether it is green, or not needed: what needs it may go on.
    pub fn passed(&self) -> bool {
        matches!(self.state, JobState::Ended { end: JobEnd::Passed, .. } | JobState::NotNeeded { .. })
    }

    /// Whether nothing more will happen to it.
    pub fn is_settled(&self) -> bool {
        match &self.state {
            JobState::Skipped { .. } | JobState::NotNeeded { .. } => true,
            JobState::Ended { end, .. } => match end {
                JobEnd::Passed | JobEnd::Refused { .. } => true,
                JobEnd::Broken { .. } => self.broken > self.plan.broken,
                _ => self.red > self.plan.retries,
            },
            JobState::Waiting | JobState::Asked { .. } | JobState::Running { .. } => false,
        }
    }
}
