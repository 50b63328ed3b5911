//! Runs of the infrastructure tool: asked for, looked at, heard, approved, stopped, and what they left. States have doors of their own.

use std::sync::Arc;

use andon_line::Line;
use andon_line::view;
use andon_model::InfraRunId;
use andon_model::event::{InfraAction, Role};
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::{Method, header};
use serde::Deserialize;
use serde_json::json;

use super::number;
use crate::answer::{Answer, Trouble, done};
use crate::door::Door;
use crate::guard::By;

/// The doors of runs.
pub(super) fn doors() -> Vec<Door> {
    use Role::{Deployer, Developer, Viewer};
    vec![
        Door::new(Method::POST, "/api/v1/{project}/infrastructure/{environment}/plan", Developer, post(plan)),
        Door::new(
            Method::POST,
            "/api/v1/{project}/infrastructure/{environment}/apply",
            Deployer,
            post(apply),
        ),
        Door::new(
            Method::POST,
            "/api/v1/{project}/infrastructure/{environment}/stop",
            Deployer,
            post(stop_first),
        ),
        Door::new(
            Method::POST,
            "/api/v1/{project}/infrastructure/{environment}/forget",
            Deployer,
            post(forget),
        ),
        Door::new(Method::GET, "/api/v1/{project}/infrastructure-runs/{run}", Viewer, get(one_plan)),
        Door::new(Method::GET, "/api/v1/{project}/infrastructure-runs/{run}/log", Deployer, get(log)),
        Door::new(
            Method::POST,
            "/api/v1/{project}/infrastructure-runs/{run}/approve",
            Deployer,
            post(approve),
        ),
        Door::new(Method::POST, "/api/v1/{project}/infrastructure-runs/{run}/stop", Deployer, post(stop)),
    ]
}

async fn plan(
    State(line): State<Arc<Line>>,
    By(caller): By,
    Path((project, environment)): Path<(String, String)>,
) -> Answer {
    let (project, name) = (line.project(&project)?, number(&environment)?);
    let run = line.run_infrastructure(&project, &caller, &name, InfraAction::Plan).await?;
    Ok(Json(json!({ "run": run.to_string() })))
}

async fn apply(
    State(line): State<Arc<Line>>,
    By(caller): By,
    Path((project, environment)): Path<(String, String)>,
) -> Answer {
    let (project, name) = (line.project(&project)?, number(&environment)?);
    let run = line.run_infrastructure(&project, &caller, &name, InfraAction::Apply).await?;
    Ok(Json(json!({ "run": run.to_string() })))
}

async fn one_plan(
    State(line): State<Arc<Line>>,
    Path((project, run)): Path<(String, String)>,
) -> Answer<view::InfraRunView> {
    let (project, run) = (line.project(&project)?, number::<InfraRunId>(&run)?);
    let plan = line.infrastructure_plan(&project, run).await?;
    Ok(Json(view::infrastructure::run(&project, run, plan, line.now())?))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Part {
    /// Bytes that the reader has.
    #[serde(default)]
    from: usize,
    /// Also a last line that is not ended.
    #[serde(default = "yes")]
    whole: bool,
}

const fn yes() -> bool {
    true
}

async fn log(
    State(line): State<Arc<Line>>,
    Path((project, run)): Path<(String, String)>,
    Query(part): Query<Part>,
) -> Result<Response, Trouble> {
    let project = line.project(&project)?;
    let mut log = line.infrastructure_log(&project, number::<InfraRunId>(&run)?).await?;
    if !part.whole {
        log.truncate(log.rfind('\n').map_or(0, |end| end + 1));
    }
    // Somewhere inside of a character: the reader has read another log, and gets all of this one.
    let rest = log.get(part.from.min(log.len())..).map_or_else(|| log.clone(), str::to_owned);
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], rest).into_response())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Approve {
    environment: String,
    #[serde(default)]
    why: String,
}

async fn approve(
    State(line): State<Arc<Line>>,
    By(caller): By,
    Path((project, run)): Path<(String, String)>,
    Json(what): Json<Approve>,
) -> Answer {
    let (project, run) = (line.project(&project)?, number::<InfraRunId>(&run)?);
    let missing = line.approve_infrastructure(&project, &caller, run, &what.environment, &what.why).await?;
    Ok(Json(json!({ "run": run.to_string(), "missing": missing })))
}

async fn stop(
    State(line): State<Arc<Line>>,
    By(caller): By,
    Path((project, run)): Path<(String, String)>,
) -> Answer {
    line.stop_infrastructure(&*line.project(&project)?, &caller, number::<InfraRunId>(&run)?).await?;
    Ok(done())
}

async fn stop_first(
    State(line): State<Arc<Line>>,
    By(caller): By,
    Path((project, environment)): Path<(String, String)>,
) -> Answer {
    let (project, name) = (line.project(&project)?, number(&environment)?);
    let run = line.stop_infrastructure_of(&project, &caller, &name).await?;
    Ok(Json(json!({ "run": run.to_string() })))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Forget {
    address: String,
    why: String,
}

async fn forget(
    State(line): State<Arc<Line>>,
    By(caller): By,
    Path((project, environment)): Path<(String, String)>,
    Json(what): Json<Forget>,
) -> Answer {
    let (project, name) = (line.project(&project)?, number(&environment)?);
    line.forget_lost(&project, &caller, &name, &what.address, &what.why).await?;
    Ok(done())
}
