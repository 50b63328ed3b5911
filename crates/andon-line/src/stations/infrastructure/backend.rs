//! States of the infrastructure tool: read, lock, unlock, store, empty. Every version is a sealed blob. Speaks no HTTP.

use andon_environment::states::{Denied, Offer};
use andon_model::event::{Actor, Event, InfraTool, LockInfo, Role, StoredState};
use andon_model::{Digest, EnvironmentName, InfraRunId, ProjectName, StateName};
use serde::Deserialize;
use std::sync::PoisonError;

use crate::intake::plain;
use crate::{Caller, Line, Project, Refusal};

/// Largest state document, in bytes: some 75,000 resources.
pub const LARGEST: usize = 64 << 20;
/// States of one project.
const MOST: usize = 10_000;
/// Longest lineage and lock id that is taken.
const LONGEST: usize = 200;
/// What a token of a run begins with.
const MARK: &str = "state_";
/// Who a run acts as before the guard.
const SYSTEM: &str = "infrastructure";

/// Why a state was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateRefusal {
    /// The rules of states say no.
    #[error("{0}")]
    Denied(#[from] Denied),
    /// Anything else.
    #[error("{0}")]
    Other(#[from] Refusal),
}

impl From<std::io::Error> for StateRefusal {
    fn from(error: std::io::Error) -> StateRefusal {
        StateRefusal::Other(error.into())
    }
}

/// What a run of ours may do while it is under way: speak with the states of its environment, and nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// Its project.
    pub project: ProjectName,
    /// Its state's environment.
    pub state: StateName,
    /// Which run.
    pub run: InfraRunId,
}

impl Scope {
    /// Whether this path is a door of its environment's states.
    pub fn opens(&self, path: &str) -> bool {
        let base = format!("/api/v1/{}/state/{}", self.project, self.state.environment);
        path.strip_prefix(&base).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// As the guard and the handlers know it.
    pub fn caller(&self) -> Option<Caller> {
        Some(Caller { user: SYSTEM.parse().ok()?, roles: [Role::Deployer].into(), token: None, kind: None })
    }
}

/// Who writes to a state: a caller, or a run of ours.
#[derive(Debug, Clone)]
pub struct Writer {
    /// As the journal names it.
    pub by: Actor,
    /// The run, if it is one of ours.
    pub run: Option<InfraRunId>,
}

/// The parts of a state document that the rules need.
#[derive(Debug, Deserialize)]
struct Document {
    version: u64,
    serial: u64,
    lineage: String,
}

/// The body of LOCK and UNLOCK.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct LockBody {
    #[serde(rename = "ID")]
    id: String,
    #[serde(default)]
    operation: String,
    #[serde(default)]
    who: String,
    #[serde(default)]
    version: String,
}

fn lock_body(body: &[u8]) -> Result<LockBody, Refusal> {
    let bad = |why: String| {
        Refusal::Bad(format!("this is not a lock: {why}\nhint: the body is the JSON that terraform sends"))
    };
    let lock: LockBody = serde_json::from_slice(body).map_err(|error| bad(error.to_string()))?;
    if lock.id.is_empty() || lock.id.len() > LONGEST || plain(&lock.id) != lock.id {
        return Err(bad("its ID is empty, too long or not printable".into()));
    }
    Ok(lock)
}

impl Line {
    /// The token by which a run speaks with the states of its environment. It is not kept: it can be computed, and is worth nothing once
    /// the run has ended. A server that was killed knows it again.
    pub fn run_token(&self, project: &ProjectName, state: &StateName, run: InfraRunId) -> String {
        let secret = self.vault.derive(&format!("state {project} {state} {run}"));
        format!("{MARK}{project}.{}.{secret}", run.0)
    }

    /// What this secret opens, if it is the token of a run that is under way.
    pub fn run_scope(&self, secret: &str) -> Option<Scope> {
        let mut parts = secret.strip_prefix(MARK)?.split('.');
        let (project, run) = (parts.next()?, parts.next()?.parse().ok().map(InfraRunId)?);
        let project = self.project(project).ok()?;
        let state = {
            let state = project.state();
            let looked_at = |name: &EnvironmentName| {
                project
                    .looks
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .under_way
                    .contains(&(name.clone(), InfraTool::Terraform))
            };
            let infrastructure = &state.estate.infrastructure;
            // Ansible keeps no state.
            let run = infrastructure.runs.get(&run).filter(|run| run.asked.playbook.is_none())?;
            // A look uses the token of the run that applied what it looks at.
            let applied = infrastructure.in_force(&run.asked.environment, InfraTool::Terraform);
            let looks = applied.is_some_and(|a| a.run == run.id()) && looked_at(&run.asked.environment);
            if !infrastructure.is_open(run.id()) && !looks {
                return None;
            }
            StateName::of(run.asked.environment.clone())
        };
        let right = self.run_token(&project.name, &state, run);
        // Compared by digest: the time that it takes says nothing about the secret.
        (Digest::of(right.as_bytes()) == Digest::of(secret.as_bytes())).then(|| Scope {
            project: project.name.clone(),
            state,
            run,
        })
    }

    /// The newest document; none where there is none.
    pub async fn read_state(&self, project: &Project, name: &StateName) -> Result<Option<Vec<u8>>, Refusal> {
        let blob = project.state().states.newest(name).map(|version| version.stored.blob.clone());
        match blob {
            Some(blob) => self.open_blob(blob).await.map(Some),
            None => Ok(None),
        }
    }

