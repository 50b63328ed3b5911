//! When the line stops by itself, and what proves or disproves a fix. Each rule has its number and its test.
//!
//! 1. A red trunk run, a failed deployment, a failed test of an environment and a release that was taken back stop the line, as far as
//!    the policy says so. One andon is enough for a place (trunk, an environment, a service whose users were moved).
//!    So does an environment in which the same thing differs from code three times within ten minutes, however often it is healed.
//! 2. What fails must have begun after the last andon of that place ended, or it is an echo. Failures of an overtaken deployment and of an
//!    environment that somebody made on demand stop nobody.
//! 3. A fix that landed is a hypothesis. It is proven only by a pass, in the place that failed, of something that holds the fix and began
//!    after it landed; a failure of such a thing disproves it.
//! 4. What a person pulled only a person releases: no test knows what was meant.
//! 5. Everything here may be asked again about the same event and then answers nothing.

use andon_model::event::{Cause, Event, Recorded, ReleaseEnd, Verdict};
use andon_model::{ChangeId, DeploymentId, Oid, RunId};

use crate::state::{Andon, Cord, FLAPS, Fix, Place, kind_of};

/// What stops the line by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PullOn {
    /// A red run on trunk.
    pub trunk: bool,
    /// A failed deployment, or failed tests of an environment.
    pub environment: bool,
    /// A release that the immune system took back.
    pub production: bool,
}

impl Default for PullOn {
    fn default() -> PullOn {
        PullOn { trunk: true, environment: true, production: true }
    }
}

/// The pull that follows from what happened, if one does. `cord` has taken the event in.
pub fn react(cord: &Cord, policy: &PullOn, recorded: &Recorded) -> Option<Event> {
    let (cause, why, tag, suspects, began) = match &recorded.event {
        Event::RunFinished { run, verdict: Verdict::Red { headline, .. }, .. } if policy.trunk => {
            let began = cord.trunk_runs.get(run)?.queued;
            (
                Cause::Trunk { run: *run },
                format!("trunk is red: {headline}"),
                "trunk",
                landed_unproven(cord, began),
                began,
            )
        }
        Event::DeploymentFinished { deployment, ok: false, why } if policy.environment => {
            let deployed = cord.deployments.get(deployment)?;
            let environment = deployed.environment.clone();
            let text = format!("{deployment} did not come up in {environment}: {why}");
            let cause = Cause::Deployment { environment, deployment: *deployment };
            (cause, text, "deployment", of_deployment(cord, *deployment)?, deployed.started)
        }
        Event::EnvironmentTested { deployment, environment, ok: false, why, .. } if policy.environment => {
            let text = format!("{environment} tests failed: {why}");
            let cause = Cause::Environment { environment: environment.clone(), deployment: *deployment };
            (
                cause,
                text,
                "environment",
                of_deployment(cord, *deployment)?,
                cord.deployments.get(deployment)?.started,
            )
        }
        Event::ReleaseFinished { release, how: ReleaseEnd::TakenBack, why, .. } if policy.production => {
            let moved = cord.releases.get(release)?;
            if !cord.is_standing(&moved.environment) {
                return None;
            }
            let text =
                format!("{release} of {} in {} was taken back: {why}", moved.service, moved.environment);
            let suspects =
                cord.deployments.get(&moved.deployment).map(|d| d.changes.clone()).unwrap_or_default();
            (Cause::Release { release: *release }, text, "release", suspects, moved.started)
        }
        Event::DriftSeen { environment, drift } if policy.environment && cord.is_standing(environment) => {
            let seen = cord.drifts.get(&(environment.clone(), kind_of(drift)))?;
            let began = seen.len().checked_sub(FLAPS).and_then(|at| seen.get(at))?.0;
            let what = kind_of(drift);
            let why = format!(
                "{environment} drifts again and again: {what} was {}, is {}",
                drift.before, drift.after
            );
            (Cause::Drift { environment: environment.clone() }, why, "drift", Vec::new(), began)
        }
        _ => return None,
    };
    let place = cord.place(&cause);
    // An environment may flap again another time; everything else happens once.
    let repeats = matches!(cause, Cause::Drift { .. });
    let known = (!repeats && cord.all().any(|andon| andon.cause == cause)) || cord.open_at(&place).is_some();
    let echo = cord
        .all()
        .filter(|andon| andon.place == place)
        .filter_map(|andon| andon.released.as_ref())
        .any(|r| r.seq > began);
    let pulled = Event::CordPulled {
        andon: cord.next_id(),
        cause,
        why: shortened(&why),
        tag: tag.to_owned(),
        suspects,
    };
    (!known && !echo).then_some(pulled)
}

