//! What relying parties ask about tokens of jobs, and the change of their key.

use std::sync::Arc;

use andon_line::Line;
use andon_model::event::Role;
use axum::Json;
use axum::extract::State;
use axum::routing::{get, post};
use http::Method;
use serde_json::json;

use crate::answer::Answer;
use crate::door::Door;
use crate::guard::By;

/// A cloud comes without an account.
pub(super) fn doors() -> Vec<Door> {
    vec![
        Door::public(Method::GET, "/.well-known/openid-configuration", get(discovery)),
        Door::public(Method::GET, "/.well-known/jwks.json", get(jwks)),
        Door::new(Method::POST, "/api/v1/identity/rotate", Role::Owner, post(rotate)),
    ]
}

async fn discovery(State(line): State<Arc<Line>>) -> Answer {
    Ok(Json(line.discovery()))
}

async fn jwks(State(line): State<Arc<Line>>) -> Answer {
    Ok(Json(line.jwks()))
}

async fn rotate(State(line): State<Arc<Line>>, By(caller): By) -> Answer {
    let key = line.rotate_identity(&caller).await?;
    Ok(Json(json!({ "keyid": key })))
}
