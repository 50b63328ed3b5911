//! One request from the client's side: which service, which revision, what is said when there is no answer.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body::Body;
use hyper::body::Incoming;
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderValue, RETRY_AFTER, SET_COOKIE, TRANSFER_ENCODING,
};
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode, Uri, Version};
use hyper_util::rt::TokioIo;

use crate::access::{self, AccessLog};
use crate::body::{Copying, Relayed, ToBackend, ToClient};
use crate::count::{Ended, Place};
use crate::differ::Answer;
use crate::forward::{Failure, forward};
use crate::hygiene;
use crate::mirror::{Shadow, Taps};
use crate::pool::Lease;
use crate::router::{Assigned, Busy, Inner, Plan, Service};
use crate::signals::Arm;
use crate::table::Protocol;
use crate::{subject, table};

/// Where a connection comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer {
    pub address: SocketAddr,
    /// `http` or `https`.
    pub scheme: &'static str,
}

/// Answers one request.
pub(crate) async fn answer(inner: Arc<Inner>, peer: Peer, request: Request<Incoming>) -> Response<ToClient> {
    let grpc = hygiene::is_grpc(request.headers());
    let version = request.version();
    let mut response = routed(inner, peer, request).await;
    if grpc && matches!(response.body(), ToClient::Own(Some(_))) {
        response = in_words_of_grpc(response);
    }
    // What cannot be read for certain may hide another request behind it.
    if response.status() == StatusCode::BAD_REQUEST
        && matches!(response.body(), ToClient::Own(_))
        && version != Version::HTTP_2
    {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    *response.version_mut() = if version == Version::HTTP_2 { version } else { Version::HTTP_11 };
    response
}

async fn routed(inner: Arc<Inner>, peer: Peer, mut request: Request<Incoming>) -> Response<ToClient> {
    if *request.method() == Method::CONNECT {
        return own(
            405,
            "This server opens no tunnels.\nhint: ask for the page itself, without CONNECT.".into(),
        );
    }
    let Some(host) = host_of(&request) else {
        return own(400, "The request names no host, or more than one.\nhint: send one Host header.".into());
    };
    if let Some(answer) = inner.challenge(peer.scheme, request.uri().path()) {
        return own(200, answer);
    }
    hygiene::join_cookies(request.headers_mut());
    if inner.in_flight.load(Ordering::Relaxed) >= inner.options.max_in_flight {
        let text =
            "Too many requests are under way.\nhint: try again in a second; the limit is the router's own.";
        return own(503, text.into());
    }
    let name = table::plain_host(host.to_str().unwrap_or_default());
    inner.awake(&name).await;
    let assigned = inner.assign(&name, |plan| Subject::of(plan, &request, inner.fingerprint_key));
    match assigned {
        None => own(
            404,
            format!(
                "No service answers to {name:?}.\nhint: `andon env show NAME` says where its services answer."
            ),
        ),
        Some((assigned, subject)) => relay(&inner, peer, host, assigned, subject, request).await,
    }
}

/// Whom a request belongs to.
struct Subject {
    /// What is remembered of it.
    fingerprint: u64,
    /// It came without a cookie, and takes one with this value away.
    new: Option<String>,
    /// It asked for its revision: it was not drawn, and is no witness.
    forced: bool,
}

impl Subject {
    /// And which side it gets.
    fn of(plan: &Plan, request: &Request<Incoming>, key: (u64, u64)) -> (Arm, Subject) {
        let headers = request.headers();
        let named = plan.subject_header.as_ref().and_then(|name| headers.get(name)?.to_str().ok());
        let known = named.filter(|name| !name.is_empty()).or_else(|| subject::from_cookie(headers));
        let new = known.is_none().then(subject::fresh);
        let name = known.or(new.as_deref()).unwrap_or_default();
        let forced = plan.forced(headers);
        let drawn = match &plan.candidate {
            Some((_, weight, salt)) if subject::gets_candidate(salt, name, *weight) => Arm::Candidate,
            _ => Arm::Stable,
        };
        let fingerprint = subject::fingerprint(key, name);
        (forced.unwrap_or(drawn), Subject { fingerprint, new, forced: forced.is_some() })
    }
}

/// Counts the request even if its client goes away.
struct Counting {
    service: Arc<Service>,
    place: Place,
    began: Instant,
    done: bool,
}

impl Counting {
    fn answered(&mut self, status: u16) {
        self.done = true;
        self.service.signals.count(self.place, Ended::Answered(status), self.began.elapsed());
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        if !self.done {
            self.service.signals.count(self.place, Ended::Abandoned, self.began.elapsed());
        }
    }
}

async fn relay(
    inner: &Arc<Inner>,
    peer: Peer,
    host: HeaderValue,
    assigned: Assigned,
    subject: Subject,
    mut request: Request<Incoming>,
) -> Response<ToClient> {
    let Assigned { plan, arm, busy } = assigned;
    plan.service.last_use.touch(inner.began);
    let side = plan.side(arm);
    let key = if subject.forced { Place::NOWHERE } else { plan.key };
    let place = Place { key, arm, subject: subject.fingerprint };
    let mut counting = Counting { service: plan.service.clone(), place, began: Instant::now(), done: false };

    let client = hyper::upgrade::on(&mut request);
    // Only a request that is over with its head switches protocols: what follows it is certain to be the new one.
    let switches = request.version() == Version::HTTP_11 && request.body().is_end_stream();
    let upgrade =
        hygiene::upgrade(request.headers()).filter(|_| switches && plan.protocol == Protocol::Http1);
    let (mut head, body) = request.into_parts();
    let noted = inner.options.access.as_ref().map(|access| Noted::of(access, &head, &host, peer));
    head.extensions.clear();
    // Room for what is said to the backend, made once.
    head.headers.reserve(8);
    let trailers = hygiene::takes_trailers(&head.headers);
    hygiene::strip_hop(&mut head.headers);
    hygiene::forwarded(&mut head.headers, peer.address, peer.scheme, &host, inner.options.behind_proxy);
    let id = hygiene::name(&mut head.headers, || inner.fresh_id());
    match plan.protocol {
        Protocol::Http1 => {
            head.uri = origin_form(&head.uri);
            head.version = Version::HTTP_11;
            head.headers.insert(HOST, host);
            if !body.is_end_stream() && body.size_hint().exact().is_none() {
                // Said, not left to be guessed: for some methods a body of unknown length is otherwise taken for none.
                head.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
                head.headers.remove(CONTENT_LENGTH);
            }
        }
        Protocol::Http2 => {
            head.uri = absolute_form(&head.uri, &host);
            head.version = Version::HTTP_2;
            head.headers.remove(HOST);
            if trailers {
                hygiene::take_trailers(&mut head.headers);
            }
        }
    }
    let (copying, comparing) = match mirrored(&plan, &head, upgrade.is_some()) {
        None => (None, None),
        Some((shadow, compare)) => mirror(shadow, compare, &head, !body.is_end_stream()),
    };
    if let Some(protocol) = &upgrade {
        hygiene::ask_upgrade(&mut head.headers, protocol.clone());
    }
    let (body, moved) = ToBackend::of(body, &side.tally, copying);
    let sent = forward(&inner.options, &plan.service, side, Request::from_parts(head, body), moved).await;
    let mut response = match sent {
        Ok((response, mut lease)) => {
            counting.answered(response.status().as_u16());
            // An answer without a body says in its headers what gRPC else says in the end.
            let failed = response.status() == StatusCode::OK && hygiene::grpc_failed(response.headers());
            if failed {
                plan.service.signals.broke_off(place);
            }
            lease.reusable = upgrade.is_none();
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                tunnel(upgrade, client, response, lease, busy)
            } else {
                let counted =
                    (response.status().as_u16() < 500 && !failed).then(|| (plan.service.clone(), place));
                let copying = comparing.map(|compare| compare.listen(&response));
                let (mut head, body) = response.into_parts();
                hygiene::strip_hop(&mut head.headers);
                Response::from_parts(
                    head,
                    Relayed::start(body, lease, side.tally.clone(), counted, copying, busy),
                )
            }
        }
        Err(failure) => {
            counting.answered(failure.status());
            tracing::debug!(revision = %side.label.to_str().unwrap_or_default(), %failure, "no answer");
            excuse(&failure)
        }
    };
    response.headers_mut().insert(hygiene::REVISION, side.label.clone());
    if let Some(noted) = noted {
        noted.say(&response, &plan.service.name, &id, counting.began);
    }
    response.headers_mut().insert(hygiene::REQUEST_ID, id);
    if let Some(name) = subject.new {
        let cookie = format!("{}={name}; Path=/; HttpOnly; SameSite=Lax", subject::COOKIE_NAME);
        if let Ok(cookie) = HeaderValue::from_str(&cookie) {
            response.headers_mut().append(SET_COOKIE, cookie);
        }
    }
    response
}

