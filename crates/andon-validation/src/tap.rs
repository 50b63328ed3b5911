//! Reading TAP 13 and 14 (testanything.org): test points, plans, subtests, YAML blocks, todo and skip, bail out. Streaming, in bounded memory.
//!
//! A test point behind an indented block sums that block up. It is a test of its own only if it is red and nothing inside it is, or if it
//! comes from Node's runner, whose tests may hold others. Lines that are no TAP are passed over, as the specification asks.

use std::io::BufRead;

use andon_model::Span;

use crate::case::{Keeper, Limits, Outcome, Report, TestCase};
use crate::lines::Lines;
use crate::text::{cut, line as one_line};

/// Longer lines are cut.
const LONGEST: usize = 64 * 1024;
/// Subtests inside subtests that are told apart.
const DEEPEST: usize = 32;

/// Reads a report.
pub fn read(input: impl BufRead, limits: Limits) -> Report {
    let mut lines = Lines::new(input, LONGEST);
    let mut reader =
        Reader { kept: Keeper::new(limits), levels: vec![Level::default()], ..Reader::default() };
    while let Some((number, line)) = lines.next() {
        reader.line(&String::from_utf8_lossy(line), number);
    }
    if let Some(why) = lines.cut_short() {
        reader.kept.warn(why);
    }
    reader.finish(lines.number)
}

#[derive(Default)]
struct Reader {
    kept: Keeper,
    /// The document and its open subtests, outermost first.
    levels: Vec<Level>,
    /// The newest test point: a YAML block may follow it.
    point: Option<Point>,
    yaml: Option<Yaml>,
    bailed: bool,
}

#[derive(Default)]
struct Level {
    /// Columns that it stands in.
    indent: usize,
    /// Its name, as far as a comment said it.
    name: String,
    plan: Option<(u64, u64)>,
    points: u64,
    red: bool,
    /// What a subtest that just ended held: points, and whether one was red.
    inner: Option<(u64, bool)>,
}

struct Point {
    passed: bool,
    name: String,
    directive: Directive,
    /// It sums up a subtest with so many points, one of them red.
    inner: Option<(u64, bool)>,
    diagnostics: String,
    yaml: String,
}

#[derive(PartialEq)]
enum Directive {
    None,
    Skip(String),
    Todo(String),
}

struct Yaml {
    indent: usize,
    from: u64,
}

impl Reader {
    fn line(&mut self, text: &str, number: u64) {
        let text = text.trim_end();
        let bare = text.trim_start();
        let indent = text.len() - bare.len();
        if let Some(yaml) = &self.yaml {
            if bare == "..." && indent <= yaml.indent {
                self.yaml = None;
            } else if let Some(point) = &mut self.point {
                let from = yaml.indent.min(indent);
                let room = self.kept.room().saturating_sub(point.yaml.len());
                let text = &text[from..];
                point.yaml.push_str(&text[..text.floor_char_boundary(room)]);
                point.yaml.push('\n');
            }
            return;
        }
        if bare.is_empty() {
            return;
        }
        if bare == "---" && self.point.is_some() {
            self.yaml = Some(Yaml { indent, from: number });
            return;
        }
        if let Some(comment) = bare.strip_prefix('#') {
            self.comment(comment.trim(), indent);
        } else if let Some((passed, rest)) = point(bare) {
            self.level(indent);
            self.test_point(passed, rest);
        } else if let Some(rest) = bare.strip_prefix("1..") {
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            if let Ok(plan) = digits.parse() {
                self.flush();
                self.level(indent);
                if let Some(level) = self.levels.last_mut() {
                    level.plan.get_or_insert((plan, number));
                }
                let why = rest[digits.len()..].split_once('#').map_or("", |(_, why)| why.trim());
                if plan == 0 && indent == 0 && why.to_ascii_lowercase().starts_with("skip") {
                    self.kept.warn(format!("everything was skipped: {}", one_line(why)));
                }
            }
        } else if let Some(why) = bare.strip_prefix("Bail out!") {
            self.flush();
            if !std::mem::replace(&mut self.bailed, true) {
                let message = format!("bail out: {}", one_line(why.trim()));
                self.kept.broken("", "", "(bail out)", &message, "");
            }
        }
    }

