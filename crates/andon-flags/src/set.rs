//! All flags of a project as the journal tells them. Evaluates nothing.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use andon_model::event::{Event, Recorded};
use andon_model::{Actor, Time};

use crate::definition::Flag;

/// When a flag came to be as it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Place in the journal.
    pub seq: u64,
    /// When.
    pub at: Time,
    /// Who.
    pub by: Actor,
    /// In a sentence.
    pub what: String,
}

/// All flags, compiled. Cheap to clone: unchanged flags are shared.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FlagSet {
    flags: BTreeMap<String, Arc<Flag>>,
    /// The same flags for answering: a look-up here costs less than evaluating most rules.
    by_key: HashMap<String, Arc<Flag>>,
    changes: BTreeMap<String, Change>,
    revision: u64,
    changed: Time,
    clocked: usize,
}

impl FlagSet {
    /// Takes in what happened.
    pub fn evolve(&mut self, recorded: &Recorded) {
        let Event::FlagChanged { flag: key, definition, what } = &recorded.event else { return };
        let new = definition.as_ref().map(|definition| Arc::new(Flag::lenient(key, definition).0));
        self.clocked += usize::from(new.as_ref().is_some_and(|flag| flag.uses_clock()));
        match &new {
            Some(flag) => drop(self.by_key.insert(key.clone(), flag.clone())),
            None => drop(self.by_key.remove(key)),
        }
        let old = match new {
            Some(flag) => self.flags.insert(key.clone(), flag),
            None => self.flags.remove(key),
        };
        self.clocked -= usize::from(old.is_some_and(|flag| flag.uses_clock()));
        let change =
            Change { seq: recorded.seq, at: recorded.at, by: recorded.by.clone(), what: what.clone() };
        self.changes.insert(key.clone(), change);
        // The journal's own number: it only rises, also over a flag that comes back.
        self.revision = self.revision.max(recorded.seq);
        self.changed = self.changed.max(recorded.at);
    }

    /// The flag of this key.
    pub fn get(&self, key: &str) -> Option<&Flag> {
        self.by_key.get(key).map(Arc::as_ref)
    }

    /// All flags, by key.
    pub fn iter(&self) -> impl Iterator<Item = &Flag> {
        self.flags.values().map(Arc::as_ref)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.flags.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.flags.is_empty()
    }

    /// The last change of a flag, also of a removed one.
    pub fn last_change(&self, key: &str) -> Option<&Change> {
        self.changes.get(key)
    }

    /// Rises with every change; equal numbers mean equal flags.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// When the newest change was.
    pub fn changed(&self) -> Time {
        self.changed
    }

    /// Whether any answer may change with time alone.
    pub fn uses_clock(&self) -> bool {
        self.clocked > 0
    }
}
