//! What people ask of runs: plan, apply, approve, stop, read what the tool said.

use andon_environment::blueprint::Plan;
use andon_environment::guard;
use andon_environment::infrastructure::{Run, Stage};
use andon_model::event::{Event, InfraAction, InfraFinished, InfraQueued, Role};
use andon_model::{EnvironmentName, InfraRunId};
use andon_provision::terraform::{Room, process};

use super::drive::rooms;
use crate::intake::plain;
use crate::view::InfrastructureView;
use crate::{Caller, Line, Project, Refusal};

impl Line {
    /// Asks for a run: a plan of what trunk would do, or what is in force applied again. Where nothing is in force, trunk is applied.
    pub async fn run_infrastructure(
        &self,
        project: &Project,
        caller: &Caller,
        environment: &EnvironmentName,
        action: InfraAction,
    ) -> Result<InfraRunId, Refusal> {
        caller.may(if action == InfraAction::Plan { Role::Developer } else { Role::Deployer })?;
        let trunk = self.trunk_infrastructure(project, environment, action).await?;
        self.decide(project, caller.actor(), |state, _| {
            let infrastructure = &state.estate.infrastructure;
            if state.estate.environments.get(environment).is_none_or(|e| e.destroying.is_some()) {
                return Err(Refusal::Unknown(format!("there is no environment {environment}")));
            }
            let run = infrastructure.next_run();
            let why = "asked for".to_owned();
            let applied = infrastructure.applied.get(environment).filter(|_| action == InfraAction::Apply);
            let asked = match applied {
                Some(applied) => InfraQueued {
                    run,
                    environment: environment.clone(),
                    action,
                    commit: applied.commit.clone(),
                    tree: applied.tree.clone(),
                    folder: applied.folder.clone(),
                    variables: applied.variables.clone(),
                    deployment: None,
                    why,
                },
                None => InfraQueued { run, why, ..trunk? },
            };
            Ok((vec![Event::InfraQueued(asked)], run))
        })
        .await
    }

    /// What trunk says of an environment's infrastructure, as a run.
    async fn trunk_infrastructure(
        &self,
        project: &Project,
        environment: &EnvironmentName,
        action: InfraAction,
    ) -> Result<Result<InfraQueued, Refusal>, Refusal> {
        let none = || {
            let why = format!(
                "{environment} has no infrastructure\nhint: say `infrastructure: {{ terraform: FOLDER }}` at it in andon.yaml"
            );
            Ok(Err(Refusal::Conflict(why)))
        };
        let (commit, like) = {
            let state = project.state();
            let place = state.estate.environments.get(environment);
            let like = place.and_then(|place| place.like.clone().filter(|_| !place.standing));
            (state.queue.trunk.clone(), like)
        };
        let defined = project.trunk_definition().await?;
        let definition = defined.as_deref().and_then(|defined| defined.as_ref().ok());
        let resolved = definition.and_then(|d| d.resolve(like.as_ref().unwrap_or(environment)));
        let (Some(commit), Some(infrastructure)) = (commit, resolved.and_then(|r| r.infrastructure)) else {
            return none();
        };
        let folder = infrastructure.folder();
        let Some(tree) = project.repository.object(&commit, &folder).await? else {
            return Ok(Err(Refusal::Conflict(format!("trunk has no folder {folder}"))));
        };
        Ok(Ok(InfraQueued {
            run: InfraRunId(0),
            environment: environment.clone(),
            action,
            commit,
            tree,
            folder,
            variables: infrastructure.variables,
            deployment: None,
            why: String::new(),
        }))
    }

    /// Approves a plan that the guard holds. The environment's name was typed by whoever approves.
    pub async fn approve_infrastructure(
        &self,
        project: &Project,
        caller: &Caller,
        run: InfraRunId,
        typed: &str,
        why: &str,
    ) -> Result<u32, Refusal> {
        caller.may(Role::Deployer)?;
        let why = plain(why);
        self.decide(project, caller.actor(), |state, _| {
            let found = one(&state.estate.infrastructure.runs, run)?;
            guard::may_approve(found, &caller.user, typed).map_err(|no| Refusal::Conflict(no.to_string()))?;
            Ok((vec![Event::InfraApproved { run, why }], found.missing().saturating_sub(1)))
        })
        .await
    }

    /// Takes a run back: one that works is asked to save and end, one that waits ends here.
    pub async fn stop_infrastructure(
        &self,
        project: &Project,
        caller: &Caller,
        run: InfraRunId,
    ) -> Result<(), Refusal> {
        caller.may(Role::Deployer)?;
        let by = format!("taken back by {}", caller.user);
        let works = self.decide(project, caller.actor(), |state, now| {
            let found = one(&state.estate.infrastructure.runs, run)?;
            match found.stage {
                Stage::Ended => Err(Refusal::Conflict(format!("{run} is over"))),
                Stage::Queued | Stage::Waiting | Stage::Ready => {
                    let took = now.since(found.at);
                    let end = InfraFinished {
                        run,
                        ok: false,
                        why: by,
                        outputs: Default::default(),
                        log: None,
                        took,
                    };
                    Ok((vec![Event::InfraFinished(end)], None))
                }
                Stage::Planning | Stage::Applying => Ok((vec![], found.process)),
            }
        });
        let Some((pid, started)) = works.await? else { return Ok(()) };
        process::interrupt(pid, started);
        tokio::spawn(async move {
            if tokio::time::timeout(process::GRACE, process::gone(pid, started)).await.is_err() {
                process::kill_group(pid, started);
            }
        });
        Ok(())
    }

    /// Everything that the tool said in a run, until now.
    pub async fn infrastructure_log(&self, project: &Project, run: InfraRunId) -> Result<String, Refusal> {
        let found = one(&project.state().estate.infrastructure.runs, run)?.clone();
        match found.finished.and_then(|end| end.log) {
            Some(blob) => Ok(String::from_utf8_lossy(&self.open_blob(blob).await?).into_owned()),
            None => {
                let room = Room::at(rooms(self, project).join(run.to_string()), &found.asked.folder);
                Ok(["init", "plan", "apply"].map(|phase| room.said(phase)).concat())
            }
        }
    }

    /// The page of an environment's infrastructure, with the newest plan.
    pub async fn infrastructure_view(
        &self,
        project: &Project,
        environment: &EnvironmentName,
    ) -> Result<InfrastructureView, Refusal> {
        let mut view = crate::view::infrastructure::infrastructure(project, environment, self.now())?;
        if let Some(newest) = view.runs.iter_mut().find(|run| run.counts.is_some()) {
            let run: InfraRunId =
                newest.run.parse().map_err(|_| Refusal::Broken("a run's own number".into()))?;
            newest.plan = self.infrastructure_plan(project, run).await?;
        }
        Ok(view)
    }

    /// The plan of a run, with sensitive values masked; none while it is made.
    pub async fn infrastructure_plan(
        &self,
        project: &Project,
        run: InfraRunId,
    ) -> Result<Option<Plan>, Refusal> {
        let shown =
            one(&project.state().estate.infrastructure.runs, run)?.planned.as_ref().map(|p| p.shown.clone());
        let Some(shown) = shown else { return Ok(None) };
        let json = self.open_blob(shown).await?;
        serde_json::from_slice(&json).map(Some).map_err(|error| Refusal::Broken(error.to_string()))
    }
}

fn one(runs: &std::collections::BTreeMap<InfraRunId, Run>, run: InfraRunId) -> Result<&Run, Refusal> {
    runs.get(&run).ok_or_else(|| Refusal::Unknown(format!("there is no infrastructure run {run}")))
}
