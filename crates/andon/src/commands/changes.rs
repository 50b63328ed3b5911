//! Queue, changes and runs in the terminal.

use andon_line::view::{ChangeView, QueueView, RunView};
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
    },
    /// Test trunk again as it is.
    Trunk,
}

/// Does it. Exit status 1 when the run is red.
pub fn run(common: &Common, run: Run) -> Result<(), Failure> {
    let place = Place::find(common)?;
    match run {
        Run::Show { run } => {
            let view = place.show(&format!("/runs/{}", run.trim_start_matches("run-")), show_run)?;
            match view.verdict.as_str() {
                "red" | "broken" => Err(Failure { words: String::new(), status: crate::client::status::NO }),
                _ => Ok(()),
            }
        }
        Run::Log { run, job } => {
            let mut lines = place.client.lines(&format!(
                "{}/runs/{}/jobs/{job}/log",
                place.base,
                run.trim_start_matches("run-")
            ))?;
            std::io::copy(&mut lines, &mut std::io::stdout().lock()).map_err(|error| error.to_string())?;
            Ok(())
        }
        Run::Trunk => {
            place.command("/runs", &json!({}), |made| format!("trunk is tested in run-{}", made["run"]))?;
            Ok(())
        }
    }
}

fn show_run(view: &RunView) {
    say!("{} {}", view.mark.sign(), view.heading);
    say!("  {}", view.sentence);
    for fact in &view.facts {
        say!("  {} {}", fact.value, fact.label);
    }
    for job in &view.jobs {
        say!("  {} {} ({}): {}", job.mark.sign(), job.name, job.stage, job.words);
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
    }
}

/// The number of a change without its mark.
pub fn number(text: &str) -> &str {
    text.trim_start_matches('#')
}
