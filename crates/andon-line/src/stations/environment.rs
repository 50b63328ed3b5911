//! The environments' controller: brings artifacts into environments, starts and replaces instances, sees drift. Which artifact goes where
//! and what counts as drift is decided in andon-environment.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use andon_environment::promote::{self, Candidate, Declared};
use andon_environment::upkeep::{self, Observation, Seen};
use andon_environment::{DeploymentState, Instance};
use andon_model::event::{Actor, Drift, Event, PlannedService, Revision, Role};
use andon_model::{ChangeId, DeploymentId, EnvironmentName, InstanceId, ServiceName, Span, Time};
use andon_pipeline::Definition;
use andon_pipeline::definition::DeployWhen;
use andon_runtime::{Foreign, Spec};
use tokio_util::sync::CancellationToken;

use super::{Pulse, environment_tests, routes};
use crate::{Caller, Line, Project, Refusal, State};

/// The station's name in the journal.
const DEPLOYMENT: &str = "deployment";
/// Who sees and heals drift.
const DRIFT: &str = "drift";
/// Between two looks while something is starting, stopping or healing.
const SOON: Duration = Duration::from_millis(100);
/// Between two looks at a quiet environment.
const QUIET: Duration = Duration::from_secs(1);
/// Between two looks at the files of running releases.
const FILES: Span = Span::secs(2);
/// How long a health check may take.
const HEALTH: Duration = Duration::from_secs(2);
/// How long the way back stays warm when the strategy does not say.
const WARM: Span = Span::secs(60);
/// Life of an environment that was asked for without saying how long.
const LIFE: Span = Span::secs(86_400);

pub(super) async fn run(line: Arc<Line>, project: Arc<Project>, stop: CancellationToken) {
    let mut pulse = Pulse::new(&line, &project, stop.clone(), QUIET);
    let hands = Arc::new(Hands::default());
    loop {
        let done = step(&line, &project, &hands, &stop).await;
        pulse.every(if busy(&project.state()) { SOON } else { QUIET });
        if !pulse.beat(done, DEPLOYMENT).await {
            return;
        }
    }
}

/// What this process is doing to instances right now, and what it saw of them. Nothing here outlives it.
#[derive(Default)]
struct Hands {
    on: Mutex<BTreeSet<InstanceId>>,
    failing: Mutex<BTreeMap<InstanceId, Time>>,
    looked_at_files: Mutex<Option<Time>>,
    pub(super) testing: Mutex<BTreeSet<DeploymentId>>,
}

impl Hands {
    fn take(&self, instance: InstanceId) -> bool {
        self.on.lock().unwrap_or_else(PoisonError::into_inner).insert(instance)
    }
    fn leave(&self, instance: InstanceId) {
        self.on.lock().unwrap_or_else(PoisonError::into_inner).remove(&instance);
    }
}

fn busy(state: &State) -> bool {
    let instances = state.estate.instances.values();
    state.estate.deployments.values().any(|d| matches!(d.state, DeploymentState::Starting | DeploymentState::Up))
        || instances.into_iter().any(|i| i.retired.is_some() || i.healthy.is_none())
        || state.estate.environments.values().any(|e| e.destroying.is_some() || !e.drifts.is_empty())
}

async fn step(line: &Arc<Line>, project: &Arc<Project>, hands: &Arc<Hands>, stop: &CancellationToken) -> Result<(), Refusal> {
    let defined = project.trunk_definition().await?;
    if let Some(Ok(definition)) = defined.as_deref() {
        bring(line, project, definition).await?;
    }
    let foreign = keep_up(line, project, hands).await?;
    drop(foreign);
    let due: Vec<DeploymentId> = {
        let state = project.state();
        let up = state.estate.deployments.values().filter(|d| d.state == DeploymentState::Up);
        up.map(|d| d.id).collect()
    };
    for deployment in due {
        if hands.testing.lock().unwrap_or_else(PoisonError::into_inner).insert(deployment) {
            let (line, project, stop) = (Arc::clone(line), Arc::clone(project), stop.clone());
            tokio::spawn(async move { environment_tests::test(&line, &project, deployment, &stop).await });
        }
    }
    Ok(())
}

