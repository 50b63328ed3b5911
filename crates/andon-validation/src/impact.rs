//! Which tests a change can touch, as far as coverage, names and history say; and what running those alone would have missed. Observes: it runs nothing and keeps
//! nothing from running.
//!
//! Whatever is not known counts as touching: a path that no report measured (data, configuration, a file that is gone) touches all tests, a test that
//! nobody saw run or of which no report says what it ran is touched by everything.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use andon_model::RunId;
use andon_model::event::{Event, Recorded};
use serde::{Deserialize, Serialize};

use crate::coverage::Coverage;
use crate::order::names;

/// Runs that are remembered.
const WINDOW: usize = 200;
/// Observed runs before a smaller selection may be believed...
pub const RUNS: usize = 50;
/// ...and among them red tests that it had to find: with none missed of 30, the true share of missed ones is below a tenth, 19 times of 20 (rule of three).
pub const FAILURES: u32 = 30;
/// Missed tests that an event names.
const NAMED: usize = 20;

/// A test of the run that is looked at.
#[derive(Debug, Clone, PartialEq)]
pub struct Ran<'a> {
    /// Its key.
    pub key: &'a str,
    /// As people know it.
    pub name: String,
    /// How long it took, in milliseconds.
    pub millis: f64,
    /// Whether it was red.
    pub red: bool,
    /// Whether it was remembered before this run, and red then.
    pub before: Option<bool>,
}

/// What is known of who runs what: from the coverage of the last landing.
#[derive(Debug, Default)]
pub struct Edges {
    /// By path, keys of the tests that ran a line of it; none: measured, but nobody says by which test.
    by_path: BTreeMap<String, Option<BTreeSet<String>>>,
    /// All tests that have an edge.
    tests: BTreeSet<String>,
}

impl Edges {
    /// Of a measured coverage.
    pub fn of(coverage: &Coverage) -> Edges {
        let mut edges = Edges::default();
        let any = coverage.files.values().any(|file| !file.tests.is_empty());
        for (path, file) in &coverage.files {
            let keys: BTreeSet<String> = file.tests.iter().map(|test| names::key(test)).collect();
            edges.tests.extend(keys.iter().cloned());
            edges.by_path.insert(path.clone(), any.then_some(keys));
        }
        edges
    }
}

/// What a smaller selection of one run would have been.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Impact {
    /// Tests that ran.
    pub tests: u32,
    /// Those that the change can touch.
    pub selected: u32,
    /// What all took, in milliseconds.
    pub ms: u64,
    /// What those took.
    pub selected_ms: u64,
    /// Red ones.
    pub failed: u32,
    /// Red ones that were not selected, by name; the first of them.
    pub missed: Vec<String>,
    /// How many were missed.
    pub misses: u32,
    /// Why it is all of them, in a sentence; none: it is not.
    pub whole: Option<String>,
}

