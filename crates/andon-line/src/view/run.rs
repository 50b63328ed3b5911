//! A run: its jobs, its tests, its coverage, what it built.

use andon_model::Time;
use andon_model::event::{Attestation, JobEnd, JobIsolation, Purpose};
use andon_pipeline::plan::waits_for;
use andon_pipeline::runs::{JobRun, Run, StepRun};
use andon_pipeline::{JobState, Places, Runs};
use andon_validation::RunReport;
use andon_validation::findings::Finding;
use andon_validation::pyramid::LayerLine;
use serde::{Deserialize, Serialize};

use super::queue::waits_for_a_person;
use super::{Fact, Frame, Mark, ago, count, fact, frame, job_end, verdict};
use crate::State;
use crate::stations::pipeline::approval::asked;

/// Red tests shown with their messages; all are in the report.
const RED: usize = 200;
/// Findings shown; all are in the report.
const FINDINGS: usize = 200;
/// Files shown; all are in the report.
const FILES: usize = 500;

/// The page of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunView {
    /// Over every page.
    pub frame: Frame,
    /// The answer.
    pub heading: String,
    /// For what, since when.
    pub sentence: String,
    /// The verdict or that it runs.
    pub mark: Mark,
    /// Its number.
    pub number: u32,
    /// The change it was made for.
    pub change: Option<u32>,
    /// Commit and tree that were tested.
    pub commit: String,
    /// The exact tree.
    pub tree: String,
    /// `true` when the verdict is known.
    pub finished: bool,
    /// `green`, `red`, `broken` or `running`.
    pub verdict: String,
    /// All reasons of a red verdict.
    pub reasons: Vec<String>,
    /// Numbers.
    pub facts: Vec<Fact>,
    /// Stages in order, each with its verdict as soon as it has one.
    #[serde(default)]
    pub stages: Vec<RunStage>,
    /// Jobs in order.
    pub jobs: Vec<JobRow>,
    /// Red tests, with messages.
    pub red: Vec<TestRow>,
    /// Broken limits in sentences, each with the lines that lack tests.
    pub breaches: Vec<(String, Vec<String>)>,
    /// Coverage by file, lowest first.
    pub files: Vec<FileRow>,
    /// Odd things in reports.
    pub warnings: Vec<String>,
    /// What of its coverage is carried, and what was not judged and why.
    #[serde(default)]
    pub notes: Vec<String>,
    /// What linters and analysers found, on lines of the change first.
    #[serde(default)]
    pub findings: Vec<Finding>,
    /// Tests by layer.
    #[serde(default)]
    pub layers: Vec<LayerLine>,
    /// The artifact, with its size in bytes.
    pub artifact: Option<(String, u64)>,
    /// What is said about the artifact: what, the key that signed it, the digest of the envelope.
    #[serde(default)]
    pub attestations: Vec<(Attestation, String, String)>,
    /// The plan: the hash of the expanded definition. A local run of the same commit has the same.
    #[serde(default)]
    pub plan: Option<String>,
    /// The run that this one makes once more.
    #[serde(default)]
    pub again: Option<u32>,
    /// Whether it can be made once more.
    #[serde(default)]
    pub may_again: bool,
}

/// A stage: its jobs together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunStage {
    /// Its name.
    pub name: String,
    /// Its state.
    pub mark: Mark,
    /// The same in words.
    pub words: String,
    /// Its tests: passed, failed, skipped.
    pub tests: (u32, u32, u32),
}

/// A job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobRow {
    /// Its name.
    pub name: String,
    /// Its stage.
    pub stage: String,
    /// Its state.
    pub mark: Mark,
    /// The same in words.
    pub words: String,
    /// The attempt shown.
    pub attempt: u32,
    /// Its tests: passed, failed, skipped.
    pub tests: (u32, u32, u32),
    /// Its first red test and what that said, as soon as a report shows it: the job may still run.
    #[serde(default)]
    pub red_test: Option<(String, String)>,
    /// Whether it has a log.
    pub log: bool,
    /// The people who are asked, while they are.
    #[serde(default)]
    pub asks: Option<AskRow>,
    /// Steps of the attempt that ended, in order.
    #[serde(default)]
    pub steps: Vec<StepRow>,
    /// The runner that has or had the attempt; none: the server's own machine.
    #[serde(default)]
    pub runner: Option<String>,
    /// What separates the attempt from its neighbours and from the host.
    #[serde(default)]
    pub isolation: JobIsolation,
}

