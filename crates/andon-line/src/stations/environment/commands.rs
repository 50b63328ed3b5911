//! What people ask of environments: create, end, rebuild, extend, deploy into them.

use std::sync::Arc;

use andon_environment::life::LONGEST;
use andon_environment::promote::Refused;
use andon_environment::{Environment, promote};
use andon_model::event::{Event, Role};
use andon_model::{ChangeId, DeploymentId, EnvironmentName, InstanceId, ServiceName, Span};

use super::deployment;
use crate::stations::provenance::Look;
use crate::{Caller, Line, Project, Refusal, State};

/// Life of an environment that was asked for without saying how long.
const LIFE: Span = Span::secs(86_400);
/// More instances of one service than this are a mistake.
const MOST_REPLICAS: u32 = 64;

fn life_of(asked: Option<Span>) -> Result<Span, Refusal> {
    let lasts = asked.unwrap_or(LIFE);
    if lasts > LONGEST || lasts < Span::secs(1) {
        let most = LONGEST.compact();
        return Err(Refusal::Bad(format!(
            "it can live for 1s to {most}\nhint: it can be extended again later"
        )));
    }
    Ok(lasts)
}

pub(super) fn there<'a>(state: &'a State, name: &EnvironmentName) -> Result<&'a Environment, Refusal> {
    let hint = "`andon env list` shows those there are";
    let none = || Refusal::Unknown(format!("there is no environment {name}\nhint: {hint}"));
    state.estate.environments.get(name).ok_or_else(none)
}

/// An environment that somebody asks for.
#[derive(Debug, Clone)]
pub struct NewEnvironment {
    /// Its name; none: made from the change.
    pub name: Option<EnvironmentName>,
    /// The declared environment that it is like; none: the last one that a change passes through.
    pub like: Option<EnvironmentName>,
    /// How long it lives; none: a day.
    pub lasts: Option<Span>,
    /// The change that it shows, before it landed too; none: what serves in the one it is like.
    pub change: Option<ChangeId>,
}

impl Line {
    /// Asks for an environment like a declared one. It gets what serves there or what a change built, and ends by itself.
    pub async fn create_environment(
        &self,
        project: &Project,
        caller: &Caller,
        wanted: NewEnvironment,
    ) -> Result<EnvironmentName, Refusal> {
        caller.may(Role::Developer)?;
        let NewEnvironment { name, like, lasts, change } = wanted;
        let defined = project.trunk_definition().await?;
        let declared: Vec<EnvironmentName> = match defined.as_deref() {
            Some(Ok(definition)) => definition.environments.keys().cloned().collect(),
            _ => {
                return Err(Refusal::Conflict(
                    "trunk has no andon.yaml that can be read\nhint: land one first".into(),
                ));
            }
        };
        let like = like.or_else(|| declared.last().cloned());
        let like = like.ok_or_else(|| Refusal::Conflict("andon.yaml declares no environment".into()))?;
        if !declared.contains(&like) {
            let names: Vec<String> = declared.iter().map(ToString::to_string).collect();
            let why = format!(
                "there is no environment {like} in andon.yaml\nhint: declared are {}",
                names.join(", ")
            );
            return Err(Refusal::Unknown(why));
        }
        let name = match (name, change) {
            (Some(name), _) => name,
            (None, Some(change)) => format!("change-{}", change.0)
                .parse()
                .map_err(|_| Refusal::Broken("a change has a number that makes no name".into()))?,
            (None, None) => {
                return Err(Refusal::Bad("an environment needs a name\nhint: give it one".into()));
            }
        };
        let lasts = life_of(lasts)?;
        self.decide(project, caller.actor(), |state, now| {
            if state.estate.environments.contains_key(&name) || declared.contains(&name) {
                return Err(Refusal::Conflict(format!("the environment {name} is there already")));
            }
            if let Some(change) = change.filter(|change| !state.queue.changes.contains_key(change)) {
                return Err(Refusal::Unknown(format!("there is no change {}", change.0)));
            }
            if change.is_some_and(|change| state.estate.abandoned.contains(&change)) {
                return Err(Refusal::Conflict("this change was taken back: there is nothing to show".into()));
            }
            let environment = name.clone();
            let (like, expires) = (Some(like), Some(now + lasts));
            let made = Event::EnvironmentCreated { environment, like, standing: false, expires, change };
            Ok((vec![made], ()))
        })
        .await?;
        Ok(name)
    }

