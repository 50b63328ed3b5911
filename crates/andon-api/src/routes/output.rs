//! The output of jobs: whole, as it grows, or only the lines that hold a text. Nothing is read further ahead than whoever listens takes it.

use std::sync::Arc;

use andon_line::view::Output;
use andon_line::{Line, Project, Refusal, view};
use andon_model::{JobName, RunId};
use andon_pipeline::JobState;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use http::header;
use serde::Deserialize;

use super::number;
use crate::answer::Trouble;

/// Bytes read ahead of whoever listens.
const PIECE: usize = 256 * 1024;
/// Pieces read ahead.
const AHEAD: usize = 4;
/// Lines that are found at most.
const FOUND: usize = 100_000;
/// Between two looks at an output that grows.
const LOOK: std::time::Duration = std::time::Duration::from_millis(100);

type Pieces = tokio_stream::wrappers::ReceiverStream<std::io::Result<bytes::Bytes>>;

/// What is wanted of an output.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// From this byte on.
    #[serde(default)]
    at: u64,
    /// Until the job is over.
    #[serde(default)]
    follow: bool,
    /// Only lines that hold this text, each behind its number.
    find: Option<String>,
}

pub(super) async fn log(
    State(line): State<Arc<Line>>,
    Path((project, run, job)): Path<(String, String, String)>,
    Query(wanted): Query<Wanted>,
) -> Result<Response, Trouble> {
    let project = line.project(&project)?;
    let (run, job) = (number::<RunId>(&run)?, number::<JobName>(&job)?);
    let output = line.log(&project, run, &job)?;
    let body = match (&wanted.find, wanted.follow) {
        (Some(text), _) => found(output, text.clone(), wanted.at).await?,
        (None, false) => Body::from_stream(whole(output, wanted.at)),
        (None, true) => Body::from_stream(growing(line, project, (run, job), wanted.at)),
    };
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], body).into_response())
}

/// All that is there now.
fn whole(output: Output, at: u64) -> Pieces {
    let (sender, pieces) = tokio::sync::mpsc::channel(AHEAD);
    tokio::task::spawn_blocking(move || {
        let mut at = at;
        let mut log = match output.open() {
            Ok(log) => log,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
            Err(error) => return drop(sender.blocking_send(Err(error))),
        };
        loop {
            match log.read(at, PIECE) {
                Ok(piece) if piece.is_empty() => return,
                Ok(piece) => {
                    at += piece.len() as u64;
                    // Whoever listened is gone: nobody needs the rest.
                    if sender.blocking_send(Ok(piece.into())).is_err() {
                        return;
                    }
                }
                Err(error) => return drop(sender.blocking_send(Err(error))),
            }
        }
    });
    Pieces::new(pieces)
}

/// The same, and on until the job is over. Another attempt is another output: it is not followed.
fn growing(line: Arc<Line>, project: Arc<Project>, (run, job): (RunId, JobName), at: u64) -> Pieces {
    let (sender, pieces) = tokio::sync::mpsc::channel(AHEAD);
    tokio::spawn(async move {
        use tokio_stream::StreamExt;
        let attempt = || {
            project
                .state()
                .runs
                .all
                .get(&run)
                .and_then(|run| run.job(&job))
                .map(|job| (job.attempts, matches!(job.state, JobState::Running { .. })))
        };
        let Some((first, _)) = attempt() else { return };
        let mut at = at;
        loop {
            // Whether it still runs is asked before the rest is read: what comes between is read in the next turn.
            let running = attempt().is_some_and(|(attempt, running)| attempt == first && running);
            let Ok(output) = line.log(&project, run, &job) else { return };
            let mut more = whole(output, at);
            while let Some(piece) = more.next().await {
                at += piece.as_ref().map_or(0, |piece| piece.len() as u64);
                if sender.send(piece).await.is_err() {
                    return;
                }
            }
            if !running {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    });
    Pieces::new(pieces)
}

async fn found(output: Output, text: String, at: u64) -> Result<Body, Trouble> {
    let search = move || -> std::io::Result<String> {
        let mut log = output.open()?;
        let from = log.line_of(at)?;
        let lines = log.find(text.as_bytes(), from, FOUND)?;
        let shown = |(place, line): &(view::Place, Vec<u8>)| {
            format!("{}: {}\n", place.line, String::from_utf8_lossy(line))
        };
        Ok(lines.iter().map(shown).collect())
    };
    let found =
        tokio::task::spawn_blocking(search).await.map_err(|error| Refusal::Broken(error.to_string()))?;
    Ok(Body::from(found.map_err(Refusal::from)?))
}
