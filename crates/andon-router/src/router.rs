//! The table in force and what outlives it: pools, counters, requests in flight.
//!
//! Switching is one store. A request that read the old table at that very moment is found out by the version that is
//! read again after it was counted as in flight: either it sees the new version and chooses anew, or whoever waits for
//! the old revision to drain sees it in flight. No request slips between.

use std::collections::HashMap;
use std::hash::Hasher;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use siphasher::sip::SipHasher13;
use tokio::sync::Notify;

use andon_traffic::Differences;

use crate::access::AccessLog;
use crate::count::{Signals, Tally};
use crate::mirror::Shadow;
use crate::pool::Backend;
use crate::signals::{Arm, ServiceSignals};
use crate::sleep::{LastUse, Sleep};
use crate::subject;
use crate::table::{self, By, Forced, Protocol, RevisionName, Route, RouteTable, TableError};

/// Where an authority of certificates looks.
const CHALLENGES: &str = "/.well-known/acme-challenge/";

/// Limits of a router.
#[derive(Debug, Clone)]
pub struct Options {
    /// For a backend to accept a connection.
    pub connect_within: Duration,
    /// For an answer to begin, counted from the last byte of the request that moved.
    pub answer_within: Duration,
    /// Requests under way at once; further ones are answered 503.
    pub max_in_flight: usize,
    /// The largest head of a request, in bytes.
    pub max_head: usize,
    /// For a client to send the head of a request.
    pub head_within: Duration,
    /// How long requests may go on after `serve` was told to end.
    pub drain_within: Duration,
    /// For a connection of HTTP/2 on which nothing happens.
    pub idle_within: Duration,
    /// Requests under way at once on one connection of HTTP/2.
    pub max_streams: u32,
    /// Where answers are written down.
    pub access: Option<AccessLog>,
    /// Something that ends TLS stands in front: `x-forwarded-host` and `-proto` of a request are kept.
    pub behind_proxy: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            connect_within: Duration::from_secs(2),
            answer_within: Duration::from_secs(30),
            max_in_flight: 10_000,
            max_head: 64 * 1024,
            head_within: Duration::from_secs(30),
            drain_within: Duration::from_secs(30),
            idle_within: Duration::from_secs(120),
            max_streams: 200,
            access: None,
            behind_proxy: false,
        }
    }
}

/// Sends requests where the table says. Clones are the same router.
#[derive(Clone)]
pub struct Router {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub options: Options,
    table: ArcSwap<Table>,
    version: AtomicU64,
    services: Mutex<HashMap<String, Arc<Service>>>,
    pub in_flight: AtomicUsize,
    pub sleep: Sleep,
    pub began: Instant,
    pub fingerprint_key: (u64, u64),
    /// Requests that were given a name.
    named: AtomicU64,
    /// Answers to who proves that this host is ours, by path.
    challenges: ArcSwap<HashMap<String, String>>,
}

/// A route table as requests read it.
#[derive(Default)]
struct Table {
    hosts: HashMap<String, Arc<Plan>>,
}

/// One service's route as requests read it.
pub(crate) struct Plan {
    pub service: Arc<Service>,
    /// Names the epoch in the signals.
    pub key: u64,
    pub stable: Side,
    pub candidate: Option<(Side, u16, String)>,
    pub mirror: Option<(Arc<Shadow>, table::Mirror)>,
    pub subject_header: Option<HeaderName>,
    /// The service's name, while it sleeps.
    pub asleep: Option<String>,
    pub protocol: Protocol,
    forced: Vec<Forced>,
}

/// One revision as a plan offers it.
pub(crate) struct Side {
    pub revision: Arc<Revision>,
    pub label: HeaderValue,
    pub backends: Vec<Arc<Backend>>,
    pub tally: Arc<Tally>,
}

/// What outlives tables: counters of a service.
#[derive(Default)]
pub(crate) struct Service {
    /// `project/environment/service`.
    pub name: String,
    pub signals: Signals,
    revisions: Mutex<HashMap<RevisionName, Arc<Revision>>>,
    shadow: Mutex<Option<Arc<Shadow>>>,
    /// Tenths of a retry that may still be made; each request earns two.
    budget: AtomicI64,
    pub mirror_turn: AtomicU64,
    pub last_use: LastUse,
    draws: AtomicU64,
}

