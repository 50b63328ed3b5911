//! What people ask of environments: create, end, rebuild, extend, deploy into them.

use std::sync::Arc;

use andon_environment::promote;
use andon_model::event::{Event, Role};
use andon_model::{ChangeId, DeploymentId, EnvironmentName, InstanceId, Span};

use super::deployment;
use crate::{Caller, Line, Project, Refusal};

/// Life of an environment that was asked for without saying how long.
const LIFE: Span = Span::secs(86_400);

impl Line {
    /// Asks for an environment like a declared one. It gets what serves there, and ends by itself.
    pub async fn create_environment(
        &self,
        project: &Project,
        caller: &Caller,
        environment: EnvironmentName,
        like: EnvironmentName,
        lasts: Option<Span>,
    ) -> Result<(), Refusal> {
        caller.may(Role::Developer)?;
        let defined = project.trunk_definition().await?;
        let declared: Vec<String> = match defined.as_deref() {
            Some(Ok(definition)) => definition.environments.keys().map(ToString::to_string).collect(),
            _ => {
                return Err(Refusal::Conflict(
                    "trunk has no andon.yaml that can be read\nhint: land one first".into(),
                ));
            }
        };
        if !declared.iter().any(|name| name == like.as_str()) {
            let why = format!(
                "there is no environment {like} in andon.yaml\nhint: declared are {}",
                declared.join(", ")
            );
            return Err(Refusal::Unknown(why));
        }
        self.decide(project, caller.actor(), |state, now| {
            if state.estate.environments.contains_key(&environment)
                || declared.iter().any(|name| name == environment.as_str())
            {
                return Err(Refusal::Conflict(format!("the environment {environment} is there already")));
            }
            let expires = Some(now + lasts.unwrap_or(LIFE));
            Ok((
                vec![Event::EnvironmentCreated { environment, like: Some(like), standing: false, expires }],
                (),
            ))
        })
        .await
    }

    /// Ends an environment that was asked for, or rebuilds any from code: everything in it is stopped, removed and made anew.
    pub async fn destroy_environment(
        &self,
        project: &Project,
        caller: &Caller,
        environment: EnvironmentName,
        rebuild: bool,
        why: &str,
    ) -> Result<(), Refusal> {
        caller.may(if rebuild { Role::Deployer } else { Role::Developer })?;
        let why = crate::intake::plain(why);
        self.decide(project, caller.actor(), |state, _| {
            let Some(found) = state.estate.environments.get(&environment) else {
                return Err(Refusal::Unknown(format!("there is no environment {environment}")));
            };
            if found.standing && !rebuild {
                let why = format!(
                    "{environment} is declared in andon.yaml\nhint: take it out there, or rebuild it"
                );
                return Err(Refusal::Conflict(why));
            }
            if found.destroying.is_some() {
                return Err(Refusal::Conflict(format!("{environment} is being rebuilt already")));
            }
            Ok((vec![Event::EnvironmentDestroyed { environment, rebuild, why }], ()))
        })
        .await
    }

    /// Moves the end of an environment.
    pub async fn extend_environment(
        &self,
        project: &Project,
        caller: &Caller,
        environment: EnvironmentName,
        lasts: Span,
    ) -> Result<(), Refusal> {
        caller.may(Role::Developer)?;
        self.decide(project, caller.actor(), |state, now| match state.estate.environments.get(&environment) {
            Some(found) if !found.standing => {
                Ok((vec![Event::EnvironmentExtended { environment, expires: Some(now + lasts) }], ()))
            }
            Some(_) => Err(Refusal::Conflict(format!("{environment} does not end by itself"))),
            None => Err(Refusal::Unknown(format!("there is no environment {environment}"))),
        })
        .await
    }

    /// Puts a landed change's artifact into an environment, beside what serves. It moves no user by itself; the release does.
    pub async fn deploy(
        &self,
        project: &Project,
        caller: &Caller,
        environment: EnvironmentName,
        change: Option<ChangeId>,
    ) -> Result<DeploymentId, Refusal> {
        caller.may(Role::Deployer)?;
        let defined = project.trunk_definition().await?;
        let Some(Ok(definition)) = defined.as_deref() else {
            return Err(Refusal::Conflict("trunk has no andon.yaml that can be read".into()));
        };
        let wanted =
            |l: &&andon_environment::Landing| l.artifact.is_some() && change.is_none_or(|c| l.change == c);
        let commit = {
            let state = project.state();
            state.estate.landings.iter().rev().find(wanted).map(|landing| landing.commit.clone())
        };
        let nothing = || Refusal::Unknown("nothing landed that could be deployed".into());
        let commit = commit.ok_or_else(nothing)?;
        let own = project.definition(&commit).await?;
        let declared = super::declared(definition);
        self.decide(project, caller.actor(), |state, _| {
            if !state.estate.environments.contains_key(&environment) {
                return Err(Refusal::Unknown(format!("there is no environment {environment}")));
            }
            let landing =
                state.estate.landings.iter().rev().find(|l| l.commit == commit).ok_or_else(nothing)?;
            if let Some(why) = promote::refusal(&state.estate, &declared, &environment, landing) {
                let hint =
                    "the same change goes everywhere in the order of andon.yaml: deploy it there first";
                return Err(Refusal::Conflict(format!("{why}\nhint: {hint}")));
            }
            let none = || {
                Refusal::Conflict(format!(
                    "{} is in {environment} already, was tried there, or another deployment is under way",
                    landing.commit.short()
                ))
            };
            let candidate = promote::candidate(&state.estate, &environment, landing).ok_or_else(none)?;
            let id = state.estate.next_deployment();
            let none = || Refusal::Conflict("andon.yaml declares no services".into());
            Ok((vec![deployment(state, &own, definition, candidate, id).ok_or_else(none)?], id))
        })
        .await
    }

    /// The end of an instance's output.
    pub async fn instance_log(
        &self,
        project: &Arc<Project>,
        instance: InstanceId,
        lines: usize,
    ) -> Result<String, Refusal> {
        let kind = project.state().estate.runtime_of(instance);
        let runtime = project.runtime(kind)?;
        let read = tokio::task::spawn_blocking(move || runtime.logs(&instance.to_string(), lines)).await;
        let read = read.map_err(|error| Refusal::Broken(error.to_string()))?;
        read.map_err(|error| Refusal::Unknown(error.to_string()))
    }
}
