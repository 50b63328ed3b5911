//! Attempts from the server's side: started, followed, adopted after a restart, stopped, swept. Knows no pipeline.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::Duration;

use andon_model::event::JobIsolation;
use andon_sandbox::process::table;
use andon_sandbox::{Bounds, Groups, Means, Plan};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdout, Command};

use crate::confine;
use crate::order::{End, Order, StepEnd};
use crate::room::{Reading, Room};
use crate::shim::contained::{self, Contained};
use crate::shim::{Job, MARK, REHEARSE, STAGE};

/// How often the record of an attempt is looked at whose shim tells nobody any more.
const LOOK: Duration = Duration::from_millis(100);
/// Looks at what will not die, and the pause between.
const LOOKS: u32 = 400;
const PAUSE: Duration = Duration::from_millis(10);
/// Where programs are looked for if the server has no PATH.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What an attempt whose shim is gone without a word came to.
const VANISHED: &str = "the process that held it is gone, and nobody saw how it ended";

/// Starts attempts and finds them again.
#[derive(Debug)]
pub struct Runner {
    exe: PathBuf,
    /// What no job sees: the server's data.
    hide: PathBuf,
    /// Where the host's permission is tried.
    probe: PathBuf,
    /// What groups of jobs are named after.
    name: String,
    means: OnceLock<Means>,
}

/// What is to be heard of an attempt.
#[derive(Debug)]
pub enum News {
    /// These steps ended.
    Steps(Vec<StepEnd>),
    /// All is over; nothing of it runs any more.
    Ended(End),
}

/// An attempt under way, or over and not yet forgotten.
#[derive(Debug)]
pub struct Running {
    room: Room,
    reading: Reading,
    watched: Watched,
    /// The shim's word that the record has grown; none: it tells nobody.
    told: Option<ChildStdout>,
    stopped: bool,
}

#[derive(Debug)]
enum Watched {
    /// Our own child.
    Child(Box<Child>),
    /// One that an earlier server started.
    Adopted(AsyncFd<OwnedFd>),
    /// It is over.
    Over,
}

impl Runner {
    /// Shims are `exe job-shim ROOM`; jobs see nothing below `data` beside what they are given; groups on the host are called `name`.
    pub fn new(exe: PathBuf, data: &Path, name: String) -> Runner {
        let hide = data.canonicalize().unwrap_or_else(|_| data.to_owned());
        Runner { exe, probe: hide.join("jobs"), hide, name, means: OnceLock::new() }
    }

    /// Uses these means instead of what the host permits.
    pub fn with(mut self, means: Means) -> Runner {
        self.means = OnceLock::from(means);
        self
    }

    /// What the host permits: tried once, when it is asked for first. Blocks.
    pub fn means(&self) -> &Means {
        self.means.get_or_init(|| {
            let probe = self.probe.join(format!(".probe-{}", std::process::id()));
            if let Err(error) = fs::create_dir_all(&probe) {
                return Means::none(&format!("it could not be tried: {error}"));
            }
            let rehearse = || {
                let mut command = std::process::Command::new(&self.exe);
                command.arg("job-shim").arg(&probe).env_clear().env(STAGE, REHEARSE).current_dir("/");
                command
            };
            let means = Means::find(rehearse, &probe, &self.name);
            // Left for the next time if it cannot be removed now.
            let _ = fs::remove_dir(&probe);
            means
        })
    }

    /// What separates an attempt with these limits from everything else. Blocks when it is asked first.
    pub fn isolation(&self, limits: &Bounds, network: bool, image: Option<&str>) -> JobIsolation {
        match image {
            None => confine::isolation(self.means(), limits, network),
            Some(image) => confine::isolation_in(image, limits, network),
        }
    }

