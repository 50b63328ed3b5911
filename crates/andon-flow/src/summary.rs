//! DORA's five metrics and the stations' shares of time, for a window. Every figure carries the events it was counted from.
//!
//! What is counted, each in one sentence:
//! - lead time: of each change, the moment it reached all users of production less its first commit (and, beside it, less its push);
//! - deployment frequency: deployments that reached all users of production with an artifact that had not done so before;
//! - recovery: of each failed deployment, healthy again less its first users; healthy again is when its users were taken back, and
//!   where none were, when the last andon about it was released;
//! - change fail rate: failed deployments among those that reached a first user; several incidents on one deployment are one failure;
//! - rework rate: deployments, as in the frequency, that carry a change which names an andon.
//!
//! A deployment failed when one of its releases was taken back or aborted after a first user had it, when an andon names it, or when a
//! person pulled the cord after its first user and suspects one of its changes. What was stopped before any user is no failure in production.

use std::collections::BTreeMap;

use andon_model::event::{Cause, ReleaseEnd};
use andon_model::{ChangeId, DeploymentId, EnvironmentName, Span, Time};
use serde::Serialize;

use crate::state::{Deployment, Flow, Point};
use crate::timeline::{Kind, Station};

/// From when until when is counted, and where production is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Window {
    /// First moment.
    pub from: Time,
    /// First moment that is not counted any more.
    pub to: Time,
    /// The environment that users are in.
    pub production: EnvironmentName,
}

impl Window {
    fn has(&self, point: Point) -> bool {
        (self.from..self.to).contains(&point.at)
    }

    /// Its length in days.
    pub fn days(&self) -> f64 {
        self.to.since(self.from).as_secs_f64() / 86_400.0
    }
}

/// A share of a whole.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Share {
    /// How many of them.
    pub part: u64,
    /// Of how many.
    pub whole: u64,
    /// In percent; none where there is no whole.
    pub percent: Option<f64>,
    /// Events that the part was counted from.
    pub seqs: Vec<u64>,
}

impl Share {
    fn of(part: u64, whole: u64, seqs: Vec<u64>) -> Share {
        Share { part, whole, percent: (whole > 0).then(|| part as f64 * 100.0 / whole as f64), seqs }
    }
}

/// Lengths of time. Percentiles are by nearest rank: always a value that was really seen.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Durations {
    /// How many.
    pub n: usize,
    /// Half of them took at most this.
    pub p50: Option<Span>,
    /// Three quarters of them.
    pub p75: Option<Span>,
    /// All but one in twenty.
    pub p95: Option<Span>,
    /// Where each began and ended.
    pub seqs: Vec<(u64, u64)>,
}

impl Durations {
    fn of(mut spans: Vec<Span>, seqs: Vec<(u64, u64)>) -> Durations {
        spans.sort_unstable();
        let at = |percent: usize| spans.get((spans.len() * percent).div_ceil(100).saturating_sub(1)).copied();
        Durations { n: spans.len(), p50: at(50), p75: at(75), p95: at(95), seqs }
    }
}

/// Time between two neighbouring stations, over changes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Stage {
    /// From this station on, as people say it.
    pub from: String,
    /// Until that one.
    pub to: String,
    /// Work or waiting.
    pub kind: Kind,
    /// All of it.
    pub total: Span,
    /// How it is distributed; its events are those of the stations.
    pub took: Durations,
}

/// A change that is under way.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct UnderWay {
    /// The change.
    pub change: ChangeId,
    /// The last station it reached.
    #[serde(flatten)]
    pub station: Station,
    /// Since when it is there.
    pub since: Time,
    /// For how long.
    pub waits: Span,
    /// The event.
    pub seq: u64,
}

