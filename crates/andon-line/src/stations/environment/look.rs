//! One look at an environment's instances: processes, health, files, strangers. Decides nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use andon_environment::Instance;
use andon_environment::upkeep::{Observation, Seen};
use andon_model::{EnvironmentName, InstanceId, RuntimeKind, Span, Time};
use andon_runtime::Foreign;

use super::Hands;
use crate::stations::routes;
use crate::{Line, Project, Refusal};

/// Between two looks at the files of running releases, where nobody tells of changes, and at processes without an instance.
const FILES: Span = Span::secs(2);
/// Between two looks at all files where changes are told: what was missed is found all the same.
const SWEEP: Span = Span::secs(60);
/// How long a health check may take.
const HEALTH: Duration = Duration::from_secs(2);

/// Everything that is found, and the processes behind what is foreign.
pub(super) async fn observe(
    line: &Line,
    project: &Arc<Project>,
    hands: &Arc<Hands>,
) -> Result<(Observation, Vec<Foreign>), Refusal> {
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
        return Ok((Observation::default(), Vec::new()));
    }
    let looked = Arc::clone(project);
    let to_compare: Vec<(InstanceId, RuntimeKind)> = {
        let estate = &project.state().estate;
        let settled = |i: &&Instance| i.retired.is_none() && i.healthy.is_some();
        instances.iter().filter(settled).map(|i| (i.id, estate.runtime_of(i.id))).collect()
    };
    let pending = Arc::clone(hands);
    let places: BTreeSet<(EnvironmentName, RuntimeKind)> = {
        let estate = &project.state().estate;
        instances.iter().map(|i| (i.environment.clone(), estate.runtime_of(i.id))).collect()
    };
    let host = tokio::task::spawn_blocking(move || {
        let (mut found, mut files, mut foreign) = (Vec::new(), Vec::new(), Vec::new());
        for runtime in looked.runtimes() {
            let kind = runtime.kind();
            let told = runtime.touched();
            let every = if told.is_some() { sweep_due } else { files_due };
            let mut touched = pending.touched.lock().unwrap_or_else(PoisonError::into_inner);
            touched.extend(told.into_iter().flatten().filter_map(|id| id.parse::<InstanceId>().ok()));
            let of_it = to_compare.iter().filter(|(_, runs_in)| *runs_in == kind);
            for (id, _) in of_it.filter(|(id, _)| touched.remove(id) || every) {
                // An instance that is just being replaced has no files to compare: that is seen by its absence.
                let differences = runtime.differences(&id.to_string()).unwrap_or_default();
                files.extend(differences.into_iter().map(|d| (*id, d.path, d.before, d.after)));
            }
            drop(touched);
            for (place, _) in places.iter().filter(|(_, runs_in)| *runs_in == kind) {
                if sweep_due || looked.isolation(place).is_none() {
                    looked.note_isolation(place, runtime.isolation(place));
                }
            }
            for observed in runtime.list()? {
                let ended = observed.exit.as_ref().filter(|_| !observed.alive);
                let last_words = || runtime.logs(&observed.id, 3).unwrap_or_default();
                let words = ended.map(|exit| (exit.to_string(), last_words()));
                found.push((observed, words));
            }
            if files_due {
                foreign.extend(runtime.foreign()?);
            }
        }
        // Of those that are gone nothing will be compared.
        let there: BTreeSet<InstanceId> =
            found.iter().filter_map(|(observed, _)| observed.id.parse().ok()).collect();
        let mut touched = pending.touched.lock().unwrap_or_else(PoisonError::into_inner);
        touched.retain(|id| there.contains(id));
        drop(touched);
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
