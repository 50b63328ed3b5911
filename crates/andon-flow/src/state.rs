//! Changes, runs, deployments, releases and andons with when each thing happened to them first. Counts nothing.

use std::collections::{BTreeMap, BTreeSet};

use andon_model::event::{Cause, Event, Purpose, Recorded, ReleaseEnd, Verdict};
use andon_model::{
    AndonId, ChangeId, DeploymentId, Digest, EnvironmentName, ReleaseId, RunId, ServiceName, Time,
};
use serde::Serialize;

/// A moment, and the event that it is known from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Point {
    /// Place in the journal.
    pub seq: u64,
    /// When.
    pub at: Time,
}

#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub title: String,
    pub authored: Time,
    pub pushed: Point,
    /// When each patch set came.
    pub patch_sets: BTreeMap<u32, Point>,
    pub fixes: Option<AndonId>,
    /// The newest run; once landed, the one that landed it.
    pub run: Option<RunId>,
    /// The patch set of that run.
    pub tested: u32,
    pub landed: Option<Point>,
    pub abandoned: bool,
    /// In the order in which they began.
    pub deployments: Vec<DeploymentId>,
}

#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub queued: Point,
    pub started: Option<Point>,
    pub green: Option<Point>,
    pub artifact: Option<Point>,
}

#[derive(Debug, Clone)]
pub(crate) struct Deployment {
    pub environment: EnvironmentName,
    pub artifact: Digest,
    /// The artifact had not reached everyone there before: no repetition, no way back.
    pub new: bool,
    pub changes: Vec<ChangeId>,
    pub services: usize,
    pub started: Point,
    pub up: Option<Point>,
    pub releases: Vec<ReleaseId>,
    pub released: BTreeSet<ServiceName>,
    /// Every service of it was released.
    pub everyone: Option<Point>,
}

#[derive(Debug, Clone)]
pub(crate) struct Release {
    pub deployment: DeploymentId,
    pub service: ServiceName,
    pub first_users: Option<Point>,
    pub half: Option<Point>,
    pub ended: Option<(Point, ReleaseEnd)>,
}

#[derive(Debug, Clone)]
pub(crate) struct Andon {
    pub pulled: Point,
    pub cause: Cause,
    pub suspects: Vec<ChangeId>,
    pub released: Option<Point>,
}

/// The flow of a project.
#[derive(Debug, Clone, Default)]
pub struct Flow {
    pub(crate) changes: BTreeMap<ChangeId, Change>,
    pub(crate) runs: BTreeMap<RunId, Run>,
    pub(crate) deployments: BTreeMap<DeploymentId, Deployment>,
    pub(crate) releases: BTreeMap<ReleaseId, Release>,
    pub(crate) andons: BTreeMap<AndonId, Andon>,
    reached: BTreeSet<(EnvironmentName, Digest)>,
}

impl Flow {
    /// Takes in what happened.
    pub fn evolve(&mut self, recorded: &Recorded) {
        let point = Point { seq: recorded.seq, at: recorded.at };
        match &recorded.event {
            Event::ChangePushed(push) => {
                let change = self.changes.entry(push.change).or_insert_with(|| Change {
                    title: String::new(),
                    // The author's clock may be wrong or made up: nobody authors after the server has the commit.
                    authored: push.authored.min(point.at),
                    pushed: point,
                    patch_sets: BTreeMap::new(),
                    fixes: None,
                    run: None,
                    tested: push.patch_set,
                    landed: None,
                    abandoned: false,
                    deployments: Vec::new(),
                });
                change.title.clone_from(&push.title);
                change.fixes = push.fixes;
                change.abandoned = false;
                change.patch_sets.insert(push.patch_set, point);
            }
            Event::ChangeAbandoned { change, .. } => {
                if let Some(change) = self.changes.get_mut(change) {
                    change.abandoned = true;
                }
            }
            Event::RunQueued { run, purpose, .. } => {
                self.runs.insert(*run, Run { queued: point, started: None, green: None, artifact: None });
                if let Purpose::Gate { change, patch_set } = purpose
                    && let Some(change) =
                        self.changes.get_mut(change).filter(|change| change.landed.is_none())
                {
                    (change.run, change.tested) = (Some(*run), *patch_set);
                }
            }
            Event::JobStarted { run, .. } => self.run(*run, |run| run.started = run.started.or(Some(point))),
            Event::ArtifactBuilt { run, .. } => {
                self.run(*run, |run| run.artifact = run.artifact.or(Some(point)))
            }
            Event::RunFinished { run, verdict: Verdict::Green, .. } => {
                self.run(*run, |run| run.green = run.green.or(Some(point)));
            }
            Event::Landed { change, patch_set, run, .. } => {
                if let Some(change) = self.changes.get_mut(change).filter(|change| change.landed.is_none()) {
                    (change.run, change.tested, change.landed) = (Some(*run), *patch_set, Some(point));
                }
            }
            _ => self.delivered(&recorded.event, point),
        }
    }

