//! Limits on coverage and what breaks them, with the lines that lack tests. Reads no report and gives no verdict.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::coverage::{Coverage, percent, ranges};
use crate::diff::{Added, Diff};

/// How far, in points of percent, the project may fall below the last figure: deleting covered lines moves it by rounding.
pub const RATCHET_TOLERANCE: f64 = 0.005;
/// Files that a breach lists; it says how many more there are.
const FILES_LISTED: usize = 50;

/// Limits in percent of lines; none: no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct CoverageLimits {
    /// Of the whole project.
    pub lines: Option<f64>,
    /// Of every measured file.
    pub per_file: Option<f64>,
    /// Of the lines that the change adds.
    pub diff: Option<f64>,
    /// The project's figure must not fall.
    pub ratchet: bool,
}

impl CoverageLimits {
    fn any(&self) -> bool {
        self.lines.is_some() || self.per_file.is_some() || self.diff.is_some() || self.ratchet
    }
}

/// Which limit is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// Limits are set, but nothing was measured.
    Measured,
    /// Of the whole project.
    Lines,
    /// Of one file.
    PerFile,
    /// Of the lines that the change adds.
    Diff,
    /// The project's figure fell.
    Ratchet,
}

/// A broken limit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Breach {
    /// Which.
    pub limit: Limit,
    /// The least that is allowed, in percent.
    pub least: f64,
    /// What was found, in percent.
    pub found: f64,
    /// Files with the lines that lack tests, most lines first: `app.py:12-15,19`.
    pub lacking: Vec<String>,
    /// In a sentence.
    pub says: String,
}

/// All limits that are broken. `previous` is the project's percentage before this change, for the ratchet.
pub fn judge(
    limits: &CoverageLimits,
    coverage: &Coverage,
    diff: Option<&Diff>,
    previous: Option<f64>,
) -> Vec<Breach> {
    if !limits.any() {
        return Vec::new();
    }
    if coverage.files.values().all(|file| file.lines.is_empty()) {
        let says = "limits on coverage are set, but no report with measured lines came in".to_owned();
        return vec![Breach { limit: Limit::Measured, least: 0.0, found: 0.0, lacking: Vec::new(), says }];
    }
    let mut breaches = Vec::new();
    let found = coverage.percent();
    if let Some(least) = limits.lines.filter(|least| found < *least) {
        let says = format!("{} of all lines ran in tests; the limit is {}", show(found), show(least));
        breaches.push(Breach {
            limit: Limit::Lines,
            least,
            found,
            lacking: lacking(uncovered(coverage)),
            says,
        });
    }
    if let Some(least) = limits.per_file {
        breaches.extend(per_file(coverage, least));
    }
    if let Some((least, diff)) = limits.diff.zip(diff) {
        breaches.extend(of_diff(coverage, diff, least));
    }
    if let Some(previous) = previous.filter(|previous| limits.ratchet && found < previous - RATCHET_TOLERANCE)
    {
        let says = format!("coverage fell from {} to {}; it may only rise", show(previous), show(found));
        // The change's own lines if it is they that lack tests; otherwise a test is gone and any line may be the reason.
        let own = diff.map(|diff| DiffLines::of(coverage, diff).lacking).filter(|files| !files.is_empty());
        let files = own.unwrap_or_else(|| uncovered(coverage));
        breaches.push(Breach {
            limit: Limit::Ratchet,
            least: previous,
            found,
            lacking: lacking(files),
            says,
        });
    }
    breaches
}

/// Covered and measured lines among those that the change adds; none where it adds none that count.
pub fn diff_figures(coverage: &Coverage, diff: &Diff) -> Option<(u64, u64)> {
    let lines = DiffLines::of(coverage, diff);
    (lines.total > 0).then_some((lines.covered, lines.total))
}

fn per_file(coverage: &Coverage, least: f64) -> Option<Breach> {
    let below: Vec<_> = coverage.files.iter().filter(|(_, file)| file.percent() < least).collect();
    let (path, worst) = below.iter().min_by(|a, b| a.1.percent().total_cmp(&b.1.percent()))?;
    let found = worst.percent();
    let says = match below.len() {
        1 => format!("{} of {path} ran in tests; the limit for every file is {}", show(found), show(least)),
        n => format!("{n} files are below {}; the lowest is {path} with {}", show(least), show(found)),
    };
    let files = below.iter().map(|(path, file)| ((*path).clone(), file.uncovered().collect())).collect();
    Some(Breach { limit: Limit::PerFile, least, found, lacking: lacking(files), says })
}

