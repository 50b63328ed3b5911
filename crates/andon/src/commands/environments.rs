//! Environments in the terminal.

use andon_line::view::{EnvironmentView, EnvironmentsView, ParityView};
use clap::Subcommand;
use serde_json::json;

use super::Place;
use crate::cli::Common;
use crate::client::{Failure, status};
use crate::say::say;

/// `andon env …`.
#[derive(Debug, Subcommand)]
pub enum Env {
    /// All environments.
    List,
    /// One environment: services, instances, deployments, drift.
    Show {
        /// Its name.
        name: String,
    },
    /// A new one like a declared one, with what serves there or what a change built. It ends by itself.
    Create {
        /// Its name; with --change it can be left out.
        #[arg(required_unless_present = "change")]
        name: Option<String>,
        /// The environment in andon.yaml that it is like; default: the last one that a change passes.
        #[arg(long)]
        like: Option<String>,
        /// The change that it shows, before it landed too.
        #[arg(long)]
        change: Option<String>,
        /// How long it lives: 2h, 7d. Default: a day.
        #[arg(long)]
        ttl: Option<String>,
        /// Return when it serves.
        #[arg(long)]
        wait: bool,
    },
    /// End one that was created.
    Destroy {
        /// Its name.
        name: String,
    },
    /// Stop everything in it and make it anew from code.
    Rebuild {
        /// Its name.
        name: String,
        /// Return when it serves again.
        #[arg(long)]
        wait: bool,
    },
    /// Let it live longer.
    Extend {
        /// Its name.
        name: String,
        /// From now on: 2h, 7d.
        lasts: String,
    },
    /// Differences from code. Exit status 1 when there are some.
    Drift {
        /// Its name.
        name: String,
    },
    /// Two environments against each other. Exit status 1 when they differ without a reason.
    Diff {
        /// One.
        here: String,
        /// The other.
        there: String,
    },
    /// Run another number of instances of a service than code says.
    Scale {
        /// The environment.
        name: String,
        /// The service.
        service: String,
        /// How many, or `as-code`.
        replicas: String,
    },
    /// Keep new deployments out of it; what runs there is looked after all the same.
    Hold {
        /// Its name.
        name: String,
        /// The reason.
        #[arg(long)]
        why: String,
    },
    /// Let deployments in again.
    Unhold {
        /// Its name.
        name: String,
    },
    /// Put what landed last (or one change) into it, beside what serves.
    Deploy {
        /// Its name.
        name: String,
        /// The change.
        #[arg(long)]
        change: Option<String>,
    },
    /// A recorded shell inside an instance, or one command in it. The environment is tainted until it is rebuilt.
    Shell(super::shell::Shell),
    /// Who opened a shell inside which instance, and what is recorded of it.
    Shells(super::shell::Shells),
    /// The end of an instance's output.
    Log {
        /// `i5`
        instance: String,
    },
}

