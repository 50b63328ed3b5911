//! Connections to one backend: reuse, opening, and leaving a backend alone for a while when it refuses. How busy and how quick it is stands in `load`.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;

use crate::body::ToBackend;
use crate::load::Load;
use crate::table::Protocol;

/// Many servers close an idle connection after 5 s: ours are younger, so that a request rarely meets the closing.
const IDLE_MOST: Duration = Duration::from_secs(4);
/// Idle connections kept for each backend.
const IDLE_COUNT: usize = 64;
/// How long a backend that refused is left alone: this, doubling up to the next.
const EJECT_FIRST: Duration = Duration::from_secs(1);
const EJECT_MOST: Duration = Duration::from_secs(10);

/// Gateway errors in a row after which a backend is left alone.
const ERRORS_IN_A_ROW: usize = 5;
/// A connection with many streams is asked for a sign of life this often, and has as long to give it.
const ALIVE: Duration = Duration::from_secs(10);

type Single = http1::SendRequest<ToBackend>;
type Shared = http2::SendRequest<ToBackend>;

/// One address where an instance listens.
pub(crate) struct Backend {
    pub addr: SocketAddr,
    pub protocol: Protocol,
    idle: Mutex<Vec<(Single, Instant)>>,
    /// The connection that all requests of HTTP/2 share.
    shared: Mutex<Option<Shared>>,
    retired: AtomicBool,
    pub load: Load,
    ejection: Mutex<Ejection>,
    errors_in_a_row: AtomicUsize,
}

#[derive(Default)]
struct Ejection {
    until: Option<Instant>,
    next: Option<Duration>,
}

/// What sends one request.
pub(crate) enum Sender {
    /// Over a connection of its own.
    Single(Single),
    /// As a stream of one that others use, too.
    Shared(Shared),
}

impl Sender {
    pub async fn send(
        &mut self,
        request: Request<ToBackend>,
    ) -> Result<Response<Incoming>, TrySendError<Request<ToBackend>>> {
        match self {
            Sender::Single(sender) => sender.try_send_request(request).await,
            Sender::Shared(sender) => sender.try_send_request(request).await,
        }
    }
}

/// A connection in use. Dropped without [`Lease::put_back`] it closes.
pub(crate) struct Lease {
    backend: Arc<Backend>,
    pub sender: Sender,
    /// Whether an earlier request went over it.
    pub reused: bool,
    /// False for a connection whose next bytes are not certain to be an answer.
    pub reusable: bool,
}

