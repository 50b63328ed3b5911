//! Instances and releases.

use std::sync::Arc;

use andon_line::Line;
use andon_line::stations::release as release_station;
use andon_line::view;
use andon_model::{InstanceId, ReleaseId};
use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};

use super::{Why, number};
use crate::answer::{Answer, Trouble, done};
use crate::guard::By;

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
