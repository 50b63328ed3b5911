//! Limits on coverage and what breaks them, with the lines that lack tests. Reads no report and gives no verdict.

use std::collections::BTreeSet;

use andon_model::Span;
use serde::{Deserialize, Serialize};

use crate::coverage::{Coverage, FileCoverage, Totals, percent, ranges};
use crate::diff::{Added, Diff};

/// How far, in points of percent, the project may fall below the last figure: deleting covered lines moves it by rounding.
pub const RATCHET_TOLERANCE: f64 = 0.005;
/// Files that a breach lists; it says how many more there are.
const FILES_LISTED: usize = 50;

/// Least shares in percent; none: no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Shares {
    /// Of the lines.
    pub lines: Option<f64>,
    /// Of the branches.
    pub branches: Option<f64>,
    /// Of the functions.
    pub functions: Option<f64>,
}

/// Limits in percent; none: no limit.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CoverageLimits {
    /// Of the whole project.
    pub all: Shares,
    /// Of classes, or of files where no tool knows classes: those with at least one covered line.
    pub classes_with_tests: Option<f64>,
    /// Of lines of every measured file.
    pub per_file: Option<f64>,
    /// Of the lines that the change adds.
    pub diff: Option<f64>,
    /// The project's figure must not fall.
    pub ratchet: bool,
    /// Of all files together that a pattern names; `**` stands for any folders, `*` for a part of a name.
    pub paths: Vec<(String, Shares)>,
    /// Of the whole project, by what the tests of one layer run.
    pub layers: Vec<(String, Shares)>,
    /// How old a carried figure may be.
    pub carry_at_most: Span,
}

impl Shares {
    fn any(&self) -> bool {
        self.lines.is_some() || self.branches.is_some() || self.functions.is_some()
    }
}

impl CoverageLimits {
    /// Whether anything is limited.
    pub fn any(&self) -> bool {
        let own = self.classes_with_tests.is_some()
            || self.per_file.is_some()
            || self.diff.is_some()
            || self.ratchet;
        own || self.all.any() || !self.paths.is_empty() || !self.layers.is_empty()
    }
}

/// Which limit is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// Limits are set, but nothing was measured.
    Measured,
    /// Lines of the whole project.
    Lines,
    /// Of one file.
    PerFile,
    /// Of the lines that the change adds.
    Diff,
    /// The project's figure fell.
    Ratchet,
    /// Branches of the whole project.
    Branches,
    /// Functions of the whole project.
    Functions,
    /// Classes with tests.
    Classes,
    /// Files of a pattern.
    Path,
    /// What the tests of one layer run.
    Layer,
    /// A carried figure is too old.
    Carried,
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

