//! Reading TRX, Visual Studio's test results (schema vstst.xsd, namespace TeamTest/2010), streaming and in bounded memory.

use std::collections::HashMap;
use std::io::BufRead;

use andon_model::Span;

use crate::case::{Keeper, Limits, NO_REASON, Outcome, Report, TestCase};
use crate::detect::{NotAReport, not_tests};
use crate::text::{cut, line, seconds};
use crate::xml::{Tag, Token, Tokens};

/// Reads a report. A file that ends early gives what it holds and a warning.
pub fn read(mut input: impl BufRead, limits: Limits) -> Result<Report, NotAReport> {
    let start = input.fill_buf().map(|chunk| chunk[..chunk.len().min(4096)].to_vec()).unwrap_or_default();
    let mut tokens = Tokens::new(input, limits.detail, limits.name);
    let mut reader = Reader { kept: Keeper::new(limits), ..Reader::default() };
    let (mut depth, mut seen) = (0u32, false);
    while let Some(token) = tokens.next(reader.field.is_some()) {
        match token {
            Token::Start(tag) => {
                depth += u32::from(!tag.empty);
                seen |= tag.name() == "TestRun";
                reader.start(tag);
            }
            Token::End(name) => {
                depth = depth.saturating_sub(1);
                reader.end(name);
            }
            Token::Text(text) => reader.text(text),
        }
    }
    if !seen {
        return Err(not_tests(&start));
    }
    if let Some(why) = tokens.cut_short(depth > 0) {
        reader.kept.warn(why);
    }
    Ok(reader.finish())
}

#[derive(Default)]
struct Reader {
    kept: Keeper,
    /// Results inside each other: a test with rows of data holds theirs.
    open: Vec<Case>,
    beyond: u32,
    field: Option<Field>,
    /// Kept tests by their definitions, which come further down and know the class.
    wanted: HashMap<String, Vec<usize>>,
    kept_count: usize,
    definition: Option<String>,
    declared: Option<(u64, u64, u64)>,
}

struct Case {
    id: String,
    name: String,
    outcome: String,
    took: Option<Span>,
    message: String,
    trace: String,
    printed: String,
    /// It only holds the results of its rows.
    rows: bool,
}

#[derive(Clone, Copy)]
enum Field {
    Message,
    Trace,
    Printed,
}

/// Results inside results that are told apart.
const DEEPEST: usize = 16;

impl Reader {
    fn start(&mut self, tag: &Tag) {
        let get = |key| tag.get(key).unwrap_or_default();
        match tag.name() {
            "UnitTestResult" | "TestResult" | "WebTestResult" | "ManualTestResult" | "GenericTestResult" => {
                if self.open.len() >= DEEPEST {
                    self.beyond += u32::from(!tag.empty);
                    return;
                }
                if let Some(outer) = self.open.last_mut() {
                    outer.rows = true;
                }
                self.open.push(Case {
                    id: get("testId").to_owned(),
                    name: line(get("testName")),
                    outcome: get("outcome").to_ascii_lowercase(),
                    took: duration(get("duration")),
                    message: String::new(),
                    trace: String::new(),
                    printed: String::new(),
                    rows: get("resultType") == "DataDrivenTest",
                });
                if tag.empty {
                    self.close();
                }
            }
            "Message" if !tag.empty && !self.open.is_empty() => self.field = Some(Field::Message),
            "StackTrace" if !tag.empty && !self.open.is_empty() => self.field = Some(Field::Trace),
            "StdOut" | "StdErr" if !tag.empty && !self.open.is_empty() => self.field = Some(Field::Printed),
            "UnitTest" if !tag.empty => self.definition = Some(get("id").to_owned()),
            "TestMethod" => {
                let kept = self.definition.as_ref().and_then(|id| self.wanted.remove(id));
                // `Acme.Tests.CartTests, Acme.Tests, Version=…` in older versions.
                let class = line(get("className").split(',').next().unwrap_or_default());
                for at in kept.into_iter().flatten() {
                    if let Some(case) = self.kept.kept().get_mut(at) {
                        case.class.clone_from(&class);
                        let bare = case.name.strip_prefix(&class).and_then(|rest| rest.strip_prefix('.'));
                        if let Some(bare) = bare.map(str::to_owned) {
                            case.name = bare;
                        }
                    }
                }
            }
            "Counters" => {
                let count = |key| get(key).parse::<u64>().unwrap_or(0);
                let failed = count("failed") + count("error") + count("timeout") + count("aborted");
                self.declared = Some((count("total"), count("passed"), failed));
            }
            _ => {}
        }
    }

    fn end(&mut self, name: &str) {
        match name {
            "Message" | "StackTrace" | "StdOut" | "StdErr" => self.field = None,
            "UnitTest" => self.definition = None,
            "UnitTestResult" | "TestResult" | "WebTestResult" | "ManualTestResult" | "GenericTestResult" => {
                match self.beyond {
                    0 => self.close(),
                    _ => self.beyond -= 1,
                }
            }
            _ => {}
        }
    }

    fn text(&mut self, text: &str) {
        let room = self.kept.room();
        if let (Some(field), Some(case)) = (self.field, self.open.last_mut()) {
            let into = match field {
                Field::Message => &mut case.message,
                Field::Trace => &mut case.trace,
                Field::Printed => &mut case.printed,
            };
            let left = room.saturating_sub(into.len());
            into.push_str(&cut(text.to_owned(), left));
        }
    }