/// Environments that are declared but missing, artifacts that are due.
async fn bring(line: &Line, project: &Project, definition: &Definition) -> Result<(), Refusal> {
    let declared: Vec<Declared> = definition
        .environments
        .keys()
        .filter_map(|name| Some((name, definition.resolve(name)?)))
        .map(|(name, resolved)| Declared { name: name.clone(), on_green: resolved.deploy == DeployWhen::OnGreen })
        .collect();
    if nothing_due(&project.state(), &declared) {
        return Ok(());
    }
    line.decide(project, Actor::line(DEPLOYMENT), |state, now| {
        let mut events = Vec::new();
        let mut next = state.estate.next_deployment();
        for decision in promote::plan(&state.estate, &declared, &state.hold()) {
            match decision {
                promote::Decision::Create { environment } => {
                    let like = definition.environments.get(&environment).and_then(|e| e.like.as_ref());
                    let like = like.map(|like| like.value.clone());
                    let ttl = definition.resolve(&environment).and_then(|resolved| resolved.ttl);
                    let expires = ttl.map(|ttl| now + ttl);
                    events.push(Event::EnvironmentCreated { environment, like, standing: true, expires });
                }
                promote::Decision::Deploy(candidate) => {
                    if let Some(event) = deployment(state, definition, candidate, next) {
                        events.push(event);
                        next = next.next();
                    }
                }
            }
        }
        Ok((events, ()))
    })
    .await
}

fn nothing_due(state: &State, declared: &[Declared]) -> bool {
    promote::plan(&state.estate, declared, &state.hold()).is_empty()
}

fn deployment(state: &State, definition: &Definition, candidate: Candidate, id: DeploymentId) -> Option<Event> {
    let environment = state.estate.environments.get(&candidate.environment)?;
    let repeated = candidate.repeats.and_then(|id| state.estate.deployments.get(&id));
    let services: Vec<PlannedService> = match repeated {
        Some(repeated) => repeated.services.clone(),
        None => {
            let asked = environment.like.as_ref().filter(|_| !environment.standing);
            let mut services = definition.resolve(asked.unwrap_or(&environment.name))?.services;
            if asked.is_some() {
                services.iter_mut().for_each(|service| service.hosts.clear());
            }
            services
        }
    };
    if services.is_empty() {
        return None;
    }
    Some(Event::DeploymentStarted {
        deployment: id,
        environment: candidate.environment,
        artifact: candidate.artifact,
        commit: candidate.commit,
        run: candidate.run,
        services,
        changes: candidate.changes,
    })
}

/// One look at what runs, and what follows from it.
async fn keep_up(line: &Arc<Line>, project: &Arc<Project>, hands: &Arc<Hands>) -> Result<Vec<Foreign>, Refusal> {
    let (seen, foreign) = observe(line, project, hands).await?;
    let now = line.now();
    let warm = keep_warm(&project.state(), now);
    let decisions = upkeep::plan(&project.state().estate, &seen, &warm, now);
    let mut rerouted = false;
    for decision in decisions {
        rerouted |= matches!(decision, upkeep::Decision::Healthy(_) | upkeep::Decision::Retire { .. } | upkeep::Decision::Expire(_));
        act(line, project, hands, decision, &foreign).await?;
    }
    if rerouted {
        line.reroute();
    }
    Ok(foreign)
}

/// Revisions that must be kept running for the way back.
fn keep_warm(state: &State, now: Time) -> BTreeSet<(EnvironmentName, Revision)> {
    let mut warm = BTreeSet::new();
    for release in state.releases.iter() {
        let Some(from) = &release.from else { continue };
        let keep = release.strategy.keep().max(WARM);
        match &release.ended {
            Some(end) if now.since(end.at) < keep && end.how == andon_model::event::ReleaseEnd::Released => {
                warm.insert((release.environment.clone(), from.clone()));
            }
            _ => {}
        }
    }
    warm
}

