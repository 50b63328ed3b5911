//! The server's end of all connections to runners. Lets nobody in; chooses no runner.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use andon_dial::{Body, Peer, one};
use andon_model::RunnerName;
use andon_model::event::JobIsolation;
use andon_sandbox::{Bounds, Means};
use bytes::Bytes;
use futures_util::TryStreamExt;
use http_body_util::{BodyExt, Limited, StreamBody};
use hyper::StatusCode;
use hyper::body::Frame;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_util::io::{StreamReader, SyncIoBridge};

use super::follow::Following;
use super::wire::{ANSWER_BYTES, Begin, Has, Take, Which, Work};
use crate::{confine, parcel};

/// For an answer that needs no waiting, and one that ends processes.
const QUICK: Duration = Duration::from_secs(10);
const ENDS: Duration = Duration::from_secs(60);
/// For a working copy or what is left of one. A connection that dies ends it before.
const LONG: Duration = Duration::from_secs(1800);
/// Bytes of a working copy in one piece, and pieces on their way.
const PIECE: usize = 64 * 1024;
const PIECES: usize = 8;
/// Of zstd: quick, since most networks are quicker than its better levels.
const LEVEL: i32 = 1;
/// The longest words of a trouble, in characters.
const WORDS: usize = 1_000;

/// What went wrong with a runner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// It is not reached, or not any more.
    Silent(String),
    /// It has no such attempt.
    Gone(String),
    /// It said no.
    Said(String),
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Trouble::Silent(why) | Trouble::Gone(why) | Trouble::Said(why) => f.write_str(why),
        }
    }
}

/// All runners that this server knows or knew.
#[derive(Default)]
pub struct Crew {
    links: Mutex<BTreeMap<RunnerName, Arc<Link>>>,
}

/// One runner, connected or not.
#[derive(Default)]
struct Link {
    peer: Arc<Peer>,
    /// What its agent said of its machine: what that permits, and where its rooms are.
    said: Mutex<Option<(Means, PathBuf)>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Crew {
    fn link(&self, runner: &RunnerName) -> Arc<Link> {
        Arc::clone(lock(&self.links).entry(runner.clone()).or_default())
    }

    /// A runner came: its connection is for this.
    pub(super) fn greeted(&self, runner: &RunnerName, means: Means, dir: PathBuf) -> Arc<Peer> {
        let link = self.link(runner);
        *lock(&link.said) = Some((means, dir));
        Arc::clone(&link.peer)
    }

    /// For how long a runner has not been connected; none: it is.
    pub fn silent_for(&self, runner: &RunnerName) -> Option<Duration> {
        self.link(runner).peer.silent_for()
    }

    /// The number of its connection; none: it has none.
    pub fn connection(&self, runner: &RunnerName) -> Option<u64> {
        self.link(runner).peer.number()
    }

    /// What separates an attempt with these limits there, as its agent said when it came.
    pub fn isolation(
        &self,
        runner: &RunnerName,
        limits: &Bounds,
        network: bool,
        image: Option<&str>,
    ) -> JobIsolation {
        if let Some(image) = image {
            return confine::isolation_in(image, limits, network);
        }
        let said = lock(&self.link(runner).said).clone();
        said.map(|(means, _)| confine::isolation(&means, limits, network)).unwrap_or_default()
    }

    /// Where an attempt's working copy is there; none: it was not connected yet.
    pub fn workdir(&self, runner: &RunnerName, which: &Which) -> Option<PathBuf> {
        let (_, dir) = lock(&self.link(runner).said).clone()?;
        Some(room_of(&dir, which).join("tree"))
    }

    /// Hands an attempt over: its `tree` and `tmp` in this room are sent. It may be there even if this fails by silence.
    pub async fn begin(
        &self,
        runner: &RunnerName,
        which: Which,
        work: Work,
        room: PathBuf,
    ) -> Result<(), Trouble> {
        let first = line(&Begin { which, work })?;
        let (pieces, rest) = mpsc::channel::<io::Result<Bytes>>(PIECES);
        let stream = futures_util::stream::unfold((Some(first), rest), |(first, mut rest)| async {
            let next = match first {
                Some(first) => Ok(first.into()),
                None => rest.recv().await?,
            };
            Some((next.map(Frame::data), (None, rest)))
        });
        let packed = tokio::task::spawn_blocking(move || {
            let sent =
                send_room(&room, Pieces { pieces: pieces.clone(), pending: Vec::with_capacity(PIECE) });
            if let Err(error) = &sent {
                // The runner hears that it is not whole.
                let _ = pieces.blocking_send(Err(io::Error::new(error.kind(), "it is not whole")));
            }
            sent
        });
        let asked = self.ask(runner, "/begin", StreamBody::new(stream).boxed_unsync(), LONG).await;
        let packed = packed.await.map_err(io::Error::other).and_then(|packed| packed);
        match (asked, packed) {
            // Whoever had it already did not listen to the end.
            (Ok(_), _) => Ok(()),
            (Err(Trouble::Silent(_)), Err(error)) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(Trouble::Said(format!("its working copy could not be sent: {error}")))
            }
            (Err(trouble), _) => Err(trouble),
        }
    }

    /// Follows an attempt from where the output in `log` stands. A runner that is silent for longer than `lease` has lost it.
    pub fn follow(&self, runner: &RunnerName, which: Which, log: PathBuf, lease: Duration) -> Following {
        Following::begin(runner.clone(), Arc::clone(&self.link(runner).peer), which, log, lease)
    }

