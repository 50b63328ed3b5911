//! Everything that a run's reports say, in one value that is stored as a blob and shown on pages. Gives no verdict.

use std::collections::BTreeMap;

use andon_model::Digest;
use andon_model::event::{CoverageFigures, JobEnd, TestCounts};
use andon_model::{JobName, Time};
use serde::{Deserialize, Serialize};

use crate::coverage::{Coverage, Totals, percent, ranges};
use crate::diff::Diff;
use crate::findings::{Finding, Surplus};
use crate::impact::Impact;
use crate::junit::{Report, TestCase};
use crate::limits::{Breach, diff_figures};
use crate::measured::Number;
use crate::memory;
use crate::pyramid::LayerLine;
use crate::quarantine::Quarantine;

/// A job as it ended, with what its reports say.
#[derive(Debug, Clone, PartialEq)]
pub struct JobResult {
    /// Its name.
    pub job: JobName,
    /// How it ended; none: it was skipped.
    pub end: Option<JobEnd>,
    /// Its JUnit reports.
    pub tests: Vec<Report>,
    /// Declared reports that are missing or could not be read, in sentences.
    pub unreadable: Vec<String>,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobLine {
    /// Its name.
    pub job: JobName,
    /// How it ended; none: it was skipped.
    pub end: Option<JobEnd>,
    /// Sums over its tests.
    pub counts: TestCounts,
    /// Declared reports that are missing or could not be read.
    pub unreadable: Vec<String>,
}

/// A test and the job that ran it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TestLine {
    /// The job.
    pub job: JobName,
    /// The test.
    #[serde(flatten)]
    pub test: TestCase,
}

/// Coverage of a file, for pages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FileLine {
    /// Its path.
    pub path: String,
    /// Lines that ran.
    pub covered: u64,
    /// Lines that could run.
    pub lines: u64,
    /// Lines that lack tests: `12-15,19`.
    pub uncovered: String,
}

impl FileLine {
    /// Percent of lines that ran.
    pub fn percent(&self) -> f64 {
        percent(self.covered, self.lines)
    }
}

/// All that is known about a run when its jobs are over.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RunReport {
    /// Jobs in the order of the pipeline.
    pub jobs: Vec<JobLine>,
    /// Tests: red ones first, then as reported.
    pub tests: Vec<TestLine>,
    /// Sums over all tests, also those that are not kept.
    pub counts: TestCounts,
    /// Sums over lines; none where nothing was measured.
    pub coverage: Option<CoverageFigures>,
    /// Files, lowest coverage first.
    pub files: Vec<FileLine>,
    /// Limits that are broken.
    pub breaches: Vec<Breach>,
    /// What was odd about reports, with the job's name.
    pub warnings: Vec<String>,
    /// Red tests that stop nothing, since they are in quarantine: in a sentence, by the key of the test.
    #[serde(default)]
    pub quarantined: BTreeMap<String, String>,
    /// All that is counted of coverage; none in reports of earlier versions.
    #[serde(default)]
    pub totals: Option<Totals>,
    /// Blob with the coverage of every line, for the source view.
    #[serde(default)]
    pub measured: Option<Digest>,
    /// What of the coverage is carried from another run, and what was not judged and why, in sentences.
    #[serde(default)]
    pub notes: Vec<String>,
    /// What linters and analysers found, on lines of the change first.
    #[serde(default)]
    pub findings: Vec<Finding>,
    /// Limits on findings and on measured numbers that are broken.
    #[serde(default)]
    pub surplus: Vec<Surplus>,
    /// What performance tests measured.
    #[serde(default)]
    pub numbers: Vec<Number>,
    /// Tests by layer, from the quickest to the slowest.
    #[serde(default)]
    pub layers: Vec<LayerLine>,
    /// What a smaller selection of tests would have been, and missed.
    #[serde(default)]
    pub impact: Option<Impact>,
}

impl RunReport {
    /// Puts together what the jobs reported. `warnings` are those of coverage reports.
    pub fn of(
        jobs: Vec<JobResult>,
        coverage: Option<&Coverage>,
        diff: Option<&Diff>,
        breaches: Vec<Breach>,
        warnings: Vec<String>,
    ) -> RunReport {
        let mut made = RunReport { breaches, warnings, ..RunReport::default() };
        for result in jobs {
            let mut counts = TestCounts::default();
            for report in result.tests {
                counts += report.counts;
                made.warnings
                    .extend(report.warnings.iter().map(|warning| format!("{}: {warning}", result.job)));
                made.tests
                    .extend(report.cases.into_iter().map(|test| TestLine { job: result.job.clone(), test }));
            }
            made.counts += counts;
            made.jobs.push(JobLine {
                job: result.job,
                end: result.end,
                counts,
                unreadable: result.unreadable,
            });
        }
        made.tests.sort_by_key(|line| !line.test.outcome.is_red());
        if let Some(coverage) = coverage.filter(|coverage| !coverage.files.is_empty()) {
            let (covered, lines) = coverage.sums();
            let diff = diff.and_then(|diff| diff_figures(coverage, diff));
            made.totals = Some(coverage.totals());
            made.coverage = Some(CoverageFigures { covered, lines, diff });
            made.files = coverage
                .files
                .iter()
                .map(|(path, file)| {
                    let (covered, lines) = file.sums();
                    FileLine { path: path.clone(), covered, lines, uncovered: ranges(file.uncovered()) }
                })
                .collect();
            made.files.sort_by(|a, b| a.percent().total_cmp(&b.percent()).then_with(|| a.path.cmp(&b.path)));
        }
        made
    }

    /// Red tests that count, in order.
    pub fn failures(&self) -> impl Iterator<Item = &TestLine> {
        self.red().filter(|line| !self.quarantined.contains_key(&memory::key(&line.test)))
    }

    /// Red tests, also those in quarantine.
    pub fn red(&self) -> impl Iterator<Item = &TestLine> {
        self.tests.iter().filter(|line| line.test.outcome.is_red())
    }

    /// Lets those be that are in quarantine at this time.
    pub fn excuse(&mut self, quarantine: &Quarantine, now: Time) {
        let held = |line: &TestLine| {
            let key = memory::key(&line.test);
            let held = quarantine.of(&key, now)?;
            let day = held.until.rfc3339().get(..10).unwrap_or_default().to_owned();
            let says = format!(
                "{} is red and in quarantine until {day}; {} makes it reliable again",
                line.test.full_name(),
                held.owner
            );
            Some((key, says))
        };
        self.quarantined = self.red().filter_map(held).collect();
    }

    /// Tests that were red and green on the same code.
    pub fn flaky(&self) -> impl Iterator<Item = &TestLine> {
        self.tests.iter().filter(|line| line.test.flaky)
    }
}
