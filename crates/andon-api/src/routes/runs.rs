//! What people and programs do with a run: make it once more, answer when they are asked.

use std::sync::Arc;

use andon_line::Line;
use andon_line::stations::pipeline::again::Again;
use andon_model::event::Role;
use andon_model::{JobName, RunId};
use axum::Json;
use axum::extract::{Path, State};
use axum::routing::post;
use http::Method;
use serde::Deserialize;
use serde_json::json;

use super::{Why, number};
use crate::answer::{Answer, done};
use crate::door::Door;
use crate::guard::By;

/// The doors of runs. Who may answer is said by the run itself: an approval may name people who hold no role but to look.
pub(super) fn doors() -> Vec<Door> {
    use Role::{Developer, Viewer};
    vec![
        Door::new(Method::POST, "/api/v1/{project}/runs/{run}/again", Developer, post(again)),
        Door::new(Method::POST, "/api/v1/{project}/runs/{run}/jobs/{job}/approve", Viewer, post(approve)),
        Door::new(Method::POST, "/api/v1/{project}/runs/{run}/jobs/{job}/refuse", Viewer, post(refuse)),
    ]
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
