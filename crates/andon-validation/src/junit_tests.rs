//! Samples in the shapes that real tools write, and what must never happen with bad ones.

use super::*;
use andon_model::Span;

fn report(text: &str) -> Report {
    read(text.as_bytes(), Limits::default()).unwrap()
}

fn counts(report: &Report) -> (u32, u32, u32) {
    (report.counts.passed, report.counts.failed, report.counts.skipped)
}

#[test]
fn pytest_says_what_failed_and_where() {
    let report = report(
        r#"<?xml version="1.0" encoding="utf-8"?><testsuites name="pytest tests"><testsuite name="pytest" errors="1" failures="1"
        skipped="1" tests="4" time="0.051" timestamp="2026-09-01T10:00:00+00:00" hostname="box">
        <testcase classname="tests.test_app" name="test_ok[a&amp;b]" time="0.001" />
        <testcase classname="tests.test_app" name="test_add" time="0.002"><failure message="assert 3 == 4&#10; +  where 3 = add(1, 2)"
        >def test_add():
&gt;       assert add(1, 2) == 4
E       assert 3 == 4

tests/test_app.py:9: AssertionError</failure></testcase>
        <testcase classname="tests.test_app" name="test_db" time="0.0"><error message="failed on setup with &quot;x&quot;">trace</error></testcase>
        <testcase classname="tests.test_app" name="test_win" time="0.0"><skipped type="pytest.skip" message="only on Windows">t</skipped>
        </testcase></testsuite></testsuites>"#,
    );
    assert_eq!(counts(&report), (1, 2, 1));
    assert_eq!(report.cases[0].name, "test_ok[a&b]");
    assert_eq!(report.cases[1].full_name(), "tests.test_app::test_add");
    let Outcome::Failed { message, detail } = &report.cases[1].outcome else { panic!() };
    assert!(message.starts_with("assert 3 == 4") && detail.contains(">       assert add(1, 2) == 4"));
    assert!(matches!(&report.cases[2].outcome, Outcome::Error { message, .. } if message.contains("\"x\"")));
    assert_eq!(report.cases[1].took, Some(Span(2)));
    assert!(report.warnings.is_empty(), "{:?}", report.warnings);
}

#[test]
fn nextest_flaky_tests_are_green_and_marked_and_reruns_stay_red() {
    let report = report(
        r#"<testsuites name="nextest-run" tests="3" failures="1" errors="0" uuid="x" time="1.2"><testsuite name="app" tests="3">
        <testcase name="net::retry" classname="app" time="0.1"><flakyFailure message="thread panicked" type="test failure">
        <system-out>o</system-out></flakyFailure></testcase>
        <testcase name="net::down" classname="app" time="0.2"><failure type="test failure with exit code 101"/>
        <rerunFailure type="test failure"/></testcase><testcase name="ok" classname="app"/></testsuite></testsuites>"#,
    );
    assert_eq!(counts(&report), (2, 1, 0));
    assert_eq!(report.cases.iter().map(|c| c.flaky).collect::<Vec<_>>(), [true, false, false]);
    assert_eq!(report.cases[1].outcome.message(), "test failure with exit code 101");
}

#[test]
fn surefire_times_with_thousands_are_seconds() {
    let report = report(
        r#"<testsuite xmlns:xsi="http://x" name="com.acme.FooTest" time="2,503.1" tests="2" errors="0" skipped="0" failures="1">
        <properties><property name="error" value="no test"/></properties>
        <testcase name="adds" classname="com.acme.FooTest" time="2,503.1"/>
        <testcase name="subtracts" classname="com.acme.FooTest" time="0,013"><failure message="expected:&lt;1&gt; but was:&lt;2&gt;"
        type="org.junit.ComparisonFailure"><![CDATA[org.junit.ComparisonFailure: expected:<1> but was:<2>
            at com.acme.FooTest.subtracts(FooTest.java:12)]]></failure><system-out><![CDATA[<failure message="not this"/>]]></system-out>
        </testcase></testsuite>"#,
    );
    assert_eq!(counts(&report), (1, 1, 0));
    assert_eq!(report.cases[0].took, Some(Span(2_503_100)));
    assert_eq!(report.cases[1].took, Some(Span(13)));
    assert_eq!(report.cases[1].outcome.message(), "expected:<1> but was:<2>");
}

#[test]
fn jest_and_go_reports_are_read_too() {
    let jest = report(
        r#"<testsuites name="jest tests" tests="2" failures="1" time="3.1"><testsuite name="sum" failures="1" file="src/sum.test.js">
        <testcase classname="sum adds" name="sum adds" time="0.004"></testcase>
        <testcase classname="sum breaks" name="sum breaks"><failure>Error: expect(received).toBe(expected)
            at Object.&lt;anonymous&gt;</failure></testcase></testsuite></testsuites>"#,
    );
    assert_eq!(counts(&jest), (1, 1, 0));
    assert_eq!(jest.cases[1].outcome.message(), "Error: expect(received).toBe(expected)");
    assert_eq!(jest.cases[1].file.as_deref(), Some("src/sum.test.js"));
    assert_eq!(jest.cases[1].full_name(), "sum breaks");
    let go = report(
        "<testsuites><testsuite tests=\"2\" failures=\"1\" name=\"acme/pkg\"><properties/>\
        <testcase classname=\"pkg\" name=\"TestA\" time=\"0.00\"></testcase><testcase classname=\"pkg\" name=\"TestB\" time=\"0.01\">\
        <failure message=\"Failed\" type=\"\">b_test.go:8: no</failure></testcase></testsuite></testsuites>",
    );
    assert_eq!(counts(&go), (1, 1, 0));
}

