//! The queue as the journal tells it: every change, its patch sets, and where it stands. Decides nothing.

use std::collections::{BTreeMap, BTreeSet};

use andon_model::event::{DefinitionEdit, DefinitionRule, Event, Purpose, Push, Recorded, Verdict};
use andon_model::{Actor, AndonId, ChangeId, JobName, Oid, RunId, Time, UserName};
use serde::Serialize;

/// Where a change stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum Standing {
    /// Waits for its turn.
    Waiting {
        /// Since when.
        since: Time,
    },
    /// Is being tested on the tree that would land.
    Testing {
        /// The run.
        run: RunId,
        /// Since when.
        since: Time,
    },
    /// Tested green, on its way to trunk.
    Green {
        /// The run that proved it.
        run: RunId,
        /// Since when.
        since: Time,
    },
    /// Is on trunk.
    Landed {
        /// The commit that trunk moved to.
        commit: Oid,
        /// When.
        at: Time,
    },
    /// Will not land as it is; a new patch set may.
    Refused {
        /// The reason, for its author.
        why: String,
        /// The run that says so, if there was one.
        run: Option<RunId>,
        /// When.
        at: Time,
    },
    /// Taken back.
    Abandoned {
        /// The reason.
        why: String,
        /// When.
        at: Time,
    },
}

impl Standing {
    /// Whether the gate still has to do something about it.
    pub fn is_open(&self) -> bool {
        matches!(self, Standing::Waiting { .. } | Standing::Testing { .. } | Standing::Green { .. })
    }
}

/// A change with its newest patch set.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// Its number.
    pub id: ChangeId,
    /// The newest patch set.
    pub push: Push,
    /// Who pushed first.
    pub owner: Option<UserName>,
    /// Everyone who pushed a patch set of it.
    pub pushers: BTreeSet<UserName>,
    /// When its first patch set arrived.
    pub first_pushed: Time,
    /// When its newest patch set arrived.
    pub pushed: Time,
    /// Where it stands.
    pub standing: Standing,
    /// All runs made for it, oldest first, with their patch set.
    pub runs: Vec<(u32, RunId)>,
    /// The newest approval of what it makes of `andon.yaml`.
    pub approval: Option<Approval>,
}

/// That what a patch set makes of `andon.yaml` may land.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Approval {
    /// It holds for this patch set and no other.
    pub patch_set: u32,
    /// Who gave it.
    pub by: Actor,
    /// When.
    pub at: Time,
    /// The reason.
    pub why: String,
    /// Given by pushing it.
    pub by_push: bool,
}

/// What a run's tree makes of `andon.yaml`, against the trunk it was made on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Edited {
    /// The differences.
    pub edits: Vec<DefinitionEdit>,
    /// Who has to approve them; none: nobody.
    pub asks: Option<DefinitionRule>,
}

impl Change {
    /// The approval of the newest patch set.
    pub fn approved(&self) -> Option<&Approval> {
        self.approval.as_ref().filter(|approval| approval.patch_set == self.push.patch_set)
    }

    /// The andon that it says it fixes.
    pub fn fixes(&self) -> Option<AndonId> {
        self.push.fixes
    }
}

/// The verdict of a run that the gate asked for, with the trunk it was made on.
#[derive(Debug, Clone, PartialEq)]
pub struct GateRun {
    /// The change tested.
    pub change: ChangeId,
    /// Its patch set.
    pub patch_set: u32,
    /// The commit that would land.
    pub commit: Oid,
    /// The tree that was tested.
    pub tree: Oid,
    /// Trunk as it was when the commit was made.
    pub parent: Option<Oid>,
    /// What the validation suite said; none while it runs.
    pub verdict: Option<Verdict>,
    /// Jobs that wait for a person. As long as one does, others are tested meanwhile.
    pub asks: BTreeSet<JobName>,
    /// What its tree makes of `andon.yaml`; none: it has that of trunk.
    pub edited: Option<Edited>,
    /// How many landings had changed `andon.yaml` when it was made.
    pub definitions: usize,
}

/// All changes of a project.
#[derive(Debug, Clone, Default)]
pub struct Queue {
    /// Every change ever pushed.
    pub changes: BTreeMap<ChangeId, Change>,
    /// The runs made for changes.
    pub runs: BTreeMap<RunId, GateRun>,
    /// The commit that trunk stands on by our own landings.
    pub trunk: Option<Oid>,
    /// Landed changes in order.
    pub landed: Vec<ChangeId>,
    /// How many landings changed `andon.yaml`.
    pub definitions: usize,
    /// The proof of each landing.
    pub proofs: BTreeMap<ChangeId, Proof>,
}

/// That what landed is what was tested.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Proof {
    /// The run that tested it.
    pub run: RunId,
    /// The commit that trunk moved to.
    pub commit: Oid,
    /// The tree that the run tested.
    pub tested_tree: Oid,
    /// The tree of trunk, read after it moved.
    pub landed_tree: Oid,
}

impl Queue {
    /// The number that the next new change gets.
    pub fn next_change(&self) -> ChangeId {
        self.changes.keys().next_back().map_or(ChangeId(1), |id| id.next())
    }

    /// Changes that the gate still works on, oldest first push first.
    pub fn open(&self) -> impl Iterator<Item = &Change> {
        self.changes.values().filter(|change| change.standing.is_open())
    }

    /// How many open changes stand before this one.
    pub fn ahead_of(&self, id: ChangeId) -> usize {
        self.open().take_while(|change| change.id != id).count()
    }

