//! The states of infrastructure tools: versions and locks as the journal tells them, and what may be done to them. No bytes, no HTTP.
//!
//! The rules are those of Terraform's http backend, made strict: who writes names the lock; a serial only grows; a lineage never changes;
//! every version is kept. A request that is repeated because its answer was lost is answered as the first time.

use std::collections::BTreeMap;

use andon_model::event::{Event, LockInfo, Recorded, StoredState};
use andon_model::{Actor, InfraRunId, StateName, Time};
use serde::Serialize;

/// All states of a project.
#[derive(Debug, Clone, Default)]
pub struct States {
    states: BTreeMap<StateName, Stored>,
}

/// One state.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Stored {
    /// Who writes it now.
    pub lock: Option<Lock>,
    /// Every version there ever was; version N is at N - 1.
    pub versions: Vec<Version>,
    /// Emptied since its last version.
    pub empty: bool,
}

/// A lock that is held.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Lock {
    /// What its holder said.
    pub info: LockInfo,
    /// Since when.
    pub since: Time,
    /// Who asked for it.
    pub by: Actor,
}

/// A version that was stored.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Version {
    /// What was stored.
    pub stored: StoredState,
    /// When.
    pub at: Time,
    /// By whom.
    pub by: Actor,
}

/// Why a state is not locked, unlocked or stored.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Denied {
    /// Somebody holds it.
    #[error("the state {state} is locked")]
    Locked {
        /// Which.
        state: StateName,
        /// By whom.
        holder: Box<Lock>,
    },
    /// It is locked under another id.
    #[error(
        "the lock of {state} is {holder}, not {given}\nhint: somebody else holds it now; plan again when it is free"
    )]
    OtherLock {
        /// Which.
        state: StateName,
        /// The id that is in force.
        holder: String,
        /// The id that was named; `none` if none was.
        given: String,
    },
    /// The writer believes to hold a lock that is gone.
    #[error(
        "the lock {given} of {state} is gone\nhint: somebody freed it; read the state again and plan again"
    )]
    LockGone {
        /// Which.
        state: StateName,
        /// The id that was named.
        given: String,
    },
    /// Older than what there is.
    #[error(
        "serial {given} of {state} is not above {have}\nhint: this state is older than the kept one; to go back, `andon infra restore`"
    )]
    OldSerial {
        /// Which.
        state: StateName,
        /// The newest.
        have: u64,
        /// The one offered.
        given: u64,
    },
    /// From another history.
    #[error(
        "this state has the lineage {given}, {state} has {have}\nhint: it belongs to other infrastructure; check the address of the backend"
    )]
    OtherLineage {
        /// Which.
        state: StateName,
        /// Its own.
        have: String,
        /// The one offered.
        given: String,
    },
    /// There is no such version.
    #[error("{state} has no version {version}")]
    NoVersion {
        /// Which.
        state: StateName,
        /// The one asked for.
        version: u32,
    },
}

/// What identifies a document that is to be stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Offer {
    /// Its number.
    pub serial: u64,
    /// Its history.
    pub lineage: String,
    /// Of its bytes.
    pub digest: andon_model::Digest,
    /// The lock it is stored under.
    pub lock: Option<String>,
}

impl States {
    /// A state, if anything is known of it.
    pub fn get(&self, name: &StateName) -> Option<&Stored> {
        self.states.get(name)
    }

    /// All states by name.
    pub fn iter(&self) -> impl Iterator<Item = (&StateName, &Stored)> {
        self.states.iter()
    }

    /// Locks it, or says who holds it. The same lock asked for again is granted again.
    pub fn lock(&self, name: &StateName, info: LockInfo) -> Result<Vec<Event>, Denied> {
        match self.held(name) {
            None => Ok(vec![Event::StateLocked { state: name.clone(), holder: info }]),
            Some(lock) if lock.info == info => Ok(vec![]),
            Some(lock) => Err(Denied::Locked { state: name.clone(), holder: Box::new(lock.clone()) }),
        }
    }

    /// Frees the lock of this id. One that is free already is free: the answer to the first request may have been lost.
    pub fn unlock(&self, name: &StateName, id: &str) -> Result<Vec<Event>, Denied> {
        let Some(lock) = self.held(name) else { return Ok(vec![]) };
        if lock.info.id != id {
            let (state, holder, given) = (name.clone(), lock.info.id.clone(), id.to_owned());
            return Err(Denied::OtherLock { state, holder, given });
        }
        let why = "its work is done".to_owned();
        Ok(vec![Event::StateUnlocked { state: name.clone(), lock: lock.info.id.clone(), forced: false, why }])
    }

    /// Frees whatever lock there is, for a reason that is kept.
    pub fn force_unlock(&self, name: &StateName, why: &str) -> Vec<Event> {
        let forced = |lock: &Lock| Event::StateUnlocked {
            state: name.clone(),
            lock: lock.info.id.clone(),
            forced: true,
            why: why.to_owned(),
        };
        self.held(name).map(forced).into_iter().collect()
    }

