//! The wall and releases in the terminal.

use andon_line::view::{ReleaseView, ReleasesView, WallView};
use clap::{Args, Subcommand};
use serde_json::json;

use super::Place;
use crate::cli::Common;
use crate::client::Failure;
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
                for field in &view.differences {
                    let (sign, noise) =
                        if field.noise { ("○", ", noise: it counts nothing") } else { ("■", "") };
                    say!("  {sign} {}: {} answers, {} %{noise}", field.at, field.count, field.percent);
                    for sample in field.samples.iter().filter(|_| !field.noise) {
                        say!("      {}: {} became {}", sample.request, sample.stable, sample.canary);
                    }
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
