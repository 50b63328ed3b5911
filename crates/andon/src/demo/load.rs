//! The shop's customers: real requests over kept connections to the router, each customer with a cookie of its own. Counts what they saw.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{COOKIE, HOST, SET_COOKIE};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio_util::sync::CancellationToken;

/// Where customers come from: one of eight from each.
const REGIONS: [&str; 8] = ["de", "at", "nl", "fr", "it", "es", "pl", "gb"];
/// What they look at.
const ITEMS: [&str; 4] = ["mug", "shirt", "poster", "pen"];
/// Connections to the router.
const CONNECTIONS: usize = 16;
/// The cookie by which the router knows a customer.
const SUBJECT: &str = "andon-subject=";
/// An answer that takes longer is a failure.
const PATIENCE: Duration = Duration::from_secs(10);

/// How many customers, and how many requests they make in a second.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Customers.
    pub users: usize,
    /// Requests a second, all together.
    pub rate: u32,
}

/// What one revision answered.
#[derive(Debug, Clone)]
pub struct Answers {
    /// All its answers.
    pub requests: u64,
    /// Those that were no 2xx.
    pub failures: u64,
    /// Who got them.
    pub users: HashSet<usize>,
    /// Who saw a failure.
    pub hurt: HashSet<usize>,
    /// When the first one came.
    pub first: Instant,
    /// When the last one came.
    pub last: Instant,
}

/// What was seen since a moment.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Requests.
    pub requests: u64,
    /// Those without a good answer.
    pub failures: u64,
    /// Customers who saw a failure.
    pub hurt: HashSet<usize>,
    /// By revision, where one answered.
    pub by: BTreeMap<String, Answers>,
    /// The last failures, in words.
    pub words: Vec<String>,
}

/// Customers at work.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    stop: CancellationToken,
}

#[derive(Debug, Default)]
struct Shared {
    /// Since the last `begin`, and since the start.
    seen: Mutex<(Seen, Seen)>,
    more: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, (Seen, Seen)> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, user: usize, answer: &Result<(u16, Option<String>), String>) {
        let mut seen = self.lock();
        let (now, (lately, ever)) = (Instant::now(), &mut *seen);
        for seen in [lately, ever] {
            seen.count(user, answer, now);
        }
        self.more.notify_all();
    }
}

impl Seen {
    fn count(&mut self, user: usize, answer: &Result<(u16, Option<String>), String>, now: Instant) {
        self.requests += 1;
        let failed = !matches!(answer, Ok((200..300, _)));
        if failed {
            self.failures += 1;
            self.hurt.insert(user);
            if self.words.len() < 20 {
                self.words.push(format!("{answer:?}"));
            }
        }
        let Ok((_, Some(revision))) = answer else { return };
        if !self.by.contains_key(revision) {
            let none = Answers {
                requests: 0,
                failures: 0,
                users: HashSet::new(),
                hurt: HashSet::new(),
                first: now,
                last: now,
            };
            self.by.insert(revision.clone(), none);
        }
        let Some(by) = self.by.get_mut(revision) else { return };
        (by.requests, by.failures, by.last) = (by.requests + 1, by.failures + u64::from(failed), now);
        by.users.insert(user);
        if failed {
            by.hurt.insert(user);
        }
    }

    /// What a revision answered; the server's name of it may be longer than the commit.
    pub fn of(&self, revision: &str) -> Option<&Answers> {
        self.by.get(revision)
    }
}

