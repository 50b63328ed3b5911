//! Everything that is so in one project: the folds of all stations side by side. Decides nothing.

use std::collections::{BTreeMap, VecDeque};

use andon_attest::Attestations;
use andon_cord::Cord;
use andon_environment::Estate;
use andon_environment::states::States;
use andon_flags::FlagSet;
use andon_flow::Flow;
use andon_gate::Queue;
use andon_model::event::{Event, Recorded};
use andon_model::{AndonId, EnvironmentName, ReleaseId, ServiceName, Time};
use andon_pipeline::Runs;
use andon_pipeline::secrets::Secrets;
use andon_release::Releases;
use andon_validation::quarantine::Quarantine;

/// Events kept for feeds and timelines; older ones are read from the journal.
const FEED: usize = 5_000;

/// One project, as its journal tells it.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// Events in its stream.
    pub version: u64,
    /// When the project was created.
    pub created: Time,
    /// The branch that changes land on.
    pub trunk: String,
    /// The gate's queue.
    pub queue: Queue,
    /// Runs and jobs.
    pub runs: Runs,
    /// What is vouched for.
    pub attestations: Attestations,
    /// Secrets, without their values.
    pub secrets: Secrets,
    /// Tests in quarantine.
    pub quarantine: Quarantine,
    /// Environments, deployments, instances.
    pub estate: Estate,
    /// States of the infrastructure tool.
    pub states: States,
    /// Releases.
    pub releases: Releases,
    /// The event since which the split of users of a service is what it is: the router counts anew from there.
    pub epochs: BTreeMap<(EnvironmentName, ServiceName), u64>,
    /// What each finished release rests on: the last look with its counts.
    pub explanations: BTreeMap<ReleaseId, serde_json::Value>,
    /// Flags.
    pub flags: FlagSet,
    /// The cord and its andons.
    pub cord: Cord,
    /// What the metrics are computed from.
    pub flow: Flow,
    /// The newest events, oldest first.
    pub feed: VecDeque<Recorded>,
}

impl State {
    /// Takes in what happened.
    pub fn evolve(&mut self, recorded: &Recorded) {
        self.version += 1;
        if let Event::ProjectCreated { trunk } = &recorded.event {
            (self.trunk, self.created) = (trunk.clone(), recorded.at);
        }
        self.queue.evolve(recorded);
        self.runs.evolve(recorded);
        self.attestations.evolve(recorded);
        self.secrets.evolve(recorded);
        self.quarantine.evolve(recorded);
        self.estate.evolve(recorded);
        self.states.evolve(recorded);
        self.releases.evolve(recorded);
        self.flags.evolve(recorded);
        self.cord.evolve(recorded);
        self.flow.evolve(recorded);
        if let Some(place) = moved(&recorded.event).and_then(|release| self.releases.get(release)) {
            self.epochs.insert((place.environment.clone(), place.service.clone()), recorded.seq);
        }
        if let Event::ReleaseFinished { release, explanation, .. } = &recorded.event {
            self.explanations.insert(*release, explanation.clone());
        }
        if self.feed.len() == FEED {
            self.feed.pop_front();
        }
        self.feed.push_back(recorded.clone());
    }

    /// The open andon that pages show first, with its reason.
    pub fn open_andon(&self) -> Option<(String, String)> {
        self.cord.open().next().map(|andon| (andon.id.to_string(), andon.why.clone()))
    }

    /// The andons that stop the line, oldest first; none: it runs.
    pub fn hold(&self) -> Vec<AndonId> {
        self.cord.open().map(|andon| andon.id).collect()
    }
}

/// The release whose split of users an event changes.
fn moved(event: &Event) -> Option<ReleaseId> {
    match event {
        Event::ReleaseStarted { release, .. }
        | Event::WeightChanged { release, .. }
        | Event::ReleaseFinished { release, .. } => Some(*release),
        _ => None,
    }
}
