//! The host's instances, as their directories and locks tell of them. Keeps nothing in memory that a restart would miss.

mod inside;
mod log;
mod plan;
mod proc;
mod shim;
mod watch;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::time::Duration;

use self::plan::{SETTING, Setting};
use self::proc::Stat;
use self::shim::{MARK, PATH};
use self::watch::Watcher;
use andon_model::{EnvironmentName, RuntimeKind, Time};
use rustix::fs::{FlockOperation, flock};
use rustix::process::Signal;
use sha2::Digest as _;

use crate::error::RuntimeError;
use crate::health::free_port;
use crate::manifest::{self, Difference, Inspector, Manifest};
use crate::port::{Isolation, Runtime};
use crate::sandbox::{Group, Means};
use crate::spec::{self, Exit, Spec, State};
use crate::unpack::{Limits, unpack};

pub use self::proc::Process;
pub use self::shim::shim_main;

/// What a shim may take beyond the time that the instance has to stop.
const SHIM_GRACE: Duration = Duration::from_secs(10);
/// How often what will not die is killed again, and the pause before looking whether it did.
const KILLS: u32 = 200;
const KILL_PAUSE: Duration = Duration::from_millis(10);

/// The instances below one directory.
pub struct ProcessRuntime {
    root: PathBuf,
    exe: PathBuf,
    inspector: Mutex<Inspector>,
    /// What instances never see.
    hide: Vec<PathBuf>,
    /// What the host permits, once somebody asked.
    means: OnceLock<Means>,
    /// None: this host tells nobody of changes.
    watcher: Option<Watcher>,
    unique: AtomicU64,
    /// One at a time starts, stops or removes an instance.
    turns: Mutex<HashMap<String, Arc<Mutex<()>>>>,
}

/// One instance as found on the disk.
#[derive(Debug, Clone, PartialEq)]
pub struct Observed {
    /// Its directory's name.
    pub id: String,
    /// As its spec says.
    pub labels: BTreeMap<String, String>,
    /// Where it is to listen.
    pub port: u16,
    /// Its command runs, under its shim.
    pub alive: bool,
    /// Of its command.
    pub pid: Option<u32>,
    /// How it ended, if it did.
    pub exit: Option<Exit>,
    /// When it was started last.
    pub started_at: Option<Time>,
}

/// A process among the instances that none of them accounts for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foreign {
    /// Which.
    pub process: Process,
    /// In whose directory.
    pub instance: String,
    /// As people would type it.
    pub command: String,
}

/// What came of looking for what a shim left.
enum Swept {
    /// Nothing is left, and no shim can start while this is held.
    Empty(File),
    /// It has a shim: one that an earlier server was starting.
    Held,
}

