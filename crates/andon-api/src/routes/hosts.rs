//! Hosts: who they are, inviting one, emptying one. The agents themselves come in by a door of their own.

use std::sync::Arc;

use andon_line::Line;
use andon_line::hosts::Invitation;
use andon_line::view;
use andon_model::Span;
use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use serde::Deserialize;

use super::Why;
use crate::answer::{Answer, Trouble, done};
use crate::guard::By;

pub(super) async fn hosts(State(line): State<Arc<Line>>) -> Answer<view::HostsView> {
    Ok(Json(view::hosts::hosts(&line)))
}

/// An invitation.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Invite {
    #[serde(default)]
    lasts: Option<Span>,
}

pub(super) async fn invite(
    State(line): State<Arc<Line>>,
    By(caller): By,
    Json(invite): Json<Invite>,
) -> Answer<Invitation> {
    Ok(Json(line.invite_host(&caller, invite.lasts).await?))
}

pub(super) async fn treat(
    State(line): State<Arc<Line>>,
    By(caller): By,
    Path((host, command)): Path<(String, String)>,
    Json(why): Json<Why>,
) -> Answer {
    let host = super::number(&host)?;
    match command.as_str() {
        "drain" => line.empty_host(&caller, host, false, &why.why).await?,
        "leave" => line.empty_host(&caller, host, true, &why.why).await?,
        "resume" => line.keep_host(&caller, host).await?,
        _ => {
            let words = "a host is drained, resumed, or leaves".to_owned();
            return Err(Trouble(StatusCode::NOT_FOUND, words));
        }
    }
    Ok(done())
}
