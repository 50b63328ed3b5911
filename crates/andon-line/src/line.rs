//! The whole server: journal, accounts, projects, news. Everything that is recorded is recorded here, and only here.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use andon_attest::{Keys, Signer};
use andon_certificates::Authority;
use andon_environment::hosts::Hosts;
use andon_git::Repository;
use andon_kit::Clock;
use andon_model::event::KeyPurpose;
use andon_model::event::{Event, Recorded, Role};
use andon_model::{Actor, ProjectName, RunnerName, Span, Time};
use andon_pipeline::Runners;
use andon_router::tls::Certificates;
use andon_router::{AccessLog, Options, Router};
use andon_runner::Runner;
use andon_runner::remote::Crew;
use andon_runtime::remote::Fleet;
use andon_store::journal::{Batch, Fence, Journal, NewEvent};
use andon_store::{Blobs, Derived, SqliteJournal, Vault};
use andon_traffic::Plane;
use tokio::sync::{Semaphore, broadcast};

use crate::access::{Access, Caller};
use crate::recovery::Recovery;
use crate::stations::data::Address;
use crate::stations::routes;
use crate::{Project, Refusal, State};

/// How the server is set up.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where everything is kept.
    pub data: PathBuf,
    /// Where people and programs reach it, for links.
    pub url: String,
    /// Where users reach the services.
    pub router: SocketAddr,
    /// The binary, for shims and hooks.
    pub exe: PathBuf,
    /// Jobs that run side by side.
    pub slots: usize,
    /// Between two backups; none: only when somebody asks.
    pub backup_every: Option<Span>,
    /// Between two drills; none: only when somebody asks.
    pub drill_every: Option<Span>,
    /// Jobs that ask for it reach the container engine.
    pub docker_in_jobs: bool,
    /// How long a runner may be silent before what it had is run again elsewhere.
    pub runner_lease: Span,
    /// The PostgreSQL server that environments get their databases from.
    pub postgres: Option<Address>,
    /// Where certificates of hosts come from, where users are served over TLS.
    pub certificates: Option<CertificateSettings>,
    /// Where the router writes a line for each answer.
    pub access_log: Option<PathBuf>,
}

/// Where certificates of hosts come from.
#[derive(Debug, Clone)]
pub struct CertificateSettings {
    /// The folder that they are read from and kept in.
    pub folder: PathBuf,
    /// Where they are ordered; none: only what is put into the folder is shown.
    pub authority: Option<Authority>,
}

/// How long a runner may be silent unless somebody says otherwise.
pub const LEASE_OF_RUNNERS: Span = Span::secs(60);
/// News kept for a listener that is slow; one that falls behind further is told so and reads the state again.
const NEWS: usize = 4096;
/// Events read from the journal at once.
const PAGE: u32 = 10_000;
/// Names that are addresses of the server itself.
const RESERVED: [&str; 13] = [
    "metrics", "routers", "recovery", "hosts", "runners", "login", "logout", "enter", "account", "assets",
    "api", "healthz", "favicon",
];
/// The lease of whoever runs the controllers.
const LEASE: &str = "controllers";
/// How long a lease lasts unless renewed.
pub(crate) const LEASE_LASTS: Span = Span::secs(30);
/// How often the data directory's lock is tried, and the pause between.
const LOCK_TRIES: u32 = 200;
const LOCK_PAUSE: std::time::Duration = std::time::Duration::from_millis(5);

