//! Everything that is so in one project: the folds of all stations side by side. Decides nothing.

use std::collections::VecDeque;

use andon_environment::Estate;
use andon_gate::Queue;
use andon_model::event::{Event, Recorded};
use andon_model::AndonId;
use andon_pipeline::Runs;

/// Events kept for feeds and timelines; older ones are read from the journal.
const FEED: usize = 2_000;

/// One project, as its journal tells it.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// Events in its stream.
    pub version: u64,
    /// The branch that changes land on.
    pub trunk: String,
    /// The gate's queue.
    pub queue: Queue,
    /// Runs and jobs.
    pub runs: Runs,
    /// Environments, deployments, instances.
    pub estate: Estate,
    /// The newest events, oldest first.
    pub feed: VecDeque<Recorded>,
}

impl State {
    /// Takes in what happened.
    pub fn evolve(&mut self, recorded: &Recorded) {
        self.version += 1;
        if let Event::ProjectCreated { trunk } = &recorded.event {
            self.trunk = trunk.clone();
        }
        self.queue.evolve(recorded);
        self.runs.evolve(recorded);
        self.estate.evolve(recorded);
        if self.feed.len() == FEED {
            self.feed.pop_front();
        }
        self.feed.push_back(recorded.clone());
    }

    /// The open andon that pages show first, with its title.
    pub fn open_andon(&self) -> Option<(String, String)> {
        None
    }

    /// The andon that stops the line, if one does.
    pub fn hold(&self) -> Option<AndonId> {
        None
    }
}