/// The flow of a window.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FlowSummary {
    /// What was counted.
    pub window: Window,
    /// From the first commit, by the author's clock, to all users.
    pub lead_time: Durations,
    /// From the push, by the server's clock, to all users.
    pub lead_time_from_push: Durations,
    /// Deployments with a new artifact that reached all users.
    pub deployments: u64,
    /// The same by day of the window.
    pub deployments_per_day: Option<f64>,
    /// Their events.
    pub deployment_seqs: Vec<u64>,
    /// From first users to healthy again.
    pub recovery: Durations,
    /// Failed deployments that are not healthy again yet: where their first users are in the journal.
    pub unrecovered: Vec<u64>,
    /// Failed among those that reached users.
    pub change_fail_rate: Share,
    /// Made because of an andon, among all.
    pub rework_rate: Share,
    /// Between stations, in the order of the way, of changes that reached everyone in the window.
    pub stages: Vec<Stage>,
    /// Working milliseconds of all milliseconds from first commit to all users.
    pub activity: Share,
    /// Changes that have not reached everyone, longest first.
    pub under_way: Vec<UnderWay>,
}

impl Flow {
    /// Counts a window. `now` is for what is still under way.
    pub fn summary(&self, window: &Window, now: Time) -> FlowSummary {
        let mut lead = (Vec::new(), Vec::new());
        let mut from_push = (Vec::new(), Vec::new());
        let mut delivered = Vec::new();
        for (id, change) in &self.changes {
            let Some(everyone) =
                self.carrier(*id, &window.production).and_then(|d| d.everyone).filter(|p| window.has(*p))
            else {
                continue;
            };
            let ends = (change.pushed.seq, everyone.seq);
            lead.0.push(everyone.at.since(change.authored));
            lead.1.push(ends);
            from_push.0.push(everyone.at.since(change.pushed.at));
            from_push.1.push(ends);
            delivered.push(*id);
        }
        let here = || self.deployments.iter().filter(|(_, d)| d.new && d.environment == window.production);
        let finished: Vec<(&Deployment, Point)> =
            here().filter_map(|(_, d)| Some((d, d.everyone.filter(|point| window.has(*point))?))).collect();
        let count = finished.len() as u64;
        let rework = finished
            .iter()
            .filter(|(d, _)| self.is_rework(d))
            .map(|(_, point)| point.seq)
            .collect::<Vec<_>>();
        let tried = here().filter(|(_, d)| self.first_users(d).is_some_and(|point| window.has(point)));
        let failed: Vec<u64> = tried
            .clone()
            .filter(|(id, d)| self.failure(**id, d).is_some())
            .filter_map(|(_, d)| Some(self.first_users(d)?.seq))
            .collect();
        let (mut spans, mut ends, mut unrecovered) = (Vec::new(), Vec::new(), Vec::new());
        for (id, deployment) in here() {
            let (Some(first), Some(failure)) = (self.first_users(deployment), self.failure(*id, deployment))
            else {
                continue;
            };
            match failure.healthy {
                Some(healthy) if window.has(healthy) => {
                    spans.push(healthy.at.since(first.at));
                    ends.push((first.seq, healthy.seq));
                }
                None if first.at < window.to => unrecovered.push(first.seq),
                _ => {}
            }
        }
        let (stages, activity) = self.stages(&delivered, &window.production);
        let days = window.days();
        FlowSummary {
            window: window.clone(),
            lead_time: Durations::of(lead.0, lead.1),
            lead_time_from_push: Durations::of(from_push.0, from_push.1),
            deployments: count,
            deployments_per_day: (days > 0.0).then(|| count as f64 / days),
            deployment_seqs: finished.iter().map(|(_, point)| point.seq).collect(),
            recovery: Durations::of(spans, ends),
            unrecovered,
            change_fail_rate: Share::of(failed.len() as u64, tried.count() as u64, failed),
            rework_rate: Share::of(rework.len() as u64, count, rework),
            stages,
            activity,
            under_way: self.under_way(&window.production, now),
        }
    }

