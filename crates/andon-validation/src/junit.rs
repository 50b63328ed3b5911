//! Reading JUnit XML of any tool: streaming, forgiving, in bounded memory. Judges nothing.
//!
//! There is no schema that tools keep to, so this keeps to what they share: a `testcase` anywhere is a test; what stands inside it says
//! how it ended; nothing inside it means that it passed.

use std::io::BufRead;

use crate::case::{Keeper, NO_REASON};
pub use crate::case::{Limits, Outcome, Report, TestCase};
use crate::detect::{NotAReport, not_tests};
use crate::text::{cut, line, plain, seconds};
use crate::xml::{Tag, Token, Tokens};

/// Reads a report. A file that ends early gives what it holds and a warning; an error means that there was no report at all.
pub fn read(mut input: impl BufRead, limits: Limits) -> Result<Report, NotAReport> {
    let start = input.fill_buf().map(|chunk| chunk[..chunk.len().min(4096)].to_vec()).unwrap_or_default();
    let mut tokens = Tokens::new(input, limits.detail, limits.name);
    let mut reader = Reader { kept: Keeper::new(limits), ..Reader::default() };
    while let Some(token) = tokens.next(reader.wants_text()) {
        match token {
            Token::Start(tag) => reader.start(tag),
            Token::End(name) => reader.end(name),
            Token::Text(text) => reader.text(text),
        }
    }
    if !reader.seen {
        return Err(not_tests(&start));
    }
    if let Some(why) = tokens.cut_short(reader.depth > 0) {
        reader.kept.warn(why);
    }
    Ok(reader.finish())
}

#[derive(Default)]
struct Reader {
    kept: Keeper,
    /// Open elements below the root, whatever they are.
    depth: u32,
    seen: bool,
    suites: Vec<Suite>,
    /// Open suites that are not in `suites`.
    depth_beyond: u32,
    case: Option<TestCase>,
    said: Option<Said>,
    /// The test is marked as not yet written, so that its failure is expected: `<skipped type="todo"/>` of Node.
    todo: bool,
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
        self.said.is_some() && self.kept.room() > 0
    }

    fn start(&mut self, tag: &Tag) {
        self.depth = self.depth.saturating_add(u32::from(!tag.empty));
        match tag.name() {
            "testsuites" | "testsuite" => {
                self.close_case();
                self.seen = true;
                if tag.name() == "testsuite" {
                    self.suite(tag);
                }
            }
            "testcase" => {
                self.close_case();
                self.seen = true;
                self.case = Some(self.case_of(tag));
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
            let room = self.kept.limits.detail.saturating_sub(said.text.len());
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
                (outer, name) => cut(format!("{outer} / {name}"), self.kept.limits.name),
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
        let message = [said.message, first(), said.kind.clone()].into_iter().find(|text| !text.is_empty());
        let message = cut(plain(&message.unwrap_or_default()), self.kept.limits.name);
        self.kept.spent(detail.len());
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
            Element::Skipped if said.kind == "todo" => {
                self.todo = true;
                case.outcome = Outcome::Skipped { message: "todo".into() };
            }
            // Node counts it among the failures of its suite all the same.
            Element::Failure | Element::Error if self.todo => {
                self.declared_red = self.declared_red.saturating_sub(1)
            }
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
        self.todo = false;
        if let Some(case) = self.case.take() {
            self.kept.push(case);
        }
    }

    fn finish(mut self) -> Report {
        self.close_case();
        let listed = u64::from(self.kept.counts().failed);
        if self.declared_red > listed {
            let declared = self.declared_red;
            self.kept.warn(format!("the suites declare {declared} failures, but the file lists {listed}"));
        }
        self.kept.finish()
    }
}

/// Suites inside suites that are told apart.
const DEEPEST: usize = 32;

#[cfg(test)]
#[path = "junit_tests.rs"]
mod tests;