    /// Begins an attempt. Whatever becomes of it stands in its room. The order is heard by the shim alone and never written.
    pub async fn start(&self, order: &Order) -> Result<Running, String> {
        let hide = [self.hide.clone()];
        let container = order.image.as_ref().map(|image| self.contained(order, image));
        let plan = match &container {
            None => confine::plan(order, self.means(), &hide)?,
            Some(_) => Plan::default(),
        };
        let words = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
        let room = Room::at(&order.room);
        for dir in [room.root(), room.tmp()] {
            fs::create_dir_all(&dir).map_err(words("cannot make its room"))?;
        }
        let notes = fs::File::options().create(true).append(true).open(room.notes());
        let millis = |span: andon_model::Span| span.0;
        let job = Job {
            name: order.name.clone(),
            steps: order.steps.clone(),
            workdir: order.workdir.clone(),
            env: match &container {
                None => order.env.clone().into_iter().collect(),
                Some(_) => without_machine(&order.env),
            },
            secrets: order.secrets.clone(),
            timeout_ms: millis(order.timeout),
            quiet_ms: order.quiet.map(millis),
            grace_ms: millis(order.grace),
            log: order.log.clone(),
            log_limit: order.log_limit,
            limits: order.limits,
            // The engine limits a container.
            groups: if container.is_some() { Groups::default() } else { self.means().groups.clone() },
            plan,
            container,
        };
        let mut line = serde_json::to_vec(&job).map_err(|error| error.to_string())?;
        line.push(b'\n');
        let mut child = Command::new(&self.exe)
            .arg("job-shim")
            .arg(&order.room)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_else(|| PATH.into()))
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(notes.map_err(words("cannot keep notes"))?)
            .spawn()
            .map_err(|error| format!("cannot run {}: {error}", self.exe.display()))?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that does not listen says so by its end.
            let _ = stdin.write_all(&line).await;
        }
        let told = child.stdout.take();
        let watched = Watched::Child(Box::new(child));
        Ok(Running { room, reading: Reading::default(), watched, told, stopped: false })
    }

    fn contained(&self, order: &Order, image: &str) -> Contained {
        Contained {
            // Names of attempts are good for an engine: letters, digits, `.` and `-`.
            name: format!("{}-{}", self.name, order.name),
            owner: self.name.clone(),
            image: image.to_owned(),
            host: contained::host(),
            network: order.network,
            reads: order.reads.clone(),
            writes: [order.workdir.clone()].into_iter().chain(order.writes.iter().cloned()).collect(),
            tmp: Room::at(&order.room).tmp(),
            limits: order.limits,
        }
    }

    /// Takes up an attempt that an earlier server began, wherever it stands. None: nobody knows how it ended, and nothing of it is left.
    pub async fn adopt(&self, room: &Room) -> Result<Option<Running>, String> {
        let running = |watched| Running {
            room: room.clone(),
            reading: Reading::default(),
            watched,
            told: None,
            stopped: false,
        };
        for _ in 0..LOOKS {
            match room.lock().map_err(|error| format!("cannot look at the lock of its room: {error}"))? {
                // Held by us for as long as it takes: nobody begins now.
                Some(_lock) => {
                    return match room.outcome() {
                        Ok(Some(_)) => Ok(Some(running(Watched::Over))),
                        Ok(None) => {
                            let own = room.clone();
                            let left = tokio::task::spawn_blocking(move || end_left(&own)).await;
                            left.map_err(|error| error.to_string())?.map(|()| None)
                        }
                        Err(error) => Err(format!("cannot read how it ended: {error}")),
                    };
                }
                // A shim writes who it is once it has the lock; until then it is only just beginning.
                None => {
                    let state = room.state().ok().flatten();
                    let pid = state.and_then(|state| Some((state.shim, i32::try_from(state.shim.pid).ok()?)));
                    let Some((shim, pid)) = pid else {
                        tokio::time::sleep(PAUSE).await;
                        continue;
                    };
                    let handle = Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
                    // It may have ended since: then the lock is free.
                    let Some(handle) =
                        handle.filter(|_| andon_sandbox::Process::of(shim.pid).ok() == Some(shim))
                    else {
                        tokio::time::sleep(PAUSE).await;
                        continue;
                    };
                    let handle =
                        watched(handle).map_err(|error| format!("cannot watch its shim: {error}"))?;
                    return Ok(Some(running(Watched::Adopted(handle))));
                }
            }
        }
        Err("its shim neither begins nor ends".into())
    }

    /// Runs one attempt to its end. When `cancel` resolves it is stopped. In every case nothing of it is left running.
    pub async fn run(&self, order: &Order, cancel: impl Future<Output = ()>) -> End {
        let mut running = match self.start(order).await {
            Ok(running) => running,
            Err(why) => return End::Broken(why),
        };
        let mut cancel = std::pin::pin!(cancel);
        loop {
            tokio::select! {
                news = running.next() => match news {
                    News::Steps(_) => {}
                    News::Ended(end) => return end,
                },
                () = &mut cancel, if !running.stopped => running.stop(),
            }
        }
    }

    /// Ends every attempt in rooms below `rooms` that `known` does not know by its directory's name, and removes its room; groups of
    /// this server that belong to no room go as well. Blocks until it is done.
    pub fn sweep(&self, rooms: &Path, known: impl Fn(&str) -> bool) -> io::Result<()> {
        let found = match fs::read_dir(rooms) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            found => found?,
        };
        for entry in found {
            let entry = entry?;
            if entry.file_name().to_str().is_none_or(|name| !known(name)) {
                self.end(&Room::at(&entry.path())).map_err(io::Error::other)?;
            }
        }
        Ok(())
    }

    /// Ends an attempt at once, whoever began it, and removes its room. Blocks.
    pub fn end(&self, room: &Room) -> Result<(), String> {
        for _ in 0..LOOKS {
            match room.lock().map_err(|error| format!("cannot look at the lock of its room: {error}"))? {
                Some(_lock) => {
                    end_left(room)?;
                    return room.remove().map_err(|error| format!("cannot remove its room: {error}"));
                }
                None => {
                    if let Ok(Some(state)) = room.state() {
                        // Killed, it can hold nobody any more: what it held is ended below.
                        let _ = state.shim.signal(Signal::KILL);
                    }
                }
            }
            pause();
        }
        Err("its shim survives being killed".into())
    }
}

