//! Which run of the infrastructure tool is due. Pure: the estate and the time in, runs to queue out.
//!
//! 1. What a deployment needs is applied before its instances start, once: a failure ends the deployment.
//! 2. What was made for an environment ends after its instances do: when it is gone, and when it is rebuilt.
//! 3. What differs from its code is applied again, with a pause that grows.

use andon_model::event::{Drift, InfraAction, InfraQueued, InfraTool};
use andon_model::{EnvironmentName, InfraRunId, Span, Time};

use crate::estate::{DeploymentState, Estate};
use crate::infrastructure::{Run, Stage};
use crate::upkeep;

/// Pause before a failed removal is tried again.
pub const AGAIN: Span = Span::secs(60);
/// What the reason of a healing run is.
pub const HEAL: &str = "reality differs from its code";

/// The runs to queue now, numbered. `looked`: reality was looked at since the last run of this tool ended here.
pub fn due(
    estate: &Estate,
    now: Time,
    looked: &dyn Fn(&EnvironmentName, InfraTool) -> bool,
) -> Vec<InfraQueued> {
    let mut next = estate.infrastructure.next_run();
    let mut queued = Vec::new();
    let found = deployments(estate).chain(endings(estate, now)).chain(heals(estate, now, looked));
    for asked in found.collect::<Vec<_>>() {
        queued.push(InfraQueued { run: next, ..asked });
        next = next.next();
    }
    queued
}

fn idle(estate: &Estate, environment: &EnvironmentName) -> bool {
    estate.infrastructure.open(environment).next().is_none()
}

fn deployments(estate: &Estate) -> impl Iterator<Item = InfraQueued> {
    let starting = estate.deployments.values().filter(|d| d.state == DeploymentState::Starting);
    starting.filter_map(|deployment| {
        let wanted = estate.infrastructure.lacks(deployment.id)?;
        if estate.infrastructure.for_deployment(deployment.id, wanted.tool()).is_some() {
            return None;
        }
        Some(InfraQueued {
            run: InfraRunId(0),
            environment: wanted.environment.clone(),
            action: InfraAction::Apply,
            commit: wanted.commit.clone(),
            tree: wanted.tree.clone()?,
            folder: wanted.folder.clone(),
            variables: wanted.variables.clone(),
            playbook: wanted.playbook.clone(),
            deployment: Some(deployment.id),
            why: format!("{} needs it", deployment.id),
        })
    })
}

fn endings(estate: &Estate, now: Time) -> impl Iterator<Item = InfraQueued> {
    estate.infrastructure.touched.iter().filter_map(move |((name, tool), made)| {
        let goes = estate.environments.get(name).is_none_or(|e| e.destroying.is_some());
        let empty = estate.instances_in(name).next().is_none();
        let tried = last(estate, name, |run| {
            run.asked.action == InfraAction::Destroy && run.asked.tool() == *tool && run.at >= made.1
        });
        // What was set up on a host is undone while there still is that host.
        let later = estate.infrastructure.touched.keys().any(|(other, by)| other == name && by > tool);
        let rests = tried.is_some_and(|run| now.since(run.since) < AGAIN);
        if !goes || !empty || rests || later || !idle(estate, name) {
            return None;
        }
        let why = "the environment ends".to_owned();
        Some(InfraQueued { action: InfraAction::Destroy, deployment: None, why, ..made.0.clone() })
    })
}

fn heals(
    estate: &Estate,
    now: Time,
    looked: &dyn Fn(&EnvironmentName, InfraTool) -> bool,
) -> impl Iterator<Item = InfraQueued> {
    let whole = estate.environments.values().filter(|e| e.destroying.is_none());
    whole.filter_map(move |environment| {
        // Terraform first: what it makes may be the host that differs.
        let differs =
            |tool| environment.drifts.iter().any(|(_, drift)| upkeep::found_by(&drift.what) == Some(tool));
        let tool = [InfraTool::Terraform, InfraTool::Ansible].into_iter().find(|tool| differs(*tool))?;
        let applied = estate.infrastructure.in_force(&environment.name, tool)?;
        // What a run has just healed is told by the look after it; until then nothing is applied for it once more.
        if !looked(&environment.name, tool) {
            return None;
        }
        let attempts: Vec<Time> = estate
            .infrastructure
            .runs
            .values()
            .filter(|run| run.asked.environment == environment.name && run.asked.why == HEAL)
            .filter(|run| run.asked.tool() == tool && run.stage == Stage::Ended)
            .map(|run| run.since)
            .collect();
        let of_it = |seen: &&(Time, Drift)| upkeep::found_by(&seen.1.what) == Some(tool);
        let seen: Vec<&(Time, Drift)> = environment.drifts.iter().filter(of_it).collect();
        let rests = estate.infrastructure.healings.rests(&environment.name, &seen, &attempts, now);
        if rests || !idle(estate, &environment.name) {
            return None;
        }
        Some(InfraQueued {
            run: InfraRunId(0),
            environment: environment.name.clone(),
            action: InfraAction::Apply,
            commit: applied.commit.clone(),
            tree: applied.tree.clone(),
            folder: applied.folder.clone(),
            variables: applied.variables.clone(),
            playbook: applied.playbook.clone(),
            deployment: None,
            why: HEAL.into(),
        })
    })
}

fn last<'a>(estate: &'a Estate, name: &EnvironmentName, is: impl Fn(&Run) -> bool) -> Option<&'a Run> {
    estate.infrastructure.runs.values().rev().find(|run| &run.asked.environment == name && is(run))
}
