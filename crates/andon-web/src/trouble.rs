//! Refusals as pages, for those who read: the same words as everywhere, with what to do about it.

use andon_line::Refusal;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use maud::{Markup, html};
use serde::Deserialize;

use crate::shell;

/// Something that cannot be shown.
#[derive(Debug, Clone)]
pub struct Trouble {
    /// As HTTP says it.
    pub status: StatusCode,
    /// What failed, why, and on a line of its own what to do.
    pub words: String,
}

impl From<Refusal> for Trouble {
    fn from(refusal: Refusal) -> Trouble {
        let status = StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Trouble { status, words: refusal.to_string() }
    }
}

impl Trouble {
    /// There is no such page.
    pub fn no_page() -> Trouble {
        Trouble { status: StatusCode::NOT_FOUND, words: "there is no such page".into() }
    }
}

impl IntoResponse for Trouble {
    fn into_response(self) -> Response {
        (self.status, page(self.status, &self.words)).into_response()
    }
}

fn page(status: StatusCode, words: &str) -> Markup {
    let heading = match status {
        StatusCode::NOT_FOUND => "Nothing is here",
        StatusCode::FORBIDDEN => "This is not yours to do",
        StatusCode::UNAUTHORIZED => "Log in first",
        StatusCode::TOO_MANY_REQUESTS => "Too many requests",
        StatusCode::CONFLICT => "Not as things stand",
        status if status.is_server_error() => "The server could not do it",
        _ => "That cannot be done",
    };
    let (what, hint) = split(words);
    shell::plain(
        heading,
        html! {
            div.head #head { div { h1 { (heading) } p.soft { (shell::sentence(what)) } } }
            @if let Some(hint) = hint { section.sheet #hint { p { (shell::sentence(hint)) } } }
            p { a.btn href="/" { "To the wall" } @if status == StatusCode::UNAUTHORIZED { " " a.btn.go href="/login" { "Log in" } } }
        },
    )
}

/// What is refused, and the hint.
pub fn split(words: &str) -> (&str, Option<&str>) {
    match words.split_once("\nhint: ") {
        Some((what, hint)) => (what, Some(hint)),
        None => (words, None),
    }
}

#[derive(Debug, Deserialize)]
struct Told {
    error: String,
    hint: Option<String>,
}

/// Largest refusal that is put into words again, in bytes.
const LARGEST: usize = 64 * 1024;

/// Puts over the whole server: a refusal made for programs becomes a page when a person reads it.
pub async fn readable(request: Request, next: Next) -> Response {
    let reads = request
        .headers()
        .get(header::ACCEPT)
        .and_then(|v| v.to_str().ok())
        .is_some_and(|v| v.contains("text/html"));
    let reads = reads && !request.uri().path().starts_with("/api/");
    let answer = next.run(request).await;
    let json = answer
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    let status = answer.status();
    if !reads || !json || !(status.is_client_error() || status.is_server_error()) {
        return answer;
    }
    let (mut head, body) = answer.into_parts();
    let told = axum::body::to_bytes(body, LARGEST)
        .await
        .ok()
        .and_then(|body| serde_json::from_slice::<Told>(&body).ok());
    let words = match told {
        Some(Told { error, hint: Some(hint) }) => format!("{error}\nhint: {hint}"),
        Some(Told { error, hint: None }) => error,
        None => "it did not say why".into(),
    };
    let body = page(status, &words).into_response();
    // A browser would open its own password window, which this server does not read.
    for name in [header::CONTENT_LENGTH, header::WWW_AUTHENTICATE, header::CONTENT_TYPE] {
        head.headers.remove(name);
    }
    head.headers.extend(body.headers().clone());
    Response::from_parts(head, body.into_body())
}