/// What the access log says of a request, kept until its answer begins.
struct Noted {
    access: AccessLog,
    client: IpAddr,
    method: Method,
    host: HeaderValue,
    uri: Uri,
}

impl Noted {
    fn of(access: &AccessLog, head: &http::request::Parts, host: &HeaderValue, peer: Peer) -> Noted {
        Noted {
            access: access.clone(),
            client: peer.address.ip().to_canonical(),
            method: head.method.clone(),
            host: host.clone(),
            uri: head.uri.clone(),
        }
    }

    #[allow(clippy::disallowed_methods, reason = "a log says when")]
    fn say(&self, response: &Response<ToClient>, service: &str, id: &HeaderValue, began: Instant) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let text = |value: &'_ HeaderValue| value.to_str().unwrap_or_default().to_owned();
        self.access.say(&access::Line {
            at: since.as_millis() as u64,
            client: self.client,
            method: self.method.as_str(),
            host: &text(&self.host),
            path: self.uri.path(),
            status: response.status().as_u16(),
            took_us: began.elapsed().as_micros() as u64,
            service,
            revision: &response.headers().get(hygiene::REVISION).map(text).unwrap_or_default(),
            request: &text(id),
        });
    }
}

/// The mirror that gets a copy of this request, and whether answers are compared.
fn mirrored<'a>(
    plan: &'a Plan,
    head: &http::request::Parts,
    upgrade: bool,
) -> Option<(&'a Arc<Shadow>, bool)> {
    let (shadow, mirror) = plan.mirror.as_ref()?;
    let safe = matches!(head.method, Method::GET | Method::HEAD | Method::OPTIONS);
    let turn = plan.service.mirror_turn.fetch_add(1, Ordering::Relaxed);
    let chosen = !upgrade && (safe || mirror.all_methods) && subject::chosen(turn, mirror.percent_bp);
    chosen.then_some((shadow, mirror.compare))
}

