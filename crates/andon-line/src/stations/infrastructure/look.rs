//! Holds reality against the infrastructure code that is in force, again and again: the tool plans, and whatever it would do is drift. A
//! look changes nothing, takes no lock, and is recorded only for what it finds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use andon_environment::blueprint::Plan;
use andon_environment::due::HEAL;
use andon_environment::infrastructure::{Applied, Run};
use andon_environment::upkeep::{HOST, found_by};
use andon_model::event::{Actor, Drift, Event, InfraAction, InfraQueued, InfraTool};
use andon_model::{EnvironmentName, InfraRunId, Span, StateName, Time};
use andon_provision::terraform::Room;
use tokio_util::sync::CancellationToken;

use super::drive::{environment, rooms};
use super::{Hands, STATION, playbook};
use crate::intake::plain;
use crate::{Line, Project, Refusal, State};

/// Longest look.
pub(super) const MOST: Duration = Duration::from_secs(600);
/// Between two looks where trunk does not say.
const EVERY: Span = Span::secs(60);
/// How long what a look found is as good as a check of the run that heals it.
const MOMENT: Span = Span::secs(60);
/// Differences recorded of one look.
const SHOWN: usize = 50;
/// Unknown things recorded of one look.
const UNKNOWN: usize = 200;

/// What a look found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// What differs.
    pub(super) drifts: Vec<Drift>,
    /// Of what it could not tell.
    pub(super) unknown: Vec<String>,
    /// Hosts of which not everything was seen: what differed there is not taken for healed.
    pub(super) blind: BTreeSet<String>,
    /// What a run would do about it, where the look knows.
    pub(super) plan: Option<Plan>,
}

/// Looks of this process, by environment and tool.
#[derive(Debug, Default)]
pub(crate) struct Looks {
    /// When the last one of each environment ended.
    pub(crate) last: BTreeMap<(EnvironmentName, InfraTool), Time>,
    /// Environments that are being looked at.
    pub(crate) under_way: BTreeSet<(EnvironmentName, InfraTool)>,
    /// What a run would do about what the last look at hosts found, until one did.
    pub(super) plans: BTreeMap<EnvironmentName, (InfraRunId, Time, Plan)>,
}

impl Looks {
    /// Whether reality was looked at since the last run of this tool ended here. A server that has just started knows of no look.
    pub(super) fn since_applied(&self, state: &State, name: &EnvironmentName, tool: InfraTool) -> bool {
        let applied = state.estate.infrastructure.in_force(name, tool);
        let last = self.last.get(&(name.clone(), tool)).copied().unwrap_or_default();
        applied.is_some_and(|applied| last >= applied.at)
    }

    /// What the look that called for a healing run found, if that was a moment ago; it is used once.
    pub(super) fn plan_for(&mut self, run: &Run, applied: InfraRunId, now: Time) -> Option<Plan> {
        let (of, at, plan) = self.plans.remove(&run.asked.environment)?;
        (run.asked.why == HEAL && of == applied && now.since(at) < MOMENT).then_some(plan)
    }
}

/// Begins the looks that are due.
pub(super) async fn step(
    line: &Arc<Line>,
    project: &Arc<Project>,
    hands: &Arc<Hands>,
    stop: &CancellationToken,
) -> Result<(), Refusal> {
    if project.state().estate.infrastructure.applied.is_empty() {
        return Ok(());
    }
    let defined = project.trunk_definition().await?;
    let definition = defined.as_deref().and_then(|defined| defined.as_ref().ok());
    let every = |name: &EnvironmentName, tool: InfraTool| {
        let like = project
            .state()
            .estate
            .environments
            .get(name)
            .and_then(|e| e.like.clone().filter(|_| !e.standing));
        let said = definition.and_then(|d| d.resolve(like.as_ref().unwrap_or(name))?.infrastructure);
        let said = said.and_then(|infrastructure| match tool {
            InfraTool::Terraform => Some(infrastructure.look_every),
            InfraTool::Ansible => infrastructure.ansible.map(|ansible| ansible.look_every),
        });
        said.unwrap_or(EVERY)
    };
    let applied: Vec<_> = project.state().estate.infrastructure.applied.keys().cloned().collect();
    let pauses: BTreeMap<_, Span> =
        applied.into_iter().map(|key| (key.clone(), every(&key.0, key.1))).collect();
    let now = line.now();
    let due: Vec<((EnvironmentName, InfraTool), Applied)> = {
        let state = project.state();
        let looks = project.looks.lock().unwrap_or_else(PoisonError::into_inner);
        let estate = &state.estate;
        let is_due = |key: &(EnvironmentName, InfraTool), applied: &Applied| {
            let (name, tool) = key;
            let Some(place) = estate.environments.get(name).filter(|e| e.destroying.is_none()) else {
                return false;
            };
            let last = looks.last.get(key).copied().unwrap_or_default();
            let differs = place.drifts.iter().any(|(_, drift)| found_by(&drift.what) == Some(*tool));
            let healed = differs && last < applied.at;
            let idle = estate.infrastructure.open(name).next().is_none();
            idle && !looks.under_way.contains(key)
                && (healed || now.since(last.max(applied.at)) >= pauses.get(key).copied().unwrap_or(EVERY))
        };
        let all = estate.infrastructure.applied.iter();
        all.filter(|(key, applied)| is_due(key, applied)).map(|(key, a)| (key.clone(), a.clone())).collect()
    };
    for (key, applied) in due {
        let (line, project, hands, stop) = (line.clone(), project.clone(), hands.clone(), stop.clone());
        project.looks.lock().unwrap_or_else(PoisonError::into_inner).under_way.insert(key.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                looked = look(&line, &project, &hands, &key, &applied) => if let Err(error) = looked {
                    tracing::warn!(project = %project.name, environment = %key.0, %error, "reality could not be looked at");
                },
            }
            {
                let mut looks = project.looks.lock().unwrap_or_else(PoisonError::into_inner);
                looks.under_way.remove(&key);
                looks.last.insert(key, line.now());
            }
            // What it found is healed without waiting for the clock.
            let last = project.state().feed.back().cloned();
            last.iter().for_each(|event| line.nudge(event));
        });
    }
    Ok(())
}

