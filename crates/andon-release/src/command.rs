//! What people may ask of a release, and why they are refused. Pure: each returns decisions for the line to
//! persist.

use andon_model::event::{ReleaseEnd, Revision};
use andon_model::strategy::Strategy;
use andon_model::{DeploymentId, EnvironmentName, ReleaseId, ServiceName};

use crate::plan::{Decision, Observed, advance, end_at_nobody, end_dark, held, look, regression};
use crate::state::{Ends, Fact, Release, Releases};

/// Why a command is refused: what, why, and what to do instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}\nhint: {hint}")]
pub struct Refusal {
    /// What cannot be done, and why.
    pub what: String,
    /// What to do instead.
    pub hint: String,
}

fn refuse<T>(what: impl Into<String>, hint: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { what: what.into(), hint: hint.into() })
}

fn under_way(release: &Release) -> Result<(), Refusal> {
    match &release.ended {
        None => Ok(()),
        Some(end) => {
            refuse(format!("{} is over: {}", release.id, end.why), "start a new release, or roll back")
        }
    }
}

/// To the next step, or to everyone after the last one. A dark launch ends.
pub fn promote(release: &Release, seen: &Observed) -> Result<Vec<Decision>, Refusal> {
    under_way(release)?;
    let id = release.id;
    if !seen.candidate_healthy {
        let what = format!("{id} cannot go on: {} has no healthy instance", release.to.commit());
        return refuse(what, "look at its log; abort the release to end it");
    }
    if let Some(proof) = regression(release, seen) {
        return refuse(
            format!("{id} is proven worse: {}", proof.sentence),
            "abort it, or resume it to overrule the finding",
        );
    }
    if let Some(pause) = &release.paused {
        return refuse(format!("{id} is paused: {}", pause.why), "resume it first");
    }
    if let Some(frozen) = &release.frozen {
        return refuse(format!("{id} is frozen: {}", frozen.why), "resume it: that overrules the finding");
    }
    if held(release, seen) {
        return refuse(
            format!("{id} is held: the line is stopped"),
            "release the cord first, or abort this release",
        );
    }
    match &release.strategy {
        Strategy::Dark(dark) => Ok(end_dark(release, dark, seen.mirror)),
        _ => Ok(advance(release, seen, "promoted".into())),
    }
}

/// The ramp stands still. The immune system keeps watching.
pub fn pause(release: &Release, why: &str) -> Result<Vec<Decision>, Refusal> {
    under_way(release)?;
    if let Some(pause) = &release.paused {
        return refuse(
            format!("{} is paused already, by {}: {}", release.id, pause.by, pause.why),
            "nothing is to be done",
        );
    }
    Ok(vec![Decision::Fact(release.id, Fact::Paused { why: why.to_owned(), regression: false })])
}

/// The ramp goes on. After a pause by the immune system this overrules its finding for the rest of the
/// release.
pub fn resume(release: &Release) -> Result<Vec<Decision>, Refusal> {
    under_way(release)?;
    if release.paused.is_none() && release.frozen.is_none() {
        return refuse(format!("{} is not paused", release.id), "nothing is to be done");
    }
    Ok(vec![Decision::Fact(release.id, Fact::Resumed)])
}

/// Everyone goes back to the old revision, and the release is over.
pub fn abort(release: &Release, seen: &Observed, why: &str) -> Result<Vec<Decision>, Refusal> {
    under_way(release)?;
    if release.weight_bp > 0 && release.from.is_some() && !seen.stable_healthy && seen.candidate_healthy {
        let what = format!("{} cannot be taken back: the old revision has no healthy instance", release.id);
        return refuse(what, "scale or rebuild the old revision first, or promote the release");
    }
    if let Some(lost) = seen.lost.as_ref().filter(|_| release.weight_bp > 0) {
        let what = format!("{} cannot be taken back: {lost}", release.id);
        return refuse(what, "go forward: promote it, or land a change that mends it");
    }
    Ok(end_at_nobody(release, ReleaseEnd::Aborted, why.to_owned(), look(seen)))
}

/// Lets a step go on that waits for a person.
pub fn approve(release: &Release) -> Result<Vec<Decision>, Refusal> {
    under_way(release)?;
    match release.current() {
        Some(stage) if stage.ends == Ends::Approved && !release.approved => {
            Ok(vec![Decision::Fact(release.id, Fact::Approved)])
        }
        Some(stage) if stage.ends == Ends::Approved => {
            refuse(format!("{} is approved already", release.id), "nothing is to be done")
        }
        _ => {
            refuse(format!("{} waits for no approval now", release.id), "promote it to go on before its time")
        }
    }
}

/// The release that leads back: everyone at once, under the strategy name [`crate::state::ROLL_BACK`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WayBack {
    /// The release that it leads back from.
    pub behind: ReleaseId,
    /// The revision that serves now.
    pub from: Revision,
    /// The revision that served before.
    pub to: Revision,
    /// The deployment that brought it.
    pub deployment: DeploymentId,
}

/// Whether there is a way back from what serves, and where it leads. `healthy` says whether a revision still
/// has a healthy instance.
pub fn roll_back(
    releases: &Releases,
    environment: &EnvironmentName,
    service: &ServiceName,
    healthy: impl Fn(&Revision) -> bool,
) -> Result<WayBack, Refusal> {
    if let Some(open) = releases.of(environment, service) {
        return refuse(
            format!("{} is still moving users of {service}", open.id),
            format!("abort {}: that is the way back", open.id),
        );
    }
    let here = |r: &&Release| &r.environment == environment && &r.service == service;
    let moved = |r: &&Release| r.ended.as_ref().is_some_and(|end| end.how == ReleaseEnd::Released);
    let Some(last) = releases.iter().rev().filter(here).find(moved) else {
        return refuse(
            format!("nothing was released for {service} in {environment}"),
            "there is nothing to go back from",
        );
    };
    let brought = |revision: &Revision| {
        releases.iter().rev().filter(here).find(|r| &r.to == revision).map(|r| r.deployment)
    };
    let Some((to, deployment)) = last.from.as_ref().and_then(|from| Some((from, brought(from)?))) else {
        return refuse(
            format!("{} is the first revision of {service} in {environment}", last.to.commit()),
            "land a revert instead",
        );
    };
    if !healthy(to) {
        let what = format!("the revision before, {}, has no healthy instance any more", to.commit());
        return refuse(what, "deploy its artifact again, or land a revert");
    }
    Ok(WayBack { behind: last.id, from: last.to.clone(), to: to.clone(), deployment })
}
