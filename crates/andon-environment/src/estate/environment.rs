//! One environment as the journal tells it: what users of its services get, what differs, how it lives.

use std::collections::BTreeMap;

use andon_model::event::{Drift, Event, PlannedService, Recorded, Revision};
use andon_model::{ChangeId, DeploymentId, EnvironmentName, ReleaseId, ServiceName, Span, Time};
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

    pub(super) fn lives(&mut self, recorded: &Recorded) {
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
