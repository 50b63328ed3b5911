//! One request to one revision: which backend, and what is tried again when it fails. Never leaves the revision.
//!
//! Tried again is what provably was not sent, whatever the method; and what may have been sent only if it is
//! idempotent, has no body, and the budget allows it. A user never pays for a connection that died of idleness, and a
//! sick backend never gets a storm of repetitions.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::{Method, Request, Response};

use crate::body::ToBackend;
use crate::count::Tally;
use crate::load::{Loaded, pick};
use crate::pool::Lease;
use crate::router::{Options, Service, Side};

/// Repetitions of one request that may have been sent.
const REPEATS: u32 = 2;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("no instance of it is in rotation")]
    NoBackend,
    #[error("none of its instances takes a connection ({0})")]
    Unreachable(String),
    #[error("its instance broke the connection before it answered ({0})")]
    Broken(hyper::Error),
    #[error("its instance did not begin to answer within {0:?}")]
    TooSlow(Duration),
}

impl Failure {
    /// What the client is told.
    pub fn status(&self) -> u16 {
        match self {
            Failure::NoBackend => 503,
            Failure::Unreachable(_) | Failure::Broken(_) => 502,
            Failure::TooSlow(_) => 504,
        }
    }
}

/// Sends the request and waits until the answer begins.
pub(crate) async fn forward(
    options: &Options,
    service: &Service,
    side: &Side,
    mut request: Request<ToBackend>,
    moved: Option<Arc<AtomicBool>>,
) -> Result<(Response<Incoming>, Lease), Failure> {
    service.earn();
    let (mut tried, mut fresh, mut repeats): (Vec<SocketAddr>, _, _) = (Vec::new(), false, 0);
    let mut last = Failure::NoBackend;
    while let Some(backend) = pick(&side.backends, |backend| tried.contains(&backend.addr), service.draw()) {
        let load = Loaded::on(backend);
        let mut lease = match backend.lease(fresh, options.connect_within).await {
            Ok(lease) => lease,
            Err(error) => {
                Tally::add(&side.tally.connect_failures, 1);
                backend.eject();
                tried.push(backend.addr);
                last = Failure::Unreachable(error.to_string());
                continue;
            }
        };
        let copy = repeatable(&request).then(|| copy(&request));
        let answer = {
            let sending = lease.sender.send(request);
            tokio::pin!(sending);
            loop {
                match tokio::time::timeout(options.answer_within, &mut sending).await {
                    Ok(answer) => break answer,
                    // A long upload is not a slow answer.
                    Err(_) if moved.as_ref().is_some_and(|moved| moved.swap(false, Ordering::Relaxed)) => {}
                    Err(_) => {
                        Tally::add(&side.tally.timeouts, 1);
                        return Err(Failure::TooSlow(options.answer_within));
                    }
                }
            }
        };
        let mut error = match answer {
            Ok(response) => {
                load.answered();
                backend.answered(response.status().as_u16());
                return Ok((response, lease));
            }
            Err(error) => error,
        };
        drop(load);
        let unsent = error.take_message();
        let reused = lease.reused;
        last = Failure::Broken(error.into_error());
        request = match (unsent, copy) {
            (Some(unsent), _) => unsent,
            (None, Some(copy)) if repeats < REPEATS && service.may_retry() => {
                repeats += 1;
                copy
            }
            _ => return Err(last),
        };
        Tally::add(&side.tally.retries, 1);
        // An idle connection may have died of old age. A new one that dies speaks against the backend.
        if !reused {
            tried.push(backend.addr);
        }
        fresh = true;
    }
    Err(last)
}

fn repeatable(request: &Request<ToBackend>) -> bool {
    request.body().is_empty()
        && matches!(
            *request.method(),
            Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
        )
}

fn copy(request: &Request<ToBackend>) -> Request<ToBackend> {
    let mut copy = Request::new(ToBackend::Empty);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    copy
}
