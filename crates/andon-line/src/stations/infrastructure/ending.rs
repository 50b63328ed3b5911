//! What ends without being asked again: runs that somebody stopped, plans that nobody approved, rooms that a dead server left. Thin: who may
//! stop is said in `runs`, when a plan expires in andon-environment.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, PoisonError};

use andon_environment::guard;
use andon_environment::infrastructure::Stage;
use andon_model::event::{Actor, Event, InfraFinished, InfraTool};
use andon_model::{EnvironmentName, InfraRunId, Span};
use andon_provision::terraform::{Room, process};
use tokio_util::sync::CancellationToken;

use super::drive::rooms;
use super::{Hands, STATION, said};
use crate::{Line, Project, Refusal};

/// What the tool writes when it heard that it is to end; a second signal would make it drop what it has not saved.
const HEARD: &str = "nterrupt received";
/// How long a stopped tool may take where trunk does not say.
const WITHIN: Span = Span::secs(60);
/// How long a plan may wait where trunk does not say.
const WAITS: Span = Span::secs(24 * 3600);

/// Interrupts the tools of runs that somebody stopped, and ends them by force when their time is over.
pub(super) async fn stop(
    line: &Arc<Line>,
    project: &Arc<Project>,
    hands: &Arc<Hands>,
    end: &CancellationToken,
) -> Result<(), Refusal> {
    let works: Vec<_> = {
        let state = project.state();
        let runs = state.estate.infrastructure.runs.values();
        let works = runs.filter(|run| run.stage != Stage::Ended).filter_map(|run| {
            let stopping = run.stopping.clone()?;
            Some((run.id(), run.asked.clone(), run.process?, stopping))
        });
        works.collect()
    };
    for (run, asked, (pid, started), stopping) in works {
        let within = said(project, &asked.environment).await?.map_or(WITHIN, |i| i.stop_within);
        let new = || hands.stopping.lock().unwrap_or_else(PoisonError::into_inner).insert((pid, started));
        if !process::is_alive(pid, started) || !new() {
            continue;
        }
        let left = Span(within.0.saturating_sub(line.now().since(stopping.at).0));
        let room = Room::at(rooms(line, project).join(run.to_string()), &asked.folder);
        let heard = ["init", "plan", "apply"].iter().any(|phase| room.said(phase).contains(HEARD));
        if !heard {
            process::interrupt(pid, started);
        }
        let (line, project, end) = (line.clone(), project.clone(), end.clone());
        tokio::spawn(async move {
            let gone = tokio::time::timeout(left.duration(), process::gone(pid, started));
            tokio::select! {
                // The next server goes on with it.
                () = end.cancelled() => return,
                gone = gone => if gone.is_ok() { return },
            }
            let event = vec![Event::InfraStopping { run, force: true }];
            match line.decide(&project, Actor::line(STATION), |_, _| Ok((event, ()))).await {
                Ok(()) => process::kill_tree(pid, started),
                Err(error) => tracing::error!(%run, %error, "a run could not be ended by force"),
            }
        });
    }
    Ok(())
}

/// Ends plans that waited for people too long.
pub(super) async fn expire(line: &Line, project: &Project) -> Result<(), Refusal> {
    let waiting: Vec<(InfraRunId, EnvironmentName)> = {
        let state = project.state();
        let runs = state.estate.infrastructure.runs.values();
        let waiting = runs.filter(|run| run.stage == Stage::Waiting);
        waiting.map(|run| (run.id(), run.asked.environment.clone())).collect()
    };
    for (id, environment) in waiting {
        let within = said(project, &environment).await?.map_or(WAITS, |i| i.approve_within);
        line.decide(project, Actor::line(STATION), |state, now| {
            let run = state.estate.infrastructure.runs.get(&id);
            let expired = run.and_then(|run| Some((run, guard::expired(run, now, within)?)));
            let end = expired.map(|(run, why)| {
                let (outputs, log, took) = (Default::default(), None, now.since(run.at));
                Event::InfraFinished(InfraFinished { run: id, ok: false, why, outputs, log, took })
            });
            Ok((end.into_iter().collect(), ()))
        })
        .await?;
    }
    Ok(())
}

/// Removes rooms in which nobody works any more and nobody will: plans and variables in them are secret.
pub(super) fn sweep(line: &Line, project: &Project, hands: &Hands) -> Result<(), Refusal> {
    let rooms = match std::fs::read_dir(rooms(line, project)) {
        Ok(rooms) => rooms,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let driven: BTreeSet<InfraRunId> = hands.driving.lock().unwrap_or_else(PoisonError::into_inner).clone();
    for room in rooms {
        let (path, name) = room.map(|room| (room.path(), room.file_name()))?;
        let name = name.to_string_lossy();
        let needed = match (name.parse::<InfraRunId>(), look_of(&name)) {
            (Ok(run), _) => driven.contains(&run) || project.state().estate.infrastructure.is_open(run),
            (_, Some(look)) => {
                project.looks.lock().unwrap_or_else(PoisonError::into_inner).under_way.contains(&look)
            }
            // No room of ours.
            (Err(_), None) => true,
        };
        if !needed && !process::works_below(&path) {
            remove(&path)?;
        }
    }
    Ok(())
}

/// The look that works in a room of this name.
fn look_of(name: &str) -> Option<(EnvironmentName, InfraTool)> {
    let of = |(mark, tool)| Some((name.strip_prefix(mark)?.parse().ok()?, tool));
    [("look-", InfraTool::Terraform), ("check-", InfraTool::Ansible)].into_iter().find_map(of)
}

fn remove(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