async fn look(
    line: &Line,
    project: &Project,
    hands: &Hands,
    (name, tool): &(EnvironmentName, InfraTool),
    applied: &Applied,
) -> Result<(), Refusal> {
    let found = match tool {
        InfraTool::Terraform => {
            let drifts = planned(line, project, hands, name, applied).await?;
            Found { drifts, ..Found::default() }
        }
        InfraTool::Ansible => {
            let room = Room::at(playbook::look_room(line, project, name), &applied.folder);
            let asked = InfraQueued {
                run: applied.run,
                environment: name.clone(),
                action: InfraAction::Look,
                commit: applied.commit.clone(),
                tree: applied.tree.clone(),
                folder: applied.folder.clone(),
                variables: applied.variables.clone(),
                deployment: None,
                why: String::new(),
                playbook: applied.playbook.clone(),
            };
            match playbook::look(project, hands, &room, &asked).await {
                Ok(found) => found,
                // Of what was not looked at nothing is known, and nothing is healed.
                Err(error) => {
                    let hosts = applied.playbook.iter().flat_map(|playbook| playbook.hosts.values());
                    let blind = hosts.flat_map(|hosts| hosts.keys().cloned()).collect();
                    let unknown = vec![format!("nothing could be looked at: {}", plain(&error.to_string()))];
                    Found { unknown, blind, ..Found::default() }
                }
            }
        }
    };
    let found = match found {
        Found { plan: Some(plan), .. } if !found.drifts.is_empty() => {
            let mut looks = project.looks.lock().unwrap_or_else(PoisonError::into_inner);
            looks.plans.insert(name.clone(), (applied.run, line.now(), plan));
            Found { plan: None, ..found }
        }
        found => found,
    };
    record(line, project, name, *tool, applied, found).await
}

/// What Terraform would do is what differs.
async fn planned(
    line: &Line,
    project: &Project,
    hands: &Hands,
    name: &EnvironmentName,
    applied: &Applied,
) -> Result<Vec<Drift>, Refusal> {
    let broken = |error: andon_provision::terraform::TerraformError| Refusal::Broken(error.to_string());
    let tool = hands.tool().await.map_err(broken)?;
    let room = Room::at(rooms(line, project).join(format!("look-{name}")), &applied.folder);
    room.make()?;
    project.repository.check_out(&applied.commit, &room.tree()).await?;
    room.furnish().map_err(broken)?;
    let state = StateName::of(name.clone());
    let env = environment(line, project, &room, applied.run, &state, &applied.variables)?;
    let never = CancellationToken::new();
    for (phase, args) in [("init", room.init_args()), ("plan", room.plan_args(false, true))] {
        let running = room.start(tool, &env, phase, args).map_err(broken)?;
        if !running.end(&never, MOST).await?.ok {
            let text = room.said(phase);
            let said = andon_provision::terraform::Said::of(&text).unwrap_or_default();
            let first = said.errors.into_iter().next().or_else(|| super::drive::first_error(&text));
            room.remove()?;
            return Err(Refusal::Broken(first.unwrap_or_else(|| format!("{phase} failed"))));
        }
    }
    let plan = room.show(tool, &env).await;
    room.remove()?;
    Ok(plan.map_err(broken)?.drifts())
}

async fn record(
    line: &Line,
    project: &Project,
    name: &EnvironmentName,
    tool: InfraTool,
    applied: &Applied,
    found: Found,
) -> Result<(), Refusal> {
    let Found { drifts: mut found, mut unknown, blind, .. } = found;
    found.truncate(SHOWN);
    unknown.truncate(UNKNOWN);
    line.decide(project, Actor::line(STATION), |state, _| {
        let estate = &state.estate;
        let in_force = estate.infrastructure.in_force(name, tool).filter(|now| now.run == applied.run);
        let idle = estate.infrastructure.open(name).next().is_none();
        let place = estate.environments.get(name).filter(|e| e.destroying.is_none() && idle);
        let Some((place, in_force)) = place.zip(in_force) else { return Ok((vec![], ())) };
        let seen = |what: &str| {
            let host = what.strip_prefix(HOST).and_then(|rest| rest.split_once(':'));
            host.is_none_or(|(host, _)| !blind.contains(host))
        };
        let known: Vec<&Drift> =
            place.drifts.iter().map(|(_, drift)| drift).filter(|d| found_by(&d.what) == Some(tool)).collect();
        let mut events = Vec::new();
        let gone = |known: &&&Drift| seen(&known.what) && !found.iter().any(|drift| drift.what == known.what);
        for gone in known.iter().filter(gone) {
            let (environment, what) = (name.clone(), gone.what.clone());
            events.push(Event::DriftHealed { environment, what, how: "applied again from code".into() });
        }
        for drift in found.into_iter().filter(|drift| !known.iter().any(|known| known.what == drift.what)) {
            events.push(Event::DriftSeen { environment: name.clone(), drift });
        }
        if in_force.unknown != unknown {
            events.push(Event::InfraUnknown { environment: name.clone(), tool, what: unknown });
        }
        Ok((events, ()))
    })
    .await
}
