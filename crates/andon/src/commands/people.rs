//! Flags, the cord and the flow in the terminal.

use andon_line::view::{AndonView, AndonsView, FlagsView, FlowView};
use clap::Subcommand;
use serde_json::json;

use super::Place;
use crate::cli::Common;
use crate::client::{Failure, status};
use crate::say::say;

/// `andon flag …`.
#[derive(Debug, Subcommand)]
pub enum Flag {
    /// All flags.
    List,
    /// A new one, off for everyone.
    Create {
        /// Its key.
        key: String,
    },
    /// On for everyone.
    On {
        /// Its key.
        key: String,
    },
    /// Off for everyone.
    Off {
        /// Its key.
        key: String,
    },
    /// A percentage of everyone, beside its groups: 1, 0.5.
    Ramp {
        /// Its key.
        key: String,
        /// Percent.
        percent: f64,
    },
    /// A group gets it: group=employees.
    OpenTo {
        /// Its key.
        key: String,
        /// attribute=value
        group: String,
    },
    /// A group gets it no more by being the group.
    CloseTo {
        /// Its key.
        key: String,
        /// attribute=value
        group: String,
    },
    /// Off at once for everyone, remembering what it was.
    Kill {
        /// Its key.
        key: String,
        /// The reason.
        #[arg(long, short, default_value = "")]
        message: String,
    },
    /// As it was before it was killed.
    Restore {
        /// Its key.
        key: String,
    },
    /// Take it away.
    Remove {
        /// Its key.
        key: String,
    },
    /// Take in a flagd file.
    Import {
        /// The file.
        file: std::path::PathBuf,
    },
    /// Print all flags as a flagd file.
    Export,
    /// What somebody gets, as OpenFeature clients hear it.
    Evaluate {
        /// Its key.
        key: String,
        /// The targeting key: a user.
        #[arg(long)]
        user: String,
        /// attribute=value, several times for several.
        #[arg(long = "with")]
        attributes: Vec<String>,
    },
}

/// Does it.
pub fn flag(common: &Common, flag: Flag) -> Result<(), Failure> {
    let place = Place::find(common)?;
    let change = |key: &str, command: &str, body: serde_json::Value| {
        place
            .command(&format!("/flags/{key}/{command}"), &body, |made| {
                format!("{key}: {}", made["changed"].as_str().unwrap_or_default())
            })
            .map(drop)
    };
    match flag {
        Flag::List => place
            .show("/flags", |view: &FlagsView| {
                say!("{} {}", view.frame.cord.sign(), view.heading);
                for row in &view.rows {
                    say!("{} {:<24} {:<10} {}", row.mark.sign(), row.key, row.state, row.audience);
                }
            })
            .map(drop),
        Flag::Create { key } => change(&key, "create", json!({})),
        Flag::On { key } => change(&key, "on", json!({})),
        Flag::Off { key } => change(&key, "off", json!({})),
        Flag::Ramp { key, percent } => change(&key, "ramp", json!({ "percent": percent })),
        Flag::OpenTo { key, group } => change(&key, "open-to", json!({ "group": group })),
        Flag::CloseTo { key, group } => change(&key, "close-to", json!({ "group": group })),
        Flag::Kill { key, message } => change(&key, "kill", json!({ "why": message })),
        Flag::Restore { key } => change(&key, "restore", json!({})),
        Flag::Remove { key } => change(&key, "remove", json!({})),
        Flag::Import { file } => {
            let text =
                std::fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
            let made = place.client.post_text(&format!("{}/flags.json", place.base), &text)?;
            say!("● {} flags changed", made["changed"]);
            Ok(())
        }
        Flag::Export => {
            super::print_json(&place.client.get(&format!("{}/flags.json", place.base))?);
            Ok(())
        }
        Flag::Evaluate { key, user, attributes } => {
            let mut context = json!({ "targetingKey": user });
            for attribute in &attributes {
                let (name, value) =
                    attribute.split_once('=').ok_or("an attribute is written like group=employees")?;
                context[name] = value.into();
            }
            let project = place.base.rsplit('/').next().unwrap_or_default();
            let said = place
                .client
                .post(&format!("/{project}/ofrep/v1/evaluate/flags/{key}"), &json!({ "context": context }))?;
            if common.json {
                super::print_json(&said);
            } else {
                say!("{} ({})", said["value"], said["reason"].as_str().unwrap_or_default());
            }
            Ok(())
        }
    }
}

