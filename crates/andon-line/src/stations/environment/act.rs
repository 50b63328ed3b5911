//! Does what the upkeep's plan says: records it, starts, stops and removes instances. What takes long goes on in the background.

use std::collections::BTreeMap;
use std::sync::Arc;

use andon_environment::hosts::Standing;
use andon_environment::{DeploymentState, upkeep};
use andon_model::event::{Actor, Drift, Event, InfraTool, Revision};
use andon_model::{EnvironmentName, HostName, InstanceId, PlannedService, RuntimeKind, ServiceName};
use andon_runtime::{Foreign, RuntimeError, Spec};

use super::look::At;
use super::{DEPLOYMENT, Hands};
use crate::stations::infrastructure;
use crate::{Line, Project, Refusal};

/// Who sees and heals drift.
const DRIFT: &str = "drift";

/// Carries out one decision.
pub(super) async fn act(
    line: &Arc<Line>,
    project: &Arc<Project>,
    hands: &Arc<Hands>,
    decision: upkeep::Decision,
    foreign: &[(Option<HostName>, Foreign)],
) -> Result<(), Refusal> {
    use upkeep::Decision;
    let tell = |station: &'static str, event: Event| line.tell(project, station, vec![event]);
    match decision {
        Decision::Plan { environment, service, revision, host } => {
            plan_instance(line, project, (environment, service, revision), host).await
        }
        Decision::Start(instance) => {
            start(line, project, hands, instance);
            Ok(())
        }
        Decision::Healthy(instance) => tell(DEPLOYMENT, Event::InstanceHealthy { instance }).await,
        Decision::Retire { instance, why } => {
            tell(DEPLOYMENT, Event::InstanceRetired { instance, why }).await
        }
        Decision::Remove(instance) => {
            remove(line, project, hands, instance);
            Ok(())
        }
        Decision::Up(deployment) => {
            tell(
                DEPLOYMENT,
                Event::DeploymentFinished { deployment, ok: true, why: "every instance is healthy".into() },
            )
            .await
        }
        Decision::GiveUp { deployment, why } => {
            tell(DEPLOYMENT, Event::DeploymentFinished { deployment, ok: false, why }).await
        }
        Decision::Drift { environment, drift } => see(line, project, environment, drift).await,
        Decision::Healed { environment, what, how } => {
            tell(DRIFT, Event::DriftHealed { environment, what, how }).await
        }
        Decision::Kill { pid, .. } => {
            // Processes of two hosts may have one number.
            for (host, stray) in foreign.iter().filter(|(_, stray)| stray.process.pid == pid) {
                let runtimes: Vec<_> = match host {
                    None => project.runtimes().cloned().collect(),
                    Some(_) => vec![project.runtime_on(RuntimeKind::Process, host.as_ref())?],
                };
                let process = stray.process;
                let kill = move || runtimes.iter().try_for_each(|at| at.kill_foreign(process).map(drop));
                let killed = tokio::task::spawn_blocking(kill).await;
                let killed = killed.map_err(|error| Refusal::Broken(error.to_string()))?;
                killed.map_err(|error| Refusal::Broken(error.to_string()))?;
            }
            Ok(())
        }
    }
}

async fn see(
    line: &Line,
    project: &Project,
    environment: EnvironmentName,
    drift: Drift,
) -> Result<(), Refusal> {
    line.decide(project, Actor::line(DRIFT), |state, _| {
        let place = state.estate.environments.get(&environment);
        let known = place.is_none_or(|place| place.drifts.iter().any(|(_, seen)| seen.what == drift.what));
        Ok((if known { vec![] } else { vec![Event::DriftSeen { environment, drift }] }, ()))
    })
    .await
}

async fn plan_instance(
    line: &Line,
    project: &Project,
    (environment, service, revision): (EnvironmentName, ServiceName, Revision),
    host: Option<HostName>,
) -> Result<(), Refusal> {
    // Addresses of all projects: they share the hosts.
    let on_it = |p: &Arc<Project>| {
        let state = p.state();
        let there = state.estate.instances.values().filter(|i| i.host == host);
        there.map(|i| i.address).collect::<Vec<_>>()
    };
    let used = line.projects().iter().flat_map(on_it).collect();
    let (kind, port) = {
        let state = project.state();
        let deployment = state.estate.of_revision(&environment, &revision);
        let port = deployment.and_then(|d| d.service(&service)).and_then(|s| s.port);
        (deployment.map(|d| d.runtime), port)
    };
    let runtime = project.runtime_on(kind.unwrap_or_default(), host.as_ref())?;
    let at = environment.clone();
    let placed = tokio::task::spawn_blocking(move || runtime.place(&at, &used, port)).await;
    let placed = match placed.map_err(|error| Refusal::Broken(error.to_string()))? {
        Ok(placed) => placed,
        Err(error) => return no_place(line, project, &environment, &revision, &service, &error).await,
    };
    let address = Some(placed.ip()).filter(|ip| host.is_some() || !ip.is_loopback());
    let port = placed.port();
    line.decide(project, Actor::line(DEPLOYMENT), |state, _| {
        let instance = state.estate.next_instance();
        let planned =
            Event::InstancePlanned { instance, environment, service, revision, port, address, host };
        Ok((vec![planned], ()))
    })
    .await
}

