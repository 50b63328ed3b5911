//! The JSON doors: what programs and the command line read and command. Each handler is one call into andon-line.

use std::sync::Arc;

use andon_line::line::Line;
use andon_line::refusal::role;
use andon_line::{Refusal, view};
use andon_model::event::Role;
use andon_model::{ChangeId, Digest, ProjectName, RunId, Span, UserName};
use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use http::{Method, StatusCode, header};
use serde::Deserialize;
use serde_json::json;

use crate::answer::{Answer, Trouble, done};
use crate::door::Door;
use crate::events;
use crate::guard::By;

/// The doors of the API.
pub fn doors() -> Vec<Door> {
    use Role::{Developer, Owner, Viewer};
    let read = |path, handler| Door::new(Method::GET, path, Viewer, handler);
    let change = |path, needs, handler| Door::new(Method::POST, path, needs, handler);
    vec![
        Door::public(Method::GET, "/healthz", get(healthy)),
        Door::public(Method::POST, "/api/v1/enter", post(enter)),
        read("/api/v1/me", get(me)),
        read("/api/v1/projects", get(projects)),
        change("/api/v1/projects", Owner, post(create_project)),
        read("/api/v1/{project}/queue", get(queue)),
        read("/api/v1/{project}/changes/{change}", get(one_change)),
        change("/api/v1/{project}/changes/{change}/abandon", Developer, post(abandon)),
        read("/api/v1/{project}/runs/{run}", get(one_run)),
        change("/api/v1/{project}/runs", Developer, post(test_trunk)),
        read("/api/v1/{project}/runs/{run}/jobs/{job}/log", get(log)),
        read("/api/v1/{project}/artifacts/{digest}", get(artifact)),
        read("/api/v1/{project}/events", get(events::stream)),
        read("/api/v1/{project}/journal", get(events::journal)),
        read("/api/v1/users", get(users)),
        change("/api/v1/users", Viewer, post(set_user)),
        change("/api/v1/tokens", Viewer, post(issue)),
        Door::new(Method::DELETE, "/api/v1/tokens/{digest}", Viewer, delete(revoke)),
    ]
}

async fn healthy() -> &'static str {
    "ready\n"
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Once {
    once: String,
}

/// The owner link for programs: a session's secret, to be used as a token.
async fn enter(State(line): State<Arc<Line>>, Json(link): Json<Once>) -> Answer {
    Ok(Json(json!({ "token": line.enter(&link.once).await? })))
}

async fn me(By(caller): By) -> Answer {
    let roles: Vec<&str> = caller.roles.iter().map(role).collect();
    Ok(Json(json!({ "user": caller.user, "roles": roles })))
}

async fn projects(State(line): State<Arc<Line>>) -> Answer {
    let one = |project: &Arc<andon_line::Project>| json!({ "name": project.name, "trunk": project.state().trunk });
    Ok(Json(line.projects().iter().map(one).collect()))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewProject {
    name: ProjectName,
    #[serde(default = "main")]
    trunk: String,
}

fn main() -> String {
    "main".into()
}

async fn create_project(State(line): State<Arc<Line>>, By(caller): By, Json(new): Json<NewProject>) -> Answer {
    let project = line.create_project(&caller, new.name, &new.trunk).await?;
    Ok(Json(json!({ "name": project.name, "trunk": new.trunk })))
}

async fn queue(State(line): State<Arc<Line>>, Path(project): Path<String>) -> Answer<view::QueueView> {
    let project = line.project(&project)?;
    Ok(Json(view::queue::queue(&project.state(), project.name.as_str(), line.now())))
}

fn number<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, Trouble> {
    text.parse().map_err(|error: T::Err| Trouble(StatusCode::BAD_REQUEST, error.to_string()))
}

async fn one_change(
    State(line): State<Arc<Line>>,
    Path((project, change)): Path<(String, String)>,
) -> Answer<view::ChangeView> {
    let project = line.project(&project)?;
    Ok(Json(line.change_view(&project, number::<ChangeId>(&change)?)?))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Why {
    #[serde(default)]
    pub(crate) why: String,
}

async fn abandon(
    State(line): State<Arc<Line>>,
    By(caller): By,
    Path((project, change)): Path<(String, String)>,
    Json(why): Json<Why>,
) -> Answer {
    line.abandon(&*line.project(&project)?, &caller, number(&change)?, &why.why).await?;
    Ok(done())
}

async fn one_run(State(line): State<Arc<Line>>, Path((project, run)): Path<(String, String)>) -> Answer<view::RunView> {
    let project = line.project(&project)?;
    Ok(Json(line.run_view(&project, number::<RunId>(&run)?).await?))
}

async fn test_trunk(State(line): State<Arc<Line>>, By(caller): By, Path(project): Path<String>) -> Answer {
    let run = line.test_trunk(&*line.project(&project)?, &caller).await?;
    Ok(Json(json!({ "run": run.0 })))
}

async fn log(
    State(line): State<Arc<Line>>,
    Path((project, run, job)): Path<(String, String, String)>,
) -> Result<Response, Trouble> {
    let project = line.project(&project)?;
    let file = line.log_file(&project, number::<RunId>(&run)?, &number(&job)?)?;
    let file = tokio::fs::File::open(file).await.map_err(|error| Trouble::from(Refusal::from(error)))?;
    let body = Body::from_stream(tokio_util::io::ReaderStream::new(file));
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], body).into_response())
}

