//! The data plane, for programs.

use std::sync::Arc;

use andon_line::Line;
use andon_line::view;
use axum::Json;
use axum::extract::State;

use crate::answer::Answer;

pub(super) async fn traffic(State(line): State<Arc<Line>>) -> Answer<view::TrafficView> {
    Ok(Json(view::traffic::traffic(&line)))
}
