//! Routers: what they have counted, as Prometheus reads it; and of those apart from the server the table they ask for, the counts they bring. They come with a token of an owner, since a table says where instances are.

use std::sync::Arc;
use std::time::Duration;

use andon_line::Line;
use andon_router::{Delta, Report};
use axum::Json;
use axum::extract::{Query, State};
use serde::Deserialize;
use serde_json::Value;

use crate::answer::{Answer, Trouble, done};

/// How long a router waits at most for something new.
const WAITS: u64 = 20_000;

/// The table that a router holds.
#[derive(Debug, Deserialize)]
pub struct Holds {
    /// The server's process that counted it.
    #[serde(default)]
    boot: String,
    /// Its number.
    #[serde(default)]
    number: u64,
    /// How long to wait for another one, in milliseconds.
    #[serde(default)]
    wait: u64,
}

pub(super) async fn table(State(line): State<Arc<Line>>, Query(holds): Query<Holds>) -> Answer<Delta> {
    let wait = Duration::from_millis(holds.wait.min(WAITS));
    Ok(Json(line.apart.news(&holds.boot, holds.number, wait).await))
}

pub(super) async fn report(
    State(line): State<Arc<Line>>,
    Json(report): Json<Report>,
) -> Result<Json<Value>, Trouble> {
    line.hear_router(report)?;
    Ok(done())
}

/// For Prometheus, with a token of a viewer.
pub(super) async fn metrics(
    State(line): State<Arc<Line>>,
) -> ([(http::HeaderName, &'static str); 1], String) {
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    ([(http::header::CONTENT_TYPE, kind)], andon_router::prometheus::text(&line.signals()))
}
