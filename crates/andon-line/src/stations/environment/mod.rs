//! The environments' controller: brings artifacts into environments, starts and replaces instances, sees drift. Which artifact goes where
//! and what counts as drift is decided in andon-environment. `look` sees what runs, `act` does what follows, `commands` is what people ask.

mod act;
pub mod commands;
mod life;
mod look;
mod packages;
pub mod shell;
mod trusted;
pub(crate) mod waits;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use andon_environment::promote::{self, Candidate, Declared};
use andon_environment::upkeep::{self, Wishes};
use andon_environment::{DeploymentState, Exception};
use andon_model::event::{Actor, DataWanted, Event, InfraWanted, Revision};
use andon_model::{DeploymentId, EnvironmentName, HostName, InstanceId, Oid, Span, Time};
use andon_pipeline::Definition;
use andon_pipeline::definition::DeployWhen;
use andon_runtime::Runtime;
use tokio_util::sync::CancellationToken;

use super::provenance::Look;
use super::{Pulse, environment_tests};
use crate::project::Defined;
use crate::{Line, Project, Refusal, State};

/// The station's name in the journal.
const DEPLOYMENT: &str = "deployment";
/// Between two looks while something is starting, stopping or healing.
const SOON: Duration = Duration::from_millis(100);
/// Between two looks at a quiet environment.
const QUIET: Duration = Duration::from_secs(1);
/// How long the way back stays warm when the strategy does not say.
const WARM: Span = Span::secs(60);

pub(crate) async fn run(line: Arc<Line>, project: Arc<Project>, stop: CancellationToken) {
    let mut pulse = Pulse::new(&line, &project, stop.clone(), QUIET);
    let hands = Arc::new(Hands::default());
    if let Err(error) = line.end_lost_shells(&project).await {
        tracing::error!(project = %project.name, %error, "shells that were open are not told to have ended");
    }
    if let Err(error) = super::environment_tests::after_restart(&line, &project).await {
        tracing::error!(project = %project.name, %error, "tests that an earlier server began are not ended");
    }
    loop {
        let done = step(&line, &project, &hands, &stop).await;
        pulse.every(if busy(&project.state()) { SOON } else { QUIET });
        let worked = done.is_ok();
        tokio::select! {
            goes_on = pulse.beat(done, DEPLOYMENT) => if !goes_on { return },
            // A runtime tells that something happened to an instance. After a failure the pause is kept.
            () = hands.woken.notified(), if worked => {}
        }
    }
}

/// What this process is doing to instances right now, and what it saw of them. Nothing here outlives it.
#[derive(Default)]
struct Hands {
    on: Mutex<BTreeSet<InstanceId>>,
    failing: Mutex<BTreeMap<InstanceId, Time>>,
    /// When processes without an instance were looked for last, and files where nobody tells which were touched.
    looked_at_files: Mutex<Option<Time>>,
    /// When all files were compared last, told of or not.
    swept_files: Mutex<Option<Time>>,
    /// Told to be touched, and not compared since.
    touched: Mutex<BTreeSet<InstanceId>>,
    /// Instances whose packages were looked at.
    packages: Mutex<BTreeSet<InstanceId>>,
    pub(super) testing: Mutex<BTreeSet<DeploymentId>>,
    woken: tokio::sync::Notify,
    listening: Mutex<BTreeSet<look::At>>,
}

impl Hands {
    fn take(&self, instance: InstanceId) -> bool {
        self.on.lock().unwrap_or_else(PoisonError::into_inner).insert(instance)
    }
    fn leave(&self, instance: InstanceId) {
        self.on.lock().unwrap_or_else(PoisonError::into_inner).remove(&instance);
    }

    /// Hears from now on what a runtime tells of its instances.
    fn listen(self: &Arc<Hands>, host: Option<HostName>, runtime: &dyn Runtime, stop: &CancellationToken) {
        let at = (runtime.kind(), host);
        if !self.listening.lock().unwrap_or_else(PoisonError::into_inner).insert(at.clone()) {
            return;
        }
        let Some(mut news) = runtime.watch() else { return };
        let (hands, stop) = (Arc::clone(self), stop.clone());
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    more = news.changed() => if more.is_err() {
                        // A host that left may come again.
                        hands.listening.lock().unwrap_or_else(PoisonError::into_inner).remove(&at);
                        return;
                    },
                }
                *hands.looked_at_files.lock().unwrap_or_else(PoisonError::into_inner) = None;
                hands.woken.notify_one();
            }
        });
    }
}

fn busy(state: &State) -> bool {
    let instances = state.estate.instances.values();
    state
        .estate
        .deployments
        .values()
        .any(|d| matches!(d.state, DeploymentState::Starting | DeploymentState::Up))
        || instances.into_iter().any(|i| i.retired.is_some() || i.healthy.is_none())
        || state.estate.environments.values().any(|e| e.destroying.is_some() || !e.drifts.is_empty())
}

