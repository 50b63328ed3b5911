//! What people ask of runs: plan, apply, approve, stop, read what the tool said.

use andon_environment::blueprint::Plan;
use andon_environment::guard;
use andon_environment::infrastructure::{Run, Stage};
use andon_model::event::{Event, InfraAction, InfraFinished, InfraQueued, InfraTool, Role};
use andon_model::{EnvironmentName, InfraRunId};
use andon_provision::terraform::Room;

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
        let backup = self.recovery().backups.last().map(|made| made.at);
        self.decide(project, caller.actor(), |state, now| {
            let found = one(&state.estate.infrastructure.runs, run)?;
            guard::may_approve(found, &caller.user, typed, backup, now)
                .map_err(|no| Refusal::Conflict(no.to_string()))?;
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
        self.decide(project, caller.actor(), |state, now| {
            let infrastructure = &state.estate.infrastructure;
            let found = one(&infrastructure.runs, run)?;
            let first = infrastructure.open(&found.asked.environment).next().map(Run::id) == Some(run);
            let idle = found.stage == Stage::Waiting || (found.stage == Stage::Queued && !first);
            let events = match (found.stage, &found.stopping) {
                (Stage::Ended, _) => return Err(Refusal::Conflict(format!("{run} is over"))),
                (_, Some(stopping)) => {
                    let why = format!(
                        "{run} is being stopped already, since {} by {}",
                        stopping.at.hh_mm_ss(),
                        stopping.by
                    );
                    return Err(Refusal::Conflict(why));
                }
                _ if idle => {
                    let (outputs, log, took) = (Default::default(), None, now.since(found.at));
                    vec![Event::InfraFinished(InfraFinished { run, ok: false, why: by, outputs, log, took })]
                }
                // Somebody works for it: the station interrupts them, and ends it when they are gone.
                _ => vec![Event::InfraStopping { run, force: false }],
            };
            Ok((events, ()))
        })
        .await
    }

    /// Takes back the run of an environment whose turn it is.
    pub async fn stop_infrastructure_of(
        &self,
        project: &Project,
        caller: &Caller,
        environment: &EnvironmentName,
    ) -> Result<InfraRunId, Refusal> {
        let first = project.state().estate.infrastructure.open(environment).next().map(Run::id);
        let run = first.ok_or_else(|| {
            Refusal::Conflict(format!("no run of the infrastructure tool is open in {environment}"))
        })?;
        self.stop_infrastructure(project, caller, run).await?;
        Ok(run)
    }

    /// Takes what a run left off the display: a person looked after it.
    pub async fn forget_lost(
        &self,
        project: &Project,
        caller: &Caller,
        environment: &EnvironmentName,
        address: &str,
        why: &str,
    ) -> Result<(), Refusal> {
        caller.may(Role::Deployer)?;
        let (address, why) = (plain(address), plain(why));
        self.decide(project, caller.actor(), |state, _| {
            if !state.estate.infrastructure.lost.of(environment).any(|lost| lost.address == address) {
                let why = format!("nothing of the address {address} is lost in {environment}\nhint: `andon infra show {environment}` lists what is");
                return Err(Refusal::Unknown(why));
            }
            Ok((vec![Event::InfraForgotten { environment: environment.clone(), address, why }], ()))
        })
        .await
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
