//! One project of the server: its state, its repository, its turn to write. Decides nothing itself.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use andon_cord::PullOn;
use andon_gate::Standing;
use andon_git::Repository;
use andon_model::{
    ChangeId, EnvironmentName, HostName, InstanceId, JobName, Oid, ProjectName, RunId, RuntimeKind,
};
use andon_pipeline::{Definition, definition};
use andon_runtime::remote::Fleet;
use andon_runtime::{DockerRuntime, ProcessRuntime, Runtime};
use andon_store::Blobs;
use tokio_util::sync::CancellationToken;

use crate::stations::infrastructure::Looks;
use crate::stations::release::Watched;
use crate::{Refusal, State};

/// The definition of a commit, or what is wrong with it.
pub type Defined = Result<Definition, String>;

/// Definitions kept in memory by commit; more are read again from git.
const DEFINITIONS: usize = 64;

/// One project.
pub struct Project {
    /// Its name.
    pub name: ProjectName,
    /// Its commits.
    pub repository: Repository,
    /// Bulk, of all projects.
    pub(crate) blobs: Blobs,
    /// Where its working copies and live logs lie.
    pub room: PathBuf,
    state: RwLock<State>,
    /// Held by whoever decides: one decision at a time sees the state that it changes.
    pub(crate) turn: tokio::sync::Mutex<()>,
    /// Jobs of this process, to be stopped when nobody needs them.
    pub(crate) jobs: Mutex<HashMap<(RunId, JobName), CancellationToken>>,
    /// Looks and curves of releases.
    pub(crate) watched: Mutex<Watched>,
    runtimes: BTreeMap<RuntimeKind, Arc<dyn Runtime>>,
    /// Hosts that joined.
    fleet: Arc<Fleet>,
    /// When reality was held against the infrastructure code.
    pub(crate) looks: Mutex<Looks>,
    definitions: Mutex<BTreeMap<Oid, Arc<Defined>>>,
}

impl std::fmt::Debug for Project {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Project").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Project {
    /// A project with this state.
    pub fn new(
        name: ProjectName,
        data: &Path,
        exe: &Path,
        state: State,
        fleet: Arc<Fleet>,
    ) -> Result<Project, Refusal> {
        let instances = data.join("instances").join(name.as_str());
        let runtime = ProcessRuntime::new(instances, exe.to_owned())
            .map_err(|e| Refusal::Broken(e.to_string()))?
            .hiding(data);
        // Whether an engine answers is asked when one is needed: it may come later.
        let docker = DockerRuntime::new(&data.join("docker"), name.as_str())
            .map_err(|error| Refusal::Broken(error.to_string()))?;
        let repository = Repository::at(data.join("git").join(format!("{name}.git")));
        let room = data.join("jobs").join(name.as_str());
        let blobs = Blobs::open(&data.join("blobs"))?;
        Ok(Project {
            name,
            repository,
            blobs,
            room,
            state: RwLock::new(state),
            turn: tokio::sync::Mutex::default(),
            jobs: Mutex::default(),
            watched: Mutex::default(),
            runtimes: BTreeMap::from([
                (RuntimeKind::Process, Arc::new(runtime) as Arc<dyn Runtime>),
                (RuntimeKind::Docker, Arc::new(docker)),
            ]),
            fleet,
            looks: Mutex::default(),
            definitions: Mutex::default(),
        })
    }

    /// What runs instances of this kind.
    pub fn runtime(&self, kind: RuntimeKind) -> Result<Arc<dyn Runtime>, Refusal> {
        self.runtimes.get(&kind).cloned().ok_or_else(|| {
            Refusal::Conflict(format!(
                "this server has no {kind} runtime\nhint: install it and start the server again, or name another `runtime`"
            ))
        })
    }

    /// What runs instances of this kind on a host; none: the server's own.
    pub fn runtime_on(
        &self,
        kind: RuntimeKind,
        host: Option<&HostName>,
    ) -> Result<Arc<dyn Runtime>, Refusal> {
        match host {
            None => self.runtime(kind),
            Some(host) if kind == RuntimeKind::Process => Ok(self.fleet.runtime(host, &self.name)),
            Some(host) => Err(Refusal::Conflict(format!(
                "host {host} runs no {kind}\nhint: containers run on the server's own host only"
            ))),
        }
    }

