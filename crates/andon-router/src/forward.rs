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
use crate::pool::{Backend, Lease};
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

/// A connection's request count on its backend, for choosing the least busy.
struct Load(Arc<Backend>);
impl Load {
    fn on(backend: &Arc<Backend>) -> Load {
        backend.in_flight.fetch_add(1, Ordering::Relaxed);
        Load(backend.clone())
    }
}
impl Drop for Load {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The least busy backend that was not tried and is not left alone; of equals, each in turn. If all are left alone,
/// trying one is better than refusing.
fn pick<'a>(backends: &'a [Arc<Backend>], tried: &[SocketAddr], turn: usize) -> Option<&'a Arc<Backend>> {
    let count = backends.len();
    (0..count)
        .map(|at| &backends[(at + turn) % count])
        .filter(|backend| !tried.contains(&backend.addr))
        .min_by_key(|backend| (count > 1 && backend.ejected(), backend.in_flight.load(Ordering::Relaxed)))
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
    let turn = service.turn.fetch_add(1, Ordering::Relaxed);
    let (mut tried, mut fresh, mut repeats) = (Vec::new(), false, 0);
    let mut last = Failure::NoBackend;
    while let Some(backend) = pick(&side.backends, &tried, turn) {
        let load = Load::on(backend);
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
            let sending = lease.sender.try_send_request(request);
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
        drop(load);
        let mut error = match answer {
            Ok(response) => {
                backend.answered();
                return Ok((response, lease));
            }
            Err(error) => error,
        };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_busy_is_asked_first_and_equals_take_turns() {
        let backends: Vec<_> =
            (1..=3).map(|port| Backend::new(SocketAddr::from(([127, 0, 0, 1], port)))).collect();
        let port = |tried: &[SocketAddr], turn| pick(&backends, tried, turn).map(|b| b.addr.port());
        assert_eq!([port(&[], 0), port(&[], 1), port(&[], 2)], [Some(1), Some(2), Some(3)]);
        let _busy = Load::on(&backends[0]);
        assert_eq!(port(&[], 0), Some(2));
        backends[1].eject();
        assert_eq!(port(&[], 0), Some(3));
        assert_eq!(port(&[backends[2].addr], 0), Some(1));
        assert_eq!(port(&[backends[0].addr, backends[2].addr], 0), Some(2), "ejected, but the last one left");
    }
}
