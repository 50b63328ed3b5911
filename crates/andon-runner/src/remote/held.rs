//! Attempts that this machine has for its server: begun, followed, found again after a restart, let go. Answers nobody.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use andon_model::{ProjectName, Span};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::crew::{Trouble, room_of};
use super::wire::{Ask, Has, PIECE, Progress, Which, Work};
use crate::confine::machine_env;
use crate::engine;
use crate::execute::{News, Runner, Running};
use crate::order::{End, Order, StepEnd};
use crate::room::Room;

/// The file in a room that says whose it is.
const NOTE: &str = "assignment.json";
/// How often output is looked at that grows.
const LOOK: Duration = Duration::from_millis(50);
/// How long a question is thought about where nothing is new.
const THINKS: Duration = Duration::from_secs(15);
/// What is said of an attempt that nobody saw end.
const WENT_DOWN: &str = "the machine or the process that held it went down";

/// This machine.
pub(super) struct Machine {
    pub dir: PathBuf,
    /// Its own program, whose folder is on the PATH of jobs that ask for the order of tests.
    pub exe: PathBuf,
    pub runner: Runner,
    /// Jobs may reach the container engine.
    pub docker: bool,
    /// It is no runner any more: everything of it was removed.
    left: AtomicBool,
    held: Mutex<BTreeMap<(ProjectName, String), Arc<Held>>>,
}

/// An attempt.
pub(super) struct Held {
    which: Which,
    pub room: Room,
    seen: watch::Sender<Seen>,
    pub stop: CancellationToken,
}

#[derive(Default)]
struct Seen {
    steps: Vec<StepEnd>,
    end: Option<End>,
}

#[derive(Serialize, Deserialize)]
struct Note {
    number: u64,
}

