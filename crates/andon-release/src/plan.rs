//! What every release does next. Pure: the releases, what is observed and the time in, decisions out.
//!
//! The rules, in order:
//! 1. A new revision without a healthy instance gets nobody; one that had users gives them back.
//! 2. A proven regression takes the release back, or pauses it where the strategy says so or the old
//!    revision has no healthy instance.
//!    Where the old revision cannot serve any more, it is frozen instead: everybody stays where they are.
//! 3. A paused or frozen release and one that the stopped line holds go no further. Rules 1 and 2 hold for them all
//!    the same.
//! 4. Where nobody is served yet, everyone is moved at once.
//! 5. A stage that has ended is followed by the next one, and the last one by everyone.

use std::collections::BTreeMap;

use andon_model::event::{Event, ReleaseEnd};
use andon_model::strategy::{Dark, OnInconclusive, OnRegression, Strategy};
use andon_model::{ReleaseId, Time};
use serde_json::Value;

use crate::analysis::Outcome;
use crate::evidence::{self, Nats, Share};
use crate::explain::{Explanation, whole};
use crate::state::{EVERYONE, Ends, Fact, Release, Releases, Stage, stages};

/// What is known of a release at this moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Observed {
    /// The newest look of the analysis.
    pub look: Option<Explanation>,
    /// Answers of mirrored requests.
    pub mirror: Mirror,
    /// Whether the new revision has a healthy instance.
    pub candidate_healthy: bool,
    /// Whether the old revision has one.
    pub stable_healthy: bool,
    /// Whether the stopped line holds it; a release that brings the fix is not held.
    pub held: bool,
    /// Why users cannot go back to the old revision, where they cannot: what it needs was taken away.
    pub lost: Option<String>,
}

/// Answers of mirrored requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mirror {
    /// Answers of both revisions that were compared.
    pub compared: u64,
    /// Those that differed.
    pub different: u64,
}

/// What is to be done. The line persists each as an event, then acts.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// Move users until this share is on the new revision.
    SetWeight {
        /// The release.
        release: ReleaseId,
        /// The share in basis points.
        basis_points: u16,
        /// The reason.
        why: String,
    },
    /// Something inside the release happened.
    Fact(ReleaseId, Fact),
    /// It is over.
    Finish {
        /// The release.
        release: ReleaseId,
        /// How.
        how: ReleaseEnd,
        /// The reason.
        why: String,
        /// The counts that it rests on; null without any.
        explanation: Value,
    },
}

impl From<Decision> for Event {
    fn from(decision: Decision) -> Event {
        match decision {
            Decision::SetWeight { release, basis_points, why } => {
                Event::WeightChanged { release, basis_points, why }
            }
            Decision::Fact(release, fact) => {
                Event::ReleaseMoved { release, fact: serde_json::to_value(fact).unwrap_or_default() }
            }
            Decision::Finish { release, how, why, explanation } => {
                Event::ReleaseFinished { release, how, why, explanation }
            }
        }
    }
}

/// The next decisions. A release of which nothing is observed is left as it is.
pub fn plan(releases: &Releases, observed: &BTreeMap<ReleaseId, Observed>, now: Time) -> Vec<Decision> {
    let known = releases.under_way().filter_map(|release| Some((release, observed.get(&release.id)?)));
    known.flat_map(|(release, seen)| one(release, seen, now)).collect()
}

fn one(release: &Release, seen: &Observed, now: Time) -> Vec<Decision> {
    let who = release.to.commit();
    if !seen.candidate_healthy {
        let begun = release.weight_bp > 0 || release.stage.is_some();
        let why = format!("{who} has no healthy instance left");
        return if begun { take_back(release, seen, why, look(seen)) } else { Vec::new() };
    }
    if let Some(proof) = regression(release, seen) {
        return on_regression(release, seen, proof);
    }
    if release.paused.is_some() || release.frozen.is_some() || held(release, seen) {
        return Vec::new();
    }
    if release.from.is_none() {
        return everyone(release, seen, "nobody was served here before".into());
    }
    if let Strategy::Dark(dark) = &release.strategy {
        return mirrored(release, dark, seen, now);
    }
    match (release.stage, release.current()) {
        (None, _) => advance(release, seen, format!("{} begins", release.strategy.kind())),
        (Some(_), None) => everyone(release, seen, "every step is done".into()),
        (Some(_), Some(stage)) => match ended(release, stage, seen, now) {
            Some(why) => advance(release, seen, why),
            None if release.weight_bp < stage.weight_bp => {
                vec![weight(release, stage.weight_bp, "the step asks for it".into())]
            }
            None => Vec::new(),
        },
    }
}

/// Whether the stopped line holds this release. The way back is never held, nor a service that nobody is served by: a rebuilt
/// environment comes up while the line is red.
pub(crate) fn held(release: &Release, seen: &Observed) -> bool {
    seen.held && !release.leads_back() && release.from.is_some()
}

/// The look that proves the release worse, unless a person overruled it.
pub(crate) fn regression<'a>(release: &Release, seen: &'a Observed) -> Option<&'a Explanation> {
    release.strategy.guard()?;
    let counts = release.weight_bp > 0 && !release.overruled;
    seen.look.as_ref().filter(|look| counts && look.outcome == Outcome::Regression)
}

fn on_regression(release: &Release, seen: &Observed, proof: &Explanation) -> Vec<Decision> {
    let asks = release.strategy.guard().map(|guard| guard.on_regression);
    if asks == Some(OnRegression::RollBack) && seen.stable_healthy {
        return take_back(release, seen, proof.sentence.clone(), look(seen));
    }
    if release.paused.is_some() {
        return Vec::new();
    }
    let why = match seen.stable_healthy {
        true => proof.sentence.clone(),
        false => {
            format!("{}; not taken back, since the old revision has no healthy instance", proof.sentence)
        }
    };
    vec![Decision::Fact(release.id, Fact::Paused { why, regression: true })]
}