/// Does it.
pub fn env(common: &Common, env: Env) -> Result<(), Failure> {
    let place = Place::find(common)?;
    match env {
        Env::List => place
            .show("/environments", |view: &EnvironmentsView| {
                say!("{} {}", view.frame.cord.sign(), view.heading);
                for row in &view.rows {
                    let serving: Vec<String> = row.serving.iter().map(|(s, v)| format!("{s} {v}")).collect();
                    say!("{} {:<16} {:<30} {}", row.mark.sign(), row.name, serving.join(", "), row.words);
                }
            })
            .map(drop),
        Env::Show { name } => place.show(&format!("/environments/{name}"), show_environment).map(drop),
        Env::Create { name, like, change, ttl, wait } => {
            let change = change.map(|change| super::changes::number(&change).parse::<u32>());
            let change = change.transpose().map_err(|_| "a change is written like #12")?;
            let ask = json!({ "name": name, "like": like, "ttl": ttl, "change": change });
            let made = |made: &serde_json::Value| made["environment"].as_str().unwrap_or_default().to_owned();
            let name = place
                .command("/environments", &ask, |answer| format!("{} is being created", made(answer)))?;
            if wait { until_served(&place, &made(&name)) } else { Ok(()) }
        }
        Env::Diff { here, there } => {
            let path = format!("/environments/{here}/diff/{there}");
            let view = place.show(&path, show_parity)?;
            let alike = view.rows.iter().all(|row| row.allowed.is_some());
            if alike { Ok(()) } else { Err(Failure { words: String::new(), status: status::NO }) }
        }
        Env::Scale { name, service, replicas } => {
            let replicas = match replicas.as_str() {
                "as-code" => None,
                number => Some(number.parse::<u32>().map_err(|_| "write a number, or `as-code`")?),
            };
            let ask = json!({ "service": service, "replicas": replicas });
            place
                .command(&format!("/environments/{name}/scale"), &ask, |_| match replicas {
                    Some(replicas) => format!("{service} in {name} is to run {replicas} times"),
                    None => format!("{service} in {name} is to run as often as code says"),
                })
                .map(drop)
        }
        Env::Hold { name, why } => place
            .command(&format!("/environments/{name}/hold"), &json!({ "why": why }), |_| {
                format!("{name} takes no deployments")
            })
            .map(drop),
        Env::Unhold { name } => place
            .command(&format!("/environments/{name}/hold"), &json!({ "why": null }), |_| {
                format!("{name} takes deployments again")
            })
            .map(drop),
        Env::Destroy { name } => place
            .command(&format!("/environments/{name}/destroy"), &json!({ "why": "asked for" }), |_| {
                format!("{name} is being destroyed")
            })
            .map(drop),
        Env::Rebuild { name, wait } => {
            place.command(
                &format!("/environments/{name}/rebuild"),
                &json!({ "why": "asked for" }),
                |_| format!("{name} is being rebuilt from code"),
            )?;
            if wait { until_served(&place, &name) } else { Ok(()) }
        }
        Env::Extend { name, lasts } => place
            .command(&format!("/environments/{name}/extend"), &json!({ "lasts": lasts }), |_| {
                format!("{name} lives {lasts} from now on")
            })
            .map(drop),
        Env::Drift { name } => {
            let view = place.show(&format!("/environments/{name}"), show_drift)?;
            if view.drifts.is_empty() {
                Ok(())
            } else {
                Err(Failure { words: String::new(), status: status::NO })
            }
        }
        Env::Deploy { name, change } => {
            let change = change.map(|change| super::changes::number(&change).parse::<u32>());
            let change = change.transpose().map_err(|_| "a change is written like #12")?;
            place
                .command(&format!("/environments/{name}/deploy"), &json!({ "change": change }), |made| {
                    format!("{} goes into {name}", made["deployment"].as_str().unwrap_or_default())
                })
                .map(drop)
        }
        Env::Shell(asked) => super::shell::shell(&place, asked),
        Env::Shells(asked) => super::shell::shells(&place, asked),
        Env::Log { instance } => {
            let mut log = place.client.lines(&format!("{}/instances/{instance}/log", place.base))?;
            std::io::copy(&mut log, &mut std::io::stdout().lock()).map_err(|error| error.to_string())?;
            Ok(())
        }
    }
}

/// Follows the project's events until the environment's newest deployment has reached its users, or failed.
fn until_served(place: &Place, name: &str) -> Result<(), Failure> {
    use std::io::BufRead;
    let mut events = place.client.lines(&format!("{}/events", place.base))?;
    loop {
        let view: EnvironmentView =
            super::read(place.client.get(&format!("{}/environments/{name}", place.base))?)?;
        let newest = view.deployments.first();
        match newest.map(|deployment| deployment.mark) {
            Some(andon_line::view::Mark::Go) if view.row.instances > 0 => {
                say!("● {}", view.heading);
                return Ok(());
            }
            Some(andon_line::view::Mark::Stop) => return Err(format!("{}: {}", name, view.row.words).into()),
            _ => {}
        }
        let mut line = String::new();
        while events.read_line(&mut line).map_err(|error| error.to_string())? > 0
            && !line.starts_with("data:")
        {
            line.clear();
        }
    }
}

fn show_environment(view: &EnvironmentView) {
    say!("{} {}", view.row.mark.sign(), view.heading);
    say!("  {}", view.sentence);
    for note in &view.notes {
        say!("  ▲ {note}");
    }
    for service in &view.services {
        say!("  {} {} {}", service.name, service.revision.as_deref().unwrap_or("–"), service.address);
        for instance in &service.instances {
            let host = instance.host.as_ref().map(|host| format!(" of {host}")).unwrap_or_default();
            say!(
                "    {} {} {} on {}{host}: {}",
                instance.mark.sign(),
                instance.id,
                instance.revision,
                instance.address,
                instance.words
            );
        }
    }
    for deployment in &view.deployments {
        say!("  {} {} {} {}", deployment.mark.sign(), deployment.id, deployment.commit, deployment.words);
    }
    for drift in &view.drifts {
        say!("  ▲ {}: was {}, is {}", drift.what, drift.before, drift.after);
    }
}

fn show_drift(view: &EnvironmentView) {
    if view.drifts.is_empty() {
        say!("● {} equals its code", view.row.name);
    }
    for drift in &view.drifts {
        say!("▲ {} was {}, is {}, since {}", drift.what, drift.before, drift.after, drift.since.hh_mm_ss());
    }
}

fn show_parity(view: &ParityView) {
    let mark = if view.rows.iter().all(|row| row.allowed.is_some()) { "●" } else { "▲" };
    say!("{mark} {}: {} %", view.heading, view.percent);
    for row in &view.rows {
        let allowed = row.allowed.as_ref().map(|why| format!("  ({why})")).unwrap_or_default();
        let what = format!("{} {}", row.subject, row.what);
        say!(
            "  {} {what}: {} {} | {} {}{allowed}",
            row.mark.sign(),
            view.here,
            row.here,
            view.there,
            row.there
        );
    }
}