    fn is_rework(&self, deployment: &Deployment) -> bool {
        deployment.changes.iter().any(|id| self.changes.get(id).is_some_and(|change| change.fixes.is_some()))
    }

    fn failure(&self, id: DeploymentId, deployment: &Deployment) -> Option<Failure> {
        let first = self.first_users(deployment)?;
        let own = || deployment.releases.iter().filter_map(|id| self.releases.get(id));
        let taken_back =
            own().filter(|release| release.first_users.is_some()).filter_map(|release| match release.ended {
                Some((point, ReleaseEnd::TakenBack | ReleaseEnd::Aborted)) => Some(point),
                _ => None,
            });
        if let Some(last) = taken_back.max() {
            return Some(Failure { healthy: Some(last) });
        }
        let about = |andon: &&crate::state::Andon| match &andon.cause {
            Cause::Environment { deployment, .. } | Cause::Deployment { deployment, .. } => *deployment == id,
            Cause::Release { release } => deployment.releases.contains(release),
            Cause::Person => {
                andon.pulled.seq > first.seq
                    && andon.suspects.iter().any(|change| deployment.changes.contains(change))
            }
            Cause::Trunk { .. } | Cause::Drift { .. } => false,
        };
        let ends: Vec<Option<Point>> =
            self.andons.values().filter(about).map(|andon| andon.released).collect();
        let healthy =
            ends.iter().copied().collect::<Option<Vec<Point>>>().and_then(|ends| ends.into_iter().max());
        (!ends.is_empty()).then_some(Failure { healthy })
    }

    /// Stages up to the moment when everyone in production had the change.
    fn stages(&self, delivered: &[ChangeId], production: &EnvironmentName) -> (Vec<Stage>, Share) {
        type Seen = (Vec<Span>, Vec<(u64, u64)>);
        let mut seen: BTreeMap<(Station, Station, Kind), Seen> = BTreeMap::new();
        let end = Station::Everyone { environment: production.clone() };
        let (mut working, mut all) = (0, 0);
        for timeline in delivered.iter().filter_map(|id| self.timeline(*id)) {
            let until = timeline.marks.iter().position(|mark| mark.station == end).unwrap_or(0);
            for (segment, marks) in timeline.segments.iter().zip(timeline.marks.windows(2)).take(until) {
                let (spans, seqs) =
                    seen.entry((segment.from.clone(), segment.to.clone(), segment.kind)).or_default();
                spans.push(segment.took);
                seqs.push((marks[0].seq, marks[1].seq));
                all += segment.took.0;
                working += if segment.kind == Kind::Working { segment.took.0 } else { 0 };
            }
        }
        let stage = |((from, to, kind), (spans, seqs)): ((Station, Station, Kind), Seen)| Stage {
            from: from.words(),
            to: to.words(),
            kind,
            total: Span(spans.iter().map(|span| span.0).sum()),
            took: Durations::of(spans, seqs),
        };
        (seen.into_iter().map(stage).collect(), Share::of(working, all, Vec::new()))
    }

    fn under_way(&self, production: &EnvironmentName, now: Time) -> Vec<UnderWay> {
        let open = |id: &&ChangeId| {
            let done = self.carrier(**id, production).is_some_and(|d| d.everyone.is_some());
            !done && !self.changes.get(*id).is_some_and(|change| change.abandoned)
        };
        let last = |id: &ChangeId| {
            let mark = self.timeline(*id)?.marks.pop()?;
            Some(UnderWay {
                change: *id,
                since: mark.at,
                waits: now.since(mark.at),
                seq: mark.seq,
                station: mark.station,
            })
        };
        let mut found: Vec<UnderWay> = self.changes.keys().filter(open).filter_map(last).collect();
        found.sort_by_key(|change| (std::cmp::Reverse(change.waits), change.change));
        found
    }
}

struct Failure {
    /// When users were well again; none: they are not.
    healthy: Option<Point>,
}