async fn step(
    line: &Arc<Line>,
    project: &Arc<Project>,
    hands: &Arc<Hands>,
    stop: &CancellationToken,
) -> Result<(), Refusal> {
    let defined = project.trunk_definition().await?;
    if let Some(Ok(definition)) = defined.as_deref() {
        bring(line, project, definition).await?;
    }
    let definition = defined.as_deref().and_then(|defined| defined.as_ref().ok());
    life::step(line, project, definition).await?;
    keep_up(line, project, definition, hands, stop).await?;
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
    let declared = declared(definition);
    if nothing_due(&project.state(), &declared) {
        return Ok(());
    }
    let defined = definitions(project, &declared).await?;
    let looked = trusted::look_at(line, project, definition, &declared, &defined).await?;
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
                    events.push(Event::EnvironmentCreated {
                        environment,
                        like,
                        standing: true,
                        expires,
                        change: None,
                    });
                }
                promote::Decision::Deploy(candidate) => {
                    // One that became due since waits for the next look.
                    let Some(own) = defined.get(&candidate.commit) else { continue };
                    if too_unlike(project, state, own, definition, &candidate, now) {
                        continue;
                    }
                    let artifact = candidate.artifact.clone();
                    let Some(look) = looked.get(&(candidate.run, artifact.clone())) else { continue };
                    let wanted = wanted(state, own, definition, &candidate, next);
                    let Some(event) = deployment(state, own, definition, candidate, next) else { continue };
                    match look {
                        Look::NotYet => continue,
                        Look::Good => events.extend(wanted.into_iter().chain([event])),
                        // Nothing of it is started: it failed in the same breath, and the cord's rules hear of that.
                        Look::Bad(why) => {
                            let why = format!("{} is refused: {why}", artifact.short());
                            events.push(event);
                            events.push(Event::DeploymentFinished { deployment: next, ok: false, why });
                        }
                    }
                    next = next.next();
                }
            }
        }
        Ok((events, ()))
    })
    .await
}

/// Whether parity that is asked for keeps an artifact out. What is made again is as it was.
fn too_unlike(
    project: &Project,
    state: &State,
    own: &Defined,
    trunk: &Definition,
    candidate: &Candidate,
    now: Time,
) -> bool {
    let landing = state.estate.landings.iter().rev().find(|landing| landing.run == candidate.run);
    let unlike = |landing| waits::unlike(project, state, own, trunk, &candidate.environment, landing, now);
    candidate.repeats.is_none() && landing.and_then(unlike).is_some()
}

fn nothing_due(state: &State, declared: &[Declared]) -> bool {
    promote::plan(&state.estate, declared, &state.hold()).is_empty()
}

/// The environments of a definition in the order in which a change passes.
fn declared(definition: &Definition) -> Vec<Declared> {
    let names = definition.environments.keys();
    let resolved = names.filter_map(|name| Some((name, definition.resolve(name)?)));
    let declared = resolved.map(|(name, resolved)| Declared {
        name: name.clone(),
        on_green: resolved.deploy == DeployWhen::OnGreen,
    });
    declared.collect()
}

/// `andon.yaml` of every commit whose artifact is due: what runs is what its own commit says, not what trunk says by now.
async fn definitions(
    project: &Project,
    declared: &[Declared],
) -> Result<BTreeMap<Oid, Arc<Defined>>, Refusal> {
    let commits: BTreeSet<Oid> = {
        let state = project.state();
        let due = promote::plan(&state.estate, declared, &state.hold()).into_iter();
        due.filter_map(|decision| match decision {
            promote::Decision::Deploy(candidate) => Some(candidate.commit),
            promote::Decision::Create { .. } => None,
        })
        .collect()
    };
    let mut defined = BTreeMap::new();
    for commit in commits {
        defined.insert(commit.clone(), project.definition(&commit).await?);
    }
    Ok(defined)
}

/// `own` is what the artifact's commit says; `trunk` speaks for environments that it does not know yet.
fn deployment(
    state: &State,
    own: &Defined,
    trunk: &Definition,
    candidate: Candidate,
    id: DeploymentId,
) -> Option<Event> {
    let environment = state.estate.environments.get(&candidate.environment)?;
    let repeated = candidate.repeats.and_then(|id| state.estate.deployments.get(&id));
    let (services, runtime) = match repeated {
        Some(repeated) => (repeated.services.clone(), repeated.runtime),
        None => {
            let asked = environment.like.as_ref().filter(|_| !environment.standing);
            let name = asked.unwrap_or(&environment.name);
            let own = own.as_ref().ok().and_then(|own| own.resolve(name));
            let mut resolved = own.or_else(|| trunk.resolve(name))?;
            if asked.is_some() {
                resolved.services.iter_mut().for_each(|service| service.hosts.clear());
            }
            (resolved.services, resolved.runtime)
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
        runtime,
        pins: candidate.pins,
    })
}