/// The server's state and its doors inwards. Shared by everything.
pub struct Line {
    /// How it is set up.
    pub settings: Settings,
    /// Bulk.
    pub blobs: Blobs,
    /// What would take long to derive from the journal again.
    pub(crate) derived: Derived,
    /// Seals what is kept in confidence.
    pub vault: Vault,
    /// Makes databases.
    pub(crate) data: Option<andon_data::Server>,
    /// Runs jobs.
    pub runner: Runner,
    /// Sends users to revisions.
    pub router: Router,
    /// What is shown to who comes over TLS.
    pub certificates: Certificates,
    /// What moves users instead of the router, once one is given.
    pub(crate) plane: std::sync::OnceLock<Arc<dyn Plane>>,
    /// Routers apart from this process.
    pub apart: andon_router::Apart,
    pub(crate) routing: Mutex<()>,
    pub(crate) backup_turn: tokio::sync::Mutex<()>,
    pub(crate) drill_turn: tokio::sync::Mutex<()>,
    recovery: RwLock<Recovery>,
    hosts: RwLock<Hosts>,
    pub(crate) keys: RwLock<Keys>,
    /// Keys that were opened.
    pub(crate) signers: tokio::sync::Mutex<BTreeMap<KeyPurpose, Arc<Signer>>>,
    /// Speaks with the hosts that joined.
    pub(crate) fleet: Arc<Fleet>,
    /// Where they come in, once it is open.
    pub(crate) hosts_door: std::sync::OnceLock<crate::hosts::Door>,
    runners: RwLock<Runners>,
    /// Speaks with the runners that joined.
    pub(crate) crew: Arc<Crew>,
    /// Where they come in, once it is open.
    pub(crate) runners_door: std::sync::OnceLock<crate::hosts::Door>,
    /// Jobs that each runner has.
    pub(crate) taken: Mutex<BTreeMap<RunnerName, usize>>,
    /// When this process began to watch.
    pub(crate) began: Time,
    /// Sleeping services that somebody asked for, and that their project has not heard of yet.
    pub(crate) asked: Mutex<BTreeSet<String>>,
    /// Free places for jobs.
    pub slots: Arc<Semaphore>,
    journal: SqliteJournal,
    clock: Box<dyn Clock>,
    fence: Fence,
    access: RwLock<(Access, u64)>,
    server_turn: tokio::sync::Mutex<()>,
    projects: RwLock<BTreeMap<ProjectName, Arc<Project>>>,
    news: RwLock<broadcast::Sender<Arc<Recorded>>>,
    pub(crate) pushes: Mutex<HashMap<String, (ProjectName, Caller)>>,
    /// Held for the life of the process: one server per data directory.
    lock: File,
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Line").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Line {
    /// Opens the data directory and reads the journal from its beginning.
    pub async fn open(settings: Settings, clock: Box<dyn Clock>) -> Result<Arc<Line>, Refusal> {
        let data = settings.data.clone();
        make_private(&data)?;
        let lock = lock(&data).await?;
        let journal = SqliteJournal::open(&data.join("journal.db")).await?;
        // The directory's lock is ours, so whoever held the lease before is gone.
        let now = Time(clock.now_ms());
        let lease = journal.acquire(LEASE, "this data directory", now, LEASE_LASTS).await?;
        let Some(lease) = lease else {
            return Err(Refusal::Conflict("another server holds this journal's lease".into()));
        };
        let (mut access, mut version, mut recovery) = (Access::default(), 0, Recovery::default());
        let (mut hosts, mut runners, mut keys) = (Hosts::default(), Runners::default(), Keys::default());
        let mut states: BTreeMap<ProjectName, State> = BTreeMap::new();
        let mut last = 0;
        loop {
            let page = journal.read(last, PAGE).await?;
            for recorded in &page {
                last = recorded.seq;
                match &recorded.project {
                    Some(project) => states.entry(project.clone()).or_default().evolve(recorded),
                    None => {
                        access.evolve(recorded);
                        recovery.evolve(recorded);
                        hosts.evolve(recorded);
                        runners.evolve(recorded);
                        keys.evolve(recorded);
                        version += 1;
                    }
                }
            }
            if page.len() < PAGE as usize {
                break;
            }
        }
        let blobs = Blobs::open(&data.join("blobs"))?;
        let derived = Derived::open(&data.join("derived.db")).await?;
        let vault = Vault::open(&data.join("key"))?;
        let fleet = Arc::new(Fleet::new(tokio::runtime::Handle::current()));
        let mut projects: BTreeMap<ProjectName, Arc<Project>> = BTreeMap::new();
        for (name, state) in states {
            let project = Project::new(name.clone(), &data, &settings.exe, state, Arc::clone(&fleet))?;
            projects.insert(name, Arc::new(project));
        }
        for project in projects.values() {
            let trunk = project.state().trunk.clone();
            Repository::create(project.repository.dir().to_owned(), &trunk, &settings.exe).await?;
        }
        let id: String = name_of(&vault);
        let runner = Runner::new(settings.exe.clone(), &data, format!("andon-jobs-{id}"));
        let postgres =
            settings.postgres.as_ref().map(|at| andon_data::Server::new(&at.0, &id)).transpose()?;
        let line = Arc::new(Line {
            data: postgres,
            blobs,
            derived,
            vault,
            runner,
            router: router(&settings)?,
            certificates: Certificates::default(),
            plane: std::sync::OnceLock::new(),
            apart: andon_router::Apart::default(),
            routing: Mutex::default(),
            backup_turn: tokio::sync::Mutex::default(),
            drill_turn: tokio::sync::Mutex::default(),
            recovery: RwLock::new(recovery),
            hosts: RwLock::new(hosts),
            keys: RwLock::new(keys),
            signers: tokio::sync::Mutex::default(),
            fleet,
            hosts_door: std::sync::OnceLock::new(),
            runners: RwLock::new(runners),
            crew: Arc::default(),
            runners_door: std::sync::OnceLock::new(),
            taken: Mutex::default(),
            began: now,
            asked: Mutex::default(),
            slots: Arc::new(Semaphore::new(settings.slots)),
            journal,
            clock,
            fence: lease.fence,
            access: RwLock::new((access, version)),
            server_turn: tokio::sync::Mutex::default(),
            projects: RwLock::new(projects),
            news: RwLock::new(broadcast::Sender::new(NEWS)),
            pushes: Mutex::default(),
            settings,
            lock,
        });
        // A failure that was recorded just before the server was killed: the rules answer only what is not answered yet.
        for project in line.projects() {
            let feed: Vec<Recorded> = project.state().feed.iter().cloned().collect();
            let _turn = project.turn.lock().await;
            line.follow_up(&project, feed).await?;
        }
        line.reroute();
        let trying = Arc::clone(&line);
        // What the host permits is known before the first job needs it.
        drop(tokio::task::spawn_blocking(move || drop(trying.runner.means().clone())));
        Ok(line)
    }

