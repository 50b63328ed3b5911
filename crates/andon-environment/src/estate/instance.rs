//! One running copy of a service, as the journal tells it.

use std::net::SocketAddr;

use andon_model::event::Revision;
use andon_model::{DeploymentId, EnvironmentName, HostName, InstanceId, ServiceName, Time};
use serde::Serialize;

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
