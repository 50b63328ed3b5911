//! `andon watch`: follows a change until users have it, or until it is known that they will not.

use std::io::BufRead;

use andon_line::view::{ChangeView, Mark, QueueView};
use clap::Args;

use super::{Place, read};
use crate::cli::Common;
use crate::client::{Failure, status};
use crate::say::say;

/// Options of `andon watch`.
#[derive(Debug, Args)]
pub struct Watch {
    /// The change; default: the one pushed last.
    change: Option<String>,
    /// Stop when it has landed.
    #[arg(long)]
    landed: bool,
}

/// Prints what happens to the change, each thing once. Exit status 0: users have it; 1: they will not.
pub fn watch(common: &Common, options: Watch) -> Result<(), Failure> {
    let place = Place::find(common)?;
    // Opened before the first look: nothing can happen in between unseen.
    let mut events = place.client.lines(&format!("{}/events", place.base))?;
    let number = match options.change {
        Some(change) => super::changes::number(&change).to_owned(),
        None => newest(&place)?,
    };
    let mut told = 0;
    loop {
        let value = place.client.get(&format!("{}/changes/{number}", place.base))?;
        let view: ChangeView = read(value.clone())?;
        for moment in view.timeline.iter().rev().filter(|moment| moment.seq > told) {
            if !common.json {
                say!("{} {} {}", moment.at.hh_mm_ss(), moment.mark.sign(), moment.words);
            }
        }
        told = view.timeline.first().map_or(told, |moment| moment.seq.max(told));
        if let Some(verdict) = over(&view, options.landed) {
            if common.json {
                super::print_json(&value);
            }
            return verdict;
        }
        next(&mut events)?;
    }
}

fn newest(place: &Place) -> Result<String, Failure> {
    let view: QueueView = read(place.client.get(&format!("{}/queue", place.base))?)?;
    let all = view.open.iter().chain(&view.recent).map(|row| row.number).max();
    all.map(|number| number.to_string()).ok_or_else(|| "nothing was pushed yet".into())
}

fn over(view: &ChangeView, landed_is_enough: bool) -> Option<Result<(), Failure>> {
    let no = |words: String| Some(Err(Failure { words, status: status::NO }));
    match view.row.standing.as_str() {
        "refused" | "abandoned" => return no(view.row.words.clone()),
        "landed" if landed_is_enough || view.places.is_empty() => return Some(Ok(())),
        "landed" => {}
        _ => return None,
    }
    if let Some((place, _, words)) = view.places.iter().find(|(_, mark, _)| *mark == Mark::Stop) {
        return no(format!("{place}: {words}"));
    }
    let production = view.places.iter().find(|(place, ..)| place == "production");
    let there = |place: &&(String, Mark, String)| place.1 == Mark::Go;
    match production {
        Some(place) if there(&place) => Some(Ok(())),
        None if view.places.iter().all(|place| there(&place)) => Some(Ok(())),
        _ => None,
    }
}

fn next(events: &mut impl BufRead) -> Result<(), Failure> {
    let mut line = String::new();
    while !line.starts_with("data:") {
        line.clear();
        if events.read_line(&mut line).map_err(|error| error.to_string())? == 0 {
            return Err(Failure { words: "the server went away".into(), status: status::UNREACHABLE });
        }
    }
    Ok(())
}
