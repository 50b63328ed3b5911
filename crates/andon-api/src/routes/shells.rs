//! Break-glass: a shell inside an instance over an upgraded connection, the list of shells, their recordings.

use std::sync::Arc;

use andon_line::stations::environment::shell::{NewShell, OpenShell};
use andon_line::{Line, view};
use andon_model::InstanceId;
use andon_model::event::Role;
use andon_runtime::Terminal;
use axum::Json;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::{HeaderValue, Method, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio_util::io::ReaderStream;

use super::number;
use crate::answer::{Answer, Trouble};
use crate::door::Door;
use crate::guard::By;
use crate::shell;

/// The largest order, in bytes.
const ORDER: usize = 256 * 1024;

/// The doors.
pub(super) fn doors() -> Vec<Door> {
    let open = "/api/v1/{project}/environments/{environment}/shell";
    let recording = "/api/v1/{project}/shells/{shell}/recording";
    vec![
        Door::new(Method::POST, open, Role::Owner, post(open_shell)),
        Door::new(Method::GET, "/api/v1/{project}/shells", Role::Viewer, get(shells)),
        Door::new(Method::GET, recording, Role::Owner, get(self::recording)),
    ]
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    instance: Option<String>,
    why: String,
    #[serde(default)]
    command: Vec<String>,
    terminal: Option<Terminal>,
}

async fn open_shell(
    State(line): State<Arc<Line>>,
    By(caller): By,
    Path((project, name)): Path<(String, String)>,
    mut request: Request,
) -> Result<Response, Trouble> {
    let wanted = request.headers().get(header::UPGRADE).is_some_and(|value| value == shell::NAME);
    let upgrade = hyper::upgrade::on(&mut request);
    let bad = |error: &dyn std::fmt::Display| Trouble(StatusCode::BAD_REQUEST, error.to_string());
    // Read in any case: a connection whose request was left half read is of no use to its client.
    let body = axum::body::to_bytes(request.into_body(), ORDER).await.map_err(|error| bad(&error))?;
    if !wanted {
        let words = "a shell needs a connection of its own\nhint: `andon env shell`, or ask with `Connection: upgrade` and `Upgrade: andon-shell`";
        return Err(Trouble(StatusCode::UPGRADE_REQUIRED, words.into()));
    }
    let order: Order = serde_json::from_slice(&body).map_err(|error| bad(&error))?;
    let instance: Option<InstanceId> = order.instance.as_deref().map(number).transpose()?;
    let Order { why, command, terminal, .. } = order;
    let new = NewShell { instance, why, command, terminal };
    let project = line.project(&project)?;
    let OpenShell { id, instance, shell: opened } =
        line.open_shell(&project, &caller, number(&name)?, new).await?;
    tokio::spawn(async move {
        match upgrade.await {
            Ok(connection) => {
                if let Err(error) = shell::carry(TokioIo::new(connection), opened).await {
                    tracing::info!(shell = %id, %error, "whoever had it open went away");
                }
            }
            // Dropped, the shell ends.
            Err(error) => tracing::info!(shell = %id, %error, "the connection was not made"),
        }
    });
    let said = |text: String| HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""));
    let mut answer = StatusCode::SWITCHING_PROTOCOLS.into_response();
    let headers = answer.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static(shell::NAME));
    headers.insert("andon-shell", said(id.to_string()));
    headers.insert("andon-instance", said(instance.to_string()));
    Ok(answer)
}

async fn shells(State(line): State<Arc<Line>>, Path(project): Path<String>) -> Answer<view::ShellsView> {
    Ok(Json(view::shells::shells(&line, &*line.project(&project)?)))
}

async fn recording(
    State(line): State<Arc<Line>>,
    By(caller): By,
    Path((project, shell)): Path<(String, String)>,
) -> Result<Response, Trouble> {
    let project = line.project(&project)?;
    let (path, name) = line.shell_recording(&project, &caller, number(&shell)?)?;
    let file = tokio::fs::File::open(path).await;
    let file =
        file.map_err(|error| Trouble(StatusCode::NOT_FOUND, format!("the recording is not there: {error}")))?;
    let headers = [
        (header::CONTENT_TYPE, "application/x-asciicast".to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{name}\"")),
    ];
    Ok((headers, axum::body::Body::from_stream(ReaderStream::new(file))).into_response())
}