    /// Whether this document may become the newest version. False: it is that already.
    pub fn may_store(&self, name: &StateName, offer: &Offer) -> Result<bool, Denied> {
        self.under_lock(name, offer.lock.as_deref())?;
        let Some(newest) = self.newest(name) else { return Ok(true) };
        let (have, given) = (&newest.stored, offer);
        if have.lineage != given.lineage {
            let (have, given) = (have.lineage.clone(), given.lineage.clone());
            return Err(Denied::OtherLineage { state: name.clone(), have, given });
        }
        if have.serial == given.serial && have.digest == given.digest {
            return Ok(false);
        }
        if given.serial <= have.serial {
            return Err(Denied::OldSerial { state: name.clone(), have: have.serial, given: given.serial });
        }
        Ok(true)
    }

    /// The version to bring back, and the serial that it gets: above the newest, or the tool refuses it.
    pub fn restore(&self, name: &StateName, version: u32) -> Result<(&Version, u64), Denied> {
        if let Some(holder) = self.held(name).filter(|lock| !lock.info.maintenance) {
            return Err(Denied::Locked { state: name.clone(), holder: Box::new(holder.clone()) });
        }
        let missing = || Denied::NoVersion { state: name.clone(), version };
        let stored = self.states.get(name).ok_or_else(missing)?;
        let place = version.checked_sub(1).ok_or_else(missing)? as usize;
        let found = stored.versions.get(place).ok_or_else(missing)?;
        let newest = stored.versions.iter().map(|v| v.stored.serial).max().unwrap_or_default();
        Ok((found, newest + 1))
    }

    /// Whether it may be emptied under this lock.
    pub fn delete(&self, name: &StateName, lock: Option<&str>) -> Result<Vec<Event>, Denied> {
        self.under_lock(name, lock)?;
        Ok(self.newest(name).map(|_| Event::StateDeleted { state: name.clone() }).into_iter().collect())
    }

    /// The version that a reader gets.
    pub fn newest(&self, name: &StateName) -> Option<&Version> {
        self.states.get(name).filter(|stored| !stored.empty)?.versions.last()
    }

    /// Locks that runs of ours hold.
    pub fn held_by_runs(&self) -> impl Iterator<Item = (&StateName, InfraRunId)> {
        self.states.iter().filter_map(|(name, stored)| Some((name, stored.lock.as_ref()?.info.run?)))
    }

    /// Takes in what happened.
    pub fn evolve(&mut self, recorded: &Recorded) {
        let at = |name: &StateName| name.clone();
        match &recorded.event {
            Event::StateLocked { state, holder } => {
                let lock = Lock { info: holder.clone(), since: recorded.at, by: recorded.by.clone() };
                self.states.entry(at(state)).or_default().lock = Some(lock);
            }
            Event::StateUnlocked { state, .. } => self.states.entry(at(state)).or_default().lock = None,
            Event::StateStored { state, version } => {
                let stored = self.states.entry(at(state)).or_default();
                let by = recorded.by.clone();
                stored.versions.push(Version { stored: version.clone(), at: recorded.at, by });
                stored.empty = false;
            }
            Event::StateDeleted { state } => self.states.entry(at(state)).or_default().empty = true,
            _ => {}
        }
    }

    fn held(&self, name: &StateName) -> Option<&Lock> {
        self.states.get(name)?.lock.as_ref()
    }

    /// A writer names the lock that is in force; where none is, it names none.
    fn under_lock(&self, name: &StateName, given: Option<&str>) -> Result<(), Denied> {
        match (self.held(name), given) {
            (None, None) => Ok(()),
            (None, Some(given)) => Err(Denied::LockGone { state: name.clone(), given: given.to_owned() }),
            (Some(lock), Some(given)) if lock.info.id == given => Ok(()),
            (Some(lock), given) => Err(Denied::OtherLock {
                state: name.clone(),
                holder: lock.info.id.clone(),
                given: given.unwrap_or("none").to_owned(),
            }),
        }
    }
}

impl Lock {
    /// The holder in one sentence. Terraform prints the `ID` of a refusal as it stands: that is where its user reads this.
    pub fn sentence(&self, state: &StateName, now: Time) -> String {
        let since = now.since(self.since);
        let info = &self.info;
        let by = match (&info.run, info.maintenance) {
            (Some(run), _) => format!("run {run} of {}", self.by),
            (None, true) => format!("{} for maintenance ({})", self.by, info.who),
            (None, false) => format!("{} at {}", self.by, info.who),
        };
        let doing = match info.operation.as_str() {
            _ if info.maintenance => "locked",
            "OperationTypePlan" => "plan of",
            "OperationTypeApply" => "apply of",
            _ => "working on",
        };
        format!("{by}, {doing} {state}, since {} ({since} ago); lock {}", self.since.hh_mm_ss(), info.id)
    }
}
