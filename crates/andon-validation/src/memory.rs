//! What is remembered of every test of a project, learned from one attempt of a job after the other; which tests are flaky, and the
//! proof. Reads no report and keeps no file.
//!
//! A test is flaky when it was red and green on the same tree: nothing else is proof, since on two trees the code differs. Where a great part
//! of an attempt's tests changed their minds at once it was the machine, and no test is blamed.

use std::collections::HashMap;

use andon_model::{JobName, Oid, RunId, Time};
use serde::{Deserialize, Serialize};

use crate::junit::{Outcome, TestCase};
use crate::order::{History, names};

/// Runs of a test without a new proof after which it is no longer called flaky: one that fails once in a hundred times keeps its name longer than
/// it takes to prove it again in two of three cases.
const FORGIVEN_AFTER: u32 = 100;
/// Tests of one attempt that may change their minds before it was the machine...
const FEW: usize = 5;
/// ...or this part of them, whichever is more.
const PART: usize = 5;

/// A red and a green result on one tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// The run of the later result.
    pub run: RunId,
    /// Of the earlier one.
    pub other: RunId,
    /// When the later one came in.
    pub at: Time,
    /// The test's count of runs then.
    pub ran: u32,
}

/// What is remembered of a test.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Test {
    /// As people know it.
    pub name: String,
    /// The job that ran it last.
    pub job: String,
    /// The file it stands in, where its tool says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// How often it fails and how long it takes.
    pub history: History,
    /// How often it was proven flaky.
    #[serde(default)]
    pub flips: u32,
    /// The newest proof.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<Proof>,
    /// Its newest result: on which tree, in which run, whether it was red, when.
    pub last: Option<Last>,
}

/// A result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Last {
    /// The tree it was on.
    pub tree: Oid,
    /// The run.
    pub run: RunId,
    /// Failed or broken.
    pub red: bool,
    /// When it came in.
    pub at: Time,
}

impl Test {
    /// Whether it is to be called flaky.
    pub fn is_flaky(&self) -> bool {
        self.proof.as_ref().is_some_and(|proof| self.history.ran.saturating_sub(proof.ran) < FORGIVEN_AFTER)
    }
}

/// One attempt of a job that ended by itself.
#[derive(Debug, Clone, Copy)]
pub struct Attempt<'a> {
    /// Its run.
    pub run: RunId,
    /// Its job.
    pub job: &'a JobName,
    /// The tree that was tested.
    pub tree: &'a Oid,
    /// When it ended.
    pub at: Time,
}

/// The key under which a test is remembered.
pub fn key(case: &TestCase) -> String {
    let before = if case.class.is_empty() { &case.suite } else { &case.class };
    names::of_report(before, &case.name)
}