    /// Tells what this server made on its host from what others did.
    pub fn id(&self) -> String {
        name_of(&self.vault)
    }

    /// What time it is.
    pub fn now(&self) -> Time {
        Time(self.clock.now_ms())
    }

    /// Everything that is recorded from now on.
    pub fn news(&self) -> broadcast::Receiver<Arc<Recorded>> {
        self.news.read().unwrap_or_else(PoisonError::into_inner).subscribe()
    }

    /// Whoever listens now hears that nothing more will come: a server that stops would wait for its listeners else.
    pub fn end_news(&self) {
        *self.news.write().unwrap_or_else(PoisonError::into_inner) = broadcast::Sender::new(NEWS);
    }

    fn spread(&self, event: Arc<Recorded>) {
        // Nobody may be listening.
        let _ = self.news.read().unwrap_or_else(PoisonError::into_inner).send(event);
    }

    /// All projects.
    pub fn projects(&self) -> Vec<Arc<Project>> {
        self.projects.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// The project of this name.
    pub fn project(&self, name: &str) -> Result<Arc<Project>, Refusal> {
        let found = self.projects.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        found.ok_or_else(|| {
            let name: String = name.chars().take(40).collect();
            Refusal::Unknown(format!(
                "there is no project {name:?}\nhint: `andon project list` shows those there are"
            ))
        })
    }

    /// Accounts and tokens now.
    pub fn access(&self) -> impl std::ops::Deref<Target = (Access, u64)> + '_ {
        let guard: RwLockReadGuard<'_, (Access, u64)> =
            self.access.read().unwrap_or_else(PoisonError::into_inner);
        guard
    }

    /// Backups and drills.
    pub fn recovery(&self) -> RwLockReadGuard<'_, Recovery> {
        self.recovery.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The machines that instances run on.
    pub fn hosts(&self) -> RwLockReadGuard<'_, Hosts> {
        self.hosts.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The machines that jobs run on.
    pub fn runners(&self) -> RwLockReadGuard<'_, Runners> {
        self.runners.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the lease; false: it was lost, and this process must stop.
    pub async fn renew(&self) -> bool {
        match self.journal.renew(&self.fence, self.now() + LEASE_LASTS).await {
            Ok(kept) => kept,
            Err(error) => {
                tracing::error!(%error, "the lease could not be renewed");
                true
            }
        }
    }