    fn comment(&mut self, comment: &str, indent: usize) {
        if let Some(name) = comment.strip_prefix("Subtest:") {
            self.flush();
            // Node writes it where the subtest's own test point will stand, TAP 14 also inside of it.
            self.close_down_to(indent);
            if self.levels.len() < DEEPEST && self.levels.last().is_some_and(|level| level.indent <= indent) {
                self.levels.push(Level {
                    indent: indent + 4,
                    name: one_line(name.trim()),
                    ..Level::default()
                });
            }
            return;
        }
        if let Some(point) = self.point.as_mut().filter(|point| !point.passed) {
            let room = self.kept.room().saturating_sub(point.diagnostics.len());
            point.diagnostics.push_str(&cut(format!("{comment}\n"), room));
        }
    }

    /// Makes the level of this column the innermost one.
    fn level(&mut self, indent: usize) {
        // A name that was announced inside of its subtest, as TAP 14 writes it, is the name of this very level.
        let announced = self.levels.last().filter(|level| level.indent > indent && level.points == 0);
        let name = announced.map(|level| level.name.clone()).unwrap_or_default();
        self.close_down_to(indent);
        if self.levels.last().is_some_and(|level| level.indent < indent) && self.levels.len() < DEEPEST {
            self.flush();
            self.levels.push(Level { indent, name, ..Level::default() });
        }
    }

    fn close_down_to(&mut self, indent: usize) {
        if self.levels.last().is_some_and(|level| level.indent > indent) {
            self.flush();
        }
        while self.levels.len() > 1 && self.levels.last().is_some_and(|level| level.indent > indent) {
            let Some(closed) = self.levels.pop() else { return };
            self.plan_kept(&closed);
            if let Some(outer) = self.levels.last_mut().filter(|_| closed.points > 0) {
                let (points, red) = outer.inner.unwrap_or((0, false));
                outer.inner = Some((points + closed.points, red | closed.red));
            }
        }
    }

    /// A plan that was not kept is a failure: tests are missing, and nobody knows how they would have ended.
    fn plan_kept(&mut self, level: &Level) {
        let Some((plan, number)) = level.plan.filter(|(plan, _)| *plan != level.points && !self.bailed)
        else {
            return;
        };
        let came = level.points;
        let message = format!("the plan in line {number} says {plan} tests, but {came} came");
        self.kept.broken(&level.name, "", "(plan)", &message, "");
    }

    fn test_point(&mut self, passed: bool, rest: &str) {
        let Some(level) = self.levels.last_mut() else { return };
        let inner = level.inner.take();
        level.points += 1;
        // The number, and a dash that is no part of the name.
        let rest = rest.trim_start_matches(|c: char| c.is_ascii_digit()).trim_start();
        let rest =
            rest.strip_prefix("- ").or(rest.strip_prefix('-').filter(|rest| rest.is_empty())).unwrap_or(rest);
        let (name, directive) = directive(rest);
        self.flush();
        if let Some(level) = self.levels.last_mut() {
            level.red |= !passed && directive == Directive::None;
        }
        self.point =
            Some(Point { passed, name, directive, inner, diagnostics: String::new(), yaml: String::new() });
    }

    /// The newest test point is complete.
    fn flush(&mut self) {
        self.yaml = None;
        let Some(point) = self.point.take() else { return };
        let fields = Fields::of(&point.yaml);
        // Node times its tests and calls suites so; Test::More writes no YAML behind a subtest.
        let is_nodes_test = !fields.millis.is_empty() && fields.kind != "suite";
        let sums_up = match point.inner {
            // What only repeats that something inside is red is told there.
            Some((_, red)) => !is_nodes_test && (point.passed || red || point.directive != Directive::None),
            // An empty `describe` of Node.
            None => fields.kind == "suite" && point.passed,
        };
        if sums_up {
            return;
        }
        let outcome = match (&point.directive, point.passed) {
            (Directive::Skip(why), _) => {
                Outcome::Skipped { message: cut(one_line(why), self.kept.limits.name) }
            }
            (Directive::Todo(why), false) => {
                Outcome::Skipped { message: cut(one_line(&format!("todo: {why}")), self.kept.limits.name) }
            }
            (_, true) => Outcome::Passed,
            (Directive::None, false) => {
                let (message, detail) =
                    self.kept.said(&fields.message, &format!("{}{}", point.diagnostics, point.yaml));
                Outcome::Failed { message, detail }
            }
        };
        let limit = self.kept.limits.name;
        let names = self.levels.iter().map(|level| level.name.as_str()).filter(|name| !name.is_empty());
        let suite = cut(names.collect::<Vec<_>>().join(" / "), limit);
        let millis = fields.millis.parse::<f64>().ok();
        let took = millis.filter(|ms| (0.0..1e12).contains(ms)).map(|ms| Span(ms.round() as u64));
        let file = (!fields.file.is_empty()).then(|| cut(one_line(fields.file), limit));
        let name = if point.name.is_empty() {
            "(without a name)".to_owned()
        } else {
            cut(one_line(&point.name), limit)
        };
        self.kept.push(TestCase { suite, class: String::new(), name, file, took, outcome, flaky: false });
    }

