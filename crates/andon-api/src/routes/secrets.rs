//! Secrets: set, removed, listed. No door gives a value back.

use std::sync::Arc;

use andon_line::{Line, view};
use andon_model::event::Role;
use axum::Json;
use axum::extract::{Path, State};
use axum::routing::{delete, get, post};
use http::Method;
use serde::Deserialize;

use super::number;
use crate::answer::{Answer, done};
use crate::door::Door;
use crate::guard::By;

/// The doors of secrets.
pub(super) fn doors() -> Vec<Door> {
    let one = "/api/v1/{project}/secrets/{secret}";
    vec![
        Door::new(Method::GET, "/api/v1/{project}/secrets", Role::Developer, get(show)),
        Door::new(Method::POST, one, Role::Owner, post(set)),
        Door::new(Method::DELETE, one, Role::Owner, delete(remove)),
    ]
}

async fn show(
    State(line): State<Arc<Line>>,
    Path(project): Path<String>,
) -> Answer<view::secrets::SecretsView> {
    let project = line.project(&project)?;
    Ok(Json(view::secrets::secrets(&line, &project)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Value {
    value: String,
    #[serde(default)]
    environments: Vec<String>,
    #[serde(default)]
    unlanded: bool,
}

async fn set(
    State(line): State<Arc<Line>>,
    By(caller): By,
    Path((project, secret)): Path<(String, String)>,
    Json(wanted): Json<Value>,
) -> Answer {
    let project = line.project(&project)?;
    let environments = wanted.environments.iter().map(|name| number(name)).collect::<Result<_, _>>()?;
    line.set_secret(&project, &caller, number(&secret)?, &wanted.value, environments, wanted.unlanded)
        .await?;
    Ok(done())
}

async fn remove(
    State(line): State<Arc<Line>>,
    By(caller): By,
    Path((project, secret)): Path<(String, String)>,
) -> Answer {
    let project = line.project(&project)?;
    line.remove_secret(&project, &caller, number(&secret)?).await?;
    Ok(done())
}