    /// Runs another number of instances of a service than code says; none: as code says again.
    pub async fn scale(
        &self,
        project: &Project,
        caller: &Caller,
        environment: EnvironmentName,
        service: ServiceName,
        replicas: Option<u32>,
    ) -> Result<(), Refusal> {
        caller.may(Role::Deployer)?;
        if replicas.is_some_and(|replicas| !(1..=MOST_REPLICAS).contains(&replicas)) {
            return Err(Refusal::Bad(format!("write 1 to {MOST_REPLICAS} instances")));
        }
        self.decide(project, caller.actor(), |state, _| {
            let found = there(state, &environment)?;
            if !found.serving.contains_key(&service) {
                return Err(Refusal::Unknown(format!("{environment} has no service {service} that serves")));
            }
            if found.scaled.get(&service).copied() == replicas {
                return Ok((vec![], ()));
            }
            Ok((vec![Event::ServiceScaled { environment, service, replicas }], ()))
        })
        .await
    }

    /// Keeps new deployments out of an environment, or lets them in again. What runs there is looked after all the same.
    pub async fn hold_environment(
        &self,
        project: &Project,
        caller: &Caller,
        environment: EnvironmentName,
        why: Option<&str>,
    ) -> Result<(), Refusal> {
        caller.may(Role::Deployer)?;
        let why = why.map(crate::intake::plain);
        if why.as_ref().is_some_and(|why| why.trim().is_empty()) {
            return Err(Refusal::Bad(
                "say why, so that others know how long\nhint: --why \"fair until Friday\"".into(),
            ));
        }
        self.decide(project, caller.actor(), |state, _| {
            let same = there(state, &environment)?.held.as_ref().map(|(_, why)| why) == why.as_ref();
            Ok((if same { vec![] } else { vec![Event::EnvironmentHeld { environment, why }] }, ()))
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
        let lasts = life_of(Some(lasts))?;
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
        let found = {
            let state = project.state();
            let landing = state.estate.landings.iter().rev().find(wanted);
            landing.and_then(|l| Some((l.commit.clone(), l.run, l.artifact.clone()?)))
        };
        let nothing = || Refusal::Unknown("nothing landed that could be deployed".into());
        let (commit, run, artifact) = found.ok_or_else(nothing)?;
        match crate::stations::provenance::look(self, project, run, &artifact).await? {
            Look::Good => {}
            Look::NotYet => {
                let why =
                    "nobody vouches for this artifact yet\nhint: in a moment the server does; try again";
                return Err(Refusal::Conflict(why.into()));
            }
            Look::Bad(why) => {
                let why = format!(
                    "{} is refused: {why}\nhint: build it again by a change that lands, and find out who had a hand in it",
                    artifact.short()
                );
                return Err(Refusal::Conflict(why));
            }
        }
        let own = project.definition(&commit).await?;
        self.decide(project, caller.actor(), |state, now| {
            if !state.estate.environments.contains_key(&environment) {
                return Err(Refusal::Unknown(format!("there is no environment {environment}")));
            }
            let landing =
                state.estate.landings.iter().rev().find(|l| l.commit == commit).ok_or_else(nothing)?;
            if let Some(Refused { why, hint }) =
                super::waits::refused(project, state, &own, definition, &environment, landing, now)
            {
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
            let wanted = super::wanted(state, &own, definition, &candidate, id);
            let deployment = deployment(state, &own, definition, candidate, id).ok_or_else(none)?;
            Ok((wanted.into_iter().chain([deployment]).collect(), id))
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
        let runtime = project.runtime_of(instance)?;
        let read = tokio::task::spawn_blocking(move || runtime.logs(&instance.to_string(), lines)).await;
        let read = read.map_err(|error| Refusal::Broken(error.to_string()))?;
        read.map_err(|error| Refusal::Unknown(error.to_string()))
    }
}
