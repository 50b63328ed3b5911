//! What every event makes of the estate.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use andon_model::event::{Event, Purpose, Recorded, ReleaseEnd};
use andon_model::{DeploymentId, EnvironmentName, ReleaseId, Time};

use super::{
    Deployment, DeploymentState, Environment, Estate, Incoming, Instance, Landing, Proposed, Serving,
};

impl Estate {
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