impl ProcessRuntime {
    /// Instances live below `root`; their shims are `exe shim DIR`. Removes what a crash left half unpacked.
    pub fn new(root: PathBuf, exe: PathBuf) -> Result<ProcessRuntime, RuntimeError> {
        use std::os::unix::fs::DirBuilderExt;
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&root);
        made.map_err(RuntimeError::disk("create", &root))?;
        let root = root.canonicalize().map_err(RuntimeError::disk("find", &root))?;
        for entry in fs::read_dir(&root).map_err(RuntimeError::disk("read", &root))?.flatten() {
            let name = entry.file_name();
            if name.to_string_lossy().starts_with('.') {
                let path = entry.path();
                fs::remove_dir_all(&path).map_err(RuntimeError::disk("remove", &path))?;
            }
        }
        Ok(ProcessRuntime {
            hide: vec![root.clone()],
            means: OnceLock::new(),
            watcher: Watcher::new()
                .inspect_err(|error| tracing::warn!(%error, "changes of releases are not heard of"))
                .ok(),
            root,
            exe,
            inspector: Mutex::default(),
            unique: AtomicU64::new(0),
            turns: Mutex::default(),
        })
    }

    /// Instances see nothing below this directory either, but for their own: the server's data.
    pub fn hiding(mut self, data: &Path) -> ProcessRuntime {
        self.hide.push(data.canonicalize().unwrap_or_else(|_| data.to_owned()));
        self
    }

    /// Uses these means instead of what the host permits.
    pub fn with(mut self, means: Means) -> ProcessRuntime {
        self.means = OnceLock::from(means);
        self
    }

    /// What the host permits: tried once, when it is asked for first.
    pub fn means(&self) -> &Means {
        self.means.get_or_init(|| {
            let empty = self.beside("rehearsal");
            if let Err(error) = fs::create_dir(&empty) {
                return Means::none(&format!("it could not be tried: {error}"));
            }
            let rehearse = || {
                let mut command = Command::new(&self.exe);
                command.arg("shim").arg(&empty).env_clear().env(shim::STAGE, shim::REHEARSE).current_dir("/");
                command
            };
            let means = Means::find(rehearse, &empty, &self.host_name());
            self.drop_groups(&means);
            // Left for the next start of the server if it cannot be removed now.
            let _ = fs::remove_dir_all(&empty);
            means
        })
    }

    /// Ends what lies in groups of this name without a directory of an instance.
    fn drop_groups(&self, means: &Means) {
        let ids = self.ids().unwrap_or_default();
        for name in means.groups.names().into_iter().filter(|name| !ids.contains(name)) {
            let group = means.groups.of(&name);
            group.kill();
            if let Err(error) = group.remove() {
                tracing::warn!(group = name, %error, "a group that belongs to no instance stays");
            }
        }
    }

    /// What everything of these instances on the host is named after: one directory, one name.
    pub fn host_name(&self) -> String {
        let sum = sha2::Sha256::digest(self.root.as_os_str().as_encoded_bytes());
        format!("andon-{}", hex::encode(&sum[..4]))
    }

    /// Unpacks an artifact (a tar) for an instance and takes down what it holds. All of it or nothing; once done, done
    /// again is nothing.
    pub fn prepare(&self, id: &str, artifact: impl Read) -> Result<(), RuntimeError> {
        let dir = self.dir(id)?;
        if dir.join(spec::RELEASE).exists() {
            return Ok(());
        }
        let beside = self.beside(id);
        let made = self.fill(&beside, artifact).and_then(|()| match fs::rename(&beside, &dir) {
            Err(_) if dir.join(spec::RELEASE).exists() => Ok(()), // another one was faster
            renamed => renamed.map_err(RuntimeError::disk("create", &dir)),
        });
        if made.is_err() || beside.exists() {
            // Left for the next start of the server if it cannot be removed now.
            let _ = fs::remove_dir_all(&beside);
        }
        made
    }

    fn fill(&self, dir: &Path, artifact: impl Read) -> Result<(), RuntimeError> {
        use std::os::unix::fs::DirBuilderExt;
        let release = dir.join(spec::RELEASE);
        for dir in [dir, &release, &dir.join("home"), &dir.join("tmp")] {
            fs::DirBuilder::new().mode(0o700).create(dir).map_err(RuntimeError::disk("create", dir))?;
        }
        unpack(artifact, &release, Limits::default())?;
        let manifest = manifest::tree_digest(&release).map_err(RuntimeError::disk("read", &release))?;
        let path = dir.join(spec::MANIFEST);
        spec::write(&path, &manifest).map_err(RuntimeError::disk("write", path))
    }

    /// Starts an instance and returns when its command runs. Running already is as good.
    pub fn start(&self, spec: &Spec) -> Result<(), RuntimeError> {
        let (id, dir) = (&spec.instance, self.dir(&spec.instance)?);
        if !dir.join(spec::RELEASE).is_dir() {
            return Err(RuntimeError::NotPrepared(id.clone()));
        }
        let turn = self.turn(id);
        let _turn = lock(&turn);
        if self.held(&dir)? {
            return Ok(());
        }
        // Its shim may have been killed: what it left would hold the port.
        self.sweep(id, &dir)?;
        let path = dir.join(spec::SPEC);
        spec::write(&path, spec).map_err(RuntimeError::disk("write", path))?;
        let path = dir.join(SETTING);
        let setting = Setting { means: self.means().clone(), hide: self.hide.clone() };
        spec::write(&path, &setting).map_err(RuntimeError::disk("write", path))?;
        if let Some(watcher) = &self.watcher {
            watcher.begin(id, &dir, &spec.writes);
        }
        let root = dir.join(plan::ROOT);
        if !root.exists() {
            fs::create_dir(&root).map_err(RuntimeError::disk("create", root))?;
        }
        let not_started = |why: String| RuntimeError::NotStarted { id: id.clone(), why };
        let ran = Command::new(&self.exe)
            .arg("shim")
            .arg(&dir)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_else(|| PATH.into()))
            .current_dir("/")
            .stdin(Stdio::null())
            .output()
            .map_err(|error| not_started(format!("cannot run {}: {error}", self.exe.display())))?;
        if ran.status.success() {
            return Ok(());
        }
        Err(not_started(String::from_utf8_lossy(&ran.stderr).trim().to_owned()))
    }

    /// Ends an instance with everything it started: asked first, killed after its time. Returns when nothing is left.
    pub fn stop(&self, id: &str) -> Result<(), RuntimeError> {
        let turn = self.turn(id);
        let _turn = lock(&turn);
        self.end(id).map(drop)
    }

    /// No shim can start it while what is returned is held.
    fn end(&self, id: &str) -> Result<File, RuntimeError> {
        let dir = self.dir(id)?;
        if !dir.exists() {
            return Err(RuntimeError::Unknown(id.to_owned()));
        }
        let spec: Option<Spec> = read(&dir.join(spec::SPEC))?;
        if let Some(spec) = spec
            && self.held(&dir)?
        {
            self.end_shim(id, &dir, spec.stop_within.duration() + SHIM_GRACE)?;
        }
        match self.sweep(id, &dir)? {
            Swept::Empty(lock) => Ok(lock),
            Swept::Held => {
                Err(RuntimeError::NotStopped { id: id.to_owned(), why: "it is just being started".into() })
            }
        }
    }

    /// Stops an instance and removes its directory. One that is not there is as good.
    pub fn remove(&self, id: &str) -> Result<(), RuntimeError> {
        let turn = self.turn(id);
        let _turn = lock(&turn);
        let _held = match self.end(id) {
            Err(RuntimeError::Unknown(_)) => return Ok(()),
            stopped => stopped?,
        };
        let (dir, beside) = (self.dir(id)?, self.beside(id));
        if let Some(watcher) = &self.watcher {
            watcher.end(id);
        }
        fs::rename(&dir, &beside).map_err(RuntimeError::disk("remove", &dir))?;
        lock(&self.inspector).forget(&dir);
        lock(&self.turns).remove(id);
        fs::remove_dir_all(&beside).map_err(RuntimeError::disk("remove", beside))
    }

    /// Every instance that was ever started and not removed.
    pub fn list(&self) -> Result<Vec<Observed>, RuntimeError> {
        let mut found = Vec::new();
        for id in self.ids()? {
            let dir = self.root.join(&id);
            let Some(spec) = read::<Spec>(&dir.join(spec::SPEC))? else { continue };
            // In this order: a shim writes its last word before it lets the lock go.
            let held = self.held(&dir)?;
            let state: Option<State> = read(&dir.join(spec::STATE))?;
            let exit = state.as_ref().and_then(|state| state.exit.clone());
            let exit = exit.or_else(|| (!held && state.is_some()).then_some(Exit::Unseen));
            found.push(Observed {
                id,
                labels: spec.labels,
                port: spec.port,
                alive: held && exit.is_none(),
                pid: state.as_ref().and_then(|state| state.main).map(|main| main.pid),
                started_at: state.map(|state| state.started_at),
                exit,
            });
        }
        Ok(found)
    }

    /// The last lines of its output.
    pub fn logs(&self, id: &str, lines: usize) -> Result<String, RuntimeError> {
        let path = self.log_path(id)?;
        log::tail(&path, lines).map_err(RuntimeError::disk("read", path))
    }

    /// Where its output is written; older parts lie beside it as `log.1` and `log.2`.
    pub fn log_path(&self, id: &str) -> Result<PathBuf, RuntimeError> {
        Ok(self.dir(id)?.join(spec::LOG))
    }

    /// What differs between its release directory and the artifact it was prepared from.
    pub fn differences(&self, id: &str) -> Result<Vec<Difference>, RuntimeError> {
        let dir = self.dir(id)?;
        let manifest: Option<Manifest> = read(&dir.join(spec::MANIFEST))?;
        let manifest = manifest.ok_or_else(|| RuntimeError::Unknown(id.to_owned()))?;
        let release = dir.join(spec::RELEASE);
        let compared = lock(&self.inspector).compare(&manifest, &release);
        let mut found = compared.map_err(RuntimeError::disk("read", release))?;
        let spec: Option<Spec> = read(&dir.join(spec::SPEC))?;
        let writes = spec.map(|spec| spec.writes).unwrap_or_default();
        found.retain(|difference| {
            !writes.iter().any(|declared| Path::new(&difference.path).starts_with(declared))
        });
        Ok(found)
    }

    /// Processes that run in or from an instance's directory, or were started by an instance, and that no living shim
    /// accounts for.
    pub fn foreign(&self) -> Result<Vec<Foreign>, RuntimeError> {
        let first = self.strays()?;
        if first.is_empty() {
            return Ok(first);
        }
        // Processes come and go while the table is read, and one whose parent is just missing looks like a stray. Only
        // who is one twice is one.
        let before: BTreeSet<Process> = first.iter().map(|stray| stray.process).collect();
        let mut strays = self.strays()?;
        strays.retain(|stray| before.contains(&stray.process));
        Ok(strays)
    }

    fn strays(&self) -> Result<Vec<Foreign>, RuntimeError> {
        // Processes first: whoever is in this table was started by a shim that had written its state before.
        let table = proc::table().map_err(RuntimeError::disk("read", "/proc"))?;
        let mut shims = BTreeSet::new();
        for id in self.ids()? {
            let dir = self.root.join(&id);
            if let Some(state) = read::<State>(&dir.join(spec::STATE))?
                && self.held(&dir)?
            {
                shims.insert(state.shim.pid);
            }
        }
        let own = std::process::id();
        let accounted = |pid: u32| pid == own || shims.iter().any(|shim| proc::descends(&table, pid, *shim));
        let strays = table.values().filter(|stat| !stat.zombie && !accounted(stat.process.pid));
        let strays = strays.filter_map(|stat| Some((stat.process, self.owner(stat)?)));
        Ok(strays
            .map(|(process, instance)| Foreign { process, instance, command: process.command() })
            .collect())
    }

    /// Kills a process that [`ProcessRuntime::foreign`] named. False: it is gone already.
    pub fn kill_foreign(&self, process: Process) -> Result<bool, RuntimeError> {
        process.signal(Signal::KILL).map_err(RuntimeError::disk("signal", format!("/proc/{}", process.pid)))
    }

    /// The instance that a process belongs to, by where it runs, what it runs, or who started it.
    fn owner(&self, stat: &Stat) -> Option<String> {
        let below = |path: PathBuf| {
            let first = path.strip_prefix(&self.root).ok()?.components().next()?;
            Some(first.as_os_str().to_string_lossy().into_owned())
        };
        let process = stat.process;
        let by_place = process.cwd().and_then(below).or_else(|| process.exe().and_then(below));
        by_place.or_else(|| process.variable(MARK).map(PathBuf::from).and_then(below))
    }

    fn dir(&self, id: &str) -> Result<PathBuf, RuntimeError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if id.is_empty() || id.len() > 100 || id.starts_with('.') || !id.bytes().all(plain) {
            return Err(RuntimeError::BadId(id.to_owned()));
        }
        Ok(self.root.join(id))
    }

    fn turn(&self, id: &str) -> Arc<Mutex<()>> {
        lock(&self.turns).entry(id.to_owned()).or_default().clone()
    }

    /// A hidden neighbour, for what is not there yet or not any more.
    fn beside(&self, id: &str) -> PathBuf {
        let unique = self.unique.fetch_add(1, Ordering::Relaxed);
        self.root.join(format!(".{id}-{}-{unique}", std::process::id()))
    }

    fn ids(&self) -> Result<Vec<String>, RuntimeError> {
        let mut ids = Vec::new();
        for entry in fs::read_dir(&self.root).map_err(RuntimeError::disk("read", &self.root))? {
            let entry = entry.map_err(RuntimeError::disk("read", &self.root))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if self.dir(&name).is_ok() {
                ids.push(name);
            }
        }
        ids.sort();
        Ok(ids)
    }

    /// Whether its shim lives.
    fn held(&self, dir: &Path) -> Result<bool, RuntimeError> {
        let path = dir.join(spec::LOCK);
        let lock = match File::open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            lock => lock.map_err(RuntimeError::disk("open", &path))?,
        };
        match flock(&lock, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(false),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
            Err(error) => Err(RuntimeError::disk("lock", path)(error.into())),
        }
    }

    /// Asks the shim to end and waits for its lock; a shim that does not is killed.
    fn end_shim(&self, id: &str, dir: &Path, within: Duration) -> Result<(), RuntimeError> {
        let path = dir.join(spec::STATE);
        let signal = |signal: Signal| match read::<State>(&path)? {
            Some(state) => state.shim.signal(signal).map_err(RuntimeError::disk("signal the shim of", dir)),
            None => Ok(false),
        };
        signal(Signal::TERM)?;
        let lock = File::open(dir.join(spec::LOCK)).map_err(RuntimeError::disk("open the lock of", dir))?;
        let (tell, free) = mpsc::channel();
        // A thread, because waiting for a lock knows no time limit. It ends when the shim does.
        std::thread::spawn(move || {
            let waited = flock(&lock, FlockOperation::LockShared);
            // Nobody listening: the wait was given up.
            let _ = tell.send(waited);
        });
        if free.recv_timeout(within).is_ok() {
            return Ok(());
        }
        tracing::warn!(instance = id, "the shim did not end in time and is killed");
        signal(Signal::KILL)?;
        free.recv_timeout(SHIM_GRACE).map(drop).map_err(|_| RuntimeError::NotStopped {
            id: id.to_owned(),
            why: "its shim survives being killed".into(),
        })
    }

    /// The group of an instance, of whatever server started it.
    fn group(&self, id: &str, dir: &Path) -> Result<Group, RuntimeError> {
        let setting: Option<Setting> = read(&dir.join(SETTING))?;
        Ok(setting.map(|setting| setting.means.groups.of(id)).unwrap_or_default())
    }

    /// Kills what an instance without a shim has left.
    fn sweep(&self, id: &str, dir: &Path) -> Result<Swept, RuntimeError> {
        // Only a pause: nobody ever sends.
        let (_quiet, never) = mpsc::channel::<()>();
        // Held while sweeping: a shim that an earlier server is just starting waits, and what it makes is not taken for a left-over.
        let path = dir.join(spec::LOCK);
        let lock = File::options().write(true).create(true).truncate(false).open(&path);
        let lock = lock.map_err(RuntimeError::disk("open", &path))?;
        let mut tries = KILLS / 10;
        while let Err(error) = flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            // Whoever only looks holds it for an instant.
            if error != rustix::io::Errno::WOULDBLOCK || tries == 0 {
                return Ok(Swept::Held);
            }
            tries -= 1;
            let _ = never.recv_timeout(KILL_PAUSE);
        }
        let group = self.group(id, dir)?;
        let own = std::process::id();
        let mut left = Vec::new();
        for _ in 0..KILLS {
            let table = proc::table().map_err(RuntimeError::disk("read", "/proc"))?;
            let others = table.values().filter(|stat| !stat.zombie && stat.process.pid != own);
            left = others
                .filter(|stat| self.owner(stat).as_deref() == Some(id))
                .map(|stat| stat.process)
                .collect();
            group.kill();
            if left.is_empty() && group.remove().is_ok() {
                return Ok(Swept::Empty(lock));
            }
            for process in &left {
                process.signal(Signal::KILL).map_err(RuntimeError::disk("kill what is left of", dir))?;
            }
            if never.recv_timeout(KILL_PAUSE).is_ok() {
                break;
            }
        }
        let pids: Vec<String> = left.iter().map(|process| process.pid.to_string()).collect();
        Err(RuntimeError::NotStopped {
            id: id.to_owned(),
            why: format!("processes {} survive", pids.join(", ")),
        })
    }
}