/// There is no room for an instance now, or what runs it does not answer: its deployment waits as long as its service may take to start.
async fn no_place(
    line: &Line,
    project: &Project,
    environment: &EnvironmentName,
    revision: &Revision,
    service: &ServiceName,
    error: &RuntimeError,
) -> Result<(), Refusal> {
    let now = line.now();
    let overdue = {
        let estate = &project.state().estate;
        let deployment = estate.of_revision(environment, revision);
        deployment.filter(|d| d.state == DeploymentState::Starting).and_then(|d| {
            let patience = d.service(service)?.start_within;
            (now.since(d.started) > patience).then_some(d.id)
        })
    };
    match overdue {
        Some(deployment) => {
            let why = crate::intake::plain(&format!("{service} cannot be started: {error}"));
            line.tell(project, DEPLOYMENT, vec![Event::DeploymentFinished { deployment, ok: false, why }])
                .await
        }
        None => {
            tracing::warn!(project = %project.name, %environment, %service, %error, "no place for an instance yet");
            Ok(())
        }
    }
}

/// Removes in the background what runs and is not in the journal: what was made by a server whose journal was lost or set back.
pub(super) fn sweep(project: &Arc<Project>, hands: &Arc<Hands>, orphans: Vec<(At, InstanceId)>) {
    for ((kind, host), id) in orphans {
        let Ok(runtime) = project.runtime_on(kind, host.as_ref()) else { continue };
        if !hands.take(id) {
            continue;
        }
        let hands = Arc::clone(hands);
        tokio::task::spawn_blocking(move || {
            tracing::warn!("{id} is not in the journal and is removed");
            if let Err(error) = runtime.remove(&id.to_string()) {
                tracing::error!(%error, "{id} could not be removed, it is tried again");
            }
            hands.leave(id);
        });
    }
}

/// Unpacks and starts in the background; the next look sees what came of it.
fn start(line: &Arc<Line>, project: &Arc<Project>, hands: &Arc<Hands>, id: InstanceId) {
    if !hands.take(id) {
        return;
    }
    let (line, project, hands) = (Arc::clone(line), Arc::clone(project), Arc::clone(hands));
    tokio::spawn(async move {
        let (l, p) = (Arc::clone(&line), Arc::clone(&project));
        let done = tokio::task::spawn_blocking(move || start_now(&l, &p, id)).await;
        let why = match done {
            Ok(Ok(())) => None,
            Ok(Err(why)) => Some(why),
            Err(error) => Some(error.to_string()),
        };
        if let Some(why) = why {
            let retired = Event::InstanceRetired { instance: id, why: crate::intake::plain(&why) };
            if let Err(error) = line.tell(&project, DEPLOYMENT, vec![retired]).await {
                tracing::error!(%error, "the failure of {id} could not be recorded");
            }
        }
        hands.leave(id);
    });
}

/// What instances of a service are told by variables, beside who they are.
pub(super) fn told(
    line: &Line,
    project: &Project,
    environment: &EnvironmentName,
    service: &PlannedService,
) -> Result<BTreeMap<String, String>, String> {
    let mut env = service.env.clone();
    {
        let state = project.state();
        let applied = state.estate.infrastructure.in_force(environment, InfraTool::Terraform);
        for value in env.values_mut() {
            *value = infrastructure::fill_in(value, applied.map(|applied| &applied.outputs))?;
        }
    }
    env.extend(line.database_env(project, environment, service)?);
    let given = line
        .secrets_of_environment(project, environment, &service.secrets)
        .map_err(|refusal| refusal.to_string())?;
    if let Some(why) = given.refused.into_iter().next() {
        return Err(why.replace("; hint:", "\nhint:"));
    }
    env.extend(given.values.into_iter().map(|(name, value)| (name.into(), value)));
    Ok(env)
}

