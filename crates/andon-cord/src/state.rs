//! The cord as the journal tells it: andons, open and past, and what has to be known to judge what happens next. Decides nothing.

use std::collections::BTreeMap;

use andon_model::event::{Cause, Drift, Event, Purpose, Recorded, Verdict};
use andon_model::{
    Actor, AndonId, ChangeId, DeploymentId, EnvironmentName, Oid, ReleaseId, RunId, ServiceName, Span, Time,
    UserName,
};
use serde::Serialize;

/// An incident: the line stopped.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Andon {
    /// Its number.
    pub id: AndonId,
    /// Who or what stopped the line.
    pub cause: Cause,
    /// In a sentence.
    pub why: String,
    /// The kind of trouble, for counting.
    pub tag: String,
    /// Changes that may be at fault.
    pub suspects: Vec<ChangeId>,
    /// When.
    pub pulled_at: Time,
    /// By whom.
    pub pulled_by: Actor,
    /// Place of the pull in the journal.
    pub seq: u64,
    /// Who has it.
    pub owner: Option<UserName>,
    /// When someone first had it.
    pub acknowledged: Option<Time>,
    /// What happened, in order.
    pub timeline: Vec<Entry>,
    /// The fix that landed last.
    pub fix: Option<Fix>,
    /// When the line ran again, by whom, and why.
    pub released: Option<Release>,
    /// Where it is: one andon is enough for a place.
    #[serde(skip)]
    pub(crate) place: Place,
}

/// A line of an andon's timeline.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entry {
    /// Place in the journal.
    pub seq: u64,
    /// When.
    pub at: Time,
    /// Who.
    pub by: Actor,
    /// What.
    pub what: String,
}

/// A change that names the andon and landed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Fix {
    /// The change.
    pub change: ChangeId,
    /// Where in the journal it landed: only what began after that can prove or disprove it.
    pub landed: u64,
    /// What failed after it all the same, as a sentence; none: believed fixed until proven.
    pub disproved: Option<String>,
    /// What proves it, as a sentence; the release of the cord follows.
    pub proven: Option<String>,
}

/// The end of an andon.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Release {
    /// When.
    pub at: Time,
    /// Place in the journal.
    pub seq: u64,
    /// By whom.
    pub by: Actor,
    /// Why.
    pub why: String,
}

impl Andon {
    /// Whether it still stops the line.
    pub fn is_open(&self) -> bool {
        self.released.is_none()
    }

    /// How long the line was stopped by it, so far.
    pub fn red_for(&self, now: Time) -> Span {
        self.released.as_ref().map_or(now, |release| release.at).since(self.pulled_at)
    }

    /// How long until someone had it; none while nobody has.
    pub fn acknowledged_after(&self) -> Option<Span> {
        self.acknowledged.map(|at| at.since(self.pulled_at))
    }
}

/// What an andon is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Place {
    /// Whatever a person means.
    #[default]
    Anything,
    /// Trunk.
    Trunk,
    /// An environment.
    Environment(EnvironmentName),
    /// A service whose users were moved.
    Service(EnvironmentName, ServiceName),
}

/// Why something has to wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hold {
    /// The andon.
    pub andon: AndonId,
    /// In a sentence.
    pub says: String,
}

