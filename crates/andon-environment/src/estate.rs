//! Environments, deployments and instances as the journal tells them. Decides nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use andon_model::event::{
    Drift, Event, PlannedService, Purpose, Recorded, ReleaseEnd, Revision, RuntimeKind,
};
use andon_model::{
    AndonId, ChangeId, DeploymentId, Digest, EnvironmentName, HostName, InstanceId, Oid, Pins, ReleaseId,
    RunId, ServiceName, Span, Time,
};
use serde::Serialize;

use crate::glass::Taint;

/// A named place where services run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Environment {
    /// Its name.
    pub name: EnvironmentName,
    /// The environment it was made like.
    pub like: Option<EnvironmentName>,
    /// Declared in `andon.yaml`.
    pub standing: bool,
    /// Since when it exists.
    pub created: Time,
    /// When it ends by itself.
    pub expires: Option<Time>,
    /// What users of each service get.
    pub serving: BTreeMap<ServiceName, Serving>,
    /// Differences from code that are not healed yet, with since when.
    pub drifts: Vec<(Time, Drift)>,
    /// Being emptied; true: to come back from code.
    pub destroying: Option<bool>,
    /// The deployment that a rebuild has to repeat.
    pub repeat: Option<DeploymentId>,
    /// How often drift was healed, with when: flapping is seen by this.
    pub heals: Vec<Time>,
    /// The change that it shows.
    pub change: Option<ChangeId>,
    /// The last warning of its end that was given.
    pub warned: Option<Span>,
    /// Instances wanted instead of what code says.
    pub scaled: BTreeMap<ServiceName, u32>,
    /// Since when, and why, nothing is deployed into it.
    pub held: Option<(Time, String)>,
    /// Since when it is stopped because nobody used it.
    pub asleep: Option<Time>,
    /// When it was started again the last time.
    pub woken: Option<Time>,
    /// It is being started again and nothing of it runs yet.
    pub waking: bool,
    /// Since when a person had a hand in it, and how.
    pub tainted: Option<Taint>,
}

impl Environment {
    /// Instances of a service that are wanted here.
    pub fn replicas(&self, service: &PlannedService) -> u32 {
        match self.asleep {
            Some(_) => 0,
            None => self.scaled.get(&service.name).copied().unwrap_or(service.replicas),
        }
    }

    fn lives(&mut self, recorded: &Recorded) {
        let at = recorded.at;
        match &recorded.event {
            Event::ExpiryNear { left, .. } => self.warned = Some(*left),
            Event::ServiceScaled { service, replicas: Some(replicas), .. } => {
                self.scaled.insert(service.clone(), *replicas);
            }
            Event::ServiceScaled { service, replicas: None, .. } => drop(self.scaled.remove(service)),
            Event::EnvironmentHeld { why, .. } => self.held = why.clone().map(|why| (at, why)),
            Event::EnvironmentAsleep { asleep, .. } => {
                (self.asleep, self.waking) = (asleep.then_some(at), !asleep);
                self.woken = (!asleep).then_some(at);
            }
            // The first hand counts: what came since is no better for a second one.
            Event::EnvironmentTainted { why, .. } => {
                let by = recorded.by.clone();
                self.tainted.get_or_insert(Taint { since: at, by, why: why.clone() });
            }
            _ => {}
        }
    }
}

/// What users of one service in one environment get.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Serving {
    /// The revision that serves.
    pub stable: Option<Revision>,
    /// The revision that users are being moved to.
    pub incoming: Option<Incoming>,
    /// The revision that served before, kept for the way back.
    pub previous: Option<Revision>,
    /// Since when `stable` serves.
    pub since: Option<Time>,
}

/// A release under way.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Incoming {
    /// The release.
    pub release: ReleaseId,
    /// Its new revision.
    pub revision: Revision,
    /// Share of users on it, in basis points.
    pub basis_points: u16,
}

/// How far a deployment is.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum DeploymentState {
    /// Instances are being started beside what serves.
    Starting,
    /// All instances are healthy; the environment's tests are due or running.
    Up,
    /// Tested: users may be moved.
    Ready,
    /// Every service of it was released, at this time.
    Released {
        /// When.
        at: Time,
    },
    /// Given up, taken back, or red in the environment's tests.
    Failed {
        /// The reason.
        why: String,
    },
    /// A newer deployment took its place.
    Superseded,
}

