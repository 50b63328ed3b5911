//! Which packages of an operating system instances see: looked at once for each instance that became healthy, and recorded when they are
//! others than before. Compares nothing.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};

use andon_environment::Instance;
use andon_model::event::{Actor, Event};
use andon_model::{InstanceId, Packages};

use super::{DEPLOYMENT, Hands};
use crate::{Line, Project, Refusal};

/// Looks, in the background, at instances that were not looked at yet.
pub(super) fn look(line: &Arc<Line>, project: &Arc<Project>, hands: &Arc<Hands>) {
    let new: Vec<Instance> = {
        let state = project.state();
        let mut seen = hands.packages.lock().unwrap_or_else(PoisonError::into_inner);
        let there: BTreeSet<InstanceId> = state.estate.instances.keys().copied().collect();
        seen.retain(|id| there.contains(id));
        let healthy = state.estate.instances.values().filter(|i| i.healthy.is_some() && i.retired.is_none());
        healthy.filter(|instance| seen.insert(instance.id)).cloned().collect()
    };
    if new.is_empty() {
        return;
    }
    let (line, project) = (Arc::clone(line), Arc::clone(project));
    tokio::spawn(async move {
        for instance in new {
            if let Err(error) = one(&line, &project, &instance).await {
                tracing::warn!(project = %project.name, instance = %instance.id, %error, "its packages cannot be told");
            }
        }
    });
}

async fn one(line: &Arc<Line>, project: &Arc<Project>, instance: &Instance) -> Result<(), Refusal> {
    let runtime = project.runtime_of(instance.id)?;
    let (id, blobs) = (instance.id.to_string(), line.blobs.clone());
    let place = (instance.environment.clone(), instance.service.clone());
    let before = project.state().estate.packages.get(&place).cloned();
    let found = tokio::task::spawn_blocking(move || -> Result<Option<Packages>, Refusal> {
        let found = runtime.packages(&id).map_err(|error| Refusal::Broken(error.to_string()))?;
        let Some(packages) = found.filter(|packages| Some(packages.digest()) != before) else {
            return Ok(None);
        };
        blobs.put(packages.text().as_bytes())?;
        Ok(Some(packages))
    });
    let Some(packages) = found.await.map_err(|error| Refusal::Broken(error.to_string()))?? else {
        return Ok(());
    };
    let (environment, service) = place.clone();
    let count = u32::try_from(packages.versions.len()).unwrap_or(u32::MAX);
    let (digest, kind) = (packages.digest(), packages.kind);
    let seen = Event::PackagesSeen { environment, service, packages: digest.clone(), kind, count };
    line.decide(project, Actor::line(DEPLOYMENT), |state, _| {
        // It may be gone, or another instance may have told the same.
        let known = state.estate.packages.get(&place) == Some(&digest);
        let there = state.estate.environments.contains_key(&place.0);
        Ok((if known || !there { vec![] } else { vec![seen] }, ()))
    })
    .await
}
