//! Reading the JSON of libtest (`--format json`, unstable: rust-lang/rust#49359) and of nextest (`--message-format libtest-json` and
//! `libtest-json-plus`), one object a line, with whatever else is printed between.

use std::borrow::Cow;
use std::collections::HashSet;
use std::io::BufRead;

use andon_model::Span;
use serde::de::Visitor;
use serde::{Deserialize, Deserializer};
use std::fmt;

use crate::case::{Keeper, Limits, Outcome, Report, TestCase};
use crate::lines::Lines;
use crate::text::{cut, line as one_line, seconds, span};

/// Longer lines are cut and then no JSON any more: one line holds all that a test printed.
const LONGEST: usize = 16 * 1024 * 1024;
/// Tests that run at the same time; more are not told apart.
const MOST_OPEN: usize = 100_000;

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    event: Cow<'a, str>,
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(default)]
    exec_time: Option<Took>,
    #[serde(borrow, default)]
    stdout: Cow<'a, str>,
    #[serde(borrow, default)]
    message: Cow<'a, str>,
    #[serde(borrow, default)]
    reason: Cow<'a, str>,
    #[serde(default)]
    passed: Option<u64>,
    #[serde(default)]
    failed: Option<u64>,
}

/// Seconds; versions before 2021 wrote `"0.001s"`.
struct Took(Option<Span>);

impl<'de> Deserialize<'de> for Took {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Took, D::Error> {
        struct Any;
        impl Visitor<'_> for Any {
            type Value = Took;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("seconds")
            }
            fn visit_f64<E>(self, seconds: f64) -> Result<Took, E> {
                Ok(Took(span(seconds)))
            }
            fn visit_u64<E>(self, seconds: u64) -> Result<Took, E> {
                Ok(Took(span(seconds as f64)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Took, E> {
                Ok(Took(seconds(text)))
            }
        }
        input.deserialize_any(Any)
    }
}

/// Reads the output.
pub fn read(input: impl BufRead, limits: Limits) -> Report {
    let mut lines = Lines::new(input, LONGEST);
    let mut reader = Reader { kept: Keeper::new(limits), ..Reader::default() };
    while let Some((number, line)) = lines.next() {
        if line.trim_ascii_start().starts_with(b"{") {
            match serde_json::from_slice::<Event<'_>>(line) {
                Ok(event) => reader.event(&event),
                Err(error) => reader.odd(number, &error),
            }
        }
    }
    if let Some(why) = lines.cut_short() {
        reader.kept.warn(why);
    }
    reader.finish(lines.number)
}

#[derive(Default)]
struct Reader {
    kept: Keeper,
    /// Tests that began and did not end.
    open: HashSet<String>,
    suites: u64,
    /// What the suites themselves say: passed and failed.
    said: (u64, u64),
    odd: Option<(String, u64)>,
}

impl Reader {
    fn odd(&mut self, line: u64, error: &serde_json::Error) {
        match &mut self.odd {
            Some((_, more)) => *more += 1,
            None => {
                self.odd =
                    Some((format!("line {line} is no event of libtest and was passed over: {error}"), 0))
            }
        }
    }

    fn event(&mut self, event: &Event<'_>) {
        match (event.kind.as_ref(), event.event.as_ref()) {
            ("suite", "started") => self.suites += 1,
            ("suite", _) => {
                self.suites = self.suites.saturating_sub(1);
                self.said.0 = self.said.0.saturating_add(event.passed.unwrap_or(0));
                self.said.1 = self.said.1.saturating_add(event.failed.unwrap_or(0));
            }
            ("test", "started") if self.open.len() < MOST_OPEN => self.begun(&event.name),
            ("test", "ok" | "failed" | "ignored") => {
                let (name, attempt) = attempt_of(&event.name);
                self.open.remove(name);
                self.test(event, name, attempt);
            }
            // `timeout` says that a test is slow, `bench` is a number: neither is an end.
            _ => {}
        }
    }

    fn begun(&mut self, name: &str) {
        self.open.insert(name.to_owned());
    }

