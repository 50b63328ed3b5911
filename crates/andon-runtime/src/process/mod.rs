//! The host's instances, as their directories and locks tell of them. Keeps nothing in memory that a restart would miss.

mod door;
mod ending;
mod held;
mod host;
mod inside;
mod join;
mod log;
mod network;
mod plan;
mod shell;
mod shim;
mod strangers;
mod watch;

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use self::plan::{SETTING, Setting};
use self::shim::PATH;
use self::watch::Watcher;
use andon_model::Time;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::error::RuntimeError;
use crate::manifest::{self, Difference, Inspector, Manifest};
use crate::packages::Known;
use crate::sandbox::Means;
use crate::spec::{self, Exit, Spec, State};
use crate::unpack::{Limits, unpack};

pub(crate) use self::join::SHELL;
pub(crate) use self::shell::end_left;
pub use self::shim::shim_main;
pub use andon_sandbox::Process;
use andon_sandbox::process as proc;

/// The instances below one directory.
pub struct ProcessRuntime {
    root: PathBuf,
    exe: PathBuf,
    inspector: Mutex<Inspector>,
    /// What instances never see.
    hide: Vec<PathBuf>,
    /// What the host permits, once somebody asked.
    means: OnceLock<Means>,
    /// The address of the host that all of them bind to; none: each has its own, or loopback.
    bind: Option<IpAddr>,
    /// None: this host tells nobody of changes.
    watcher: Option<Watcher>,
    unique: AtomicU64,
    /// What this host has installed.
    packages: Known,
    /// One at a time makes or removes networks: where two look for a free one, they would take the same.
    wiring: Mutex<()>,
    /// Shells that are open inside of instances.
    shells: shell::Shells,
    /// One at a time starts, stops or removes an instance.
    turns: Mutex<HashMap<String, Arc<Mutex<()>>>>,
}

/// One instance as found on the disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Foreign {
    /// Which.
    pub process: Process,
    /// In whose directory.
    pub instance: String,
    /// As people would type it.
    pub command: String,
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
            bind: None,
            watcher: Watcher::new()
                .inspect_err(|error| tracing::warn!(%error, "changes of releases are not heard of"))
                .ok(),
            root,
            exe,
            inspector: Mutex::default(),
            unique: AtomicU64::new(0),
            packages: Known::default(),
            wiring: Mutex::default(),
            shells: shell::Shells::default(),
            turns: Mutex::default(),
        })
    }

    /// Instances see nothing below this directory either, but for their own: the server's data.
    pub fn hiding(mut self, data: &Path) -> ProcessRuntime {
        self.hide.push(data.canonicalize().unwrap_or_else(|_| data.to_owned()));
        self
    }

    /// Instances listen on this address of the host, each on a port of its own, instead of in networks of their environments.
    pub fn listening_on(mut self, address: IpAddr) -> ProcessRuntime {
        self.bind = Some(address);
        self
    }

    /// Uses these means instead of what the host permits.
    pub fn with(mut self, means: Means) -> ProcessRuntime {
        self.means = OnceLock::from(means);
        self
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
        let bound = self.bind.map(|_| Spec { bind: self.bind, address: None, ..spec.clone() });
        let spec = bound.as_ref().unwrap_or(spec);
        let path = dir.join(spec::SPEC);
        spec::write(&path, spec).map_err(RuntimeError::disk("write", path))?;
        let cable = self.cable(spec).map_err(|why| RuntimeError::NotStarted { id: id.clone(), why })?;
        if let Some(environment) = spec.environment.as_ref().filter(|_| cable.is_some()) {
            self.tell_hosts(environment);
        }
        let path = dir.join(SETTING);
        let setting = Setting { means: self.means().clone(), hide: self.hide.clone(), cable };
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

    /// Every instance that was ever started and not removed.
    pub fn list(&self) -> Result<Vec<Observed>, RuntimeError> {
        let mut found = Vec::new();
        for id in self.ids()? {
            let dir = self.root.join(&id);
            let Some(spec) = read::<Spec>(&dir.join(spec::SPEC))? else { continue };
            // In this order: a shim writes its state once it has the lock, and its last word before it lets it go.
            let before: Option<State> = read(&dir.join(spec::STATE))?;
            let held = self.held(&dir)?;
            let state: Option<State> = read(&dir.join(spec::STATE))?;
            let exit = state.as_ref().and_then(|state| state.exit.clone());
            // One that wrote its state only after the look at its lock is just beginning.
            let began = |state: &Option<State>| state.as_ref().map(|state| state.shim);
            let unseen = !held && state.is_some() && began(&before) == began(&state);
            let exit = exit.or_else(|| unseen.then_some(Exit::Unseen));
            found.push(Observed {
                id,
                labels: spec.labels,
                port: spec.port,
                alive: exit.is_none() && (held || state.is_some()),
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
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>, RuntimeError> {
    spec::read(path).map_err(RuntimeError::disk("read", path))
}
