//! Releases as the journal tells them: a fold over its events, and the stages that a strategy stands for.
//! Decides nothing.

use std::collections::BTreeMap;

use andon_model::event::{Drift, Event, Recorded, ReleaseEnd, Revision};
use andon_model::strategy::{Strategy, Until};
use andon_model::{Actor, DeploymentId, EnvironmentName, InstanceId, ReleaseId, ServiceName, Span, Time};
use serde::{Deserialize, Serialize};

use crate::sample::Exits;

/// All users, in basis points.
pub const EVERYONE: u16 = 10_000;
/// The strategy name of a release that leads back to the revision before. A stopped line does not hold it.
pub const ROLL_BACK: &str = "roll-back";

/// What happened inside a release, beside its weight and its end. Kept in the journal as `ReleaseMoved`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Fact {
    /// A stage began; counts from 0.
    StageStarted {
        /// Which.
        stage: u32,
        /// What ended the one before.
        why: String,
    },
    /// The ramp stands still until someone resumes it.
    Paused {
        /// The reason.
        why: String,
        /// True: the immune system did it.
        regression: bool,
    },
    /// The ramp goes on. After a pause by the immune system this overrules its finding.
    Resumed,
    /// A person let the stage that waits for it go on.
    Approved,
    /// It was to be taken back, and the revision before cannot serve any more: everybody stays where they are. It is told of a release that
    /// is over, too: there is no way back behind it.
    Frozen {
        /// The reason.
        why: String,
    },
}

/// What ends a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    /// Time.
    After(Span),
    /// A proof of health; the cap says how long it is waited for.
    Certified(Span),
    /// A person.
    Approved,
}

/// A stretch of a release with one weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stage {
    /// Share of users on the new revision, in basis points.
    pub weight_bp: u16,
    /// What ends it.
    pub ends: Ends,
}

/// The stages before everyone is moved.
pub fn stages(strategy: &Strategy) -> Vec<Stage> {
    match strategy {
        Strategy::AllAtOnce | Strategy::BlueGreen(_) => Vec::new(),
        Strategy::Rolling { rolling, .. } => {
            let step = usize::from(rolling.step.basis_points().max(1));
            let weights = (step..usize::from(EVERYONE)).step_by(step);
            weights
                .map(|weight| Stage { weight_bp: weight as u16, ends: Ends::After(rolling.each) })
                .collect()
        }
        Strategy::Canary { steps, .. } => {
            let one = |step: &andon_model::strategy::Step| Stage {
                weight_bp: step.weight.basis_points(),
                ends: match (step.until, step.time) {
                    (Some(Until::Certified), time) => Ends::Certified(time.unwrap_or(Span(0))),
                    (Some(Until::Approved), _) | (None, None) => Ends::Approved,
                    (None, Some(time)) => Ends::After(time),
                },
            };
            steps.iter().map(one).collect()
        }
        Strategy::Dark(dark) => vec![Stage { weight_bp: 0, ends: Ends::After(dark.time) }],
    }
}

/// Why a release stands still.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Pause {
    /// Who paused it.
    pub by: Actor,
    /// The reason.
    pub why: String,
    /// When.
    pub at: Time,
    /// True: the immune system did it.
    pub regression: bool,
}

/// How a release ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Ended {
    /// How.
    pub how: ReleaseEnd,
    /// The reason.
    pub why: String,
    /// When.
    pub at: Time,
}

/// A release.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Release {
    /// Its number.
    pub id: ReleaseId,
    /// The deployment that brought the new revision.
    pub deployment: DeploymentId,
    /// Where.
    pub environment: EnvironmentName,
    /// Of which service.
    pub service: ServiceName,
    /// The revision that users come from; none: the service is new here.
    pub from: Option<Revision>,
    /// The revision that they are moved to.
    pub to: Revision,
    /// How.
    pub strategy: Strategy,
    /// The strategy's name in `andon.yaml`.
    pub strategy_name: String,
    /// Quantiles of the old revision's answer times in microseconds, frozen when it started.
    pub limits_us: Vec<u64>,
    /// Instances that had been healthy and were lost while both revisions had so many.
    pub exits: Vec<Exits>,
    /// When it started.
    pub started: Time,
    /// The stage it is in, from 0; none before the first.
    pub stage: Option<u32>,
    /// Since when it is in it; time spent in a pause is left out.
    pub since: Time,
    /// Whether a person let this stage go on.
    pub approved: bool,
    /// Why it stands still.
    pub paused: Option<Pause>,
    /// Since when, and why, there is no way back and no way on by itself.
    pub frozen: Option<Pause>,
    /// A person resumed it against the immune system, which is silent since.
    pub overruled: bool,
    /// Share of users on the new revision, in basis points.
    pub weight_bp: u16,
    /// How it ended.
    pub ended: Option<Ended>,
}

impl Release {
    /// The stage it is in.
    pub fn current(&self) -> Option<Stage> {
        stages(&self.strategy).get(self.stage? as usize).copied()
    }

    /// Whether it leads back to the revision before.
    pub fn leads_back(&self) -> bool {
        self.strategy_name == ROLL_BACK
    }

    fn take_in(&mut self, fact: Fact, by: &Actor, at: Time) {
        match fact {
            Fact::StageStarted { stage, .. } => {
                (self.stage, self.since, self.approved) = (Some(stage), at, false);
            }
            Fact::Paused { why, regression } => {
                self.paused.get_or_insert(Pause { by: by.clone(), why, at, regression });
            }
            Fact::Frozen { why } => {
                self.frozen.get_or_insert(Pause { by: by.clone(), why, at, regression: true });
            }
            Fact::Resumed => {
                // Going on where there is no way back overrules what wanted it.
                self.overruled |= self.frozen.take().is_some();
                if let Some(pause) = self.paused.take() {
                    self.since = self.since + at.since(pause.at.max(self.since));
                    self.overruled |= pause.regression;
                }
            }
            Fact::Approved => self.approved = true,
        }
    }
}