fn of_diff(coverage: &Coverage, diff: &Diff, least: f64) -> Option<Breach> {
    let lines = DiffLines::of(coverage, diff);
    let found = percent(lines.covered, lines.total);
    if found >= least {
        return None;
    }
    let (covered, total) = (lines.covered, lines.total);
    let mut says = format!(
        "{covered} of {total} added lines ran in tests: {}; the limit is {}",
        show(found),
        show(least)
    );
    if let Some(path) = lines.unmeasured.first() {
        says += &format!(" ({path} is new and no report measures it)");
    }
    Some(Breach { limit: Limit::Diff, least, found, lacking: lacking(lines.lacking), says })
}

/// The added lines that count.
#[derive(Default)]
struct DiffLines {
    covered: u64,
    total: u64,
    lacking: Vec<(String, Vec<u32>)>,
    unmeasured: Vec<String>,
}

impl DiffLines {
    fn of(coverage: &Coverage, diff: &Diff) -> DiffLines {
        let kinds: BTreeSet<&str> = coverage.files.keys().filter_map(|path| extension(path)).collect();
        let mut sums = DiffLines::default();
        for (path, added) in &diff.files {
            let missing: Vec<u32> = match coverage.files.get(path) {
                Some(file) => {
                    let measured = || file.lines.iter().filter(|(line, _)| added.has(**line));
                    sums.total += measured().count() as u64;
                    measured().filter(|(_, hits)| **hits == 0).map(|(line, _)| *line).collect()
                }
                None if counts_unmeasured(path, added, &kinds) => {
                    sums.total += added.code.len() as u64;
                    sums.unmeasured.push(path.clone());
                    added.code.clone()
                }
                None => continue,
            };
            if !missing.is_empty() {
                sums.lacking.push((path.clone(), missing));
            }
        }
        let lacking: usize = sums.lacking.iter().map(|(_, lines)| lines.len()).sum();
        sums.covered = sums.total - lacking as u64;
        sums
    }
}

/// A new source file that no report knows counts as untested: else leaving a file out of the measurement would pass the gate.
fn counts_unmeasured(path: &str, added: &Added, kinds: &BTreeSet<&str>) -> bool {
    added.new
        && !added.code.is_empty()
        && extension(path).is_some_and(|kind| kinds.contains(kind))
        && !is_test(path)
}

fn extension(path: &str) -> Option<&str> {
    let name = path.rsplit('/').next()?;
    name.rsplit_once('.').filter(|(stem, _)| !stem.is_empty()).map(|(_, extension)| extension)
}

/// Tests are not measured by most tools: folders `test`, `tests`, and names as runners look for them.
fn is_test(path: &str) -> bool {
    let mut parts = path.split('/').rev();
    let name = parts.next().unwrap_or_default();
    let stem = name.split('.').next().unwrap_or_default();
    let marked = name.contains(".test.") || name.contains(".spec.");
    let named = stem.starts_with("test_")
        || stem.ends_with("_test")
        || stem.ends_with("_tests")
        || stem == "conftest"
        || marked;
    named || parts.any(|folder| matches!(folder, "test" | "tests" | "__tests__"))
}

fn uncovered(coverage: &Coverage) -> Vec<(String, Vec<u32>)> {
    let files =
        coverage.files.iter().map(|(path, file)| (path.clone(), file.uncovered().collect::<Vec<_>>()));
    files.filter(|(_, lines)| !lines.is_empty()).collect()
}

fn lacking(mut files: Vec<(String, Vec<u32>)>) -> Vec<String> {
    files.sort_by_key(|(_, lines)| std::cmp::Reverse(lines.len()));
    let more = files.len().saturating_sub(FILES_LISTED);
    let line = |(path, lines): &(String, Vec<u32>)| format!("{path}:{}", ranges(lines.iter().copied()));
    let mut listed: Vec<String> = files.iter().take(FILES_LISTED).map(line).collect();
    if more > 0 {
        listed.push(format!("and {more} more files"));
    }
    listed
}

