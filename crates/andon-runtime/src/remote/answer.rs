//! What an agent answers: every question of the server is one verb of the runtime of its project on this machine. Dials nobody.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use andon_model::ProjectName;
use bytes::Bytes;
use futures_util::TryStreamExt;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt};
use tokio_util::io::{StreamReader, SyncIoBridge};

use super::wire::{ASK_BYTES, Ask, Wrong};
use crate::error::RuntimeError;
use crate::{ProcessRuntime, Runtime};

/// How long a question whether something changed is thought about.
const THINKS: Duration = Duration::from_secs(20);
/// Lines of a log that are sent at most.
const LINES: usize = 10_000;

/// This machine, as the server sees it.
pub(super) struct Machine {
    pub dir: PathBuf,
    pub exe: PathBuf,
    pub address: IpAddr,
    /// It is no host any more: everything of it was removed.
    pub left: AtomicBool,
    runtimes: Mutex<BTreeMap<ProjectName, Arc<ProcessRuntime>>>,
}

impl Machine {
    pub fn new(dir: PathBuf, exe: PathBuf, address: IpAddr) -> Machine {
        Machine { dir, exe, address, left: AtomicBool::new(false), runtimes: Mutex::default() }
    }

    fn runtime(&self, project: &ProjectName) -> Result<Arc<ProcessRuntime>, RuntimeError> {
        let mut runtimes = self.runtimes.lock().unwrap_or_else(PoisonError::into_inner);
        // A question that was under way when it left would make a place for instances anew.
        if self.left.load(Ordering::SeqCst) {
            return Err(RuntimeError::Unknown(project.to_string()));
        }
        if let Some(runtime) = runtimes.get(project) {
            return Ok(Arc::clone(runtime));
        }
        let root = self.dir.join("instances").join(project.as_str());
        let made = ProcessRuntime::new(root, self.exe.clone())?.hiding(&self.dir).listening_on(self.address);
        let made = Arc::new(made);
        runtimes.insert(project.clone(), Arc::clone(&made));
        Ok(made)
    }

    /// Ends and removes everything that runs for the server.
    pub fn clear(&self) -> Result<(), RuntimeError> {
        let top = self.dir.join("instances");
        for entry in std::fs::read_dir(&top).into_iter().flatten().flatten() {
            let Ok(project) = entry.file_name().to_string_lossy().parse::<ProjectName>() else { continue };
            let runtime = self.runtime(&project)?;
            for observed in runtime.list()? {
                runtime.remove(&observed.id)?;
            }
        }
        let mut runtimes = self.runtimes.lock().unwrap_or_else(PoisonError::into_inner);
        runtimes.clear();
        match std::fs::remove_dir_all(&top) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(RuntimeError::disk("remove", top)(error))
            }
            _ => {
                self.left.store(true, Ordering::SeqCst);
                Ok(())
            }
        }
    }
}

type Answer = Response<Full<Bytes>>;

/// Answers one question.
pub(super) async fn answer(request: Request<Incoming>, machine: Arc<Machine>) -> Result<Answer, Infallible> {
    if request.method() != Method::POST {
        return Ok(refuse(StatusCode::METHOD_NOT_ALLOWED, "questions are posted"));
    }
    if request.uri().path() == "/leave" {
        let cleared = tokio::task::spawn_blocking(move || machine.clear());
        return Ok(spoken(cleared.await));
    }
    let project = request.uri().path().trim_start_matches('/').parse::<ProjectName>();
    let Ok(project) = project else {
        return Ok(refuse(StatusCode::NOT_FOUND, "there is no such project"));
    };
    let body = request.into_body().into_data_stream().map_err(io::Error::other);
    let mut body = StreamReader::new(Box::pin(body));
    let mut line = Vec::new();
    let read = (&mut body).take(ASK_BYTES as u64).read_until(b'\n', &mut line).await;
    let ask = read.ok().and_then(|_| serde_json::from_slice::<Ask>(&line).ok());
    let Some(ask) = ask else {
        return Ok(refuse(
            StatusCode::BAD_REQUEST,
            "the question is not understood; is the server of the same version?",
        ));
    };
    let runtime = {
        let machine = Arc::clone(&machine);
        tokio::task::spawn_blocking(move || machine.runtime(&project)).await
    };
    let runtime = match runtime {
        Ok(Ok(runtime)) => runtime,
        Ok(Err(error)) => return Ok(said::<()>(Err(error))),
        Err(error) => return Ok(refuse(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string())),
    };
    if let Ask::Watch(seen) = ask {
        return Ok(said(Ok(changed(runtime.as_ref(), seen).await)));
    }
    let done = tokio::task::spawn_blocking(move || {
        if let Ask::Prepare(spec) = &ask {
            let mut artifact = SyncIoBridge::new(body);
            return said(Runtime::prepare(runtime.as_ref(), spec, &mut artifact));
        }
        verb(runtime.as_ref(), ask)
    });
    Ok(done.await.unwrap_or_else(|error| refuse(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string())))
}

fn verb(runtime: &dyn Runtime, ask: Ask) -> Answer {
    match ask {
        Ask::Place { environment, used } => said(runtime.place(&environment, &used, None)),
        Ask::Start(spec) => said(runtime.start(&spec)),
        Ask::Stop(id) => said(runtime.stop(&id)),
        Ask::Remove(id) => said(runtime.remove(&id)),
        Ask::List => said(runtime.list()),
        Ask::Logs(id, lines) => said(runtime.logs(&id, lines.min(LINES))),
        Ask::Differences(id) => said(runtime.differences(&id)),
        Ask::Settings(id) => said(runtime.settings(&id)),
        Ask::Packages(id) => said(runtime.packages(&id)),
        Ask::Touched => said(Ok(runtime.touched())),
        Ask::Foreign => said(runtime.foreign()),
        Ask::KillForeign(process) => said(runtime.kill_foreign(process)),
        Ask::Clear(environment) => said(runtime.clear(&environment)),
        Ask::Prepare(_) | Ask::Watch(_) => refuse(StatusCode::BAD_REQUEST, "asked in the wrong place"),
    }
}

/// The count of changes, once it is not this one any more or a while has passed; none: nobody counts here.
async fn changed(runtime: &dyn Runtime, seen: u64) -> Option<u64> {
    let mut changes = runtime.watch()?;
    let waited = tokio::time::timeout(THINKS, changes.wait_for(|count| *count != seen)).await;
    match waited {
        Ok(Ok(count)) => Some(*count),
        Ok(Err(_)) => None,
        Err(_) => Some(seen),
    }
}

fn spoken<T: Serialize>(done: Result<Result<T, RuntimeError>, tokio::task::JoinError>) -> Answer {
    match done {
        Ok(done) => said(done),
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

fn said<T: Serialize>(done: Result<T, RuntimeError>) -> Answer {
    match serde_json::to_vec(&done.map_err(Wrong::from)) {
        Ok(text) => Response::new(Full::new(text.into())),
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

fn refuse(status: StatusCode, why: &str) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::copy_from_slice(why.as_bytes())));
    *answer.status_mut() = status;
    answer
}
