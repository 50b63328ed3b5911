//! The environment's own tests, run against what was just deployed, before any user sees it. They are jobs of `andon.yaml`, run like jobs;
//! what to think of a red one is decided elsewhere.

use std::path::PathBuf;
use std::sync::Arc;

use andon_attest::token::Who;
use andon_model::event::Event;
use andon_model::{DeploymentId, JobName};
use andon_runner::{End, Room};
use tokio_util::sync::CancellationToken;

use super::pipeline::{hand_over, home, job_end, job_env, job_order, keep_log, with_engine};
use crate::{Line, Project, Refusal};

/// Output that a test may print, in bytes.
const LOG_LIMIT: u64 = 256 << 20;

/// Runs the tests of a deployment and records what they say. A server that is stopped meanwhile records nothing: they run again.
pub(super) async fn test(
    line: &Arc<Line>,
    project: &Arc<Project>,
    id: DeploymentId,
    stop: &CancellationToken,
) {
    let event = match run(line, project, id, stop).await {
        Ok(Some(event)) => event,
        Ok(None) => return,
        Err(error) => {
            let Some(environment) =
                project.state().estate.deployments.get(&id).map(|d| d.environment.clone())
            else {
                return;
            };
            Event::EnvironmentTested {
                deployment: id,
                environment,
                ok: false,
                why: error.to_string(),
                log: None,
            }
        }
    };
    if stop.is_cancelled() {
        return;
    }
    if let Err(error) = line.tell(project, "environment tests", vec![event]).await {
        tracing::error!(%error, "the tests of {id} could not be recorded");
    }
}

async fn run(
    line: &Arc<Line>,
    project: &Project,
    id: DeploymentId,
    stop: &CancellationToken,
) -> Result<Option<Event>, Refusal> {
    let found = project.state().estate.deployments.get(&id).cloned();
    let Some(deployment) = found else { return Ok(None) };
    let environment = deployment.environment.clone();
    let said = |ok: bool, why: String, log| Event::EnvironmentTested {
        deployment: id,
        environment: environment.clone(),
        ok,
        why,
        log,
    };
    let trunk = project.trunk_definition().await?;
    let own = project.definition(&deployment.commit).await?;
    let (Some(Ok(trunk)), Ok(own)) = (trunk.as_deref(), own.as_ref()) else {
        return Ok(Some(said(false, "andon.yaml cannot be read".into(), None)));
    };
    // Which tests an environment wants is said on trunk; what they do belongs to what is tested.
    let tests = environment_tests(project, trunk, &environment);
    if tests.is_empty() {
        return Ok(Some(said(true, "no tests are declared for it".into(), None)));
    }
    let room = Room::at(&rooms(project).join(id.to_string()));
    clear(line, room.clone()).await?;
    let (tree, log) = (room.dir().join("tree"), room.dir().join("log"));
    std::fs::create_dir_all(room.dir())?;
    project.repository.check_out(&deployment.commit, &tree).await?;
    let home = home(project, project.unlanded_in(&environment).is_none());
    let mut outcome = (true, Vec::new());
    for name in tests {
        let Some(job) = own.pipeline.jobs.get(&name).or_else(|| trunk.pipeline.jobs.get(&name)) else {
            continue;
        };
        // Each its own record in the room of all: they run one after the other in one working copy.
        let of_it = Room::at(&room.dir().join(name.as_str()));
        std::fs::create_dir_all(of_it.dir())?;
        let mut env = job_env(&own.pipeline, job, project, &name, &home, &of_it.tmp());
        env.extend(addresses(project, &deployment));
        let given = line.secrets_of_environment(project, &environment, &job.secrets)?;
        let mut secrets = hand_over(given, &mut env, &log)?;
        let timeout = project.state().runs.timeout(&name, job.timeout);
        if let Some(identity) = &job.identity {
            let trunk = project.state().trunk.clone();
            let unlanded = project.unlanded_in(&environment).map(|change| (change.0, None));
            let who = Who {
                url: &line.settings.url,
                project: &project.name,
                trunk: &trunk,
                environment: Some(&environment),
                job: &name,
                run: Some(deployment.run),
                attempt: 1,
                unlanded,
                commit: &deployment.commit,
                tree: None,
            };
            secrets.extend(line.give_identity(identity, &who, timeout, &of_it.tmp(), &mut env).await?);
        }
        let called = format!("{}-{id}-{name}", project.name);
        let mut order = job_order(project, job, called, &of_it, tree.clone(), env, log.clone());
        order.writes = vec![home.clone()];
        order.log_limit = LOG_LIMIT;
        order.secrets = secrets;
        if job.docker {
            with_engine(line, &mut order)?;
        }
        order.timeout = timeout;
        let end = match line.runner.run(&order, stop.cancelled()).await {
            End::Cancelled => return Ok(None),
            end => job_end(end),
        };
        let (mark, words) = crate::view::job_end(&end);
        outcome.0 &= mark == crate::view::Mark::Go;
        outcome.1.push(format!("{name} {words}"));
        if !outcome.0 {
            outcome.1.extend(last_line(&log));
            break;
        }
    }
    let kept = keep_log(&line.blobs, &log);
    clear(line, room).await?;
    Ok(Some(said(outcome.0, outcome.1.join(": "), kept)))
}

