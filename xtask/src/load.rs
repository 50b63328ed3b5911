//! Load in an open loop: requests leave when they are due, whether earlier ones were answered or not; each belongs to one of many users.
//! Counts every answer that is not 200.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

/// Connections side by side: each sends its share of the requests.
const CONNECTIONS: u64 = 64;
/// Users that the requests belong to.
const USERS: u64 = 5_000;
/// An answer that takes longer has failed.
const TOO_LONG: Duration = Duration::from_secs(10);

/// One answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Since the load began.
    pub at: Duration,
    /// From when it was due.
    pub took: Duration,
    /// What it said; the error where it failed.
    pub said: Result<String, String>,
}

/// Load that runs until it is stopped.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: std::thread::JoinHandle<Vec<Answer>>,
}

impl Load {
    /// Begins to send so many requests a second to this host behind the router.
    pub fn begin(router: SocketAddr, host: &str, per_second: u64) -> Load {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (ends, counts, host) = (Arc::clone(&stop), Arc::clone(&sent), host.to_owned());
        let thread = std::thread::spawn(move || {
            let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
                return Vec::new();
            };
            runtime.block_on(async move {
                let begun = Instant::now();
                let mut workers = tokio::task::JoinSet::new();
                for first in 0..CONNECTIONS {
                    let (ends, counts, host) = (Arc::clone(&ends), Arc::clone(&counts), host.clone());
                    workers.spawn(work(router, host, first, per_second, begun, ends, counts));
                }
                let mut all = Vec::new();
                while let Some(done) = workers.join_next().await {
                    all.extend(done.unwrap_or_default());
                }
                all.sort_by_key(|answer: &Answer| answer.at);
                all
            })
        });
        Load { stop, sent, thread }
    }

    /// Requests answered so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Stops and gives all answers by the time at which they came.
    pub fn end(self) -> Vec<Answer> {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().unwrap_or_default()
    }
}

async fn work(
    router: SocketAddr,
    host: String,
    first: u64,
    per_second: u64,
    begun: Instant,
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
) -> Vec<Answer> {
    let mut answers = Vec::new();
    let mut connection = None;
    let mut number = first;
    while !stop.load(Ordering::SeqCst) {
        let due = begun + Duration::from_nanos(number * 1_000_000_000 / per_second);
        tokio::time::sleep_until(due).await;
        let said =
            match tokio::time::timeout(TOO_LONG, ask(&mut connection, router, &host, number % USERS)).await {
                Ok(said) => said,
                Err(_) => Err(format!("no answer in {TOO_LONG:?}")),
            };
        if said.is_err() {
            connection = None;
        }
        sent.fetch_add(1, Ordering::Relaxed);
        answers.push(Answer { at: begun.elapsed(), took: due.elapsed(), said });
        number += CONNECTIONS;
    }
    answers
}

async fn ask(
    connection: &mut Option<SendRequest<Empty<Bytes>>>,
    router: SocketAddr,
    host: &str,
    user: u64,
) -> Result<String, String> {
    // The router may close a connection after an answer, and says so: then a new one is made. That is no failure.
    if connection.as_ref().is_none_or(SendRequest::is_closed) {
        let stream = tokio::net::TcpStream::connect(router).await.map_err(|error| error.to_string())?;
        let (sender, driver) = handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        tokio::spawn(driver);
        *connection = Some(sender);
    }
    let Some(sender) = connection else { return Err("not connected".into()) };
    sender.ready().await.map_err(|error| error.to_string())?;
    let request = hyper::Request::get("/")
        .header("host", host)
        .header("cookie", format!("andon-subject={user:032x}"))
        .body(Empty::new())
        .map_err(|error| error.to_string())?;
    let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
    let status = answer.status();
    let body = answer.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
    let body = String::from_utf8_lossy(&body).into_owned();
    if status == 200 { Ok(body) } else { Err(format!("{status}: {body}")) }
}
