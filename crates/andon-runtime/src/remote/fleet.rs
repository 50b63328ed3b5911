//! The server's end of all connections to hosts, and a runtime for each project on each of them. Lets nobody in; chooses no host.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use andon_dial::{Body, Peer, one};
use andon_model::{EnvironmentName, HostName, Packages, ProjectName, RuntimeKind};
use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde::de::DeserializeOwned;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use super::wire::{ANSWER_BYTES, Ask, Wrong};
use crate::error::RuntimeError;
use crate::port::{Isolation, Runtime};
use crate::{Difference, Foreign, Observed, Process, Spec};

/// For an answer that needs no waiting.
const QUICK: Duration = Duration::from_secs(10);
/// For one that starts something.
const STARTS: Duration = Duration::from_secs(60);
/// For one that ends something, which may take its time, or sends an artifact. A connection that dies ends it before.
const LONG: Duration = Duration::from_secs(900);
/// How long a host may think about whether something changed; it answers long before.
const THINKS: Duration = Duration::from_secs(60);
/// Between two tries to hear of changes.
const AGAIN: Duration = Duration::from_secs(1);
/// Bytes of an artifact in one piece, and pieces on their way.
const PIECE: usize = 64 * 1024;
const PIECES: usize = 4;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All hosts that this server knows or knew.
pub struct Fleet {
    handle: Handle,
    links: Mutex<BTreeMap<HostName, Arc<Link>>>,
}

/// One host, connected or not.
struct Link {
    host: HostName,
    handle: Handle,
    peer: Arc<Peer>,
    isolation: Mutex<Isolation>,
    runtimes: Mutex<BTreeMap<ProjectName, Arc<RemoteRuntime>>>,
}

impl Fleet {
    /// Nobody is connected. Questions are asked by this runtime of tokio.
    pub fn new(handle: Handle) -> Fleet {
        Fleet { handle, links: Mutex::default() }
    }

    fn link(&self, host: &HostName) -> Arc<Link> {
        let mut links = lock(&self.links);
        let made = || {
            Arc::new(Link {
                host: host.clone(),
                handle: self.handle.clone(),
                peer: Arc::default(),
                isolation: Mutex::default(),
                runtimes: Mutex::default(),
            })
        };
        Arc::clone(links.entry(host.clone()).or_insert_with(made))
    }

    /// The runtime of a project on a host, connected or not.
    pub fn runtime(&self, host: &HostName, project: &ProjectName) -> Arc<dyn Runtime> {
        let link = self.link(host);
        let mut runtimes = lock(&link.runtimes);
        let made = || {
            Arc::new(RemoteRuntime {
                link: Arc::clone(&link),
                project: project.clone(),
                told_on: Mutex::new(0),
                changes: OnceLock::new(),
            })
        };
        Arc::clone(runtimes.entry(project.clone()).or_insert_with(made)) as Arc<dyn Runtime>
    }

    /// For how long a host has not been connected; none: it is.
    pub fn silent_for(&self, host: &HostName) -> Option<Duration> {
        self.link(host).peer.silent_for()
    }

    /// Whether it is connected.
    pub fn reaches(&self, host: &HostName) -> bool {
        self.silent_for(host).is_none()
    }

    /// What separates instances there, as its agent said when it came.
    pub fn isolation(&self, host: &HostName) -> Isolation {
        lock(&self.link(host).isolation).clone()
    }

    /// A host came: its connection is for this.
    pub(super) fn greeted(&self, host: &HostName, isolation: Isolation) -> Arc<Peer> {
        let link = self.link(host);
        *lock(&link.isolation) = isolation;
        Arc::clone(&link.peer)
    }

    /// Tells a host that it is none any more: it ends and removes everything that it ran for this server. Blocks.
    pub fn dismiss(&self, host: &HostName) -> Result<(), RuntimeError> {
        self.link(host).put("/leave", one(Bytes::new()), LONG)
    }

    /// Forgets a host; its connection ends.
    pub fn forget(&self, host: &HostName) {
        let Some(link) = lock(&self.links).remove(host) else { return };
        lock(&link.runtimes).clear();
        link.peer.close();
    }
}

