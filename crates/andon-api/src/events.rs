//! The journal as it grows: one event stream per project (SSE), and the whole of it by pages.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use andon_line::Line;
use andon_model::{ProjectName, Recorded};
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::response::Sse;
use axum::response::sse::{Event, KeepAlive};
use futures_util::{Stream, stream};
use serde::Deserialize;
use tokio::sync::broadcast::error::RecvError;

use crate::answer::{Answer, Trouble};

/// Events in one page at most.
const PAGE: u32 = 1000;

#[derive(Debug, Deserialize)]
pub(crate) struct After {
    after: Option<u64>,
}

/// Everything that is recorded in the project from now on, as `event: journal`, and `event: reload` when the listener fell behind.
pub(crate) async fn stream(
    State(line): State<Arc<Line>>,
    Path(project): Path<String>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Trouble> {
    let project = line.project(&project)?.name.clone();
    let flow = stream::unfold((line.news(), project), async |(mut news, project)| {
        let event = next(&mut news, &project).await?;
        Some((Ok(event), (news, project)))
    });
    Ok(Sse::new(flow).keep_alive(KeepAlive::new().interval(Duration::from_secs(15))))
}

async fn next(
    news: &mut tokio::sync::broadcast::Receiver<Arc<Recorded>>,
    project: &ProjectName,
) -> Option<Event> {
    loop {
        match news.recv().await {
            Ok(recorded) if recorded.project.as_ref() == Some(project) => {
                let event = Event::default().event("journal").id(recorded.seq.to_string());
                return event.json_data(&*recorded).ok();
            }
            Ok(_) => {}
            Err(RecvError::Lagged(_)) => return Some(Event::default().event("reload").data("behind")),
            Err(RecvError::Closed) => return None,
        }
    }
}

/// The project's events after a place in the journal, oldest first.
pub(crate) async fn journal(
    State(line): State<Arc<Line>>,
    Path(project): Path<String>,
    Query(from): Query<After>,
) -> Answer<Vec<Recorded>> {
    let project = line.project(&project)?.name.clone();
    let mut after = from.after.unwrap_or(0);
    let mut found = Vec::new();
    loop {
        let page = line.history(after, PAGE).await.map_err(Trouble::from)?;
        let Some(last) = page.last() else { break };
        after = last.seq;
        let whole = page.len() < PAGE as usize;
        found.extend(page.into_iter().filter(|recorded| recorded.project.as_ref() == Some(&project)));
        if whole || found.len() >= PAGE as usize {
            break;
        }
    }
    Ok(Json(found))
}