impl Runtime for ProcessRuntime {
    fn kind(&self) -> RuntimeKind {
        RuntimeKind::Process
    }

    fn isolation(&self, _: &EnvironmentName) -> Isolation {
        let mut isolation = self.means().isolation();
        isolation.has.insert(0, "ended with everything it started".into());
        isolation
    }

    fn place(&self, _: &EnvironmentName, used: &BTreeSet<SocketAddr>) -> Result<SocketAddr, RuntimeError> {
        let port = free_port(&used.iter().map(SocketAddr::port).collect());
        port.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
            .map_err(RuntimeError::disk("find a free port on", "127.0.0.1"))
    }

    fn prepare(&self, spec: &Spec, artifact: &mut dyn Read) -> Result<(), RuntimeError> {
        ProcessRuntime::prepare(self, &spec.instance, artifact)
    }

    fn start(&self, spec: &Spec) -> Result<(), RuntimeError> {
        ProcessRuntime::start(self, spec)
    }

    fn stop(&self, id: &str) -> Result<(), RuntimeError> {
        ProcessRuntime::stop(self, id)
    }

    fn remove(&self, id: &str) -> Result<(), RuntimeError> {
        ProcessRuntime::remove(self, id)
    }

    fn list(&self) -> Result<Vec<Observed>, RuntimeError> {
        ProcessRuntime::list(self)
    }

