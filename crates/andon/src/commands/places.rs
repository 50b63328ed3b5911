//! Environments and releases in the terminal.

use andon_line::view::{EnvironmentView, EnvironmentsView, ReleaseView, ReleasesView, WallView};
use clap::{Args, Subcommand};
use serde_json::json;

use super::Place;
use crate::cli::Common;
use crate::client::{Failure, status};
use crate::say::say;

/// `andon wall`.
pub fn wall(common: &Common) -> Result<(), Failure> {
    let place = Place::find(common)?;
    place.show("/wall", |view: &WallView| {
        say!("{} {}", view.frame.cord.sign(), view.heading);
        say!("  {}", view.sentence);
        for station in &view.stations {
            for car in &station.cars {
                say!("  {:<12} {} {} {} {}", station.name, car.mark.sign(), car.label, car.title, car.words);
            }
        }
        say!("  {:<16}{}", "", view.environments.iter().map(|e| format!("{e:<24}")).collect::<String>());
        for service in &view.services {
            let cell = |cell: &andon_line::view::wall::Cell| {
                format!("{:<24}", format!("{} {}", cell.mark.sign(), cell.version))
            };
            say!("  {:<16}{}", service.name, service.cells.iter().map(cell).collect::<String>());
        }
        for fact in &view.flow {
            say!("  {:>12}  {}", fact.value, fact.label);
        }
    })?;
    Ok(())
}

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
    /// A new one like a declared one, with what serves there. It ends by itself.
    Create {
        /// Its name.
        name: String,
        /// The environment in andon.yaml that it is like.
        #[arg(long, default_value = "production")]
        like: String,
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
    /// Put what landed last (or one change) into it, beside what serves.
    Deploy {
        /// Its name.
        name: String,
        /// The change.
        #[arg(long)]
        change: Option<String>,
    },
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
        Env::Create { name, like, ttl, wait } => {
            place.command("/environments", &json!({ "name": name, "like": like, "ttl": ttl }), |_| {
                format!("{name} is being created like {like}")
            })?;
            if wait { until_served(&place, &name) } else { Ok(()) }
        }
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
    for service in &view.services {
        say!("  {} {} {}", service.name, service.revision.as_deref().unwrap_or("–"), service.address);
        for instance in &service.instances {
            say!(
                "    {} {} {} on {}: {}",
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
    if !view.isolation.has.is_empty() {
        say!("  instances have: {}", view.isolation.has.join(", "));
    }
    for (what, why) in &view.isolation.lacks {
        say!("  no {what}: {why}");
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

/// `andon release …`.
#[derive(Debug, Subcommand)]
pub enum Release {
    /// All releases.
    List,
    /// One release.
    Show {
        /// `R8`
        release: String,
    },
    /// Why it is where it is: counts, ratio, evidence, threshold.
    Why {
        /// `R8`
        release: String,
    },
    /// To the next step, or to everyone.
    Promote(Which),
    /// Stand still; the immune system keeps watching.
    Pause(Which),
    /// Go on.
    Resume(Which),
    /// Let a step go on that waits for a person.
    Approve(Which),
    /// Everyone goes back to the old revision.
    Abort(Which),
    /// After its end: users go back to the revision before.
    Rollback {
        /// Where.
        environment: String,
        /// The service, where there are several.
        #[arg(long)]
        service: Option<String>,
    },
}

/// A release and a reason.
#[derive(Debug, Args)]
pub struct Which {
    /// `R8`
    release: String,
    /// The reason.
    #[arg(long, short, default_value = "")]
    message: String,
}

/// Does it.
pub fn release(common: &Common, release: Release) -> Result<(), Failure> {
    let place = Place::find(common)?;
    let act = |which: Which, command: &str, words: &str| {
        let path = format!("/releases/{}/{command}", number(&which.release));
        place
            .command(&path, &json!({ "why": which.message }), |_| {
                format!("R{} {words}", number(&which.release))
            })
            .map(drop)
    };
    match release {
        Release::List => place
            .show("/releases", |view: &ReleasesView| {
                say!("{} {}", view.frame.cord.sign(), view.heading);
                for row in &view.rows {
                    let from = row.from.as_ref().map(|from| format!("{from} → ")).unwrap_or_default();
                    say!(
                        "{} {:>4} {} in {}: {from}{} {}",
                        row.mark.sign(),
                        row.id,
                        row.service,
                        row.environment,
                        row.to,
                        row.words
                    );
                }
            })
            .map(drop),
        Release::Show { release } => {
            place.show(&format!("/releases/{}", number(&release)), show_release).map(drop)
        }
        Release::Why { release } => place
            .show(&format!("/releases/{}", number(&release)), |view: &ReleaseView| {
                say!("{} {}", view.row.mark.sign(), view.says.as_deref().unwrap_or(&view.row.words));
                for signal in &view.signals {
                    say!(
                        "  {} {}: {} against {}, {}: {}",
                        signal.mark.sign(),
                        signal.name,
                        signal.canary,
                        signal.stable,
                        signal.ratio,
                        signal.says
                    );
                }
                if let Some((evidence, needed)) = view.evidence {
                    say!(
                        "  evidence that it is worse: {evidence:.1} : 1; it is taken back at {needed:.0} : 1"
                    );
                }
                for difference in &view.differences {
                    say!(
                        "  ■ {} differs at {}: {} became {}",
                        difference.request,
                        difference.at,
                        difference.stable,
                        difference.canary
                    );
                }
            })
            .map(drop),
        Release::Promote(which) => act(which, "promote", "goes on"),
        Release::Pause(which) => act(which, "pause", "stands still"),
        Release::Resume(which) => act(which, "resume", "goes on"),
        Release::Approve(which) => act(which, "approve", "is approved"),
        Release::Abort(which) => act(which, "abort", "is taken back"),
        Release::Rollback { environment, service } => place
            .command(
                &format!("/environments/{environment}/rollback"),
                &json!({ "service": service }),
                |made| {
                    format!("users of {environment} go back to the revision before (R{})", made["release"])
                },
            )
            .map(drop),
    }
}

fn number(text: &str) -> &str {
    text.trim_start_matches(['R', 'r'])
}

fn show_release(view: &ReleaseView) {
    say!("{} {}", view.row.mark.sign(), view.heading);
    say!("  {}", view.sentence);
    for (step, mark) in &view.steps {
        say!("  {} {step}", mark.sign());
    }
    for fact in &view.facts {
        say!("  {:>12}  {}", fact.value, fact.label);
    }
    for moment in view.timeline.iter().rev() {
        say!("  {} {} {}", moment.at.hh_mm_ss(), moment.mark.sign(), moment.words);
    }
}
