//! What the mirror of a dark launch has found: read from the plane, kept over restarts, kept when the release ends. What it
//! means for the release is decided in andon-release; where answers differ is found by the router.
//!
//! A mirror counts in memory. What it has found is therefore put aside every few looks, where it may be lost; a server
//! that starts again adds what its mirror finds from then on. Nothing is counted twice: of a killed server the last
//! seconds are missing.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use andon_model::ReleaseId;
use andon_model::strategy::Strategy;
use andon_release::Release;
use andon_traffic::Field;
use serde::{Deserialize, Serialize};

use super::routes;
use crate::{Line, Project, Refusal, State};

/// Fields that are shown and kept.
const FIELDS: usize = 100;

/// What the mirror of a dark launch has found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Mirrored {
    /// Answers that were compared.
    pub compared: u64,
    /// Those that said something else, in a field that is no noise.
    pub different: u64,
    /// Those that differ in noise only.
    #[serde(default)]
    pub noisy: u64,
    /// Copies that were not answered, or not made.
    #[serde(default)]
    pub unanswered: u64,
    /// Where they differ, the most frequent first; noise last.
    #[serde(default)]
    pub fields: Vec<DifferenceRow>,
}

/// A field in which answers differ.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DifferenceRow {
    /// `status`, `header cache-control`, `body /items/*/price`.
    pub at: String,
    /// Answers that differ here.
    pub count: u64,
    /// Of all compared ones, in percent.
    pub percent: f64,
    /// It differs between two answers of the one that serves, too: it does not count.
    pub noise: bool,
    /// A few of them, without secrets.
    pub samples: Vec<Sample>,
}

/// One answer that differed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// `GET /total`.
    pub request: String,
    /// What the one that serves said there.
    pub stable: String,
    /// What the new one said.
    pub canary: String,
}

/// What the mirror of a dark launch has found so far; none of other releases, and none without a mirror at work.
pub(super) fn mirrored(line: &Line, project: &Project, release: &Release) -> Option<Mirrored> {
    if !matches!(release.strategy, Strategy::Dark(_)) {
        return None;
    }
    let key = routes::key(&project.name, &release.environment, &release.service);
    let found = line.plane().differences(&key).filter(|found| found.revision.as_ref() == Some(&release.to));
    let watched = project.watched.lock().unwrap_or_else(PoisonError::into_inner);
    let before = watched.before.get(&release.id).cloned();
    let Some(found) = found else { return before };
    let now = Mirrored {
        compared: found.compared,
        different: found.different,
        noisy: found.noisy,
        unanswered: found.dropped + found.failed,
        fields: found.fields.into_iter().map(row).collect(),
    };
    Some(before.unwrap_or_default().and(now))
}

fn row(field: Field) -> DifferenceRow {
    let sample = |d: andon_traffic::Difference| Sample {
        request: format!("{} {}", d.method, d.path),
        stable: d.primary,
        canary: d.shadow,
    };
    let samples = field.samples.into_iter().map(sample).collect();
    DifferenceRow { at: field.at, count: field.count, percent: 0.0, noise: field.noise, samples }
}

impl Mirrored {
    /// This and what was found later. Whether a field is noise is known better later.
    fn and(self, later: Mirrored) -> Mirrored {
        let mut fields: BTreeMap<String, DifferenceRow> =
            self.fields.into_iter().map(|row| (row.at.clone(), row)).collect();
        for row in later.fields {
            let count = fields.get(&row.at).map_or(0, |before| before.count);
            fields.insert(row.at.clone(), DifferenceRow { count: row.count + count, ..row });
        }
        let compared = self.compared + later.compared;
        let mut fields: Vec<DifferenceRow> = fields.into_values().collect();
        fields.sort_by(|a, b| (a.noise, b.count, &a.at).cmp(&(b.noise, a.count, &b.at)));
        fields.truncate(FIELDS);
        for row in &mut fields {
            let share = row.count as f64 * 100.0 / compared.max(1) as f64;
            row.percent = (share * 100.0).round() / 100.0;
        }
        Mirrored {
            compared,
            different: self.different + later.different,
            noisy: self.noisy + later.noisy,
            unanswered: self.unanswered + later.unanswered,
            fields,
        }
    }
}

/// The same of a release at any time: what its mirror finds, or what was kept when it ended.
pub fn differences(line: &Line, project: &Project, state: &State, release: &Release) -> Option<Mirrored> {
    let kept = || match release.strategy {
        Strategy::Dark(_) => serde_json::from_value(state.explanations.get(&release.id)?.clone()).ok(),
        _ => None,
    };
    match release.ended {
        Some(_) => kept(),
        None => mirrored(line, project, release),
    }
}

fn shelf(project: &Project) -> String {
    format!("dark launches of {}", project.name)
}

/// Takes up what was put aside before this server started.
pub(super) async fn remember(line: &Line, project: &Project) -> Result<(), Refusal> {
    let dark: Vec<ReleaseId> = {
        let state = project.state();
        let under_way = state.releases.under_way();
        under_way.filter(|r| matches!(r.strategy, Strategy::Dark(_))).map(|r| r.id).collect()
    };
    let keys: Vec<String> = dark.iter().map(ToString::to_string).collect();
    let kept = line.derived.some(&shelf(project), &keys).await?;
    let mut watched = project.watched.lock().unwrap_or_else(PoisonError::into_inner);
    for (id, body) in kept {
        // What an older server wrote and this one cannot read is counted anew.
        if let (Ok(id), Ok(found)) = (id.parse(), serde_json::from_str(&body)) {
            watched.before.insert(id, found);
        }
    }
    Ok(())
}

/// Puts aside what the mirrors found.
pub(super) async fn put_aside(line: &Line, project: &Project) -> Result<(), Refusal> {
    let found: Vec<(String, String)> = {
        let state = project.state();
        let all = state.releases.under_way().filter_map(|release| {
            let found = serde_json::to_string(&mirrored(line, project, release)?).ok()?;
            Some((release.id.to_string(), found))
        });
        all.collect()
    };
    if found.is_empty() {
        return Ok(());
    }
    Ok(line.derived.keep(&shelf(project), 0, &found).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(at: &str, count: u64, noise: bool) -> DifferenceRow {
        DifferenceRow { at: at.into(), count, percent: 0.0, noise, samples: Vec::new() }
    }

    #[test]
    fn what_is_found_after_a_restart_is_added_and_noise_stays_last() {
        let before = Mirrored {
            compared: 60,
            different: 6,
            fields: vec![field("body /price", 6, false), field("body /time", 60, true)],
            ..Mirrored::default()
        };
        let later = Mirrored {
            compared: 40,
            different: 4,
            fields: vec![field("body /price", 4, false), field("status", 40, true)],
            ..Mirrored::default()
        };
        let all = before.and(later);
        assert_eq!((all.compared, all.different), (100, 10));
        let told: Vec<_> = all.fields.iter().map(|f| (f.at.as_str(), f.count, f.percent, f.noise)).collect();
        assert_eq!(
            told,
            [("body /price", 10, 10.0, false), ("body /time", 60, 60.0, true), ("status", 40, 40.0, true)]
        );
    }
}