/// All limits that are broken by what was measured, layers apart. `previous` is the project's percentage before this change, for the ratchet.
pub fn judge(
    limits: &CoverageLimits,
    coverage: &Coverage,
    diff: Option<&Diff>,
    previous: Option<f64>,
) -> Vec<Breach> {
    if !limits.any() {
        return Vec::new();
    }
    if coverage.is_empty() {
        let says = "limits on coverage are set, but no report with measured lines came in".to_owned();
        return vec![Breach { limit: Limit::Measured, least: 0.0, found: 0.0, lacking: Vec::new(), says }];
    }
    let files: Vec<_> = coverage.files.iter().collect();
    let mut breaches = shares(&limits.all, &files, None, "");
    if let Some(least) = limits.classes_with_tests {
        breaches.extend(classes(coverage, least));
    }
    for (pattern, least) in &limits.paths {
        breaches.extend(of_pattern(coverage, pattern, least));
    }
    if let Some(least) = limits.per_file {
        breaches.extend(per_file(coverage, least));
    }
    if let Some((least, diff)) = limits.diff.zip(diff) {
        breaches.extend(of_diff(coverage, diff, least));
    }
    let found = coverage.percent();
    if let Some(previous) = previous.filter(|previous| limits.ratchet && found < previous - RATCHET_TOLERANCE)
    {
        let says = format!("coverage fell from {} to {}; it may only rise", show(previous), show(found));
        // The change's own lines if it is they that lack tests; otherwise a test is gone and any line may be the reason.
        let own = diff.map(|diff| DiffLines::of(coverage, diff).lacking).filter(|files| !files.is_empty());
        let files = own.unwrap_or_else(|| uncovered(&files));
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

/// Some files of the project.
type Files<'a> = &'a [(&'a String, &'a FileCoverage)];

/// Lines, branches and functions of some files together; `of` says which, `limit` what the breach is called if not by its kind.
pub(crate) fn shares(least: &Shares, files: Files<'_>, limit: Option<Limit>, of: &str) -> Vec<Breach> {
    let mut totals = Totals::default();
    files.iter().for_each(|(_, file)| totals += file.totals());
    let kinds = [
        (
            least.lines,
            totals.lines,
            Limit::Lines,
            "lines ran in tests",
            uncovered as fn(Files<'_>) -> Lacking,
        ),
        (least.branches, totals.branches, Limit::Branches, "branches were taken in tests", untaken),
        (least.functions, totals.functions, Limit::Functions, "functions were called in tests", uncalled),
    ];
    let mut breaches = Vec::new();
    for (least, share, kind, what, list) in kinds {
        let Some(least) = least else { continue };
        let (limit, found) = (limit.unwrap_or(kind), share.percent());
        let breach = |found, lacking, says| Breach { limit, least, found, lacking, says };
        if share.total == 0 {
            let (noun, _) = what.split_once(' ').unwrap_or((what, ""));
            let says = format!("a limit on {noun}{of} is set, but no report measures any");
            breaches.push(breach(0.0, Vec::new(), says));
        } else if found < least {
            let says = format!("{} of all {what}{of}; the limit is {}", show(found), show(least));
            breaches.push(breach(found, lacking(list(files)), says));
        }
    }
    breaches
}

/// A class without a covered line has no test, whatever its neighbours have.
fn classes(coverage: &Coverage, least: f64) -> Option<Breach> {
    let share = coverage.totals().classes;
    let found = share.percent();
    if found >= least {
        return None;
    }
    let mut without = Vec::new();
    for (path, file) in &coverage.files {
        let own = file.classes.iter().filter(|(_, class)| class.lines > 0 && class.covered == 0);
        match file.classes.is_empty() {
            true if file.sums().0 == 0 && !file.lines.is_empty() => without.push(path.clone()),
            _ => without.extend(own.map(|(name, _)| format!("{path}: {name}"))),
        }
    }
    let more = without.len().saturating_sub(FILES_LISTED);
    without.truncate(FILES_LISTED);
    if more > 0 {
        without.push(format!("and {more} more"));
    }
    let (covered, total) = (share.covered, share.total);
    let says = format!(
        "{covered} of {total} classes have a line that ran in tests: {}; the limit is {}",
        show(found),
        show(least)
    );
    Some(Breach { limit: Limit::Classes, least, found, lacking: without, says })
}

fn of_pattern(coverage: &Coverage, pattern: &str, least: &Shares) -> Vec<Breach> {
    let breach = |says| Breach { limit: Limit::Path, least: 0.0, found: 0.0, lacking: Vec::new(), says };
    let glob = match globset::GlobBuilder::new(pattern).literal_separator(true).build() {
        Ok(glob) => glob.compile_matcher(),
        Err(error) => return vec![breach(format!("the pattern {pattern} cannot be read: {error}"))],
    };
    let own: Vec<_> = coverage.files.iter().filter(|(path, _)| glob.is_match(path)).collect();
    if own.is_empty() {
        return vec![breach(format!("a limit on {pattern} is set, but no measured file has such a name"))];
    }
    shares(least, &own, Some(Limit::Path), &format!(" in {pattern}"))
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

/// Files with lines.
type Lacking = Vec<(String, Vec<u32>)>;

fn listed<'a, I: Iterator<Item = u32>>(files: Files<'a>, lines: impl Fn(&'a FileCoverage) -> I) -> Lacking {
    let files = files.iter().map(|(path, file)| ((*path).clone(), lines(file).collect::<Vec<_>>()));
    files.filter(|(_, lines)| !lines.is_empty()).collect()
}

fn uncovered(files: Files<'_>) -> Lacking {
    listed(files, FileCoverage::uncovered)
}

fn untaken(files: Files<'_>) -> Lacking {
    listed(files, FileCoverage::partly)
}

fn uncalled(files: Files<'_>) -> Lacking {
    listed(files, |file| {
        file.functions.iter().filter(|function| function.hits == 0).map(|function| function.line)
    })
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

    fn of_lines(least: f64) -> CoverageLimits {
        let all = Shares { lines: Some(least), ..Shares::default() };
        CoverageLimits { all, ..CoverageLimits::default() }
    }

    fn half() -> Coverage {
        coverage(&[("app.py", &[(12, 0), (13, 0), (14, 1), (15, 1), (19, 0)]), ("lib.py", &[(1, 1)])])
    }

    #[test]
    fn a_project_below_its_limit_lists_the_lines_that_lack_tests() {
        let breaches = judge(&of_lines(80.0), &half(), None, None);
        assert_eq!(breaches[0].lacking, ["app.py:12-13,19"]);
        assert_eq!(breaches[0].says, "50 % of all lines ran in tests; the limit is 80 %");
        assert!(judge(&of_lines(50.0), &half(), None, None).is_empty());
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

    #[test]
    fn branches_and_functions_have_limits_of_their_own_with_their_lines() {
        let mut measured = half();
        let file = measured.files.get_mut("app.py").unwrap();
        file.branches = [(14, vec![1, 0]), (15, vec![1, 1])].into();
        let function = |line, hits| crate::coverage::Function { line, name: format!("f{line}"), hits };
        file.functions = vec![function(12, 0), function(14, 1)];
        let all = Shares { branches: Some(80.0), functions: Some(80.0), ..Shares::default() };
        let breaches = judge(&CoverageLimits { all, ..Default::default() }, &measured, None, None);
        assert_eq!(breaches[0].says, "75 % of all branches were taken in tests; the limit is 80 %");
        assert_eq!(
            (&breaches[0].lacking[0], &breaches[1].lacking[0]),
            (&"app.py:14".to_owned(), &"app.py:12".to_owned())
        );
        let unmeasured = judge(&CoverageLimits { all, ..Default::default() }, &half(), None, None);
        assert_eq!(unmeasured[0].says, "a limit on branches is set, but no report measures any");
    }

    #[test]
    fn a_class_without_a_test_is_not_hidden_by_its_neighbours() {
        let mut measured = coverage(&[("a.py", &[(1, 1), (2, 1)]), ("b.py", &[(1, 0)])]);
        let limits = CoverageLimits { classes_with_tests: Some(80.0), ..Default::default() };
        let breaches = judge(&limits, &measured, None, None);
        assert_eq!(breaches[0].says, "1 of 2 classes have a line that ran in tests: 50 %; the limit is 80 %");
        assert_eq!(breaches[0].lacking, ["b.py"]);
        let class = |covered| crate::coverage::Class { covered, lines: 1 };
        measured.files.get_mut("a.py").unwrap().classes =
            [("A".into(), class(1)), ("In".into(), class(0))].into();
        assert_eq!(judge(&limits, &measured, None, None)[0].lacking, ["a.py: In", "b.py"]);
        measured.files.remove("b.py");
        measured.files.get_mut("a.py").unwrap().classes.remove("In");
        assert!(judge(&limits, &measured, None, None).is_empty());
    }

    #[test]
    fn a_pattern_has_limits_of_its_own_and_one_that_names_nothing_is_red() {
        let rule = |pattern: &str, least| {
            let shares = Shares { lines: Some(least), ..Shares::default() };
            CoverageLimits { paths: vec![(pattern.to_owned(), shares)], ..Default::default() }
        };
        let measured = coverage(&[("src/core/a.py", &[(1, 1), (2, 0)]), ("src/b.py", &[(1, 1)])]);
        let breaches = judge(&rule("src/core/**", 90.0), &measured, None, None);
        assert_eq!(breaches[0].says, "50 % of all lines ran in tests in src/core/**; the limit is 90 %");
        assert_eq!(breaches[0].lacking, ["src/core/a.py:2"]);
        assert!(
            judge(&rule("src/*.py", 90.0), &measured, None, None).is_empty(),
            "a star stays in its folder"
        );
        assert!(judge(&rule("gone/**", 90.0), &measured, None, None)[0].says.contains("no measured file"));
    }
}