/// Observes a run. `paths` are all that the change touches; `certain`: whether that is all of them; `always` are marks of tests that run in any case: parts of
/// their names.
pub fn observe(
    tests: &[Ran<'_>],
    paths: &BTreeSet<String>,
    certain: bool,
    edges: &Edges,
    always: &[String],
) -> Impact {
    let whole = whole(paths, certain, edges);
    let touched: BTreeSet<&str> = paths
        .iter()
        .filter_map(|path| edges.by_path.get(path)?.as_ref())
        .flatten()
        .map(String::as_str)
        .collect();
    // A path's own words: tests of that name, and tests that stand in it.
    let stems: Vec<String> = paths.iter().filter_map(|path| stem(path)).collect();
    let own: Vec<String> = paths.iter().map(|path| names::key(path)).collect();
    let mut seen = Impact { whole: whole.clone(), ..Impact::default() };
    for test in tests {
        let in_it = |own: &String| {
            test.key.strip_prefix(own.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let named = |stem: &String| {
            let mut found = false;
            names::words(test.key, |word| found |= word == stem);
            found
        };
        let selected = whole.is_some()
            // New, red when it ran last, or of which nobody knows what it runs.
            || test.before.is_none_or(|red| red)
            || !edges.tests.contains(test.key)
            || touched.contains(test.key)
            || always.iter().any(|mark| test.name.contains(mark.as_str()))
            || own.iter().any(in_it)
            || stems.iter().any(named);
        seen.tests += 1;
        seen.ms += test.millis as u64;
        seen.failed += u32::from(test.red);
        if selected {
            seen.selected += 1;
            seen.selected_ms += test.millis as u64;
        } else if test.red {
            seen.misses += 1;
            if seen.missed.len() < NAMED {
                seen.missed.push(test.name.clone());
            }
        }
    }
    seen
}

/// Why everything is touched.
fn whole(paths: &BTreeSet<String>, certain: bool, edges: &Edges) -> Option<String> {
    if edges.by_path.is_empty() {
        return Some("no landing measured coverage yet".into());
    }
    if edges.tests.is_empty() {
        return Some("no report says which test ran which file".into());
    }
    if !certain {
        return Some("files were removed, renamed or are no text".into());
    }
    let unknown =
        paths.iter().find(|path| !matches!(edges.by_path.get(*path), Some(Some(_))) && !is_test(path, edges));
    unknown.map(|path| format!("{path} is in no coverage: it may touch anything"))
}

/// Whether tests stand in this file.
fn is_test(path: &str, edges: &Edges) -> bool {
    let begin = format!("{}.", names::key(path));
    edges.tests.range(begin.clone()..).next().is_some_and(|test| test.starts_with(&begin))
}

/// The word that a file is named by.
fn stem(path: &str) -> Option<String> {
    let file = path.rsplit('/').next()?;
    let mut last = None;
    names::words(file, |word| last = Some(word.to_owned()));
    last
}

/// What was observed lately.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Observed {
    runs: VecDeque<(RunId, Impact)>,
}

impl Observed {
    /// Takes in what happened.
    pub fn evolve(&mut self, recorded: &Recorded) {
        if let Event::ImpactSeen { run, tests, selected, ms, selected_ms, failed, missed, misses } =
            &recorded.event
        {
            let impact = Impact {
                tests: *tests,
                selected: *selected,
                ms: *ms,
                selected_ms: *selected_ms,
                failed: *failed,
                missed: missed.clone(),
                misses: *misses,
                whole: None,
            };
            if self.runs.len() == WINDOW {
                self.runs.pop_front();
            }
            self.runs.push_back((*run, impact));
        }
    }

    /// The newest first.
    pub fn runs(&self) -> impl Iterator<Item = &(RunId, Impact)> {
        self.runs.iter().rev()
    }

    /// Sums over what is remembered.
    pub fn sum(&self) -> Impact {
        let mut sum = Impact::default();
        for (_, one) in &self.runs {
            sum.tests = sum.tests.saturating_add(one.tests);
            sum.selected = sum.selected.saturating_add(one.selected);
            sum.ms = sum.ms.saturating_add(one.ms);
            sum.selected_ms = sum.selected_ms.saturating_add(one.selected_ms);
            sum.failed = sum.failed.saturating_add(one.failed);
            sum.misses = sum.misses.saturating_add(one.misses);
        }
        sum
    }

    /// Why a smaller selection is not to be believed yet; none: it may be.
    pub fn against(&self) -> Option<String> {
        let sum = self.sum();
        if sum.misses > 0 {
            let (run, one) = self.runs().find(|(_, one)| one.misses > 0)?;
            let first = one.missed.first().map(|name| format!(" ({name} in {run})")).unwrap_or_default();
            return Some(format!("it would have missed {} of {} red tests{first}", sum.misses, sum.failed));
        }
        if self.runs.len() < RUNS {
            return Some(format!("{} runs were observed of the {RUNS} that are needed", self.runs.len()));
        }
        (sum.failed < FAILURES)
            .then(|| format!("{} red tests were observed of the {FAILURES} that are needed", sum.failed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coverage::FileCoverage;
    use andon_model::{Actor, Time};

    fn edges() -> Edges {
        let file = |tests: &[&str]| FileCoverage {
            lines: BTreeMap::from([(1, 1)]),
            tests: tests.iter().map(|test| (*test).to_owned()).collect(),
            ..FileCoverage::default()
        };
        Edges::of(&Coverage {
            files: BTreeMap::from([
                ("shop/pay.py".into(), file(&["tests/test_pay.py::test_refund"])),
                (
                    "shop/cart.py".into(),
                    file(&["tests/test_cart.py::test_add", "tests/test_pay.py::test_refund"]),
                ),
                ("shop/idle.py".into(), file(&[])),
            ]),
        })
    }

    fn ran(key: &'static str, red: bool, before: Option<bool>) -> Ran<'static> {
        Ran { key, name: key.replace('.', "::"), millis: 100.0, red, before }
    }

    fn sees(paths: &[&str], certain: bool) -> Impact {
        let tests = [
            ran("tests.test_pay.test_refund", false, Some(false)),
            ran("tests.test_cart.test_add", true, Some(false)),
            ran("tests.test_cart.test_new", false, None),
            ran("other.suite.test", false, Some(false)),
        ];
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        observe(&tests, &paths, certain, &edges(), &[])
    }

    #[test]
    fn a_change_touches_what_ran_its_files_what_is_new_and_what_nobody_knows() {
        let seen = sees(&["shop/pay.py"], true);
        // Refund ran it, one is new, one has no edge at all; the red one is missed, and said.
        assert_eq!((seen.tests, seen.selected, seen.selected_ms), (4, 3, 300));
        assert_eq!(
            (seen.failed, seen.misses, seen.missed),
            (1, 1, vec!["tests::test_cart::test_add".into()])
        );
        assert_eq!(sees(&["shop/cart.py"], true).misses, 0);
        assert_eq!(sees(&["tests/test_cart.py"], true).misses, 0, "a test's own file");
        assert_eq!(sees(&["shop/idle.py"], true).selected, 2);
    }

    #[test]
    fn what_no_report_measured_touches_everything() {
        for (paths, certain) in
            [(vec!["data/prices.json"], true), (vec!["shop/pay.py", "README"], true), (vec![], false)]
        {
            let seen = sees(&paths, certain);
            assert_eq!(seen.selected, 4, "{paths:?}");
            assert!(seen.whole.is_some());
        }
        let nobody = observe(&[], &BTreeSet::new(), true, &Edges::default(), &[]);
        assert!(nobody.whole.unwrap().contains("no landing measured"));
    }

    #[test]
    fn a_marked_test_and_one_that_was_red_are_always_run() {
        let tests = [
            ran("tests.test_cart.test_add", false, Some(true)),
            ran("tests.test_pay.test_refund", false, Some(false)),
        ];
        let paths = BTreeSet::from(["shop/idle.py".to_owned()]);
        assert_eq!(observe(&tests, &paths, true, &edges(), &[]).selected, 1);
        assert_eq!(observe(&tests, &paths, true, &edges(), &["test_pay".into()]).selected, 2);
    }

    #[test]
    fn it_is_believed_after_fifty_runs_with_thirty_red_tests_and_none_missed() {
        let mut observed = Observed::default();
        let sees = |observed: &mut Observed, failed, misses| {
            let event = Event::ImpactSeen {
                run: RunId(1),
                tests: 10,
                selected: 4,
                ms: 100,
                selected_ms: 40,
                failed,
                missed: vec!["a".into(); misses as usize],
                misses,
            };
            observed.evolve(&Recorded { seq: 1, at: Time(0), by: Actor::line("x"), project: None, event });
        };
        for _ in 0..RUNS - 1 {
            sees(&mut observed, 0, 0);
        }
        assert_eq!(observed.against().unwrap(), "49 runs were observed of the 50 that are needed");
        sees(&mut observed, FAILURES - 1, 0);
        assert_eq!(observed.against().unwrap(), "29 red tests were observed of the 30 that are needed");
        sees(&mut observed, 1, 0);
        assert_eq!(observed.against(), None);
        sees(&mut observed, 2, 1);
        assert_eq!(observed.against().unwrap(), "it would have missed 1 of 32 red tests (a in run-1)");
    }
}
