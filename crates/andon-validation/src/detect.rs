//! What kind of report some bytes are, by their first lines; and what they are instead. Reads no report.

use std::fmt;

/// How much is looked at.
const LOOK: usize = 4096;

/// Formats that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// LCOV trace file.
    Lcov,
    /// Cobertura XML.
    Cobertura,
    /// JUnit XML.
    Junit,
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

const COVERAGE_HINT: &str = "write coverage as LCOV or Cobertura XML, for example `pytest --cov --cov-report=lcov:cov.lcov`, \
    `cargo llvm-cov --lcov --output-path cov.lcov` or `jest --coverage --coverageReporters=lcov`";
const JUNIT_HINT: &str = "write test results as JUnit XML, for example `pytest --junitxml=unit.xml` or a nextest profile with \
    `junit = { path = \"junit.xml\" }`";

/// The kind of a coverage report; an error when it is anything else.
pub fn detect(bytes: &[u8]) -> Result<Kind, NotAReport> {
    match look(bytes) {
        Seen::Known(kind @ (Kind::Lcov | Kind::Cobertura)) => Ok(kind),
        seen => Err(NotAReport { wanted: "coverage report", found: seen.to_string(), hint: COVERAGE_HINT }),
    }
}

/// The error for bytes that hold no test case and no suite.
pub(crate) fn not_junit(start: &[u8]) -> NotAReport {
    NotAReport { wanted: "JUnit report", found: look(start).to_string(), hint: JUNIT_HINT }
}

enum Seen {
    Known(Kind),
    Other(&'static str),
    Element(String),
    Text(String),
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Seen::Known(Kind::Lcov) => f.write_str("an LCOV coverage file"),
            Seen::Known(Kind::Cobertura) => f.write_str("a Cobertura coverage file"),
            Seen::Known(Kind::Junit) => f.write_str("a JUnit test report"),
            Seen::Other(what) => f.write_str(what),
            Seen::Element(name) => write!(f, "XML whose first element is <{name}>"),
            Seen::Text(start) => write!(f, "text that starts with {start:?}"),
        }
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
        return Seen::Known(Kind::Lcov);
    }
    if text.starts_with("mode: ") {
        return Seen::Other(
            "a Go coverage profile; convert it, for example with gcov2lcov or gocover-cobertura",
        );
    }
    if text.starts_with(['{', '[']) {
        return Seen::Other("JSON");
    }
    if start.contains(&0) {
        return Seen::Other("binary data");
    }
    Seen::Text(text.lines().next().unwrap_or_default().chars().take(40).collect())
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
                    Seen::Other("a Clover report")
                }
                "coverage" => Seen::Known(Kind::Cobertura),
                "report" => Seen::Other("a JaCoCo report"),
                "testsuites" | "testsuite" | "testcase" => Seen::Known(Kind::Junit),
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
    fn both_coverage_formats_are_told_apart() {
        assert_eq!(detect(b"\xef\xbb\xbf\r\n# made by x\r\nTN:\r\nSF:a.py\r\n"), Ok(Kind::Lcov));
        let xml = b"<?xml version=\"1.0\" ?>\n<!DOCTYPE coverage SYSTEM 'x.dtd'>\n<!-- <html> -->\n<coverage line-rate=\"1\">";
        assert_eq!(detect(xml), Ok(Kind::Cobertura));
    }

    #[test]
    fn anything_else_is_named_in_the_error() {
        let cases: [(&[u8], &str); 9] = [
            (b" \n", "an empty file"),
            (b"<!DOCTYPE html><p>", "an HTML page"),
            (b"<testsuites>", "a JUnit test report"),
            (b"{\"a\":1}", "JSON"),
            (b"mode: set\n", "a Go coverage profile"),
            (b"<report name=\"x\">", "a JaCoCo report"),
            (b"<coverage generated=\"1\" clover=\"3\"><project", "a Clover report"),
            (b"No tests ran", "\"No tests ran\""),
            (b"\x1f\x8b\x08", "a compressed file"),
        ];
        for (bytes, found) in cases {
            let error = detect(bytes).unwrap_err().to_string();
            assert!(error.contains(found) && error.contains("hint: "), "{error}");
        }
    }
}
