//! Reading JUnit XML of any tool: streaming, forgiving, in bounded memory. Judges nothing.
//!
//! There is no schema that tools keep to, so this keeps to what they share: a `testcase` anywhere is a test; what stands inside it says
//! how it ended; nothing inside it means that it passed.

use std::io::BufRead;

use andon_model::Span;
use andon_model::event::TestCounts;
use serde::{Deserialize, Serialize};

use crate::detect::{NotAReport, not_junit};
use crate::text::{cut, line, plain, seconds};
use crate::xml::{Tag, Token, Tokens};

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

/// What a JUnit file says.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Tests in the order of the file, as far as they are kept.
    pub cases: Vec<TestCase>,
    /// All tests, also those that are not kept.
    pub counts: TestCounts,
    /// What was odd about the file.
    pub warnings: Vec<String>,
}

/// Reads a report. A file that ends early gives what it holds and a warning; an error means that there was no report at all.
pub fn read(mut input: impl BufRead, limits: Limits) -> Result<Report, NotAReport> {
    let start = input.fill_buf().map(|chunk| chunk[..chunk.len().min(4096)].to_vec()).unwrap_or_default();
    let mut tokens = Tokens::new(input, limits.detail, limits.name);
    let mut reader = Reader { limits, ..Reader::default() };
    while let Some(token) = tokens.next(reader.wants_text()) {
        match token {
            Token::Start(tag) => reader.start(tag),
            Token::End(name) => reader.end(&name),
            Token::Text(text) => reader.text(&text),
        }
    }
    if !reader.seen {
        return Err(not_junit(&start));
    }
    if let Some(error) = tokens.failed {
        reader.report.warnings.push(format!("the report could not be read to its end: {error}"));
    } else if tokens.truncated || reader.depth > 0 {
        reader.report.warnings.push(
            "the report ends in the middle: the tool that wrote it was stopped or ran out of space".into(),
        );
    }
    Ok(reader.finish())
}

#[derive(Default)]
struct Reader {
    limits: Limits,
    report: Report,
    /// Open elements below the root, whatever they are.
    depth: u32,
    seen: bool,
    suites: Vec<Suite>,
    /// Open suites that are not in `suites`.
    depth_beyond: u32,
    case: Option<TestCase>,
    said: Option<Said>,
    details: usize,
    red_kept: usize,
    not_kept: u32,
    declared_red: u64,
}

struct Suite {
    /// Its name behind those of the suites around it.
    path: String,
    file: Option<String>,
}

/// The element inside a test that is being read.
struct Said {
    element: Element,
    message: String,
    kind: String,
    text: String,
}

#[derive(Clone, Copy, PartialEq)]
enum Element {
    Failure,
    Error,
    Skipped,
    /// Red before, green at last: `flakyFailure`, `flakyError`, `rerun` of a passing test.
    Flaky,
    /// Red again after it was red: `rerunFailure`, `rerunError`.
    Rerun,
}

fn element(name: &str) -> Option<Element> {
    match name {
        "failure" => Some(Element::Failure),
        "error" => Some(Element::Error),
        "skipped" | "skip" | "ignored" | "disabled" => Some(Element::Skipped),
        "flakyFailure" | "flakyError" | "rerun" => Some(Element::Flaky),
        "rerunFailure" | "rerunError" => Some(Element::Rerun),
        _ => None,
    }
}

impl Reader {
    fn wants_text(&self) -> bool {
        self.said.is_some() && self.details < self.limits.details
    }

    fn start(&mut self, tag: Tag) {
        self.depth = self.depth.saturating_add(u32::from(!tag.empty));
        match tag.name.as_str() {
            "testsuites" | "testsuite" => {
                self.close_case();
                self.seen = true;
                if tag.name == "testsuite" {
                    self.suite(&tag);
                }
            }
            "testcase" => {
                self.close_case();
                self.seen = true;
                self.case = Some(self.case_of(&tag));
                if tag.empty {
                    self.close_case();
                }
            }
            name => {
                let Some(element) = element(name) else { return };
                if self.said.is_some() {
                    return;
                }
                let get = |key| tag.get(key).unwrap_or_default().trim().to_owned();
                let said = Said { element, message: get("message"), kind: get("type"), text: String::new() };
                self.said = Some(said);
                if tag.empty {
                    self.close_said();
                }
            }
        }
    }

    fn end(&mut self, name: &str) {
        self.depth = self.depth.saturating_sub(1);
        match name {
            "testsuite" => {
                self.close_case();
                match self.depth_beyond {
                    0 => drop(self.suites.pop()),
                    _ => self.depth_beyond -= 1,
                }
            }
            "testsuites" | "testcase" => self.close_case(),
            _ if element(name).is_some() => self.close_said(),
            _ => {}
        }
    }

    fn text(&mut self, text: &str) {
        if let Some(said) = &mut self.said {
            let room = self.limits.detail.saturating_sub(said.text.len());
            said.text.push_str(&cut(text.to_owned(), room));
        }
    }

