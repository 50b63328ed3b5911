//! One look at an environment's instances: processes, health, files, strangers. Decides nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use andon_environment::Instance;
use andon_environment::upkeep::{Observation, Seen};
use andon_model::{HostName, InstanceId, RuntimeKind, Span, Time};
use andon_runtime::{Foreign, Observed, Runtime, RuntimeError};

use super::Hands;
use crate::stations::routes;
use crate::{Line, Project, Refusal};

/// Between two looks at the files of running releases, where nobody tells which were touched.
const FILES: Span = Span::secs(2);
/// Between two looks at all files, told of or not.
const SWEEP: Span = Span::secs(60);
/// How long a health check may take.
const HEALTH: Duration = Duration::from_secs(2);

/// What runs it, and on which host; none: the server's own.
pub(super) type At = (RuntimeKind, Option<HostName>);

/// What nobody accounts for.
#[derive(Default)]
pub(super) struct Strays {
    /// Processes, with the host they are on.
    pub foreign: Vec<(Option<HostName>, Foreign)>,
    /// Instances that the journal does not know, or knows elsewhere.
    pub orphans: Vec<(At, InstanceId)>,
}

/// Everything that is found, and what nobody accounts for.
pub(super) async fn observe(
    line: &Line,
    project: &Arc<Project>,
    hands: &Arc<Hands>,
) -> Result<(Observation, Strays), Refusal> {
    let now = line.now();
    let due = |last: &Mutex<Option<Time>>, every: Span| {
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.is_none_or(|last| now.since(last) >= every);
        if due {
            *last = Some(now);
        }
        due
    };
    let (files_due, sweep_due) = (due(&hands.looked_at_files, FILES), due(&hands.swept_files, SWEEP));
    let (instances, services): (Vec<Instance>, BTreeMap<InstanceId, Option<String>>) = {
        let state = project.state();
        let health =
            |i: &Instance| state.estate.deployments.get(&i.deployment)?.service(&i.service)?.health.clone();
        let instances: Vec<Instance> = state.estate.instances.values().cloned().collect();
        let paths = instances.iter().map(|i| (i.id, health(i))).collect();
        (instances, paths)
    };
    if instances.is_empty() && !files_due {
        return Ok((Observation::default(), Strays::default()));
    }
    let looked = Arc::clone(project);
    let to_compare: Vec<(InstanceId, At)> = {
        let estate = &project.state().estate;
        let settled = |i: &&Instance| i.retired.is_none() && i.healthy.is_some();
        let at = |i: &Instance| (i.id, (estate.runtime_of(i.id), i.host.clone()));
        instances.iter().filter(settled).map(at).collect()
    };
    let (runtimes, silent) = line.runtimes(project);
    let pending = Arc::clone(hands);
    let known: BTreeSet<InstanceId> = instances.iter().map(|i| i.id).collect();
    let host = tokio::task::spawn_blocking(move || {
        let mut host = Host {
            unseen: silent.into_iter().map(|name| (RuntimeKind::Process, Some(name))).collect(),
            ..Host::default()
        };
        let mut touched = pending.touched.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, runtime) in runtimes {
            let at = (runtime.kind(), name);
            let told = runtime.touched();
            let all = if told.is_some() { sweep_due } else { files_due };
            touched.extend(told.into_iter().flatten().filter_map(|id| id.parse::<InstanceId>().ok()));
            let of_it = to_compare.iter().filter(|(_, runs_at)| *runs_at == at).map(|(id, _)| *id);
            let to_compare: Vec<InstanceId> = of_it.filter(|id| touched.remove(id) || all).collect();
            if let Err(error) = host.look(&at, runtime.as_ref(), &to_compare, files_due) {
                let kind = at.0;
                tracing::warn!(project = %looked.name, %kind, %error, "what runs there cannot be seen; nothing is done to it");
                host.unseen.insert(at);
            }
        }
        // Of those that are gone nothing will be compared; one that is not healthy yet is compared when it is.
        let found: BTreeSet<InstanceId> =
            host.found.iter().filter_map(|(_, o, _)| o.id.parse().ok()).collect();
        touched.retain(|id| known.contains(id) || found.contains(id));
        host
    });
    let Host { found, files, settings, foreign, unseen } =
        host.await.map_err(|error| Refusal::Broken(error.to_string()))?;
    let mut seen = Observation { files, settings, ..Observation::default() };
    let stands = |id: &InstanceId, at: &At| {
        let estate = &project.state().estate;
        // A copy of it on another host is not it.
        estate.instances.get(id).is_some_and(|i| i.host == at.1)
    };
    for (at, observed, words) in &found {
        let Ok(id) = observed.id.parse::<InstanceId>() else { continue };
        if !stands(&id, at) {
            continue;
        }
        let entry = match words {
            _ if observed.alive => Seen::Alive { health: None, failing: Span(0) },
            Some((exit, log)) => {
                let log = log.lines().filter(|line| !line.trim().is_empty()).collect::<Vec<_>>().join(" / ");
                let last =
                    if log.is_empty() { "it said nothing".into() } else { format!("its last words: {log}") };
                Seen::Exited { words: crate::intake::plain(&format!("it {exit}; {last}")) }
            }
            None => continue,
        };
        seen.instances.insert(id, entry);
    }
    // A host whose agent is silent may be as well as before: its instances are asked themselves.
    let on = |i: &&Instance| i.host.is_some() && unseen.contains(&(RuntimeKind::Process, i.host.clone()));
    for instance in instances.iter().filter(on) {
        seen.instances.insert(instance.id, Seen::Alive { health: None, failing: Span(0) });
    }
    ask_health(&instances, &services, &mut seen, hands, now).await;
    // A bad answer says nothing there: the host may be cut off. It is back soon, or lost with all that it has.
    for instance in instances.iter().filter(on) {
        if let Some(Seen::Alive { health: Some(Err(_)), .. }) = seen.instances.get(&instance.id) {
            seen.instances.insert(instance.id, Seen::Alive { health: None, failing: Span(0) });
        }
    }
    let state = project.state();
    let dark = |i: &&Instance| i.host.is_none() && unseen.contains(&(state.estate.runtime_of(i.id), None));
    for instance in instances.iter().filter(dark) {
        seen.instances.insert(instance.id, Seen::Alive { health: None, failing: Span(0) });
    }
    for instance in instances.iter().filter(|i| i.retired.is_some()) {
        let key = routes::key(&project.name, &instance.environment, &instance.service);
        if !line.in_use(&key, &instance.revision) {
            seen.idle.insert(instance.id);
        }
    }
    for (at, stray) in &foreign {
        let place = stray.instance.parse::<InstanceId>().ok().and_then(|id| state.estate.instances.get(&id));
        let place = place.filter(|instance| instance.host == *at);
        // Of an instance that is already gone: still killed, on display nowhere.
        if let Some(place) = place.map(|instance| instance.environment.clone()) {
            seen.foreign.push((place, stray.process.pid, crate::intake::plain(&stray.command)));
        }
    }
    // Asked after the look: whatever was made since is known by now. Before it: what was removed meanwhile is nobody's orphan.
    let known = |at: &At, id: &InstanceId| {
        let before = instances.iter().find(|instance| instance.id == *id);
        before.or_else(|| state.estate.instances.get(id)).is_some_and(|instance| instance.host == at.1)
    };
    let ids = found.iter().filter_map(|(at, observed, _)| Some((at.clone(), observed.id.parse().ok()?)));
    let orphans = ids.filter(|(at, id)| !known(at, id)).collect();
    Ok((seen, Strays { foreign, orphans }))
}

