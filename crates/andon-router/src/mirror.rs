//! Dark traffic: copies of requests to a revision that answers nobody, and what its answers would have been.
//!
//! The user's request never waits for a copy. What would cost too much - a long body, too many copies at once, a slow
//! shadow - is dropped and counted.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Request;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};
use tokio::sync::{Semaphore, oneshot};

use crate::body::{COPY_MOST, ToBackend};
use crate::differ::{Answer, Differs, differ};
use crate::pool::Backend;
use crate::table::{Protocol, RevisionName};

/// Copies under way at once, for each mirror.
const AT_ONCE: usize = 64;
/// From the connection to the last byte of a shadow's answer.
const WITHIN: Duration = Duration::from_secs(5);
/// Differences that are kept to be looked at.
const KEPT: usize = 20;

/// What a mirror has found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Differences {
    /// The revision that saw the copies.
    pub revision: Option<RevisionName>,
    /// Copies that were answered.
    pub mirrored: u64,
    /// Answers that were compared: both complete and at most 256 KB.
    pub compared: u64,
    /// Compared answers that said something else.
    pub different: u64,
    /// Copies not made: too long a body, or too many under way.
    pub dropped: u64,
    /// Copies that the shadow did not answer, or not within 5 s.
    pub failed: u64,
    /// The last 20 differences, oldest first.
    pub last: Vec<Difference>,
}

/// One answer of the shadow that was another one than the user's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Of the request.
    pub method: String,
    /// Of the request, without its query, where secrets stand.
    pub path: String,
    /// What the user got.
    pub primary_status: u16,
    /// What the user would have got.
    pub shadow_status: u16,
    /// Where they differ: `status`, `body /items/0/price`, `body, byte 17`.
    pub at: String,
    /// What the user's answer says there.
    pub primary: String,
    /// What the shadow's answer says there.
    pub shadow: String,
}

/// A mirror at work: its own connections, its counts.
pub(crate) struct Shadow {
    pub revision: RevisionName,
    backends: Mutex<Vec<Arc<Backend>>>,
    turn: AtomicUsize,
    permits: Semaphore,
    found: Mutex<Differences>,
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

impl Shadow {
    pub fn new(revision: RevisionName) -> Shadow {
        let found = Differences { revision: Some(revision.clone()), ..Differences::default() };
        Shadow {
            revision,
            backends: Mutex::default(),
            turn: AtomicUsize::new(0),
            permits: Semaphore::new(AT_ONCE),
            found: Mutex::new(found),
        }
    }

    /// Sends copies to these addresses from now on.
    pub fn aim(&self, addrs: &[SocketAddr], protocol: Protocol) {
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

    pub fn read(&self) -> Differences {
        lock(&self.found).clone()
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
                Err(_) => return lock(&self.found).dropped += 1,
            }
        }
        let (method, path) = (request.method().to_string(), request.uri().path().to_owned());
        let answer = {
            let Ok(_permit) = self.permits.try_acquire() else { return lock(&self.found).dropped += 1 };
            tokio::time::timeout(WITHIN, self.ask(request)).await
        };
        let shadow = match answer {
            Ok(Some((status, body))) => {
                lock(&self.found).mirrored += 1;
                body.map(|(json, body)| Answer { status, json, body })
            }
            _ => return lock(&self.found).failed += 1,
        };
        let (Some(tap), Some(shadow)) = (taps.answer, shadow) else { return };
        let Ok(primary) = tap.await else { return };
        let differs = differ(&primary, &shadow);
        let mut found = lock(&self.found);
        found.compared += 1;
        let Some(Differs { at, primary: said, shadow: would_say }) = differs else { return };
        found.different += 1;
        if found.last.len() == KEPT {
            found.last.remove(0);
        }
        let (primary_status, shadow_status) = (primary.status, shadow.status);
        found.last.push(Difference {
            method,
            path,
            primary_status,
            shadow_status,
            at,
            primary: said,
            shadow: would_say,
        });
    }

    /// Status and, unless it is too long, whether it is JSON and the body.
    async fn ask(&self, request: Request<ToBackend>) -> Option<(u16, Option<(bool, VecDeque<Bytes>)>)> {
        let backend = {
            let backends = lock(&self.backends);
            let turn = self.turn.fetch_add(1, Ordering::Relaxed);
            backends.get(turn % backends.len().max(1))?.clone()
        };
        let mut lease = backend.lease(false, WITHIN).await.ok()?;
        let response = lease.sender.send(request).await.ok()?;
        let (head, mut body) = response.into_parts();
        let (mut chunks, mut size) = (VecDeque::new(), 0);
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.ok()?.into_data() else { continue };
            size += data.len();
            if size > COPY_MOST {
                return Some((head.status.as_u16(), None));
            }
            chunks.push_back(data);
        }
        lease.put_back();
        Some((head.status.as_u16(), Some((is_json(&head.headers), chunks))))
    }
}

/// Whether a body is JSON as it stands.
pub(crate) fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    (kind == "application/json" || kind.ends_with("+json")) && !headers.contains_key(CONTENT_ENCODING)
}