/// An artifact put into an environment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Deployment {
    /// Its number.
    pub id: DeploymentId,
    /// Where.
    pub environment: EnvironmentName,
    /// What.
    pub artifact: Digest,
    /// Its commit.
    pub commit: Oid,
    /// The run that built it.
    pub run: RunId,
    /// The services in their whole shape.
    pub services: Vec<PlannedService>,
    /// Changes that are new with it in this environment.
    pub changes: Vec<ChangeId>,
    /// What runs its instances.
    pub runtime: RuntimeKind,
    /// What goes with the artifact.
    pub pins: Pins,
    /// When it began.
    pub started: Time,
    /// When all instances were healthy.
    pub up: Option<Time>,
    /// How far it is.
    pub state: DeploymentState,
    /// What the environment's tests said.
    pub tested: Option<(bool, String)>,
    /// Services whose release ended well.
    pub released: BTreeSet<ServiceName>,
}

impl Deployment {
    /// Whether it put in what this landing brings: the same artifact, with the same that goes along.
    pub fn carries(&self, landing: &Landing) -> bool {
        Some(&self.artifact) == landing.artifact.as_ref() && self.pins == landing.pins
    }

    /// The revision it makes.
    pub fn revision(&self) -> Revision {
        Revision::of(&self.commit, self.id)
    }

    /// Whether it came up and its environment's tests were green.
    pub fn tested_well(&self) -> bool {
        self.up.is_some() && self.tested.as_ref().is_none_or(|(ok, _)| *ok)
    }

    /// Whether it is still on its way to users.
    pub fn under_way(&self) -> bool {
        matches!(self.state, DeploymentState::Starting | DeploymentState::Up | DeploymentState::Ready)
    }

    /// The shape of one service.
    pub fn service(&self, name: &ServiceName) -> Option<&PlannedService> {
        self.services.iter().find(|service| &service.name == name)
    }
}

/// One running copy of a service.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Instance {
    /// Its number.
    pub id: InstanceId,
    /// Where.
    pub environment: EnvironmentName,
    /// Of what.
    pub service: ServiceName,
    /// Of which revision.
    pub revision: Revision,
    /// The deployment that made it.
    pub deployment: DeploymentId,
    /// Where it listens.
    pub address: SocketAddr,
    /// The host that runs it; none: the server's own.
    pub host: Option<HostName>,
    /// When it was planned.
    pub planned: Time,
    /// When it first answered its health check.
    pub healthy: Option<Time>,
    /// When it was given up, and why.
    pub retired: Option<(Time, String)>,
}

/// A change that is on trunk with an artifact.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Landing {
    /// The change.
    pub change: ChangeId,
    /// The commit that trunk moved to.
    pub commit: Oid,
    /// The run that built the artifact.
    pub run: RunId,
    /// The artifact, where the pipeline makes one.
    pub artifact: Option<Digest>,
    /// What goes with it.
    pub pins: Pins,
    /// The andon it says it fixes.
    pub fixes: Option<AndonId>,
    /// When.
    pub at: Time,
}

/// What the newest run of a change built.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Proposed {
    /// The run.
    pub run: RunId,
    /// Its commit: the change on top of what it is to land on.
    pub commit: Oid,
    /// What it built.
    pub artifact: Digest,
    /// What goes with it.
    pub pins: Pins,
}

/// Everything that exists in environments.
#[derive(Debug, Clone, Default)]
pub struct Estate {
    /// Environments by name.
    pub environments: BTreeMap<EnvironmentName, Environment>,
    /// All deployments.
    pub deployments: BTreeMap<DeploymentId, Deployment>,
    /// All instances that are not removed yet.
    pub instances: BTreeMap<InstanceId, Instance>,
    /// What the infrastructure tool made of it.
    pub infrastructure: crate::infrastructure::Infrastructure,
    /// Databases and templates.
    pub data: crate::data::Data,
    /// Packages that instances of a service see, by the digest of their text.
    pub packages: BTreeMap<(EnvironmentName, ServiceName), Digest>,
    /// Shells that people opened inside instances.
    pub shells: crate::glass::Shells,
    /// Landings in order.
    pub landings: Vec<Landing>,
    built: BTreeMap<RunId, (Digest, Pins)>,
    fixes: BTreeMap<ChangeId, AndonId>,
    /// The newest artifact of each change, landed or not.
    pub proposed: BTreeMap<ChangeId, Proposed>,
    /// Changes that were taken back.
    pub abandoned: BTreeSet<ChangeId>,
    tested_for: BTreeMap<RunId, ChangeId>,
    released_by: BTreeMap<ReleaseId, (DeploymentId, EnvironmentName, ServiceName)>,
    last_instance: Option<InstanceId>,
    /// When an instance of a service last did not come up on a host.
    pub(crate) setbacks: BTreeMap<(EnvironmentName, ServiceName, Option<HostName>), Time>,
}