/// The user's answer on its way to the comparison.
struct Comparing(tokio::sync::oneshot::Sender<Answer>);

impl Comparing {
    fn listen(self, response: &Response<Incoming>) -> Copying {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let (copying, body) = Copying::new();
        tokio::spawn(async move {
            if let Ok(body) = body.await {
                // The mirror may have given up: then nobody wants to know.
                let _ = self.0.send(Answer::new(status, &headers, body));
            }
        });
        copying
    }
}

/// Starts a copy of the request; gives what has to listen to the bodies for it.
fn mirror(
    shadow: &Arc<Shadow>,
    compare: bool,
    head: &http::request::Parts,
    has_body: bool,
) -> (Option<Copying>, Option<Comparing>) {
    let mut copy = Request::new(ToBackend::Empty);
    *copy.method_mut() = head.method.clone();
    *copy.uri_mut() = head.uri.clone();
    *copy.headers_mut() = head.headers.clone();
    copy.headers_mut().remove(TRANSFER_ENCODING);
    copy.headers_mut().insert(hygiene::SHADOW, HeaderValue::from_static("1"));
    let (copying, request) = has_body.then(Copying::new).unzip();
    let (comparing, answer) = compare.then(tokio::sync::oneshot::channel).unzip();
    shadow.start(copy, Taps { request, answer });
    (copying, comparing.map(Comparing))
}

