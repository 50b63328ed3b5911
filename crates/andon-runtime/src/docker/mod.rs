//! Instances as containers of a Docker Engine (or of Podman, which speaks the same interface) on this host.
//!
//! Each environment has a network of its own. An instance has an address there, and the port is the same in every environment: nothing
//! is published on the host. A published port would be answered by the engine's own proxy before the service listens, and an open
//! port could not be told from a healthy service.
//!
//! What an instance is, its labels say; a new server finds everything again by them, and nothing is remembered here that a restart would
//! miss. Files that are needed while an image is written, and what each image was written from, lie in a directory of the runtime's own.

mod archive;
mod container;
mod drift;
mod engine;
mod image;
mod network;
mod packages;
mod shell;
mod watch;
mod whole;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError};

use andon_model::{EnvironmentName, Packages, RuntimeKind};

use crate::error::RuntimeError;
use crate::port::{Isolation, Runtime};
use crate::{Difference, Foreign, Observed, Process, Shell, ShellOrder, Spec};
pub use engine::About;
use engine::Engine;
pub(crate) use engine::reactor;

/// Where an instance listens unless its service says otherwise.
const PORT: u16 = 8080;

/// Labels of everything that is made.
pub(crate) mod label {
    pub const SERVER: &str = "andon.server";
    pub const PROJECT: &str = "andon.project";
    pub const ENVIRONMENT: &str = "andon.environment";
    pub const INSTANCE: &str = "andon.instance";
    pub const ARTIFACT: &str = "andon.artifact";
    pub const CONFIG: &str = "andon.config";
    pub const LIMITS: &str = "andon.limits";
    pub const WRITES: &str = "andon.writes";
    pub const PORT: &str = "andon.port";
    pub const STOP: &str = "andon.stop-ms";
}

/// The containers of one project.
pub struct DockerRuntime {
    engine: Engine,
    server: String,
    project: String,
    room: PathBuf,
    /// Images that are being loaded or removed: one at a time.
    loading: Mutex<()>,
    /// Networks that are being made or removed: one at a time.
    linking: Mutex<()>,
    /// Which image an instance that is not started yet will need.
    needed: Mutex<BTreeMap<String, String>>,
    /// The engine has no first process that passes signals on and collects orphans.
    without_init: AtomicBool,
    /// Who runs processes that this host cannot name.
    afar: Mutex<HashMap<u32, String>>,
    /// Shells of ours that are open.
    shells: shell::Held,
    /// Packages by image: they are the same in every container of it.
    packages: Mutex<BTreeMap<String, Packages>>,
}

impl DockerRuntime {
    /// The containers of a project on the engine that DOCKER_HOST names, or on this host's. `shared` is a directory of all projects of
    /// this server: it keeps the name under which the server's containers are found again. Asks no engine.
    pub fn new(shared: &Path, project: &str) -> Result<DockerRuntime, RuntimeError> {
        DockerRuntime::with(Engine::of_host(), shared, project)
    }

    /// The same on the engine at this socket (`unix:///…`).
    pub fn at(host: &str, shared: &Path, project: &str) -> Result<DockerRuntime, RuntimeError> {
        DockerRuntime::with(Engine::at(Some(host.to_owned())), shared, project)
    }

    fn with(engine: Engine, shared: &Path, project: &str) -> Result<DockerRuntime, RuntimeError> {
        let room = shared.join(project);
        std::fs::create_dir_all(&room).map_err(RuntimeError::disk("create", &room))?;
        for entry in std::fs::read_dir(&room).map_err(RuntimeError::disk("read", &room))?.flatten() {
            // A killed server was just writing an image.
            if entry.file_name().to_string_lossy().starts_with("new-") {
                let path = entry.path();
                std::fs::remove_dir_all(&path).map_err(RuntimeError::disk("remove", &path))?;
            }
        }
        Ok(DockerRuntime {
            engine,
            server: server(shared)?,
            project: project.to_owned(),
            room,
            loading: Mutex::default(),
            linking: Mutex::default(),
            needed: Mutex::default(),
            without_init: AtomicBool::new(false),
            afar: Mutex::default(),
            shells: shell::Held::default(),
            packages: Mutex::default(),
        })
    }

    /// The engine, if one answers.
    pub fn about(&self) -> Result<About, RuntimeError> {
        Ok(self.engine.client()?.1)
    }

    /// What this server's things are labelled with.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// A filter for what is ours.
    fn ours(&self) -> HashMap<&'static str, Vec<String>> {
        let is = |key: &str, value: &str| format!("{key}={value}");
        HashMap::from([("label", vec![is(label::SERVER, &self.server), is(label::PROJECT, &self.project)])])
    }
}