    fn test(&mut self, event: &Event<'_>, name: &str, attempt: u32) {
        let limit = self.kept.limits.name;
        let outcome = match event.event.as_ref() {
            "ok" => Outcome::Passed,
            "ignored" => Outcome::Skipped { message: cut(one_line(&event.message), limit) },
            _ => {
                let message = panic_of(&event.stdout);
                let own = [event.message.as_ref(), event.reason.as_ref(), message];
                let message = own.into_iter().find(|text| !text.is_empty()).unwrap_or_default();
                let (message, detail) = self.kept.said(message, &event.stdout);
                Outcome::Failed { message, detail }
            }
        };
        let (class, name) = name_of(name);
        let text = |text: &str| cut(one_line(text), limit);
        let (class, name) = (text(class), text(name));
        let took = event.exec_time.as_ref().and_then(|took| took.0);
        self.kept.push(TestCase {
            suite: String::new(),
            class,
            name,
            file: None,
            took,
            outcome,
            flaky: attempt > 1,
        });
    }

    fn finish(mut self, lines: u64) -> Report {
        let mut left: Vec<String> = self.open.drain().collect();
        left.sort();
        for name in &left {
            let (class, name) = name_of(name);
            self.kept.broken(
                "",
                &one_line(class),
                &one_line(name),
                "it began and did not end: the test binary stopped",
                "",
            );
        }
        if !left.is_empty() || self.suites > 0 {
            self.kept.warn(format!(
                "the output ends at line {lines} in the middle of a suite: the test binary stopped"
            ));
        }
        let counts = self.kept.counts();
        if self.said.1 > u64::from(counts.failed) {
            let (said, listed) = (self.said.1, counts.failed);
            self.kept.warn(format!("the suites say that {said} tests failed, but {listed} are listed"));
        }
        if let Some((first, more)) = self.odd.take() {
            self.kept.warn(if more == 0 { first } else { format!("{first}, and {more} more such lines") });
        }
        self.kept.finish()
    }
}

/// nextest names tests `crate::binary$module::test`, libtest without the part before the `$`.
fn name_of(name: &str) -> (&str, &str) {
    name.split_once('$').unwrap_or(("", name))
}

/// nextest tells only the last attempt of a test that was run again, as `name#3`.
fn attempt_of(name: &str) -> (&str, u32) {
    let attempt = name.rsplit_once('#').filter(|(name, _)| name.contains('$'));
    attempt.and_then(|(name, n)| Some((name, n.parse().ok()?))).unwrap_or((name, 1))
}

/// What a panic says, or the first line of all.
fn panic_of(printed: &str) -> &str {
    let mut lines = printed.lines();
    let panicked = lines.by_ref().find(|line| line.contains("panicked at"));
    match panicked.map(|line| (line, lines.next().unwrap_or_default())) {
        // Since Rust 1.73 the message stands below the place.
        Some((line, next)) if line.ends_with(':') && !next.is_empty() => next,
        Some((line, _)) => line,
        None => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libtest_and_nextest_are_read() {
        let report = read(
            r#"   Compiling x v0.1.0
{ "type": "suite", "event": "started", "test_count": 3 }
{ "type": "test", "event": "started", "name": "x::x$tests::adds" }
{ "type": "test", "name": "x::x$tests::adds", "event": "ok", "exec_time": 0.0125 }
{ "type": "test", "event": "started", "name": "x::x$tests::fails" }
{ "type": "test", "name": "x::x$tests::fails", "event": "failed", "stdout": "thread 'a' panicked at src/lib.rs:9:5:\nassertion failed: 1 == 2\nnote: run" }
{ "type": "test", "name": "x::x$tests::later", "event": "ignored", "message": "needs a database" }
{ "type": "suite", "event": "failed", "passed": 1, "failed": 1, "ignored": 1, "measured": 0, "filtered_out": 0, "exec_time": "0.001s" }
"#
            .as_bytes(),
            Limits::default(),
        );
        assert_eq!((report.counts.passed, report.counts.failed, report.counts.skipped), (1, 1, 1));
        assert_eq!(report.cases[0].full_name(), "x::x::tests::adds");
        assert_eq!(
            (report.cases[0].took, report.cases[1].outcome.message()),
            (Some(Span(13)), "assertion failed: 1 == 2")
        );
        assert!(report.warnings.is_empty(), "{:?}", report.warnings);
    }

    #[test]
    fn a_suite_without_an_end_is_said_and_its_open_test_is_red() {
        let begun = "{\"type\":\"suite\",\"event\":\"started\",\"test_count\":1}\n{\"type\":\"test\",\"event\":\"started\",\"name\":\"a\"}\n{\"ty";
        let report = read(begun.as_bytes(), Limits::default());
        assert_eq!((report.counts.failed, report.warnings.len()), (1, 2), "{:?}", report.warnings);
        assert!(report.warnings[0].contains("at line 3"), "{:?}", report.warnings);
    }
}
