//! Projects, the wall, the queue, changes, runs and what they leave.

use std::sync::Arc;

use andon_line::Line;
use andon_line::{Refusal, view};
use andon_model::{ChangeId, Digest, ProjectName, RunId};
use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use serde::Deserialize;
use serde_json::json;

use super::{Why, number};
use crate::answer::{Answer, Trouble, done};
use crate::guard::By;

pub(super) async fn healthy() -> &'static str {
    "ready\n"
}

pub(super) async fn projects(State(line): State<Arc<Line>>) -> Answer {
    let one =
        |project: &Arc<andon_line::Project>| json!({ "name": project.name, "trunk": project.state().trunk });
    Ok(Json(line.projects().iter().map(one).collect()))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewProject {
    name: ProjectName,
    #[serde(default = "main")]
    trunk: String,
}

fn main() -> String {
    "main".into()
}

pub(super) async fn create_project(
    State(line): State<Arc<Line>>,
    By(caller): By,
    Json(new): Json<NewProject>,
) -> Answer {
    let project = line.create_project(&caller, new.name, &new.trunk).await?;
    Ok(Json(json!({ "name": project.name, "trunk": new.trunk })))
}

pub(super) async fn queue(
    State(line): State<Arc<Line>>,
    Path(project): Path<String>,
) -> Answer<view::QueueView> {
    let project = line.project(&project)?;
    Ok(Json(view::queue::queue(&project.state(), project.name.as_str(), line.now())))
}

pub(super) async fn one_change(
    State(line): State<Arc<Line>>,
    Path((project, change)): Path<(String, String)>,
) -> Answer<view::ChangeView> {
    let project = line.project(&project)?;
    Ok(Json(line.change_view(&project, number::<ChangeId>(&change)?)?))
}

pub(super) async fn abandon(
    State(line): State<Arc<Line>>,
    By(caller): By,
    Path((project, change)): Path<(String, String)>,
    Json(why): Json<Why>,
) -> Answer {
    line.abandon(&*line.project(&project)?, &caller, number(&change)?, &why.why).await?;
    Ok(done())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Approval {
    #[serde(default)]
    why: String,
    /// The one that was looked at.
    #[serde(default)]
    patch_set: Option<u32>,
}

/// Lets what it makes of `andon.yaml` land.
pub(super) async fn approve(
    State(line): State<Arc<Line>>,
    By(caller): By,
    Path((project, change)): Path<(String, String)>,
    Json(given): Json<Approval>,
) -> Answer {
    let (project, change) = (line.project(&project)?, number(&change)?);
    let patch_set = line.approve_definition(&project, &caller, (change, given.patch_set), &given.why).await?;
    Ok(Json(json!({ "patch_set": patch_set })))
}

pub(super) async fn one_run(
    State(line): State<Arc<Line>>,
    Path((project, run)): Path<(String, String)>,
) -> Answer<view::RunView> {
    let project = line.project(&project)?;
    Ok(Json(line.run_view(&project, number::<RunId>(&run)?).await?))
}

pub(super) async fn test_trunk(
    State(line): State<Arc<Line>>,
    By(caller): By,
    Path(project): Path<String>,
) -> Answer {
    let run = line.test_trunk(&*line.project(&project)?, &caller).await?;
    Ok(Json(json!({ "run": run.0 })))
}

pub(super) async fn artifact(
    State(line): State<Arc<Line>>,
    Path((project, digest)): Path<(String, String)>,
) -> Result<Response, Trouble> {
    let project = line.project(&project)?;
    let digest: Digest = number(&digest)?;
    let known =
        project.state().runs.all.values().any(|run| run.artifact.as_ref().is_some_and(|(d, _)| *d == digest));
    if !known {
        return Err(Trouble(StatusCode::NOT_FOUND, "no run of this project built it".into()));
    }
    let file = tokio::fs::File::open(line.blobs.path(&digest))
        .await
        .map_err(|error| Trouble::from(Refusal::from(error)))?;
    let body = Body::from_stream(tokio_util::io::ReaderStream::new(file));
    let headers = [
        (header::CONTENT_TYPE, "application/x-tar".to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{}.tar\"", &digest.hex()[..12])),
    ];
    Ok((headers, body).into_response())
}

pub(super) async fn wall(
    State(line): State<Arc<Line>>,
    Path(project): Path<String>,
) -> Answer<view::WallView> {
    let project = line.project(&project)?;
    Ok(Json(view::wall::wall(&line, &project)))
}