/// The infrastructure and the databases that this deployment needs.
fn wanted(
    state: &State,
    own: &Defined,
    trunk: &Definition,
    candidate: &Candidate,
    id: DeploymentId,
) -> Vec<Event> {
    let mut wanted = infrastructure(state, own, trunk, candidate, id);
    wanted.extend(databases(state, own, trunk, candidate, id));
    wanted
}

/// The databases that this deployment needs. What is repeated needs what it needed.
fn databases(
    state: &State,
    own: &Defined,
    trunk: &Definition,
    candidate: &Candidate,
    id: DeploymentId,
) -> Option<Event> {
    let estate = &state.estate;
    let environment = candidate.environment.clone();
    if let Some(repeats) = candidate.repeats {
        let wanted = estate.data.wanted.get(&repeats)?.clone();
        return Some(Event::DataWanted(DataWanted { deployment: id, environment, ..wanted }));
    }
    let definition = own.as_ref().unwrap_or(trunk);
    let named = definition.services.values().flat_map(|service| &service.databases);
    let databases: BTreeMap<_, _> = named
        .filter_map(|name| Some((name.value.clone(), definition.databases.get(&name.value)?.folder())))
        .collect();
    let commit = candidate.commit.clone();
    let wanted = DataWanted { deployment: id, environment, commit, databases };
    (!wanted.databases.is_empty()).then_some(Event::DataWanted(wanted))
}

/// The infrastructure of each tool, where its environment has one. What is repeated needs what it needed.
fn infrastructure(
    state: &State,
    own: &Defined,
    trunk: &Definition,
    candidate: &Candidate,
    id: DeploymentId,
) -> Vec<Event> {
    let estate = &state.estate;
    let Some(environment) = estate.environments.get(&candidate.environment) else { return Vec::new() };
    if let Some(repeated) = candidate.repeats {
        let needed = estate.infrastructure.needs(repeated);
        return needed
            .map(|wanted| Event::InfraWanted(InfraWanted { deployment: id, ..wanted.clone() }))
            .collect();
    }
    let asked = environment.like.as_ref().filter(|_| !environment.standing);
    let name = asked.unwrap_or(&environment.name);
    let own = own.as_ref().ok().and_then(|own| own.resolve(name));
    let resolved = own.or_else(|| trunk.resolve(name));
    let Some(infrastructure) = resolved.and_then(|resolved| resolved.infrastructure) else {
        return Vec::new();
    };
    let one = |folder: String, variables, playbook| {
        Event::InfraWanted(InfraWanted {
            deployment: id,
            environment: environment.name.clone(),
            commit: candidate.commit.clone(),
            tree: candidate.pins.folders.get(&folder).cloned(),
            folder,
            variables,
            playbook,
        })
    };
    let made = infrastructure.folder().map(|folder| one(folder, infrastructure.variables.clone(), None));
    let set_up = infrastructure.ansible.as_ref();
    let set_up = set_up.map(|a| one(a.folder(), a.variables.clone(), Some(a.playbook())));
    made.into_iter().chain(set_up).collect()
}

/// One look at what runs, and what follows from it.
async fn keep_up(
    line: &Arc<Line>,
    project: &Arc<Project>,
    definition: Option<&Definition>,
    hands: &Arc<Hands>,
    stop: &CancellationToken,
) -> Result<(), Refusal> {
    for (host, runtime) in line.runtimes(project).0 {
        hands.listen(host, runtime.as_ref(), stop);
    }
    let (seen, found) = look::observe(line, project, hands).await?;
    let look::Strays { foreign, orphans } = found;
    act::sweep(project, hands, orphans);
    packages::look(line, project, hands);
    let now = line.now();
    let decisions = {
        let state = project.state();
        let ignores = definition.map(|definition| ignores(definition, &state)).unwrap_or_default();
        let wishes = Wishes { keep_warm: keep_warm(&state, now), ignores, places: line.places() };
        upkeep::plan(&state.estate, &seen, &wishes, now)
    };
    for decision in decisions {
        act::act(line, project, hands, decision, &foreign).await?;
    }
    Ok(())
}

/// What may differ from code, by environment; one that was asked for may what the one it is like may.
fn ignores(definition: &Definition, state: &State) -> BTreeMap<EnvironmentName, Vec<Exception>> {
    let of = |environment: &andon_environment::Environment| {
        let like = environment.like.as_ref().filter(|_| !environment.standing);
        let rules = definition.resolve(like.unwrap_or(&environment.name))?.rules;
        Some((environment.name.clone(), exceptions(&rules.ignores)))
    };
    state.estate.environments.values().filter_map(of).collect()
}

/// Exceptions of the file as the domain has them.
pub(crate) fn exceptions(written: &[andon_pipeline::rules::Exception]) -> Vec<Exception> {
    let each = |e: &andon_pipeline::rules::Exception| Exception {
        what: e.what.clone(),
        why: e.why.clone(),
        until: e.ends(),
    };
    written.iter().map(each).collect()
}

/// Revisions that must be kept running for the way back.
pub(crate) fn keep_warm(state: &State, now: Time) -> BTreeSet<(EnvironmentName, Revision)> {
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