impl Link {
    fn silent(&self, why: impl Into<String>) -> RuntimeError {
        RuntimeError::Silent { host: self.host.to_string(), why: why.into() }
    }

    /// Asks and waits.
    fn put<T: DeserializeOwned>(&self, path: &str, body: Body, within: Duration) -> Result<T, RuntimeError> {
        self.handle.block_on(self.ask(path, body, within))
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        path: &str,
        body: Body,
        within: Duration,
    ) -> Result<T, RuntimeError> {
        let (status, body) =
            self.peer.ask(path, body, ANSWER_BYTES, within).await.map_err(|why| self.silent(why))?;
        if !status.is_success() {
            let why: String = String::from_utf8_lossy(&body).chars().take(400).collect();
            return Err(RuntimeError::OnHost { host: self.host.to_string(), why });
        }
        let answer: Result<T, Wrong> = serde_json::from_slice(&body).map_err(|error| {
            let why = format!("its answer is not understood: {error}; is it of the same version?");
            RuntimeError::OnHost { host: self.host.to_string(), why }
        })?;
        answer.map_err(|wrong| wrong.on(&self.host))
    }
}

/// Instances of one project on one host.
struct RemoteRuntime {
    link: Arc<Link>,
    project: ProjectName,
    /// The connection on which it was first said what was touched: what was said on an earlier one may be lost.
    told_on: Mutex<u64>,
    changes: OnceLock<watch::Receiver<u64>>,
}

impl RemoteRuntime {
    fn path(&self) -> String {
        format!("/{}", self.project)
    }

    fn question(&self, ask: &Ask) -> Result<Vec<u8>, RuntimeError> {
        let mut line = serde_json::to_vec(ask).map_err(|error| self.link.silent(error.to_string()))?;
        line.push(b'\n');
        Ok(line)
    }

    fn ask<T: DeserializeOwned>(&self, ask: &Ask, within: Duration) -> Result<T, RuntimeError> {
        self.link.put(&self.path(), one(self.question(ask)?), within)
    }
}

impl Runtime for RemoteRuntime {
    fn kind(&self) -> RuntimeKind {
        RuntimeKind::Process
    }

    /// As it said when it came: this is asked by those who must not wait.
    fn isolation(&self, _: &EnvironmentName) -> Isolation {
        lock(&self.link.isolation).clone()
    }

    fn place(
        &self,
        environment: &EnvironmentName,
        used: &BTreeSet<SocketAddr>,
        _: Option<u16>,
    ) -> Result<SocketAddr, RuntimeError> {
        self.ask(&Ask::Place { environment: environment.clone(), used: used.clone() }, QUICK)
    }