/// Why the stage is over; none while it lasts.
fn ended(release: &Release, stage: Stage, seen: &Observed, now: Time) -> Option<String> {
    let spent = now.since(release.since);
    match stage.ends {
        Ends::After(time) => (spent >= time).then(|| format!("{time} without a finding")),
        Ends::Approved => release.approved.then(|| "approved".into()),
        Ends::Certified(cap) => {
            let guard = release.strategy.guard()?;
            if let Some(proof) = certified(stage, seen) {
                return Some(proof.sentence.clone());
            }
            (spent >= cap && guard.on_inconclusive == OnInconclusive::Promote)
                .then(|| format!("not proven healthy within {cap}; goes on, as on_inconclusive says"))
        }
    }
}

/// The proof of health, if it is about the users of this stage and not of one before.
fn certified(stage: Stage, seen: &Observed) -> Option<&Explanation> {
    let of_stage =
        |look: &Explanation| look.sample.epochs.last().is_some_and(|e| e.weight_bp == stage.weight_bp);
    seen.look.as_ref().filter(|look| look.outcome == Outcome::Certified && of_stage(look))
}

/// The next stage, or everyone after the last one.
pub(crate) fn advance(release: &Release, seen: &Observed, why: String) -> Vec<Decision> {
    let next = release.stage.map_or(0, |stage| stage.saturating_add(1));
    match stages(&release.strategy).get(next as usize) {
        Some(stage) => {
            let mut decisions =
                vec![Decision::Fact(release.id, Fact::StageStarted { stage: next, why: why.clone() })];
            if stage.weight_bp > release.weight_bp {
                decisions.push(weight(release, stage.weight_bp, why));
            }
            decisions
        }
        None => everyone(release, seen, why),
    }
}

fn everyone(release: &Release, seen: &Observed, why: String) -> Vec<Decision> {
    let who = release.to.commit();
    let finish = Decision::Finish {
        release: release.id,
        how: ReleaseEnd::Released,
        why: format!("everyone is on {who}: {why}"),
        explanation: look(seen),
    };
    match release.weight_bp {
        EVERYONE => vec![finish],
        _ => vec![weight(release, EVERYONE, why), finish],
    }
}

fn take_back(release: &Release, seen: &Observed, why: String, explanation: Value) -> Vec<Decision> {
    // Who is still at the old revision goes nowhere: only users of the new one could be taken back.
    if let Some(lost) = seen.lost.as_ref().filter(|_| release.weight_bp > 0) {
        let why = format!("{why}; not taken back: {lost}");
        let frozen = Decision::Fact(release.id, Fact::Frozen { why });
        return if release.frozen.is_some() { Vec::new() } else { vec![frozen] };
    }
    end_at_nobody(release, ReleaseEnd::TakenBack, why, explanation)
}

/// Nobody is on the new revision any more, and the release is over.
pub(crate) fn end_at_nobody(
    release: &Release,
    how: ReleaseEnd,
    why: String,
    explanation: Value,
) -> Vec<Decision> {
    let mut decisions = Vec::new();
    if release.weight_bp > 0 {
        decisions.push(weight(release, 0, why.clone()));
    }
    decisions.push(Decision::Finish { release: release.id, how, why, explanation });
    decisions
}

fn weight(release: &Release, basis_points: u16, why: String) -> Decision {
    Decision::SetWeight { release: release.id, basis_points, why }
}

pub(crate) fn look(seen: &Observed) -> Value {
    seen.look.as_ref().and_then(|look| serde_json::to_value(look).ok()).unwrap_or_default()
}

/// A dark launch: begins, ends by time, or is taken back when the answers are proven to differ more than
/// allowed.
fn mirrored(release: &Release, dark: &Dark, seen: &Observed, now: Time) -> Vec<Decision> {
    // ln(1,000): it is looked at often, and a wrong alarm costs a launch.
    const SURE: Nats = Nats(6.9);
    if release.stage.is_none() {
        let why = format!("copies of {} of the requests go to {}", dark.mirror, release.to.commit());
        return vec![Decision::Fact(release.id, Fact::StageStarted { stage: 0, why })];
    }
    let Mirror { compared, different } = seen.mirror;
    let share = Share { of: compared, hit: different.min(compared) };
    let over = now.since(release.since) >= dark.time;
    let too_many =
        if over { share.rate() } else { evidence::bound(share, SURE, false) } > dark.max_different.fraction();
    if dark.compare && too_many {
        let why = format!("{}, more than {}", differ(seen.mirror), dark.max_different);
        return take_back(release, seen, why, mirror_json(seen.mirror));
    }
    if over { end_dark(release, dark, seen.mirror) } else { Vec::new() }
}

/// The end of a dark launch that went well.
pub(crate) fn end_dark(release: &Release, dark: &Dark, mirror: Mirror) -> Vec<Decision> {
    let why = match (dark.compare, mirror.compared) {
        (false, _) => "mirrored, answers not compared".into(),
        (true, 0) => "mirrored, but no request came whose answers could be compared".into(),
        (true, _) => differ(mirror),
    };
    end_at_nobody(release, ReleaseEnd::DarkEnded, why, mirror_json(mirror))
}

/// `3 of 1,204 answers differ`.
pub(crate) fn differ(mirror: Mirror) -> String {
    format!("{} of {} answers differ", whole(mirror.different), whole(mirror.compared))
}

fn mirror_json(Mirror { compared, different }: Mirror) -> Value {
    serde_json::json!({ "compared": compared, "different": different })
}

#[cfg(test)]
mod tests;
