//! Flags: who gets what, since when, by whom.

use andon_flags::describe::describe;
use andon_model::Time;
use andon_model::event::Event;
use serde::{Deserialize, Serialize};

use super::{Frame, Mark, Moment, count, frame, moments};
use crate::State;

/// The page of the flags.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FlagsView {
    /// Over every page.
    pub frame: Frame,
    /// The answer.
    pub heading: String,
    /// Where clients ask.
    pub sentence: String,
    /// By key.
    pub rows: Vec<FlagRow>,
    /// Changes of flags, newest first.
    pub timeline: Vec<Moment>,
}

/// A flag.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FlagRow {
    /// Its key.
    pub key: String,
    /// `on`, `off`, `ramping`, `killed`, `disabled`, `targeted`, `broken`.
    pub state: String,
    /// The same as a mark.
    pub mark: Mark,
    /// Who gets it.
    pub audience: String,
    /// Its variants.
    pub variants: Vec<String>,
    /// When it became so, by whom.
    pub changed: Option<(Time, String)>,
    /// Its definition.
    pub definition: serde_json::Value,
}

/// The view at this moment.
pub fn flags(state: &State, project: &str, now: Time) -> FlagsView {
    let rows: Vec<FlagRow> = state
        .flags
        .iter()
        .map(|flag| {
            let words = describe(flag);
            let mark = match words.state.as_str() {
                "on" => Mark::Go,
                "ramping" | "targeted" => Mark::Live,
                "killed" | "broken" => Mark::Stop,
                _ => Mark::None,
            };
            FlagRow {
                key: flag.key.clone(),
                state: words.state,
                mark,
                audience: words.audience,
                variants: flag.variants.keys().cloned().collect(),
                changed: state.flags.last_change(&flag.key).map(|change| (change.at, change.by.to_string())),
                definition: flag.definition.clone(),
            }
        })
        .collect();
    let open = rows.iter().filter(|row| matches!(row.mark, Mark::Go | Mark::Live)).count();
    let heading = match rows.len() {
        0 => "There are no flags yet".to_owned(),
        n => format!("{}, {open} open to somebody", count(n, "flag")),
    };
    let changes = state.feed.iter().filter(|event| matches!(event.event, Event::FlagChanged { .. }));
    FlagsView {
        frame: frame(state, project, now),
        heading,
        sentence: format!(
            "OpenFeature clients ask at /{project}/ofrep/v1. A change reaches the next evaluation."
        ),
        rows,
        timeline: moments(changes, 60),
    }
}