    fn finish(mut self, lines: u64) -> Report {
        if let Some(yaml) = &self.yaml {
            let from = yaml.from;
            self.kept.warn(format!(
                "the report ends at line {lines} inside the YAML block that begins in line {from}"
            ));
        }
        self.flush();
        self.close_down_to(0);
        if let Some(outermost) = self.levels.pop() {
            self.plan_kept(&outermost);
            if outermost.plan.is_none() && !self.bailed {
                self.kept.warn(format!(
                    "the report ends at line {lines} without a plan: whether tests are missing cannot be told"
                ));
            }
        }
        self.kept.finish()
    }
}

/// `ok …` and `not ok …`.
fn point(text: &str) -> Option<(bool, &str)> {
    let (passed, rest) = match text.strip_prefix("not ok") {
        Some(rest) => (false, rest),
        None => (true, text.strip_prefix("ok")?),
    };
    match rest.as_bytes().first() {
        None | Some(b' ' | b'\t') => Some((passed, rest.trim_start())),
        _ => None,
    }
}

/// The name, and what stands behind the first ` # ` that is not escaped.
fn directive(text: &str) -> (String, Directive) {
    let mark = text.match_indices('#').find(|(at, _)| {
        let before = &text[..*at];
        (before.is_empty() || before.ends_with(char::is_whitespace)) && !before.ends_with('\\')
    });
    let unescaped = |name: &str| name.trim().replace("\\#", "#").replace("\\\\", "\\");
    let Some((at, _)) = mark else { return (unescaped(text), Directive::None) };
    let said = text[at + 1..].trim();
    let word: String = said.chars().take_while(char::is_ascii_alphabetic).collect();
    let why = said[word.len()..].trim_start_matches([':', ' ']).to_owned();
    let found = match word.to_ascii_lowercase().as_str() {
        "skip" | "skipped" => Directive::Skip(why),
        "todo" => Directive::Todo(why),
        // `# time=12ms` of node-tap.
        _ => Directive::None,
    };
    let no_directive = found == Directive::None && !said.starts_with("time=");
    (unescaped(if no_directive { text } else { &text[..at] }), found)
}

/// What is known by name at the outermost level of a YAML block. No YAML is built: these are shown and never used.
#[derive(Default)]
struct Fields<'a> {
    kind: &'a str,
    millis: &'a str,
    file: &'a str,
    message: String,
}

impl Fields<'_> {
    fn of(yaml: &str) -> Fields<'_> {
        let mut fields = Fields::default();
        let indent_of = |line: &str| line.len() - line.trim_start().len();
        let Some(indent) = yaml.lines().find(|line| !line.trim().is_empty()).map(indent_of) else {
            return fields;
        };
        let mut lines = yaml.lines();
        while let Some(line) = lines.next() {
            let own = line.get(indent..).filter(|rest| !rest.starts_with([' ', '\t']));
            let Some((key, value)) = own.and_then(|rest| rest.split_once(':')) else { continue };
            let value = value.trim();
            let quoted = || value.strip_prefix(['\'', '"']).and_then(|rest| rest.strip_suffix(['\'', '"']));
            match key {
                "type" => fields.kind = quoted().unwrap_or(value),
                "duration_ms" => fields.millis = value,
                "file" => fields.file = quoted().unwrap_or(value),
                "message" | "error" if fields.message.is_empty() || key == "message" => {
                    fields.message = match (value, quoted()) {
                        ("|" | "|-" | "|+" | ">" | ">-", _) => {
                            lines.next().unwrap_or_default().trim().to_owned()
                        }
                        (_, Some(inner)) => inner.replace("''", "'").replace("\\n", "\n"),
                        (value, None) => value.to_owned(),
                    };
                }
                _ => {}
            }
        }
        fields
    }
}

#[cfg(test)]
#[path = "tap_tests.rs"]
mod tests;
