//! Limits of every kind, and what must not beat them.

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
    let breaches = judge(&CoverageLimits { per_file: Some(50.0), ..Default::default() }, &half(), None, None);
    assert_eq!((breaches[0].limit, breaches[0].found), (Limit::PerFile, 40.0));
}

#[test]
fn only_added_lines_that_are_measured_count_in_the_diff() {
    let diff =
        diff::read("+++ b/app.py\n@@ -13,0 +13,4 @@\n+a\n+b\n+c\n+d\n+++ b/README.md\n@@ -0,0 +1 @@\n+x\n");
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
    assert!(judge(&rule("src/*.py", 90.0), &measured, None, None).is_empty(), "a star stays in its folder");
    assert!(judge(&rule("gone/**", 90.0), &measured, None, None)[0].says.contains("no measured file"));
}