async fn observe(line: &Line, project: &Arc<Project>, hands: &Hands) -> Result<(Observation, Vec<Foreign>), Refusal> {
    let now = line.now();
    let files_due = {
        let mut last = hands.looked_at_files.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.is_none_or(|last| now.since(last) >= FILES);
        if due {
            *last = Some(now);
        }
        due
    };
    let (instances, services): (Vec<Instance>, BTreeMap<InstanceId, Option<String>>) = {
        let state = project.state();
        let health = |i: &Instance| state.estate.deployments.get(&i.deployment)?.service(&i.service)?.health.clone();
        let instances: Vec<Instance> = state.estate.instances.values().cloned().collect();
        let paths = instances.iter().map(|i| (i.id, health(i))).collect();
        (instances, paths)
    };
    if instances.is_empty() && !files_due {
        return Ok((Observation::default(), Vec::new()));
    }
    let looked = Arc::clone(project);
    let to_compare: Vec<InstanceId> =
        instances.iter().filter(|i| files_due && i.retired.is_none() && i.healthy.is_some()).map(|i| i.id).collect();
    let host = tokio::task::spawn_blocking(move || {
        let found = looked.runtime.list()?;
        let mut files = Vec::new();
        for id in to_compare {
            // An instance that is just being replaced has no files to compare: that is seen by its absence.
            let differences = looked.runtime.differences(&id.to_string()).unwrap_or_default();
            files.extend(differences.into_iter().map(|d| (id, d.path, d.before, d.after)));
        }
        let foreign = if files_due { looked.runtime.foreign()? } else { Vec::new() };
        let last_words = |id: &str| looked.runtime.logs(id, 3).unwrap_or_default();
        let found: Vec<_> = found
            .into_iter()
            .map(|o| {
                let words = o.exit.as_ref().filter(|_| !o.alive).map(|exit| (exit.to_string(), last_words(&o.id)));
                (o, words)
            })
            .collect();
        Ok::<_, andon_runtime::RuntimeError>((found, files, foreign))
    })
    .await
    .map_err(|error| Refusal::Broken(error.to_string()))?;
    let (found, files, foreign) = host.map_err(|error| Refusal::Broken(error.to_string()))?;
    let mut seen = Observation { files, ..Observation::default() };
    for (observed, words) in &found {
        let Ok(id) = observed.id.parse::<InstanceId>() else { continue };
        let entry = match words {
            _ if observed.alive => Seen::Alive { health: None, failing: Span(0) },
            Some((exit, log)) => {
                let log = log.lines().filter(|line| !line.trim().is_empty()).collect::<Vec<_>>().join(" / ");
                Seen::Exited { words: crate::intake::plain(&format!("it {exit}; its last words: {log}")) }
            }
            None => continue,
        };
        seen.instances.insert(id, entry);
    }
    ask_health(&instances, &services, &mut seen, hands, now).await;
    let state = project.state();
    for instance in instances.iter().filter(|i| i.retired.is_some()) {
        let key = routes::key(&project.name, &instance.environment, &instance.service);
        if line.router.in_flight(&key, &instance.revision) == 0 {
            seen.idle.insert(instance.id);
        }
    }
    for stray in &foreign {
        let place = stray.instance.parse::<InstanceId>().ok().and_then(|id| state.estate.instances.get(&id));
        // Of an instance that is already gone: still killed, on display nowhere.
        if let Some(place) = place.map(|instance| instance.environment.clone()) {
            seen.foreign.push((place, stray.process.pid, crate::intake::plain(&stray.command)));
        }
    }
    Ok((seen, foreign))
}