/// Where tests of deployments have their rooms.
fn rooms(project: &Project) -> PathBuf {
    project.room.join("tests")
}

async fn clear(line: &Arc<Line>, room: Room) -> Result<(), Refusal> {
    let line = Arc::clone(line);
    let swept = tokio::task::spawn_blocking(move || {
        // What an earlier server began: its tests hold rooms below.
        line.runner.sweep(room.dir(), |name| !room.dir().join(name).join("tmp").is_dir())?;
        room.remove()
    });
    swept.await.map_err(|error| Refusal::Broken(error.to_string()))?.map_err(Refusal::from)
}

/// Ends what tests an earlier server began: which deployments are tested is decided anew.
pub(super) async fn after_restart(line: &Arc<Line>, project: &Project) -> Result<(), Refusal> {
    for entry in std::fs::read_dir(rooms(project)).into_iter().flatten().flatten() {
        clear(line, Room::at(&entry.path())).await?;
    }
    Ok(())
}

fn environment_tests(
    project: &Project,
    trunk: &andon_pipeline::Definition,
    name: &andon_model::EnvironmentName,
) -> Vec<JobName> {
    let like =
        project.state().estate.environments.get(name).filter(|e| !e.standing).and_then(|e| e.like.clone());
    trunk.resolve(like.as_ref().unwrap_or(name)).map(|resolved| resolved.tests).unwrap_or_default()
}

/// `ANDON_URL` of the first service and `ANDON_URL_NAME` of each: an instance of the new revision itself, past the router.
fn addresses(project: &Project, deployment: &andon_environment::Deployment) -> Vec<(String, String)> {
    let state = project.state();
    let revision = deployment.revision();
    let mut found = Vec::new();
    for service in &deployment.services {
        let instance = state.estate.healthy(&deployment.environment, &service.name, &revision).next();
        let Some(instance) = instance else { continue };
        let url = format!("http://{}", instance.address);
        if found.is_empty() {
            found.push(("ANDON_URL".to_owned(), url.clone()));
        }
        found.push((format!("ANDON_URL_{}", service.name.as_str().to_uppercase().replace('-', "_")), url));
    }
    found.push(("ANDON_ENVIRONMENT".to_owned(), deployment.environment.to_string()));
    found
}

/// The last line that says something: usually the failing assertion.
fn last_line(log: &std::path::Path) -> Option<String> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = std::fs::File::open(log).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(4096))).ok()?;
    let mut bytes = Vec::new();
    file.take(4096).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    text.lines().rev().find(|line| !line.trim().is_empty()).map(crate::intake::plain)
}
