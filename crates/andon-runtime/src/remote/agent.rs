//! The agent of a host: dials its server, says who it is, and answers until it is told to stop. What it runs outlives it.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use andon_model::{Digest, HostName};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_util::sync::CancellationToken;

use super::answer::{Machine, answer};
use super::keep::{Kept, Room};
use super::trust::{Pinned, parts};
use super::wire::{Entry, Greeting, Hello, VERSION, hear, say};
use super::{ALIVE_EVERY, ALIVE_WITHIN, GREETING, WINDOW};
use crate::ProcessRuntime;
use crate::port::Isolation;

/// First pause before the server is dialled again; doubles up to the longest.
const AGAIN: Duration = Duration::from_millis(100);
const AGAIN_MOST: Duration = Duration::from_secs(2);

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

/// Why a connection was not made or ended.
enum Trouble {
    /// It is tried again.
    Passing(String),
    /// The server said no.
    Refused { why: String, left: bool },
    /// Somebody else answered.
    Stranger(String),
}

impl Trouble {
    fn words(&self, server: &str) -> String {
        match self {
            Trouble::Passing(why) => format!("{server} is not reached: {why}"),
            Trouble::Refused { why, .. } => why.clone(),
            Trouble::Stranger(shown) => format!(
                "{server} shows another certificate than the one this host was told of (it shows {})\nhint: check the address; if the server's data was made anew, get a new token with `andon host token`",
                shown.get(..16).unwrap_or_default()
            ),
        }
    }
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
    if let Some(kept) = room.read()? {
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
    let (fingerprint, secret) = parts(&joining.token).ok_or(
        "this is not a token for a host\nhint: `andon host token` on the server prints one; copy all of it",
    )?;
    let address = match joining.address {
        Some(address) => address,
        None => {
            let dialled = tokio::time::timeout(GREETING, TcpStream::connect(&joining.server)).await;
            let unreached = |why: String| {
                format!(
                    "{} is not reached: {why}\nhint: it is where `andon serve --hosts` listens, as HOST:PORT",
                    joining.server
                )
            };
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
    let entry = entry(&kept);
    if let Some(flaw) = entry.flaw() {
        return Err(flaw);
    }
    room.keep(&kept)?;
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
    let kept = room.read()?.ok_or_else(|| {
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
    mut kept: Kept,
    stop: CancellationToken,
    said: impl Fn(String),
) -> Result<(), String> {
    let machine = Arc::new(Machine::new(room.dir.clone(), exe.clone(), kept.address));
    let probe = (room.dir.join("probe"), exe);
    let isolation = tokio::task::spawn_blocking(move || separates(&probe.0, probe.1))
        .await
        .map_err(|error| error.to_string())??;
    let (mut pause, mut told) = (AGAIN, false);
    loop {
        let dialled = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            dialled = dial(&kept, &isolation) => dialled,
        };
        let trouble = match dialled {
            Ok(stream) => {
                if kept.token.take().is_some() {
                    room.keep(&kept)?;
                }
                let (name, address) = (&kept.name, kept.address);
                said(format!("{name} is connected to {}; its instances listen on {address}", kept.server));
                (pause, told) = (AGAIN, false);
                let why = converse(stream, Arc::clone(&machine), &stop).await;
                if stop.is_cancelled() {
                    return Ok(());
                }
                if machine.left.load(Ordering::SeqCst) {
                    room.forget()?;
                    said(format!("{} has left: nothing of it runs here any more", kept.name));
                    return Ok(());
                }
                Trouble::Passing(why)
            }
            Err(Trouble::Refused { left: true, why }) => {
                let ending = Arc::clone(&machine);
                let cleared = tokio::task::spawn_blocking(move || ending.clear()).await;
                cleared.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
                room.forget()?;
                said(format!("{why}: nothing of it runs here any more"));
                return Ok(());
            }
            Err(trouble) => {
                // Nobody waits for a machine that was never let in.
                let never = kept.token.is_some();
                if never || matches!(trouble, Trouble::Refused { .. }) {
                    let words = trouble.words(&kept.server);
                    if !never {
                        return Err(words);
                    }
                    room.forget()?;
                    return Err(match trouble {
                        Trouble::Passing(_) => {
                            format!("{words}\nhint: it is where `andon serve --hosts` listens, as HOST:PORT")
                        }
                        _ => words,
                    });
                }
                trouble
            }
        };
        if !std::mem::replace(&mut told, true) {
            said(format!(
                "{}; it is dialled again and again, what runs here goes on",
                trouble.words(&kept.server)
            ));
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(pause + jitter(pause)) => {}
        }
        pause = (pause * 2).min(AGAIN_MOST);
    }
}

/// Up to half of it more, so that hosts that lost one server do not all come back at one moment.
fn jitter(pause: Duration) -> Duration {
    let dice = RandomState::new().build_hasher().finish() % 512;
    pause * dice as u32 / 1024
}

/// What separates instances on this machine.
fn separates(probe: &Path, exe: PathBuf) -> Result<Isolation, String> {
    let anywhere = "any".parse().map_err(|_| "a constant name")?;
    let made = ProcessRuntime::new(probe.to_owned(), exe).map_err(|error| error.to_string())?;
    let runtime = made.listening_on(std::net::Ipv4Addr::LOCALHOST.into());
    Ok(crate::Runtime::isolation(&runtime, &anywhere))
}

async fn dial(kept: &Kept, isolation: &Isolation) -> Result<TlsStream<TcpStream>, Trouble> {
    match tokio::time::timeout(GREETING, greet(kept, isolation)).await {
        Ok(greeted) => greeted,
        Err(_) => Err(Trouble::Passing("no answer in time".into())),
    }
}

async fn greet(kept: &Kept, isolation: &Isolation) -> Result<TlsStream<TcpStream>, Trouble> {
    let passing = |error: std::io::Error| Trouble::Passing(error.to_string());
    let stream = TcpStream::connect(&kept.server).await.map_err(passing)?;
    stream.set_nodelay(true).map_err(passing)?;
    let pinned = Pinned::new(&kept.fingerprint);
    let name = ServerName::try_from("andon").map_err(|error| Trouble::Passing(error.to_string()))?;
    let stream = pinned.connector().map_err(passing)?.connect(name, stream).await;
    let mut stream = stream.map_err(|error| match pinned.stranger() {
        Some(shown) => Trouble::Stranger(shown),
        None => passing(error),
    })?;
    let hello = Hello { version: VERSION, isolation: isolation.clone(), entry: entry(kept) };
    say(&mut stream, &hello).await.map_err(passing)?;
    match hear(&mut stream).await.map_err(passing)? {
        Greeting::Welcome(_) => Ok(stream),
        Greeting::Refused(refused) => Err(Trouble::Refused { why: refused.why, left: refused.left }),
    }
}

/// Answers on this connection until it ends; says why it did.
async fn converse(stream: TlsStream<TcpStream>, machine: Arc<Machine>, stop: &CancellationToken) -> String {
    let service = service_fn(move |request| answer(request, Arc::clone(&machine)));
    let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(ALIVE_EVERY)
        .keep_alive_timeout(ALIVE_WITHIN)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        ended = connection => ended.err().map_or_else(|| "the connection was closed".into(), |e| e.to_string()),
        () = stop.cancelled() => "told to stop".into(),
    }
}

fn fresh() -> Result<String, String> {
    let mut bits = [0_u8; 32];
    getrandom::fill(&mut bits).map_err(|error| format!("the system gives no random bytes: {error}"))?;
    Ok(hex::encode(bits))
}