impl Machine {
    pub fn new(dir: PathBuf, exe: PathBuf, docker: bool) -> Machine {
        use sha2::Digest as _;
        let name = hex::encode(&sha2::Sha256::digest(dir.as_os_str().as_encoded_bytes())[..4]);
        let runner = Runner::new(exe.clone(), &dir, format!("andon-jobs-{name}"));
        Machine { dir, exe, runner, docker, left: AtomicBool::new(false), held: Mutex::default() }
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<(ProjectName, String), Arc<Held>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn has_left(&self) -> bool {
        self.left.load(Ordering::SeqCst)
    }

    fn rooms(&self, project: &ProjectName) -> PathBuf {
        self.dir.join("jobs").join(project.as_str()).join("attempts")
    }

    /// Takes up what an earlier agent began; what was only half received is removed.
    pub async fn take_up(self: &Arc<Machine>) {
        for project in folders(&self.dir.join("jobs")) {
            let Ok(project) = project.parse::<ProjectName>() else { continue };
            for attempt in folders(&self.rooms(&project)) {
                let room = Room::at(&self.rooms(&project).join(&attempt));
                let note = fs::read(room.dir().join(NOTE)).ok();
                let note = note.and_then(|bytes| serde_json::from_slice::<Note>(&bytes).ok());
                let Some(Note { number }) = note else {
                    self.remove(room).await;
                    continue;
                };
                let which = Which { project: project.clone(), attempt, number };
                match self.runner.adopt(&room).await {
                    Ok(Some(running)) => drop(self.hold(which, room, Ok(running))),
                    Ok(None) => drop(self.hold(which, room, Err(WENT_DOWN.into()))),
                    Err(why) => drop(self.hold(which, room, Err(why))),
                }
            }
        }
    }

    async fn remove(self: &Arc<Machine>, room: Room) {
        let (own, dir) = (Arc::clone(self), room.dir().to_owned());
        let removed = tokio::task::spawn_blocking(move || own.runner.end(&room)).await;
        if let Ok(Err(why)) = removed {
            tracing::error!(room = %dir.display(), why, "what is left of an attempt is not all gone");
        }
    }

    /// Looks after it until it is over.
    fn hold(&self, which: Which, room: Room, running: Result<Running, String>) -> Arc<Held> {
        let key = (which.project.clone(), which.attempt.clone());
        let held = Held { which, room, seen: watch::Sender::default(), stop: CancellationToken::new() };
        let held = Arc::new(held);
        self.held().insert(key, Arc::clone(&held));
        match running {
            Ok(running) => drop(tokio::spawn(watch_over(Arc::clone(&held), running))),
            Err(why) => held.seen.send_modify(|seen| seen.end = Some(End::Broken(why))),
        }
        held
    }

    /// The attempt of this assignment; one of another number is not this one.
    pub fn find(&self, which: &Which) -> Result<Arc<Held>, Trouble> {
        let key = (which.project.clone(), which.attempt.clone());
        let found = self.held().get(&key).cloned();
        let found = found.ok_or_else(|| Trouble::Gone("it has no such attempt".into()))?;
        if found.which.number == which.number { Ok(found) } else { Err(stale(&found.which)) }
    }

    /// Begins an attempt once its room is received by `receive`. The same assignment once more changes nothing.
    pub async fn begin(
        self: &Arc<Machine>,
        which: Which,
        work: Work,
        receive: impl FnOnce(&Path) -> io::Result<()> + Send + 'static,
    ) -> Result<(), Trouble> {
        if self.has_left() {
            return Err(Trouble::Said("it is no runner any more".into()));
        }
        let key = (which.project.clone(), which.attempt.clone());
        let before = self.held().get(&key).cloned();
        match before {
            Some(before) if before.which == which => return Ok(()),
            Some(before) if before.which.number > which.number => return Err(stale(&before.which)),
            Some(before) => self.let_go(&before.which).await?,
            None => {}
        }
        let room = Room::at(&room_of(&self.dir, &which));
        let begun = self.begin_in(&room, &which, work, receive).await;
        match begun {
            Ok(running) => {
                self.hold(which, room, Ok(running));
                Ok(())
            }
            Err(why) => {
                self.remove(room).await;
                Err(Trouble::Said(why))
            }
        }
    }

    async fn begin_in(
        self: &Arc<Machine>,
        room: &Room,
        which: &Which,
        work: Work,
        receive: impl FnOnce(&Path) -> io::Result<()> + Send + 'static,
    ) -> Result<Running, String> {
        let (own, at, which) = (Arc::clone(self), room.clone(), which.clone());
        let order = tokio::task::spawn_blocking(move || {
            let words = |error: io::Error| format!("its room could not be made: {error}");
            fs::create_dir_all(at.dir()).map_err(words)?;
            receive(at.dir()).map_err(|error| format!("its working copy did not arrive: {error}"))?;
            for dir in ["tree", "tmp"] {
                fs::create_dir_all(at.dir().join(dir)).map_err(words)?;
            }
            let note = serde_json::to_vec(&Note { number: which.number }).map_err(|e| e.to_string())?;
            fs::write(at.dir().join(NOTE), note).map_err(words)?;
            own.order(&at, &which, work).map_err(words)
        });
        let order = order.await.map_err(|error| error.to_string())??;
        self.runner.start(&order).await
    }

    /// The order for this machine: its own tools, its own places.
    fn order(&self, room: &Room, which: &Which, work: Work) -> io::Result<Order> {
        let home = self.dir.join("jobs").join(which.project.as_str());
        let home = home.join(if work.landed { "home-of-trunk" } else { "home" });
        fs::create_dir_all(&home)?;
        let mut env = machine_env(|name| std::env::var(name).ok());
        env.insert("HOME".into(), home.display().to_string());
        env.insert("TMPDIR".into(), room.tmp().display().to_string());
        env.extend(work.env);
        let below = |path: String| room.dir().join(path).display().to_string();
        env.extend(work.paths.into_iter().map(|(name, path)| (name, below(path))));
        if env.contains_key("ANDON_TESTS")
            && work.image.is_none()
            && let Some(own) = self.exe.parent()
        {
            let path = env.entry("PATH".into()).or_default();
            *path = format!("{path}:{}", own.display()).trim_matches(':').to_owned();
        }
        let log = log_of(room);
        fs::File::create(&log)?.write_all(work.said.as_bytes())?;
        let mut order = Order {
            name: format!("{}-{}", which.project, which.attempt),
            room: room.dir().to_owned(),
            steps: work.steps,
            workdir: room.dir().join("tree"),
            env,
            timeout: Span(work.timeout_ms),
            quiet: work.quiet_ms.map(Span),
            grace: Span(work.grace_ms),
            secrets: work.secrets,
            log,
            log_limit: work.log_limit,
            limits: work.limits,
            network: work.network,
            image: work.image,
            reads: Vec::new(),
            writes: vec![home],
        };
        if work.docker {
            engine::give(
                &mut order,
                self.docker,
                "the owner of this runner decides: andon runner run --docker-in-jobs",
            )?;
        }
        Ok(order)
    }

    /// Ends it, whatever it does, and removes it.
    pub async fn let_go(self: &Arc<Machine>, which: &Which) -> Result<(), Trouble> {
        let held = self.find(which)?;
        let (own, room) = (Arc::clone(self), held.room.clone());
        let ended = tokio::task::spawn_blocking(move || own.runner.end(&room)).await;
        ended.map_err(|error| error.to_string()).and_then(|ended| ended).map_err(Trouble::Said)?;
        self.held().remove(&(which.project.clone(), which.attempt.clone()));
        Ok(())
    }

    /// All attempts.
    pub fn list(&self) -> Vec<Has> {
        let has =
            |held: &Arc<Held>| Has { which: held.which.clone(), over: held.seen.borrow().end.is_some() };
        self.held().values().map(has).collect()
    }

    /// Ends and removes everything of the server.
    pub async fn clear(self: &Arc<Machine>) -> Result<(), String> {
        self.left.store(true, Ordering::SeqCst);
        for has in self.list() {
            self.let_go(&has.which).await.map_err(|trouble| trouble.to_string())?;
        }
        match fs::remove_dir_all(self.dir.join("jobs")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.to_string()),
            _ => Ok(()),
        }
    }
}

