//! TAP in the shapes of Node's runner, Test::More and node-tap, and what must never happen with broken streams.

use super::*;

fn of(text: &str) -> Report {
    read(text.as_bytes(), Limits::default())
}

fn counts(report: &Report) -> (u32, u32, u32) {
    (report.counts.passed, report.counts.failed, report.counts.skipped)
}

#[test]
fn directives_names_and_diagnostics_are_read() {
    let report = of(
        "TAP version 13\n1..6\nok 1 - adds\nnot ok 2 - takes \\# away\n#   Failed test 'takes'\n#   at t/a.t line 9.\n\
        ok 3 # SKIP no database\nnot ok 4 - later # TODO not written\nok 5 - done # todo surprise\nok 6\n",
    );
    assert_eq!(counts(&report), (3, 1, 2));
    assert_eq!(report.cases[1].name, "takes # away");
    assert_eq!(report.cases[1].outcome.message(), "Failed test 'takes'");
    assert_eq!(report.cases[2].outcome.message(), "no database");
    assert_eq!(report.cases[3].outcome.message(), "todo: not written");
    assert!(report.warnings.is_empty(), "{:?}", report.warnings);
}

#[test]
fn nodes_suites_are_no_tests_and_its_tests_with_subtests_are() {
    let report = of(
        "TAP version 13\n# Subtest: cart\n    # Subtest: adds\n    ok 1 - adds\n      ---\n      duration_ms: 1.4\n      type: 'test'\n      ...\n\
    \x20   # Subtest: takes\n    not ok 2 - takes\n      ---\n      duration_ms: 2.6\n      type: 'test'\n      location: '/w/a.test.js:9:3'\n      failureType: 'testCodeFailure'\n\
    \x20     error: |-\n        Expected values to be equal:\n        \n        1 !== 2\n      code: 'ERR_ASSERTION'\n      ...\n    1..2\nnot ok 1 - cart\n  ---\n  duration_ms: 9\n\
    \x20 type: 'suite'\n  failureType: 'subtestsFailed'\n  error: '1 subtest failed'\n  ...\n# Subtest: outer\n    # Subtest: inner\n    ok 1 - inner\n    1..1\nok 2 - outer\n  ---\n  duration_ms: 1\n\
    \x20 ...\n1..2\n# tests 4\n# suites 1\n# pass 3\n# fail 1\n",
    );
    assert_eq!(counts(&report), (3, 1, 0), "{report:?}");
    assert_eq!((report.cases[0].suite.as_str(), report.cases[0].took), ("cart", Some(Span(1))));
    assert_eq!(report.cases[1].outcome.message(), "Expected values to be equal:");
    assert!(report.cases[1].outcome.detail().contains("1 !== 2"));
    assert!(report.warnings.is_empty(), "{:?}", report.warnings);
}

#[test]
fn a_subtest_of_test_more_counts_by_its_own_tests() {
    let report =
        of("# Subtest: maths\n    ok 1 - one\n    ok 2 - two\n    1..2\nok 1 - maths\nok 2 - plain\n1..2\n");
    assert_eq!(counts(&report), (3, 0, 0), "{report:?}");
    let inside = of("    # Subtest: maths\n    ok 1 - one\n    1..1\nok 1 - maths\n1..1\n");
    assert_eq!((counts(&inside), inside.cases[0].suite.as_str()), ((1, 0, 0), "maths"));
    let broken = of("    ok 1 - one\n    1..1\nnot ok 1 - maths\n1..1\n");
    assert_eq!(counts(&broken), (1, 1, 0), "red by itself, though all inside is green");
}

#[test]
fn missing_and_surplus_tests_are_red() {
    for (text, red) in [
        ("1..3\nok 1\n", "(plan)"),
        ("1..1\nok 1\nok 2\n", "(plan)"),
        ("1..2\nok 1\nBail out! no disk\n", "(bail out)"),
    ] {
        let report = of(text);
        assert_eq!(report.counts.failed, 1, "{text}");
        assert_eq!(report.cases.last().unwrap().name, red, "{text}");
    }
    assert!(of("ok 1\n").warnings[0].contains("without a plan"));
    assert!(of("1..0 # SKIP not on this system\n").warnings[0].contains("not on this system"));
}

#[test]
fn a_report_that_ends_inside_yaml_says_so() {
    let report = of("1..1\nnot ok 1 - a\n  ---\n  message: no\n");
    assert_eq!((report.counts.failed, report.cases[0].outcome.message()), (1, "no"));
    assert!(report.warnings[0].contains("begins in line 3"), "{:?}", report.warnings);
}
