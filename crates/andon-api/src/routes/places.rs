//! Environments, instances and releases.

use std::sync::Arc;

use andon_line::Line;
use andon_line::stations::release as release_station;
use andon_line::view;
use andon_model::{ChangeId, EnvironmentName, InstanceId, ReleaseId, ServiceName, Span};
use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use serde::Deserialize;
use serde_json::json;

use super::{Why, number};
use crate::answer::{Answer, Trouble, done};
use crate::guard::By;

pub(super) async fn environments(
    State(line): State<Arc<Line>>,
    Path(project): Path<String>,
) -> Answer<view::EnvironmentsView> {
    let project = line.project(&project)?;
    Ok(Json(view::environment::environments(&project, line.now())))
}

pub(super) async fn one_environment(
    State(line): State<Arc<Line>>,
    Path((project, name)): Path<(String, String)>,
) -> Answer<view::EnvironmentView> {
    let project = line.project(&project)?;
    Ok(Json(view::environment::environment(&line, &project, &number(&name)?)?))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewEnvironment {
    name: EnvironmentName,
    like: EnvironmentName,
    ttl: Option<Span>,
}

pub(super) async fn create_environment(
    State(line): State<Arc<Line>>,
    By(caller): By,
    Path(project): Path<String>,
    Json(new): Json<NewEnvironment>,
) -> Answer {
    line.create_environment(&*line.project(&project)?, &caller, new.name, new.like, new.ttl).await?;
    Ok(done())
}

pub(super) async fn destroy_environment(
    State(line): State<Arc<Line>>,
    By(caller): By,
    Path((project, name)): Path<(String, String)>,
    Json(why): Json<Why>,
) -> Answer {
    line.destroy_environment(&*line.project(&project)?, &caller, number(&name)?, false, &why.why).await?;
    Ok(done())
}

pub(super) async fn rebuild_environment(
    State(line): State<Arc<Line>>,
    By(caller): By,
    Path((project, name)): Path<(String, String)>,
    Json(why): Json<Why>,
) -> Answer {
    line.destroy_environment(&*line.project(&project)?, &caller, number(&name)?, true, &why.why).await?;
    Ok(done())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Lasts {
    lasts: Span,
}

pub(super) async fn extend_environment(
    State(line): State<Arc<Line>>,
    By(caller): By,
    Path((project, name)): Path<(String, String)>,
    Json(by): Json<Lasts>,
) -> Answer {
    line.extend_environment(&*line.project(&project)?, &caller, number(&name)?, by.lasts).await?;
    Ok(done())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Deploy {
    change: Option<u32>,
}

pub(super) async fn deploy(
    State(line): State<Arc<Line>>,
    By(caller): By,
    Path((project, name)): Path<(String, String)>,
    Json(what): Json<Deploy>,
) -> Answer {
    let project = line.project(&project)?;
    let deployment = line.deploy(&project, &caller, number(&name)?, what.change.map(ChangeId)).await?;
    Ok(Json(json!({ "deployment": deployment.to_string() })))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OfService {
    service: Option<ServiceName>,
}

pub(super) async fn roll_back(
    State(line): State<Arc<Line>>,
    By(caller): By,
    Path((project, name)): Path<(String, String)>,
    Json(of): Json<OfService>,
) -> Answer {
    let project = line.project(&project)?;
    let release = line.roll_back(&project, &caller, &number(&name)?, of.service.as_ref()).await?;
    Ok(Json(json!({ "release": release.0 })))
}

pub(super) async fn instance_log(
    State(line): State<Arc<Line>>,
    Path((project, instance)): Path<(String, String)>,
) -> Result<Response, Trouble> {
    let project = line.project(&project)?;
    let log = line.instance_log(&project, number::<InstanceId>(&instance)?, 2000).await?;
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], log).into_response())
}

pub(super) async fn releases(
    State(line): State<Arc<Line>>,
    Path(project): Path<String>,
) -> Answer<view::ReleasesView> {
    let project = line.project(&project)?;
    Ok(Json(view::release::releases(&line, &project)))
}

pub(super) async fn one_release(
    State(line): State<Arc<Line>>,
    Path((project, release)): Path<(String, String)>,
) -> Answer<view::ReleaseView> {
    let project = line.project(&project)?;
    Ok(Json(view::release::release(&line, &project, number::<ReleaseId>(&release)?)?))
}

pub(super) async fn move_release(
    State(line): State<Arc<Line>>,
    By(caller): By,
    Path((project, release, command)): Path<(String, String, String)>,
    Json(why): Json<Why>,
) -> Answer {
    use release_station::Command;
    let command = match command.as_str() {
        "promote" => Command::Promote,
        "pause" => Command::Pause,
        "resume" => Command::Resume,
        "approve" => Command::Approve,
        "abort" => Command::Abort,
        _ => {
            return Err(Trouble(
                StatusCode::NOT_FOUND,
                "a release can be promoted, paused, resumed, approved, aborted".into(),
            ));
        }
    };
    line.move_release(&*line.project(&project)?, &caller, number(&release)?, command, &why.why).await?;
    Ok(done())
}