    fn suite(&mut self, tag: &Tag) {
        let count = |key| tag.get(key).and_then(|n| n.trim().parse::<u64>().ok()).unwrap_or(0);
        // Only the outermost suites are compared: they hold the sums of the inner ones.
        if self.suites.is_empty() {
            self.declared_red =
                self.declared_red.saturating_add(count("failures")).saturating_add(count("errors"));
        }
        if !tag.empty {
            let name = line(tag.get("name").unwrap_or_default().trim());
            let outer = self.suites.last().map_or("", |suite| suite.path.as_str());
            let path = match (outer, name.as_str()) {
                ("", name) => name.to_owned(),
                (outer, "") => outer.to_owned(),
                (outer, name) => cut(format!("{outer} / {name}"), self.limits.name),
            };
            let file = tag.get("file").or(tag.get("filepath")).map(line);
            let file = file.or_else(|| self.suites.last().and_then(|suite| suite.file.clone()));
            // Depth beyond any tool's would only cost memory: tests are found all the same.
            self.depth_beyond += u32::from(self.suites.len() >= DEEPEST);
            if self.suites.len() < DEEPEST {
                self.suites.push(Suite { path, file });
            }
        }
    }

    fn case_of(&self, tag: &Tag) -> TestCase {
        let get = |key: &str| tag.get(key).map(str::trim).filter(|value| !value.is_empty());
        let own = |text: Option<&str>| line(text.unwrap_or_default());
        let word = get("status").or(get("result")).unwrap_or_default().to_ascii_lowercase();
        let result = get("result").unwrap_or_default().to_ascii_lowercase();
        let outcome = match word.as_str() {
            "notrun" | "skipped" | "disabled" | "ignored" => Outcome::Skipped { message: String::new() },
            _ if result == "skipped" || result == "suppressed" => Outcome::Skipped { message: String::new() },
            "failed" | "failure" | "fail" => {
                Outcome::Failed { message: NO_REASON.into(), detail: String::new() }
            }
            "error" | "errored" => Outcome::Error { message: NO_REASON.into(), detail: String::new() },
            _ => Outcome::Passed,
        };
        TestCase {
            suite: own(self.suites.last().map(|suite| suite.path.as_str())),
            class: own(get("classname").or(get("class"))),
            name: line(get("name").or(get("id")).unwrap_or("(without a name)")),
            file: get("file").map(line).or_else(|| self.suites.last().and_then(|s| s.file.clone())),
            took: get("time").or(get("duration")).and_then(seconds),
            outcome,
            flaky: false,
        }
    }

    fn close_said(&mut self) {
        let Some(said) = self.said.take() else { return };
        let detail = plain(said.text.trim());
        let first =
            || detail.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default().to_owned();
        let message = [said.message, first(), said.kind].into_iter().find(|text| !text.is_empty());
        let message = cut(plain(&message.unwrap_or_default()), self.limits.name);
        self.details += detail.len();
        // A failure outside any test, as tools write it for a suite whose set-up broke, must not vanish.
        let outside = self.case.is_none();
        let red = matches!(said.element, Element::Failure | Element::Error);
        if outside && !red {
            return;
        }
        if outside {
            self.case =
                Some(TestCase { name: "(set-up of the suite)".into(), ..self.case_of(&Tag::default()) });
        }
        let Some(case) = &mut self.case else { return };
        let vague = case.outcome.message() == NO_REASON || !case.outcome.is_red();
        match said.element {
            Element::Failure if vague => case.outcome = Outcome::Failed { message, detail },
            Element::Error if vague => case.outcome = Outcome::Error { message, detail },
            Element::Skipped if !case.outcome.is_red() => case.outcome = Outcome::Skipped { message },
            Element::Flaky => case.flaky = true,
            _ => {}
        }
        if outside {
            self.close_case();
        }
    }

    fn close_case(&mut self) {
        self.close_said();
        let Some(mut case) = self.case.take() else { return };
        // Red in every attempt is not flaky, whatever the attempts are called.
        case.flaky &= !case.outcome.is_red();
        let red = case.outcome.is_red();
        match case.outcome {
            Outcome::Passed => self.report.counts.passed += 1,
            Outcome::Failed { .. } | Outcome::Error { .. } => self.report.counts.failed += 1,
            Outcome::Skipped { .. } => self.report.counts.skipped += 1,
        }
        let room = match red {
            true => self.red_kept < self.limits.cases,
            false => self.report.cases.len() - self.red_kept < self.limits.cases,
        };
        if room {
            self.red_kept += usize::from(red);
            self.report.cases.push(case);
        } else {
            self.not_kept += 1;
        }
    }

    fn finish(mut self) -> Report {
        self.close_case();
        if self.not_kept > 0 {
            self.report.warnings.push(format!(
                "{} tests beyond the first {} were only counted",
                self.not_kept, self.limits.cases
            ));
        }
        if self.details >= self.limits.details {
            self.report
                .warnings
                .push("the failures' traces were cut: together they are longer than what is kept".into());
        }
        let listed = u64::from(self.report.counts.failed);
        if self.declared_red > listed {
            let declared = self.declared_red;
            self.report
                .warnings
                .push(format!("the suites declare {declared} failures, but the file lists {listed}"));
        }
        self.report
    }
}

const NO_REASON: &str = "the report gives no reason";

/// Suites inside suites that are told apart.
const DEEPEST: usize = 32;

#[cfg(test)]
#[path = "junit_tests.rs"]
mod tests;