/// All releases of a project.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Releases {
    all: BTreeMap<ReleaseId, Release>,
    /// Instances that live, of whom they are, and whether they ever were healthy.
    instances: BTreeMap<InstanceId, Lives>,
}

#[derive(Debug, Clone, PartialEq)]
struct Lives {
    environment: EnvironmentName,
    service: ServiceName,
    revision: Revision,
    healthy: bool,
}

impl Releases {
    /// The number that the next release gets.
    pub fn next(&self) -> ReleaseId {
        self.all.keys().next_back().map_or(ReleaseId(1), |id| id.next())
    }

    /// One release.
    pub fn get(&self, id: ReleaseId) -> Option<&Release> {
        self.all.get(&id)
    }

    /// All of them, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Release> {
        self.all.values()
    }

    /// Those under way.
    pub fn under_way(&self) -> impl Iterator<Item = &Release> {
        self.iter().filter(|release| release.ended.is_none())
    }

    /// The release under way of one service in one environment.
    pub fn of(&self, environment: &EnvironmentName, service: &ServiceName) -> Option<&Release> {
        self.under_way().find(|r| &r.environment == environment && &r.service == service)
    }

    /// Takes in what happened. An event that does not fit (an unknown release, one that is over, a fact that
    /// cannot be read) changes nothing.
    pub fn evolve(&mut self, recorded: &Recorded) {
        let at = recorded.at;
        match &recorded.event {
            Event::ReleaseStarted {
                release,
                deployment,
                environment,
                service,
                from,
                to,
                strategy,
                strategy_name,
                limits_us,
            } => {
                let made = Release {
                    id: *release,
                    deployment: *deployment,
                    environment: environment.clone(),
                    service: service.clone(),
                    from: from.clone(),
                    to: to.clone(),
                    strategy: strategy.clone(),
                    strategy_name: strategy_name.clone(),
                    limits_us: limits_us.clone(),
                    exits: Vec::new(),
                    started: at,
                    stage: None,
                    since: at,
                    approved: false,
                    paused: None,
                    frozen: None,
                    overruled: false,
                    weight_bp: 0,
                    ended: None,
                };
                self.all.insert(*release, made);
            }
            Event::ReleaseMoved { release, fact } => {
                let Ok(fact) = Fact::deserialize(fact) else { return };
                let found = match fact {
                    Fact::Frozen { .. } => self.all.get_mut(release),
                    _ => self.open(*release),
                };
                if let Some(release) = found {
                    release.take_in(fact, &recorded.by, at);
                }
            }
            Event::WeightChanged { release, basis_points, .. } => {
                if let Some(release) = self.open(*release) {
                    release.weight_bp = (*basis_points).min(EVERYONE);
                }
            }
            Event::ReleaseFinished { release, how, why, .. } => {
                if let Some(release) = self.open(*release) {
                    release.ended = Some(Ended { how: *how, why: why.clone(), at });
                }
            }
            Event::InstancePlanned { instance, environment, service, revision, .. } => {
                let lives = Lives {
                    environment: environment.clone(),
                    service: service.clone(),
                    revision: revision.clone(),
                    healthy: false,
                };
                self.instances.insert(*instance, lives);
            }
            Event::InstanceHealthy { instance } => {
                if let Some(lives) = self.instances.get_mut(instance) {
                    lives.healthy = true;
                }
            }
            Event::DriftSeen { drift, .. } => self.exited(drift),
            Event::InstanceRetired { instance, .. } => {
                self.instances.remove(instance);
            }
            Event::EnvironmentDestroyed { environment, why, .. } => {
                let gone = |r: &&mut Release| r.ended.is_none() && &r.environment == environment;
                for release in self.all.values_mut().filter(gone) {
                    release.weight_bp = 0;
                    release.ended = Some(Ended { how: ReleaseEnd::Aborted, why: why.clone(), at });
                }
            }
            _ => {}
        }
    }

    /// An instance that had been healthy exited, vanished or answers no more: an event of its revision. Instances that
    /// somebody changed or that moved for want of room are none.
    fn exited(&mut self, drift: &Drift) {
        let lost = drift.what.starts_with("process of ") || drift.what.starts_with("health of ");
        let Some(gone) = drift.instance.filter(|_| lost).and_then(|id| self.instances.get(&id)) else {
            return;
        };
        let with = |revision: &Revision| {
            let like = |i: &&Lives| {
                i.healthy
                    && i.environment == gone.environment
                    && i.service == gone.service
                    && i.revision == *revision
            };
            self.instances.values().filter(like).count() as u32
        };
        let of = |r: &&mut Release| {
            r.ended.is_none() && r.environment == gone.environment && r.service == gone.service
        };
        let Some(release) = self.all.values_mut().find(of) else { return };
        let Some(side) =
            [release.from.as_ref(), Some(&release.to)].iter().position(|r| *r == Some(&gone.revision))
        else {
            return;
        };
        let instances = [release.from.as_ref().map_or(0, with), with(&release.to)];
        if release.exits.last().is_none_or(|last| last.instances != instances) {
            release.exits.push(Exits { instances, exits: [0; 2] });
        }
        if let Some(last) = release.exits.last_mut() {
            last.exits[side] += 1;
        }
    }

    fn open(&mut self, id: ReleaseId) -> Option<&mut Release> {
        self.all.get_mut(&id).filter(|release| release.ended.is_none())
    }
}
