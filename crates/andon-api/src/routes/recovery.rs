//! Backups and disaster drills.

use std::sync::Arc;

use andon_line::Line;
use andon_line::view;
use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::header;
use serde_json::json;
use tokio_util::io::ReaderStream;

use crate::answer::{Answer, Trouble};
use crate::guard::By;

pub(super) async fn recovery(State(line): State<Arc<Line>>) -> Answer<view::RecoveryView> {
    Ok(Json(view::recovery::recovery(&line)))
}

pub(super) async fn back_up(State(line): State<Arc<Line>>, By(caller): By) -> Answer {
    Ok(Json(json!(line.back_up(&caller).await?)))
}

pub(super) async fn backup(
    State(line): State<Arc<Line>>,
    By(caller): By,
    Path(name): Path<String>,
) -> Result<Response, Trouble> {
    let file = tokio::fs::File::from_std(line.backup_file(&caller, &name)?);
    let body = Body::from_stream(ReaderStream::new(file));
    Ok(([(header::CONTENT_TYPE, "application/x-tar")], body).into_response())
}

pub(super) async fn drill(State(line): State<Arc<Line>>, By(caller): By) -> Answer {
    // Of its own: a caller that goes away does not cut it off.
    let held = tokio::spawn(async move { line.drill(&caller).await }).await;
    let held = held.map_err(|error| andon_line::Refusal::Broken(error.to_string()))??;
    Ok(Json(json!(held)))
}