impl Held {
    /// What is new behind what the server has; waits a while for something.
    pub async fn progress(&self, ask: &Ask) -> Result<(Progress, Vec<u8>), Trouble> {
        let mut seen = self.seen.subscribe();
        let deadline = tokio::time::Instant::now() + THINKS;
        loop {
            let now = self
                .now(ask, &mut seen)
                .map_err(|error| Trouble::Said(format!("its output cannot be read: {error}")))?;
            let late = tokio::time::Instant::now() >= deadline;
            if late || now.0.log > 0 || !now.0.steps.is_empty() || now.0.end.is_some() {
                return Ok(now);
            }
            // Whichever comes first; the sender is ours and stays.
            let _ = tokio::time::timeout(LOOK, seen.changed()).await;
        }
    }

    fn now(&self, ask: &Ask, seen: &mut watch::Receiver<Seen>) -> io::Result<(Progress, Vec<u8>)> {
        // The end is looked at before the output: what is there then is all there will be.
        let (steps, end) = {
            let seen = seen.borrow_and_update();
            let new = seen.steps.iter().filter(|step| step.step > ask.steps).cloned();
            (new.collect::<Vec<_>>(), seen.end.clone())
        };
        let (mut bytes, mut length) = (Vec::new(), 0);
        match fs::File::open(log_of(&self.room)) {
            Ok(mut file) => {
                length = file.metadata()?.len();
                file.seek(SeekFrom::Start(ask.log))?;
                file.take(PIECE).read_to_end(&mut bytes)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let log = bytes.len() as u64;
        let end = end.filter(|_| ask.log + log >= length);
        Ok((Progress { steps, log, end }, bytes))
    }
}

async fn watch_over(held: Arc<Held>, mut running: Running) {
    let mut asked = false;
    loop {
        tokio::select! {
            () = held.stop.cancelled(), if !asked => {
                asked = true;
                running.stop();
            }
            news = running.next() => match news {
                News::Steps(steps) => held.seen.send_modify(|seen| seen.steps.extend(steps)),
                News::Ended(end) => {
                    held.seen.send_modify(|seen| seen.end = Some(end));
                    return;
                }
            }
        }
    }
}

fn stale(has: &Which) -> Trouble {
    Trouble::Said(format!("another assignment has its place: number {}", has.number))
}

fn log_of(room: &Room) -> PathBuf {
    room.dir().join("log")
}

fn folders(dir: &Path) -> Vec<String> {
    let found = fs::read_dir(dir).into_iter().flatten().flatten();
    found
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}
