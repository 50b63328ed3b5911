//! Environments, deployments and instances as the journal tells them: what there is, and questions about it. Decides nothing; `evolve`
//! takes in what happened.

mod deployment;
mod environment;
mod evolve;
mod instance;

use std::collections::{BTreeMap, BTreeSet};

use andon_model::event::{Revision, RuntimeKind};
use andon_model::{
    AndonId, ChangeId, DeploymentId, Digest, EnvironmentName, HostName, InstanceId, Pins, ReleaseId, RunId,
    ServiceName, Time,
};

pub use deployment::{Deployment, DeploymentState, Landing, Proposed};
pub use environment::{Environment, Incoming, Serving};
pub use instance::Instance;

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
}