/// What follows from what happened for andons that are open: a fix landed, was disproved (a note), or was proven (the release). `cord` has
/// taken the event in.
pub fn recover(cord: &Cord, recorded: &Recorded) -> Vec<Event> {
    if let Event::Landed { change, .. } = &recorded.event {
        let named = cord.names.get(change).and_then(|id| cord.get(*id)).filter(|andon| andon.is_open());
        let new = named.filter(|andon| andon.fix.as_ref().is_none_or(|fix| fix.change != *change));
        return new
            .map(|andon| Event::CordFixLanded { andon: andon.id, change: *change })
            .into_iter()
            .collect();
    }
    let Some(evidence) = evidence(cord, &recorded.event) else { return Vec::new() };
    let at_place = cord.open().filter(|andon| andon.place == evidence.place);
    at_place.filter_map(|andon| verdict(andon, &evidence)).collect()
}

fn verdict(andon: &Andon, evidence: &Evidence) -> Option<Event> {
    let fix = andon.fix.as_ref().filter(|fix| evidence.counts_for(fix))?;
    if evidence.passed {
        let proven = fix.proven.as_ref().filter(|says| **says == evidence.says)?;
        let why = format!("{} fixed it: {proven}", fix.change);
        return Some(Event::CordReleased { andon: andon.id, why });
    }
    let note = format!("{} did not fix it: {}", fix.change, evidence.says);
    let said = andon.timeline.iter().any(|entry| entry.what == note);
    (!said).then_some(Event::CordNoted { andon: andon.id, note })
}

/// Something that passed or failed in a place.
pub(crate) struct Evidence {
    pub place: Place,
    pub passed: bool,
    /// In a sentence.
    pub says: String,
    began: u64,
    /// Where in the journal its newest change landed; none: unknown, as for what was on trunk before the line existed.
    holds: Option<u64>,
}

impl Evidence {
    /// Whether it holds the fix and began after the fix landed.
    pub fn counts_for(&self, fix: &Fix) -> bool {
        self.began > fix.landed && self.holds.is_some_and(|newest| newest >= fix.landed)
    }
}

pub(crate) fn evidence(cord: &Cord, event: &Event) -> Option<Evidence> {
    let of = |place: Place, passed, says: String, began: u64, commit: &Oid| {
        Some(Evidence {
            place,
            passed,
            says: shortened(&says),
            began,
            holds: cord.landed.get(commit).copied(),
        })
    };
    match event {
        Event::RunFinished { run, verdict, .. } => {
            let trunk = cord.trunk_runs.get(run)?;
            let (passed, says) = match verdict {
                Verdict::Green => (true, format!("{run} on trunk is green")),
                Verdict::Red { headline, .. } => (false, format!("{run} on trunk is red: {headline}")),
                Verdict::Broken { .. } => return None,
            };
            of(Place::Trunk, passed, says, trunk.queued, &trunk.commit)
        }
        Event::DeploymentFinished { deployment, ok: false, why } => {
            let deployed = cord.deployments.get(deployment).filter(|d| !d.overtaken)?;
            let says = format!("{deployment} did not come up in {}: {why}", deployed.environment);
            of(
                Place::Environment(deployed.environment.clone()),
                false,
                says,
                deployed.started,
                &deployed.commit,
            )
        }
        Event::EnvironmentTested { deployment, environment, ok, why, .. } => {
            let deployed = cord.deployments.get(deployment).filter(|d| *ok || !d.overtaken)?;
            let says = match ok {
                true => format!("the tests of {environment} passed with {deployment}"),
                false => format!("the tests of {environment} failed with {deployment}: {why}"),
            };
            of(Place::Environment(environment.clone()), *ok, says, deployed.started, &deployed.commit)
        }
        Event::ReleaseFinished { release, how, why, .. } => {
            let moved = cord.releases.get(release)?;
            let (service, environment) = (&moved.service, &moved.environment);
            let (passed, says) = match how {
                ReleaseEnd::Released => {
                    (true, format!("{release} of {service} in {environment} reached everyone"))
                }
                ReleaseEnd::TakenBack => {
                    (false, format!("{release} of {service} in {environment} was taken back: {why}"))
                }
                ReleaseEnd::Aborted | ReleaseEnd::DarkEnded => return None,
            };
            let commit = &cord.deployments.get(&moved.deployment)?.commit;
            of(Place::Service(environment.clone(), service.clone()), passed, says, moved.started, commit)
        }
        _ => None,
    }
}

/// The changes of a deployment; none when its failure stops nobody.
fn of_deployment(cord: &Cord, id: DeploymentId) -> Option<Vec<ChangeId>> {
    let deployed = cord.deployments.get(&id)?;
    (!deployed.overtaken && cord.is_standing(&deployed.environment)).then(|| deployed.changes.clone())
}

/// Changes that landed since trunk was last seen green, up to the run that is red.
fn landed_unproven(cord: &Cord, queued: u64) -> Vec<ChangeId> {
    let since = |seq: &u64| (cord.green_trunk..queued).contains(seq);
    cord.landings.iter().filter(|(seq, _)| since(seq)).map(|(_, change)| *change).collect()
}

fn shortened(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    match line.char_indices().nth(300) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line.to_owned(),
    }
}

/// The run that an andon is about, for links.
pub fn run_of(cause: &Cause) -> Option<RunId> {
    match cause {
        Cause::Trunk { run } => Some(*run),
        _ => None,
    }
}
