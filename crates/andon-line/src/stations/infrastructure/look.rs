//! Holds reality against the infrastructure code that is in force, again and again: the tool plans, and whatever it would do is drift. A
//! look changes nothing, takes no lock, and is recorded only for what it finds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use andon_environment::infrastructure::Applied;
use andon_environment::upkeep::RESOURCE;
use andon_model::event::{Actor, Drift, Event};
use andon_model::{EnvironmentName, Span, StateName, Time};
use andon_provision::terraform::Room;
use tokio_util::sync::CancellationToken;

use super::drive::{environment, rooms};
use super::{Hands, STATION};
use crate::{Line, Project, Refusal};

/// Longest look.
const MOST: Duration = Duration::from_secs(600);
/// Between two looks where trunk does not say.
const EVERY: Span = Span::secs(60);
/// Differences recorded of one look.
const SHOWN: usize = 50;

/// Looks of this process.
#[derive(Debug, Default)]
pub(crate) struct Looks {
    /// When the last one of each environment ended.
    pub(crate) last: BTreeMap<EnvironmentName, Time>,
    /// Environments that are being looked at.
    pub(crate) under_way: BTreeSet<EnvironmentName>,
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
    let every = |name: &EnvironmentName| {
        let said = definition.and_then(|definition| definition.resolve(name)?.infrastructure);
        said.map_or(EVERY, |infrastructure| infrastructure.look_every)
    };
    let now = line.now();
    let due: Vec<(EnvironmentName, Applied)> = {
        let state = project.state();
        let looks = project.looks.lock().unwrap_or_else(PoisonError::into_inner);
        let estate = &state.estate;
        let is_due = |name: &EnvironmentName, applied: &Applied| {
            let Some(place) = estate.environments.get(name).filter(|e| e.destroying.is_none()) else {
                return false;
            };
            let last = looks.last.get(name).copied().unwrap_or_default();
            let differs = place.drifts.iter().any(|(_, drift)| drift.what.starts_with(RESOURCE));
            let healed = differs && last < applied.at;
            let idle = estate.infrastructure.open(name).next().is_none();
            idle && !looks.under_way.contains(name)
                && (healed || now.since(last.max(applied.at)) >= every(name))
        };
        let all = estate.infrastructure.applied.iter();
        all.filter(|(name, applied)| is_due(name, applied)).map(|(n, a)| (n.clone(), a.clone())).collect()
    };
    for (name, applied) in due {
        let (line, project, hands, stop) = (line.clone(), project.clone(), hands.clone(), stop.clone());
        project.looks.lock().unwrap_or_else(PoisonError::into_inner).under_way.insert(name.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                looked = look(&line, &project, &hands, &name, &applied) => if let Err(error) = looked {
                    tracing::warn!(project = %project.name, environment = %name, %error, "reality could not be looked at");
                },
            }
            let mut looks = project.looks.lock().unwrap_or_else(PoisonError::into_inner);
            looks.under_way.remove(&name);
            looks.last.insert(name, line.now());
        });
    }
    Ok(())
}

async fn look(
    line: &Line,
    project: &Project,
    hands: &Hands,
    name: &EnvironmentName,
    applied: &Applied,
) -> Result<(), Refusal> {
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
    let drifts = plan.map_err(broken)?.drifts();
    record(line, project, name, applied, drifts).await
}

async fn record(
    line: &Line,
    project: &Project,
    name: &EnvironmentName,
    applied: &Applied,
    mut found: Vec<Drift>,
) -> Result<(), Refusal> {
    found.truncate(SHOWN);
    line.decide(project, Actor::line(STATION), |state, _| {
        let estate = &state.estate;
        let same = estate.infrastructure.applied.get(name).is_some_and(|now| now.run == applied.run);
        let idle = estate.infrastructure.open(name).next().is_none();
        let Some(place) = estate.environments.get(name).filter(|e| e.destroying.is_none() && same && idle)
        else {
            return Ok((vec![], ()));
        };
        let known: Vec<&Drift> =
            place.drifts.iter().map(|(_, drift)| drift).filter(|d| d.what.starts_with(RESOURCE)).collect();
        let mut events = Vec::new();
        for gone in known.iter().filter(|known| !found.iter().any(|drift| drift.what == known.what)) {
            let (environment, what) = (name.clone(), gone.what.clone());
            events.push(Event::DriftHealed { environment, what, how: "applied again from code".into() });
        }
        for drift in found.into_iter().filter(|drift| !known.iter().any(|known| known.what == drift.what)) {
            events.push(Event::DriftSeen { environment: name.clone(), drift });
        }
        Ok((events, ()))
    })
    .await
}
