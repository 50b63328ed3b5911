//! Environments: what is in them, what people ask of them.

use std::sync::Arc;

use andon_line::Line;
use andon_line::stations::environment::commands;
use andon_line::view;
use andon_model::{ChangeId, EnvironmentName, ServiceName, Span};
use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::json;

use super::{Why, number};
use crate::answer::{Answer, done};
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
    name: Option<EnvironmentName>,
    like: Option<EnvironmentName>,
    ttl: Option<Span>,
    change: Option<u32>,
}

pub(super) async fn create_environment(
    State(line): State<Arc<Line>>,
    By(caller): By,
    Path(project): Path<String>,
    Json(new): Json<NewEnvironment>,
) -> Answer {
    let NewEnvironment { name, like, ttl, change } = new;
    let wanted = commands::NewEnvironment { name, like, lasts: ttl, change: change.map(ChangeId) };
    let name = line.create_environment(&*line.project(&project)?, &caller, wanted).await?;
    Ok(Json(json!({ "environment": name })))
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

pub(super) async fn compare(
    State(line): State<Arc<Line>>,
    Path((project, here, there)): Path<(String, String, String)>,
) -> Answer<view::ParityView> {
    let project = line.project(&project)?;
    Ok(Json(view::parity::parity(&line, &project, &number(&here)?, &number(&there)?)?))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Scale {
    service: ServiceName,
    replicas: Option<u32>,
}

pub(super) async fn scale(
    State(line): State<Arc<Line>>,
    By(caller): By,
    Path((project, name)): Path<(String, String)>,
    Json(to): Json<Scale>,
) -> Answer {
    line.scale(&*line.project(&project)?, &caller, number(&name)?, to.service, to.replicas).await?;
    Ok(done())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Hold {
    why: Option<String>,
}

pub(super) async fn hold(
    State(line): State<Arc<Line>>,
    By(caller): By,
    Path((project, name)): Path<(String, String)>,
    Json(hold): Json<Hold>,
) -> Answer {
    let project = line.project(&project)?;
    line.hold_environment(&project, &caller, number(&name)?, hold.why.as_deref()).await?;
    Ok(done())
}