/// Why no connection came about.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("it refused the connection: {0}")]
    Refused(std::io::Error),
    #[error("it did not accept the connection in time")]
    TimedOut,
    #[error("the connection closed at once: {0}")]
    Closed(hyper::Error),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Backend {
    pub fn new(addr: SocketAddr, protocol: Protocol) -> Arc<Backend> {
        Arc::new(Backend {
            addr,
            protocol,
            idle: Mutex::default(),
            shared: Mutex::default(),
            retired: AtomicBool::new(false),
            load: Load::default(),
            ejection: Mutex::default(),
            errors_in_a_row: AtomicUsize::new(0),
        })
    }

    /// A connection: one that is there already unless `fresh` is wanted.
    pub async fn lease(self: &Arc<Self>, fresh: bool, within: Duration) -> Result<Lease, ConnectError> {
        let lease = |sender, reused| Lease { backend: self.clone(), sender, reused, reusable: true };
        if !fresh && let Some(sender) = self.ready() {
            return Ok(lease(sender, true));
        }
        let connected = tokio::time::timeout(within, TcpStream::connect(self.addr)).await;
        let stream = connected.map_err(|_| ConnectError::TimedOut)?.map_err(ConnectError::Refused)?;
        stream.set_nodelay(true).map_err(ConnectError::Refused)?;
        let stream = TokioIo::new(stream);
        // A connection's task ends with the sender, or with the backend; either way whoever waits for the answer hears of it there.
        match self.protocol {
            Protocol::Http1 => {
                let made = http1::Builder::new().handshake(stream).await;
                let (sender, connection) = made.map_err(ConnectError::Closed)?;
                tokio::spawn(connection.with_upgrades());
                Ok(lease(Sender::Single(sender), false))
            }
            Protocol::Http2 => {
                let mut builder = http2::Builder::new(TokioExecutor::new());
                builder.timer(TokioTimer::new()).keep_alive_interval(ALIVE).keep_alive_timeout(ALIVE);
                let made = builder.adaptive_window(true).handshake(stream).await;
                let (sender, connection) = made.map_err(ConnectError::Closed)?;
                tokio::spawn(connection);
                if !self.retired.load(Ordering::SeqCst) {
                    *lock(&self.shared) = Some(sender.clone());
                }
                Ok(lease(Sender::Shared(sender), false))
            }
        }
    }

    fn ready(&self) -> Option<Sender> {
        match self.protocol {
            Protocol::Http1 => self.take_idle().map(Sender::Single),
            Protocol::Http2 => {
                let shared = lock(&self.shared);
                shared.as_ref().filter(|sender| !sender.is_closed()).cloned().map(Sender::Shared)
            }
        }
    }

    fn take_idle(&self) -> Option<Single> {
        let mut idle = lock(&self.idle);
        while let Some((sender, since)) = idle.pop() {
            // Youngest first: the rest are older still.
            if since.elapsed() > IDLE_MOST {
                idle.clear();
                return None;
            }
            if sender.is_ready() {
                return Some(sender);
            }
        }
        None
    }

    fn keep(&self, sender: Single) {
        let mut idle = lock(&self.idle);
        let expired = idle.iter().take_while(|(_, since)| since.elapsed() > IDLE_MOST).count();
        idle.drain(..expired);
        if idle.len() < IDLE_COUNT && !self.retired.load(Ordering::SeqCst) {
            idle.push((sender, Instant::now()));
        }
    }

    fn forget(&self) {
        lock(&self.idle).clear();
        *lock(&self.shared) = None;
    }

    /// It left the table: idle connections close, those in use close when they are done.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::SeqCst);
        self.forget();
    }

    /// It is in the table again.
    pub fn enlist(&self) {
        if self.retired.swap(false, Ordering::SeqCst) {
            self.load.begin();
        }
    }

    /// It refused: others go first for a while, each time longer.
    pub fn eject(&self) {
        let mut ejection = lock(&self.ejection);
        let span = ejection.next.unwrap_or(EJECT_FIRST);
        ejection.until = Some(Instant::now() + span);
        ejection.next = Some((span * 2).min(EJECT_MOST));
        drop(ejection);
        self.errors_in_a_row.store(0, Ordering::Relaxed);
        self.forget();
    }

    /// It answered. Answers that say that nothing behind it works count against it when they come in a row.
    pub fn answered(&self, status: u16) {
        if (502..=504).contains(&status) {
            if self.errors_in_a_row.fetch_add(1, Ordering::Relaxed) + 1 == ERRORS_IN_A_ROW {
                self.eject();
            }
            return;
        }
        if self.errors_in_a_row.load(Ordering::Relaxed) > 0 {
            self.errors_in_a_row.store(0, Ordering::Relaxed);
        }
        let mut ejection = lock(&self.ejection);
        if ejection.next.is_some() {
            *ejection = Ejection::default();
            drop(ejection);
            self.load.begin();
        }
    }

    pub fn ejected(&self) -> bool {
        lock(&self.ejection).until.is_some_and(|until| Instant::now() < until)
    }
}

impl Lease {
    /// The exchange is over and the connection may serve another.
    pub fn put_back(self) {
        let Sender::Single(mut sender) = self.sender else { return };
        if !self.reusable || sender.is_closed() {
            return;
        }
        if sender.is_ready() {
            return self.backend.keep(sender);
        }
        // The connection's own task has to notice the end first. If it does not soon, the request body is still being
        // sent and the connection is not worth waiting for.
        let backend = self.backend;
        tokio::spawn(async move {
            if let Ok(Ok(())) = tokio::time::timeout(Duration::from_secs(1), sender.ready()).await {
                backend.keep(sender);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_backend_that_refuses_is_left_alone_until_it_answers() {
        let backend = Backend::new("127.0.0.1:1".parse().unwrap(), Protocol::Http1);
        assert!(backend.lease(false, Duration::from_secs(2)).await.is_err());
        backend.eject();
        assert!(backend.ejected());
        for _ in 0..9 {
            backend.eject();
        }
        assert_eq!(lock(&backend.ejection).next, Some(EJECT_MOST));
        backend.answered(200);
        assert!(!backend.ejected());
    }

    #[test]
    fn five_gateway_errors_in_a_row_are_as_good_as_a_refusal() {
        let backend = Backend::new("127.0.0.1:1".parse().unwrap(), Protocol::Http1);
        for _ in 0..9 {
            [503, 502, 504, 503, 500].into_iter().for_each(|status| backend.answered(status));
        }
        assert!(!backend.ejected(), "an error of its own is an answer");
        [503; 5].into_iter().for_each(|status| backend.answered(status));
        assert!(backend.ejected());
    }
}