/// What outlives tables: connections and requests of a revision.
#[derive(Default)]
pub(crate) struct Revision {
    in_flight: AtomicUsize,
    empty: Notify,
    backends: Mutex<HashMap<SocketAddr, Arc<Backend>>>,
}

/// A request in flight, counted for its revision and the router until dropped.
pub(crate) struct Busy {
    inner: Arc<Inner>,
    revision: Arc<Revision>,
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.inner.in_flight.fetch_sub(1, Ordering::SeqCst);
        self.revision.leave();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Default for Router {
    fn default() -> Router {
        Router::new()
    }
}

impl Router {
    /// A router that knows no host yet.
    pub fn new() -> Router {
        Router::with(Options::default())
    }

    /// One with other limits.
    pub fn with(options: Options) -> Router {
        let mut key = [0u8; 16];
        getrandom::fill(&mut key).expect("the operating system gives random bytes");
        let (a, b) = key.split_at(8);
        let word = |bytes: &[u8]| bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        let inner = Inner {
            options,
            table: ArcSwap::default(),
            version: AtomicU64::new(0),
            services: Mutex::default(),
            in_flight: AtomicUsize::new(0),
            sleep: Sleep::default(),
            began: Instant::now(),
            fingerprint_key: (word(a), word(b)),
            named: AtomicU64::new(0),
            challenges: ArcSwap::default(),
        };
        Router { inner: Arc::new(inner) }
    }

    /// Puts a table into force, wholly or (with an error) not at all. Every request that arrives from now on goes by
    /// it; those in flight end where they are. Connections and counters of what stays are kept.
    pub fn set(&self, table: RouteTable) -> Result<(), TableError> {
        table::check(&table)?;
        let mut services = lock(&self.inner.services);
        let mut hosts = HashMap::new();
        for route in &table.routes {
            let new = || Arc::new(Service { name: route.service.clone(), ..Service::default() });
            let service = services.entry(route.service.clone()).or_insert_with(new).clone();
            let plan = Arc::new(Plan::new(service, route));
            hosts.extend(route.hosts.iter().map(|host| (table::plain_host(host).into_owned(), plan.clone())));
        }
        self.inner.table.store(Arc::new(Table { hosts }));
        self.inner.version.fetch_add(1, Ordering::SeqCst);
        self.inner.sleep.changed.notify_waiters();
        let routes: HashMap<&str, &Route> =
            table.routes.iter().map(|route| (route.service.as_str(), route)).collect();
        services.retain(|name, service| {
            let route = routes.get(name.as_str()).copied();
            service.tidy(route) || route.is_some()
        });
        Ok(())
    }

    /// What happened, for each service and each of its last 32 epochs, oldest epoch first.
    pub fn signals(&self) -> Vec<ServiceSignals> {
        let mut services: Vec<(String, Arc<Service>)> = lock(&self.inner.services)
            .iter()
            .map(|(name, service)| (name.clone(), service.clone()))
            .collect();
        services.sort_by(|a, b| a.0.cmp(&b.0));
        services
            .iter()
            .flat_map(|(name, service)| service.signals.read(name, |r| service.in_flight(r)))
            .collect()
    }

    /// Requests and tunnels of a revision under way; copies for a mirror are nobody's and do not count. In the instant
    /// of a switch it may count one more that then goes elsewhere: to know that none is left, ask `drained`.
    pub fn in_flight(&self, service: &str, revision: &RevisionName) -> usize {
        self.service(service).map_or(0, |service| service.in_flight(revision))
    }

    /// Resolves when nothing of the revision is under way. Take it out of the table (or its weight to 0) first, else
    /// the next request may already be on its way.
    pub async fn drained(&self, service: &str, revision: &RevisionName) {
        let known = self.service(service).and_then(|service| lock(&service.revisions).get(revision).cloned());
        let Some(revision) = known else { return };
        loop {
            let empty = revision.empty.notified();
            tokio::pin!(empty);
            empty.as_mut().enable();
            if revision.in_flight.load(Ordering::SeqCst) == 0 {
                return;
            }
            empty.await;
        }
    }

