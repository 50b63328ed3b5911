//! Tests: what is remembered of them, and quarantine.

use std::sync::Arc;

use andon_line::Line;
use andon_line::Refusal;
use andon_line::stations::handouts::{Given, JobScope, Wanted};
use andon_line::view::tests::TestsView;
use andon_model::event::Role;
use axum::Json;
use axum::extract::{DefaultBodyLimit, Extension, Path, State};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use http::{Method, header};
use serde::Deserialize;
use serde_json::{Value, json};

use super::number;
use crate::answer::{Answer, Trouble};
use crate::door::Door;
use crate::guard::By;

/// The longest list of names that a job may send, in bytes.
const LIST: usize = 64 << 20;

/// The doors of tests.
pub(super) fn doors() -> Vec<Door> {
    vec![
        Door::new(Method::GET, "/api/v1/{project}/tests", Role::Viewer, get(show)),
        Door::new(Method::GET, "/api/v1/{project}/tests/history", Role::Viewer, get(history)),
        Door::new(Method::POST, "/api/v1/{project}/tests/quarantine", Role::Developer, post(begin)),
        Door::new(Method::POST, "/api/v1/{project}/tests/quarantine/end", Role::Developer, post(end)),
        Door::new(
            Method::POST,
            "/api/v1/{project}/tests/next",
            Role::Viewer,
            post(next).layer(DefaultBodyLimit::max(LIST)),
        ),
    ]
}

async fn show(State(line): State<Arc<Line>>, Path(project): Path<String>) -> Answer<TestsView> {
    Ok(Json(line.tests_view(&*line.project(&project)?).await?))
}

/// What `andon tests order` reads, for machines that are no runner.
async fn history(
    State(line): State<Arc<Line>>,
    Path(project): Path<String>,
) -> Result<impl IntoResponse, Trouble> {
    let known = line.known_tests(&*line.project(&project)?).await?;
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], known.write()))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Begin {
    test: String,
    owner: Option<String>,
    why: String,
    lasts: String,
}

async fn begin(
    State(line): State<Arc<Line>>,
    By(caller): By,
    Path(project): Path<String>,
    Json(wanted): Json<Begin>,
) -> Answer<Value> {
    let owner = wanted.owner.as_deref().map(number).transpose()?;
    let project = line.project(&project)?;
    let said =
        line.quarantine(&project, &caller, &wanted.test, owner, &wanted.why, number(&wanted.lasts)?).await?;
    Ok(Json(json!({ "said": said })))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct End {
    test: String,
}

async fn end(
    State(line): State<Arc<Line>>,
    By(caller): By,
    Path(project): Path<String>,
    Json(wanted): Json<End>,
) -> Answer<Value> {
    let said = line.end_quarantine(&*line.project(&project)?, &caller, &wanted.test).await?;
    Ok(Json(json!({ "said": said })))
}

/// What a job is to run next. Only a job that runs may ask, by the token that it was given.
async fn next(
    State(line): State<Arc<Line>>,
    Path(project): Path<String>,
    job: Option<Extension<JobScope>>,
    Json(wanted): Json<Wanted>,
) -> Answer<Given> {
    let project = line.project(&project)?;
    let Some(Extension(job)) = job else {
        let why =
            "tests are handed out to jobs while they run\nhint: `andon tests next` in a job of andon.yaml";
        return Err(Refusal::Conflict(why.into()).into());
    };
    Ok(Json(line.next_tests(&project, &job, wanted).await?))
}