    /// What runs this instance.
    pub fn runtime_of(&self, instance: InstanceId) -> Result<Arc<dyn Runtime>, Refusal> {
        let (kind, host) = {
            let estate = &self.state().estate;
            (estate.runtime_of(instance), estate.instances.get(&instance).and_then(|i| i.host.clone()))
        };
        self.runtime_on(kind, host.as_ref())
    }

    /// Every runtime that this server has.
    pub fn runtimes(&self) -> impl Iterator<Item = &Arc<dyn Runtime>> {
        self.runtimes.values()
    }

    /// Those that run or ran something of this project: others are not asked anything.
    pub fn runtimes_in_use(&self) -> Vec<Arc<dyn Runtime>> {
        let used = |kind: &RuntimeKind| {
            *kind == RuntimeKind::Process
                || self.state().estate.deployments.values().any(|deployment| deployment.runtime == *kind)
        };
        self.runtimes.iter().filter(|(kind, _)| used(kind)).map(|(_, runtime)| Arc::clone(runtime)).collect()
    }

    /// Its state now. Hold it briefly and never over an await.
    pub fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn with_state<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// `andon.yaml` of a commit. The outer error is the server's, the inner one the file's.
    pub async fn definition(&self, commit: &Oid) -> Result<Arc<Defined>, Refusal> {
        if let Some(known) = self.definitions().get(commit) {
            return Ok(Arc::clone(known));
        }
        let defined = match self.repository.file(commit, "andon.yaml", andon_pipeline::check::LARGEST).await {
            Ok(Some(text)) => andon_pipeline::read(&text)
                .map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")),
            Ok(None) => Err(
                "there is no andon.yaml\nhint: run `andon init` in the repository and commit what it writes"
                    .into(),
            ),
            Err(error @ andon_git::GitError::Answer { .. }) => Err(error.to_string()),
            Err(error) => return Err(error.into()),
        };
        let defined = Arc::new(defined);
        let mut kept = self.definitions();
        if kept.len() == DEFINITIONS {
            kept.clear();
        }
        kept.insert(commit.clone(), Arc::clone(&defined));
        Ok(defined)
    }

    /// `andon.yaml` of trunk; none while trunk is empty or its file cannot be read.
    pub async fn trunk_definition(&self) -> Result<Option<Arc<Defined>>, Refusal> {
        let trunk = self.state().queue.trunk.clone();
        match trunk {
            Some(commit) => self.definition(&commit).await.map(Some),
            None => Ok(None),
        }
    }

    /// `andon.yaml` of trunk, if it was read already.
    /// Takes the state that its caller holds: a lock that is read twice in one call can block itself.
    pub fn known_definition(&self, state: &State) -> Option<Definition> {
        let known = self.definitions().get(state.queue.trunk.as_ref()?).cloned()?;
        known.as_ref().as_ref().ok().cloned()
    }

    /// `andon.yaml` of a commit, if it was read already.
    pub(crate) fn read_definition(&self, commit: &Oid) -> Option<Arc<Defined>> {
        self.definitions().get(commit).cloned()
    }

    /// The change that an environment shows and that has not landed; none: what runs there is from trunk.
    pub(crate) fn unlanded_in(&self, environment: &EnvironmentName) -> Option<ChangeId> {
        let state = self.state();
        let change = state.estate.environments.get(environment).and_then(|found| found.change)?;
        let landed = |change: &andon_gate::Change| matches!(change.standing, Standing::Landed { .. });
        (!state.queue.changes.get(&change).is_none_or(landed)).then_some(change)
    }

    /// What stops the line by itself, as trunk says; everything while its file is not read yet.
    pub(crate) fn pull_on(&self) -> PullOn {
        let trunk = self.state().queue.trunk.clone();
        let known = trunk.and_then(|trunk| self.definitions().get(&trunk).cloned());
        let Some(Ok(definition)) = known.as_deref() else { return PullOn::default() };
        let says = |what| definition.cord.pull_on.contains(&what);
        PullOn {
            trunk: says(definition::PullOn::Trunk),
            environment: says(definition::PullOn::Environment),
            production: says(definition::PullOn::Production),
        }
    }

    fn definitions(&self) -> std::sync::MutexGuard<'_, BTreeMap<Oid, Arc<Defined>>> {
        self.definitions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
