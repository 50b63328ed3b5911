//! A run: red tests first, then jobs, coverage and what it built; and the page of one job above its output.

use andon_line::view::run::{AskRow, FileRow, JobRow, TestRow};
use andon_line::view::{Mark, RunView};
use andon_line::{Caller, Refusal};
use andon_model::event::{Attestation, Role};
use andon_validation::findings::{Finding, Level};
use maud::{Markup, html};

use crate::parts::{Ask, bar, day, facts, head_of, may, sheet, state, text};

/// Red tests whose whole message is open.
const OPEN: usize = 3;

/// The page.
pub fn run(view: &RunView, caller: &Caller) -> Markup {
    let project = &view.frame.project;
    let sentence = html! {
        (view.sentence) " Commit " code { (short(&view.commit)) } ", tree " code { (short(&view.tree)) } "."
        @if let Some(again) = view.again { " Made once more after " a href={ "/" (project) "/runs/" (again) } { "run-" (again) } "." }
        @if let Some(change) = view.change { " " a href={ "/" (project) "/changes/" (change) } { "To #" (change) } }
    };
    html! {
        (head_of(html! { (view.heading) }, sentence, again(view, caller)))
        (facts(&view.facts))
        @for job in &view.jobs { @if let Some(asks) = &job.asks { (asked(view, job, asks)) } }
        @if !view.reasons.is_empty() { (sheet("reasons", "Why it is red", html! { ul.reasons { @for reason in &view.reasons { li { (reason) } } } })) }
        @if !view.red.is_empty() { (sheet("red", "Red tests", html! { @for (n, test) in view.red.iter().enumerate() { (red(n, test, project, view.number)) } })) }
        @if !view.breaches.is_empty() { (sheet("breaches", "Limits that are broken", breaches(view))) }
        @if !view.finished { (early(view)) }
        @if view.stages.len() > 1 { (sheet("stages", "Stages", stages(view))) }
        (sheet("jobs", "Jobs", jobs(view)))
        @if let Some(plan) = &view.plan {
            (sheet("plan", "Plan", html! {
                p { code.long { (plan) } }
                p.soft { "Names every job with its commands and its environment. " code { "andon run local --show" } " of the same commit has the same. " a href={ "/api/v1/" (project) "/runs/" (view.number) "/plan" } { "See it whole" } }
            }))
        }
        @if !view.notes.is_empty() { (sheet("notes", "How its coverage came", html! { ul.reasons.wait { @for note in &view.notes { li { (note) } } } })) }
        @if !view.findings.is_empty() { (sheet("findings", "What linters found", findings(view))) }
        @if !view.files.is_empty() {
            (sheet("coverage", "Coverage by file, lowest first", html! {
                p { a href={ "/" (project) "/coverage/" (view.number) } { "By folder, with every line" } }
                (files(&view.files))
            }))
        }
        @if !view.layers.is_empty() { (sheet("pyramid", "The pyramid", super::coverage::pyramid(&view.layers))) }
        @if let Some((digest, bytes)) = &view.artifact {
            (sheet("artifact", "Artifact", html! {
                p { code.long { (digest) } }
                p.soft { (size(*bytes)) ", built once and never again. " a href={ "/api/v1/" (project) "/artifacts/" (digest) } { "Take a copy" } }
                (attestations(view))
            }))
        }
        @if !view.warnings.is_empty() { (sheet("warnings", "Odd things in its reports", html! { ul.reasons.wait { @for warning in &view.warnings { li { (warning) } } } })) }
    }
}

/// What can be done with a run that did not become green.
fn again(view: &RunView, caller: &Caller) -> Markup {
    let action = format!("/{}/runs/{}", view.frame.project, view.number);
    let ask = Ask {
        id: "again",
        label: "Run again",
        look: "",
        action: &action,
        what: "A new run tests the same patch set. What was green on the same tree is kept, the rest is run.",
        yes: "Run it again",
    };
    html! {
        @if view.may_again && may(caller, Role::Developer) {
            (ask.with(html! { label.field { span { "Keep nothing: run every job" } input type="checkbox" name="fresh" value="yes"; } }))
        }
    }
}