    fn run(&mut self, id: RunId, change: impl FnOnce(&mut Run)) {
        if let Some(run) = self.runs.get_mut(&id) {
            change(run);
        }
    }

    fn delivered(&mut self, event: &Event, point: Point) {
        match event {
            Event::DeploymentStarted { deployment, environment, artifact, services, changes, .. } => {
                for change in changes {
                    if let Some(change) = self.changes.get_mut(change) {
                        change.deployments.push(*deployment);
                    }
                }
                let made = Deployment {
                    environment: environment.clone(),
                    artifact: artifact.clone(),
                    new: !self.reached.contains(&(environment.clone(), artifact.clone())),
                    changes: changes.clone(),
                    services: services.len(),
                    started: point,
                    up: None,
                    releases: Vec::new(),
                    released: BTreeSet::new(),
                    everyone: None,
                };
                self.deployments.insert(*deployment, made);
            }
            Event::DeploymentFinished { deployment, ok: true, .. } => {
                if let Some(found) = self.deployments.get_mut(deployment) {
                    found.up.get_or_insert(point);
                }
            }
            Event::ReleaseStarted { release, deployment, service, .. } => {
                let made = Release {
                    deployment: *deployment,
                    service: service.clone(),
                    first_users: None,
                    half: None,
                    ended: None,
                };
                self.releases.insert(*release, made);
                if let Some(found) = self.deployments.get_mut(deployment) {
                    found.releases.push(*release);
                }
            }
            Event::WeightChanged { release, basis_points, .. } => {
                if let Some(found) = self.releases.get_mut(release) {
                    found.reached(*basis_points, point);
                }
            }
            Event::ReleaseFinished { release, how, .. } => self.finished(*release, *how, point),
            Event::CordPulled { andon, cause, suspects, .. } => {
                let made =
                    Andon { pulled: point, cause: cause.clone(), suspects: suspects.clone(), released: None };
                self.andons.insert(*andon, made);
            }
            Event::CordReleased { andon, .. } => {
                if let Some(found) = self.andons.get_mut(andon) {
                    found.released.get_or_insert(point);
                }
            }
            _ => {}
        }
    }

    fn finished(&mut self, id: ReleaseId, how: ReleaseEnd, point: Point) {
        let Some(release) = self.releases.get_mut(&id).filter(|release| release.ended.is_none()) else {
            return;
        };
        release.ended = Some((point, how));
        if how != ReleaseEnd::Released {
            return;
        }
        release.reached(10_000, point);
        let Some(deployment) = self.deployments.get_mut(&release.deployment) else { return };
        deployment.released.insert(release.service.clone());
        if deployment.released.len() >= deployment.services && deployment.everyone.is_none() {
            deployment.everyone = Some(point);
            self.reached.insert((deployment.environment.clone(), deployment.artifact.clone()));
        }
    }

    /// When the first user got this deployment.
    pub(crate) fn first_users(&self, deployment: &Deployment) -> Option<Point> {
        deployment.releases.iter().filter_map(|id| self.releases.get(id)?.first_users).min()
    }

    /// When half of the users had every service of this deployment.
    pub(crate) fn half(&self, deployment: &Deployment) -> Option<Point> {
        let mut by_service: BTreeMap<&ServiceName, Point> = BTreeMap::new();
        for release in deployment.releases.iter().filter_map(|id| self.releases.get(id)) {
            if let Some(half) = release.half {
                let first = by_service.entry(&release.service).or_insert(half);
                *first = half.min(*first);
            }
        }
        (by_service.len() >= deployment.services).then(|| by_service.into_values().max()).flatten()
    }
}

impl Release {
    fn reached(&mut self, basis_points: u16, point: Point) {
        if basis_points > 0 {
            self.first_users.get_or_insert(point);
        }
        if basis_points >= 5000 {
            self.half.get_or_insert(point);
        }
    }
}