/// A step that ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepRow {
    /// What people call it.
    pub name: String,
    /// How it ended.
    pub mark: Mark,
    /// The same in words.
    pub words: String,
    /// Where its output begins in the job's, in bytes.
    pub log_at: u64,
}

/// A question to people.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AskRow {
    /// What they are asked.
    pub what: String,
    /// Who may say yes.
    pub who: String,
    /// Nobody is waited for after this.
    pub until: Time,
}

/// A test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TestRow {
    /// Its job.
    pub job: String,
    /// Its full name.
    pub name: String,
    /// The first line of what it said.
    pub message: String,
    /// All that it said.
    pub detail: String,
}

/// A file's coverage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FileRow {
    /// Its path.
    pub path: String,
    /// Percent of lines that ran.
    pub percent: f64,
    /// Lines without tests.
    pub uncovered: String,
}

/// The view at this moment.
pub fn run(
    state: &State,
    places: &Places,
    project: &str,
    run: &Run,
    report: Option<&RunReport>,
    now: Time,
) -> RunView {
    let (subject, change) = match run.purpose {
        Purpose::Gate { change, patch_set } => {
            let title = state.queue.changes.get(&change).map(|c| c.push.title.clone()).unwrap_or_default();
            (format!("{change} {title}, patch set {patch_set}"), Some(change.0))
        }
        Purpose::Trunk => (format!("{} at {}", state.trunk, run.commit.short()), None),
    };
    let waits = waits_for_a_person(state, run.id, now);
    let (mark, said, name) = match &run.finished {
        None if waits.is_some() => (Mark::Wait, "waits".to_owned(), "running"),
        None => (Mark::Live, "is under way".to_owned(), "running"),
        Some((_, v)) => {
            let (mark, words) = verdict(v);
            let name = match mark {
                Mark::Go => "green",
                Mark::Stop => "red",
                _ => "broken",
            };
            (mark, words, name)
        }
    };
    let took = run.finished.as_ref().map_or(now, |(at, _)| *at).since(run.queued);
    let reasons = match &run.finished {
        Some((_, andon_model::event::Verdict::Red { headline, reasons })) => {
            std::iter::once(headline).chain(reasons).cloned().collect()
        }
        _ => Vec::new(),
    };
    let heading = match &run.finished {
        Some(_) if mark == Mark::Go => format!("{} is green", run.id),
        Some(_) => format!("{}: {said}", run.id),
        None if waits.is_some() => format!("{} waits for a person", run.id),
        None => format!("{} is under way", run.id),
    };
    let ended = run.finished.as_ref().map_or(String::new(), |(at, _)| format!(", {}", ago(now, *at)));
    let mut facts = vec![fact(
        took.to_string(),
        if run.finished.is_some() { "from the queue to the verdict" } else { "since it was asked for" },
    )];
    if run.tests.total() > 0 {
        let mark = if run.tests.failed > 0 { Mark::Stop } else { Mark::Go };
        let label = format!("of {} passed", count(run.tests.total() as usize, "test"));
        facts.push(Fact { value: run.tests.passed.to_string(), label, mark });
    }
    if let Some(coverage) = run.coverage {
        facts.push(fact(
            format!("{:.1} %", coverage.percent()),
            format!("of {} lines ran in tests", coverage.lines),
        ));
        if let Some((ran, added)) = coverage.diff {
            facts.push(fact(format!("{ran} of {added}"), "added lines ran in tests"));
        }
    }
    RunView {
        frame: frame(state, project, now),
        heading,
        sentence: format!("{subject}. Tested on exactly the tree that would land{ended}."),
        mark,
        number: run.id.0,
        change,
        commit: run.commit.to_string(),
        tree: run.tree.to_string(),
        finished: run.finished.is_some(),
        verdict: name.into(),
        reasons,
        facts,
        stages: stages(run),
        jobs: run.jobs.iter().map(|job| job_row(&state.runs, places, run, job, now)).collect(),
        red: report.map(red).unwrap_or_default(),
        breaches: report
            .map(|r| {
                let limits = r.breaches.iter().map(|b| (b.says.clone(), b.lacking.clone()));
                limits.chain(r.surplus.iter().map(|s| (s.says.clone(), s.found.clone()))).collect()
            })
            .unwrap_or_default(),
        files: report.map(files).unwrap_or_default(),
        notes: report.map(|report| report.notes.clone()).unwrap_or_default(),
        findings: report.map(|r| r.findings.iter().take(FINDINGS).cloned().collect()).unwrap_or_default(),
        layers: report.map(|report| report.layers.clone()).unwrap_or_default(),
        warnings: report
            .map(|report| report.quarantined.values().chain(&report.warnings).cloned().collect())
            .unwrap_or_default(),
        attestations: attestations(state, run),
        artifact: run.artifact.as_ref().map(|(digest, bytes)| (digest.to_string(), *bytes)),
        plan: run.plan.as_ref().map(ToString::to_string),
        again: run.again.map(|run| run.0),
        may_again: may_again(state, run),
    }
}