    /// What the newest run of a change found of `andon.yaml`, if its patch set is the newest.
    pub fn edited(&self, change: &Change) -> Option<&Edited> {
        let (patch_set, run) = change.runs.last()?;
        self.runs.get(run).filter(|_| *patch_set == change.push.patch_set)?.edited.as_ref()
    }

    /// Who has to approve what a run makes of `andon.yaml` and has not; none: it may land as far as that goes.
    pub fn unapproved(&self, run: &GateRun) -> Option<DefinitionRule> {
        let asks = run.edited.as_ref()?.asks?;
        let approval = self.changes.get(&run.change)?.approval.as_ref();
        approval.is_none_or(|approval| approval.patch_set != run.patch_set).then_some(asks)
    }

    /// Takes in what happened.
    pub fn evolve(&mut self, recorded: &Recorded) {
        let at = recorded.at;
        match &recorded.event {
            Event::ChangePushed(push) => self.pushed(push, recorded),
            Event::ChangeAbandoned { change, why } => {
                self.stand(*change, Standing::Abandoned { why: why.clone(), at });
            }
            Event::ChangeRefused { change, patch_set, run, why } if self.is_newest(*change, *patch_set) => {
                self.stand(*change, Standing::Refused { why: why.clone(), run: *run, at });
            }
            Event::RunQueued {
                run,
                purpose: Purpose::Gate { change, patch_set },
                commit,
                tree,
                parent,
                ..
            } => {
                let made = GateRun {
                    change: *change,
                    patch_set: *patch_set,
                    commit: commit.clone(),
                    tree: tree.clone(),
                    parent: parent.clone(),
                    verdict: None,
                    asks: BTreeSet::new(),
                    edited: None,
                    definitions: self.definitions,
                };
                self.runs.insert(*run, made);
                if let Some(found) = self.changes.get_mut(change) {
                    found.runs.push((*patch_set, *run));
                }
                // A refused patch set that is tested again is open again.
                let again = |c: &Change| matches!(c.standing, Standing::Refused { .. });
                let newest = self
                    .changes
                    .get(change)
                    .is_some_and(|c| c.push.patch_set == *patch_set && (c.standing.is_open() || again(c)));
                if newest {
                    self.stand(*change, Standing::Testing { run: *run, since: at });
                }
            }
            Event::DefinitionEdited { run, edits, asks, .. } => {
                if let Some(found) = self.runs.get_mut(run) {
                    found.edited = Some(Edited { edits: edits.clone(), asks: *asks });
                }
            }
            Event::DefinitionApproved { change, patch_set, why, by_push } => {
                let Some(found) = self.changes.get_mut(change) else { return };
                let (patch_set, why, by_push) = (*patch_set, why.clone(), *by_push);
                found.approval = Some(Approval { patch_set, by: recorded.by.clone(), at, why, by_push });
                // It was judged by trunk's limits too: now its own count.
                if matches!(found.standing, Standing::Refused { .. }) && patch_set == found.push.patch_set {
                    found.standing = Standing::Waiting { since: at };
                }
            }
            Event::ApprovalAsked { run, job, .. } => {
                if let Some(found) = self.runs.get_mut(run) {
                    found.asks.insert(job.clone());
                }
            }
            Event::ApprovalGiven { run, job, .. } | Event::ApprovalRefused { run, job, .. } => {
                if let Some(found) = self.runs.get_mut(run) {
                    found.asks.remove(job);
                }
            }
            Event::RunFinished { run, verdict, .. } => self.finished(*run, verdict, at),
            Event::Landed { change, commit, run, tested_tree, landed_tree, .. } => {
                let (tested_tree, landed_tree) = (tested_tree.clone(), landed_tree.clone());
                self.proofs
                    .insert(*change, Proof { run: *run, commit: commit.clone(), tested_tree, landed_tree });
                self.trunk = Some(commit.clone());
                self.definitions += usize::from(self.runs.get(run).is_some_and(|run| run.edited.is_some()));
                self.landed.push(*change);
                self.stand(*change, Standing::Landed { commit: commit.clone(), at });
            }
            _ => {}
        }
    }

    fn pushed(&mut self, push: &Push, recorded: &Recorded) {
        let owner = match &recorded.by {
            andon_model::Actor::User(name) => Some(name.clone()),
            andon_model::Actor::Line(_) => None,
        };
        let (at, pusher) = (recorded.at, owner.clone());
        let change = self.changes.entry(push.change).or_insert_with(|| Change {
            id: push.change,
            push: push.clone(),
            owner,
            first_pushed: at,
            pushed: at,
            standing: Standing::Waiting { since: at },
            runs: Vec::new(),
            pushers: BTreeSet::new(),
            approval: None,
        });
        change.pushers.extend(pusher);
        change.push = push.clone();
        change.pushed = at;
        change.standing = Standing::Waiting { since: at };
    }

    fn finished(&mut self, id: RunId, verdict: &Verdict, at: Time) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        run.verdict = Some(verdict.clone());
        let (change, patch_set) = (run.change, run.patch_set);
        if matches!(verdict, Verdict::Green) && self.is_newest(change, patch_set) {
            self.stand(change, Standing::Green { run: id, since: at });
        }
    }

    fn is_newest(&self, change: ChangeId, patch_set: u32) -> bool {
        self.changes.get(&change).is_some_and(|c| c.push.patch_set == patch_set && c.standing.is_open())
    }

    fn stand(&mut self, change: ChangeId, standing: Standing) {
        if let Some(found) = self.changes.get_mut(&change) {
            found.standing = standing;
        }
    }
}
