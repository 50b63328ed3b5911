//! What separates the instances of an environment, wherever they run. Asks nobody who would have to be waited for.

use std::collections::BTreeSet;

use andon_model::{EnvironmentName, HostName, RuntimeKind};
use andon_runtime::Isolation;

use crate::{Project, State};

/// In force is what is so on every host that has instances of it; what one of them lacks is lacking, and said with its name.
pub(super) fn isolation(
    project: &Project,
    state: &State,
    environment: &EnvironmentName,
    kind: RuntimeKind,
) -> Isolation {
    let stand = state.estate.instances_in(environment).filter(|i| i.retired.is_none());
    let mut hosts: BTreeSet<Option<HostName>> = stand.map(|i| i.host.clone()).collect();
    if hosts.is_empty() {
        hosts.insert(None);
    }
    let several = hosts.len() > 1;
    let mut all = Vec::new();
    for host in hosts {
        let Ok(runtime) = project.runtime_on(kind, host.as_ref()) else { continue };
        let mut found = runtime.isolation(environment);
        if let Some(host) = host.filter(|_| several) {
            found.lacks.iter_mut().for_each(|(_, why)| *why = format!("on {host}: {why}"));
        }
        all.push(found);
    }
    let mut whole = Isolation::default();
    for found in &all {
        let everywhere = |what: &&String| all.iter().all(|other| other.has.contains(what));
        for what in found.has.iter().filter(everywhere) {
            if !whole.has.contains(what) {
                whole.has.push(what.clone());
            }
        }
        for lack in &found.lacks {
            if !whole.lacks.contains(lack) {
                whole.lacks.push(lack.clone());
            }
        }
    }
    whole
}
