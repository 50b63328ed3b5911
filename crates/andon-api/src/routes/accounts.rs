//! Coming in, accounts, tokens.

use std::sync::Arc;

use andon_line::Line;
use andon_line::refusal::role;
use andon_model::event::Role;
use andon_model::{Span, UserName};
use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::json;

use super::number;
use crate::answer::{Answer, done};
use crate::guard::By;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Once {
    once: String,
}

/// The owner link for programs: a session's secret, to be used as a token.
pub(super) async fn enter(State(line): State<Arc<Line>>, Json(link): Json<Once>) -> Answer {
    Ok(Json(json!({ "token": line.enter(&link.once).await? })))
}

pub(super) async fn me(By(caller): By) -> Answer {
    let roles: Vec<&str> = caller.roles.iter().map(role).collect();
    Ok(Json(json!({ "user": caller.user, "roles": roles })))
}

pub(super) async fn users(State(line): State<Arc<Line>>, By(caller): By) -> Answer {
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
pub(super) struct SetUser {
    name: UserName,
    roles: Vec<Role>,
    password: Option<String>,
}

pub(super) async fn set_user(
    State(line): State<Arc<Line>>,
    By(caller): By,
    Json(user): Json<SetUser>,
) -> Answer {
    line.set_user(&caller, user.name, user.roles, user.password.as_deref()).await?;
    Ok(done())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewToken {
    user: Option<UserName>,
    name: String,
    roles: Vec<Role>,
    lasts: Option<Span>,
}

pub(super) async fn issue(
    State(line): State<Arc<Line>>,
    By(caller): By,
    Json(new): Json<NewToken>,
) -> Answer {
    let user = new.user.unwrap_or_else(|| caller.user.clone());
    let token = line.issue(&caller, user, new.name, new.roles, new.lasts).await?;
    Ok(Json(json!({ "token": token })))
}

pub(super) async fn revoke(
    State(line): State<Arc<Line>>,
    By(caller): By,
    Path(digest): Path<String>,
) -> Answer {
    line.revoke(&caller, number(&digest)?).await?;
    Ok(done())
}