fn start_now(line: &Line, project: &Project, id: InstanceId) -> Result<(), String> {
    let (instance, deployment) = {
        let state = project.state();
        let instance = state.estate.instances.get(&id).cloned().ok_or("it is not known")?;
        let deployment = state
            .estate
            .deployments
            .get(&instance.deployment)
            .cloned()
            .ok_or("its deployment is not known")?;
        (instance, deployment)
    };
    let service = deployment.service(&instance.service).ok_or("its service is not part of the deployment")?;
    let name = id.to_string();
    let artifact = line
        .blobs
        .get(&deployment.artifact)
        .map_err(|error| format!("{}: {error}", deployment.artifact.short()))?;
    // Looked at before it was deployed; what lies there may be another by now.
    let mut artifact = artifact;
    let is = andon_model::Digest::of_all(&artifact).map_err(|error| error.to_string())?;
    if is != deployment.artifact {
        return Err(format!(
            "{} is refused: its bytes are not those that were built: they are {is}",
            deployment.artifact.short()
        ));
    }
    std::io::Seek::rewind(&mut artifact).map_err(|error| error.to_string())?;
    let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let mut env = told(line, project, &instance.environment, service)?;
    env.extend([
        label("ANDON_PROJECT", project.name.as_str()),
        label("ANDON_ENVIRONMENT", instance.environment.as_str()),
        label("ANDON_SERVICE", instance.service.as_str()),
        label("ANDON_REVISION", &instance.revision.0),
    ]);
    let spec = Spec {
        labels: BTreeMap::from([
            label("project", project.name.as_str()),
            label("environment", instance.environment.as_str()),
            label("service", instance.service.as_str()),
            label("revision", &instance.revision.0),
        ]),
        env,
        command: service.command.clone(),
        stop_within: service.stop_within,
        address: Some(instance.address.ip()).filter(|ip| !ip.is_loopback()),
        environment: Some(instance.environment.clone()),
        artifact: Some(deployment.artifact.clone()),
        image: service.image.clone(),
        limits: service.limits,
        writes: service.writes.clone(),
        ..Spec::new(&name, &[], instance.address.port())
    };
    let host = instance.host.as_ref();
    let runtime = project.runtime_on(deployment.runtime, host).map_err(|error| error.to_string())?;
    let mut artifact = std::io::BufReader::new(artifact);
    match runtime.prepare(&spec, &mut artifact).and_then(|()| runtime.start(&spec)) {
        // Whether it started shows when its host is reached again; if it did not, it is started then.
        Err(error @ RuntimeError::Silent { .. }) => {
            tracing::warn!(%error, "{id} could not be started yet");
            Ok(())
        }
        done => done.map_err(|error| error.to_string()),
    }
}

/// Stops and removes in the background; what is gone is forgotten.
fn remove(line: &Arc<Line>, project: &Arc<Project>, hands: &Arc<Hands>, id: InstanceId) {
    if !hands.take(id) {
        return;
    }
    let (line, project, hands) = (Arc::clone(line), Arc::clone(project), Arc::clone(hands));
    tokio::task::spawn_blocking(move || {
        if let Err(error) = remove_now(&line, &project, id) {
            tracing::error!(%error, "{id} could not be removed, it is tried again");
        }
        hands.leave(id);
    });
}

fn remove_now(line: &Line, project: &Project, id: InstanceId) -> Result<(), String> {
    let (environment, host) = {
        let estate = &project.state().estate;
        let instance = estate.instances.get(&id);
        (instance.map(|i| i.environment.clone()), instance.and_then(|i| i.host.clone()))
    };
    if host.is_some() && line.places().standing(host.as_ref()) == Standing::Lost {
        // If its host comes back with it, nobody knows it any more, and it is removed as that.
        project.with_state(|state| state.estate.forget(id));
        return Ok(());
    }
    if host.as_ref().is_some_and(|host| !line.fleet.reaches(host)) {
        // It comes back soon or is lost: either way this is asked again.
        return Ok(());
    }
    let runtime = project.runtime_of(id).map_err(|error| error.to_string())?;
    runtime.remove(&id.to_string()).map_err(|error| error.to_string())?;
    project.with_state(|state| state.estate.forget(id));
    let Some(environment) = environment else { return Ok(()) };
    let ended = {
        let estate = &project.state().estate;
        let lives = estate.environments.get(&environment).is_some_and(|e| e.destroying.is_none());
        !lives && estate.instances_in(&environment).next().is_none()
    };
    if ended { runtime.clear(&environment).map_err(|error| error.to_string()) } else { Ok(()) }
}