    /// Lets another process have this data: nothing is recorded here any more once it has.
    pub fn give_up(&self) -> Result<(), Refusal> {
        Ok(rustix::fs::flock(&self.lock, rustix::fs::FlockOperation::Unlock).map_err(std::io::Error::from)?)
    }

    pub(crate) async fn journal_snapshot(&self, file: &std::path::Path) -> Result<(), Refusal> {
        Ok(self.journal.snapshot(file).await?)
    }

    /// Events of the whole journal after `seq`, oldest first.
    pub async fn history(&self, after: u64, limit: u32) -> Result<Vec<Recorded>, Refusal> {
        Ok(self.journal.read(after, limit).await?)
    }

    /// Decides on the project's state and records what was decided, in one turn: nothing else is recorded in between.
    pub async fn decide<T>(
        &self,
        project: &Project,
        by: Actor,
        decision: impl FnOnce(&State, Time) -> Result<(Vec<Event>, T), Refusal>,
    ) -> Result<T, Refusal> {
        let _turn = project.turn.lock().await;
        let (batch, result) = {
            let state = project.state();
            let at = self.now();
            let (events, result) = decision(&state, at)?;
            let events =
                events.into_iter().map(|event| NewEvent { by: by.clone(), event }).collect::<Vec<_>>();
            let (project, fence) = (Some(project.name.clone()), Some(self.fence.clone()));
            (Batch { project, expected: state.version, at, events, fence }, result)
        };
        if !batch.events.is_empty() {
            let recorded = self.append(project, batch).await?;
            // What follows for the cord is decided in the same turn: nothing can land between a failure and its andon.
            self.follow_up(project, recorded).await?;
        }
        Ok(result)
    }

    async fn append(&self, project: &Project, batch: Batch) -> Result<Vec<Recorded>, Refusal> {
        let recorded = self.journal.append(batch).await?;
        project.with_state(|state| recorded.iter().for_each(|event| state.evolve(event)));
        // Persisted, then acted, then announced: who hears that users moved finds them moved.
        if recorded.iter().any(|event| routes::moves_users(&event.event)) {
            self.reroute();
        }
        self.announce(recorded.clone());
        Ok(recorded)
    }

    /// Records what the cord's rules say to what just happened, until they say nothing more.
    async fn follow_up(&self, project: &Project, mut recorded: Vec<Recorded>) -> Result<(), Refusal> {
        let policy = project.pull_on();
        while !recorded.is_empty() {
            let mut next = Vec::new();
            for happened in &recorded {
                let batch = {
                    let state = project.state();
                    let mut events = andon_cord::recover(&state.cord, happened);
                    events.extend(andon_cord::react(&state.cord, &policy, happened));
                    let by = Actor::line("cord");
                    let events: Vec<_> =
                        events.into_iter().map(|event| NewEvent { by: by.clone(), event }).collect();
                    let (project, fence) = (Some(project.name.clone()), Some(self.fence.clone()));
                    Batch { project, expected: state.version, at: self.now(), events, fence }
                };
                if !batch.events.is_empty() {
                    next.extend(self.append(project, batch).await?);
                }
            }
            recorded = next;
        }
        Ok(())
    }

    /// Records what a station saw or did.
    pub async fn tell(&self, project: &Project, station: &str, events: Vec<Event>) -> Result<(), Refusal> {
        self.decide(project, Actor::line(station), |_, _| Ok((events, ()))).await
    }

