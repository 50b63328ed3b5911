//! Ends, announces, stops and wakes environments as andon-environment's `life` decides. Starts no instance: the upkeep sees what is missing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use andon_environment::life::{self, Decision, Use};
use andon_model::event::{Actor, Event};
use andon_model::{EnvironmentName, Span, Time};
use andon_pipeline::Definition;

use crate::stations::routes;
use crate::{Line, Project, Refusal};

/// Who ends and warns.
const EXPIRY: &str = "expiry";
/// Who stops what nobody uses and starts it again.
const SLEEP: &str = "sleep";

/// One look at the use of every environment, and what follows from it.
pub(super) async fn step(
    line: &Arc<Line>,
    project: &Project,
    definition: Option<&Definition>,
) -> Result<(), Refusal> {
    let now = line.now();
    let decisions = {
        let state = project.state();
        let seen = look(line, project, definition, &state, now);
        life::plan(&state.estate, &seen, now)
    };
    for decision in decisions {
        let (station, event) = match decision {
            Decision::End(environment, why) => {
                (EXPIRY, Event::EnvironmentDestroyed { environment, rebuild: false, why: why.into() })
            }
            Decision::Warn(environment, left) => (EXPIRY, Event::ExpiryNear { environment, left }),
            Decision::Sleep(environment, why) => {
                (SLEEP, Event::EnvironmentAsleep { environment, asleep: true, why })
            }
            Decision::Wake(environment) => {
                let why = "somebody asked for it".to_owned();
                (SLEEP, Event::EnvironmentAsleep { environment, asleep: false, why })
            }
        };
        line.decide(project, Actor::line(station), |_, _| Ok((vec![event], ()))).await?;
    }
    Ok(())
}

fn look(
    line: &Line,
    project: &Project,
    definition: Option<&Definition>,
    state: &crate::State,
    now: Time,
) -> Use {
    let mut seen = Use { since: line.began, ..Use::default() };
    let asked = line.asked_for(&project.name);
    for environment in state.estate.environments.values() {
        let name = &environment.name;
        let keys: Vec<String> =
            environment.serving.keys().map(|service| routes::key(&project.name, name, service)).collect();
        let idle = keys.iter().filter_map(|key| line.unused_for(key)).min();
        if let Some(idle) = idle {
            seen.last.insert(name.clone(), Time(now.0 - i64::try_from(idle.as_millis()).unwrap_or(0)));
        }
        if keys.iter().any(|key| asked.contains(key)) {
            seen.asked_for.insert(name.clone());
        }
    }
    seen.sleep_after = definition.map(|d| sleepers(d, state)).unwrap_or_default();
    seen
}

/// An environment that was asked for sleeps like the one it is like, or after [`ASKED_FOR`] where that never does.
fn sleepers(definition: &Definition, state: &crate::State) -> BTreeMap<EnvironmentName, Span> {
    /// Nobody was there for this long: an environment of a person or a change has done its work for now.
    const ASKED_FOR: Span = Span::secs(3600);
    let after = |e: &andon_environment::Environment| {
        let declared = definition.resolve(&e.name).and_then(|resolved| resolved.rules.sleep_after);
        let like = e.like.as_ref().and_then(|like| definition.resolve(like)?.rules.sleep_after);
        declared.or(if e.standing { None } else { like.or(Some(ASKED_FOR)) })
    };
    let all = state.estate.environments.values();
    all.filter_map(|e| Some((e.name.clone(), after(e)?))).collect()
}

impl Line {
    /// Sleeping services of a project that somebody asked for. What belongs to others is kept for them.
    fn asked_for(&self, project: &andon_model::ProjectName) -> BTreeSet<String> {
        let mut kept = self.asked.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        kept.extend(self.router.asked_for());
        let own = format!("{project}/");
        let (mine, others) = std::mem::take(&mut *kept).into_iter().partition(|key| key.starts_with(&own));
        *kept = others;
        mine
    }

    /// Tells the stations of every project when somebody asks for what sleeps, for as long as the server runs.
    pub async fn hear_knocks(self: Arc<Line>) {
        loop {
            self.router.asked().await;
            self.knocked(self.router.asked_for());
        }
    }

    /// Somebody asked for these sleeping services.
    pub(crate) fn knocked(&self, keys: BTreeSet<String>) {
        let projects: BTreeSet<String> =
            keys.iter().filter_map(|key| Some(key.split('/').next()?.to_owned())).collect();
        self.asked.lock().unwrap_or_else(std::sync::PoisonError::into_inner).extend(keys);
        for project in self.projects().iter().filter(|p| projects.contains(p.name.as_str())) {
            if let Some(last) = project.state().feed.back() {
                self.nudge(last);
            }
        }
    }
}