    /// Takes the lock, or says who holds it.
    pub async fn lock_state(
        &self,
        project: &Project,
        writer: &Writer,
        name: &StateName,
        body: &[u8],
    ) -> Result<(), StateRefusal> {
        let lock = lock_body(body)?;
        let info = LockInfo {
            id: lock.id,
            operation: plain(&lock.operation),
            who: plain(&lock.who),
            version: plain(&lock.version),
            run: writer.run,
            maintenance: false,
        };
        self.take_lock(project, writer.by.clone(), name, info).await
    }

    pub(super) async fn take_lock(
        &self,
        project: &Project,
        by: Actor,
        name: &StateName,
        info: LockInfo,
    ) -> Result<(), StateRefusal> {
        let done = self.decide(project, by, |state, _| {
            if state.states.get(name).is_none() && state.states.iter().count() >= MOST {
                return Err(Refusal::Conflict(format!("this project has {MOST} states already")));
            }
            Ok(apart(state.states.lock(name, info)))
        });
        Ok(done.await??)
    }

    /// Frees the lock. An empty body is Terraform's `force-unlock`: it names no lock, so it needs an owner and is kept as what it is.
    pub async fn unlock_state(
        &self,
        project: &Project,
        writer: &Writer,
        owner: bool,
        name: &StateName,
        body: &[u8],
    ) -> Result<(), StateRefusal> {
        if body.iter().all(u8::is_ascii_whitespace) {
            if !owner {
                return Err(Refusal::Forbidden(Role::Owner).into());
            }
            return Ok(self.force_unlock(project, writer.by.clone(), name, "force-unlock").await?);
        }
        let id = lock_body(body)?.id;
        Ok(self
            .decide(project, writer.by.clone(), |state, _| Ok(apart(state.states.unlock(name, &id))))
            .await??)
    }

    pub(super) async fn force_unlock(
        &self,
        project: &Project,
        by: Actor,
        name: &StateName,
        why: &str,
    ) -> Result<(), Refusal> {
        self.decide(project, by, |state, _| Ok((state.states.force_unlock(name, why), ()))).await
    }

    /// Keeps a new version: sealed, on disk, then recorded.
    pub async fn store_state(
        &self,
        project: &Project,
        writer: &Writer,
        name: &StateName,
        lock: Option<String>,
        document: Vec<u8>,
    ) -> Result<(), StateRefusal> {
        self.keep_state(project, writer, name, lock, document, None).await
    }

    /// As [`Line::store_state`]; `recovered`: found after a run that could not store it itself.
    pub(super) async fn keep_state(
        &self,
        project: &Project,
        writer: &Writer,
        name: &StateName,
        lock: Option<String>,
        document: Vec<u8>,
        recovered: Option<InfraRunId>,
    ) -> Result<(), StateRefusal> {
        let read: Document = serde_json::from_slice(&document).map_err(|error| {
            Refusal::Bad(format!(
                "this is not a state: {error}\nhint: the body is the JSON that terraform sends"
            ))
        })?;
        if read.version != 4 || read.lineage.is_empty() || read.lineage.len() > LONGEST {
            let why =
                "this state has another form than version 4\nhint: use Terraform 0.12 or newer, or OpenTofu";
            return Err(Refusal::Bad(why.into()).into());
        }
        let lineage = plain(&read.lineage);
        let offer = Offer { serial: read.serial, lineage, digest: Digest::of(&document), lock };
        // Asked twice: here, to spare the disk; and in the turn that records it.
        if !project.state().states.may_store(name, &offer)? {
            return Ok(());
        }
        let (blob, bytes) = (self.seal_blob(document.clone()).await?, document.len() as u64);
        let done = self.decide(project, writer.by.clone(), |state, _| {
            let may = state.states.may_store(name, &offer);
            let Offer { serial, lineage, digest, lock } = offer;
            let restored_from = None;
            let version =
                StoredState { serial, lineage, digest, blob, bytes, lock, restored_from, recovered };
            let event = Event::StateStored { state: name.clone(), version };
            Ok(apart(may.map(|new| if new { vec![event] } else { vec![] })))
        });
        Ok(done.await??)
    }

    /// Empties the state. Its versions are kept.
    pub async fn delete_state(
        &self,
        project: &Project,
        writer: &Writer,
        name: &StateName,
        lock: Option<&str>,
    ) -> Result<(), StateRefusal> {
        Ok(self
            .decide(project, writer.by.clone(), |state, _| Ok(apart(state.states.delete(name, lock))))
            .await??)
    }

    pub(crate) async fn seal_blob(&self, bytes: Vec<u8>) -> Result<Digest, Refusal> {
        let (vault, blobs) = (self.vault.clone(), self.blobs.clone());
        let sealed = move || blobs.put(&vault.seal(&bytes)?[..]).map(|(digest, _)| digest);
        Ok(tokio::task::spawn_blocking(sealed)
            .await
            .map_err(|error| Refusal::Broken(error.to_string()))??)
    }

    pub(crate) async fn open_blob(&self, blob: Digest) -> Result<Vec<u8>, Refusal> {
        let (vault, blobs) = (self.vault.clone(), self.blobs.clone());
        // Sealing adds a header and 16 bytes to each 64 KiB.
        let most = LARGEST as u64 * 2;
        let opened = move || vault.open_sealed(&blobs.read(&blob, most)?);
        Ok(tokio::task::spawn_blocking(opened)
            .await
            .map_err(|error| Refusal::Broken(error.to_string()))??)
    }
}

/// Events to record, and beside them what the rules said: a refusal by the rules records nothing and is no failure of the server.
fn apart(decided: Result<Vec<Event>, Denied>) -> (Vec<Event>, Result<(), Denied>) {
    match decided {
        Ok(events) => (events, Ok(())),
        Err(denied) => (vec![], Err(denied)),
    }
}
