//! The tests of a project as they are remembered: what fails, what is flaky and the proof, what takes long, what is in quarantine.

use andon_model::{Span, Time};
use andon_validation::impact::Observed;
use andon_validation::memory::{self, Test};
use andon_validation::order::names;
use serde::{Deserialize, Serialize};

use super::{Fact, Frame, Mark, ago, count, fact, frame};
use crate::{Line, Project, Refusal, State};

/// Tests shown of each kind; all are in the answer for programs.
const SHOWN: usize = 100;
/// Slowest ones shown.
const SLOW: usize = 25;

/// The page.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TestsView {
    /// Over every page.
    pub frame: Frame,
    /// The answer.
    pub heading: String,
    /// What follows.
    pub sentence: String,
    /// Numbers.
    pub facts: Vec<Fact>,
    /// In quarantine, by their ends.
    pub quarantined: Vec<QuarantineRow>,
    /// Flaky, the newest proof first.
    pub flaky: Vec<TestRow>,
    /// Red when they ran last.
    pub red: Vec<TestRow>,
    /// What takes longest.
    pub slow: Vec<TestRow>,
    /// What a smaller selection of tests would have been, and missed; none: nothing was observed.
    #[serde(default)]
    pub impact: Option<ImpactView>,
}

/// Selections that were observed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImpactView {
    /// What they come to.
    pub says: String,
    /// Why they are not to be believed yet, or that they may be.
    pub standing: String,
    /// Whether they may be believed.
    pub mark: Mark,
    /// The newest runs first.
    pub rows: Vec<ImpactRow>,
}

/// One run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImpactRow {
    /// Its number.
    pub run: u32,
    /// Whether anything would have been missed.
    pub mark: Mark,
    /// In a sentence.
    pub says: String,
}

/// A test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TestRow {
    /// As people know it.
    pub name: String,
    /// The job that ran it last.
    pub job: String,
    /// Its state.
    pub mark: Mark,
    /// In a sentence.
    pub says: String,
    /// How long it takes, in milliseconds.
    pub ms: f64,
    /// How often it ran.
    pub ran: u32,
    /// How often it failed.
    pub failed: u32,
    /// How often it was red and green on one tree.
    pub flips: u32,
    /// The run that says so.
    pub run: Option<u32>,
    /// Whether it is in quarantine.
    pub quarantined: bool,
}

/// A test in quarantine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QuarantineRow {
    /// The test.
    pub test: String,
    /// Who makes it reliable again.
    pub owner: String,
    /// The reason.
    pub why: String,
    /// When it counts again.
    pub until: Time,
    /// How it does meanwhile.
    pub says: String,
}

impl Line {
    /// The tests of a project.
    pub async fn tests_view(&self, project: &Project) -> Result<TestsView, Refusal> {
        let tests = self.tests(project).await?;
        let now = self.now();
        let state = project.state();
        let mut rows: Vec<(&String, &Test)> = tests.iter().collect();
        let row = |(key, test): &(&String, &Test)| row(&state, key, test, now);
        let quarantined: Vec<QuarantineRow> = state
            .quarantine
            .held(now)
            .into_iter()
            .map(|held| QuarantineRow {
                test: held.test.clone(),
                owner: held.owner.to_string(),
                why: held.why.clone(),
                until: held.until,
                says: meanwhile(tests.get(&names::key(&held.test)), held.since),
            })
            .collect();
        let is_red = |(_, test): &&(&String, &Test)| test.last.as_ref().is_some_and(|last| last.red);
        let red: Vec<TestRow> = rows.iter().filter(is_red).map(|one| as_red(row(one), one.1, now)).collect();
        rows.sort_by_key(|(_, test)| std::cmp::Reverse(test.proof.as_ref().map(|proof| proof.at)));
        let flaky: Vec<TestRow> = rows.iter().filter(|(_, test)| test.is_flaky()).map(row).collect();
        rows.sort_by(|a, b| b.1.history.usual.total_cmp(&a.1.history.usual));
        let slow: Vec<TestRow> = rows.iter().take(SLOW).map(row).collect();
        let heading = match (flaky.len(), tests.len()) {
            (_, 0) => "No test has reported yet".to_owned(),
            (0, _) => "No test is known to be flaky".to_owned(),
            (1, _) => "One test is flaky".to_owned(),
            (n, _) => format!("{n} tests are flaky"),
        };
        let sentence = "A test is flaky when it was red and green on one tree. In quarantine it runs and reports, and stops nothing until a day that is said beforehand.";
        let all: f64 = tests.values().map(|test| test.history.usual).sum();
        let mut facts = vec![fact(tests.len().to_string(), "tests are remembered")];
        if !tests.is_empty() {
            facts.push(fact(Span(all as u64).to_string(), "they take one after the other"));
            let mark = if red.is_empty() { Mark::Go } else { Mark::Stop };
            facts.push(Fact {
                value: red.len().to_string(),
                label: "were red when they ran last".into(),
                mark,
            });
            let mark = if quarantined.is_empty() { Mark::Go } else { Mark::Wait };
            facts.push(Fact { value: quarantined.len().to_string(), label: "in quarantine".into(), mark });
        }
        let few = |mut rows: Vec<TestRow>| {
            rows.truncate(SHOWN);
            rows
        };
        Ok(TestsView {
            frame: frame(&state, project.name.as_str(), now),
            heading,
            sentence: sentence.into(),
            facts,
            quarantined,
            flaky: few(flaky),
            red: few(red),
            slow,
            impact: impact(&state.impact),
        })
    }
}