/// Whether somebody may make it again: it was not green, and what it was made for is still to be decided.
fn may_again(state: &State, run: &Run) -> bool {
    let red = run.finished.as_ref().is_some_and(|(_, v)| *v != andon_model::event::Verdict::Green);
    red && match run.purpose {
        Purpose::Trunk => true,
        Purpose::Gate { change, patch_set } => state.queue.changes.get(&change).is_some_and(|found| {
            found.push.patch_set == patch_set
                && matches!(found.standing, andon_gate::Standing::Refused { .. })
        }),
    }
}

/// Stages in the order in which they run.
fn stages(run: &Run) -> Vec<RunStage> {
    let mut names: Vec<&str> = Vec::new();
    for job in &run.jobs {
        if !names.contains(&job.plan.stage.as_str()) {
            names.push(&job.plan.stage);
        }
    }
    names.into_iter().map(|name| stage_row(run, name)).collect()
}

fn stage_row(run: &Run, name: &str) -> RunStage {
    let jobs: Vec<&JobRun> = run.jobs.iter().filter(|job| job.plan.stage == name).collect();
    let begun = |job: &&&JobRun| job.attempts > 0 || job.is_settled();
    let is_red = |job: &&JobRun| match &job.state {
        JobState::Ended { .. } => job.is_settled() && !job.passed(),
        JobState::Running { .. } => job.red_test.is_some(),
        _ => false,
    };
    let (mut tests, mut last) = ((0, 0, 0), None);
    for job in &jobs {
        if let JobState::Ended { tests: own, at, .. } = &job.state {
            tests = (tests.0 + own.passed, tests.1 + own.failed, tests.2 + own.skipped);
            last = last.max(Some(*at));
        }
    }
    let after = last.map(|at| format!(" after {}", at.since(run.queued))).unwrap_or_default();
    let red: Vec<&str> =
        jobs.iter().copied().filter(|job| is_red(job)).map(|job| job.plan.name.as_str()).collect();
    let settled = jobs.iter().all(|job| job.is_settled());
    let (mark, words) = match (red.as_slice(), settled) {
        ([], true) if jobs.iter().all(|job| job.passed()) => (Mark::Go, format!("green{after}")),
        ([], true) => (Mark::None, "not run".to_owned()),
        ([], false) if jobs.iter().filter(begun).count() == 0 => (Mark::Wait, "waits".to_owned()),
        ([], false) => {
            let over = jobs.iter().filter(|job| job.is_settled()).count();
            (Mark::Live, format!("under way, {over} of {} over", count(jobs.len(), "job")))
        }
        (red, true) => (Mark::Stop, format!("red{after}: {}", red.join(", "))),
        (red, false) => (Mark::Stop, format!("red already: {}", red.join(", "))),
    };
    RunStage { name: name.to_owned(), mark, words, tests }
}

