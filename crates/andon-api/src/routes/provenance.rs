//! What the server vouches for, and the keys that verify it.

use std::sync::Arc;

use andon_line::Line;
use andon_line::view::provenance::AttestationsView;
use andon_model::event::{KeyPurpose, Role};
use andon_model::{Digest, RunId};
use axum::Json;
use axum::extract::{Path, State};
use axum::routing::{get, post};
use http::Method;
use serde_json::json;

use super::number;
use crate::answer::Answer;
use crate::door::Door;
use crate::guard::By;

/// Public keys are for everyone: whoever has an artifact can tell where it comes from without an account.
pub(super) fn doors() -> Vec<Door> {
    use Role::{Owner, Viewer};
    let read = |path, handler| Door::new(Method::GET, path, Viewer, handler);
    vec![
        Door::public(Method::GET, "/api/v1/provenance/keys", get(keys)),
        Door::new(Method::POST, "/api/v1/provenance/rotate", Owner, post(rotate)),
        read("/api/v1/{project}/runs/{run}/attestations", get(of_run)),
        read("/api/v1/{project}/artifacts/{digest}/attestations", get(of_artifact)),
    ]
}

async fn keys(State(line): State<Arc<Line>>) -> Answer {
    let keys = line.keys();
    let keys: Vec<_> = keys
        .of(KeyPurpose::Provenance)
        .map(|key| {
            json!({
                "keyid": key.id, "builder": key.builder, "pem": key.public.pem(),
                "since": key.since.rfc3339(), "until": key.until.map(|until| until.rfc3339()),
            })
        })
        .collect();
    Ok(Json(json!({ "keys": keys })))
}

async fn rotate(State(line): State<Arc<Line>>, By(caller): By) -> Answer {
    let key = line.rotate_key(&caller, KeyPurpose::Provenance).await?;
    Ok(Json(json!({ "keyid": key })))
}

async fn of_run(
    State(line): State<Arc<Line>>,
    Path((project, run)): Path<(String, String)>,
) -> Answer<AttestationsView> {
    let project = line.project(&project)?;
    Ok(Json(line.attestations(&project, number::<RunId>(&run)?).await?))
}

async fn of_artifact(
    State(line): State<Arc<Line>>,
    Path((project, digest)): Path<(String, String)>,
) -> Answer<AttestationsView> {
    let project = line.project(&project)?;
    let run = line.run_of_artifact(&project, &number::<Digest>(&digest)?)?;
    Ok(Json(line.attestations(&project, run).await?))
}
