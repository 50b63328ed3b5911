//! The JSON doors: what programs and the command line read and command. Each handler is one call into andon-line.

use std::sync::Arc;

use andon_line::line::Line;
use andon_line::refusal::role;
use andon_line::{Refusal, view};
use andon_model::event::Role;
use andon_line::stations::{flags as flag_station, release as release_station};
use andon_model::{AndonId, ChangeId, Digest, EnvironmentName, InstanceId, ProjectName, ReleaseId, RunId, ServiceName, Span, UserName};
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
    use Role::{Deployer, Developer, Owner, Releaser, Viewer};
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
        read("/api/v1/{project}/wall", get(wall)),
        read("/api/v1/{project}/environments", get(environments)),
        change("/api/v1/{project}/environments", Developer, post(create_environment)),
        read("/api/v1/{project}/environments/{environment}", get(one_environment)),
        change("/api/v1/{project}/environments/{environment}/destroy", Developer, post(destroy_environment)),
        change("/api/v1/{project}/environments/{environment}/rebuild", Deployer, post(rebuild_environment)),
        change("/api/v1/{project}/environments/{environment}/extend", Developer, post(extend_environment)),
        change("/api/v1/{project}/environments/{environment}/deploy", Deployer, post(deploy)),
        change("/api/v1/{project}/environments/{environment}/rollback", Releaser, post(roll_back)),
        read("/api/v1/{project}/instances/{instance}/log", get(instance_log)),
        read("/api/v1/{project}/releases", get(releases)),
        read("/api/v1/{project}/releases/{release}", get(one_release)),
        change("/api/v1/{project}/releases/{release}/{command}", Releaser, post(move_release)),
        read("/api/v1/{project}/flags", get(flags)),
        read("/api/v1/{project}/flags.json", get(export_flags)),
        change("/api/v1/{project}/flags.json", Releaser, post(import_flags)),
        change("/api/v1/{project}/flags/{flag}/{command}", Releaser, post(change_flag)),
        read("/api/v1/{project}/andons", get(andons)),
        change("/api/v1/{project}/andons", Developer, post(pull)),
        read("/api/v1/{project}/andons/{andon}", get(one_andon)),
        change("/api/v1/{project}/andons/{andon}/{command}", Developer, post(treat_andon)),
        read("/api/v1/{project}/flow", get(flow)),
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

async fn wall(State(line): State<Arc<Line>>, Path(project): Path<String>) -> Answer<view::WallView> {
    let project = line.project(&project)?;
    Ok(Json(view::wall::wall(&line, &project)))
}

async fn environments(State(line): State<Arc<Line>>, Path(project): Path<String>) -> Answer<view::EnvironmentsView> {
    let project = line.project(&project)?;
    Ok(Json(view::environment::environments(&project, line.now())))
}

async fn one_environment(
    State(line): State<Arc<Line>>,
    Path((project, name)): Path<(String, String)>,
) -> Answer<view::EnvironmentView> {
    let project = line.project(&project)?;
    Ok(Json(view::environment::environment(&line, &project, &number(&name)?)?))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewEnvironment {
    name: EnvironmentName,
    like: EnvironmentName,
    ttl: Option<Span>,
}

async fn create_environment(
    State(line): State<Arc<Line>>,
    By(caller): By,
    Path(project): Path<String>,
    Json(new): Json<NewEnvironment>,
) -> Answer {
    line.create_environment(&*line.project(&project)?, &caller, new.name, new.like, new.ttl).await?;
    Ok(done())
}

async fn destroy_environment(
    State(line): State<Arc<Line>>,
    By(caller): By,
    Path((project, name)): Path<(String, String)>,
    Json(why): Json<Why>,
) -> Answer {
    line.destroy_environment(&*line.project(&project)?, &caller, number(&name)?, false, &why.why).await?;
    Ok(done())
}

async fn rebuild_environment(
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
struct Lasts {
    lasts: Span,
}

async fn extend_environment(
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
struct Deploy {
    change: Option<u32>,
}

async fn deploy(
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
struct OfService {
    service: Option<ServiceName>,
}

async fn roll_back(
    State(line): State<Arc<Line>>,
    By(caller): By,
    Path((project, name)): Path<(String, String)>,
    Json(of): Json<OfService>,
) -> Answer {
    let project = line.project(&project)?;
    let release = line.roll_back(&project, &caller, &number(&name)?, of.service.as_ref()).await?;
    Ok(Json(json!({ "release": release.0 })))
}

async fn instance_log(
    State(line): State<Arc<Line>>,
    Path((project, instance)): Path<(String, String)>,
) -> Result<Response, Trouble> {
    let project = line.project(&project)?;
    let log = line.instance_log(&project, number::<InstanceId>(&instance)?, 2000).await?;
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], log).into_response())
}

async fn releases(State(line): State<Arc<Line>>, Path(project): Path<String>) -> Answer<view::ReleasesView> {
    let project = line.project(&project)?;
    Ok(Json(view::release::releases(&line, &project)))
}

async fn one_release(
    State(line): State<Arc<Line>>,
    Path((project, release)): Path<(String, String)>,
) -> Answer<view::ReleaseView> {
    let project = line.project(&project)?;
    Ok(Json(view::release::release(&line, &project, number::<ReleaseId>(&release)?)?))
}

async fn move_release(
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
        _ => return Err(Trouble(StatusCode::NOT_FOUND, "a release can be promoted, paused, resumed, approved, aborted".into())),
    };
    line.move_release(&*line.project(&project)?, &caller, number(&release)?, command, &why.why).await?;
    Ok(done())
}