/// Percent with as many digits as it takes not to look equal to a limit that it misses: rounded down to hundredths.
fn show(percent: f64) -> String {
    let text = format!("{:.2}", (percent * 100.0).floor() / 100.0);
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coverage::FileCoverage;
    use crate::diff;

    fn coverage(files: &[(&str, &[(u32, u64)])]) -> Coverage {
        let file = |lines: &[(u32, u64)]| FileCoverage {
            lines: lines.iter().copied().collect(),
            ..FileCoverage::default()
        };
        Coverage { files: files.iter().map(|(path, lines)| ((*path).to_owned(), file(lines))).collect() }
    }

    fn half() -> Coverage {
        coverage(&[("app.py", &[(12, 0), (13, 0), (14, 1), (15, 1), (19, 0)]), ("lib.py", &[(1, 1)])])
    }

    #[test]
    fn a_project_below_its_limit_lists_the_lines_that_lack_tests() {
        let breaches =
            judge(&CoverageLimits { lines: Some(80.0), ..Default::default() }, &half(), None, None);
        assert_eq!(breaches[0].lacking, ["app.py:12-13,19"]);
        assert_eq!(breaches[0].says, "50 % of all lines ran in tests; the limit is 80 %");
        assert!(
            judge(&CoverageLimits { lines: Some(50.0), ..Default::default() }, &half(), None, None)
                .is_empty()
        );
    }

    #[test]
    fn one_bad_file_is_not_hidden_by_good_ones() {
        let breaches =
            judge(&CoverageLimits { per_file: Some(50.0), ..Default::default() }, &half(), None, None);
        assert_eq!((breaches[0].limit, breaches[0].found), (Limit::PerFile, 40.0));
    }

    #[test]
    fn only_added_lines_that_are_measured_count_in_the_diff() {
        let diff = diff::read(
            "+++ b/app.py\n@@ -13,0 +13,4 @@\n+a\n+b\n+c\n+d\n+++ b/README.md\n@@ -0,0 +1 @@\n+x\n",
        );
        assert_eq!(diff_figures(&half(), &diff), Some((2, 3)));
        let breaches =
            judge(&CoverageLimits { diff: Some(90.0), ..Default::default() }, &half(), Some(&diff), None);
        assert_eq!(breaches[0].lacking, ["app.py:13"]);
    }

    #[test]
    fn leaving_a_new_file_out_of_the_measurement_does_not_beat_the_gate() {
        let new = |path: &str| {
            diff::read(&format!(
                "diff --git\nnew file mode 100644\n--- /dev/null\n+++ b/{path}\n@@ -0,0 +1,3 @@\n+a\n+\n+# c\n"
            ))
        };
        let limits = CoverageLimits { diff: Some(80.0), ..Default::default() };
        let breaches = judge(&limits, &half(), Some(&new("new.py")), None);
        assert_eq!(breaches[0].lacking, ["new.py:1"]);
        assert!(breaches[0].says.contains("no report measures it"));
        for free in ["tests/data.py", "test_new.py", "docs/new.md", "a/conftest.py", "Makefile"] {
            assert!(judge(&limits, &half(), Some(&new(free)), None).is_empty(), "{free}");
        }
    }

    #[test]
    fn leaving_out_the_report_does_not_beat_the_gate() {
        let limits = CoverageLimits { diff: Some(80.0), ..Default::default() };
        assert_eq!(judge(&limits, &Coverage::default(), None, None)[0].limit, Limit::Measured);
        assert!(judge(&CoverageLimits::default(), &Coverage::default(), None, None).is_empty());
    }

    #[test]
    fn the_ratchet_allows_rounding_and_nothing_else() {
        let limits = CoverageLimits { ratchet: true, ..Default::default() };
        assert!(judge(&limits, &half(), None, Some(50.004)).is_empty());
        assert!(judge(&limits, &half(), None, None).is_empty());
        let breaches = judge(&limits, &half(), None, Some(50.01));
        assert_eq!(breaches[0].says, "coverage fell from 50.01 % to 50 %; it may only rise");
    }

    #[test]
    fn a_missed_limit_never_looks_kept() {
        assert_eq!(show(79.999), "79.99 %");
    }
}
