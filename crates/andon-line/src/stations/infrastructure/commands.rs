//! What people ask of infrastructure. Who may is said here; what is allowed then, in andon-environment.

use andon_model::Digest;
use andon_model::StateName;
use andon_model::event::{Actor, Event, LockInfo, Role, StoredState};

use super::StateRefusal;
use crate::intake::plain;
use crate::{Caller, Line, Project, Refusal};

impl Line {
    /// Makes an old version the newest: its content with a serial above all others, in the same lineage.
    pub async fn restore_state(
        &self,
        project: &Project,
        caller: &Caller,
        name: &StateName,
        version: u32,
    ) -> Result<u64, StateRefusal> {
        caller.may(Role::Deployer)?;
        let (blob, serial) = {
            let state = project.state();
            let (old, serial) = state.states.restore(name, version)?;
            (old.stored.blob.clone(), serial)
        };
        let document = self.open_blob(blob).await?;
        let mut value: serde_json::Value =
            serde_json::from_slice(&document).map_err(|error| Refusal::Broken(error.to_string()))?;
        value["serial"] = serial.into();
        let document = serde_json::to_vec(&value).map_err(|error| Refusal::Broken(error.to_string()))?;
        let (digest, bytes) = (Digest::of(&document), document.len() as u64);
        let blob = self.seal_blob(document).await?;
        let done = self.decide(project, caller.actor(), |state, _| {
            let (old, now) = match state.states.restore(name, version) {
                Ok(found) => found,
                Err(denied) => return Ok((vec![], Err(StateRefusal::from(denied)))),
            };
            if now != serial {
                let why = format!("{name} was written meanwhile\nhint: look at it again, then restore");
                return Err(Refusal::Conflict(why));
            }
            let lineage = old.stored.lineage.clone();
            let restored_from = Some(version);
            let (lock, recovered) = (None, None);
            let version =
                StoredState { serial, lineage, digest, blob, bytes, lock, restored_from, recovered };
            Ok((vec![Event::StateStored { state: name.clone(), version }], Ok(())))
        });
        done.await??;
        Ok(serial)
    }

    /// Holds the state so that nothing changes meanwhile, until it is freed by [`Line::free_state`].
    pub async fn hold_state(
        &self,
        project: &Project,
        caller: &Caller,
        name: &StateName,
        why: &str,
    ) -> Result<(), StateRefusal> {
        caller.may(Role::Deployer)?;
        let info = LockInfo {
            id: andon_kit::secret::fresh("maintenance-"),
            operation: "maintenance".into(),
            who: plain(why),
            version: String::new(),
            run: None,
            maintenance: true,
        };
        self.take_lock(project, caller.actor(), name, info).await
    }

    /// Ends a maintenance lock; any other lock only when an owner forces it.
    pub async fn free_state(
        &self,
        project: &Project,
        caller: &Caller,
        name: &StateName,
        force: bool,
    ) -> Result<(), StateRefusal> {
        caller.may(Role::Deployer)?;
        let held = project.state().states.get(name).and_then(|stored| stored.lock.clone());
        let Some(lock) = held else {
            return Err(Refusal::Conflict(format!("{name} is not locked")).into());
        };
        if !lock.info.maintenance {
            if !force {
                return Err(lock_stays(name, &lock.sentence(name, self.now())).into());
            }
            caller.may(Role::Owner)?;
        }
        let why = if lock.info.maintenance { "the maintenance is over" } else { "forced by an owner" };
        Ok(self.force_unlock(project, caller.actor(), name, why).await?)
    }

    /// Locks of runs that are over are freed: nobody would ever unlock them.
    pub(super) async fn free_dead_locks(&self, project: &Project) -> Result<(), Refusal> {
        let dead: Vec<StateName> = {
            let state = project.state();
            let over =
                state.states.held_by_runs().filter(|(_, run)| !state.estate.infrastructure.is_open(*run));
            over.map(|(name, _)| name.clone()).collect()
        };
        for name in dead {
            self.force_unlock(project, Actor::line(super::STATION), &name, "its run is over").await?;
        }
        Ok(())
    }
}

fn lock_stays(name: &StateName, holder: &str) -> Refusal {
    Refusal::Conflict(format!(
        "{name} is held by {holder}\nhint: wait for it, or `andon infra unlock {name} --force` as an owner"
    ))
}