fn job_row(runs: &Runs, places: &Places, run: &Run, job: &JobRun, now: Time) -> JobRow {
    let usual = runs.usual.get(&job.plan.name).map(|usual| andon_model::Span(usual.millis as u64));
    let mut tests = (0, 0, 0);
    let (mark, words, log) = match &job.state {
        JobState::Waiting => (Mark::Wait, waits_for(runs, places, run, job), job.lost > 0),
        JobState::Asked { until, .. } => {
            let who = job.plan.approve.as_ref().map(asked).unwrap_or_default();
            (Mark::Wait, format!("waits for {who}, {} left", until.since(now)), false)
        }
        JobState::NotNeeded { why } => (Mark::None, format!("not needed: {why}"), false),
        JobState::Running { since } => {
            let usual = usual.map(|usual| format!(" of about {usual}")).unwrap_or_default();
            (Mark::Live, format!("since {}{usual}", now.since(*since)), true)
        }
        JobState::Ended { end, took, tests: counts, .. } => {
            tests = (counts.passed, counts.failed, counts.skipped);
            let (mark, words) = job_end(end);
            match (end, &job.answered, job.replayed) {
                (JobEnd::Passed, Some((by, why)), _) => (mark, format!("approved by {by}: {why}"), false),
                (_, Some((by, why)), _) => (mark, format!("refused by {by}: {why}"), false),
                (_, None, Some(from)) => (mark, format!("{words}, replayed from {from}"), true),
                (JobEnd::TimedOut { .. }, ..) => (mark, format!("{words}: {}", why_then(runs, job)), true),
                _ => (mark, format!("{words} after {took}"), true),
            }
        }
        JobState::Skipped { why } => (Mark::None, format!("not run: {why}"), false),
    };
    let attempts = match job.attempts {
        0 | 1 => words,
        n => format!("{words}, attempt {n}"),
    };
    JobRow {
        name: job.plan.name.to_string(),
        stage: job.plan.stage.clone(),
        mark,
        words: attempts,
        attempt: job.attempts,
        tests,
        red_test: job.red_test.as_ref().map(|red| (red.test.clone(), red.message.clone())),
        log,
        asks: asks(job),
        steps: job.steps.iter().map(step_row).collect(),
        runner: job.runner.as_ref().map(|(runner, _)| runner.to_string()),
        isolation: job.isolation.clone(),
    }
}

fn step_row(step: &StepRun) -> StepRow {
    let (mark, words) = job_end(&step.end);
    StepRow {
        name: step.name.clone(),
        mark,
        words: format!("{words} after {}", step.took),
        log_at: step.log_at,
    }
}

fn asks(job: &JobRun) -> Option<AskRow> {
    let (JobState::Asked { until, .. }, Some(approve)) = (&job.state, &job.plan.approve) else { return None };
    Some(AskRow { what: approve.why.clone(), who: asked(approve), until: *until })
}

/// Where a timeout came from.
fn why_then(runs: &Runs, job: &JobRun) -> &'static str {
    match (job.plan.timeout, runs.is_timeout_known(&job.plan.name)) {
        (Some(_), _) => "the time that andon.yaml gives it",
        (None, true) => "four times what it usually takes at most, and no less than 5 min",
        (None, false) => "what a job gets until five green attempts are known",
    }
}

fn red(report: &RunReport) -> Vec<TestRow> {
    let row = |line: &andon_validation::report::TestLine| {
        let said = line.test.outcome.message();
        TestRow {
            job: line.job.to_string(),
            name: line.test.full_name(),
            message: said.lines().next().unwrap_or_default().to_owned(),
            detail: line.test.outcome.detail().to_owned(),
        }
    };
    report.failures().take(RED).map(row).collect()
}

fn files(report: &RunReport) -> Vec<FileRow> {
    let row = |file: &andon_validation::report::FileLine| FileRow {
        path: file.path.clone(),
        percent: file.percent(),
        uncovered: file.uncovered.clone(),
    };
    report.files.iter().take(FILES).map(row).collect()
}

fn attestations(state: &State, run: &Run) -> Vec<(Attestation, String, String)> {
    let Some((artifact, _)) = &run.artifact else { return Vec::new() };
    let of = |what| {
        let made = state.attestations.of(run.id, what, artifact)?;
        Some((what, made.key.clone(), made.envelope.to_string()))
    };
    [Attestation::Provenance, Attestation::TestResult].into_iter().filter_map(of).collect()
}
