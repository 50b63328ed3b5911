//! What keeps a change out of an environment, in words: what andon-environment's `promote` says, and parity that is asked for and not there.
//! The same words refuse a command, hold a promotion, and stand on the pages.

use andon_environment::parity::{Parity, Subject};
use andon_environment::promote::{self, Refused};
use andon_environment::{Landing, parity};
use andon_model::{EnvironmentName, Time};
use andon_pipeline::Definition;

use crate::project::Defined;
use crate::view::parity::{differs, name_packages, picture};
use crate::{Project, State};

/// Why this landing may not go there now; none: it may. `own` is the file of its commit, `trunk` that of trunk.
pub(crate) fn refused(
    project: &Project,
    state: &State,
    own: &Defined,
    trunk: &Definition,
    name: &EnvironmentName,
    landing: &Landing,
    now: Time,
) -> Option<Refused> {
    promote::refusal(&state.estate, &super::declared(trunk), name, landing)
        .or_else(|| unlike(project, state, own, trunk, name, landing, now))
}

/// What the newest landing with an artifact waits for in front of an environment that exists, as far as files that were read tell.
pub(crate) fn waits_for(
    project: &Project,
    state: &State,
    name: &EnvironmentName,
    now: Time,
) -> Option<Refused> {
    let landing = state.estate.landings.iter().rev().find(|landing| landing.artifact.is_some())?;
    let has = |d: &andon_environment::Deployment| {
        d.environment == *name
            && d.run == landing.run
            && matches!(d.state, andon_environment::DeploymentState::Released { .. })
    };
    if state.estate.deployments.values().any(has) {
        return None;
    }
    let trunk = project.known_definition(state)?;
    let own = project.read_definition(&landing.commit)?;
    refused(project, state, &own, &trunk, name, landing, now)
}

/// Why an environment would not be enough like the one that it is measured by, if it got this landing. It is measured as it would be: what
/// code makes of it, on what runs it now. Tables are left out: the change brings its own migrations; and flags, which are opened apart from deployments. What only instances show is left out
/// while there are none.
pub(crate) fn unlike(
    project: &Project,
    state: &State,
    own: &Defined,
    trunk: &Definition,
    name: &EnvironmentName,
    landing: &Landing,
    now: Time,
) -> Option<Refused> {
    let place = trunk.environments.get_index_of(name)?;
    let alike = trunk.resolve(name)?.rules.parity?;
    let before = || trunk.environments.get_index(place.checked_sub(1)?).map(|(before, _)| before.clone());
    let with = alike.with.clone().or_else(before)?;
    let resolved = own.as_ref().ok().and_then(|own| own.resolve(name)).or_else(|| trunk.resolve(name))?;
    let environment = state.estate.environments.get(name)?;
    let artifact = landing.artifact.as_ref()?;
    let (services, runtime) = (&resolved.services, resolved.runtime);
    let mut planned =
        parity::Picture::planned(services, artifact, runtime, &landing.pins, &environment.scaled);
    let mut aside = vec![Subject::Schema, Subject::Flags];
    let runs = state.estate.instances_in(name).any(|i| i.retired.is_none() && i.healthy.is_some());
    match picture(project, state, name, now) {
        Ok(found) if runs => planned.observed(&found),
        _ => aside.extend([Subject::Isolation, Subject::Packages]),
    }
    // One that is not there yet is like nothing.
    let model = picture(project, state, &with, now).unwrap_or_default().without(&aside);
    let mut found = Parity::between(&model, &planned.without(&aside), &differs(trunk, &[&with, name]), now);
    name_packages(project, &mut found);
    let why = found.short_of(alike.least, with.as_str(), name.as_str())?;
    let hint = format!(
        "andon env diff {with} {name} shows what differs now; what may differ stands under `differs`, with a reason"
    );
    Some(Refused { why, hint })
}
