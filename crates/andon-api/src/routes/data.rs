//! Databases of environments: what there is, and a new template.

use std::sync::Arc;

use andon_line::{Line, view};
use andon_model::event::Role;
use axum::Json;
use axum::extract::{Path, State};
use axum::routing::{get, post};
use http::Method;
use serde::Deserialize;

use super::number;
use crate::answer::{Answer, done};
use crate::door::Door;
use crate::guard::By;

/// The doors of data.
pub(super) fn doors() -> Vec<Door> {
    vec![
        Door::new(Method::GET, "/api/v1/{project}/data", Role::Viewer, get(show)),
        Door::new(Method::POST, "/api/v1/{project}/data/{database}/refresh", Role::Deployer, post(refresh)),
    ]
}

async fn show(State(line): State<Arc<Line>>, Path(project): Path<String>) -> Answer<view::data::DataView> {
    let project = line.project(&project)?;
    Ok(Json(view::data::data(&line, &project)))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct From {
    from: String,
}

async fn refresh(
    State(line): State<Arc<Line>>,
    By(caller): By,
    Path((project, database)): Path<(String, String)>,
    Json(what): Json<From>,
) -> Answer {
    let project = line.project(&project)?;
    line.refresh_data(&project, &caller, number(&database)?, number(&what.from)?).await?;
    Ok(done())
}
