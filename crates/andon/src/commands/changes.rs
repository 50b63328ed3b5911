//! Queue, changes and runs in the terminal.

use andon_line::view::{ChangeView, QueueView, RunView};
use andon_model::event::Attestation;
use clap::Subcommand;
use serde_json::json;

use super::Place;
use crate::cli::Common;
use crate::client::Failure;
use crate::say::say;

/// `andon queue`.
pub fn queue(common: &Common) -> Result<(), Failure> {
    let place = Place::find(common)?;
    place.show("/queue", |view: &QueueView| {
        say!("{} {}", view.frame.cord.sign(), view.heading);
        say!("  {}", view.sentence);
        for row in view.open.iter().chain(view.recent.iter().take(10)) {
            say!("{} {:>5} {}", row.mark.sign(), row.id, row.title);
            say!("        {}", row.words.lines().next().unwrap_or_default());
        }
    })?;
    Ok(())
}

/// `andon change …`.
#[derive(Debug, Subcommand)]
pub enum Change {
    /// Everything about it.
    Show {
        /// Its number.
        change: String,
    },
    /// Let what its newest patch set makes of andon.yaml land.
    Approve {
        /// Its number.
        change: String,
        /// The reason, for the record.
        #[arg(long)]
        why: String,
        /// The patch set that you looked at: a newer one is not approved then.
        #[arg(long, value_name = "N")]
        patch_set: Option<u32>,
    },
    /// Take it back.
    Abandon {
        /// Its number.
        change: String,
        /// The reason.
        #[arg(long, short, default_value = "no longer wanted")]
        message: String,
    },
}

/// Does it. Exit status 1 when the change does not land.
pub fn change(common: &Common, change: Change) -> Result<(), Failure> {
    let place = Place::find(common)?;
    match change {
        Change::Show { change } => {
            let view = place.show(&format!("/changes/{}", number(&change)), show_change)?;
            match view.row.standing.as_str() {
                "refused" => Err(Failure { words: String::new(), status: crate::client::status::NO }),
                _ => Ok(()),
            }
        }
        Change::Approve { change, why, patch_set } => {
            let number = number(&change).to_owned();
            place.command(
                &format!("/changes/{number}/approve"),
                &json!({ "why": why, "patch_set": patch_set }),
                |made| format!("patch set {} of #{number} may change andon.yaml", made["patch_set"]),
            )?;
            Ok(())
        }
        Change::Abandon { change, message } => {
            let number = number(&change).to_owned();
            place.command(&format!("/changes/{number}/abandon"), &json!({ "why": message }), |_| {
                format!("#{number} is taken back")
            })?;
            Ok(())
        }
    }
}

fn show_change(view: &ChangeView) {
    say!("{} {}", view.row.mark.sign(), view.heading);
    say!("  {}", view.sentence);
    for reason in &view.reasons {
        say!("  ■ {reason}");
    }
    if let Some(definition) = &view.definition {
        say!("  {} it changes andon.yaml. {}", definition.mark.sign(), definition.says);
        for edit in &definition.edits {
            say!("      {} {}", if edit.loosens { "■" } else { "·" }, edit.says);
        }
        if definition.asks.is_some() {
            say!("      hint: andon change approve {} --why '…'", view.row.number);
        }
    }
    for (place, mark, words) in &view.places {
        say!("  {} {place}: {words}", mark.sign());
    }
    if let Some(proof) = &view.proof {
        say!("  proof: tested tree {} = landed tree {}", &proof.tested_tree[..12], &proof.landed_tree[..12]);
    }
    for moment in view.timeline.iter().rev() {
        say!("  {} {} {}", moment.at.hh_mm_ss(), moment.mark.sign(), moment.words);
    }
}

/// `andon run …`.
#[derive(Debug, Subcommand)]
pub enum Run {
    /// Its jobs, tests and coverage.
    Show {
        /// Its number.
        run: String,
    },
    /// The whole output of a job.
    Log {
        /// The run's number.
        run: String,
        /// The job.
        job: String,
        /// Go on until the job is over.
        #[arg(long, short, conflicts_with = "grep")]
        follow: bool,
        /// Only lines that hold this text, each behind its number.
        #[arg(long, value_name = "TEXT")]
        grep: Option<String>,
    },
    /// Test trunk again as it is.
    Trunk,
    /// Make a run once more: what was green on the same tree is kept, the rest is run.
    Again {
        /// The run's number.
        run: String,
        /// Run this job in any case, and what needs it.
        #[arg(long = "job")]
        jobs: Vec<String>,
        /// Nothing counts because it was green before: the named jobs, or all, are really run.
        #[arg(long)]
        fresh: bool,
    },
    /// Say yes to a run that asks.
    Approve {
        /// The run's number.
        run: String,
        /// The job that asks.
        job: String,
        /// The reason, for the record.
        #[arg(long)]
        why: String,
    },
    /// Say no to a run that asks.
    Refuse {
        /// The run's number.
        run: String,
        /// The job that asks.
        job: String,
        /// The reason, for the record.
        #[arg(long)]
        why: String,
    },
    /// Do the same here: the same plan on this machine, without a server.
    Local(super::local::Local),
}

