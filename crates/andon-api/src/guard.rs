//! Who may come in: credentials, roles, origin, rate. Stands in front of every door and knows nothing of what lies behind.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use andon_line::stations::handouts::JobScope;
use andon_line::stations::infrastructure::Scope;
use andon_line::{Caller, Line};
use andon_model::event::{Role, TokenKind};
use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use base64::Engine;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use crate::answer::Trouble;

/// The cookie of a browser's session.
pub const COOKIE: &str = "andon_session";
/// Wrong credentials that one address may give in [`WINDOW`].
const WRONG: u32 = 20;
/// State-changing requests that one address may make in [`WINDOW`]; programs with a token are not people clicking.
const CHANGES: u32 = 3_000;
/// How long is counted.
const WINDOW: Duration = Duration::from_secs(60);
/// Addresses counted at once; beyond it the oldest window is forgotten.
const ADDRESSES: usize = 10_000;

/// Shared by all doors.
#[derive(Debug, Clone)]
pub struct Guard {
    line: Arc<Line>,
    counts: Arc<Mutex<Counts>>,
}

/// By address, and whether it was wrong: since when, and how often.
type Counts = HashMap<(IpAddr, bool), (Instant, u32)>;

impl Guard {
    /// A guard that has seen nobody.
    pub fn new(line: Arc<Line>) -> Guard {
        Guard { line, counts: Arc::default() }
    }

    /// Counts one; false: too many.
    fn count(&self, who: IpAddr, wrong: bool, most: u32) -> bool {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if counts.len() >= ADDRESSES {
            counts.retain(|_, (since, _)| now.duration_since(*since) < WINDOW);
        }
        let entry = counts.entry((who, wrong)).or_insert((now, 0));
        if now.duration_since(entry.0) >= WINDOW {
            *entry = (now, 0);
        }
        entry.1 += 1;
        entry.1 <= most
    }

    fn over(&self, who: IpAddr) -> bool {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.get(&(who, true)).is_some_and(|(since, n)| since.elapsed() < WINDOW && *n > WRONG)
    }
}

/// The credentials of a request: the secret, and whether a browser sent it by itself.
fn secret(headers: &HeaderMap) -> Option<(String, bool)> {
    if let Some(value) = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()) {
        let (scheme, rest) = value.split_once(' ')?;
        if scheme.eq_ignore_ascii_case("bearer") {
            return Some((rest.trim().to_owned(), false));
        }
        if scheme.eq_ignore_ascii_case("basic") {
            let decoded = base64::engine::general_purpose::STANDARD.decode(rest.trim()).ok()?;
            let text = String::from_utf8(decoded).ok()?;
            // git asks for a name and a password: the token is the password; the name may be anything.
            return text.split_once(':').map(|(_, password)| (password.to_owned(), false));
        }
        return None;
    }
    if let Some(key) = headers.get("x-api-key").and_then(|value| value.to_str().ok()) {
        return Some((key.to_owned(), false));
    }
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE).map(|(_, value)| (value.to_owned(), true))
}

/// What the guard of one door knows.
#[derive(Debug, Clone)]
pub struct Watch {
    /// Shared by all doors.
    pub guard: Guard,
    /// The role that it needs; none: everyone may come in.
    pub needs: Option<Role>,
    /// Whether it only reads, whatever its method.
    pub reads: bool,
}