    fn prepare(&self, spec: &Spec, artifact: &mut dyn Read) -> Result<(), RuntimeError> {
        let (pieces, rest) = mpsc::channel::<io::Result<Bytes>>(PIECES);
        let first: Bytes = self.question(&Ask::Prepare(Box::new(spec.clone())))?.into();
        let stream = futures_util::stream::unfold((Some(first), rest), |(first, mut rest)| async {
            let next = match first {
                Some(first) => Ok(first),
                None => rest.recv().await?,
            };
            Some((next.map(Frame::data), (None, rest)))
        });
        let (link, path) = (Arc::clone(&self.link), self.path());
        let body = StreamBody::new(stream).boxed_unsync();
        let asked = self.link.handle.spawn(async move { link.ask::<()>(&path, body, LONG).await });
        let mut piece = vec![0; PIECE];
        let mut read = Ok(());
        // Whoever has it already does not want it: then nobody takes the next piece.
        while !asked.is_finished() {
            match artifact.read(&mut piece) {
                Ok(0) => break,
                Ok(length) => {
                    if pieces.blocking_send(Ok(Bytes::copy_from_slice(&piece[..length]))).is_err() {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    // The host hears that it is not whole.
                    let _ = pieces.blocking_send(Err(io::ErrorKind::UnexpectedEof.into()));
                    read = Err(RuntimeError::disk("read", "the artifact")(error));
                    break;
                }
            }
        }
        drop(pieces);
        let answer = self.link.handle.block_on(asked);
        read?;
        answer.map_err(|error| self.link.silent(error.to_string()))?
    }

    fn start(&self, spec: &Spec) -> Result<(), RuntimeError> {
        self.ask(&Ask::Start(Box::new(spec.clone())), STARTS)
    }

    fn stop(&self, id: &str) -> Result<(), RuntimeError> {
        self.ask(&Ask::Stop(id.to_owned()), LONG)
    }

    fn remove(&self, id: &str) -> Result<(), RuntimeError> {
        self.ask(&Ask::Remove(id.to_owned()), LONG)
    }

    fn list(&self) -> Result<Vec<Observed>, RuntimeError> {
        self.ask(&Ask::List, QUICK)
    }

    fn logs(&self, id: &str, lines: usize) -> Result<String, RuntimeError> {
        self.ask(&Ask::Logs(id.to_owned(), lines), QUICK)
    }

    fn differences(&self, id: &str) -> Result<Vec<Difference>, RuntimeError> {
        self.ask(&Ask::Differences(id.to_owned()), STARTS)
    }

    fn settings(&self, id: &str) -> Result<Vec<Difference>, RuntimeError> {
        self.ask(&Ask::Settings(id.to_owned()), QUICK)
    }

    fn packages(&self, id: &str) -> Result<Option<Packages>, RuntimeError> {
        self.ask(&Ask::Packages(id.to_owned()), STARTS)
    }

    fn touched(&self) -> Option<BTreeSet<String>> {
        let number = self.link.peer.number()?;
        let told = self.ask::<Option<BTreeSet<String>>>(&Ask::Touched, QUICK).ok()??;
        let before = std::mem::replace(&mut *lock(&self.told_on), number);
        (before == number).then_some(told)
    }

    fn watch(&self) -> Option<watch::Receiver<u64>> {
        let begin = || {
            let (changed, changes) = watch::channel(0);
            let (link, path) = (Arc::clone(&self.link), self.path());
            self.link.handle.spawn(listen(link, path, changed));
            changes
        };
        Some(self.changes.get_or_init(begin).clone())
    }

    fn foreign(&self) -> Result<Vec<Foreign>, RuntimeError> {
        self.ask(&Ask::Foreign, QUICK)
    }

    fn kill_foreign(&self, process: Process) -> Result<bool, RuntimeError> {
        self.ask(&Ask::KillForeign(process), QUICK)
    }

    fn clear(&self, environment: &EnvironmentName) -> Result<(), RuntimeError> {
        self.ask(&Ask::Clear(environment.clone()), STARTS)
    }
}

/// Counts up whenever the host says that something changed, and when it comes back, until nobody wants to know.
async fn listen(link: Arc<Link>, path: String, changed: watch::Sender<u64>) {
    let mut wires = link.peer.connections();
    let (mut seen, mut on) = (0_u64, 0_u64);
    let hear = async {
        loop {
            let number = match wires.wait_for(Option::is_some).await {
                Ok(wire) => wire.as_ref().map_or(0, |wire| wire.number),
                Err(_) => return,
            };
            if number != on {
                on = number;
                changed.send_modify(|count| *count += 1);
            }
            let mut line = serde_json::to_vec(&Ask::Watch(seen)).unwrap_or_default();
            line.push(b'\n');
            // A question on its way keeps its connection open: it is given up with that.
            let answer = tokio::select! {
                answer = link.ask::<Option<u64>>(&path, one(line), THINKS) => answer,
                _ = wires.wait_for(|wire| wire.as_ref().is_none_or(|wire| wire.number != number)) => continue,
            };
            match answer {
                Ok(Some(count)) if count == seen => {}
                Ok(Some(count)) => {
                    seen = count;
                    changed.send_modify(|count| *count += 1);
                }
                // Nobody there can tell.
                Ok(None) => return,
                Err(_) => tokio::time::sleep(AGAIN).await,
            }
        }
    };
    tokio::select! {
        () = hear => {}
        () = changed.closed() => {}
    }
}
