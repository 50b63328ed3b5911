//! The verdict on a run: green, red with its reasons, or broken. Pure: the same report always gets the same verdict.

use andon_model::event::{JobEnd, Verdict};

use crate::report::{JobLine, RunReport, TestLine};

/// Reasons that a verdict holds; the report has all of them.
const MOST_REASONS: usize = 20;
/// Characters of one reason.
const LONGEST_REASON: usize = 300;

/// The verdict. Red evidence beats broken infrastructure: a test that failed has failed, whatever else went wrong. A job that was not run
/// keeps a run from being green.
pub fn of(report: &RunReport) -> Verdict {
    let tests = report.failures().map(test_reason);
    let without_tests = |job: &&JobLine| !report.failures().any(|line| line.job == job.job);
    let jobs = report.jobs.iter().filter(without_tests).filter_map(job_reason);
    let unreadable = report.jobs.iter().filter(|job| job.end == Some(JobEnd::Passed)).flat_map(unreadable);
    // Limits are judged on whole reports only: what a failed or broken job did not measure says nothing about the change.
    let whole = report.jobs.iter().all(|job| job.end == Some(JobEnd::Passed));
    let limits = report.breaches.iter().filter(|_| whole).map(|breach| match breach.lacking.first() {
        Some(first) => format!("{}; first without tests: {first}", breach.says),
        None => breach.says.clone(),
    });
    let findings = report.surplus.iter().map(|surplus| match surplus.found.first() {
        Some(first) => format!("{}; first: {first}", surplus.says),
        None => surplus.says.clone(),
    });
    let mut reasons: Vec<String> =
        tests.chain(jobs).chain(unreadable).chain(limits).chain(findings).map(|text| short(&text)).collect();
    // More red tests than are kept: their sum still makes the run red.
    let kept = report.red().count();
    if report.counts.failed as usize > kept {
        reasons.push(format!("{} more failed tests are not listed", report.counts.failed as usize - kept));
    }
    if !reasons.is_empty() {
        let more = reasons.len().saturating_sub(MOST_REASONS);
        reasons.truncate(MOST_REASONS);
        if more > 0 {
            reasons.push(format!("and {more} more"));
        }
        return Verdict::Red { headline: reasons.remove(0), reasons };
    }
    let broken = report.jobs.iter().find_map(|job| match &job.end {
        Some(JobEnd::Broken { why }) => Some(format!("job {}: {why}", job.job)),
        _ => None,
    });
    // Green means that every job passed: a job that nobody ran proves nothing.
    let not_run =
        || report.jobs.iter().find(|job| job.end.is_none()).map(|job| format!("job {} was not run", job.job));
    match broken.or_else(not_run) {
        Some(why) => Verdict::Broken { why: short(&why) },
        None => Verdict::Green,
    }
}

fn test_reason(line: &TestLine) -> String {
    let name = line.test.full_name();
    match line.test.outcome.message().lines().next().map(str::trim).filter(|text| !text.is_empty()) {
        Some(message) => format!("{name} failed: {message}"),
        None => format!("{name} failed"),
    }
}

fn job_reason(job: &JobLine) -> Option<String> {
    match job.end.as_ref()? {
        JobEnd::Passed | JobEnd::Broken { .. } => None,
        JobEnd::Failed { code } => Some(format!("job {} failed with exit status {code}", job.job)),
        JobEnd::TimedOut { after } => Some(format!("job {} was stopped after {after}", job.job)),
        JobEnd::Refused { why } => Some(format!("job {} was refused: {why}", job.job)),
        JobEnd::Quiet { after } => {
            Some(format!("job {} was stopped: it printed nothing for {after}", job.job))
        }
        JobEnd::OutOfMemory { limit } => {
            let limit = limit.map(|limit| format!(" of {} MiB", limit >> 20)).unwrap_or_default();
            Some(format!("job {} was killed: it used more memory than its limit{limit}", job.job))
        }
        JobEnd::TooMuchOutput { most } => {
            Some(format!("job {} was stopped: it printed more than {} MiB", job.job, most >> 20))
        }
    }
}

fn unreadable(job: &JobLine) -> impl Iterator<Item = String> {
    job.unreadable.iter().map(|what| format!("job {}: {what}", job.job))
}

