//! Runners: who they are, inviting one, giving it no more jobs. The agents themselves come in by a door of their own.

use std::sync::Arc;

use andon_line::Line;
use andon_line::hosts::Invitation;
use andon_line::view;
use andon_model::{LabelName, Span};
use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use serde::Deserialize;

use super::Why;
use crate::answer::{Answer, Trouble, done};
use crate::guard::By;

pub(super) async fn runners(State(line): State<Arc<Line>>) -> Answer<view::RunnersView> {
    Ok(Json(view::runners::runners(&line)))
}

/// An invitation.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Invite {
    #[serde(default)]
    lasts: Option<Span>,
    #[serde(default)]
    labels: Vec<LabelName>,
}

pub(super) async fn invite(
    State(line): State<Arc<Line>>,
    By(caller): By,
    Json(invite): Json<Invite>,
) -> Answer<Invitation> {
    Ok(Json(line.invite_runner(&caller, invite.lasts, invite.labels).await?))
}

pub(super) async fn treat(
    State(line): State<Arc<Line>>,
    By(caller): By,
    Path((runner, command)): Path<(String, String)>,
    Json(why): Json<Why>,
) -> Answer {
    let runner = super::number(&runner)?;
    match command.as_str() {
        "drain" => line.empty_runner(&caller, runner, false, &why.why).await?,
        "leave" => line.empty_runner(&caller, runner, true, &why.why).await?,
        "resume" => line.keep_runner(&caller, runner).await?,
        _ => {
            let words = "a runner is drained, resumed, or leaves".to_owned();
            return Err(Trouble(StatusCode::NOT_FOUND, words));
        }
    }
    Ok(done())
}
