//! `andon router`: the router in a process of its own, fed by a server that it dials. It goes on by its last table, which lies on its disk, while that server is
//! away. Wires; decides nothing.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use andon_dial::keep::Room;
use andon_router::{Delta, Held, Report, Router};
use clap::Args;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::Common;
use crate::client::{Client, Failure, Login};
use crate::say::say;

/// How long the server may keep a question for a new table, and how long it may take in all.
const WAIT: Duration = Duration::from_secs(20);
const LONGEST: Duration = Duration::from_secs(30);
/// Between two reports.
const REPORT: Duration = Duration::from_secs(1);
/// First pause before the server is dialled again; doubles up to the longest.
const AGAIN: Duration = Duration::from_millis(100);
const AGAIN_MOST: Duration = Duration::from_secs(2);
/// Files of what it remembers.
const SELF: &str = "router.json";
const TABLE: &str = "table.json";

/// Options of `andon router`.
#[derive(Debug, Args)]
pub struct Apart {
    /// Where users reach the services, by host name.
    #[arg(long, env = "ANDON_ROUTER", default_value = "127.0.0.1:7081")]
    listen: SocketAddr,
    /// Where its last table and its login are kept.
    #[arg(long, default_value = "andon-router")]
    data: PathBuf,
}

/// Who it is, and whom it dials.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Kept {
    name: String,
    login: Login,
}

struct Own {
    room: Room,
    client: Client,
    router: Router,
    held: Mutex<Held>,
    name: String,
    process: String,
}

impl Own {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for what is new, and puts it into force once it is on the disk.
    fn follow(&self, wait: Duration) -> Result<(), Failure> {
        let (boot, number) = {
            let held = self.held();
            (held.boot.clone(), held.number)
        };
        let path = format!("/api/v1/routers/table?boot={boot}&number={number}&wait={}", wait.as_millis());
        let delta: Delta = serde_json::from_value(self.client.get(&path)?).map_err(|error| {
            format!("the server's table cannot be read: {error}\nhint: is it of another version?")
        })?;
        let mut held = self.held();
        let before = (held.boot.clone(), held.number);
        if !held.take(delta) {
            *held = Held::default();
            return Err("the server told what changed in another table; all of it is asked for".into());
        }
        if before != (held.boot.clone(), held.number) {
            if let Err(error) = self.room.keep(TABLE, &*held) {
                tracing::error!(%error, "the table is in force, but a restart would begin with an older one");
            }
            self.router.set(held.table()).map_err(|error| error.to_string())?;
            tracing::info!(number = held.number, "a new table is in force");
        }
        Ok(())
    }

    fn report(&self) -> Result<(), Failure> {
        let asked = self.router.asked_for();
        let report = Report::of(&self.router, &self.name, &self.process, &self.held(), asked);
        let report = serde_json::to_value(report).map_err(|error| error.to_string())?;
        self.client.post("/api/v1/routers/counts", &report).map(drop)
    }

    fn follow_for_ever(&self) {
        let mut pause = AGAIN;
        loop {
            match self.follow(WAIT) {
                Ok(()) => pause = AGAIN,
                Err(failure) => {
                    if pause == AGAIN {
                        tracing::warn!(
                            "{}; it is dialled again and again, users are served as before",
                            failure.words
                        );
                    }
                    std::thread::park_timeout(pause);
                    pause = (pause * 2).min(AGAIN_MOST);
                }
            }
        }
    }

    fn report_for_ever(&self) {
        loop {
            // Sums: what was not heard now is part of the next report.
            if let Err(failure) = self.report() {
                tracing::debug!("{}", failure.words);
            }
            std::thread::park_timeout(REPORT);
        }
    }
}

/// Serves until it is told to stop.
pub fn run(common: &Common, options: Apart) -> Result<(), Failure> {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("ANDON_LOG").unwrap_or_else(|_| "info".into()),
        )
        .with_writer(std::io::stderr)
        .init();
    let room = Room::open(&options.data)?;
    let known: Option<Kept> = room.read(SELF)?;
    let asked = common.server.is_some() || common.token.is_some();
    let kept = match known {
        Some(kept) if !asked => kept,
        known => {
            let login = Client::new(common.server.clone(), common.token.clone())?.login;
            let name = match known {
                Some(kept) => kept.name,
                None => andon_kit::secret::fresh("router_"),
            };
            Kept { name, login }
        }
    };
    room.keep(SELF, &kept)?;
    let held: Held = room.read(TABLE)?.unwrap_or_default();
    let apart = Arc::new(Own {
        room,
        client: Client::within(kept.login.clone(), LONGEST),
        router: Router::new(),
        held: Mutex::new(held.clone()),
        name: kept.name,
        process: andon_kit::secret::fresh(""),
    });
    if held.boot.is_empty() {
        // Without any table nobody can be served: then it is better said at once.
        apart.follow(Duration::ZERO)?;
    } else {
        apart.router.set(held.table()).map_err(|error| error.to_string())?;
    }
    let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
    runtime.block_on(serve(apart, options.listen, &kept.login.server))
}

async fn serve(apart: Arc<Own>, listen: SocketAddr, server: &str) -> Result<(), Failure> {
    let listener = TcpListener::bind(listen).await.map_err(|error| {
        format!("{listen} cannot be listened on: {error}\nhint: is another router running? give --listen another port")
    })?;
    let here = listener.local_addr().map_err(|error| error.to_string())?;
    let mut term = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let mut int = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    /// What one thread does, for as long as the process lives.
    type Work = fn(&Own);
    let threads: [(&str, Work); 2] = [("table", Own::follow_for_ever), ("counts", Own::report_for_ever)];
    for (name, work) in threads {
        let apart = Arc::clone(&apart);
        let spawned = std::thread::Builder::new().name(name.into()).spawn(move || work(&apart));
        spawned.map_err(|error| error.to_string())?;
    }
    say!("● andon router {} sends users of {server} on at {here}", env!("CARGO_PKG_VERSION"));
    let stop = async {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    };
    apart.router.serve(listener, stop).await;
    // The last counts; a server that is away misses them.
    let last = Arc::clone(&apart);
    let _ = tokio::task::spawn_blocking(move || last.report()).await;
    Ok(())
}