fn short(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    match line.char_indices().nth(LONGEST_REASON) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coverage::{Coverage, FileCoverage};
    use crate::junit::{Limits, read};
    use crate::limits::{CoverageLimits, Shares, judge};
    use crate::report::JobResult;
    use andon_model::Span;

    fn job(name: &str, end: JobEnd, junit: &str) -> JobResult {
        let tests =
            if junit.is_empty() { vec![] } else { vec![read(junit.as_bytes(), Limits::default()).unwrap()] };
        JobResult { job: name.parse().unwrap(), end: Some(end), tests, unreadable: vec![] }
    }

    fn verdict(jobs: Vec<JobResult>) -> Verdict {
        of(&RunReport::of(jobs, None, None, vec![], vec![]))
    }

    const RED: &str = "<testsuite><testcase classname='tests.test_app' name='test_ok'/><testcase classname='tests.test_app' name='test_add'>\
        <failure message='assert 3 == 4&#10;more'>trace</failure></testcase></testsuite>";

    #[test]
    fn the_headline_names_the_first_failing_test() {
        let jobs =
            vec![job("lint", JobEnd::Failed { code: 2 }, ""), job("unit", JobEnd::Failed { code: 1 }, RED)];
        let headline = "tests.test_app::test_add failed: assert 3 == 4".to_owned();
        assert_eq!(
            verdict(jobs),
            Verdict::Red { headline, reasons: vec!["job lint failed with exit status 2".into()] }
        );
    }

    #[test]
    fn a_failed_test_is_red_even_if_its_job_said_zero() {
        assert!(matches!(verdict(vec![job("unit", JobEnd::Passed, RED)]), Verdict::Red { .. }));
    }

    #[test]
    fn broken_infrastructure_is_not_the_changes_fault_but_red_beats_it() {
        let broken = || job("unit", JobEnd::Broken { why: "disk full".into() }, "");
        assert_eq!(verdict(vec![broken()]), Verdict::Broken { why: "job unit: disk full".into() });
        let says = String::from("nothing was measured");
        let breach = crate::limits::Breach {
            limit: crate::limits::Limit::Measured,
            least: 0.0,
            found: 0.0,
            lacking: vec![],
            says,
        };
        let unmeasured = RunReport::of(vec![broken()], None, None, vec![breach], vec![]);
        assert!(
            matches!(of(&unmeasured), Verdict::Broken { .. }),
            "what a broken job did not measure is not the change's fault"
        );
        let slow = job("slow", JobEnd::TimedOut { after: Span::secs(60) }, "");
        assert!(
            matches!(verdict(vec![broken(), slow]), Verdict::Red { headline, .. } if headline == "job slow was stopped after 1 min")
        );
    }

    #[test]
    fn a_run_with_a_job_that_nobody_ran_is_not_green() {
        let mut late = job("late", JobEnd::Passed, "");
        late.end = None;
        let why = "job late was not run".to_owned();
        assert_eq!(verdict(vec![job("unit", JobEnd::Passed, ""), late]), Verdict::Broken { why });
    }

    #[test]
    fn a_declared_report_that_cannot_be_read_is_red() {
        let mut unit = job("unit", JobEnd::Passed, "");
        unit.unreadable.push("unit.xml is missing".into());
        assert!(
            matches!(verdict(vec![unit]), Verdict::Red { headline, .. } if headline == "job unit: unit.xml is missing")
        );
        assert_eq!(verdict(vec![job("unit", JobEnd::Passed, "")]), Verdict::Green);
    }

    #[test]
    fn a_broken_limit_is_red_and_names_the_lines() {
        let coverage = Coverage {
            files: [(
                "app.py".into(),
                FileCoverage { lines: [(1, 0), (2, 1)].into(), ..FileCoverage::default() },
            )]
            .into(),
        };
        let breaches = judge(
            &CoverageLimits { all: Shares { lines: Some(80.0), ..Shares::default() }, ..Default::default() },
            &coverage,
            None,
            None,
        );
        let report = RunReport::of(vec![], Some(&coverage), None, breaches, vec![]);
        let Verdict::Red { headline, .. } = of(&report) else { panic!() };
        assert_eq!(
            headline,
            "50 % of all lines ran in tests; the limit is 80 %; first without tests: app.py:1"
        );
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<RunReport>(&json).unwrap(), report, "a stored report reads back");
    }
}
