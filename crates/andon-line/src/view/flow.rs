//! The five metrics with their doubt, where time goes, and the way of each change.

use andon_flow::summary::{Durations, FlowSummary};
use andon_flow::timeline::{Kind, Timeline};
use andon_model::{Span, Time};
use serde::{Deserialize, Serialize};

use super::wall::month;
use super::{Fact, Frame, Mark, count, fact, frame};
use crate::State;

/// Changes that the page shows.
const CHANGES: usize = 40;

/// The page of the flow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FlowView {
    /// Over every page.
    pub frame: Frame,
    /// The answer.
    pub heading: String,
    /// What was counted.
    pub sentence: String,
    /// The five metrics.
    pub metrics: Vec<Fact>,
    /// The numbers behind them, for programs; every one carries the events that it came from.
    pub summary: serde_json::Value,
    /// Between which stations time goes, most first.
    pub stages: Vec<StageRow>,
    /// Changes, newest first.
    pub changes: Vec<WayRow>,
}

/// Time between two stations over all changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StageRow {
    /// From.
    pub from: String,
    /// To.
    pub to: String,
    /// `working` or `waiting`.
    pub kind: String,
    /// Median, p95 and n, in words.
    pub took: String,
    /// All of it, in milliseconds.
    pub total_ms: u64,
}

/// A change's way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WayRow {
    /// Its number.
    pub number: u32,
    /// Its title.
    pub title: String,
    /// Time worked and time waited, in milliseconds.
    pub working_ms: u64,
    /// Time waited.
    pub waiting_ms: u64,
    /// Segments in order: from, to, waiting or working, milliseconds.
    pub segments: Vec<(String, String, String, u64)>,
}

/// The view at this moment.
pub fn flow(state: &State, project: &str, now: Time) -> FlowView {
    let summary = state.flow.summary(&month(state, now), now);
    let mut stages: Vec<StageRow> = summary
        .stages
        .iter()
        .map(|stage| StageRow {
            from: stage.from.clone(),
            to: stage.to.clone(),
            kind: kind(stage.kind).into(),
            took: words(&stage.took),
            total_ms: stage.total.0,
        })
        .collect();
    stages.sort_by_key(|stage| std::cmp::Reverse(stage.total_ms));
    let mut ids: Vec<_> = state.flow.changes().collect();
    ids.reverse();
    let changes = ids
        .into_iter()
        .take(CHANGES)
        .filter_map(|id| state.flow.timeline(id))
        .map(|way| self::way(&way))
        .collect();
    let heading = match summary.lead_time_from_push.p50 {
        Some(p50) => format!("From push to every user in {p50}"),
        None => "Nothing has reached users yet".to_owned(),
    };
    FlowView {
        frame: frame(state, project, now),
        heading,
        sentence: format!(
            "The last 30 days: {} with something new. Computed from the journal; nothing is configured.",
            count(summary.deployments as usize, "deployment")
        ),
        metrics: metrics(&summary),
        summary: serde_json::to_value(&summary).unwrap_or_default(),
        stages,
        changes,
    }
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Working => "working",
        Kind::Waiting => "waiting",
    }
}

/// A change's way as a row.
pub fn way(way: &Timeline) -> WayRow {
    WayRow {
        number: way.change.0,
        title: way.title.clone(),
        working_ms: way.total(Kind::Working).0,
        waiting_ms: way.total(Kind::Waiting).0,
        segments: way
            .segments
            .iter()
            .map(|s| (s.from.words(), s.to.words(), kind(s.kind).to_owned(), s.took.0))
            .collect(),
    }
}

/// DORA's five, as facts with their doubt.
pub fn metrics(summary: &FlowSummary) -> Vec<Fact> {
    let lead = &summary.lead_time;
    let rate = |share: &andon_flow::summary::Share, label: &str| {
        let value = share.percent.map_or_else(|| "–".to_owned(), |percent| format!("{percent:.1} %"));
        fact(value, format!("{label} ({} of {})", share.part, share.whole))
    };
    let frequency = match summary.deployments_per_day {
        // Less than a day says nothing about days.
        _ if summary.window.days() < 1.0 => summary.deployments.to_string(),
        Some(n) if n >= 1.0 => format!("{n:.1} a day"),
        Some(n) if n > 0.0 => format!("{:.1} a week", n * 7.0),
        _ => "–".to_owned(),
    };
    let failed = Fact {
        mark: if summary.unrecovered.is_empty() { Mark::None } else { Mark::Stop },
        ..fact(
            median(&summary.recovery),
            format!("to recover from a failed deployment, {}", rest(&summary.recovery)),
        )
    };
    vec![
        fact(median(lead), format!("lead time from commit to every user, {}", rest(lead))),
        fact(frequency, format!("deployments with something new (n = {})", summary.deployments)),
        failed,
        rate(&summary.change_fail_rate, "changed for the worse"),
        rate(&summary.rework_rate, "rework after an andon"),
    ]
}

fn median(durations: &Durations) -> String {
    durations.p50.map_or_else(|| "–".to_owned(), |p50| p50.to_string())
}

fn rest(durations: &Durations) -> String {
    let p95 = durations.p95.unwrap_or(Span(0));
    match durations.n {
        0 => "none yet".into(),
        n => format!("median (p95 {p95}, n = {n})"),
    }
}

fn words(durations: &Durations) -> String {
    format!("{}, {}", median(durations), rest(durations))
}
