//! Secrets of projects: set, removed, listed without their values, and given to what may have them. Who may is decided in andon-pipeline.

use std::collections::BTreeMap;

use andon_model::event::{Event, Role};
use andon_model::{ChangeId, EnvironmentName, SecretName};
use andon_pipeline::secrets::Asks;

use crate::{Caller, Line, Project, Refusal};

/// The shortest value: a shorter one cannot be kept out of logs without hiding half of them.
const SHORTEST: usize = 8;
/// The longest, in bytes.
const LONGEST: usize = 64 * 1024;
/// Secrets of a project.
const MOST: usize = 500;

/// What was asked for: the values that are given, by name, and of the others why not.
#[derive(Default)]
pub(crate) struct Given {
    pub values: BTreeMap<SecretName, String>,
    pub refused: Vec<String>,
}

impl Line {
    /// Seals a value and keeps it under this name, instead of what was there.
    pub async fn set_secret(
        &self,
        project: &Project,
        caller: &Caller,
        secret: SecretName,
        value: &str,
        environments: Vec<EnvironmentName>,
        unlanded: bool,
    ) -> Result<(), Refusal> {
        caller.may(Role::Owner)?;
        if value.trim().len() < SHORTEST {
            return Err(Refusal::Bad(format!(
                "a secret has {SHORTEST} characters or more: a shorter value cannot be kept out of logs\nhint: make it longer, or put it into `env` if everybody may read it"
            )));
        }
        if value.len() > LONGEST || value.contains('\0') {
            return Err(Refusal::Bad(format!(
                "a secret is text of at most {LONGEST} bytes\nhint: keep larger things where they are, and their key here"
            )));
        }
        let sealed = self.vault.seal(value.as_bytes())?;
        let blobs = self.blobs.clone();
        let put = tokio::task::spawn_blocking(move || blobs.put(&sealed[..])).await;
        let (sealed, _) = put.map_err(|error| Refusal::Broken(error.to_string()))??;
        self.decide(project, caller.actor(), |state, _| {
            if state.secrets.all.len() >= MOST && !state.secrets.all.contains_key(&secret) {
                return Err(Refusal::Conflict(format!(
                    "a project has at most {MOST} secrets\nhint: remove some that nobody uses"
                )));
            }
            let unknown = environments.iter().find(|name| !state.estate.environments.contains_key(*name));
            if let Some(unknown) = unknown {
                return Err(Refusal::Unknown(format!(
                    "there is no environment {unknown}\nhint: `andon env list` shows those there are"
                )));
            }
            Ok((vec![Event::SecretSet { secret, sealed, environments, unlanded }], ()))
        })
        .await
    }

    /// Forgets it. What has it already keeps it until it is started anew.
    pub async fn remove_secret(
        &self,
        project: &Project,
        caller: &Caller,
        secret: SecretName,
    ) -> Result<(), Refusal> {
        caller.may(Role::Owner)?;
        self.decide(project, caller.actor(), |state, _| {
            if !state.secrets.all.contains_key(&secret) {
                return Err(Refusal::Unknown(format!(
                    "{secret} is not set\nhint: `andon secret list` shows those that are"
                )));
            }
            Ok((vec![Event::SecretRemoved { secret }], ()))
        })
        .await
    }

    /// The values for whoever asks. They are opened here and nowhere else.
    pub(crate) fn give_secrets(
        &self,
        project: &Project,
        wanted: &[SecretName],
        asks: Asks<'_>,
    ) -> Result<Given, Refusal> {
        let mut given = Given::default();
        for name in wanted {
            let found = project.state().secrets.given(name, asks).cloned();
            match found {
                Ok(secret) => {
                    // Sealing adds a header, and a little to each piece.
                    let sealed = self.blobs.read(&secret.sealed, 2 * LONGEST as u64)?;
                    let value = self.vault.open_sealed(&sealed)?;
                    given.values.insert(name.clone(), String::from_utf8_lossy(&value).into_owned());
                }
                Err(why) => given.refused.push(why),
            }
        }
        Ok(given)
    }

    /// The same for what runs in an environment, or tests it.
    pub(crate) fn secrets_of_environment(
        &self,
        project: &Project,
        environment: &EnvironmentName,
        wanted: &[SecretName],
    ) -> Result<Given, Refusal> {
        // What shows a change that has not landed gets no more than its jobs do.
        let asks = match project.unlanded_in(environment) {
            Some(change) => self.asks_of(project, change),
            None => Asks::Environment(environment),
        };
        self.give_secrets(project, wanted, asks)
    }

    /// How a job of a change that has not landed asks.
    pub(crate) fn asks_of(&self, project: &Project, change: ChangeId) -> Asks<'static> {
        let state = project.state();
        let edits = state.queue.changes.get(&change).is_none_or(|change| change.push.edits_pipeline);
        Asks::Unlanded { edits_pipeline: edits }
    }
}