impl Estate {
    /// The number that the next deployment gets.
    pub fn next_deployment(&self) -> DeploymentId {
        self.deployments.keys().next_back().map_or(DeploymentId(1), |id| id.next())
    }

    /// The number that the next instance gets.
    pub fn next_instance(&self) -> InstanceId {
        self.last_instance.map_or(InstanceId(1), InstanceId::next)
    }

    /// Instances that are wanted or still running in an environment.
    pub fn instances_in<'a>(
        &'a self,
        environment: &'a EnvironmentName,
    ) -> impl Iterator<Item = &'a Instance> {
        self.instances.values().filter(move |i| &i.environment == environment)
    }

    /// Healthy, wanted instances of one revision.
    pub fn healthy<'a>(
        &'a self,
        environment: &'a EnvironmentName,
        service: &'a ServiceName,
        revision: &'a Revision,
    ) -> impl Iterator<Item = &'a Instance> {
        self.instances_in(environment).filter(move |i| {
            &i.service == service && &i.revision == revision && i.retired.is_none() && i.healthy.is_some()
        })
    }

    /// What runs an instance.
    pub fn runtime_of(&self, instance: InstanceId) -> RuntimeKind {
        let deployment = self.instances.get(&instance).and_then(|i| self.deployments.get(&i.deployment));
        deployment.map(|d| d.runtime).unwrap_or_default()
    }

    /// The newest deployment of an environment that was not given up.
    pub fn newest<'a>(&'a self, environment: &'a EnvironmentName) -> Option<&'a Deployment> {
        let given_up = |d: &&Deployment| !matches!(d.state, DeploymentState::Failed { .. });
        self.deployments.values().rev().filter(|d| &d.environment == environment).find(given_up)
    }

    /// The deployment that made this revision.
    pub fn of_revision(&self, environment: &EnvironmentName, revision: &Revision) -> Option<&Deployment> {
        self.deployments.values().rev().find(|d| &d.environment == environment && &d.revision() == revision)
    }

    /// Forgets an instance that is gone for good. Not an event: the journal keeps that it was retired.
    pub fn forget(&mut self, instance: InstanceId) {
        self.instances.remove(&instance);
    }

    /// Takes in what happened.
    pub fn evolve(&mut self, recorded: &Recorded) {
        let at = recorded.at;
        self.infrastructure.evolve(recorded);
        self.data.evolve(recorded);
        self.shells.evolve(recorded);
        match &recorded.event {
            Event::ChangePushed(push) => match push.fixes {
                Some(andon) => drop(self.fixes.insert(push.change, andon)),
                None => drop(self.fixes.remove(&push.change)),
            },
            Event::ChangeAbandoned { change, .. } => drop(self.abandoned.insert(*change)),
            Event::RunQueued { run, purpose: Purpose::Gate { change, .. }, .. } => {
                self.tested_for.insert(*run, *change);
            }
            Event::ArtifactBuilt { run, artifact, pins, commit, .. } => {
                self.built.insert(*run, (artifact.clone(), pins.clone()));
                if let Some(change) = self.tested_for.get(run) {
                    let (run, commit) = (*run, commit.clone());
                    let (artifact, pins) = (artifact.clone(), pins.clone());
                    self.proposed.insert(*change, Proposed { run, commit, artifact, pins });
                }
            }
            Event::Landed { change, run, commit, .. } => self.landings.push(Landing {
                change: *change,
                commit: commit.clone(),
                run: *run,
                artifact: self.built.get(run).map(|(artifact, _)| artifact.clone()),
                pins: self.built.get(run).map(|(_, pins)| pins.clone()).unwrap_or_default(),
                fixes: self.fixes.get(change).copied(),
                at,
            }),
            Event::EnvironmentCreated { environment, like, standing, expires, change } => {
                let made = Environment {
                    name: environment.clone(),
                    like: like.clone(),
                    standing: *standing,
                    created: at,
                    expires: *expires,
                    serving: BTreeMap::new(),
                    drifts: Vec::new(),
                    destroying: None,
                    repeat: None,
                    heals: Vec::new(),
                    change: *change,
                    warned: None,
                    scaled: BTreeMap::new(),
                    held: None,
                    asleep: None,
                    woken: None,
                    waking: false,
                    tainted: None,
                };
                self.environments.insert(environment.clone(), made);
            }
            Event::EnvironmentDestroyed { environment, rebuild, why } => {
                self.destroyed(environment, *rebuild, why, at)
            }
            Event::EnvironmentExtended { environment, expires } => {
                if let Some(found) = self.environments.get_mut(environment) {
                    (found.expires, found.warned) = (*expires, None);
                }
            }
            Event::ExpiryNear { environment, .. }
            | Event::ServiceScaled { environment, .. }
            | Event::EnvironmentHeld { environment, .. }
            | Event::EnvironmentAsleep { environment, .. }
            | Event::EnvironmentTainted { environment, .. } => {
                if let Some(found) = self.environments.get_mut(environment) {
                    found.lives(recorded);
                }
            }
            Event::Restored { .. } => self.instances.clear(),
            Event::PackagesSeen { environment, service, packages, .. } => {
                self.packages.insert((environment.clone(), service.clone()), packages.clone());
            }
            Event::DriftSeen { environment, drift } => {
                if let Some(found) = self.environments.get_mut(environment) {
                    found.drifts.push((at, drift.clone()));
                }
            }
            Event::DriftHealed { environment, what, .. } => {
                if let Some(found) = self.environments.get_mut(environment) {
                    found.drifts.retain(|(_, drift)| &drift.what != what);
                    // A host that was lost is no sign of a service that flaps.
                    if !what.starts_with(crate::rotation::ON_HOST) {
                        found.heals.push(at);
                    }
                }
            }
            _ => {
                self.deployed(recorded);
                self.released(recorded);
            }
        }
    }

    fn destroyed(&mut self, name: &EnvironmentName, rebuild: bool, why: &str, at: Time) {
        let repeat = self.newest(name).map(|d| d.id);
        let Some(environment) = self.environments.get_mut(name) else { return };
        environment.serving.clear();
        environment.drifts.clear();
        (environment.tainted, environment.asleep) = (None, None);
        environment.destroying = Some(rebuild);
        environment.repeat = repeat.filter(|_| rebuild);
        if !rebuild {
            self.environments.remove(name);
            self.setbacks.retain(|(place, ..), _| place != name);
            self.packages.retain(|(environment, _), _| environment != name);
        }
        for instance in self.instances.values_mut().filter(|i| &i.environment == name && i.retired.is_none())
        {
            instance.retired = Some((at, why.to_owned()));
        }
        for deployment in self.deployments.values_mut().filter(|d| &d.environment == name) {
            deployment.state = DeploymentState::Superseded;
        }
    }

    fn deployed(&mut self, recorded: &Recorded) {
        let at = recorded.at;
        match &recorded.event {
            Event::DeploymentStarted {
                deployment,
                environment,
                artifact,
                commit,
                run,
                services,
                changes,
                runtime,
                pins,
            } => {
                for older in
                    self.deployments.values_mut().filter(|d| &d.environment == environment && d.under_way())
                {
                    older.state = DeploymentState::Superseded;
                }
                if let Some(environment) = self.environments.get_mut(environment) {
                    (environment.destroying, environment.repeat) = (None, None);
                    environment.asleep = None;
                }
                let made = Deployment {
                    id: *deployment,
                    environment: environment.clone(),
                    artifact: artifact.clone(),
                    commit: commit.clone(),
                    run: *run,
                    services: services.clone(),
                    changes: changes.clone(),
                    runtime: *runtime,
                    pins: pins.clone(),
                    started: at,
                    up: None,
                    state: DeploymentState::Starting,
                    tested: None,
                    released: BTreeSet::new(),
                };
                self.deployments.insert(*deployment, made);
            }
            Event::InstancePlanned { instance, environment, service, revision, port, address, host } => {
                let deployment = self.of_revision(environment, revision).map_or(DeploymentId(0), |d| d.id);
                let made = Instance {
                    id: *instance,
                    environment: environment.clone(),
                    service: service.clone(),
                    revision: revision.clone(),
                    deployment,
                    address: SocketAddr::new(address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)), *port),
                    host: host.clone(),
                    planned: at,
                    healthy: None,
                    retired: None,
                };
                self.last_instance = Some(*instance);
                self.instances.insert(*instance, made);
            }
            Event::InstanceHealthy { instance } => {
                if let Some(found) = self.instances.get_mut(instance) {
                    found.healthy.get_or_insert(at);
                    if let Some(place) = self.environments.get_mut(&found.environment) {
                        place.waking = false;
                    }
                }
            }
            Event::InstanceRetired { instance, why } => {
                if let Some(found) = self.instances.get_mut(instance) {
                    // Retired before it was healthy although it was wanted: it did not come up there.
                    let serves = self.deployments.get(&found.deployment).is_some_and(|d| {
                        !matches!(d.state, DeploymentState::Failed { .. } | DeploymentState::Superseded)
                    });
                    if found.healthy.is_none() && serves && found.retired.is_none() {
                        let key = (found.environment.clone(), found.service.clone(), found.host.clone());
                        self.setbacks.insert(key, at);
                    }
                    found.retired.get_or_insert((at, why.clone()));
                }
            }
            Event::DeploymentFinished { deployment, ok, why } => {
                if let Some(found) = self.deployments.get_mut(deployment) {
                    found.up = ok.then_some(at);
                    found.state = match ok {
                        true => DeploymentState::Up,
                        false => DeploymentState::Failed { why: why.clone() },
                    };
                }
            }
            Event::EnvironmentTested { deployment, ok, why, .. } => {
                if let Some(found) = self.deployments.get_mut(deployment) {
                    found.tested = Some((*ok, why.clone()));
                    if found.under_way() {
                        found.state = match ok {
                            true => DeploymentState::Ready,
                            false => DeploymentState::Failed { why: why.clone() },
                        };
                    }
                }
            }
            _ => {}
        }
    }

    fn released(&mut self, recorded: &Recorded) {
        let at = recorded.at;
        match &recorded.event {
            Event::ReleaseStarted { release, deployment, environment, service, to, .. } => {
                self.released_by.insert(*release, (*deployment, environment.clone(), service.clone()));
                let Some(found) = self.environments.get_mut(environment) else { return };
                let incoming = Incoming { release: *release, revision: to.clone(), basis_points: 0 };
                found.serving.entry(service.clone()).or_default().incoming = Some(incoming);
            }
            Event::WeightChanged { release, basis_points, .. } => {
                if let Some(incoming) = self.serving_of(*release).and_then(|s| s.incoming.as_mut())
                    && incoming.release == *release
                {
                    incoming.basis_points = *basis_points;
                }
            }
            Event::ReleaseFinished { release, how, why, .. } => {
                self.release_finished(*release, *how, why, at)
            }
            _ => {}
        }
    }

    fn serving_of(&mut self, release: ReleaseId) -> Option<&mut Serving> {
        let (_, environment, service) = self.released_by.get(&release)?;
        self.environments.get_mut(environment)?.serving.get_mut(service)
    }

    fn release_finished(&mut self, release: ReleaseId, how: ReleaseEnd, why: &str, at: Time) {
        if let Some(serving) = self.serving_of(release)
            && let Some(incoming) = serving.incoming.take_if(|incoming| incoming.release == release)
            && how == ReleaseEnd::Released
        {
            serving.previous = serving.stable.take().filter(|stable| *stable != incoming.revision);
            serving.stable = Some(incoming.revision);
            serving.since = Some(at);
        }
        let Some((id, _, service)) = self.released_by.get(&release).cloned() else { return };
        let Some(deployment) = self.deployments.get_mut(&id).filter(|d| d.under_way()) else { return };
        match how {
            ReleaseEnd::Released => {
                deployment.released.insert(service);
                if deployment.released.len() == deployment.services.len() {
                    deployment.state = DeploymentState::Released { at };
                }
            }
            ReleaseEnd::TakenBack | ReleaseEnd::Aborted => {
                deployment.state = DeploymentState::Failed { why: why.to_owned() };
            }
            ReleaseEnd::DarkEnded => deployment.state = DeploymentState::Superseded,
        }
    }
}