    /// What is answered in the clear below `/.well-known/acme-challenge/`, by token: how an authority of certificates sees that a host is ours (RFC 8555 section
    /// 8.3). Replaces what was said before.
    pub fn prove(&self, answers: HashMap<String, String>) {
        let path = |token: String| format!("{CHALLENGES}{token}");
        self.inner
            .challenges
            .store(Arc::new(answers.into_iter().map(|(token, said)| (path(token), said)).collect()));
    }

    /// What the mirror of a service has found since it began; none where none is.
    pub fn differences(&self, service: &str) -> Option<Differences> {
        let service = self.service(service)?;
        let shadow = lock(&service.shadow).clone();
        shadow.map(|shadow| shadow.read())
    }

    pub(crate) fn service(&self, name: &str) -> Option<Arc<Service>> {
        lock(&self.inner.services).get(name).cloned()
    }
}

impl Inner {
    /// What is answered to an authority of certificates that looks here.
    pub fn challenge(&self, scheme: &str, path: &str) -> Option<String> {
        let asked = scheme == "http" && path.starts_with(CHALLENGES);
        asked.then(|| self.challenges.load().get(path).cloned()).flatten()
    }

    /// 128 bits that no other request has. They need not be hard to guess, so they cost no call of the system.
    pub fn fresh_id(&self) -> [u64; 2] {
        let number = self.named.fetch_add(1, Ordering::Relaxed);
        [1u8, 2].map(|half| {
            let mut hasher = SipHasher13::new_with_keys(self.fingerprint_key.0, self.fingerprint_key.1);
            hasher.write_u64(number);
            hasher.write_u8(half);
            hasher.finish()
        })
    }

    /// The service behind a host, if it sleeps.
    pub fn sleeper(&self, host: &str) -> Option<String> {
        self.table.load().hosts.get(host)?.asleep.clone()
    }

    /// The plan for a host, and the revision that `choose` picks in it, counted as in flight under the table in force.
    pub fn assign<T>(
        self: &Arc<Self>,
        host: &str,
        choose: impl Fn(&Plan) -> (Arm, T),
    ) -> Option<(Assigned, T)> {
        loop {
            let version = self.version.load(Ordering::SeqCst);
            let plan = self.table.load().hosts.get(host)?.clone();
            let (arm, more) = choose(&plan);
            let revision = plan.side(arm).revision.clone();
            revision.in_flight.fetch_add(1, Ordering::SeqCst);
            if self.version.load(Ordering::SeqCst) == version {
                self.in_flight.fetch_add(1, Ordering::SeqCst);
                return Some((Assigned { plan, arm, busy: Busy { inner: self.clone(), revision } }, more));
            }
            revision.leave();
        }
    }
}

/// A request's place in the table that was in force when it came.
pub(crate) struct Assigned {
    pub plan: Arc<Plan>,
    pub arm: Arm,
    pub busy: Busy,
}

impl Plan {
    fn new(service: Arc<Service>, route: &Route) -> Plan {
        let (key, tallies) = service.signals.enter(route);
        let side = |arm: Arm, name: &RevisionName| {
            let revision = lock(&service.revisions).entry(name.clone()).or_default().clone();
            let addrs = route.backends.get(name).map(Vec::as_slice).unwrap_or_default();
            Side {
                backends: revision.enlist(addrs, route.protocol),
                revision,
                label: HeaderValue::from_str(&name.0).unwrap_or(HeaderValue::from_static("unnamed")),
                tally: tallies[arm as usize].clone(),
            }
        };
        let stable = side(Arm::Stable, &route.stable);
        let candidate = route
            .candidate
            .as_ref()
            .map(|c| (side(Arm::Candidate, &c.revision), c.weight_bp, c.salt.clone()));
        let mirror = route.mirror.as_ref().map(|mirror| {
            let addrs = |name| route.backends.get(name).map(Vec::as_slice).unwrap_or_default();
            let mut shadow = lock(&service.shadow);
            let same = shadow.take().filter(|shadow| shadow.revision == mirror.revision);
            let same = same.unwrap_or_else(|| Arc::new(Shadow::new(mirror.revision.clone())));
            same.aim(addrs(&mirror.revision), addrs(&route.stable), route.protocol);
            *shadow = Some(same.clone());
            (same, mirror.clone())
        });
        let subject_header = route.subject_header.as_ref().and_then(|name| name.parse().ok());
        let asleep = route.asleep.then(|| route.service.clone());
        Plan {
            service,
            key,
            stable,
            candidate,
            mirror,
            subject_header,
            asleep,
            protocol: route.protocol,
            forced: route.forced.clone(),
        }
    }