fn impact(observed: &Observed) -> Option<ImpactView> {
    let runs = observed.runs().count();
    if runs == 0 {
        return None;
    }
    let sum = observed.sum();
    let share = |part: u64, whole: u64| if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 };
    let says = format!(
        "In {} a selection would have run {} of {} tests and saved {:.0} % of their time; of {} red ones it would have missed {}.",
        count(runs, "observed run"),
        sum.selected,
        sum.tests,
        share(sum.ms.saturating_sub(sum.selected_ms), sum.ms),
        sum.failed,
        sum.misses
    );
    let (standing, mark) = match observed.against() {
        Some(why) => (format!("Not to be relied on: {why}."), Mark::Wait),
        None => ("None was missed in all that was observed.".to_owned(), Mark::Go),
    };
    let row = |(run, one): &(andon_model::RunId, andon_validation::impact::Impact)| ImpactRow {
        run: run.0,
        mark: if one.misses == 0 { Mark::Go } else { Mark::Stop },
        says: match one.missed.first() {
            Some(first) => {
                format!("{} of {} tests, {} red ones missed: {first}", one.selected, one.tests, one.misses)
            }
            None => format!("{} of {} tests, {} red ones found", one.selected, one.tests, one.failed),
        },
    };
    Some(ImpactView { says, standing, mark, rows: observed.runs().take(SHOWN).map(row).collect() })
}

fn row(state: &State, key: &str, test: &Test, now: Time) -> TestRow {
    let quarantined = state.quarantine.of(key, now).is_some();
    let last = test.last.as_ref();
    let red = last.is_some_and(|last| last.red);
    let (mark, says, run) = match &test.proof {
        Some(proof) if test.is_flaky() => {
            let where_ = match proof.run == proof.other {
                true => format!("red and green in {}", proof.run),
                false => format!("one way in {}, the other in {}, on the same tree", proof.other, proof.run),
            };
            let times =
                if test.flips == 1 { String::new() } else { format!(", {} times in all", test.flips) };
            (Mark::Wait, format!("{where_}, {}{times}", ago(now, proof.at)), Some(proof.run))
        }
        _ if red => (
            Mark::Stop,
            format!("red {}", last.map(|last| ago(now, last.at)).unwrap_or_default()),
            last.map(|last| last.run),
        ),
        _ => (
            Mark::Go,
            format!("failed in {} of {}", test.history.failed, count(test.history.ran as usize, "run")),
            last.map(|last| last.run),
        ),
    };
    TestRow {
        name: test.name.clone(),
        job: test.job.clone(),
        mark,
        says,
        ms: test.history.usual,
        ran: test.history.ran,
        failed: test.history.failed,
        flips: test.flips,
        run: run.map(|run| run.0),
        quarantined,
    }
}

/// A red one among red ones: what matters there is since when, flaky or not.
fn as_red(row: TestRow, test: &Test, now: Time) -> TestRow {
    let Some(last) = &test.last else { return row };
    TestRow { mark: Mark::Stop, says: format!("red {}", ago(now, last.at)), run: Some(last.run.0), ..row }
}

/// How a test in quarantine does.
fn meanwhile(test: Option<&memory::Test>, since: Time) -> String {
    match test.and_then(|test| Some((test, test.last.as_ref()?))) {
        None => "no report names it".into(),
        Some((_, last)) if last.at < since => "it did not run since".into(),
        Some((test, last)) => {
            let (failed, runs) = test.history.lately();
            let now = if last.red { "red now" } else { "green now" };
            format!("{now}, failed in {failed} of the last {runs} runs")
        }
    }
}