#[test]
fn gtest_tests_that_were_not_run_are_skipped() {
    let report = report(
        r#"<testsuites><testsuite name="S"><testcase name="a" status="notrun" result="suppressed"/>
        <testcase name="b" status="run" result="completed"/><testcase name="c" status="run" result="skipped"/></testsuite></testsuites>"#,
    );
    assert_eq!(counts(&report), (1, 0, 2));
}

#[test]
fn nested_suites_and_cases_outside_of_suites_are_found() {
    let report = report(
        "<results><testcase name='lone'/><testsuite name='a'><testsuite name='b'><testcase name='deep'/></testsuite>\
        <testcase name='shallow'/></testsuite></results>",
    );
    assert_eq!(report.cases.iter().map(|c| c.suite.as_str()).collect::<Vec<_>>(), ["", "a / b", "a"]);
}

#[test]
fn suites_nested_without_end_lose_no_test() {
    let text = format!(
        "{}<testcase name='x'/>{}<testcase name='y'/>",
        "<testsuite name='s'>".repeat(5000),
        "</testsuite>".repeat(5000)
    );
    let report = report(&text);
    assert_eq!((report.counts.passed, report.cases[1].suite.as_str()), (2, ""));
    assert!(report.cases[0].suite.len() < 1100);
}

#[test]
fn a_name_is_one_line_without_terminal_codes() {
    let text = "<testsuite name='\u{1b}[31msuite'><testcase classname='a&#27;[1mb' name='red&#10;line \u{1b}[2Jend' file='x\u{7}.py'/></testsuite>";
    let report = read(text.as_bytes(), Limits::default()).unwrap();
    let test = &report.cases[0];
    assert_eq!(
        (test.suite.as_str(), test.class.as_str(), test.name.as_str()),
        ("suite", "ab", "red line end")
    );
    assert_eq!(test.file.as_deref(), Some("x.py"));
}

#[test]
fn terminal_colours_do_not_reach_a_page() {
    let report = report(
        "<testcase name='a'><failure message='no #x1B[1;31mdatabase#x1B[0m #x1B[ &#27;[2K#7'>\tat \u{1b}[31mx\u{1b}\n y</failure></testcase>",
    );
    let Outcome::Failed { message, detail } = &report.cases[0].outcome else { panic!() };
    assert_eq!((message.as_str(), detail.as_str()), ("no database #x1B[ #7", "at x\n y"));
}

#[test]
fn a_suite_whose_setup_broke_is_a_red_test() {
    let report =
        report("<testsuite name='s' tests='0' errors='1'><error message='no database'/></testsuite>");
    assert_eq!(counts(&report), (0, 1, 0));
    assert_eq!(report.cases[0].full_name(), "s::(set-up of the suite)");
}

#[test]
fn a_truncated_report_keeps_what_it_holds_and_says_so() {
    let whole = "<testsuite tests='3'><testcase name='a'/><testcase name='b'><failure message='no'>trace</failure></testcase><testcase na";
    let report = report(whole);
    assert_eq!(counts(&report), (1, 1, 0));
    assert!(report.warnings[0].contains("ends in the middle"));
}

#[test]
fn declared_failures_that_are_not_listed_are_a_warning() {
    let report = report("<testsuite failures='2'><testcase name='a'/></testsuite>");
    assert!(report.warnings[0].contains("declare 2 failures, but the file lists 0"), "{:?}", report.warnings);
}

#[test]
fn something_that_is_no_report_is_named() {
    for (text, found) in
        [("", "an empty file"), ("<html/>", "an HTML page"), ("TN:\nSF:a", "an LCOV"), ("<a><b/></a>", "<a>")]
    {
        let error = read(text.as_bytes(), Limits::default()).unwrap_err().to_string();
        assert!(error.contains(found) && error.contains("hint:"), "{error}");
    }
}

#[test]
fn memory_stays_flat_on_a_huge_report() {
    let limits = Limits { cases: 10, detail: 100, name: 50, details: 300 };
    let case = format!(
        "<testcase name='{}'><failure message='m'>{}</failure></testcase><testcase name='ok'/>",
        "n".repeat(9_999),
        "x".repeat(99_999)
    );
    let text = format!("<testsuite>{}</testsuite>", case.repeat(50));
    let report = read(text.as_bytes(), limits).unwrap();
    assert_eq!(counts(&report), (50, 50, 0));
    assert_eq!(report.cases.len(), 20);
    let kept: usize = report.cases.iter().map(|c| c.name.len() + c.outcome.message().len()).sum();
    assert!(kept < 3000, "{kept}");
    assert_eq!(report.warnings.len(), 2);
}

proptest::proptest! {
    #[test]
    fn counts_add_up_to_the_cases(ends in proptest::collection::vec(0..4u8, 0..60)) {
        let body: String = ends.iter().map(|end| match end {
            0 => "<testcase name='p'/>",
            1 => "<testcase name='f'><failure message='x'/></testcase>",
            2 => "<testcase name='e'><error>x</error></testcase>",
            _ => "<testcase name='s'><skipped/></testcase>",
        }).collect();
        let report = report(&format!("<testsuite>{body}</testsuite>"));
        let of = |wanted: &[u8]| ends.iter().filter(|end| wanted.contains(end)).count() as u32;
        proptest::prop_assert_eq!(counts(&report), (of(&[0]), of(&[1, 2]), of(&[3])));
        proptest::prop_assert_eq!(report.cases.len(), ends.len());
    }
}
