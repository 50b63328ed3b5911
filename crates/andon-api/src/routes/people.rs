//! Flags, the cord and the flow.

use std::sync::Arc;

use andon_line::Line;
use andon_line::stations::flags as flag_station;
use andon_line::view;
use andon_model::{AndonId, ChangeId};
use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;

use super::{Why, number};
use crate::answer::{Answer, Trouble, done};
use crate::guard::By;

pub(super) async fn flags(
    State(line): State<Arc<Line>>,
    Path(project): Path<String>,
) -> Answer<view::FlagsView> {
    let project = line.project(&project)?;
    Ok(Json(view::flags::flags(&project.state(), project.name.as_str(), line.now())))
}

pub(super) async fn export_flags(State(line): State<Arc<Line>>, Path(project): Path<String>) -> Answer {
    let project = line.project(&project)?;
    Ok(Json(andon_flags::transfer::export(&project.state().flags)))
}

pub(super) async fn import_flags(
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
pub(super) struct FlagChange {
    percent: Option<f64>,
    group: Option<String>,
    why: String,
}

pub(super) async fn change_flag(
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

pub(super) async fn andons(
    State(line): State<Arc<Line>>,
    Path(project): Path<String>,
) -> Answer<view::AndonsView> {
    let project = line.project(&project)?;
    Ok(Json(view::andon::andons(&project.state(), project.name.as_str(), line.now())))
}

pub(super) async fn one_andon(
    State(line): State<Arc<Line>>,
    Path((project, andon)): Path<(String, String)>,
) -> Answer<view::AndonView> {
    let project = line.project(&project)?;
    Ok(Json(view::andon::andon(
        &project.state(),
        project.name.as_str(),
        number::<AndonId>(&andon)?,
        line.now(),
    )?))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pull {
    why: String,
    #[serde(default)]
    tag: String,
    #[serde(default)]
    suspects: Vec<u32>,
}

pub(super) async fn pull(
    State(line): State<Arc<Line>>,
    By(caller): By,
    Path(project): Path<String>,
    Json(pull): Json<Pull>,
) -> Answer {
    let suspects = pull.suspects.into_iter().map(ChangeId).collect();
    let tag = if pull.tag.is_empty() { "person" } else { &pull.tag };
    let andon = line.pull(&*line.project(&project)?, &caller, &pull.why, tag, suspects).await?;
    Ok(Json(json!({ "andon": andon.to_string() })))
}

pub(super) async fn treat_andon(
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
        _ => {
            return Err(Trouble(
                StatusCode::NOT_FOUND,
                "an andon can be acknowledged, noted, released".into(),
            ));
        }
    }
    Ok(done())
}

pub(super) async fn flow(
    State(line): State<Arc<Line>>,
    Path(project): Path<String>,
) -> Answer<view::FlowView> {
    let project = line.project(&project)?;
    Ok(Json(view::flow::flow(&project.state(), project.name.as_str(), line.now())))
}