async fn artifact(
    State(line): State<Arc<Line>>,
    Path((project, digest)): Path<(String, String)>,
) -> Result<Response, Trouble> {
    let project = line.project(&project)?;
    let digest: Digest = number(&digest)?;
    let known = project.state().runs.all.values().any(|run| run.artifact.as_ref().is_some_and(|(d, _)| *d == digest));
    if !known {
        return Err(Trouble(StatusCode::NOT_FOUND, "no run of this project built it".into()));
    }
    let file = tokio::fs::File::open(line.blobs.path(&digest)).await.map_err(|error| Trouble::from(Refusal::from(error)))?;
    let body = Body::from_stream(tokio_util::io::ReaderStream::new(file));
    let headers = [
        (header::CONTENT_TYPE, "application/x-tar".to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{}.tar\"", &digest.hex()[..12])),
    ];
    Ok((headers, body).into_response())
}

async fn users(State(line): State<Arc<Line>>, By(caller): By) -> Answer {
    let access = line.access().0.clone();
    let own = |user: &UserName| caller.may(Role::Owner).is_ok() || *user == caller.user;
    let tokens = |of: &UserName| {
        let mine = access.tokens.iter().filter(|(_, token)| token.user == *of);
        mine.map(|(digest, token)| json!({ "digest": digest, "token": token })).collect::<Vec<_>>()
    };
    let users = access.users.iter().map(|(name, user)| {
        let roles: Vec<&str> = user.roles.iter().map(role).collect();
        let tokens = if own(name) { tokens(name) } else { Vec::new() };
        json!({ "name": name, "roles": roles, "password": user.password.is_some(), "tokens": tokens })
    });
    Ok(Json(users.collect()))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SetUser {
    name: UserName,
    roles: Vec<Role>,
    password: Option<String>,
}

async fn set_user(State(line): State<Arc<Line>>, By(caller): By, Json(user): Json<SetUser>) -> Answer {
    line.set_user(&caller, user.name, user.roles, user.password.as_deref()).await?;
    Ok(done())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewToken {
    user: Option<UserName>,
    name: String,
    roles: Vec<Role>,
    lasts: Option<Span>,
}

async fn issue(State(line): State<Arc<Line>>, By(caller): By, Json(new): Json<NewToken>) -> Answer {
    let user = new.user.unwrap_or_else(|| caller.user.clone());
    let token = line.issue(&caller, user, new.name, new.roles, new.lasts).await?;
    Ok(Json(json!({ "token": token })))
}

async fn revoke(State(line): State<Arc<Line>>, By(caller): By, Path(digest): Path<String>) -> Answer {
    line.revoke(&caller, number(&digest)?).await?;
    Ok(done())
}