/// In front of a door.
pub async fn stand(State(watch): State<Watch>, mut request: Request, next: Next) -> Response {
    let Watch { guard, needs, reads } = watch;
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
    let peer = peer.unwrap_or(IpAddr::from([127, 0, 0, 1]));
    if guard.over(peer) {
        return too_many();
    }
    let given = secret(request.headers());
    let caller =
        given.as_ref().and_then(|(secret, _)| guard.line.access().0.holder(secret, guard.line.now()));
    // A run of the infrastructure tool speaks with the states of its own environment, and with nothing else.
    let scope = given.as_ref().and_then(|(secret, _)| guard.line.run_scope(secret));
    let scope = scope.filter(|scope| scope.opens(request.uri().path()));
    let caller = caller.or_else(|| scope.as_ref().and_then(Scope::caller));
    // A job asks for its tests, and for nothing else.
    let job = given.as_ref().and_then(|(secret, _)| guard.line.job_scope(secret));
    let job = job.filter(|job| job.opens(request.uri().path()));
    let caller = caller.or_else(|| job.as_ref().and_then(JobScope::caller));
    // A one-time secret opens its own door and nothing else.
    let caller = caller.filter(|caller| caller.kind != Some(TokenKind::OneTime));
    let changes = !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    if changes && !same_origin(request.headers(), given.as_ref().is_none_or(|(_, by_itself)| *by_itself)) {
        return Trouble(StatusCode::FORBIDDEN, "this request comes from another site".into()).into_response();
    }
    if changes && !reads && !guard.count(peer, false, CHANGES) {
        return too_many();
    }
    match (needs, &caller) {
        (Some(role), Some(caller)) => {
            if let Err(refusal) = caller.may(role) {
                return Trouble::from(refusal).into_response();
            }
        }
        (Some(_), None) => {
            if given.is_some_and(|(_, by_itself)| !by_itself) && !guard.count(peer, true, WRONG) {
                return too_many();
            }
            return log_in_first(&request);
        }
        (None, _) => {}
    }
    if let Some(caller) = caller {
        request.extensions_mut().insert(caller);
    }
    if let Some(job) = job {
        request.extensions_mut().insert(job);
    }
    if let Some(scope) = scope {
        request.extensions_mut().insert(scope);
    }
    let answer = next.run(request).await;
    // Behind a public door that changes something, a wrong password or a used link is what is refused: guesses are counted.
    if needs.is_none() && changes && answer.status().is_client_error() {
        guard.count(peer, true, WRONG);
    }
    answer
}

fn too_many() -> Response {
    let mut answer = Trouble(
        StatusCode::TOO_MANY_REQUESTS,
        "too many requests from this address\nhint: wait a minute".into(),
    )
    .into_response();
    answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("60"));
    answer
}

/// Browsers say where a request comes from. What a browser sends by itself (a cookie, or nothing) is taken from our own pages only.
fn same_origin(headers: &HeaderMap, by_itself: bool) -> bool {
    if !by_itself {
        return true;
    }
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(site) = headers.get("sec-fetch-site").and_then(|value| value.to_str().ok())
        && !matches!(site, "same-origin" | "none")
    {
        return false;
    }
    match (text(header::ORIGIN), text(header::HOST)) {
        (Some(origin), Some(host)) => {
            origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://")) == Some(host)
        }
        // Not a browser of our time: without a cookie there is nothing to misuse, with one it must say its origin.
        (None, _) => text(header::COOKIE).is_none(),
        (Some(_), None) => false,
    }
}

fn log_in_first(request: &Request<Body>) -> Response {
    let wants_page = request
        .headers()
        .get(header::ACCEPT)
        .and_then(|v| v.to_str().ok())
        .is_some_and(|v| v.contains("text/html"));
    if wants_page && *request.method() == Method::GET {
        let then = request.uri().path_and_query().map_or("/", |wanted| wanted.as_str());
        // The path is percent-encoded already; only what would end the parameter is encoded again.
        let then = then.replace('%', "%25").replace('&', "%26").replace('+', "%2B");
        return Redirect::to(&format!("/login?then={then}")).into_response();
    }
    let hint = "log in first\nhint: give a token (`andon login`, or git's password prompt)";
    let mut answer = Trouble(StatusCode::UNAUTHORIZED, hint.into()).into_response();
    answer.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"andon\""));
    answer
}

/// What is in no table.
pub async fn nothing_here() -> Trouble {
    Trouble(StatusCode::NOT_FOUND, "there is nothing here".into())
}

/// Longest plain reason that is put into a shape, in bytes.
const REASON: usize = 4096;

