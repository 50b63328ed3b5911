//! Reading `go test -json` (documentation of cmd/test2json), one object a line, with whatever compilers and programs print between.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::BufRead;

use andon_model::Span;
use serde::Deserialize;

use crate::case::{Keeper, Limits, Outcome, Report, TestCase};
use crate::lines::Lines;
use crate::text::{cut, line as one_line, span};

/// Longer lines are cut and then no JSON any more: an output event holds one line of a test.
const LONGEST: usize = 4 * 1024 * 1024;
/// Tests that run at the same time; more are not told apart.
const MOST_OPEN: usize = 100_000;

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(rename = "Action", borrow)]
    action: Cow<'a, str>,
    #[serde(rename = "Package", borrow, default)]
    package: Cow<'a, str>,
    #[serde(rename = "ImportPath", borrow, default)]
    import: Cow<'a, str>,
    #[serde(rename = "Test", borrow, default)]
    test: Cow<'a, str>,
    #[serde(rename = "Elapsed", default)]
    elapsed: Option<f64>,
    #[serde(rename = "Output", borrow, default)]
    output: Cow<'a, str>,
    #[serde(rename = "FailedBuild", borrow, default)]
    failed_build: Cow<'a, str>,
}

/// Reads the output.
pub fn read(input: impl BufRead, limits: Limits) -> Report {
    let mut lines = Lines::new(input, LONGEST);
    let mut reader = Reader { kept: Keeper::new(limits), ..Reader::default() };
    while let Some((number, line)) = lines.next() {
        if !line.trim_ascii_start().starts_with(b"{") {
            reader.between(&String::from_utf8_lossy(line));
            continue;
        }
        match serde_json::from_slice::<Event<'_>>(line) {
            Ok(event) => reader.event(&event),
            Err(error) => reader.odd(number, &error),
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
    /// Packages that began and did not end, with what was printed outside of their tests.
    packages: HashMap<String, Package>,
    /// What compilers printed, by the package that did not build.
    builds: HashMap<String, String>,
    /// Text between the events, newest last: before Go 1.24 it is where compilers say what is wrong.
    between: String,
    /// Packages that did not build, as a text between the events says.
    unbuilt: Vec<(String, String)>,
    open: usize,
    odd: Option<(String, u64)>,
}

#[derive(Default)]
struct Package {
    printed: String,
    failed: bool,
    /// Tests that run, with what they printed.
    tests: HashMap<String, String>,
}

impl Reader {
    fn between(&mut self, text: &str) {
        // Before Go 1.20 a package that does not build has no event at all.
        let failed = text.strip_prefix("FAIL\t").and_then(|rest| rest.split_once(" ["));
        if let Some((package, why)) =
            failed.filter(|(_, why)| matches!(*why, "build failed]" | "setup failed]"))
        {
            if self.unbuilt.len() < MOST_OPEN {
                self.unbuilt.push((package.to_owned(), why.trim_end_matches(']').to_owned()));
            }
            return;
        }
        if self.between.len() + text.len() < self.kept.limits.detail {
            self.between.push_str(text);
            self.between.push('\n');
        }
    }

    fn odd(&mut self, line: u64, error: &serde_json::Error) {
        match &mut self.odd {
            Some((_, more)) => *more += 1,
            None => {
                self.odd =
                    Some((format!("line {line} is no event of go test and was passed over: {error}"), 0))
            }
        }
    }

    fn event(&mut self, event: &Event<'_>) {
        let room = self.kept.room();
        if event.action == "build-output" {
            if self.builds.len() < MOST_OPEN || self.builds.contains_key(event.import.as_ref()) {
                append(
                    self.builds.entry(event.import.clone().into_owned()).or_default(),
                    &event.output,
                    room,
                );
            }
            return;
        }
        if event.package.is_empty()
            || (self.packages.len() >= MOST_OPEN && !self.packages.contains_key(event.package.as_ref()))
        {
            return;
        }
        if !self.packages.contains_key(event.package.as_ref()) {
            self.packages.insert(event.package.clone().into_owned(), Package::default());
        }
        let Some(package) = self.packages.get_mut(event.package.as_ref()) else { return };
        match (event.action.as_ref(), event.test.is_empty()) {
            ("run", false) if self.open < MOST_OPEN => {
                self.open += usize::from(
                    package.tests.insert(event.test.clone().into_owned(), String::new()).is_none(),
                );
            }
            ("output", in_package) => {
                let printed = match package.tests.get_mut(event.test.as_ref()) {
                    Some(printed) if !in_package => printed,
                    _ => &mut package.printed,
                };
                append(printed, &event.output, room);
            }
            (end @ ("pass" | "fail" | "skip"), false) => {
                let printed = package.tests.remove(event.test.as_ref());
                self.open -= usize::from(printed.is_some());
                package.failed |= end == "fail";
                let printed = printed.unwrap_or_default();
                let took = event.elapsed.and_then(span);
                self.test(&event.package, &event.test, took, end, &printed);
            }
            ("fail", true) => self.package_failed(event),
            ("pass" | "skip", true) => drop(self.package_ended(&event.package)),
            _ => {}
        }
    }

    fn test(&mut self, package: &str, name: &str, took: Option<Span>, end: &str, printed: &str) {
        let outcome = match end {
            "pass" => Outcome::Passed,
            "skip" => {
                let message = said(printed).lines().next().map(str::trim).map(one_line).unwrap_or_default();
                Outcome::Skipped { message: cut(message, self.kept.limits.name) }
            }
            _ => {
                let (message, detail) = self.kept.said("", &said(printed));
                Outcome::Failed { message, detail }
            }
        };
        let limit = self.kept.limits.name;
        let text = |text: &str| cut(one_line(text), limit);
        let (class, name) = (text(package), text(name));
        self.kept.push(TestCase {
            suite: String::new(),
            class,
            name,
            file: None,
            took,
            outcome,
            flaky: false,
        });
    }

    /// Tests of a package that is over and that never said how they ended: the test binary stopped in them.
    fn package_ended(&mut self, name: &str) -> Option<Package> {
        let mut package = self.packages.remove(name)?;
        let mut left: Vec<_> = std::mem::take(&mut package.tests).into_iter().collect();
        left.sort();
        for (test, printed) in left {
            self.open -= 1;
            package.failed = true;
            self.kept.broken(
                "",
                name,
                &test,
                "it began and did not end: the test binary stopped",
                &said(&printed),
            );
        }
        Some(package)
    }

    /// A package that fails without a failed test did not build, or stopped outside of its tests.
    fn package_failed(&mut self, event: &Event<'_>) {
        let Some(package) = self.package_ended(&event.package) else { return };
        if package.failed {
            return;
        }
        let built = self.builds.remove(event.failed_build.as_ref());
        let no_build = built.is_some()
            || package.printed.contains("[build failed]")
            || package.printed.contains("[setup failed]");
        let (message, printed) =
            match built.or_else(|| (no_build && !self.between.is_empty()).then(|| self.between.clone())) {
                Some(compiler) => (
                    compiler.lines().find(|line| !line.starts_with('#')).unwrap_or_default().to_owned(),
                    compiler,
                ),
                None => (String::new(), said(&package.printed)),
            };
        let name = if no_build { "(build)" } else { "(package)" };
        self.kept.broken("", &one_line(&event.package), name, &message, &printed);
    }

    fn finish(mut self, lines: u64) -> Report {
        let mut open: Vec<String> = self.packages.keys().cloned().collect();
        open.sort();
        let mut cut_off = false;
        for name in open {
            // Packages without an end are usual when nothing of them ran; a test without one is not.
            cut_off |= self.packages.get(&name).is_some_and(|package| !package.tests.is_empty());
            self.package_ended(&name);
        }
        let compiler = std::mem::take(&mut self.between);
        for (package, why) in std::mem::take(&mut self.unbuilt) {
            let said = compiler.lines().find(|line| line.contains(".go:")).unwrap_or(&why);
            self.kept.broken("", &one_line(&package), "(build)", said, &compiler);
        }
        if cut_off {
            self.kept
                .warn(format!("the output ends at line {lines} in the middle of tests: go test was stopped"));
        }
        if let Some((first, more)) = self.odd.take() {
            self.kept.warn(if more == 0 { first } else { format!("{first}, and {more} more such lines") });
        }
        self.kept.finish()
    }
}

fn append(text: &mut String, more: &str, room: usize) {
    let left = room.saturating_sub(text.len());
    text.push_str(&more[..more.floor_char_boundary(left)]);
}

/// What a test printed without the lines that go test puts around it.
fn said(printed: &str) -> String {
    let frame = ["=== ", "--- ", "FAIL", "exit status "];
    let own = |line: &&str| !frame.iter().any(|mark| line.trim_start().starts_with(mark));
    printed.lines().filter(own).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Report {
        read(text.as_bytes(), Limits::default())
    }

    fn counts(report: &Report) -> (u32, u32, u32) {
        (report.counts.passed, report.counts.failed, report.counts.skipped)
    }

    #[test]
    fn subtests_failures_and_skips_are_told() {
        let report = of(r#"go: downloading example.org/y v1.0.0
{"Time":"2026-01-01T00:00:00Z","Action":"start","Package":"example.org/x"}
{"Action":"run","Package":"example.org/x","Test":"TestA"}
{"Action":"run","Package":"example.org/x","Test":"TestA/one"}
{"Action":"output","Package":"example.org/x","Test":"TestA/one","Output":"    x_test.go:9: want 3, got \u001b[31m4\u001b[0m\n"}
{"Action":"output","Package":"example.org/x","Test":"TestA/one","Output":"    --- FAIL: TestA/one (0.00s)\n"}
{"Action":"fail","Package":"example.org/x","Test":"TestA/one","Elapsed":0.01}
{"Action":"fail","Package":"example.org/x","Test":"TestA","Elapsed":0.25}
{"Action":"run","Package":"example.org/x","Test":"TestB"}
{"Action":"output","Package":"example.org/x","Test":"TestB","Output":"    x_test.go:12: no database\n"}
{"Action":"skip","Package":"example.org/x","Test":"TestB","Elapsed":0}
{"Action":"fail","Package":"example.org/x","Elapsed":0.3}
"#);
        assert_eq!(counts(&report), (0, 2, 1));
        assert_eq!(report.cases[0].full_name(), "example.org/x::TestA/one");
        assert_eq!(report.cases[0].outcome.message(), "x_test.go:9: want 3, got 4");
        assert_eq!(report.cases[1].took, Some(Span(250)));
        assert_eq!(report.cases[2].outcome.message(), "x_test.go:12: no database");
        assert!(report.warnings.is_empty(), "{:?}", report.warnings);
    }

    #[test]
    fn a_package_that_does_not_build_is_red_with_what_the_compiler_said() {
        let older = "# example.org/x\n./x.go:3:1: undefined: y\n{\"Action\":\"output\",\"Package\":\"example.org/x\",\
            \"Output\":\"FAIL\\texample.org/x [build failed]\\n\"}\n{\"Action\":\"fail\",\"Package\":\"example.org/x\"}\n";
        let newer = "{\"ImportPath\":\"example.org/x\",\"Action\":\"build-output\",\"Output\":\"# example.org/x\\n\"}\n\
            {\"ImportPath\":\"example.org/x\",\"Action\":\"build-output\",\"Output\":\"./x.go:3:1: undefined: y\\n\"}\n\
            {\"ImportPath\":\"example.org/x\",\"Action\":\"build-fail\"}\n\
            {\"Action\":\"fail\",\"Package\":\"example.org/x\",\"FailedBuild\":\"example.org/x\"}\n";
        for text in [older, newer] {
            let report = of(text);
            assert_eq!(counts(&report), (0, 1, 0), "{text}");
            assert_eq!(report.cases[0].name, "(build)");
            assert_eq!(report.cases[0].outcome.message(), "./x.go:3:1: undefined: y", "{text}");
        }
    }

    #[test]
    fn a_test_that_never_ended_is_red() {
        let begun = "{\"Action\":\"run\",\"Package\":\"x\",\"Test\":\"TestA\"}\n\
            {\"Action\":\"output\",\"Package\":\"x\",\"Test\":\"TestA\",\"Output\":\"panic: boom\\n\"}\n";
        let stopped = of(begun);
        assert_eq!((counts(&stopped), stopped.warnings.len()), ((0, 1, 0), 1));
        let ended = of(&format!("{begun}{{\"Action\":\"fail\",\"Package\":\"x\"}}\n{{\"Action\":"));
        assert_eq!(counts(&ended), (0, 1, 0), "the package's own end adds nothing to it");
        assert!(ended.warnings[0].starts_with("line 4 is no event of go test"), "{:?}", ended.warnings);
        assert!(ended.cases[0].outcome.detail().contains("panic: boom"));
    }
}
