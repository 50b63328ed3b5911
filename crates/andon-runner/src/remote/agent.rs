//! The agent of a runner: what it remembers, what it says first, and what it does until it is told to stop. What it runs outlives it.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use andon_dial::keep::Room;
use andon_dial::member::{Words, fresh};
use andon_dial::trust::parts;
use andon_dial::{Body, Member, attend};
use andon_model::{Digest, LabelName, RunnerName};
use andon_sandbox::Means;
use hyper::body::Incoming;
use hyper::{Request, Response};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::PREFIX;
use super::answer::answer;
use super::held::Machine;
use super::wire::{Entry, Hello, VERSION};

/// The file of what it remembers.
const FILE: &str = "runner.json";
const WORDS: Words = Words { what: "runner", token: "andon runner token", door: "andon serve --runners" };

/// What a machine brings when it joins.
#[derive(Debug, Clone)]
pub struct Joining {
    /// Where the server lets runners in: host and port.
    pub server: String,
    /// Its invitation.
    pub token: String,
    /// What the runner is to be called.
    pub name: RunnerName,
    /// What jobs may ask for.
    pub labels: Vec<LabelName>,
    /// Jobs at once.
    pub slots: u32,
}

/// What it remembers.
#[derive(Clone, Serialize, Deserialize)]
struct Kept {
    server: String,
    /// Of its certificate.
    fingerprint: String,
    name: RunnerName,
    labels: Vec<LabelName>,
    slots: u32,
    /// By which it is known.
    secret: String,
    /// The token it comes with, until it was let in.
    token: Option<String>,
}

/// Joins, and then runs like [`run`]. Joined already, it only runs. `said` hears what people want to know.
pub async fn join(
    data: &Path,
    exe: PathBuf,
    docker: bool,
    joining: Joining,
    stop: CancellationToken,
    said: impl Fn(String),
) -> Result<(), String> {
    let room = Room::open(data)?;
    if let Some(kept) = room.read::<Kept>(FILE)? {
        if kept.server != joining.server {
            return Err(format!(
                "{} belongs to the runner {} of the server {}\nhint: give another --data, or leave that server first: andon runner leave {}",
                room.dir.display(),
                kept.name,
                kept.server,
                kept.name
            ));
        }
        if kept.token.is_none() {
            return serve(room, exe, docker, kept, stop, said).await;
        }
    }
    let (fingerprint, secret) = parts(PREFIX, &joining.token).ok_or(
        "this is not a token for a runner\nhint: `andon runner token` on the server prints one; copy all of it",
    )?;
    // Kept before it is said: whoever is let in and dies at once comes back with it.
    let kept = Kept {
        server: joining.server,
        fingerprint,
        name: joining.name,
        labels: joining.labels,
        slots: joining.slots,
        secret: fresh()?,
        token: Some(secret),
    };
    if let Some(flaw) = entry(&kept).flaw() {
        return Err(flaw);
    }
    room.keep(FILE, &kept)?;
    serve(room, exe, docker, kept, stop, said).await
}

/// Is the runner that joined before with this directory, until it is told to stop or is none any more.
pub async fn run(
    data: &Path,
    exe: PathBuf,
    docker: bool,
    stop: CancellationToken,
    said: impl Fn(String),
) -> Result<(), String> {
    let room = Room::open(data)?;
    let kept = room.read::<Kept>(FILE)?.ok_or_else(|| {
        format!("{} belongs to no runner\nhint: andon runner join SERVER --token TOKEN", room.dir.display())
    })?;
    serve(room, exe, docker, kept, stop, said).await
}

fn entry(kept: &Kept) -> Entry {
    match &kept.token {
        None => Entry::Back { secret: kept.secret.clone() },
        Some(token) => Entry::Join {
            token: token.clone(),
            name: kept.name.clone(),
            labels: kept.labels.clone(),
            slots: kept.slots,
            credential: Digest::of(kept.secret.as_bytes()),
        },
    }
}

async fn serve(
    room: Room,
    exe: PathBuf,
    docker: bool,
    kept: Kept,
    stop: CancellationToken,
    said: impl Fn(String),
) -> Result<(), String> {
    let machine = Arc::new(Machine::new(room.dir.clone(), exe, docker));
    let asked = Arc::clone(&machine);
    let means = tokio::task::spawn_blocking(move || asked.runner.means().clone()).await;
    let means = means.map_err(|error| error.to_string())?;
    machine.take_up().await;
    let runner = OfServer { room, kept: Mutex::new(kept), machine, means };
    attend(&runner, stop, said).await
}

/// This machine, as the runner of a server.
struct OfServer {
    room: Room,
    kept: Mutex<Kept>,
    machine: Arc<Machine>,
    means: Means,
}

impl OfServer {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Member for OfServer {
    const WORDS: Words = WORDS;
    type Hello = Hello;
    type Answer = Body;

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
        Hello {
            version: VERSION,
            means: self.means.clone(),
            dir: self.room.dir.clone(),
            entry: entry(&self.kept()),
        }
    }

    fn admitted(&self) -> Result<String, String> {
        let mut kept = self.kept();
        if kept.token.take().is_some() {
            self.room.keep(FILE, &*kept)?;
        }
        let jobs = if kept.slots == 1 { "job" } else { "jobs" };
        Ok(format!("{} is connected to {}; it takes {} {jobs} at once", kept.name, kept.server, kept.slots))
    }

    fn answer(
        &self,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<Body>, Infallible>> + Send + 'static {
        answer(request, Arc::clone(&self.machine))
    }

    fn left(&self) -> bool {
        self.machine.has_left()
    }

    async fn clear(&self) -> Result<(), String> {
        self.machine.clear().await
    }

    fn forget(&self) -> Result<(), String> {
        self.room.forget(FILE)
    }
}
