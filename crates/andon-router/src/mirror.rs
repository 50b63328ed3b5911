//! Dark traffic: copies of requests to a revision that answers nobody, and what its answers would have been.
//!
//! The user's request never waits for a copy. What would cost too much - a long body, too many copies at once, a slow
//! shadow - is dropped and counted.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use andon_traffic::Differences;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};
use hyper::{Method, Request};
use tokio::sync::{Semaphore, oneshot};

use crate::body::{COPY_MOST, ToBackend};
use crate::differ::{Answer, chosen, differ};
use crate::findings::Findings;
use crate::pool::Backend;
use crate::redact;
use crate::table::{Protocol, RevisionName};

/// Copies under way at once, for each mirror.
const AT_ONCE: usize = 64;
/// From the connection to the last byte of a shadow's answer.
const WITHIN: Duration = Duration::from_secs(5);

/// A mirror at work: its own connections, its counts.
pub(crate) struct Shadow {
    pub revision: RevisionName,
    /// Of the revision that sees the copies.
    new: Aimed,
    /// Of the revision that serves: apart from the connections of users.
    old: Aimed,
    permits: Semaphore,
    counts: Mutex<Differences>,
    findings: Mutex<Findings>,
}

/// Where the bodies for a copy arrive.
pub(crate) struct Taps {
    /// None: the request has no body.
    pub request: Option<oneshot::Receiver<VecDeque<Bytes>>>,
    /// None: answers are not compared.
    pub answer: Option<oneshot::Receiver<Answer>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The instances of one revision, taken in turn.
#[derive(Default)]
struct Aimed {
    backends: Mutex<Vec<Arc<Backend>>>,
    turn: AtomicUsize,
}

impl Aimed {
    fn aim(&self, addrs: &[SocketAddr], protocol: Protocol) {
        let mut backends = lock(&self.backends);
        let known = std::mem::take(&mut *backends);
        let stays = |backend: &&Arc<Backend>| addrs.contains(&backend.addr) && backend.protocol == protocol;
        let same =
            |addr: &SocketAddr| known.iter().filter(stays).find(|backend| backend.addr == *addr).cloned();
        let new = |addr: &SocketAddr| same(addr).unwrap_or_else(|| Backend::new(*addr, protocol));
        *backends = addrs.iter().map(new).collect();
        for gone in known.iter().filter(|backend| !stays(backend)) {
            gone.retire();
        }
    }

    /// Status and, unless its body is too long, the answer.
    async fn ask(&self, request: Request<ToBackend>) -> Option<Option<Answer>> {
        let backend = {
            let backends = lock(&self.backends);
            let turn = self.turn.fetch_add(1, Ordering::Relaxed);
            backends.get(turn % backends.len().max(1))?.clone()
        };
        let mut lease = backend.lease(false, WITHIN).await.ok()?;
        let response = lease.sender.send(request).await.ok()?;
        let (head, mut stream) = response.into_parts();
        let (mut body, mut size) = (VecDeque::new(), 0);
        while let Some(frame) = stream.frame().await {
            let Ok(data) = frame.ok()?.into_data() else { continue };
            size += data.len();
            if size > COPY_MOST {
                return Some(None);
            }
            body.push_back(data);
        }
        lease.put_back();
        Some(Some(Answer::new(head.status.as_u16(), &head.headers, body)))
    }

    /// The same, or nothing within the time.
    async fn ask_within(&self, request: Request<ToBackend>) -> Option<Option<Answer>> {
        tokio::time::timeout(WITHIN, self.ask(request)).await.ok().flatten()
    }
}

impl Answer {
    /// What is kept of one.
    pub fn new(status: u16, headers: &HeaderMap, body: VecDeque<Bytes>) -> Answer {
        let packed = headers.get(CONTENT_ENCODING).and_then(|value| value.to_str().ok());
        let gzip = packed.is_some_and(|packed| packed.trim().eq_ignore_ascii_case("gzip"));
        Answer { status, json: is_json(headers), gzip, headers: chosen(headers), body }
    }
}

impl Shadow {
    pub fn new(revision: RevisionName) -> Shadow {
        let counts = Differences { revision: Some(revision.clone()), ..Differences::default() };
        Shadow {
            revision,
            new: Aimed::default(),
            old: Aimed::default(),
            permits: Semaphore::new(AT_ONCE),
            counts: Mutex::new(counts),
            findings: Mutex::default(),
        }
    }

    /// Sends copies to these addresses from now on, and second copies to those of the revision that serves.
    pub fn aim(&self, new: &[SocketAddr], old: &[SocketAddr], protocol: Protocol) {
        self.new.aim(new, protocol);
        self.old.aim(old, protocol);
    }

    pub fn read(&self) -> Differences {
        let mut told = lock(&self.counts).clone();
        lock(&self.findings).tell(&mut told);
        told
    }

    /// Makes a copy and compares, in a task of its own.
    pub fn start(self: &Arc<Self>, request: Request<ToBackend>, taps: Taps) {
        let shadow = self.clone();
        tokio::spawn(async move { shadow.copy(request, taps).await });
    }

    async fn copy(&self, mut request: Request<ToBackend>, taps: Taps) {
        if let Some(body) = taps.request {
            match body.await {
                Ok(body) => *request.body_mut() = ToBackend::Kept(body),
                Err(_) => return lock(&self.counts).dropped += 1,
            }
        }
        let (method, path) = (request.method().to_string(), redact::path(request.uri().path()));
        let (answered, again) = {
            let Ok(_permit) = self.permits.try_acquire() else { return lock(&self.counts).dropped += 1 };
            match taps.answer.as_ref().and_then(|_| self.second(&request)) {
                None => (self.new.ask_within(request).await, None),
                Some(second) => {
                    let (new, old) = tokio::join!(self.new.ask_within(request), self.old.ask_within(second));
                    (new, old.flatten())
                }
            }
        };
        match answered {
            Some(_) => lock(&self.counts).mirrored += 1,
            None => return lock(&self.counts).failed += 1,
        }
        let (Some(tap), Some(shadow)) = (taps.answer, answered.flatten()) else { return };
        let Ok(primary) = tap.await else { return };
        let found = differ(&primary, &shadow);
        let noise = again.map(|again| differ(&primary, &again));
        let mut findings = lock(&self.findings);
        if let Some(noise) = noise {
            findings.noise(noise);
        }
        findings.compared(&method, &path, found);
    }

    /// The request once more, for the revision that serves. Only what changes nothing there is asked twice.
    fn second(&self, request: &Request<ToBackend>) -> Option<Request<ToBackend>> {
        let safe = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
        let body = request.body();
        let turn = self.old.turn.load(Ordering::Relaxed).wrapping_add(self.new.turn.load(Ordering::Relaxed));
        if !safe || !matches!(body, ToBackend::Empty) || !lock(&self.findings).wants_pair(turn) {
            return None;
        }
        let mut second = Request::new(ToBackend::Empty);
        *second.method_mut() = request.method().clone();
        *second.uri_mut() = request.uri().clone();
        *second.version_mut() = request.version();
        *second.headers_mut() = request.headers().clone();
        Some(second)
    }
}

/// Whether a body is JSON, once it is unpacked.
pub(crate) fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    kind == "application/json" || kind.ends_with("+json")
}