/// Refusals that the HTTP layers below us word in plain text, or not at all, in the shape of all others.
pub async fn shape(request: Request, next: Next) -> Response {
    let method = request.method().clone();
    let answer = next.run(request).await;
    let status = answer.status();
    let plain = |value: &HeaderValue| value.as_bytes().starts_with(b"text/plain");
    if !status.is_client_error()
        || answer.headers().get(header::CONTENT_TYPE).is_some_and(|kind| !plain(kind))
    {
        return answer;
    }
    let (parts, body) = answer.into_parts();
    let words = axum::body::to_bytes(body, REASON).await.unwrap_or_default();
    let words: String =
        String::from_utf8_lossy(&words).chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let (what, hint) = match status {
        StatusCode::METHOD_NOT_ALLOWED => {
            (format!("this path does not take {method}"), "the header `allow` says what it takes")
        }
        StatusCode::PAYLOAD_TOO_LARGE => ("the body is too large".to_owned(), "large things come in by git"),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => (words, "send JSON with `content-type: application/json`"),
        _ if words.is_empty() => {
            (status.canonical_reason().unwrap_or("refused").to_owned(), "look at the request")
        }
        _ => (words, "mend the request; the reason says where"),
    };
    let mut shaped = Trouble(status, format!("{what}\nhint: {hint}")).into_response();
    for (name, value) in &parts.headers {
        if !matches!(*name, header::CONTENT_TYPE | header::CONTENT_LENGTH) {
            shaped.headers_mut().insert(name, value.clone());
        }
    }
    shaped
}

/// What was begun is done whole, even for somebody who hangs up: what is recorded and not taken in would make the server know less than its
/// journal, and nothing more could be recorded.
pub async fn whole(request: Request, next: Next) -> Response {
    match tokio::spawn(next.run(request)).await {
        Ok(answer) => answer,
        Err(broken) => {
            tracing::error!(%broken, "a request failed");
            Trouble(StatusCode::INTERNAL_SERVER_ERROR, "the server broke off: its log says why".into())
                .into_response()
        }
    }
}

/// Headers of every answer.
pub async fn headers(request: Request, next: Next) -> Response {
    let mut answer = next.run(request).await;
    let headers = answer.headers_mut();
    let fixed = [
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "same-origin"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ];
    for (name, value) in fixed {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    answer
}

/// The caller behind a door that needs a role.
#[derive(Debug, Clone)]
pub struct By(pub Caller);

impl<S: Sync> axum::extract::FromRequestParts<S> for By {
    type Rejection = Trouble;
    async fn from_request_parts(parts: &mut http::request::Parts, _: &S) -> Result<By, Trouble> {
        let caller = parts.extensions.get::<Caller>().cloned();
        caller.map(By).ok_or_else(|| Trouble(StatusCode::UNAUTHORIZED, "log in first".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (http::HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn a_foreign_page_cannot_make_a_browser_change_anything() {
        let foreign =
            headers(&[("host", "andon:7070"), ("origin", "http://evil"), ("cookie", "andon_session=x")]);
        assert!(!same_origin(&foreign, true));
        let silent = headers(&[("host", "andon:7070"), ("cookie", "andon_session=x")]);
        assert!(!same_origin(&silent, true));
        let cross = headers(&[("host", "a"), ("origin", "http://a"), ("sec-fetch-site", "cross-site")]);
        assert!(!same_origin(&cross, true));
        let own = headers(&[
            ("host", "andon:7070"),
            ("origin", "http://andon:7070"),
            ("cookie", "andon_session=x"),
        ]);
        assert!(same_origin(&own, true));
        assert!(same_origin(&foreign, false), "a token is never sent by itself");
    }

    #[test]
    fn credentials_are_read_from_where_git_programs_and_browsers_put_them() {
        assert_eq!(secret(&headers(&[("authorization", "Bearer t")])), Some(("t".into(), false)));
        assert_eq!(secret(&headers(&[("authorization", "Basic YW5uOnQ=")])), Some(("t".into(), false)));
        assert_eq!(secret(&headers(&[("cookie", "a=b; andon_session=t")])), Some(("t".into(), true)));
        for bad in ["Basic ???", "Digest x", "Bearer", ""] {
            let value = HeaderValue::from_str(bad).unwrap();
            assert_eq!(secret(&HeaderMap::from_iter([(header::AUTHORIZATION, value)])), None);
        }
    }
}
