//! What kind of report some bytes are, by their first lines; and what they are instead. Reads no report.

use std::fmt;

/// How much is looked at.
pub(crate) const LOOK: usize = 16 * 1024;

/// Formats of coverage that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// LCOV trace file.
    Lcov,
    /// Cobertura XML.
    Cobertura,
    /// JaCoCo XML.
    Jacoco,
    /// Clover XML.
    Clover,
    /// Coverage profile of Go.
    GoCover,
    /// JSON: which one shows while it is read.
    Json,
}

/// Formats of test results that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TestKind {
    /// JUnit XML.
    Junit,
    /// Visual Studio's test results.
    Trx,
    /// Test Anything Protocol.
    Tap,
    /// `go test -json`.
    GoTest,
    /// JSON of libtest and nextest.
    Libtest,
}

/// Why some bytes are not a report that can be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no {wanted} was found, but {found}\nhint: {hint}")]
pub struct NotAReport {
    /// What was looked for.
    pub wanted: &'static str,
    /// What it is instead, as a person would say it.
    pub found: String,
    /// What to do.
    pub hint: &'static str,
}

const COVERAGE_HINT: &str = "write coverage as LCOV, Cobertura, JaCoCo or Clover XML, a Go profile, or JSON of llvm-cov, SimpleCov or coverage.py, \
    for example `pytest --cov --cov-report=lcov:cov.lcov`, `cargo llvm-cov --lcov --output-path cov.lcov` or `jest --coverage \
    --coverageReporters=lcov`";
const TESTS_HINT: &str = "write test results as JUnit XML, TAP, TRX, `go test -json` or libtest's JSON, for example `pytest --junitxml=unit.xml`, \
    `go test -json ./... > unit.json` or a nextest profile with `junit = { path = \"junit.xml\" }`";
const FINDINGS_HINT: &str =
    "write findings as SARIF 2.1.0, for example `eslint -f @microsoft/eslint-formatter-sarif -o lint.sarif`";

/// The kind of a coverage report; an error when it is anything else.
pub fn detect(bytes: &[u8]) -> Result<Kind, NotAReport> {
    match look(bytes) {
        Seen::Coverage(kind) => Ok(kind),
        Seen::Json => Ok(Kind::Json),
        _ => Err(not_coverage(bytes)),
    }
}

/// The kind of a report of tests by its first bytes; an error when it is anything else.
pub fn detect_tests(start: &[u8]) -> Result<TestKind, NotAReport> {
    match look(start) {
        Seen::Tests(kind) => Ok(kind),
        _ => Err(not_tests(start)),
    }
}

/// The error for bytes that hold no coverage.
pub(crate) fn not_coverage(bytes: &[u8]) -> NotAReport {
    NotAReport { wanted: "coverage report", found: look(bytes).to_string(), hint: COVERAGE_HINT }
}

/// The error for bytes that hold no test and no suite.
pub(crate) fn not_tests(start: &[u8]) -> NotAReport {
    NotAReport { wanted: "test report", found: look(start).to_string(), hint: TESTS_HINT }
}

/// The error for bytes that hold no findings.
pub(crate) fn not_findings(start: &[u8]) -> NotAReport {
    NotAReport { wanted: "report of findings", found: look(start).to_string(), hint: FINDINGS_HINT }
}

/// The error for bytes that hold no measured numbers.
pub(crate) fn not_measured(start: &[u8], hint: &'static str) -> NotAReport {
    NotAReport { wanted: "measured number", found: look(start).to_string(), hint }
}

enum Seen {
    Coverage(Kind),
    Tests(TestKind),
    Json,
    Other(&'static str),
    Element(String),
    Text(String),
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Seen::Coverage(Kind::Lcov) => "an LCOV coverage file",
            Seen::Coverage(Kind::Cobertura) => "a Cobertura coverage file",
            Seen::Coverage(Kind::Jacoco) => "a JaCoCo coverage file",
            Seen::Coverage(Kind::Clover) => "a Clover coverage file",
            Seen::Coverage(Kind::GoCover) => "a Go coverage profile",
            Seen::Coverage(Kind::Json) | Seen::Json => "JSON of another kind",
            Seen::Tests(TestKind::Junit) => "a JUnit test report",
            Seen::Tests(TestKind::Trx) => "a TRX test report",
            Seen::Tests(TestKind::Tap) => "a TAP test report",
            Seen::Tests(TestKind::GoTest) => "output of `go test -json`",
            Seen::Tests(TestKind::Libtest) => "libtest's JSON",
            Seen::Other(what) => what,
            Seen::Element(name) => return write!(f, "XML whose first element is <{name}>"),
            Seen::Text(start) => return write!(f, "text that starts with {start:?}"),
        })
    }
}

fn look(bytes: &[u8]) -> Seen {
    let start = &bytes[..bytes.len().min(LOOK)];
    let start = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start);
    if start.iter().all(u8::is_ascii_whitespace) {
        return Seen::Other("an empty file");
    }
    if start.starts_with(b"\xff\xfe") || start.starts_with(b"\xfe\xff") {
        return Seen::Other("UTF-16 text; reports are read as UTF-8");
    }
    if start.starts_with(b"\x1f\x8b") || start.starts_with(b"PK\x03\x04") {
        return Seen::Other("a compressed file");
    }
    let text = String::from_utf8_lossy(start);
    let text = text.trim_start();
    if text.starts_with('<') {
        return element(text);
    }
    let lcov = |line: &str| ["TN:", "SF:", "VER:", "DA:"].iter().any(|mark| line.starts_with(mark));
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    if lines.next().is_some_and(lcov) {
        return Seen::Coverage(Kind::Lcov);
    }
    if text.starts_with("mode: ") {
        return Seen::Coverage(Kind::GoCover);
    }
    if let Some(kind) = text.lines().find_map(|line| event(line.trim_start())) {
        return Seen::Tests(kind);
    }
    if text.starts_with(['{', '[']) {
        return Seen::Json;
    }
    if text.lines().any(is_tap) {
        return Seen::Tests(TestKind::Tap);
    }
    if start.contains(&0) {
        return Seen::Other("binary data");
    }
    Seen::Text(text.lines().next().unwrap_or_default().chars().take(40).collect())
}