async fn flags(State(line): State<Arc<Line>>, Path(project): Path<String>) -> Answer<view::FlagsView> {
    let project = line.project(&project)?;
    Ok(Json(view::flags::flags(&project.state(), project.name.as_str(), line.now())))
}

async fn export_flags(State(line): State<Arc<Line>>, Path(project): Path<String>) -> Answer {
    let project = line.project(&project)?;
    Ok(Json(andon_flags::transfer::export(&project.state().flags)))
}

async fn import_flags(
    State(line): State<Arc<Line>>,
    By(caller): By,
    Path(project): Path<String>,
    file: String,
) -> Answer {
    let changed = line.import_flags(&*line.project(&project)?, &caller, &file).await?;
    Ok(Json(json!({ "changed": changed })))
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FlagChange {
    percent: Option<f64>,
    group: Option<String>,
    why: String,
}

async fn change_flag(
    State(line): State<Arc<Line>>,
    By(caller): By,
    Path((project, flag, command)): Path<(String, String, String)>,
    Json(with): Json<FlagChange>,
) -> Answer {
    use flag_station::Command;
    let missing = |what: &str| Trouble(StatusCode::BAD_REQUEST, format!("{command} needs {what}"));
    let command = match command.as_str() {
        "create" => Command::Create,
        "remove" => Command::Remove,
        "on" => Command::Switch(true),
        "off" => Command::Switch(false),
        "ramp" => Command::Ramp(with.percent.ok_or_else(|| missing("a percentage"))?),
        "open-to" => Command::OpenTo(with.group.ok_or_else(|| missing("a group like group=employees"))?),
        "close-to" => Command::CloseTo(with.group.ok_or_else(|| missing("a group like group=employees"))?),
        "kill" => Command::Kill(with.why),
        "restore" => Command::Restore,
        _ => {
            let known = "a flag can be created, removed, on, off, ramp, open-to, close-to, kill, restore";
            return Err(Trouble(StatusCode::NOT_FOUND, known.into()));
        }
    };
    let what = line.flag(&*line.project(&project)?, &caller, &flag, command).await?;
    Ok(Json(json!({ "changed": what })))
}

async fn andons(State(line): State<Arc<Line>>, Path(project): Path<String>) -> Answer<view::AndonsView> {
    let project = line.project(&project)?;
    Ok(Json(view::andon::andons(&project.state(), project.name.as_str(), line.now())))
}

async fn one_andon(
    State(line): State<Arc<Line>>,
    Path((project, andon)): Path<(String, String)>,
) -> Answer<view::AndonView> {
    let project = line.project(&project)?;
    Ok(Json(view::andon::andon(&project.state(), project.name.as_str(), number::<AndonId>(&andon)?, line.now())?))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pull {
    why: String,
    #[serde(default)]
    tag: String,
    #[serde(default)]
    suspects: Vec<u32>,
}

async fn pull(State(line): State<Arc<Line>>, By(caller): By, Path(project): Path<String>, Json(pull): Json<Pull>) -> Answer {
    let suspects = pull.suspects.into_iter().map(ChangeId).collect();
    let tag = if pull.tag.is_empty() { "person" } else { &pull.tag };
    let andon = line.pull(&*line.project(&project)?, &caller, &pull.why, tag, suspects).await?;
    Ok(Json(json!({ "andon": andon.to_string() })))
}

async fn treat_andon(
    State(line): State<Arc<Line>>,
    By(caller): By,
    Path((project, andon, command)): Path<(String, String, String)>,
    Json(why): Json<Why>,
) -> Answer {
    let (project, id) = (line.project(&project)?, number::<AndonId>(&andon)?);
    match command.as_str() {
        "acknowledge" => line.acknowledge(&project, &caller, id).await?,
        "note" => line.note(&project, &caller, id, &why.why).await?,
        "release" => line.release_cord(&project, &caller, id, &why.why).await?,
        _ => return Err(Trouble(StatusCode::NOT_FOUND, "an andon can be acknowledged, noted, released".into())),
    }
    Ok(done())
}

async fn flow(State(line): State<Arc<Line>>, Path(project): Path<String>) -> Answer<view::FlowView> {
    let project = line.project(&project)?;
    Ok(Json(view::flow::flow(&project.state(), project.name.as_str(), line.now())))
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