impl Load {
    /// Customers begin to ask `host` at the router.
    pub fn start(runtime: &tokio::runtime::Handle, router: SocketAddr, host: &str, shape: Shape) -> Load {
        let (shared, stop) = (Arc::<Shared>::default(), CancellationToken::new());
        for lane in 0..CONNECTIONS {
            let (shared, stop, host) = (Arc::clone(&shared), stop.clone(), host.to_owned());
            runtime.spawn(async move {
                let lane = Lane { lane, router, host, shape, shared };
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = lane.run() => {}
                }
            });
        }
        Load { shared, stop }
    }

    /// Counts anew.
    pub fn begin(&self) {
        self.shared.lock().0 = Seen::default();
    }

    /// What was seen since `begin`.
    pub fn seen(&self) -> Seen {
        self.shared.lock().0.clone()
    }

    /// What was seen since the start.
    pub fn ever(&self) -> Seen {
        self.shared.lock().1.clone()
    }

    /// Waits until so many more requests were answered.
    pub fn more(&self, requests: u64) -> Result<(), String> {
        let seen = self.shared.lock();
        let wanted = seen.1.requests + requests;
        let limit = Duration::from_secs(30);
        let (seen, late) = self
            .shared
            .more
            .wait_timeout_while(seen, limit, |seen| seen.1.requests < wanted)
            .unwrap_or_else(PoisonError::into_inner);
        match late.timed_out() {
            true => Err(format!("customers got only {} of {wanted} answers", seen.1.requests)),
            false => Ok(()),
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// One connection and the customers who use it.
struct Lane {
    lane: usize,
    router: SocketAddr,
    host: String,
    shape: Shape,
    shared: Arc<Shared>,
}

type Sender = SendRequest<Full<Bytes>>;

impl Lane {
    async fn run(self) {
        let period = Duration::from_secs(CONNECTIONS as u64) / self.shape.rate;
        // Spread evenly: sixteen requests at once and then a pause would be no crowd of customers.
        let first = period * self.lane as u32 / CONNECTIONS as u32;
        let mut tick = tokio::time::interval_at(tokio::time::Instant::now() + first, period);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut cookies: BTreeMap<usize, String> = BTreeMap::new();
        let (mut connection, mut user, mut round) = (None, self.lane, 0);
        loop {
            tick.tick().await;
            let asked = self.ask(&mut connection, user, round, &mut cookies);
            let answer = match tokio::time::timeout(PATIENCE, asked).await {
                Ok(answer) => answer,
                Err(_) => Err("no answer".to_owned()),
            };
            if answer.is_err() {
                connection = None;
            }
            self.shared.count(user, &answer);
            user += CONNECTIONS;
            if user >= self.shape.users {
                (user, round) = (self.lane, round + 1);
            }
        }
    }

    async fn ask(
        &self,
        connection: &mut Option<Sender>,
        user: usize,
        round: usize,
        cookies: &mut BTreeMap<usize, String>,
    ) -> Result<(u16, Option<String>), String> {
        if connection.as_ref().is_none_or(SendRequest::is_closed) {
            *connection = Some(connect(self.router).await?);
        }
        let Some(sender) = connection else { return Err("not connected".into()) };
        let request = self.request(user, round, cookies.get(&user)).map_err(|error| error.to_string())?;
        sender.ready().await.map_err(|error| error.to_string())?;
        let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let text = |name: &str| Some(answer.headers().get(name)?.to_str().ok()?.to_owned());
        let (status, revision) = (answer.status().as_u16(), text("x-andon-revision"));
        let given = answer.headers().get(SET_COOKIE).and_then(|value| value.to_str().ok());
        if let Some(given) = given.filter(|given| given.starts_with(SUBJECT)) {
            cookies.insert(user, given.split(';').next().unwrap_or_default().to_owned());
        }
        answer.into_body().collect().await.map_err(|error| error.to_string())?;
        Ok((status, revision))
    }

    fn request(
        &self,
        user: usize,
        round: usize,
        cookie: Option<&String>,
    ) -> Result<Request<Full<Bytes>>, http::Error> {
        let (item, region) = (ITEMS[(user / 8 + round) % 4], REGIONS[user / CONNECTIONS % 8]);
        let count = 1 + (user / 3 + round) % 12;
        let order = format!("item={item}&count={count}&region={region}");
        let (method, path) = match (user / 5 + round) % 4 {
            0 => (Method::GET, format!("/price?{order}")),
            1 => (Method::POST, format!("/checkout?{order}")),
            _ => (Method::GET, format!("/checkout?{order}")),
        };
        let body = if method == Method::POST { Bytes::from_static(b"{}") } else { Bytes::new() };
        let mut request = Request::builder().method(method).uri(path).header(HOST, &self.host);
        if let Some(cookie) = cookie {
            request = request.header(COOKIE, cookie);
        }
        request.body(Full::new(body))
    }
}

async fn connect(router: SocketAddr) -> Result<Sender, String> {
    let stream = tokio::net::TcpStream::connect(router).await.map_err(|error| error.to_string())?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    tokio::spawn(connection);
    Ok(sender)
}
