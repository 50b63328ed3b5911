//! What people ask of runs: plan, apply, approve, stop, read what the tool said.

use andon_environment::blueprint::Plan;
use andon_environment::guard;
use andon_environment::infrastructure::{Run, Stage};
use andon_model::event::{Event, InfraAction, InfraFinished, InfraQueued, InfraTool, Role};
use andon_model::{EnvironmentName, InfraRunId};
use andon_provision::terraform::{Room, process};

use super::drive::rooms;
use super::playbook;
use crate::intake::plain;
use crate::view::InfrastructureView;
use crate::{Caller, Line, Project, Refusal};

/// In the order in which they work.
const TOOLS: [InfraTool; 2] = [InfraTool::Terraform, InfraTool::Ansible];

impl Line {
    /// Asks for a run of each tool that the environment has: a plan of what trunk would do, or what is in force applied again. Where nothing is
    /// in force, trunk is applied. Answers with the first one.
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
            let first = infrastructure.next_run();
            let why = "asked for".to_owned();
            let again = |tool| {
                let applied = infrastructure.in_force(environment, tool);
                applied.filter(|_| action == InfraAction::Apply).map(|applied| InfraQueued {
                    run: first,
                    environment: environment.clone(),
                    action,
                    commit: applied.commit.clone(),
                    tree: applied.tree.clone(),
                    folder: applied.folder.clone(),
                    variables: applied.variables.clone(),
                    deployment: None,
                    why: String::new(),
                    playbook: applied.playbook.clone(),
                })
            };
            let mut asked: Vec<InfraQueued> = TOOLS.into_iter().filter_map(again).collect();
            if asked.is_empty() {
                asked = trunk?;
            }
            let mut run = first;
            let mut events = Vec::new();
            for asked in asked {
                events.push(Event::InfraQueued(InfraQueued { run, why: why.clone(), ..asked }));
                run = run.next();
            }
            Ok((events, first))
        })
        .await
    }

    /// What trunk says of an environment's infrastructure, as runs.
    async fn trunk_infrastructure(
        &self,
        project: &Project,
        environment: &EnvironmentName,
        action: InfraAction,
    ) -> Result<Result<Vec<InfraQueued>, Refusal>, Refusal> {
        let none = || {
            let why = format!(
                "{environment} has no infrastructure\nhint: say `infrastructure: {{ terraform: FOLDER }}` or `infrastructure: {{ ansible: ... }}` at it in andon.yaml"
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
        let made = infrastructure.folder().map(|folder| (folder, infrastructure.variables.clone(), None));
        let set_up = infrastructure.ansible.as_ref();
        let set_up = set_up.map(|a| (a.folder(), a.variables.clone(), Some(a.playbook())));
        let mut asked = Vec::new();
        for (folder, variables, playbook) in made.into_iter().chain(set_up) {
            let Some(tree) = project.repository.object(&commit, &folder).await? else {
                return Ok(Err(Refusal::Conflict(format!("trunk has no folder {folder}"))));
            };
            asked.push(InfraQueued {
                run: InfraRunId(0),
                environment: environment.clone(),
                action,
                commit: commit.clone(),
                tree,
                folder,
                variables,
                deployment: None,
                why: String::new(),
                playbook,
            });
        }
        Ok(Ok(asked))
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
                Ok(playbook::said(&room, &found.asked))
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