    fn logs(&self, id: &str, lines: usize) -> Result<String, RuntimeError> {
        ProcessRuntime::logs(self, id, lines)
    }

    fn differences(&self, id: &str) -> Result<Vec<Difference>, RuntimeError> {
        ProcessRuntime::differences(self, id)
    }

    fn touched(&self) -> Option<BTreeSet<String>> {
        let watcher = self.watcher.as_ref()?;
        // Those that an earlier server started.
        for id in self.ids().ok()? {
            let dir = self.root.join(&id);
            if let Ok(Some(spec)) = read::<Spec>(&dir.join(spec::SPEC)) {
                watcher.begin(&id, &dir, &spec.writes);
            }
        }
        watcher.touched()
    }

    fn watch(&self) -> Option<tokio::sync::watch::Receiver<u64>> {
        self.watcher.as_ref().map(Watcher::changes)
    }

    fn foreign(&self) -> Result<Vec<Foreign>, RuntimeError> {
        ProcessRuntime::foreign(self)
    }

    fn kill_foreign(&self, process: Process) -> Result<bool, RuntimeError> {
        ProcessRuntime::kill_foreign(self, process)
    }

    fn clear(&self, _: &EnvironmentName) -> Result<(), RuntimeError> {
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>, RuntimeError> {
    spec::read(path).map_err(RuntimeError::disk("read", path))
}
