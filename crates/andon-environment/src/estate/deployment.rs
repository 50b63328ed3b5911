//! What is brought into environments: deployments, and the landings and proposals that they carry.

use std::collections::BTreeSet;

use andon_model::event::{PlannedService, Revision, RuntimeKind};
use andon_model::{
    AndonId, ChangeId, DeploymentId, Digest, EnvironmentName, Oid, Pins, RunId, ServiceName, Time,
};
use serde::Serialize;

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