    /// The side that a request asks for, where one may be asked for.
    pub fn forced(&self, headers: &HeaderMap) -> Option<Arm> {
        self.candidate.as_ref()?;
        let says = |forced: &&Forced| match forced.by {
            By::Header => {
                headers.get_all(&forced.name).iter().any(|value| value.as_bytes() == forced.value.as_bytes())
            }
            By::Cookie => subject::cookies(headers, &forced.name).any(|value| value == forced.value),
        };
        self.forced.iter().find(says).map(|forced| forced.to)
    }

    pub fn side(&self, arm: Arm) -> &Side {
        match (arm, &self.candidate) {
            (Arm::Candidate, Some((side, ..))) => side,
            _ => &self.stable,
        }
    }
}

impl Service {
    fn in_flight(&self, revision: &RevisionName) -> usize {
        lock(&self.revisions).get(revision).map_or(0, |revision| revision.in_flight.load(Ordering::SeqCst))
    }

    /// Closes what the route does not name any more. Says whether anything is still under way.
    fn tidy(&self, route: Option<&Route>) -> bool {
        if route.is_none_or(|route| route.mirror.is_none()) {
            *lock(&self.shadow) = None;
        }
        let mut revisions = lock(&self.revisions);
        revisions.retain(|name, revision| {
            let used = route.filter(|route| {
                route.stable == *name
                    || route.candidate.as_ref().is_some_and(|candidate| candidate.revision == *name)
            });
            let addrs =
                used.and_then(|route| route.backends.get(name)).map(Vec::as_slice).unwrap_or_default();
            revision.retire_all_but(addrs);
            used.is_some() || revision.in_flight.load(Ordering::SeqCst) > 0
        });
        !revisions.is_empty()
    }

    /// A number that has little to do with the one before.
    pub fn draw(&self) -> u64 {
        // Weyl's sequence, mixed (as SplitMix64 does).
        let n = self.draws.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        n ^ (n >> 31)
    }

    /// Each request earns a fifth of a retry; at most ten are saved up.
    pub fn earn(&self) {
        if self.budget.load(Ordering::Relaxed) < 100 {
            self.budget.fetch_add(2, Ordering::Relaxed);
        }
    }

    /// Whether one more retry fits into a fifth of all requests (and ten).
    pub fn may_retry(&self) -> bool {
        let spent = self.budget.fetch_sub(10, Ordering::Relaxed);
        if spent < -90 {
            self.budget.fetch_add(10, Ordering::Relaxed);
        }
        spent >= -90
    }
}

impl Revision {
    fn leave(&self) {
        if self.in_flight.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.empty.notify_waiters();
        }
    }

    fn enlist(&self, addrs: &[SocketAddr], protocol: Protocol) -> Vec<Arc<Backend>> {
        let mut backends = lock(&self.backends);
        let enlist = |addr: &SocketAddr| {
            let known = backends.get(addr).filter(|backend| backend.protocol == protocol).cloned();
            let backend = known.unwrap_or_else(|| Backend::new(*addr, protocol));
            backends.insert(*addr, backend.clone());
            backend.enlist();
            backend
        };
        addrs.iter().map(enlist).collect()
    }

    fn retire_all_but(&self, addrs: &[SocketAddr]) {
        lock(&self.backends).retain(|addr, backend| {
            let stays = addrs.contains(addr);
            if !stays {
                backend.retire();
            }
            stays
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_stay_within_a_fifth_of_all_requests() {
        let service = Service::default();
        let mut retries = 0;
        for _ in 0..1000 {
            service.earn();
            retries += u32::from(service.may_retry());
        }
        assert!((200..=220).contains(&retries), "{retries} of 1000");
    }
}
