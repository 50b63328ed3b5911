//! What people and programs do with a run: make it once more, answer when they are asked.

use std::sync::Arc;

use andon_line::stations::pipeline::again::Again;
use andon_line::{Line, Refusal};
use andon_model::event::Role;
use andon_model::{JobName, RunId};
use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::{Method, StatusCode, header};
use serde::Deserialize;
use serde_json::json;

use super::{Why, number};
use crate::answer::{Answer, Trouble, done};
use crate::door::Door;
use crate::guard::By;

/// The doors of runs. Who may answer is said by the run itself: an approval may name people who hold no role but to look.
pub(super) fn doors() -> Vec<Door> {
    use Role::{Developer, Viewer};
    vec![
        Door::new(Method::GET, "/api/v1/{project}/runs/{run}/plan", Viewer, get(plan)),
        Door::new(Method::POST, "/api/v1/{project}/runs/{run}/again", Developer, post(again)),
        Door::new(Method::POST, "/api/v1/{project}/runs/{run}/jobs/{job}/approve", Viewer, post(approve)),
        Door::new(Method::POST, "/api/v1/{project}/runs/{run}/jobs/{job}/refuse", Viewer, post(refuse)),
    ]
}

/// The whole plan as it was named: its SHA-256 is its name.
async fn plan(
    State(line): State<Arc<Line>>,
    Path((project, run)): Path<(String, String)>,
) -> Result<Response, Trouble> {
    let (project, run) = (line.project(&project)?, number::<RunId>(&run)?);
    let known = project.state().runs.all.get(&run).map(|run| run.plan.clone());
    let Some(plan) = known.flatten() else {
        return Err(Trouble(StatusCode::NOT_FOUND, format!("there is no plan of {run}")));
    };
    let file = tokio::fs::File::open(line.blobs.path(&plan)).await;
    let file = file.map_err(|error| Trouble::from(Refusal::from(error)))?;
    let body = Body::from_stream(tokio_util::io::ReaderStream::new(file));
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    #[serde(default)]
    jobs: Vec<JobName>,
    #[serde(default)]
    fresh: bool,
}

async fn again(
    State(line): State<Arc<Line>>,
    By(caller): By,
    Path((project, run)): Path<(String, String)>,
    Json(wanted): Json<Wanted>,
) -> Answer {
    let again = Again { run: number::<RunId>(&run)?, jobs: wanted.jobs, fresh: wanted.fresh };
    let made = line.run_again(&*line.project(&project)?, &caller, &again).await?;
    Ok(Json(json!({ "run": made.0 })))
}

async fn approve(
    State(line): State<Arc<Line>>,
    By(caller): By,
    Path((project, run, job)): Path<(String, String, String)>,
    Json(why): Json<Why>,
) -> Answer {
    let about = (number::<RunId>(&run)?, number::<JobName>(&job)?);
    line.answer(&*line.project(&project)?, &caller, about, true, &why.why).await?;
    Ok(done())
}

async fn refuse(
    State(line): State<Arc<Line>>,
    By(caller): By,
    Path((project, run, job)): Path<(String, String, String)>,
    Json(why): Json<Why>,
) -> Answer {
    let about = (number::<RunId>(&run)?, number::<JobName>(&job)?);
    line.answer(&*line.project(&project)?, &caller, about, false, &why.why).await?;
    Ok(done())
}
