//! After the tool: what it could not store is stored, what it made and did not save is taken into the state, its lock is freed. Each is safe
//! to do again, for a server may be killed in the middle of it. What cannot be saved is said and stays on display.

use andon_environment::infrastructure::Stopping;
use andon_model::event::{Actor, Event};
use andon_provision::terraform::stream::Made;
use andon_provision::terraform::{Said, document};
use tokio_util::sync::CancellationToken;

use super::backend::Writer;
use super::drive::{Failed, Work, alone, first_error};
use super::{Hands, STATION, StateRefusal};
use crate::Refusal;
use crate::intake::plain;

/// Longest time that taking one resource into the state may take.
const MOST: std::time::Duration = std::time::Duration::from_secs(600);
/// Resources of one run that are taken into the state one by one; more is work for people.
const ADOPTED: usize = 200;
/// What a state that cannot be read is called where it is shown.
const ERRORED: &str = "errored.tfstate";
/// What the tool says of a resource that its state has.
const MANAGED: &str = "already managed";

impl Work<'_> {
    /// Who wants this run ended, as the journal says now.
    pub(super) fn stopping(&self) -> Option<Stopping> {
        self.project.state().estate.infrastructure.runs.get(&self.run.id())?.stopping.clone()
    }

    /// Nothing new is begun for a run that is to end.
    pub(super) fn unless_stopping(&self) -> Result<(), Failed> {
        match self.stopping() {
            Some(stopping) => Err(Failed::Run(stopping.sentence())),
            None => Ok(()),
        }
    }

    /// The end of a run that somebody stopped: what it did is kept.
    pub(super) async fn stopped(&self, hands: &Hands) -> Result<(), Refusal> {
        let Some(stopping) = self.stopping() else { return Ok(()) };
        alone(&self.room).await;
        let began = self.room.work().is_dir();
        if began && self.run.asked.playbook.is_none() {
            self.salvage(hands).await?;
        }
        let worked = began && !self.room.said("plan").is_empty();
        let words = if worked { stopping.sentence() } else { format!("taken back by {}", stopping.by) };
        self.finish(false, &words).await
    }

    /// Saves what the tool left: first its state, then what that does not know.
    pub(super) async fn salvage(&self, hands: &Hands) -> Result<(), Refusal> {
        let said = Said::of(&self.room.said("apply")).unwrap_or_default();
        let mut made = said.made;
        made.extend(self.recover().await?);
        self.adopt(hands, &made).await?;
        // A tool that could speak to its end has saved what it was doing.
        if said.errors.is_empty() && said.complete.is_none() {
            for address in said.making {
                let why = "the tool was ended while it was being made; look whether it exists";
                self.lost(&address, None, why).await?;
            }
        }
        Ok(())
    }

    /// A state that the tool could not store lies beside its code: it is stored now. Then its lock goes, if it is still there. Answers with
    /// what such a state knows if it cannot be stored any more.
    async fn recover(&self) -> Result<Vec<Made>, Refusal> {
        let lock = {
            let state = self.project.state();
            let lock = state.states.get(&self.state).and_then(|stored| stored.lock.as_ref());
            lock.filter(|lock| lock.info.run == Some(self.run.id())).map(|lock| lock.info.id.clone())
        };
        let (line, run) = (self.line, self.run.id());
        let by = Actor::line(&format!("{STATION} {run}"));
        let mut left = Vec::new();
        if let Ok(document) = tokio::fs::read(self.room.errored()).await {
            let first = self.project.state().states.newest(&self.state).is_none();
            let document = if first { begun(document) } else { document };
            let writer = Writer { by: by.clone(), run: Some(run) };
            let kept = line
                .keep_state(self.project, &writer, &self.state, lock.clone(), document.clone(), Some(run))
                .await;
            match kept {
                Ok(()) => {}
                // Somebody else took the lock meanwhile: this waits until they are done.
                Err(StateRefusal::Denied(
                    denied @ (andon_environment::states::Denied::OtherLock { .. }
                    | andon_environment::states::Denied::Locked { .. }),
                )) => return Err(Refusal::Conflict(denied.to_string())),
                Err(StateRefusal::Denied(denied)) => {
                    tracing::warn!(%run, %denied, "a state that was left behind is older than what there is");
                    left = known_as_made(&document);
                }
                // Half written: the tool was killed in the middle of it.
                Err(StateRefusal::Other(Refusal::Bad(why))) => self.lost(ERRORED, None, &why).await?,
                Err(StateRefusal::Other(refusal)) => return Err(refusal),
            }
            drop(tokio::fs::remove_file(self.room.errored()).await);
        }
        if lock.is_some() {
            line.force_unlock(self.project, by, &self.state, "its run is over").await?;
        }
        Ok(left)
    }

    /// Takes what was made and is in no state into the state.
    async fn adopt(&self, hands: &Hands, made: &[Made]) -> Result<(), Refusal> {
        if made.is_empty() {
            return Ok(());
        }
        let known = match self.line.read_state(self.project, &self.state).await? {
            Some(state) => document::known(&state).map_err(|error| Refusal::Broken(error.to_string()))?,
            None => Default::default(),
        };
        let unsaved: Vec<Made> = document::unsaved(made, &known).into_iter().cloned().collect();
        for (place, one) in unsaved.iter().enumerate() {
            if place >= ADOPTED {
                let why = "too many at once; import it into the state by hand, or remove it";
                self.lost(&one.address, Some(&one.id), why).await?;
                continue;
            }
            if one.instead && known.contains_key(&one.address) {
                // What the state means by this address is gone: it was told so before the new one came.
                // Where that fails the import says why.
                let _ = self.tool(hands, self.room.forget_args(&one.address)).await?;
            }
            let taken = self.tool(hands, self.room.import_args(&one.address, &one.id)).await?;
            match taken {
                Err(why) if !why.contains(MANAGED) => {
                    let why = format!("it could not be taken into the state: {why}");
                    self.lost(&one.address, Some(&one.id), &why).await?;
                }
                _ => {
                    let (run, environment) = (self.run.id(), self.run.asked.environment.clone());
                    let (address, id) = (plain(&one.address), plain(&one.id));
                    self.tell(vec![Event::InfraAdopted { run, environment, address, id }]).await?;
                }
            }
        }
        Ok(())
    }

    /// The tool on its state, to its end; the inner error is its first words against it.
    async fn tool(
        &self,
        hands: &Hands,
        args: Vec<std::ffi::OsString>,
    ) -> Result<Result<(), String>, Refusal> {
        const PHASE: &str = "salvage";
        let broken = |error: andon_provision::terraform::TerraformError| Refusal::Broken(error.to_string());
        let tool = hands.tool().await.map_err(broken)?;
        let before = self.room.said(PHASE).len();
        let running = self.room.start(tool, &self.env()?, PHASE, args).map_err(broken)?;
        let ended = running.end(&CancellationToken::new(), MOST).await?;
        if ended.ok {
            return Ok(Ok(()));
        }
        let said = self.room.said(PHASE);
        let said = said.get(before..).unwrap_or(&said);
        // Without a word it was killed itself: that says nothing of the resource, and it is tried again.
        first_error(said).map(Err).ok_or_else(|| Refusal::Broken(format!("{tool} ended without a word")))
    }

    async fn lost(&self, address: &str, id: Option<&str>, why: &str) -> Result<(), Refusal> {
        let (run, environment) = (self.run.id(), self.run.asked.environment.clone());
        let (address, id, why) = (plain(address), id.map(plain), plain(why));
        self.tell(vec![Event::InfraLost { run, environment, address, id, why }]).await
    }
}