/// How an instance ended, and its last words.
type Ended = (String, String);

/// What the runtimes tell.
#[derive(Default)]
struct Host {
    found: Vec<(At, Observed, Option<Ended>)>,
    files: Vec<(InstanceId, String, String, String)>,
    settings: Vec<(InstanceId, String, String, String)>,
    foreign: Vec<(Option<HostName>, Foreign)>,
    /// Those that did not answer: what they run may be as it was, or not.
    unseen: BTreeSet<At>,
}

impl Host {
    fn look(
        &mut self,
        at: &At,
        runtime: &dyn Runtime,
        to_compare: &[InstanceId],
        files_due: bool,
    ) -> Result<(), RuntimeError> {
        for id in to_compare {
            // An instance that is just being replaced has no files to compare: that is seen by its absence.
            let differences = runtime.differences(&id.to_string()).unwrap_or_default();
            self.files.extend(differences.into_iter().map(|d| (*id, d.path, d.before, d.after)));
            let settings = runtime.settings(&id.to_string()).unwrap_or_default();
            self.settings.extend(settings.into_iter().map(|d| (*id, d.path, d.before, d.after)));
        }
        for observed in runtime.list()? {
            let ended = observed.exit.as_ref().filter(|_| !observed.alive);
            let last_words = || runtime.logs(&observed.id, 3).unwrap_or_default();
            let words = ended.map(|exit| (exit.to_string(), last_words()));
            self.found.push((at.clone(), observed, words));
        }
        if files_due {
            self.foreign.extend(runtime.foreign()?.into_iter().map(|stray| (at.1.clone(), stray)));
        }
        Ok(())
    }
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
            let address = instance.address;
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