/// The format that writes such a JSON object in a line of its own. Compilers and loggers may have written lines before it.
fn event(line: &str) -> Option<TestKind> {
    if !line.starts_with('{') {
        return None;
    }
    if line.contains("\"Action\":\"") {
        return Some(TestKind::GoTest);
    }
    let libtest = ["\"suite\"", "\"test\"", "\"bench\"", "\"report\""];
    let kind = |line: &str| line.split_once("\"type\":").map(|(_, rest)| rest.trim_start().to_owned());
    let known = kind(line).is_some_and(|rest| libtest.iter().any(|kind| rest.starts_with(kind)));
    (known && (line.contains("\"event\":") || line.contains("\"total_time\":"))).then_some(TestKind::Libtest)
}

fn is_tap(line: &str) -> bool {
    let line = line.trim_end();
    let point = |rest: &str| rest.is_empty() || rest.starts_with(' ');
    let plan = || {
        let last = line.strip_prefix("1..")?;
        let digits = last.len() - last.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        Some(digits > 0 && point(&last[digits..]))
    };
    line.starts_with("TAP version ")
        || line.strip_prefix("ok").or(line.strip_prefix("not ok")).is_some_and(point)
        || line.starts_with("Bail out!")
        || plan().unwrap_or(false)
}

fn element(text: &str) -> Seen {
    let mut rest = text;
    while let Some(at) = rest.find('<') {
        rest = &rest[at + 1..];
        if let Some(comment) = rest.strip_prefix("!--") {
            rest = comment.find("-->").map_or("", |end| &comment[end..]);
        }
        if rest.get(..13).is_some_and(|doctype| doctype.eq_ignore_ascii_case("!doctype html")) {
            return Seen::Other("an HTML page");
        }
        if rest.starts_with(|c: char| c.is_alphabetic()) {
            let name: String =
                rest.chars().take_while(|c| !c.is_whitespace() && !"/>".contains(*c)).take(40).collect();
            let local = name.rsplit(':').next().unwrap_or(&name);
            return match local {
                "coverage" if rest.contains("clover=") || rest.contains("<project") => {
                    Seen::Coverage(Kind::Clover)
                }
                "coverage" => Seen::Coverage(Kind::Cobertura),
                "report" => Seen::Coverage(Kind::Jacoco),
                "testsuites" | "testsuite" | "testcase" => Seen::Tests(TestKind::Junit),
                "TestRun" => Seen::Tests(TestKind::Trx),
                "html" | "HTML" => Seen::Other("an HTML page"),
                _ => Seen::Element(name),
            };
        }
    }
    Seen::Text(text.lines().next().unwrap_or_default().chars().take(40).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coverage_formats_are_told_apart() {
        let cobertura = "<?xml version=\"1.0\" ?>\n<!DOCTYPE coverage SYSTEM 'x.dtd'>\n<!-- <html> -->\n<coverage line-rate=\"1\">";
        let cases = [
            ("\u{feff}\r\n# made by x\r\nTN:\r\nSF:a.py\r\n", Kind::Lcov),
            (cobertura, Kind::Cobertura),
            ("mode: set\n", Kind::GoCover),
            ("<report name=\"x\">", Kind::Jacoco),
            ("<coverage generated=\"1\" clover=\"3\"><project", Kind::Clover),
            ("{\"data\":[", Kind::Json),
        ];
        for (text, kind) in cases {
            assert_eq!(detect(text.as_bytes()), Ok(kind), "{text}");
        }
    }

    #[test]
    fn test_formats_are_told_apart() {
        let cases = [
            ("<testsuites>", TestKind::Junit),
            ("\u{feff}<?xml version='1.0'?><TestRun id='x'>", TestKind::Trx),
            ("TAP version 14\n1..0 # skip\n", TestKind::Tap),
            ("# Subtest: a\nok 1 - a\n", TestKind::Tap),
            ("t/a.t ..\n1..3\n", TestKind::Tap),
            (
                "# example.org/x\n./x.go:1:1: no\n{\"Time\":\"t\",\"Action\":\"fail\",\"Package\":\"x\"}\n",
                TestKind::GoTest,
            ),
            ("{ \"type\": \"suite\", \"event\": \"started\", \"test_count\": 1 }", TestKind::Libtest),
        ];
        for (text, kind) in cases {
            assert_eq!(detect_tests(text.as_bytes()), Ok(kind), "{text}");
        }
        assert!(detect_tests(b"{\"type\":\"suite\"}").is_err() && detect_tests(b"okay then").is_err());
    }

    #[test]
    fn anything_else_is_named_in_the_error() {
        let cases: [(&[u8], &str); 6] = [
            (b" \n", "an empty file"),
            (b"<!DOCTYPE html><p>", "an HTML page"),
            (b"<testsuites>", "a JUnit test report"),
            (b"{\"type\":\"test\",\"event\":\"ok\",\"name\":\"a\"}", "libtest's JSON"),
            (b"No tests ran", "\"No tests ran\""),
            (b"\x1f\x8b\x08", "a compressed file"),
        ];
        for (bytes, found) in cases {
            let error = detect(bytes).unwrap_err().to_string();
            assert!(error.contains(found) && error.contains("hint: "), "{error}");
        }
    }
}
