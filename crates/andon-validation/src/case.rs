//! A test and how it ended, whatever tool said so; and collecting them in bounded memory. Reads no format.

use andon_model::Span;
use andon_model::event::TestCounts;
use serde::{Deserialize, Serialize};

use crate::text::{cut, plain};

/// What is kept at most, so that memory stays flat whatever a tool writes.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Tests that are kept; beyond it green and skipped ones are only counted. Red ones are kept to twice this number.
    pub cases: usize,
    /// Bytes of one failure's detail.
    pub detail: usize,
    /// Bytes of a name, a path or a failure's message.
    pub name: usize,
    /// Bytes of all details together; beyond it a failure keeps its message only.
    pub details: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { cases: 50_000, detail: 16 * 1024, name: 1024, details: 4 * 1024 * 1024 }
    }
}

/// How a test ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum Outcome {
    /// Green.
    Passed,
    /// It said no.
    Failed {
        /// In a line.
        message: String,
        /// The trace.
        detail: String,
    },
    /// It broke before it could say anything.
    Error {
        /// In a line.
        message: String,
        /// The trace.
        detail: String,
    },
    /// Not run.
    Skipped {
        /// The reason, as far as it is given.
        message: String,
    },
}

impl Outcome {
    /// Failed or broken.
    pub fn is_red(&self) -> bool {
        matches!(self, Outcome::Failed { .. } | Outcome::Error { .. })
    }

    /// What a red test says, in a line.
    pub fn message(&self) -> &str {
        match self {
            Outcome::Passed => "",
            Outcome::Failed { message, .. }
            | Outcome::Error { message, .. }
            | Outcome::Skipped { message } => message,
        }
    }
}

impl Outcome {
    /// All that a red test says.
    pub fn detail(&self) -> &str {
        match self {
            Outcome::Failed { detail, .. } | Outcome::Error { detail, .. } => detail,
            Outcome::Passed | Outcome::Skipped { .. } => "",
        }
    }
}

/// One test.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestCase {
    /// Names of the suites around it, from outside, joined by ` / `.
    pub suite: String,
    /// `classname`, empty where the tool writes none.
    pub class: String,
    /// Its name.
    pub name: String,
    /// The file it stands in, where the tool says so.
    pub file: Option<String>,
    /// How long it took.
    pub took: Option<Span>,
    /// How it ended, at last.
    pub outcome: Outcome,
    /// It was red and green on the same code.
    pub flaky: bool,
}

impl TestCase {
    /// The name that people know it by: `tests.test_app::test_add`.
    pub fn full_name(&self) -> String {
        let before = if self.class.is_empty() { &self.suite } else { &self.class };
        if before.is_empty() || self.name.starts_with(before.as_str()) {
            return self.name.clone();
        }
        format!("{before}::{}", self.name)
    }
}

/// What a report of tests says.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Tests in the order of the report, as far as they are kept.
    pub cases: Vec<TestCase>,
    /// All tests, also those that are not kept.
    pub counts: TestCounts,
    /// What was odd about the report.
    pub warnings: Vec<String>,
}

/// What a failure says when the report does not.
pub(crate) const NO_REASON: &str = "the report gives no reason";

/// Takes tests one after the other and keeps what the limits allow; all are counted.
#[derive(Default)]
pub(crate) struct Keeper {
    pub limits: Limits,
    report: Report,
    details: usize,
    red_kept: usize,
    not_kept: u32,
}

impl Keeper {
    pub fn new(limits: Limits) -> Keeper {
        Keeper { limits, ..Keeper::default() }
    }

    /// How many bytes of a text that a test printed are still worth keeping.
    pub fn room(&self) -> usize {
        if self.details < self.limits.details { self.limits.detail } else { 0 }
    }

    /// A red test's message and detail from what it printed: without colours, cut, the message in front of the rest where it has none.
    pub fn said(&mut self, message: &str, printed: &str) -> (String, String) {
        let detail = cut(plain(printed.trim_end()), self.room());
        self.details += detail.len();
        let first = || detail.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
        let message = match message.trim() {
            "" => first(),
            said => said,
        };
        let message = if message.is_empty() { NO_REASON } else { message };
        (cut(plain(message), self.limits.name), detail)
    }

    /// A failure of something that is no test of its own: a package that does not build, a plan that was not kept.
    pub fn broken(&mut self, suite: &str, class: &str, name: &str, message: &str, printed: &str) {
        let (message, detail) = self.said(message, printed);
        let outcome = Outcome::Error { message, detail };
        let (suite, class, name) = (suite.to_owned(), class.to_owned(), name.to_owned());
        self.push(TestCase { suite, class, name, file: None, took: None, outcome, flaky: false });
    }

    /// Counts a test and keeps it if there is room; whether it was kept.
    pub fn push(&mut self, mut case: TestCase) -> bool {
        let red = case.outcome.is_red();
        // Red in every attempt is not flaky, whatever the attempts are called.
        case.flaky &= !red;
        let counts = &mut self.report.counts;
        match case.outcome {
            Outcome::Passed => counts.passed = counts.passed.saturating_add(1),
            Outcome::Failed { .. } | Outcome::Error { .. } => counts.failed = counts.failed.saturating_add(1),
            Outcome::Skipped { .. } => counts.skipped = counts.skipped.saturating_add(1),
        }
        let room = match red {
            true => self.red_kept < self.limits.cases,
            false => self.report.cases.len() - self.red_kept < self.limits.cases,
        };
        if room {
            self.red_kept += usize::from(red);
            self.report.cases.push(case);
        } else {
            self.not_kept = self.not_kept.saturating_add(1);
        }
        room
    }

    /// Counts bytes of a detail that was made elsewhere.
    pub fn spent(&mut self, bytes: usize) {
        self.details += bytes;
    }

    pub fn warn(&mut self, text: impl Into<String>) {
        self.report.warnings.push(text.into());
    }

    pub fn counts(&self) -> TestCounts {
        self.report.counts
    }

    /// The tests that were kept, to be completed by what stands further down in the report.
    pub fn kept(&mut self) -> &mut [TestCase] {
        &mut self.report.cases
    }

    pub fn finish(mut self) -> Report {
        if self.not_kept > 0 {
            let text =
                format!("{} tests beyond the first {} were only counted", self.not_kept, self.limits.cases);
            self.warn(text);
        }
        if self.details >= self.limits.details {
            self.warn("the failures' traces were cut: together they are longer than what is kept");
        }
        self.report
    }
}