/// A question to people. Who may not answer is told by the server, with who may.
fn asked(view: &RunView, job: &JobRow, asks: &AskRow) -> Markup {
    let action = |command| format!("/{}/runs/{}/{}/{command}", view.frame.project, view.number, job.name);
    let (approve, refuse) = (action("approve"), action("refuse"));
    let (yes, no) = (format!("approve-{}", job.name), format!("refuse-{}", job.name));
    let go =
        Ask { id: &yes, label: "Approve", look: "go", action: &approve, what: &asks.what, yes: "Approve it" };
    let what = "The run becomes red, and the change does not land.";
    let stop = Ask { id: &no, label: "Refuse", look: "danger", action: &refuse, what, yes: "Refuse it" };
    let why = || text("why", "Why", "seen in staging, looks right", true);
    sheet(
        &format!("asks-{}", job.name),
        &format!("{} waits for a person", job.name),
        html! {
            p { (asks.what) }
            p.soft { "This is for " (asks.who) ", until " (day(asks.until)) "." }
            div.acts { (go.with(why())) (stop.with(why())) }
        },
    )
}

fn short(oid: &str) -> &str {
    oid.get(..10).unwrap_or(oid)
}

fn red(n: usize, test: &TestRow, project: &str, run: u32) -> Markup {
    html! {
        details.red id={ "red-" (n) } open[n < OPEN] {
            summary { span.st.stop { b { (test.name) } } span.soft { (test.message) } }
            @if !test.detail.is_empty() { pre { (test.detail) } }
            p.small.soft { "In " a href={ "/" (project) "/runs/" (run) "/" (test.job) } { (test.job) } }
        }
    }
}

fn breaches(view: &RunView) -> Markup {
    html! {
        @for (n, (says, lacking)) in view.breaches.iter().enumerate() {
            details.red id={ "breach-" (n) } open[n < OPEN] {
                summary { span.st.stop { (says) } }
                @if !lacking.is_empty() { pre { @for line in lacking { (line) "\n" } } }
            }
        }
    }
}

/// Red tests that are known before the run is over.
fn early(view: &RunView) -> Markup {
    let known: Vec<(&JobRow, &(String, String))> =
        view.jobs.iter().filter_map(|job| Some((job, job.red_test.as_ref()?))).collect();
    html! {
        @if !known.is_empty() {
            (sheet("early", "Red already", html! { ul.reasons { @for (job, (test, message)) in known {
                li { b { (test) } @if !message.is_empty() { " " (message) } " In " a href={ "/" (view.frame.project) "/runs/" (view.number) "/" (job.name) } { (job.name) } "." }
            } } }))
        }
    }
}

fn stages(view: &RunView) -> Markup {
    html! { ol.rows { @for stage in &view.stages { li.row.job { b { (stage.name) } (state(stage.mark, &stage.words)) span.small.soft { (tests(stage.tests)) } } } } }
}

fn jobs(view: &RunView) -> Markup {
    html! {
        @if view.jobs.is_empty() { p.soft { "It has no jobs." } }
        ul.rows { @for job in &view.jobs {
            li id={ "job-" (job.name) } {
                @if job.log { a.row.job href={ "/" (view.frame.project) "/runs/" (view.number) "/" (job.name) } { (cells(job)) } }
                @else { div.row.job { (cells(job)) } }
            }
        } }
    }
}

fn cells(job: &JobRow) -> Markup {
    html! { b { (job.name) } span.soft.small { (job.stage) } (state(job.mark, &job.words)) span.small.soft { (tests(job.tests)) } }
}

fn tests((passed, failed, skipped): (u32, u32, u32)) -> String {
    let mut parts = Vec::new();
    for (n, word) in [(failed, "failed"), (passed, "passed"), (skipped, "skipped")] {
        if n > 0 {
            parts.push(format!("{n} {word}"));
        }
    }
    if parts.is_empty() { String::new() } else { format!("tests: {}", parts.join(", ")) }
}

fn files(files: &[FileRow]) -> Markup {
    html! {
        div.scroll { table {
            thead { tr { th scope="col" { "File" } th.num scope="col" { "Covered" } th scope="col" { span.unseen { "Share" } } th scope="col" { "Lines without tests" } } }
            tbody { @for file in files {
                tr {
                    th scope="row" { code { (file.path) } }
                    td.num { (format!("{:.1} %", file.percent)) }
                    td.meter { (bar(file.percent, "go", &format!("{:.0} %", file.percent))) }
                    td { code.small.soft { (file.uncovered) } }
                }
            } }
        } }
    }
}