/// The first state of all has no lineage before it was stored, and the serial 0: the tool gives it both when it stores it.
fn begun(document: Vec<u8>) -> Vec<u8> {
    let Ok(mut state) = serde_json::from_slice::<serde_json::Value>(&document) else { return document };
    if state["lineage"].as_str().is_none_or(|lineage| !lineage.is_empty()) {
        return document;
    }
    state["lineage"] = andon_kit::secret::fresh("").into();
    state["serial"] = state["serial"].as_u64().unwrap_or_default().max(1).into();
    state.to_string().into_bytes()
}

/// Everything in a state that cannot be stored, as what was made.
fn known_as_made(state: &[u8]) -> Vec<Made> {
    let known = document::known(state).unwrap_or_default();
    let made = |(address, id): (String, Option<String>)| Some(Made { address, id: id?, instead: false });
    known.into_iter().filter_map(made).collect()
}

#[cfg(test)]
mod tests {
    use super::begun;

    #[test]
    fn the_first_state_of_all_gets_a_lineage_and_every_other_stays_as_it_is() {
        let first = begun(br#"{"version":4,"serial":0,"lineage":"","resources":[]}"#.to_vec());
        let first: serde_json::Value = serde_json::from_slice(&first).unwrap();
        assert!(first["serial"] == 1 && !first["lineage"].as_str().unwrap().is_empty(), "{first}");
        for other in [r#"{"version":4,"serial":0,"lineage":"l"}"#, "half a sta"] {
            assert_eq!(begun(other.as_bytes().to_vec()), other.as_bytes());
        }
    }
}