    fn close(&mut self) {
        self.field = None;
        let Some(case) = self.open.pop() else { return };
        // Rows are counted one by one, and what holds them is no test of its own.
        if case.rows {
            return;
        }
        let outcome = match case.outcome.as_str() {
            "passed" | "passedbutrunaborted" | "warning" | "completed" => Outcome::Passed,
            "notexecuted" | "notrunnable" | "inconclusive" | "pending" | "disconnected" | "inprogress" => {
                let message = case.message.lines().next().unwrap_or(&case.printed).trim();
                Outcome::Skipped { message: cut(line(message), self.kept.limits.name) }
            }
            word => {
                let parts = [&case.message, &case.trace, &case.printed].map(|part| part.trim_end());
                let printed =
                    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n");
                let first = case.message.trim().lines().next().unwrap_or_default();
                let (message, detail) = self.kept.said(first, &printed);
                match word {
                    "failed" => Outcome::Failed { message, detail },
                    "" => Outcome::Error { message: "the report does not say how it ended".into(), detail },
                    word if message == NO_REASON => Outcome::Error { message: cut(line(word), 100), detail },
                    _ => Outcome::Error { message, detail },
                }
            }
        };
        let made = TestCase {
            suite: String::new(),
            class: String::new(),
            name: if case.name.is_empty() { "(without a name)".into() } else { case.name },
            file: None,
            took: case.took,
            outcome,
            flaky: false,
        };
        if self.kept.push(made) {
            self.wanted.entry(case.id).or_default().push(self.kept_count);
            self.kept_count += 1;
        }
    }

    fn finish(mut self) -> Report {
        while !self.open.is_empty() {
            self.close();
        }
        let counts = self.kept.counts();
        if let Some((_, _, failed)) = self.declared.filter(|said| said.2 > u64::from(counts.failed)) {
            let listed = counts.failed;
            self.kept.warn(format!("the summary declares {failed} failures, but the file lists {listed}"));
        }
        self.kept.finish()
    }
}

/// `00:00:01.2345678`, hours first.
fn duration(text: &str) -> Option<Span> {
    let mut parts = text.splitn(3, ':');
    let (hours, minutes) = (parts.next()?.parse::<u32>().ok()?, parts.next()?.parse::<u32>().ok()?);
    let Span(rest) = seconds(parts.next()?)?;
    Some(Span(rest + (u64::from(hours) * 3600 + u64::from(minutes) * 60) * 1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = r#"<?xml version="1.0" encoding="utf-8"?><TestRun id="r" xmlns="http://microsoft.com/schemas/VisualStudio/TeamTest/2010"><Results>
<UnitTestResult testId="a" testName="Acme.CartTests.Adds" duration="00:01:00.0125000" outcome="Passed" />
<UnitTestResult testId="b" testName="Acme.CartTests.Takes" duration="00:00:00.0010000" outcome="Failed"><Output><StdOut>buying</StdOut><ErrorInfo>
<Message>Assert.Equal() Failure&#xD;
Expected: 3</Message><StackTrace>   at Acme.CartTests.Takes() in CartTests.cs:line 12</StackTrace></ErrorInfo></Output></UnitTestResult>
<UnitTestResult testId="c" testName="Later" outcome="NotExecuted"><Output><ErrorInfo><Message>no database</Message></ErrorInfo></Output></UnitTestResult>
<UnitTestResult testId="d" testName="Rows" outcome="Failed" resultType="DataDrivenTest"><InnerResults>
<UnitTestResult testId="d" testName="Rows (1)" outcome="Passed" resultType="DataDrivenDataRow"/><UnitTestResult testId="d" testName="Rows (2)" outcome="Timeout"/>
</InnerResults></UnitTestResult></Results><TestDefinitions><UnitTest name="Adds" id="a"><TestMethod className="Acme.CartTests, Acme" name="Adds"/></UnitTest>
</TestDefinitions><ResultSummary outcome="Failed"><Counters total="5" passed="2" failed="1" timeout="1"/></ResultSummary></TestRun>"#;

    #[test]
    fn results_get_their_class_from_the_definitions_below() {
        let report = read(REPORT.as_bytes(), Limits::default()).unwrap();
        assert_eq!((report.counts.passed, report.counts.failed, report.counts.skipped), (2, 2, 1));
        assert_eq!(
            (report.cases[0].full_name().as_str(), report.cases[0].took),
            ("Acme.CartTests::Adds", Some(Span(60_013)))
        );
        assert_eq!(report.cases[1].outcome.message(), "Assert.Equal() Failure");
        assert!(report.cases[1].outcome.detail().contains("CartTests.cs:line 12"));
        assert_eq!(report.cases[2].outcome.message(), "no database");
        assert_eq!(report.cases[4].outcome.message(), "timeout");
        assert!(report.warnings.is_empty(), "{:?}", report.warnings);
    }

    #[test]
    fn a_truncated_file_keeps_what_it_holds_and_says_so() {
        let report =
            read(&REPORT.as_bytes()[..REPORT.find("<StackTrace>").unwrap()], Limits::default()).unwrap();
        assert_eq!((report.counts.passed, report.counts.failed), (1, 1));
        assert!(report.warnings[0].contains("ends in the middle, at byte"), "{:?}", report.warnings);
    }
}
