//! OpenFeature's remote evaluation: `/PROJECT/ofrep/v1/evaluate/flags[/KEY]`, with ETag, and notices of changes. What an answer looks like
//! is decided in andon-flags.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use andon_flags::ofrep::{self, Answer as FlagAnswer};
use andon_line::Line;
use andon_model::Event as Happened;
use andon_model::event::Role;
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::response::sse::{Event, KeepAlive};
use axum::response::{IntoResponse, Response, Sse};
use axum::routing::{get, post};
use futures_util::{Stream, stream};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde::Deserialize;
use tokio::sync::broadcast::error::RecvError;

use crate::answer::Trouble;
use crate::door::Door;

/// The doors of OFREP.
pub fn doors() -> Vec<Door> {
    vec![
        Door::new(Method::POST, "/{project}/ofrep/v1/evaluate/flags", Role::Viewer, post(bulk)).only_reads(),
        Door::new(Method::POST, "/{project}/ofrep/v1/evaluate/flags/{*key}", Role::Viewer, post(single))
            .only_reads(),
        Door::new(Method::GET, "/{project}/ofrep/v1/notices", Role::Viewer, get(notices)),
    ]
}

async fn single(
    State(line): State<Arc<Line>>,
    Path((project, key)): Path<(String, String)>,
    body: Bytes,
) -> Result<Response, Trouble> {
    let project = line.project(&project)?;
    let context = match ofrep::request(&body, Some(&key)) {
        Ok(context) => context,
        Err(failure) => return Ok(answer(failure.status(), &FlagAnswer::Failure(failure))),
    };
    let flags = project.state().flags.clone();
    let (status, said) = ofrep::single(&flags, &key, &context, line.now());
    Ok(answer(status, &said))
}

fn answer(status: u16, said: &FlagAnswer<'_>) -> Response {
    (StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), Json(said)).into_response()
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Heard {
    flag_config_etag: Option<String>,
}

async fn bulk(
    State(line): State<Arc<Line>>,
    Path(project): Path<String>,
    Query(heard): Query<Heard>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Trouble> {
    let project = line.project(&project)?;
    let context = match ofrep::request(&body, None) {
        Ok(context) => context,
        Err(failure) => return Ok(answer(failure.status(), &FlagAnswer::Failure(failure))),
    };
    let (flags, now) = (project.state().flags.clone(), line.now());
    let stream = format!("/{}/ofrep/v1/notices", project.name);
    let etag = ofrep::etag(&flags, &context, now, Some(&stream));
    let tag = HeaderValue::from_str(&etag).unwrap_or(HeaderValue::from_static("\"\""));
    let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    if ofrep::not_modified(known, heard.flag_config_etag.as_deref(), &flags, &etag) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response());
    }
    Ok(([(header::ETAG, tag)], Json(ofrep::bulk(&flags, &context, now, Some(&stream)))).into_response())
}

/// A notice for each change of a flag; clients ask again then.
async fn notices(
    State(line): State<Arc<Line>>,
    Path(project): Path<String>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Trouble> {
    let project = line.project(&project)?;
    let flow = stream::unfold((line.news(), project), async |(mut news, project)| {
        loop {
            let changed = match news.recv().await {
                Ok(event) => {
                    event.project.as_ref() == Some(&project.name)
                        && matches!(event.event, Happened::FlagChanged { .. })
                }
                Err(RecvError::Lagged(_)) => true,
                Err(RecvError::Closed) => return None,
            };
            if changed {
                let notice = {
                    let state = project.state();
                    let event = Event::default().event("message").id(ofrep::config_etag(&state.flags));
                    event.json_data(ofrep::notice(&state.flags)).ok()
                };
                return Some((Ok(notice?), (news, project)));
            }
        }
    });
    Ok(Sse::new(flow).keep_alive(KeepAlive::new().interval(Duration::from_secs(15))))
}