async fn ask_health(
    instances: &[Instance],
    paths: &BTreeMap<InstanceId, Option<String>>,
    seen: &mut Observation,
    hands: &Hands,
    now: Time,
) {
    let mut asked = tokio::task::JoinSet::new();
    for instance in instances.iter().filter(|i| i.retired.is_none()) {
        if matches!(seen.instances.get(&instance.id), Some(Seen::Alive { .. })) {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, instance.port));
            let (id, path) = (instance.id, paths.get(&instance.id).cloned().flatten());
            asked.spawn(async move { (id, andon_runtime::health(address, path.as_deref(), HEALTH).await) });
        }
    }
    while let Some(answer) = asked.join_next().await {
        let Ok((id, answer)) = answer else { continue };
        let mut failing = hands.failing.lock().unwrap_or_else(PoisonError::into_inner);
        let since = match &answer {
            Ok(()) => {
                failing.remove(&id);
                now
            }
            Err(_) => *failing.entry(id).or_insert(now),
        };
        seen.instances.insert(id, Seen::Alive { health: Some(answer), failing: now.since(since) });
    }
}

async fn act(
    line: &Arc<Line>,
    project: &Arc<Project>,
    hands: &Arc<Hands>,
    decision: upkeep::Decision,
    foreign: &[Foreign],
) -> Result<(), Refusal> {
    use upkeep::Decision;
    let tell = |station: &'static str, event: Event| line.tell(project, station, vec![event]);
    match decision {
        Decision::Plan { environment, service, revision } => plan_instance(line, project, environment, service, revision).await,
        Decision::Start(instance) => {
            start(line, project, hands, instance);
            Ok(())
        }
        Decision::Healthy(instance) => tell(DEPLOYMENT, Event::InstanceHealthy { instance }).await,
        Decision::Retire { instance, why } => tell(DEPLOYMENT, Event::InstanceRetired { instance, why }).await,
        Decision::Remove(instance) => {
            remove(project, hands, instance);
            Ok(())
        }
        Decision::Up(deployment) => {
            tell(DEPLOYMENT, Event::DeploymentFinished { deployment, ok: true, why: "every instance is healthy".into() }).await
        }
        Decision::GiveUp { deployment, why } => {
            tell(DEPLOYMENT, Event::DeploymentFinished { deployment, ok: false, why }).await
        }
        Decision::Drift { environment, drift } => see(line, project, environment, drift).await,
        Decision::Healed { environment, what, how } => tell(DRIFT, Event::DriftHealed { environment, what, how }).await,
        Decision::Kill { pid, .. } => {
            if let Some(stray) = foreign.iter().find(|stray| stray.process.pid == pid) {
                project.runtime.kill_foreign(stray.process).map_err(|error| Refusal::Broken(error.to_string()))?;
            }
            Ok(())
        }
        Decision::Expire(environment) => {
            let why = "its time is over".to_owned();
            tell("expiry", Event::EnvironmentDestroyed { environment, rebuild: false, why }).await
        }
    }
}

async fn see(line: &Line, project: &Project, environment: EnvironmentName, drift: Drift) -> Result<(), Refusal> {
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
    environment: EnvironmentName,
    service: ServiceName,
    revision: Revision,
) -> Result<(), Refusal> {
    // Ports of all projects: they share the loopback address.
    let used = line.projects().iter().flat_map(|p| p.state().estate.instances.values().map(|i| i.port).collect::<Vec<_>>()).collect();
    let port = andon_runtime::free_port(&used)?;
    line.decide(project, Actor::line(DEPLOYMENT), |state, _| {
        let instance = state.estate.next_instance();
        Ok((vec![Event::InstancePlanned { instance, environment, service, revision, port }], ()))
    })
    .await
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

fn start_now(line: &Line, project: &Project, id: InstanceId) -> Result<(), String> {
    let (instance, deployment) = {
        let state = project.state();
        let instance = state.estate.instances.get(&id).cloned().ok_or("it is not known")?;
        let deployment = state.estate.deployments.get(&instance.deployment).cloned().ok_or("its deployment is not known")?;
        (instance, deployment)
    };
    let service = deployment.service(&instance.service).ok_or("its service is not part of the deployment")?;
    let name = id.to_string();
    let artifact = line.blobs.get(&deployment.artifact).map_err(|error| format!("{}: {error}", deployment.artifact.short()))?;
    project.runtime.prepare(&name, std::io::BufReader::new(artifact)).map_err(|error| error.to_string())?;
    let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let mut env = service.env.clone();
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
        ..Spec::new(&name, &[], instance.port)
    };
    project.runtime.start(&spec).map_err(|error| error.to_string())
}

