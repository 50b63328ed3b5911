//! Infrastructure: the state backend that Terraform and OpenTofu speak with, and the runs of the tool that the line makes itself.
//! `backend` keeps states, `drive` takes a run through its stages (`playbook` one of Ansible), `salvage` saves what a tool left, `ending` is
//! how runs end before their time, `look` holds reality against code, `commands` is what people ask. What
//! is due and what is guarded is decided in andon-environment; the tool is driven by andon-provision.

pub mod backend;
mod commands;
mod drive;
mod ending;
mod look;
mod playbook;
mod runs;
mod salvage;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use andon_environment::due;
use andon_environment::infrastructure::OUTPUT;
use andon_environment::infrastructure::Stage;
use andon_model::event::{Actor, Event};
use andon_model::{EnvironmentName, InfraRunId};
use andon_pipeline::definition::Infrastructure;
use andon_provision::ansible::{self, AnsibleError};
use andon_provision::terraform::{self, Tool};
use tokio_util::sync::CancellationToken;

use super::Pulse;
use crate::{Line, Project, Refusal, State};

pub use backend::{Scope, StateRefusal};
pub(crate) use look::Looks;

/// The station's name in the journal.
const STATION: &str = "infrastructure";
/// Between two looks at what is due.
const QUIET: Duration = Duration::from_secs(1);
/// The binary to use, where it is not `terraform` or `tofu` of the path.
const BINARY: &str = "ANDON_TERRAFORM";
/// The `ansible-playbook` to use, where it is not that of the path.
const ANSIBLE: &str = "ANDON_ANSIBLE";

/// What this process is doing right now.
#[derive(Default)]
struct Hands {
    driving: Mutex<BTreeSet<InfraRunId>>,
    /// Processes that were asked to end, by pid and start time.
    stopping: Mutex<BTreeSet<(u32, u64)>>,
    tool: tokio::sync::OnceCell<Tool>,
    ansible: tokio::sync::OnceCell<Tool>,
}

impl Hands {
    /// The tool; asked again until there is one.
    async fn tool(&self) -> Result<&Tool, terraform::TerraformError> {
        let wanted = std::env::var_os(BINARY).map(PathBuf::from);
        self.tool.get_or_try_init(|| terraform::probe(wanted.as_deref())).await
    }

    /// `ansible-playbook`; asked again until there is one.
    async fn ansible(&self) -> Result<&Tool, AnsibleError> {
        let wanted = std::env::var_os(ANSIBLE).map(PathBuf::from);
        self.ansible.get_or_try_init(|| ansible::probe(wanted.as_deref())).await
    }
}

pub(super) async fn run(line: Arc<Line>, project: Arc<Project>, stop: CancellationToken) {
    let mut pulse = Pulse::new(&line, &project, stop.clone(), QUIET);
    let hands = Arc::new(Hands::default());
    loop {
        let done = step(&line, &project, &hands, &stop).await;
        if !pulse.beat(done, STATION).await {
            return;
        }
    }
}

async fn step(
    line: &Arc<Line>,
    project: &Arc<Project>,
    hands: &Arc<Hands>,
    stop: &CancellationToken,
) -> Result<(), Refusal> {
    let queued = |state: &State, now| {
        let looks = project.looks.lock().unwrap_or_else(PoisonError::into_inner);
        due::due(&state.estate, now, &|name, tool| looks.since_applied(state, name, tool))
    };
    let due = queued(&project.state(), line.now());
    if !due.is_empty() {
        line.decide(project, Actor::line(STATION), |state, now| {
            Ok((queued(state, now).into_iter().map(Event::InfraQueued).collect(), ()))
        })
        .await?;
    }
    line.free_dead_locks(project).await?;
    ending::expire(line, project).await?;
    ending::stop(line, project, hands, stop).await?;
    ending::sweep(line, project, hands)?;
    let turns: Vec<InfraRunId> = {
        let state = project.state();
        let turns = state.estate.infrastructure.turns().into_iter();
        let go = turns.filter(|run| run.stage != Stage::Waiting || run.stopping.is_some());
        go.map(|run| run.id()).collect()
    };
    for run in turns {
        if !hands.driving.lock().unwrap_or_else(PoisonError::into_inner).insert(run) {
            continue;
        }
        let (line, project, hands, stop) = (line.clone(), project.clone(), hands.clone(), stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                // What runs goes on: the next server takes it up.
                () = stop.cancelled() => {}
                done = drive::drive(&line, &project, &hands, run) => if let Err(error) = done {
                    tracing::error!(project = %project.name, %run, %error, "a run of the infrastructure tool could not go on");
                    tokio::time::sleep(super::AFTER_ERROR).await;
                },
            }
            hands.driving.lock().unwrap_or_else(PoisonError::into_inner).remove(&run);
            // The next stage is looked at without waiting for the clock.
            let last = project.state().feed.back().cloned();
            last.iter().for_each(|event| line.nudge(event));
        });
    }
    look::step(line, project, hands, stop).await
}

/// What trunk says of an environment's infrastructure.
async fn said(project: &Project, name: &EnvironmentName) -> Result<Option<Infrastructure>, Refusal> {
    let like = {
        let state = project.state();
        let place = state.estate.environments.get(name);
        place.and_then(|place| place.like.clone().filter(|_| !place.standing))
    };
    let defined = project.trunk_definition().await?;
    let definition = defined.as_deref().and_then(|defined| defined.as_ref().ok());
    Ok(definition.and_then(|definition| definition.resolve(like.as_ref().unwrap_or(name))?.infrastructure))
}

/// An environment variable of a service with the output values of its infrastructure.
pub(super) fn fill_in(
    text: &str,
    outputs: Option<&BTreeMap<String, serde_json::Value>>,
) -> Result<String, String> {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(OUTPUT) {
        let Some((name, left)) = after.split_once('}') else { break };
        let value = outputs.and_then(|outputs| outputs.get(name)).ok_or_else(|| {
            let name: String = name.chars().take(60).collect();
            format!("the infrastructure has no output {name} that may be shown; declare one in its code, or take {OUTPUT}{name}}} out")
        })?;
        filled.push_str(before);
        filled.push_str(&value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        rest = left;
    }
    filled.push_str(rest);
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::fill_in;

    #[test]
    fn an_output_stands_where_it_is_named_and_a_missing_one_is_said() {
        let outputs =
            [("host".to_owned(), serde_json::json!("db-1")), ("port".to_owned(), serde_json::json!(5432))];
        let outputs = outputs.into_iter().collect();
        let filled = fill_in("pg://${infrastructure.host}:${infrastructure.port}/x", Some(&outputs));
        assert_eq!(filled.unwrap(), "pg://db-1:5432/x");
        assert!(fill_in("${infrastructure.user}", Some(&outputs)).unwrap_err().contains("user"));
        assert!(fill_in("${infrastructure.host}", None).is_err());
        assert_eq!(fill_in("${infrastructure.x", None).unwrap(), "${infrastructure.x");
        assert_eq!(fill_in("$PORT", None).unwrap(), "$PORT");
    }
}