/// A name that no other server has, kept with its data: two servers on one engine never touch what the other made.
fn server(shared: &Path) -> Result<String, RuntimeError> {
    let path = shared.join("server");
    for _ in 0..2 {
        if let Ok(name) = std::fs::read_to_string(&path)
            && name.len() == 16
            && name.bytes().all(|byte| byte.is_ascii_hexdigit())
        {
            return Ok(name);
        }
        let mut name = [0; 8];
        getrandom::fill(&mut name).map_err(|error| {
            RuntimeError::disk("read", "/dev/urandom")(std::io::Error::other(error.to_string()))
        })?;
        let beside = shared.join(format!("server-{}", std::process::id()));
        std::fs::write(&beside, hex::encode(name)).map_err(RuntimeError::disk("write", &beside))?;
        std::fs::rename(&beside, &path).map_err(RuntimeError::disk("write", &path))?;
    }
    Err(RuntimeError::disk("read", path)(std::io::Error::other("it does not hold what was just written")))
}

impl Runtime for DockerRuntime {
    fn kind(&self) -> RuntimeKind {
        RuntimeKind::Docker
    }

    fn isolation(&self, _: &EnvironmentName) -> Isolation {
        let about = match self.about() {
            Ok(about) => about,
            Err(error) => {
                let why = error.to_string().lines().next().unwrap_or_default().to_owned();
                return Isolation { has: Vec::new(), lacks: vec![("everything".into(), why)] };
            }
        };
        let mut found = Isolation {
            has: [
                "processes, files and users of its own",
                "network of its own",
                "read-only release",
                "no capabilities, no new privileges",
            ]
            .map(str::to_owned)
            .into(),
            lacks: Vec::new(),
        };
        let mut of = |what: &str, there: bool, why: &str| match there {
            true => found.has.push(what.to_owned()),
            false => found.lacks.push((what.to_owned(), format!("{}: {why}", about.name))),
        };
        of("memory limit", about.memory, "the cgroup controller is missing");
        of("processor limit", about.cpu, "the cgroup controller is missing");
        of("process limit", about.processes, "the cgroup controller is missing");
        of("filter of system calls", about.seccomp, "seccomp is not enabled");
        of("engine without root", about.rootless, "the engine runs as root");
        found
    }

    fn place(
        &self,
        environment: &EnvironmentName,
        used: &BTreeSet<SocketAddr>,
        port: Option<u16>,
    ) -> Result<SocketAddr, RuntimeError> {
        let taken: BTreeSet<Ipv4Addr> = used
            .iter()
            .filter_map(|address| match address.ip() {
                IpAddr::V4(ip) => Some(ip),
                IpAddr::V6(_) => None,
            })
            .collect();
        Ok(SocketAddr::from((self.free_address(environment, &taken)?, port.unwrap_or(PORT))))
    }

    fn prepare(&self, spec: &Spec, artifact: &mut dyn Read) -> Result<(), RuntimeError> {
        self.name(&spec.instance)?;
        self.load(spec, artifact)
    }

    fn start(&self, spec: &Spec) -> Result<(), RuntimeError> {
        self.start_container(spec)
    }

    fn stop(&self, id: &str) -> Result<(), RuntimeError> {
        self.stop_container(id)
    }

    fn remove(&self, id: &str) -> Result<(), RuntimeError> {
        self.remove_container(id)?;
        self.no_need(id)
    }

    fn list(&self) -> Result<Vec<Observed>, RuntimeError> {
        self.observe()
    }

    fn logs(&self, id: &str, lines: usize) -> Result<String, RuntimeError> {
        self.tail(id, lines)
    }

    fn differences(&self, id: &str) -> Result<Vec<Difference>, RuntimeError> {
        self.changed(id)
    }

    fn settings(&self, id: &str) -> Result<Vec<Difference>, RuntimeError> {
        let Some(found) = self.inspect(id)? else { return Err(RuntimeError::Unknown(id.to_owned())) };
        Ok(drift::settings(&found, &self.network_of(&found)))
    }

    fn foreign(&self) -> Result<Vec<Foreign>, RuntimeError> {
        self.strangers()
    }

    fn kill_foreign(&self, process: Process) -> Result<bool, RuntimeError> {
        self.end_stranger(process)
    }

    fn packages(&self, id: &str) -> Result<Option<Packages>, RuntimeError> {
        self.packages_of(id).map(Some)
    }

    fn shell(&self, id: &str, order: &ShellOrder) -> Result<Shell, RuntimeError> {
        self.open_shell(id, order)
    }

    fn clear(&self, environment: &EnvironmentName) -> Result<(), RuntimeError> {
        self.unlink(environment)?;
        self.no_need("")
    }

    fn watch(&self) -> Option<tokio::sync::watch::Receiver<u64>> {
        Some(self.follow())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