/// Takes in what an attempt's reports say. Returns the keys of what is remembered otherwise now, without repetition. Tests that were not run teach
/// nothing; a test that its own tool ran again until it passed is proven flaky by that.
pub fn learn<'a>(
    known: &mut HashMap<String, Test>,
    attempt: &Attempt<'_>,
    cases: impl Iterator<Item = &'a TestCase>,
) -> Vec<String> {
    // A report may hold a test more than once (parameters without names): it is red when one of them is.
    let mut results: Vec<(String, &TestCase, bool, bool)> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for case in cases.filter(|case| !matches!(case.outcome, Outcome::Skipped { .. })) {
        let (key, red) = (key(case), case.outcome.is_red());
        match places.get(&key) {
            Some(at) => {
                let own = &mut results[*at];
                (own.2, own.3) = (own.2 || red, own.3 || case.flaky);
            }
            None => {
                places.insert(key.clone(), results.len());
                results.push((key, case, red, case.flaky));
            }
        }
    }
    let flips = |key: &str, red: bool| {
        let last = known.get(key).and_then(|test| test.last.as_ref());
        last.filter(|last| last.tree == *attempt.tree && last.red != red).map(|last| last.run)
    };
    let flipped: Vec<Option<RunId>> = results
        .iter()
        .map(|(key, _, red, own)| if *own { Some(attempt.run) } else { flips(key, *red) })
        .collect();
    let machine = flipped.iter().flatten().count() > FEW.max(results.len() / PART);
    let mut changed = Vec::with_capacity(results.len());
    for ((key, case, red, _), other) in results.into_iter().zip(flipped) {
        let test = known.entry(key.clone()).or_default();
        test.name = case.full_name();
        test.job = attempt.job.to_string();
        test.file.clone_from(&case.file);
        test.history.learn(red, case.took.map(|took| took.0 as f64));
        if let Some(other) = other.filter(|_| !machine) {
            test.flips = test.flips.saturating_add(1);
            test.proof = Some(Proof { run: attempt.run, other, at: attempt.at, ran: test.history.ran });
        }
        test.last = Some(Last { tree: attempt.tree.clone(), run: attempt.run, red, at: attempt.at });
        changed.push(key);
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(name: &str, red: bool) -> TestCase {
        let said = || ("m".to_owned(), String::new());
        let outcome = match red {
            true => Outcome::Failed { message: said().0, detail: said().1 },
            false => Outcome::Passed,
        };
        TestCase {
            suite: String::new(),
            class: "app".into(),
            name: name.into(),
            file: None,
            took: None,
            outcome,
            flaky: false,
        }
    }

    fn tree(n: u32) -> Oid {
        format!("{n:040x}").parse().unwrap()
    }

    fn ran(known: &mut HashMap<String, Test>, run: u32, on: u32, results: &[TestCase]) {
        let job = "unit".parse().unwrap();
        let attempt = Attempt { run: RunId(run), job: &job, tree: &tree(on), at: Time(i64::from(run)) };
        learn(known, &attempt, results.iter());
    }

    #[test]
    fn red_and_green_on_one_tree_is_a_proof_and_on_two_trees_is_none() {
        let mut known = HashMap::new();
        ran(&mut known, 1, 1, &[case("a", true), case("b", true)]);
        ran(&mut known, 2, 2, &[case("a", false)]);
        ran(&mut known, 3, 1, &[case("b", false)]);
        assert!(!known["app.a"].is_flaky());
        assert!(known["app.b"].is_flaky());
        let proof = known["app.b"].proof.clone().unwrap();
        assert_eq!((proof.run, proof.other), (RunId(3), RunId(1)));
    }

    #[test]
    fn a_test_that_its_own_tool_ran_again_is_flaky_and_one_that_was_skipped_is_not_remembered() {
        let mut known = HashMap::new();
        let again = TestCase { flaky: true, ..case("a", false) };
        let skipped = TestCase { outcome: Outcome::Skipped { message: String::new() }, ..case("b", false) };
        ran(&mut known, 1, 1, &[again, skipped]);
        assert!(known["app.a"].is_flaky());
        assert_eq!(known.len(), 1);
    }

    #[test]
    fn when_much_changes_its_mind_at_once_it_was_the_machine() {
        let mut known = HashMap::new();
        let all = |red| (0..20).map(|n| case(&format!("t{n}"), red)).collect::<Vec<_>>();
        ran(&mut known, 1, 1, &all(true));
        ran(&mut known, 2, 1, &all(false));
        assert_eq!(known.values().filter(|test| test.is_flaky()).count(), 0);
    }

    #[test]
    fn what_was_not_proven_again_for_long_is_forgiven() {
        let mut known = HashMap::new();
        ran(&mut known, 1, 1, &[case("a", true)]);
        ran(&mut known, 2, 1, &[case("a", false)]);
        for n in 3..3 + FORGIVEN_AFTER - 1 {
            assert!(known["app.a"].is_flaky(), "after {n} runs");
            ran(&mut known, n, n, &[case("a", false)]);
        }
        ran(&mut known, 999, 999, &[case("a", false)]);
        assert!(!known["app.a"].is_flaky());
        assert_eq!(known["app.a"].flips, 1, "it is remembered all the same");
    }

    /// A number from 0 to 1 that is always the same for the same seed.
    fn chance(state: &mut u64) -> f64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        (*state >> 11) as f64 / (1u64 << 53) as f64
    }

    #[test]
    fn of_those_called_flaky_nearly_all_are_and_broken_code_is_never_called_so() {
        for (seed, rate) in [(7u64, 0.01), (8, 0.05), (9, 0.1), (10, 0.25)] {
            let (mut state, mut known) = (seed, HashMap::new());
            // Of 400 tests one in twenty is flaky; each tree breaks some others for good until the next one.
            for on in 1..=150u32 {
                let broken = (chance(&mut state) * 400.0) as usize;
                for attempt in 0..2u32 {
                    let results: Vec<TestCase> = (0..400usize)
                        .map(|n| {
                            let flaky = n % 20 == 0 && chance(&mut state) < rate;
                            case(
                                &format!("t{n}"),
                                flaky || (on % 3 == 0 && n.abs_diff(broken) < 4 && n % 20 != 0),
                            )
                        })
                        .collect();
                    ran(&mut known, on * 2 + attempt, on, &results);
                }
            }
            let called: Vec<&String> =
                known.iter().filter(|(_, test)| test.flips > 0).map(|(key, _)| key).collect();
            let right = called.iter().filter(|key| key[5..].parse::<usize>().unwrap() % 20 == 0).count();
            assert!(right as f64 >= 0.95 * called.len() as f64, "seed {seed}: {right} of {}", called.len());
            assert!(right >= 15, "seed {seed}, rate {rate}: {right} of 20 were found");
        }
    }
}
