//! The server's end of the connection to one machine, connected or not. Asks; chooses nobody and lets nobody in.

use std::convert::Infallible;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper::{Request, Response, StatusCode};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What is sent with a question.
pub type Body = UnsyncBoxBody<Bytes, io::Error>;

/// A body of one piece.
pub fn one(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never: Infallible| match never {}).boxed_unsync()
}

/// A connection in use.
#[derive(Clone)]
pub struct Wire {
    /// Another one for each connection of this process.
    pub number: u64,
    sender: SendRequest<Body>,
    /// Cancelled when another one takes its place.
    end: CancellationToken,
}

/// One machine.
pub struct Peer {
    wire: watch::Sender<Option<Wire>>,
    silent_since: Mutex<Option<Instant>>,
}

impl Default for Peer {
    /// Not connected.
    fn default() -> Peer {
        Peer { wire: watch::Sender::new(None), silent_since: Mutex::new(Some(Instant::now())) }
    }
}

impl Peer {
    fn since(&self) -> MutexGuard<'_, Option<Instant>> {
        self.silent_since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For how long it has not been connected; none: it is.
    pub fn silent_for(&self) -> Option<Duration> {
        self.since().map(|since| since.elapsed())
    }

    /// The number of its connection; none: it has none.
    pub fn number(&self) -> Option<u64> {
        self.wire.borrow().as_ref().map(|wire| wire.number)
    }

    /// Hears of every connection that comes and goes.
    pub fn connections(&self) -> watch::Receiver<Option<Wire>> {
        self.wire.subscribe()
    }

    /// It came: its connection until that is cancelled or another one takes its place. One that was there before ends.
    pub(crate) fn connect(&self, sender: SendRequest<Body>) -> (u64, CancellationToken) {
        static NUMBERS: AtomicU64 = AtomicU64::new(1);
        let (number, end) = (NUMBERS.fetch_add(1, Ordering::Relaxed), CancellationToken::new());
        *self.since() = None;
        let before = self.wire.send_replace(Some(Wire { number, sender, end: end.clone() }));
        if let Some(before) = before {
            before.end.cancel();
        }
        (number, end)
    }

    /// That connection is gone.
    pub(crate) fn disconnect(&self, number: u64) {
        self.wire.send_if_modified(|wire| {
            let own = wire.as_ref().is_some_and(|wire| wire.number == number);
            if own {
                *wire = None;
                *self.since() = Some(Instant::now());
            }
            own
        });
    }

    /// Its connection ends.
    pub fn close(&self) {
        if let Some(wire) = self.wire.send_replace(None) {
            wire.end.cancel();
        }
    }

    /// Asks. The error is why it was not reached.
    pub async fn send(&self, path: &str, body: Body) -> Result<Response<Incoming>, String> {
        let wire = self.wire.borrow().clone();
        let mut sender = wire.ok_or("it is not connected")?.sender;
        let request = Request::post(format!("http://member{path}")).body(body);
        let request = request.map_err(|error| error.to_string())?;
        sender.ready().await.map_err(|error| error.to_string())?;
        sender.send_request(request).await.map_err(|error| error.to_string())
    }

    /// Asks, and hears the whole answer, of so many bytes at most and within this time. The error is why it was not reached.
    pub async fn ask(
        &self,
        path: &str,
        body: Body,
        most: usize,
        within: Duration,
    ) -> Result<(StatusCode, Bytes), String> {
        let asked = async {
            let answer = self.send(path, body).await?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), most).collect().await;
            Ok((status, body.map_err(|error| error.to_string())?.to_bytes()))
        };
        match tokio::time::timeout(within, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {within:?}")),
        }
    }
}
