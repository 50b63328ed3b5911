//! git over smart HTTP: `http://host/PROJECT.git`. What a push may do is decided by andon-line.

use std::sync::Arc;

use andon_git::serve::{Service, advertise, start};
use andon_line::{Line, Refusal};
use andon_model::event::Role;
use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::{StreamExt, stream};
use http::{HeaderMap, Method, StatusCode, header};
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::io::{ReaderStream, StreamReader};

use crate::answer::Trouble;
use crate::door::Door;
use crate::guard::By;

/// The doors of git.
pub fn doors() -> Vec<Door> {
    let decoded = tower_http::decompression::RequestDecompressionLayer::new();
    let upload = post(upload).layer(decoded.clone());
    let receive = post(receive).layer(decoded);
    let mut doors = vec![
        Door::new(Method::GET, "/{project}/info/refs", Role::Viewer, get(refs)),
        Door::new(Method::POST, "/{project}/git-upload-pack", Role::Viewer, upload).only_reads(),
        Door::new(Method::POST, "/{project}/git-receive-pack", Role::Developer, receive),
    ];
    doors.iter_mut().for_each(|door| door.any_length = true);
    doors
}

#[derive(Debug, Deserialize)]
struct Wanted {
    service: Option<String>,
}

fn name(project: &str) -> &str {
    project.strip_suffix(".git").unwrap_or(project)
}

fn protocol(headers: &HeaderMap) -> Option<&str> {
    headers.get("git-protocol").and_then(|value| value.to_str().ok())
}

async fn refs(
    State(line): State<Arc<Line>>,
    By(caller): By,
    Path(project): Path<String>,
    Query(wanted): Query<Wanted>,
    headers: HeaderMap,
) -> Result<Response, Trouble> {
    let project = line.project(name(&project))?;
    let Some(service) = wanted.service.as_deref().and_then(Service::named) else {
        let why = "only git's smart protocol is spoken here\nhint: use git 2.29 or newer";
        return Err(Trouble(StatusCode::FORBIDDEN, why.into()));
    };
    if service == Service::ReceivePack {
        caller.may(Role::Developer)?;
    }
    let body = advertise(&project.repository, service, protocol(&headers)).await.map_err(Refusal::from)?;
    let kind = format!("application/x-{}-advertisement", service.name());
    Ok(([(header::CONTENT_TYPE, kind)], body).into_response())
}

async fn upload(
    State(line): State<Arc<Line>>,
    Path(project): Path<String>,
    request: Request,
) -> Result<Response, Trouble> {
    let project = line.project(name(&project))?;
    let child = start(&project.repository, Service::UploadPack, protocol(request.headers()), None)
        .map_err(Refusal::from)?;
    converse(child, Service::UploadPack, request.into_body(), ())
}

async fn receive(
    State(line): State<Arc<Line>>,
    By(caller): By,
    Path(project): Path<String>,
    request: Request,
) -> Result<Response, Trouble> {
    let project = line.project(name(&project))?;
    let (way, guard) = line.push_way(&project, &caller);
    let child = start(&project.repository, Service::ReceivePack, protocol(request.headers()), Some(&way))
        .map_err(Refusal::from)?;
    converse(child, Service::ReceivePack, request.into_body(), guard)
}

/// The body flows into git while its answer flows out. `kept` lives as long as the conversation.
fn converse(
    mut child: tokio::process::Child,
    service: Service,
    body: Body,
    kept: impl Send + 'static,
) -> Result<Response, Trouble> {
    let broken = || Trouble(StatusCode::INTERNAL_SERVER_ERROR, "git could not be spoken to".into());
    let mut stdin = child.stdin.take().ok_or_else(broken)?;
    let stdout = child.stdout.take().ok_or_else(broken)?;
    let stderr = child.stderr.take().ok_or_else(broken)?;
    tokio::spawn(async move {
        let bytes = body.into_data_stream().map(|chunk| chunk.map_err(std::io::Error::other));
        // git closes its end as soon as it has heard enough.
        let _ = tokio::io::copy(&mut StreamReader::new(bytes), &mut stdin).await;
        let _ = stdin.shutdown().await;
    });
    tokio::spawn(async move {
        let mut words = String::new();
        let _ = stderr.take(4096).read_to_string(&mut words).await;
        if !words.trim().is_empty() {
            tracing::debug!(service = service.name(), words = words.trim(), "git");
        }
    });
    let flow = stream::unfold((ReaderStream::new(stdout), child, kept), async |(mut out, child, kept)| {
        let chunk = out.next().await?;
        Some((chunk, (out, child, kept)))
    });
    let kind = format!("application/x-{}-result", service.name());
    Ok(([(header::CONTENT_TYPE, kind)], Body::from_stream(flow)).into_response())
}
