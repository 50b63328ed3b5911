//! How people come in: a name and a password, or the owner's link. Opens sessions by the commands of andon-line.

use std::sync::Arc;

use andon_line::Line;
use axum::Form;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Redirect, Response};
use http::StatusCode;
use maud::{Markup, html};
use serde::Deserialize;

use crate::said::append;
use crate::{parts, shell};

/// How long a browser stays logged in, in seconds.
const STAYS: u64 = 14 * 86_400;

/// Where to go afterwards.
#[derive(Debug, Deserialize)]
pub struct Then {
    then: Option<String>,
}

/// What the form of `/login` sends.
#[derive(Debug, Deserialize)]
pub struct Credentials {
    name: String,
    password: String,
    then: Option<String>,
}

/// The owner's link.
#[derive(Debug, Deserialize)]
pub struct Once {
    #[serde(default)]
    once: String,
}

/// A path of this server, or the first page: nobody can send people elsewhere by a link to our door.
fn here(then: Option<&str>) -> &str {
    let safe = |path: &&str| {
        let tail = path.strip_prefix('/');
        tail.is_some_and(|tail| !tail.starts_with(['/', '\\']))
            && !path.contains(|c: char| c.is_control() || c == '\\')
            && path.is_ascii()
    };
    then.filter(safe).unwrap_or("/")
}

/// The page with the form.
pub async fn login(Query(then): Query<Then>) -> Markup {
    form(then.then.as_deref(), "", None)
}

fn form(then: Option<&str>, name: &str, wrong: Option<&str>) -> Markup {
    shell::plain(
        "Log in",
        html! {
            (parts::head("Log in", "Everything behind this door shows what is on its way to users.", html! {}))
            @if let Some(wrong) = wrong { div.said.stop role="alert" { p { span.st.stop { (shell::sentence(wrong)) } } } }
            section.sheet #login aria-label="Name and password" {
                form.stack method="post" action="/login" {
                    label.field { span { "Name" } input type="text" name="name" value=(name) required autocomplete="username" autocapitalize="none" spellcheck="false" maxlength="40"; }
                    label.field { span { "Password" } input type="password" name="password" required autocomplete="current-password" maxlength="1000"; }
                    (parts::hidden("then", here(then)))
                    button.btn.go { "Log in" }
                }
            }
            p.soft.small { "No password yet? An owner makes an account with " code { "andon user set NAME" } ". The owner's own link is printed by " code { "andon serve --owner-link" } "." }
        },
    )
}

/// Opens a session for whoever knows the password.
pub async fn log_in(State(line): State<Arc<Line>>, Form(given): Form<Credentials>) -> Response {
    match line.log_in(&given.name, &given.password).await {
        Ok(session) => opened(&line, &session, here(given.then.as_deref())),
        Err(refusal) => {
            let name: String = given.name.chars().take(40).collect();
            (StatusCode::UNAUTHORIZED, form(given.then.as_deref(), &name, Some(&refusal.to_string())))
                .into_response()
        }
    }
}

fn opened(line: &Line, session: &str, to: &str) -> Response {
    let secure = if line.settings.url.starts_with("https:") { "; Secure" } else { "" };
    let mut answer = Redirect::to(to).into_response();
    append(
        answer.headers_mut(),
        &format!("andon_session={session}; HttpOnly; SameSite=Lax; Path=/; Max-Age={STAYS}{secure}"),
    );
    answer
}

/// The page behind the owner's link. A link is looked at by many programs before a person does: looking does not use it up.
pub async fn invited(Query(link): Query<Once>) -> Markup {
    shell::plain(
        "Come in",
        html! {
            (parts::head("Come in as the owner", "This link opens once. It makes this browser the owner's for 14 days; set a password afterwards.", html! {}))
            section.sheet #enter aria-label="Come in" {
                form.stack method="post" action="/enter" { (parts::hidden("once", &link.once)) button.btn.go { "Come in" } }
            }
        },
    )
}

/// Uses the link up.
pub async fn enter(State(line): State<Arc<Line>>, Form(link): Form<Once>) -> Response {
    match line.enter(&link.once).await {
        Ok(session) => {
            let access = line.access().0.clone();
            let user = access
                .holder(&session, line.now())
                .and_then(|caller| access.users.get(&caller.user).cloned());
            let to = if user.is_some_and(|user| user.password.is_some()) { "/" } else { "/account" };
            opened(&line, &session, to)
        }
        Err(refusal) => crate::trouble::Trouble::from(refusal).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_the_door_comes_a_page_of_this_server() {
        assert_eq!(here(Some("/shop/queue?x=1")), "/shop/queue?x=1");
        for bad in ["//evil", "/\\evil", "https://evil", "evil", "", "/a\r\nSet-Cookie: x"] {
            assert_eq!(here(Some(bad)), "/", "{bad:?}");
        }
    }
}