/// `andon cord …`.
#[derive(Debug, Subcommand)]
pub enum Cord {
    /// Whether the line runs, and all andons. Exit status 1 when it is stopped.
    Status,
    /// Stop the line.
    Pull {
        /// The reason.
        #[arg(long, short)]
        message: String,
    },
    /// One andon: owner, clock, suspects, what waits.
    Show {
        /// `A3`
        andon: String,
    },
    /// You have it.
    Ack {
        /// `A3`
        andon: String,
    },
    /// A word for its timeline.
    Note {
        /// `A3`
        andon: String,
        /// The word.
        #[arg(long, short)]
        message: String,
    },
    /// The line runs again, because you say so.
    Release {
        /// `A3`
        andon: String,
        /// The reason.
        #[arg(long, short)]
        message: String,
    },
}

/// Does it.
pub fn cord(common: &Common, cord: Cord) -> Result<(), Failure> {
    let place = Place::find(common)?;
    let treat = |andon: &str, command: &str, why: &str, words: &str| {
        let number = andon.trim_start_matches(['A', 'a']);
        place
            .command(&format!("/andons/{number}/{command}"), &json!({ "why": why }), |_| {
                format!("A{number} {words}")
            })
            .map(drop)
    };
    match cord {
        Cord::Status => {
            let view = place.show("/andons", |view: &AndonsView| {
                say!("{} {}", view.frame.cord.sign(), view.heading);
                for row in view.rows.iter().take(20) {
                    let owner = row.owner.as_deref().unwrap_or("nobody");
                    say!(
                        "{} {:>4} {} ({owner}, red for {})",
                        row.mark.sign(),
                        row.id,
                        row.why,
                        andon_model::Span(row.red_ms)
                    );
                }
            })?;
            if view.rows.iter().any(|row| row.open) {
                Err(Failure { words: String::new(), status: status::NO })
            } else {
                Ok(())
            }
        }
        Cord::Pull { message } => place
            .command("/andons", &json!({ "why": message }), |made| {
                let id = made["andon"].as_str().unwrap_or_default();
                format!("the line is stopped by {id}; a fix carries the trailer Fixes-Andon: {id}")
            })
            .map(drop),
        Cord::Show { andon } => place
            .show(&format!("/andons/{}", andon.trim_start_matches(['A', 'a'])), |view: &AndonView| {
                say!("{} {}", view.row.mark.sign(), view.heading);
                say!("  {}", view.sentence);
                for (number, title, words) in &view.suspects {
                    say!("  ? #{number} {title}: {words}");
                }
                for moment in view.timeline.iter().rev() {
                    say!("  {} {}: {}", moment.at.hh_mm_ss(), moment.by, moment.words);
                }
            })
            .map(drop),
        Cord::Ack { andon } => treat(&andon, "acknowledge", "", "is yours"),
        Cord::Note { andon, message } => treat(&andon, "note", &message, "has a note"),
        Cord::Release { andon, message } => treat(&andon, "release", &message, "is over, the line runs"),
    }
}

/// `andon flow`.
pub fn flow(common: &Common) -> Result<(), Failure> {
    let place = Place::find(common)?;
    place.show("/flow", |view: &FlowView| {
        say!("● {}", view.heading);
        say!("  {}", view.sentence);
        for metric in &view.metrics {
            say!("  {:>12}  {}", metric.value, metric.label);
        }
        for stage in view.stages.iter().take(10) {
            say!("  {:<8} {} → {}: {}", stage.kind, stage.from, stage.to, stage.took);
        }
    })?;
    Ok(())
}
