//! Backups and drills, as the page and the terminal show them.

use andon_model::Time;
use serde::{Deserialize, Serialize};

use super::{Fact, Mark, ago, count, fact};
use crate::Line;
use crate::recovery::{Drill, Made};

/// The page.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecoveryView {
    /// The answer.
    pub heading: String,
    /// What it rests on.
    pub sentence: String,
    /// Numbers.
    pub facts: Vec<Fact>,
    /// Drills, newest first, each with what is wrong with it.
    pub drills: Vec<(Drill, Mark, String)>,
    /// Backups, newest first.
    pub backups: Vec<Made>,
    /// Seconds that each drill took, oldest first; none where it failed.
    pub curve: Vec<Option<f64>>,
}

/// As it stands.
pub fn recovery(line: &Line) -> RecoveryView {
    let (known, now) = (line.recovery().clone(), line.now());
    let told = |place: usize, drill: &Drill| match (known.trouble(place), drill.served) {
        (Some(why), _) => (Mark::Stop, why),
        (None, Some(served)) => (Mark::Go, format!("everything was back after {served}")),
        (None, None) => (Mark::Stop, "not everything came back".into()),
    };
    let drills: Vec<_> = known
        .drills
        .iter()
        .enumerate()
        .rev()
        .map(|(place, drill)| {
            let (mark, words) = told(place, drill);
            (drill.clone(), mark, words)
        })
        .collect();
    let heading = match drills.first() {
        None => "No drill was held yet".to_owned(),
        Some((_, Mark::Go, words)) => format!("The last drill went well: {words}"),
        Some((.., words)) => format!("The last drill is red: {words}"),
    };
    let age = |at: Option<Time>| at.map_or_else(|| "never".into(), |at| ago(now, at));
    RecoveryView {
        heading,
        sentence:
            "A drill makes everything again from a backup and from code, beside what runs, and times it."
                .into(),
        facts: vec![
            fact(age(known.backups.last().map(|made| made.at)), "last backup"),
            fact(age(known.drills.last().map(|drill| drill.at)), "last drill"),
            fact(count(known.drills.len(), "drill"), "remembered"),
        ],
        curve: known.drills.iter().map(|d| d.served.map(|s| s.0 as f64 / 1000.0)).collect(),
        drills,
        backups: known.backups.iter().rev().cloned().collect(),
    }
}
