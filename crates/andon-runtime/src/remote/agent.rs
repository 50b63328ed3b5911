//! The agent of a host: what it remembers, what it says first, and what it does until it is told to stop. What it runs outlives it.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use andon_dial::keep::Room;
use andon_dial::member::{Words, fresh, unreached};
use andon_dial::trust::parts;
use andon_dial::{GREETING, Member, attend};
use andon_model::{Digest, HostName};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Request, Response};
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::PREFIX;
use super::answer::{Machine, answer};
use super::wire::{Entry, Hello, VERSION};
use crate::ProcessRuntime;
use crate::port::Isolation;

/// The file of what it remembers.
const FILE: &str = "host.json";
const WORDS: Words = Words { what: "host", token: "andon host token", door: "andon serve --hosts" };

/// What a machine brings when it joins.
#[derive(Debug, Clone)]
pub struct Joining {
    /// Where the server lets hosts in: host and port.
    pub server: String,
    /// Its invitation.
    pub token: String,
    /// What the host is to be called.
    pub name: HostName,
    /// Where its instances listen; none: the address that it reaches the server from.
    pub address: Option<IpAddr>,
    /// What its owner says of it.
    pub labels: BTreeMap<String, String>,
}

/// What it remembers.
#[derive(Clone, Serialize, Deserialize)]
struct Kept {
    /// Where agents come in: host and port.
    server: String,
    /// Of its certificate.
    fingerprint: String,
    /// What this host is called.
    name: HostName,
    /// Where its instances listen.
    address: IpAddr,
    /// What its owner says of it.
    labels: BTreeMap<String, String>,
    /// By which it is known.
    secret: String,
    /// The token it comes with, until it was let in.
    token: Option<String>,
}

/// Joins, and then runs like [`run`]. Joined already, it only runs. `said` hears what people want to know.
pub async fn join(
    data: &Path,
    exe: PathBuf,
    joining: Joining,
    stop: CancellationToken,
    said: impl Fn(String),
) -> Result<(), String> {
    let room = Room::open(data)?;
    if let Some(kept) = room.read::<Kept>(FILE)? {
        if kept.server != joining.server {
            return Err(format!(
                "{} belongs to the host {} of the server {}\nhint: give another --data, or leave that server first: andon host leave {}",
                room.dir.display(),
                kept.name,
                kept.server,
                kept.name
            ));
        }
        if kept.token.is_none() {
            return serve(room, exe, kept, stop, said).await;
        }
    }
    let (fingerprint, secret) = parts(PREFIX, &joining.token).ok_or(
        "this is not a token for a host\nhint: `andon host token` on the server prints one; copy all of it",
    )?;
    let address = match joining.address {
        Some(address) => address,
        None => {
            let dialled = tokio::time::timeout(GREETING, TcpStream::connect(&joining.server)).await;
            let unreached = |why: String| unreached(&joining.server, &why, WORDS);
            let stream =
                dialled.map_err(|_| unreached("no answer".into()))?.map_err(|e| unreached(e.to_string()))?;
            stream.local_addr().map_err(|error| unreached(error.to_string()))?.ip()
        }
    };
    // Kept before it is said: whoever is let in and dies at once comes back with it.
    let kept = Kept {
        server: joining.server,
        fingerprint,
        name: joining.name,
        address,
        labels: joining.labels,
        secret: fresh()?,
        token: Some(secret),
    };
    if let Some(flaw) = entry(&kept).flaw() {
        return Err(flaw);
    }
    room.keep(FILE, &kept)?;
    serve(room, exe, kept, stop, said).await
}

/// Runs the host that joined before with this directory, until it is told to stop or is none any more.
pub async fn run(
    data: &Path,
    exe: PathBuf,
    stop: CancellationToken,
    said: impl Fn(String),
) -> Result<(), String> {
    let room = Room::open(data)?;
    let kept = room.read::<Kept>(FILE)?.ok_or_else(|| {
        format!("{} belongs to no host\nhint: andon host join SERVER --token TOKEN", room.dir.display())
    })?;
    serve(room, exe, kept, stop, said).await
}

fn entry(kept: &Kept) -> Entry {
    match &kept.token {
        None => Entry::Back { secret: kept.secret.clone() },
        Some(token) => Entry::Join {
            token: token.clone(),
            name: kept.name.clone(),
            address: kept.address,
            labels: kept.labels.clone(),
            credential: Digest::of(kept.secret.as_bytes()),
        },
    }
}

async fn serve(
    room: Room,
    exe: PathBuf,
    kept: Kept,
    stop: CancellationToken,
    said: impl Fn(String),
) -> Result<(), String> {
    let machine = Arc::new(Machine::new(room.dir.clone(), exe.clone(), kept.address));
    let probe = (room.dir.join("probe"), exe);
    let isolation = tokio::task::spawn_blocking(move || separates(&probe.0, probe.1))
        .await
        .map_err(|error| error.to_string())??;
    let host = Host { room, kept: Mutex::new(kept), machine, isolation };
    attend(&host, stop, said).await
}

/// What separates instances on this machine.
fn separates(probe: &Path, exe: PathBuf) -> Result<Isolation, String> {
    let anywhere = "any".parse().map_err(|_| "a constant name")?;
    let made = ProcessRuntime::new(probe.to_owned(), exe).map_err(|error| error.to_string())?;
    let runtime = made.listening_on(std::net::Ipv4Addr::LOCALHOST.into());
    Ok(crate::Runtime::isolation(&runtime, &anywhere))
}

/// This machine.
struct Host {
    room: Room,
    kept: Mutex<Kept>,
    machine: Arc<Machine>,
    isolation: Isolation,
}

impl Host {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Member for Host {
    const WORDS: Words = WORDS;
    type Hello = Hello;
    type Answer = Full<Bytes>;

    fn server(&self) -> String {
        self.kept().server.clone()
    }

    fn fingerprint(&self) -> String {
        self.kept().fingerprint.clone()
    }

    fn is_new(&self) -> bool {
        self.kept().token.is_some()
    }

    fn hello(&self) -> Hello {
        Hello { version: VERSION, isolation: self.isolation.clone(), entry: entry(&self.kept()) }
    }

    fn admitted(&self) -> Result<String, String> {
        let mut kept = self.kept();
        if kept.token.take().is_some() {
            self.room.keep(FILE, &*kept)?;
        }
        Ok(format!("{} is connected to {}; its instances listen on {}", kept.name, kept.server, kept.address))
    }

    fn answer(
        &self,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<Full<Bytes>>, Infallible>> + Send + 'static {
        answer(request, Arc::clone(&self.machine))
    }

    fn left(&self) -> bool {
        self.machine.left.load(Ordering::SeqCst)
    }

    async fn clear(&self) -> Result<(), String> {
        let ending = Arc::clone(&self.machine);
        let cleared = tokio::task::spawn_blocking(move || ending.clear()).await;
        cleared.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
    }

    fn forget(&self) -> Result<(), String> {
        self.room.forget(FILE)
    }
}
