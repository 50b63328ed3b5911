//! HAProxy behind the port: a task that looks, says what is missing, and keeps what was seen for whoever asks.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use andon_traffic::table::check;
use andon_traffic::{Differences, Lack, Plane, RevisionName, RouteTable, ServiceSignals, TableError};
use tokio::sync::Notify;

use crate::config::{COUNTS, MAP};
use crate::counts;
use crate::seen::{self, Seen};
use crate::socket::{SocketError, ask, tell};
use crate::steer::{forget, steer};

/// Between two looks while nothing changes.
const LOOK: Duration = Duration::from_secs(1);
/// Times that commands are sent in one round before the next look has to wait.
const PASSES: usize = 4;

/// A HAProxy that is driven through its socket.
pub struct HaProxy {
    socket: PathBuf,
    door: Option<SocketAddr>,
    kept: Mutex<Kept>,
    changed: Notify,
    looked: Notify,
}

#[derive(Default)]
struct Kept {
    wanted: Arc<RouteTable>,
    /// Counts tables, from 1; 0: there was none yet.
    version: u64,
    /// The version that was in force when `seen` was seen; none: none is, or nobody knows.
    in_force: Option<u64>,
    behind: Option<String>,
    seen: Arc<Seen>,
    last_use: HashMap<String, (u64, Option<Instant>)>,
}

impl fmt::Debug for HaProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HaProxy").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl HaProxy {
    /// The one behind this socket. `door` is where our own router listens: services that sleep are reached through it.
    pub fn new(socket: PathBuf, door: Option<SocketAddr>) -> HaProxy {
        let kept = Kept { behind: Some("no table was given to it yet".into()), ..Kept::default() };
        HaProxy { socket, door, kept: Mutex::new(kept), changed: Notify::new(), looked: Notify::new() }
    }

    /// Keeps HAProxy at the newest table for as long as it is polled.
    pub async fn run(&self) {
        loop {
            self.round().await;
            // Told while a round went on: the permit is kept, and the next begins at once.
            let _ = tokio::time::timeout(LOOK, self.changed.notified()).await;
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn round(&self) {
        let (table, version) = {
            let kept = self.kept();
            (Arc::clone(&kept.wanted), kept.version)
        };
        if version == 0 {
            return;
        }
        let done = self.bring(&table).await;
        let mut kept = self.kept();
        let behind = match done {
            Ok((seen, behind)) => {
                kept.in_force = behind.is_none().then_some(version);
                kept.note_use(&seen);
                kept.seen = Arc::new(seen);
                behind
            }
            Err(error) => {
                kept.in_force = None;
                Some(error.to_string())
            }
        };
        if kept.behind != behind {
            match &behind {
                Some(why) => tracing::error!("HAProxy is behind: {why}"),
                None => tracing::info!(version, "HAProxy does what the journal says"),
            }
            kept.behind = behind;
        }
        drop(kept);
        self.looked.notify_waiters();
    }

    /// Looks and sends what is missing until nothing is; gives the last look, and what could not be done.
    async fn bring(&self, table: &RouteTable) -> Result<(Seen, Option<String>), SocketError> {
        for _ in 0..PASSES {
            let seen = self.look().await?;
            let mut refused = BTreeSet::new();
            let mut commands = Vec::new();
            for route in &table.routes {
                match steer(route, &seen, self.door) {
                    Ok(more) => commands.extend(more),
                    Err(why) => {
                        refused.insert(why);
                    }
                }
            }
            let known = |service: &&String| table.routes.iter().all(|route| route.service != **service);
            seen.lines.keys().filter(known).for_each(|gone| commands.extend(forget(gone, &seen)));
            if commands.is_empty() {
                let refused: Vec<String> = refused.into_iter().collect();
                return Ok((seen, (!refused.is_empty()).then(|| refused.join("\n"))));
            }
            for command in commands {
                tell(&self.socket, &command).await?;
            }
        }
        Ok((self.look().await?, Some("servers change while they are set; it is tried again".into())))
    }

    async fn look(&self) -> Result<Seen, SocketError> {
        let socket = &self.socket;
        let map = ask(socket, &format!("show map {MAP}")).await?;
        let table = ask(socket, &format!("show table {COUNTS}")).await?;
        if map.contains("Unknown map") || table.contains("Unknown table") {
            let what = "show map".to_owned();
            return Err(SocketError::Refused(what, "it has no map and no table of Andon's".into()));
        }
        // Backends and servers, of all names.
        let stat = ask(socket, "show stat -1 6 -1").await?;
        Ok(Seen { lines: seen::lines(&map), backends: seen::backends(&stat), counts: seen::counts(&table) })
    }
}

impl Kept {
    fn note_use(&mut self, seen: &Seen) {
        let now = Instant::now();
        for route in &self.wanted.routes {
            let named = |slot: &str| seen.backends.get(&crate::config::backend(&route.service, slot));
            let requests = crate::config::SLOTS.iter().filter_map(|slot| Some(named(slot)?.requests)).sum();
            let known = self.last_use.entry(route.service.clone()).or_insert((requests, None));
            if known.0 != requests {
                *known = (requests, Some(now));
            }
        }
    }
}

impl Plane for HaProxy {
    fn name(&self) -> &'static str {
        "HAProxy"
    }

    fn lacks(&self) -> &[Lack] {
        &[Lack::Latency, Lack::Mirror, Lack::Asked]
    }

    fn set(&self, table: &RouteTable) -> Result<(), TableError> {
        check(table)?;
        let mut kept = self.kept();
        kept.wanted = Arc::new(table.clone());
        kept.version += 1;
        kept.in_force = None;
        drop(kept);
        self.changed.notify_one();
        Ok(())
    }

    fn behind(&self) -> Option<String> {
        let kept = self.kept();
        kept.behind.clone().or_else(|| kept.in_force.is_none().then(|| "a change is under way to it".into()))
    }

    fn signals(&self) -> Vec<ServiceSignals> {
        let (table, seen) = {
            let kept = self.kept();
            (Arc::clone(&kept.wanted), Arc::clone(&kept.seen))
        };
        let mut found: Vec<ServiceSignals> =
            table.routes.iter().flat_map(|route| counts::signals(route, &seen)).collect();
        found.sort_by(|a, b| (&a.service, a.epoch).cmp(&(&b.service, b.epoch)));
        found
    }

    fn in_flight(&self, service: &str, revision: &RevisionName) -> Option<usize> {
        let seen = {
            let kept = self.kept();
            kept.in_force?;
            Arc::clone(&kept.seen)
        };
        counts::in_flight(service, &revision.0, &seen)
    }

    fn drained<'a>(
        &'a self,
        service: &'a str,
        revision: &'a RevisionName,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(async move {
            loop {
                let looked = self.looked.notified();
                tokio::pin!(looked);
                looked.as_mut().enable();
                if Plane::in_flight(self, service, revision) == Some(0) {
                    return;
                }
                looked.await;
            }
        })
    }

    fn idle(&self, service: &str) -> Option<Duration> {
        self.kept().last_use.get(service)?.1.map(|at| at.elapsed())
    }

    fn differences(&self, _service: &str) -> Option<Differences> {
        None
    }
}
