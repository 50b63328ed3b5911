//! Connections to one backend: reuse, opening, and leaving a backend alone for a while when it refuses.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::body::ToBackend;

/// Many servers close an idle connection after 5 s: ours are younger, so that a request rarely meets the closing.
const IDLE_MOST: Duration = Duration::from_secs(4);
/// Idle connections kept for each backend.
const IDLE_COUNT: usize = 64;
/// How long a backend that refused is left alone: this, doubling up to the next.
const EJECT_FIRST: Duration = Duration::from_secs(1);
const EJECT_MOST: Duration = Duration::from_secs(10);

pub(crate) type Sender = SendRequest<ToBackend>;

/// One address where an instance listens.
pub(crate) struct Backend {
    pub addr: SocketAddr,
    idle: Mutex<Vec<(Sender, Instant)>>,
    retired: AtomicBool,
    pub in_flight: AtomicUsize,
    ejection: Mutex<Ejection>,
}

#[derive(Default)]
struct Ejection {
    until: Option<Instant>,
    next: Option<Duration>,
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
    pub fn new(addr: SocketAddr) -> Arc<Backend> {
        Arc::new(Backend {
            addr,
            idle: Mutex::default(),
            retired: AtomicBool::new(false),
            in_flight: AtomicUsize::new(0),
            ejection: Mutex::default(),
        })
    }

    /// A connection: an idle one unless `fresh` is wanted.
    pub async fn lease(self: &Arc<Self>, fresh: bool, within: Duration) -> Result<Lease, ConnectError> {
        if !fresh && let Some(sender) = self.take_idle() {
            return Ok(Lease { backend: self.clone(), sender, reused: true, reusable: true });
        }
        let connected = tokio::time::timeout(within, TcpStream::connect(self.addr)).await;
        let stream = connected.map_err(|_| ConnectError::TimedOut)?.map_err(ConnectError::Refused)?;
        stream.set_nodelay(true).map_err(ConnectError::Refused)?;
        let (sender, connection) =
            Builder::new().handshake(TokioIo::new(stream)).await.map_err(ConnectError::Closed)?;
        // It ends with the sender, or with the backend; either way whoever waits for the answer hears of it there.
        tokio::spawn(connection.with_upgrades());
        Ok(Lease { backend: self.clone(), sender, reused: false, reusable: true })
    }

    fn take_idle(&self) -> Option<Sender> {
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

    fn keep(&self, sender: Sender) {
        let mut idle = lock(&self.idle);
        let expired = idle.iter().take_while(|(_, since)| since.elapsed() > IDLE_MOST).count();
        idle.drain(..expired);
        if idle.len() < IDLE_COUNT && !self.retired.load(Ordering::SeqCst) {
            idle.push((sender, Instant::now()));
        }
    }

    /// It left the table: idle connections close, those in use close when they are done.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::SeqCst);
        lock(&self.idle).clear();
    }

    /// It is in the table again.
    pub fn enlist(&self) {
        self.retired.store(false, Ordering::SeqCst);
    }

    /// It refused: others go first for a while, each time longer.
    pub fn eject(&self) {
        let mut ejection = lock(&self.ejection);
        let span = ejection.next.unwrap_or(EJECT_FIRST);
        ejection.until = Some(Instant::now() + span);
        ejection.next = Some((span * 2).min(EJECT_MOST));
        lock(&self.idle).clear();
    }

    /// It answered.
    pub fn answered(&self) {
        let mut ejection = lock(&self.ejection);
        if ejection.next.is_some() {
            *ejection = Ejection::default();
        }
    }

    pub fn ejected(&self) -> bool {
        lock(&self.ejection).until.is_some_and(|until| Instant::now() < until)
    }
}

impl Lease {
    /// The exchange is over and the connection may serve another.
    pub fn put_back(self) {
        if !self.reusable || self.sender.is_closed() {
            return;
        }
        if self.sender.is_ready() {
            return self.backend.keep(self.sender);
        }
        // The connection's own task has to notice the end first. If it does not soon, the request body is still being
        // sent and the connection is not worth waiting for.
        let (backend, mut sender) = (self.backend, self.sender);
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
        let backend = Backend::new("127.0.0.1:1".parse().unwrap());
        assert!(backend.lease(false, Duration::from_secs(2)).await.is_err());
        backend.eject();
        assert!(backend.ejected());
        for _ in 0..9 {
            backend.eject();
        }
        assert_eq!(lock(&backend.ejection).next, Some(EJECT_MOST));
        backend.answered();
        assert!(!backend.ejected());
    }
}