#[derive(Debug, Clone)]
pub(crate) struct Deployed {
    pub environment: EnvironmentName,
    pub commit: Oid,
    pub changes: Vec<ChangeId>,
    pub started: u64,
    /// Its environment was destroyed, or a newer deployment took its place: its failure says nothing about now.
    pub overtaken: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Moved {
    pub deployment: DeploymentId,
    pub environment: EnvironmentName,
    pub service: ServiceName,
    pub started: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct TrunkRun {
    pub queued: u64,
    pub commit: Oid,
}

/// The cord of a project.
#[derive(Debug, Clone, Default)]
pub struct Cord {
    andons: BTreeMap<AndonId, Andon>,
    pub(crate) names: BTreeMap<ChangeId, AndonId>,
    /// Landings: where in the journal each commit became trunk.
    pub(crate) landed: BTreeMap<Oid, u64>,
    pub(crate) landings: Vec<(u64, ChangeId)>,
    pub(crate) deployments: BTreeMap<DeploymentId, Deployed>,
    pub(crate) releases: BTreeMap<ReleaseId, Moved>,
    pub(crate) trunk_runs: BTreeMap<RunId, TrunkRun>,
    pub(crate) green_trunk: u64,
    standing: BTreeMap<EnvironmentName, bool>,
    /// The last differences from code, by what differs where: the event and when.
    pub(crate) drifts: BTreeMap<(EnvironmentName, String), Vec<(u64, Time)>>,
}

/// So many times the same difference within this time is flapping: healing does not help.
pub(crate) const FLAPS: usize = 3;
const FLAPPING_WITHIN: Span = Span::secs(600);

/// What differs, whichever instance it is.
pub(crate) fn kind_of(drift: &Drift) -> String {
    match drift.instance {
        Some(instance) => drift.what.replace(&format!(" {instance}"), ""),
        None => drift.what.clone(),
    }
}

impl Cord {
    /// Whether the line is stopped.
    pub fn is_red(&self) -> bool {
        self.open().next().is_some()
    }

    /// Andons that stop the line, oldest first.
    pub fn open(&self) -> impl Iterator<Item = &Andon> {
        self.andons.values().filter(|andon| andon.is_open())
    }

    /// All andons, newest first.
    pub fn history(&self) -> impl Iterator<Item = &Andon> {
        self.andons.values().rev()
    }

    /// The andon of this number.
    pub fn get(&self, id: AndonId) -> Option<&Andon> {
        self.andons.get(&id)
    }

    /// The number that the next andon gets.
    pub fn next_id(&self) -> AndonId {
        self.andons.keys().next_back().map_or(AndonId(1), |id| id.next())
    }

    /// Why work has to wait that says it fixes `fixes`; none: it may go on. Only what names an open andon may.
    pub fn hold(&self, fixes: Option<AndonId>) -> Option<Hold> {
        let first = self.open().next()?;
        if fixes.is_some_and(|id| self.get(id).is_some_and(Andon::is_open)) {
            return None;
        }
        let (id, why, by, at) = (first.id, &first.why, &first.pulled_by, first.pulled_at.hh_mm());
        let owner = match &first.owner {
            Some(owner) => format!("{owner} has it"),
            None => "nobody has it yet".to_owned(),
        };
        let says = format!("{id} is open: {why}; pulled by {by} at {at}, {owner}");
        Some(Hold { andon: id, says })
    }

    /// How long the line was stopped between two moments, overlapping andons counted once.
    pub fn red_between(&self, from: Time, to: Time) -> Span {
        let mut total = 0;
        let mut until = from;
        // Andons are numbered in the order in which they began.
        for andon in self.andons.values() {
            let end = andon.released.as_ref().map_or(to, |release| release.at).min(to);
            let begin = andon.pulled_at.max(until);
            total += end.since(begin).0;
            until = until.max(end);
        }
        Span(total)
    }

    /// Whether the environment is one of those that `andon.yaml` declares. One's own experiment stops nobody.
    pub(crate) fn is_standing(&self, environment: &EnvironmentName) -> bool {
        self.standing.get(environment).copied().unwrap_or(true)
    }

    pub(crate) fn open_at(&self, place: &Place) -> Option<&Andon> {
        self.open().find(|andon| &andon.place == place)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Andon> {
        self.andons.values()
    }

    pub(crate) fn place(&self, cause: &Cause) -> Place {
        match cause {
            Cause::Person => Place::Anything,
            Cause::Trunk { .. } => Place::Trunk,
            Cause::Environment { environment, .. }
            | Cause::Deployment { environment, .. }
            | Cause::Drift { environment } => Place::Environment(environment.clone()),
            Cause::Release { release } => match self.releases.get(release) {
                Some(moved) => Place::Service(moved.environment.clone(), moved.service.clone()),
                None => Place::Anything,
            },
        }
    }

    /// Takes in what happened.
    pub fn evolve(&mut self, recorded: &Recorded) {
        let seq = recorded.seq;
        match &recorded.event {
            Event::ChangePushed(push) => match push.fixes {
                Some(andon) => drop(self.names.insert(push.change, andon)),
                None => drop(self.names.remove(&push.change)),
            },
            Event::RunQueued { run, purpose: Purpose::Trunk, commit, .. } => {
                self.trunk_runs.insert(*run, TrunkRun { queued: seq, commit: commit.clone() });
            }
            Event::RunFinished { run, verdict: Verdict::Green, .. } => {
                if let Some(found) = self.trunk_runs.get(run) {
                    self.green_trunk = self.green_trunk.max(found.queued);
                }
            }
            Event::Landed { change, commit, .. } => {
                self.landed.insert(commit.clone(), seq);
                self.landings.push((seq, *change));
            }
            Event::EnvironmentCreated { environment, standing, .. } => {
                self.standing.insert(environment.clone(), *standing);
            }
            Event::EnvironmentDestroyed { environment, .. } => {
                self.drifts.retain(|(place, _), _| place != environment);
                self.overtake(environment);
            }
            Event::DriftSeen { environment, drift } => {
                let seen = self.drifts.entry((environment.clone(), kind_of(drift))).or_default();
                seen.retain(|(_, then)| recorded.at.since(*then) < FLAPPING_WITHIN);
                seen.push((seq, recorded.at));
            }
            Event::DeploymentStarted { deployment, environment, commit, changes, .. } => {
                self.overtake(environment);
                let made = Deployed {
                    environment: environment.clone(),
                    commit: commit.clone(),
                    changes: changes.clone(),
                    started: seq,
                    overtaken: false,
                };
                self.deployments.insert(*deployment, made);
            }
            Event::ReleaseStarted { release, deployment, environment, service, .. } => {
                let made = Moved {
                    deployment: *deployment,
                    environment: environment.clone(),
                    service: service.clone(),
                    started: seq,
                };
                self.releases.insert(*release, made);
            }
            _ => self.andon(recorded),
        }
        self.weigh(recorded);
    }

    fn overtake(&mut self, environment: &EnvironmentName) {
        for older in self.deployments.values_mut().filter(|d| &d.environment == environment) {
            older.overtaken = true;
        }
    }

    fn andon(&mut self, recorded: &Recorded) {
        let Recorded { seq, at, by, .. } = recorded;
        if let Event::CordPulled { andon, cause, why, tag, suspects } = &recorded.event {
            let made = Andon {
                id: *andon,
                cause: cause.clone(),
                why: why.clone(),
                tag: tag.clone(),
                suspects: suspects.clone(),
                pulled_at: *at,
                pulled_by: by.clone(),
                seq: *seq,
                owner: None,
                acknowledged: None,
                timeline: Vec::new(),
                fix: None,
                released: None,
                place: self.place(cause),
            };
            self.andons.insert(*andon, made);
        }
        let (id, what) = match &recorded.event {
            Event::CordPulled { andon, why, .. } => (andon, format!("pulled the cord: {why}")),
            Event::CordAcknowledged { andon, owner } => (andon, format!("{owner} has it")),
            Event::CordNoted { andon, note } => (andon, note.clone()),
            Event::CordFixLanded { andon, change } => {
                (andon, format!("{change} landed as the fix; it is proven when what failed passes"))
            }
            Event::CordReleased { andon, why } => (andon, format!("released the cord: {why}")),
            _ => return,
        };
        let landed = |change: &ChangeId| {
            self.landings.iter().rev().find(|(_, landed)| landed == change).map(|(seq, _)| *seq)
        };
        let fix = match &recorded.event {
            Event::CordFixLanded { change, .. } => Some(Fix {
                change: *change,
                landed: landed(change).unwrap_or(*seq),
                disproved: None,
                proven: None,
            }),
            _ => None,
        };
        let Some(andon) = self.andons.get_mut(id) else { return };
        andon.timeline.push(Entry { seq: *seq, at: *at, by: by.clone(), what });
        match &recorded.event {
            Event::CordAcknowledged { owner, .. } => {
                andon.owner = Some(owner.clone());
                andon.acknowledged.get_or_insert(*at);
            }
            Event::CordFixLanded { .. } => andon.fix = fix,
            Event::CordReleased { why, .. } if andon.is_open() => {
                andon.released = Some(Release { at: *at, seq: *seq, by: by.clone(), why: why.clone() });
            }
            _ => {}
        }
    }

    /// Whether what happened proves or disproves a fix.
    fn weigh(&mut self, recorded: &Recorded) {
        let Some(evidence) = crate::rules::evidence(self, &recorded.event) else { return };
        for andon in self.andons.values_mut().filter(|andon| andon.is_open() && andon.place == evidence.place)
        {
            let Some(fix) = andon.fix.as_mut().filter(|fix| evidence.counts_for(fix)) else { continue };
            match evidence.passed {
                true if fix.disproved.is_none() => fix.proven = Some(evidence.says.clone()),
                true => {}
                false => (fix.disproved, fix.proven) = (Some(evidence.says.clone()), None),
            }
        }
    }
}