    /// Fetches what these patterns name in an attempt's working copy, in place of what they name in `tree`.
    pub async fn take(
        &self,
        runner: &RunnerName,
        which: Which,
        patterns: Vec<String>,
        tree: PathBuf,
    ) -> Result<(), Trouble> {
        let body = one(line(&Take { which, patterns: patterns.clone() })?);
        let fetch = async {
            let peer = Arc::clone(&self.link(runner).peer);
            let answer = peer.send("/take", body).await.map_err(Trouble::Silent)?;
            let status = answer.status();
            if !status.is_success() {
                let said = Limited::new(answer.into_body(), ANSWER_BYTES).collect().await;
                let said = said.map(|said| said.to_bytes()).unwrap_or_default();
                return Err(trouble(status, &said));
            }
            let body = answer.into_body().into_data_stream().map_err(io::Error::other);
            let body = SyncIoBridge::new(StreamReader::new(Box::pin(body)));
            let unpacked = tokio::task::spawn_blocking(move || {
                parcel::clear(&tree, &patterns)?;
                let mut body = zstd::Decoder::new(body)?;
                parcel::unpack(&mut body, &tree)?;
                // The end of the tar may come before that of the stream, and only then is it known to be whole.
                io::copy(&mut body, &mut io::sink()).map(drop)
            });
            let unpacked = unpacked.await.map_err(io::Error::other).and_then(|unpacked| unpacked);
            unpacked.map_err(|error| Trouble::Silent(format!("what it left could not be fetched: {error}")))
        };
        match tokio::time::timeout(LONG, fetch).await {
            Ok(fetched) => fetched,
            Err(_) => Err(Trouble::Silent("what it left did not come in time".into())),
        }
    }

    /// Ends what is left of an attempt there and removes it. One that is not there is as good.
    pub async fn let_go(&self, runner: &RunnerName, which: &Which) -> Result<(), Trouble> {
        match self.ask(runner, "/drop", one(line(which)?), ENDS).await {
            Ok(_) | Err(Trouble::Gone(_)) => Ok(()),
            Err(trouble) => Err(trouble),
        }
    }

    /// All attempts that it has.
    pub async fn list(&self, runner: &RunnerName) -> Result<Vec<Has>, Trouble> {
        let said = self.ask(runner, "/list", one("\n"), QUICK).await?;
        serde_json::from_slice(&said)
            .map_err(|error| Trouble::Said(format!("its answer is not understood: {error}")))
    }

    /// Tells a runner that it is none any more: it ends and removes everything that it ran for this server.
    pub async fn dismiss(&self, runner: &RunnerName) -> Result<(), Trouble> {
        self.ask(runner, "/leave", one("\n"), ENDS).await.map(drop)
    }

    /// Forgets a runner; its connection ends.
    pub fn forget(&self, runner: &RunnerName) {
        let gone = lock(&self.links).remove(runner);
        if let Some(link) = gone {
            link.peer.close();
        }
    }

    async fn ask(
        &self,
        runner: &RunnerName,
        path: &str,
        body: Body,
        within: Duration,
    ) -> Result<Bytes, Trouble> {
        let peer = Arc::clone(&self.link(runner).peer);
        let (status, said) = peer.ask(path, body, ANSWER_BYTES, within).await.map_err(Trouble::Silent)?;
        if status.is_success() { Ok(said) } else { Err(trouble(status, &said)) }
    }
}

pub(super) fn line(question: &impl Serialize) -> Result<Vec<u8>, Trouble> {
    let mut line = serde_json::to_vec(question).map_err(|error| Trouble::Said(error.to_string()))?;
    line.push(b'\n');
    Ok(line)
}

/// Its words are cut: nobody else wrote them.
pub(super) fn trouble(status: StatusCode, said: &[u8]) -> Trouble {
    let why: String =
        String::from_utf8_lossy(said).chars().filter(|c| !c.is_control() || *c == '\n').take(WORDS).collect();
    match status {
        StatusCode::NOT_FOUND => Trouble::Gone(why),
        _ => Trouble::Said(why),
    }
}

/// What the other side of a room needs: the working copy whole, and the temporary files.
fn send_room(room: &Path, pieces: Pieces) -> io::Result<()> {
    let mut tar = tar::Builder::new(zstd::Encoder::new(pieces, LEVEL)?);
    tar.follow_symlinks(false);
    tar.sparse(false);
    for name in ["tree", "tmp"] {
        let path = room.join(name);
        if fs::symlink_metadata(&path).is_ok() {
            tar.append_dir_all(name, path)?;
        }
    }
    let mut last = tar.into_inner()?.finish()?;
    last.flush()
}

/// Writes into a stream.
pub(super) struct Pieces {
    pub pieces: mpsc::Sender<io::Result<Bytes>>,
    pub pending: Vec<u8>,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.pending.extend_from_slice(bytes);
        if self.pending.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.pending, Vec::with_capacity(PIECE));
        self.pieces.blocking_send(Ok(piece.into())).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// Where an attempt has its room below the directory of an agent.
pub(super) fn room_of(dir: &Path, which: &Which) -> PathBuf {
    dir.join("jobs").join(which.project.as_str()).join("attempts").join(&which.attempt)
}

/// What a room is made of again, on the other side.
pub(super) fn receive_room(body: impl Read, room: &Path) -> io::Result<()> {
    let mut body = zstd::Decoder::new(body)?;
    parcel::unpack(&mut body, room)?;
    io::copy(&mut body, &mut io::sink()).map(drop)
}