/// Stops and removes in the background; what is gone is forgotten.
fn remove(project: &Arc<Project>, hands: &Arc<Hands>, id: InstanceId) {
    if !hands.take(id) {
        return;
    }
    let (project, hands) = (Arc::clone(project), Arc::clone(hands));
    tokio::task::spawn_blocking(move || {
        match project.runtime.remove(&id.to_string()) {
            Ok(()) => project.with_state(|state| state.estate.forget(id)),
            Err(error) => tracing::error!(%error, "{id} could not be removed, it is tried again"),
        }
        hands.leave(id);
    });
}

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
            _ => return Err(Refusal::Conflict("trunk has no andon.yaml that can be read\nhint: land one first".into())),
        };
        if !declared.iter().any(|name| name == like.as_str()) {
            let why = format!("there is no environment {like} in andon.yaml\nhint: declared are {}", declared.join(", "));
            return Err(Refusal::Unknown(why));
        }
        self.decide(project, caller.actor(), |state, now| {
            if state.estate.environments.contains_key(&environment) || declared.iter().any(|name| name == environment.as_str()) {
                return Err(Refusal::Conflict(format!("the environment {environment} is there already")));
            }
            let expires = Some(now + lasts.unwrap_or(LIFE));
            Ok((vec![Event::EnvironmentCreated { environment, like: Some(like), standing: false, expires }], ()))
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
                let why = format!("{environment} is declared in andon.yaml\nhint: take it out there, or rebuild it");
                return Err(Refusal::Conflict(why));
            }
            if found.destroying.is_some() {
                return Err(Refusal::Conflict(format!("{environment} is being rebuilt already")));
            }
            Ok((vec![Event::EnvironmentDestroyed { environment, rebuild, why }], ()))
        })
        .await?;
        self.reroute();
        Ok(())
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
        self.decide(project, caller.actor(), |state, _| {
            if !state.estate.environments.contains_key(&environment) {
                return Err(Refusal::Unknown(format!("there is no environment {environment}")));
            }
            let wanted = |l: &&andon_environment::Landing| l.artifact.is_some() && change.is_none_or(|c| l.change == c);
            let landing = state.estate.landings.iter().rev().find(wanted);
            let landing = landing.ok_or_else(|| Refusal::Unknown("nothing landed that could be deployed".into()))?;
            let none = || Refusal::Conflict(format!("{} is in {environment} already, was tried there, or another deployment is under way", landing.commit.short()));
            let candidate = promote::candidate(&state.estate, &environment, landing).ok_or_else(none)?;
            let id = state.estate.next_deployment();
            let none = || Refusal::Conflict("andon.yaml declares no services".into());
            Ok((vec![deployment(state, definition, candidate, id).ok_or_else(none)?], id))
        })
        .await
    }

    /// The end of an instance's output.
    pub async fn instance_log(&self, project: &Arc<Project>, instance: InstanceId, lines: usize) -> Result<String, Refusal> {
        let project = Arc::clone(project);
        let read = tokio::task::spawn_blocking(move || project.runtime.logs(&instance.to_string(), lines)).await;
        let read = read.map_err(|error| Refusal::Broken(error.to_string()))?;
        read.map_err(|error| Refusal::Unknown(error.to_string()))
    }
}
