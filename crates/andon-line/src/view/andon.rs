//! Andons: the room of each, with owner, clock, suspects and what waits.

use andon_cord::Andon;
use andon_model::{AndonId, Time};
use serde::{Deserialize, Serialize};

use super::{Fact, Frame, Mark, Moment, ago, fact, frame};
use crate::{Refusal, State};

/// The page of all andons.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AndonsView {
    /// Over every page.
    pub frame: Frame,
    /// The answer.
    pub heading: String,
    /// What follows.
    pub sentence: String,
    /// Newest first.
    pub rows: Vec<AndonRow>,
}

/// An andon in a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AndonRow {
    /// `A12`.
    pub id: String,
    /// Its number.
    pub number: u32,
    /// Why the line stopped.
    pub why: String,
    /// Its state.
    pub mark: Mark,
    /// Whether it still stops the line.
    pub open: bool,
    /// Who has it.
    pub owner: Option<String>,
    /// Since when.
    pub pulled: Time,
    /// How long the line was stopped by it, in milliseconds.
    pub red_ms: u64,
    /// Why the line ran again.
    pub released: Option<String>,
}

/// The room of an andon.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AndonView {
    /// Over every page.
    pub frame: Frame,
    /// The answer.
    pub heading: String,
    /// By whom, since when, what follows by itself.
    pub sentence: String,
    /// As in the list.
    pub row: AndonRow,
    /// Numbers.
    pub facts: Vec<Fact>,
    /// Changes that may be at fault: number, title, words.
    pub suspects: Vec<(u32, String, String)>,
    /// Changes that wait for it.
    pub waiting: Vec<u32>,
    /// The trailer that lets a change through.
    pub trailer: String,
    /// What happened, newest first.
    pub timeline: Vec<Moment>,
}

/// All andons at this moment.
pub fn andons(state: &State, project: &str, now: Time) -> AndonsView {
    let rows: Vec<AndonRow> = state.cord.history().map(|andon| row(andon, now)).collect();
    let heading = match state.cord.open().count() {
        0 => "The line runs".to_owned(),
        1 => "1 andon stops the line".to_owned(),
        n => format!("{n} andons stop the line"),
    };
    AndonsView {
        frame: frame(state, project, now),
        heading,
        sentence: "Anyone may pull the cord. While it is red, only what fixes it lands.".into(),
        rows,
    }
}

fn row(andon: &Andon, now: Time) -> AndonRow {
    AndonRow {
        id: andon.id.to_string(),
        number: andon.id.0,
        why: andon.why.clone(),
        mark: if andon.is_open() { Mark::Stop } else { Mark::Go },
        open: andon.is_open(),
        owner: andon.owner.as_ref().map(ToString::to_string),
        pulled: andon.pulled_at,
        red_ms: andon.red_for(now).0,
        released: andon.released.as_ref().map(|end| end.why.clone()),
    }
}

/// One andon at this moment.
pub fn andon(state: &State, project: &str, id: AndonId, now: Time) -> Result<AndonView, Refusal> {
    let found = state.cord.get(id).ok_or_else(|| Refusal::Unknown(format!("there is no andon {id}")))?;
    let row = row(found, now);
    let waiting: Vec<u32> = match found.is_open() {
        true => {
            state.queue.open().filter(|change| change.fixes() != Some(id)).map(|change| change.id.0).collect()
        }
        false => Vec::new(),
    };
    let sentence = match (&found.released, &found.fix) {
        (Some(end), _) => format!(
            "Pulled by {} at {}; over after {}: {}.",
            found.pulled_by,
            found.pulled_at.hh_mm(),
            found.red_for(now),
            end.why
        ),
        (None, Some(fix)) => match &fix.disproved {
            Some(why) => format!("{} was believed to fix it, but {why}.", fix.change),
            None => format!(
                "{} landed to fix it; the cord is released when that is proven where it failed.",
                fix.change
            ),
        },
        (None, None) => format!(
            "Pulled by {} {}. Until it is fixed, only what names {id} lands.",
            found.pulled_by,
            ago(now, found.pulled_at)
        ),
    };
    let owner = match (&found.owner, found.acknowledged_after()) {
        (Some(owner), Some(after)) => fact(owner.to_string(), format!("has it, acknowledged after {after}")),
        _ => Fact { mark: Mark::Wait, ..fact("nobody", "has it yet") },
    };
    let suspects = found.suspects.iter().map(|change| {
        let known = state.queue.changes.get(change);
        let title = known.map(|change| change.push.title.clone()).unwrap_or_default();
        (change.0, title, "new with what failed".to_owned())
    });
    let timeline = found.timeline.iter().rev().map(|entry| Moment {
        seq: entry.seq,
        at: entry.at,
        mark: Mark::None,
        by: entry.by.to_string(),
        words: entry.what.clone(),
        link: None,
    });
    Ok(AndonView {
        frame: frame(state, project, now),
        heading: format!("{id}: {}", found.why),
        sentence,
        facts: vec![
            fact(found.red_for(now).to_string(), if found.is_open() { "red so far" } else { "red" }),
            owner,
            fact(waiting.len().to_string(), format!("changes wait; only what names {id} lands")),
            fact(found.tag.clone(), "kind of trouble"),
        ],
        suspects: suspects.collect(),
        waiting,
        trailer: format!("Fixes-Andon: {id}"),
        timeline: timeline.collect(),
        row,
    })
}