fn findings(view: &RunView) -> Markup {
    let source = |finding: &Finding| {
        let path = finding.path.as_deref().map(super::coverage::escaped)?;
        let measured = view.files.iter().any(|file| Some(&file.path) == finding.path.as_ref());
        measured
            .then(|| format!("/{}/source/{}/{path}#L{}", view.frame.project, view.number, finding.lines.0))
    };
    html! {
        ul.reasons.wait { @for finding in &view.findings {
            li {
                @if let Some(link) = source(finding) { a href=(link) { (finding.says()) } } @else { (finding.says()) }
                span.soft.small { (finding.tool) ", " (word(finding.level)) @if finding.on_change { ", on a line that the change adds" } }
            }
        } }
    }
}

fn word(level: Level) -> &'static str {
    match level {
        Level::Error => "error",
        Level::Warning => "warning",
        Level::Note => "note",
    }
}

/// Who vouches for the artifact, and for what.
fn attestations(view: &RunView) -> Markup {
    let says = |what| match what {
        Attestation::Provenance => "Where it comes from",
        Attestation::TestResult => "What its tests said",
    };
    html! {
        @if view.attestations.is_empty() { p.soft { "Nobody vouches for it yet." } }
        @else {
            dl.pairs { @for (what, key, digest) in &view.attestations {
                div { dt { (says(*what)) } dd { "signed by the key " code { (key) } ", " code.long { (digest) } } }
            } }
            p.soft { a href={ "/api/v1/" (view.frame.project) "/runs/" (view.number) "/attestations" } { "See what is said" } ". It is looked at again before every deployment." }
        }
    }
}

/// Bytes as people read them.
fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} bytes"),
        1024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}

/// The top of a job's page; its output follows.
pub fn job(view: &RunView, name: &str) -> Result<Markup, Refusal> {
    let job = view.jobs.iter().find(|job| job.name == name);
    let job = job.ok_or_else(|| {
        Refusal::Unknown(format!(
            "run-{} has no job {}",
            view.number,
            name.chars().take(40).collect::<String>()
        ))
    })?;
    let project = &view.frame.project;
    let sentence = html! {
        (state(job.mark, &job.words)) ". "
        a href={ "/" (project) "/runs/" (view.number) } { "run-" (view.number) } " is " (view.verdict) "."
        @if let Some(change) = view.change { " " a href={ "/" (project) "/changes/" (change) } { "To #" (change) } }
    };
    let others = html! { @for other in view.jobs.iter().filter(|other| other.log && other.name != name).take(8) { a.btn href={ "/" (project) "/runs/" (view.number) "/" (other.name) } { (other.name) } } };
    Ok(html! {
        (head_of(html! { (job.name) " of run-" (view.number) }, sentence, others))
        @if !job.log { (sheet("nothing", "No output yet", html! { p.soft { (job.words) } })) }
        // A job with `run` is one step, which says nothing that is not said above.
        @if job.steps.len() > 1 { (sheet("steps", "Steps", steps(job))) }
        @let red: Vec<&TestRow> = view.red.iter().filter(|test| test.job == name).collect();
        @if !red.is_empty() { (sheet("red", "Red tests", html! { @for (n, test) in red.iter().enumerate() { (self::red(n, test, project, view.number)) } })) }
        @if !job.isolation.has.is_empty() || !job.isolation.lacks.is_empty() { (sheet("isolation", &where_and_what(job), isolation(job))) }
    })
}

fn steps(job: &JobRow) -> Markup {
    html! { ol.rows { @for step in &job.steps { li.row { b { (step.name) } (state(step.mark, &step.words)) } } } }
}

fn where_and_what(job: &JobRow) -> String {
    match &job.runner {
        Some(runner) => format!("What separates it on the runner {runner}"),
        None => "What separates it".to_owned(),
    }
}

fn isolation(job: &JobRow) -> Markup {
    html! {
        ul.rows {
            @if !job.isolation.has.is_empty() { li.row { (state(Mark::Go, &job.isolation.has.join(", "))) } }
            @for (lacks, why) in &job.isolation.lacks { li.row { (state(Mark::Wait, &format!("lacking: {lacks}"))) span.small.soft { (why) } } }
        }
    }
}