    /// Decides on accounts and projects.
    pub async fn decide_server<T>(
        &self,
        by: Actor,
        decision: impl FnOnce(&Access, Time) -> Result<(Vec<Event>, T), Refusal>,
    ) -> Result<T, Refusal> {
        let _turn = self.server_turn.lock().await;
        let (batch, result) = {
            let access = self.access();
            let at = self.now();
            let (events, result) = decision(&access.0, at)?;
            let events =
                events.into_iter().map(|event| NewEvent { by: by.clone(), event }).collect::<Vec<_>>();
            (Batch { project: None, expected: access.1, at, events, fence: Some(self.fence.clone()) }, result)
        };
        if !batch.events.is_empty() {
            let recorded = self.journal.append(batch).await?;
            {
                let mut access = self.access.write().unwrap_or_else(PoisonError::into_inner);
                for event in &recorded {
                    access.0.evolve(event);
                    access.1 += 1;
                }
                let mut known = self.recovery.write().unwrap_or_else(PoisonError::into_inner);
                recorded.iter().for_each(|event| known.evolve(event));
                let mut hosts = self.hosts.write().unwrap_or_else(PoisonError::into_inner);
                recorded.iter().for_each(|event| hosts.evolve(event));
                let mut runners = self.runners.write().unwrap_or_else(PoisonError::into_inner);
                recorded.iter().for_each(|event| runners.evolve(event));
                let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
                recorded.iter().for_each(|event| keys.evolve(event));
            }
            self.announce(recorded);
        }
        Ok(result)
    }

    fn announce(&self, recorded: Vec<Recorded>) {
        for event in recorded {
            // Nobody listening is fine: the journal has it.
            self.spread(Arc::new(event));
        }
    }

    /// Wakes the stations of a project by telling its last event again; listeners know events by their number.
    pub(crate) fn nudge(&self, last: &Recorded) {
        self.spread(Arc::new(last.clone()));
    }

    /// Creates a project with an empty repository.
    pub async fn create_project(
        &self,
        caller: &Caller,
        name: ProjectName,
        trunk: &str,
    ) -> Result<Arc<Project>, Refusal> {
        caller.may(Role::Owner)?;
        if !andon_git::is_ref_name(trunk) {
            return Err(Refusal::Bad(format!(
                "{:?} is not a branch name",
                trunk.chars().take(60).collect::<String>()
            )));
        }
        if RESERVED.contains(&name.as_str()) {
            return Err(Refusal::Bad(format!(
                "{name} is an address of the server itself\nhint: choose another name"
            )));
        }
        let _turn = self.server_turn.lock().await;
        if self.project(name.as_str()).is_ok() {
            return Err(Refusal::Conflict(format!("the project {name} is there already")));
        }
        let (data, exe) = (&self.settings.data, &self.settings.exe);
        let made = Project::new(name.clone(), data, exe, State::default(), Arc::clone(&self.fleet))?;
        let project = Arc::new(made);
        Repository::create(project.repository.dir().to_owned(), trunk, &self.settings.exe).await?;
        let created = Event::ProjectCreated { trunk: trunk.to_owned() };
        self.decide(&project, caller.actor(), |_, _| Ok((vec![created], ()))).await?;
        self.projects.write().unwrap_or_else(PoisonError::into_inner).insert(name, Arc::clone(&project));
        self.announce(project.state().feed.back().cloned().into_iter().collect());
        Ok(project)
    }
}

fn router(settings: &Settings) -> Result<Router, Refusal> {
    let access = settings.access_log.as_deref().map(AccessLog::open).transpose()?;
    Ok(Router::with(Options { access, ..Options::default() }))
}

fn make_private(data: &std::path::Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::create_dir_all(data)?;
    std::fs::set_permissions(data, std::fs::Permissions::from_mode(0o700))
}

/// A process that a killed server was just starting holds its lock until it executes: for so long it is tried again.
async fn lock(data: &std::path::Path) -> Result<File, Refusal> {
    let file = File::options().create(true).truncate(false).write(true).open(data.join("lock"))?;
    for _ in 0..LOCK_TRIES {
        if rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok() {
            return Ok(file);
        }
        tokio::time::sleep(LOCK_PAUSE).await;
    }
    let data = data.display();
    Err(Refusal::Conflict(format!(
        "another server uses {data}\nhint: stop it, or give this one another --data"
    )))
}

/// Tells what this data directory made from what another one did; the key itself is not to be had from it.
fn name_of(vault: &Vault) -> String {
    vault.derive("which server").chars().take(16).collect()
}