impl Running {
    /// Asks it to end; what comes of that is heard as its end.
    pub fn stop(&mut self) {
        self.stopped = true;
        match &self.watched {
            Watched::Child(child) => {
                let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
                // Ended already is as good. It cannot be another's number: it is our child until it is waited for.
                let _ = pid.map(|pid| rustix::process::kill_process(pid, Signal::TERM));
            }
            Watched::Adopted(shim) => {
                let _ = rustix::process::pidfd_send_signal(shim, Signal::TERM);
            }
            Watched::Over => {}
        }
    }

    /// Waits for what comes next. To be dropped and asked again at any time: nothing is missed.
    pub async fn next(&mut self) -> News {
        loop {
            let over = matches!(self.watched, Watched::Over);
            // In this order: what was recorded before the end is read after it is known.
            match self.room.ended(&mut self.reading) {
                Ok(steps) if !steps.is_empty() => return News::Steps(steps),
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(room = %self.room.dir().display(), %error, "a record of steps cannot be read")
                }
            }
            if over {
                return News::Ended(self.outcome().await);
            }
            let mut lines = [0; 64];
            let told = async {
                match &mut self.told {
                    Some(out) => out.read(&mut lines).await.is_ok_and(|read| read > 0),
                    None => {
                        tokio::time::sleep(LOOK).await;
                        true
                    }
                }
            };
            let ended = async {
                match &mut self.watched {
                    Watched::Child(child) => drop(child.wait().await),
                    Watched::Adopted(shim) => drop(shim.readable().await),
                    Watched::Over => {}
                }
            };
            tokio::select! {
                () = ended => self.watched = Watched::Over,
                more = told => if !more {
                    self.told = None;
                },
            }
        }
    }

    async fn outcome(&self) -> End {
        match self.room.outcome() {
            Ok(Some(end)) => end,
            Err(error) => End::Broken(format!("how it ended cannot be read: {error}")),
            Ok(None) => {
                let room = self.room.clone();
                let left = tokio::task::spawn_blocking(move || end_left(&room)).await;
                match left.map_err(|error| error.to_string()).and_then(|left| left) {
                    Err(why) => End::Broken(why),
                    Ok(()) if self.stopped => End::Cancelled,
                    Ok(()) => End::Broken(format!("{VANISHED}{}", self.said())),
                }
            }
        }
    }

    /// What the shim said last, if it said anything.
    fn said(&self) -> String {
        let notes = fs::read_to_string(self.room.notes()).unwrap_or_default();
        notes.lines().last().map(|line| format!(": {line}")).unwrap_or_default()
    }

    /// Where its record is.
    pub fn room(&self) -> &Room {
        &self.room
    }
}

#[allow(
    deprecated,
    reason = "its successor is unsafe because a type may give another descriptor each time: this one does not"
)]
fn watched(handle: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(handle)
}

/// The environment of an order without what this machine put into it: an image has tools of its own.
fn without_machine(env: &BTreeMap<String, String>) -> Vec<(String, String)> {
    let machine = confine::machine_env(|name| std::env::var(name).ok());
    let own = env.iter().filter(|(name, value)| machine.get(*name) != Some(*value));
    own.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Ends what an attempt without a shim has left: usually nothing, since its first process ends with its shim.
fn end_left(room: &Room) -> Result<(), String> {
    let state = room.state().ok().flatten();
    let (group, container) = state.map(|state| (state.group, state.container)).unwrap_or_default();
    if let Some(container) = container {
        contained::remove(&container).map_err(|why| format!("its container cannot be removed: {why}"))?;
    }
    let named = room.dir().to_string_lossy();
    let mut left = Vec::new();
    for _ in 0..LOOKS {
        group.kill();
        let all = table().map_err(|error| format!("cannot see what is left of it: {error}"))?;
        let of_it = all
            .values()
            .filter(|stat| !stat.zombie && stat.process.variable(MARK).as_deref() == Some(&*named));
        left = of_it.map(|stat| stat.process).collect();
        if left.is_empty() && group.remove().is_ok() {
            return Ok(());
        }
        for process in &left {
            // Gone already is as good.
            let _ = process.signal(Signal::KILL);
        }
        pause();
    }
    let pids: Vec<String> = left.iter().map(|process| process.pid.to_string()).collect();
    Err(format!("what it left survives being killed: {}", pids.join(", ")))
}

#[allow(
    clippy::disallowed_methods,
    reason = "between two looks at processes that are being killed; only blocking tasks come here"
)]
fn pause() {
    std::thread::sleep(PAUSE);
}