/// Joins client and backend until one of them ends it. The request stays in flight for as long.
fn tunnel(
    asked: Option<HeaderValue>,
    client: OnUpgrade,
    mut response: Response<Incoming>,
    lease: Lease,
    busy: Busy,
) -> Response<ToClient> {
    let Some(asked) = asked else {
        return own(502, "The service switched protocols unasked.\nhint: its log says why.".into());
    };
    let backend = hyper::upgrade::on(&mut response);
    let (mut head, _) = response.into_parts();
    head.version = Version::HTTP_11;
    let protocol = hygiene::upgrade(&head.headers).unwrap_or(asked);
    hygiene::strip_hop(&mut head.headers);
    hygiene::ask_upgrade(&mut head.headers, protocol);
    tokio::spawn(async move {
        let _held = (busy, lease);
        let joined = async {
            let (client, backend) = (client.await?, backend.await?);
            // Either end closing is how a tunnel ends.
            let _ =
                tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(backend)).await;
            Ok::<_, hyper::Error>(())
        };
        if let Err(error) = joined.await {
            tracing::debug!(%error, "a switch of protocols did not come about");
        }
    });
    Response::from_parts(head, ToClient::Own(None))
}

fn excuse(failure: &Failure) -> Response<ToClient> {
    let hint = match failure {
        Failure::NoBackend => "its instances are starting or were retired; try again in a moment.",
        Failure::Unreachable(_) => "its instances are restarting or dead; `andon status` shows them.",
        Failure::Broken(_) | Failure::TooSlow(_) => "the log of its instance says why.",
    };
    own(failure.status(), format!("The service cannot answer: {failure}.\nhint: {hint}"))
}

/// Words of the router itself, as plain text.
fn own(status: u16, mut text: String) -> Response<ToClient> {
    text.push('\n');
    let mut response = Response::new(ToClient::Own(Some(Bytes::from(text))));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    if status == 503 {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// The same as [`own`] for a client that reads gRPC: it looks for words in the headers, and for 14, "unavailable".
fn in_words_of_grpc(response: Response<ToClient>) -> Response<ToClient> {
    let said = match response.body() {
        ToClient::Own(Some(text)) => {
            String::from_utf8_lossy(text).lines().next().unwrap_or_default().to_owned()
        }
        _ => String::new(),
    };
    let mut answer = Response::new(ToClient::Own(None));
    let headers = answer.headers_mut();
    headers.clone_from(response.headers());
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from_static("14"));
    // Percent-encoded, as gRPC wants it; quotes and the like are left out rather than escaped.
    let plain: String = said.chars().filter(|c| (' '..='~').contains(c) && *c != '%').collect();
    if let Ok(value) = HeaderValue::from_str(&plain) {
        headers.insert("grpc-message", value);
    }
    answer
}

/// The host the client asked for: of the target if it names one, else of the header; two headers are one too many, and so is another one than the target's.
fn host_of(request: &Request<Incoming>) -> Option<HeaderValue> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let (host, more) = (hosts.next().filter(|host| !host.is_empty()), hosts.next());
    if more.is_some() {
        return None;
    }
    let Some(authority) = request.uri().authority() else { return host.cloned() };
    // Whose name stands before an @ is nobody's business here.
    let authority = authority.as_str().rsplit('@').next().unwrap_or_default();
    let differs = request.version() == Version::HTTP_2
        && host.is_some_and(|host| !host.as_bytes().eq_ignore_ascii_case(authority.as_bytes()));
    (!differs).then(|| HeaderValue::from_str(authority).ok()).flatten()
}

fn absolute_form(uri: &Uri, host: &HeaderValue) -> Uri {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let whole = host.to_str().ok().and_then(|host| format!("http://{host}{path}").parse().ok());
    whole.unwrap_or_else(|| Uri::from_static("http://unnamed/"))
}

fn origin_form(uri: &Uri) -> Uri {
    match uri.path_and_query() {
        Some(path) => Uri::from(path.clone()),
        None => Uri::from_static("/"),
    }
}