/// Does it. Exit status 1 when the run is red.
pub fn run(common: &Common, run: Run) -> Result<(), Failure> {
    let run = match run {
        Run::Local(options) => return super::local::run(common, options),
        asked => asked,
    };
    let place = Place::find(common)?;
    match run {
        Run::Local(_) => Ok(()),
        Run::Again { run, jobs, fresh } => {
            let body = json!({ "jobs": jobs, "fresh": fresh });
            let path = format!("/runs/{}/again", number_of(&run)?);
            place.command(&path, &body, |made| format!("run-{} tests it once more", made["run"]))?;
            Ok(())
        }
        Run::Approve { run, job, why } => answer(&place, &run, &job, "approve", &why),
        Run::Refuse { run, job, why } => answer(&place, &run, &job, "refuse", &why),
        Run::Show { run } => {
            let view = place.show(&format!("/runs/{}", run.trim_start_matches("run-")), show_run)?;
            match view.verdict.as_str() {
                "red" | "broken" => Err(Failure { words: String::new(), status: crate::client::status::NO }),
                _ => Ok(()),
            }
        }
        Run::Log { run, job, follow, grep } => {
            let path = format!("{}/runs/{}/jobs/{job}/log", place.base, run.trim_start_matches("run-"));
            let wanted: Vec<(&str, &str)> = follow
                .then_some(("follow", "true"))
                .into_iter()
                .chain(grep.as_deref().map(|text| ("find", text)))
                .collect();
            let mut lines = place.client.lines_of(&path, &wanted)?;
            let printed = std::io::copy(&mut lines, &mut std::io::stdout().lock());
            let printed = printed.map_err(|error| format!("the output ended too early: {error}"))?;
            match (grep, printed) {
                (Some(_), 0) => {
                    Err(Failure { words: "no line holds it".into(), status: crate::client::status::NO })
                }
                _ => Ok(()),
            }
        }
        Run::Trunk => {
            place.command("/runs", &json!({}), |made| format!("trunk is tested in run-{}", made["run"]))?;
            Ok(())
        }
    }
}

/// Yes or no to a run that asks.
fn answer(place: &Place, run: &str, job: &str, command: &str, why: &str) -> Result<(), Failure> {
    let (run, job) =
        (number_of(run)?, job.parse::<andon_model::JobName>().map_err(|error| error.to_string())?);
    let words = if command == "approve" { "approved" } else { "refused" };
    place.command(&format!("/runs/{run}/jobs/{job}/{command}"), &json!({ "why": why }), |_| {
        format!("{job} of run-{run} is {words}")
    })?;
    Ok(())
}

/// The number of a run, with or without its mark.
fn number_of(run: &str) -> Result<u32, Failure> {
    let id: andon_model::RunId = run.parse().map_err(|error: andon_model::id::NotAnId| error.to_string())?;
    Ok(id.0)
}

fn show_run(view: &RunView) {
    say!("{} {}", view.mark.sign(), view.heading);
    say!("  {}", view.sentence);
    if let Some(plan) = &view.plan {
        say!("  plan {plan}");
    }
    for fact in &view.facts {
        say!("  {} {}", fact.value, fact.label);
    }
    // Of one stage the run says it all.
    for stage in view.stages.iter().filter(|_| view.stages.len() > 1) {
        say!("  {} stage {}: {}", stage.mark.sign(), stage.name, stage.words);
    }
    for job in &view.jobs {
        say!("  {} {} ({}): {}", job.mark.sign(), job.name, job.stage, job.words);
        // Once the run is over all red tests follow below.
        if let Some((test, message)) = job.red_test.as_ref().filter(|_| !view.finished) {
            say!("      ■ {test}: {message}");
        }
        // A job with `run` is one step.
        for step in job.steps.iter().filter(|_| job.steps.len() > 1) {
            say!("      {} {}: {}", step.mark.sign(), step.name, step.words);
        }
        if let Some(runner) = &job.runner {
            say!("      on the runner {runner}");
        }
        for (what, why) in &job.isolation.lacks {
            say!("      lacking: {what} ({why})");
        }
        if let Some(asks) = &job.asks {
            say!("      {}", asks.what);
            say!("      hint: andon run approve {} {} --why '…'", view.number, job.name);
        }
    }
    for test in &view.red {
        say!("  ■ {}: {}", test.name, test.message);
    }
    for (says, lines) in &view.breaches {
        say!("  ■ {says}");
        for line in lines {
            say!("      {line}");
        }
    }
    if let Some((digest, bytes)) = &view.artifact {
        say!("  artifact {digest}, {bytes} bytes");
        for (what, key, digest) in &view.attestations {
            let what = match what {
                Attestation::Provenance => "where it comes from",
                Attestation::TestResult => "what its tests said",
            };
            say!("      {what}: {digest}, signed by {key}");
        }
    }
}

/// The number of a change without its mark.
pub fn number(text: &str) -> &str {
    text.trim_start_matches('#')
}
