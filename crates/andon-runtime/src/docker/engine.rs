//! The way to the engine: found, asked which version it speaks, asked again when it went away. Knows no containers.

use std::future::Future;
use std::sync::{Mutex, OnceLock, PoisonError, mpsc};

use bollard::{API_DEFAULT_VERSION, Docker};
use tokio::runtime::Runtime;

use crate::error::RuntimeError;

/// Where an engine listens unless DOCKER_HOST says otherwise.
const SOCKET: &str = "unix:///var/run/docker.sock";
/// The longest that one answer may take, in seconds: what stops an instance waits for it that long.
const ANSWER: u64 = 600;
/// How often a container between two states is looked at, and the pause between.
const LOOKS: u32 = 50;
const BETWEEN: std::time::Duration = std::time::Duration::from_millis(100);

/// What an engine says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct About {
    /// `Docker Engine 20.10.24`, `Podman 4.3.1`.
    pub name: String,
    /// The version of the API that both sides speak.
    pub api: String,
    /// It can limit memory.
    pub memory: bool,
    /// It can limit processor time.
    pub cpu: bool,
    /// It can limit the number of processes.
    pub processes: bool,
    /// It writes names of users into containers.
    pub names_users: bool,
    /// It filters system calls.
    pub seccomp: bool,
    /// It runs without root: its networks are not reachable from here.
    pub rootless: bool,
}

/// An answer that was none.
#[derive(Debug)]
pub(super) struct Failure {
    what: &'static str,
    /// HTTP's, if the engine answered at all.
    pub status: Option<u16>,
    pub why: String,
}

impl From<Failure> for RuntimeError {
    fn from(failure: Failure) -> RuntimeError {
        RuntimeError::Engine { what: failure.what, why: failure.why }
    }
}

/// Not there is as good.
pub(super) fn or_absent<T>(answer: Result<T, Failure>) -> Result<Option<T>, Failure> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(failure) if failure.status == Some(404) => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// One engine, whether it answers or not.
pub(super) struct Engine {
    host: String,
    known: Mutex<Option<(Docker, About)>>,
}

impl Engine {
    /// The engine that DOCKER_HOST names, or the one of this host. Asks nothing yet.
    pub fn of_host() -> Engine {
        Engine::at(std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty()))
    }

    pub fn at(host: Option<String>) -> Engine {
        Engine { host: host.unwrap_or_else(|| SOCKET.to_owned()), known: Mutex::default() }
    }

    /// Where it is looked for.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// A connection, found again if it was lost.
    pub fn client(&self) -> Result<(Docker, About), RuntimeError> {
        if let Some(known) = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            return Ok(known);
        }
        let host = self.host.clone();
        let found = wait(async move { probe(&host).await });
        let found = found.map_err(|why| RuntimeError::NoEngine { host: self.host.clone(), why })?;
        tracing::info!(engine = found.1.name, api = found.1.api, "a container engine answers");
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(found.clone());
        Ok(found)
    }

    /// Asks, and waits for the answer. The inner error is the engine's refusal.
    pub fn try_ask<T, F>(
        &self,
        what: &'static str,
        call: impl FnOnce(Docker) -> F + Send + 'static,
    ) -> Result<Result<T, Failure>, RuntimeError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, bollard::errors::Error>> + Send + 'static,
    {
        use bollard::errors::Error;
        let (docker, _) = self.client()?;
        match wait(call(docker)) {
            Ok(answer) => Ok(Ok(answer)),
            Err(Error::DockerResponseServerError { status_code, message }) => {
                Ok(Err(Failure { what, status: Some(status_code), why: plain(&message) }))
            }
            Err(Error::DockerStreamError { error }) => {
                Ok(Err(Failure { what, status: None, why: plain(&error) }))
            }
            Err(error) => {
                // Perhaps it is gone: who asks next looks for it anew.
                *self.known.lock().unwrap_or_else(PoisonError::into_inner) = None;
                Ok(Err(Failure { what, status: None, why: plain(&error.to_string()) }))
            }
        }
    }

    /// Asks; a refusal is an error.
    pub fn ask<T, F>(
        &self,
        what: &'static str,
        call: impl FnOnce(Docker) -> F + Send + 'static,
    ) -> Result<T, RuntimeError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, bollard::errors::Error>> + Send + 'static,
    {
        Ok(self.try_ask(what, call)??)
    }
}

/// Looks, and looks again while a container is between two states: Podman has a name for that which the interface does not know.
pub(super) async fn settled<T, F>(look: impl Fn() -> F) -> Result<T, bollard::errors::Error>
where
    F: Future<Output = Result<T, bollard::errors::Error>>,
{
    use bollard::errors::Error::{JsonDataError, JsonSerdeError};
    for _ in 0..LOOKS {
        match look().await {
            Err(JsonDataError { .. } | JsonSerdeError { .. }) => tokio::time::sleep(BETWEEN).await,
            answer => return answer,
        }
    }
    look().await
}

/// What an engine says comes from outside: control characters go, and so does what is too long for a line of a page.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(600).collect::<String>().trim().to_owned()
}

async fn probe(host: &str) -> Result<(Docker, About), String> {
    if !host.starts_with("unix://") {
        return Err("only engines on this host, reached by a unix:// socket, are driven".to_owned());
    }
    let docker =
        Docker::connect_with_unix(host, ANSWER, API_DEFAULT_VERSION).map_err(|error| error.to_string())?;
    let docker = docker.negotiate_version().await.map_err(|error| error.to_string())?;
    let version = docker.version().await.map_err(|error| error.to_string())?;
    let info = docker.info().await.map_err(|error| error.to_string())?;
    let component = version.components.iter().flatten().next().map(|component| component.name.clone());
    let product = match component.as_deref() {
        Some("Engine") | None => "Docker Engine",
        Some(name) if name.starts_with("Podman") => "Podman",
        Some(other) => other,
    };
    let options = info.security_options.unwrap_or_default();
    let about = About {
        name: plain(&format!("{product} {}", version.version.unwrap_or_default())),
        api: docker.client_version().to_string(),
        memory: info.memory_limit.unwrap_or(false),
        cpu: info.cpu_cfs_quota.unwrap_or(false),
        processes: info.pids_limit.unwrap_or(false),
        names_users: product == "Podman",
        seccomp: options.iter().any(|option| option.contains("seccomp")),
        rootless: options.iter().any(|option| option.contains("rootless")),
    };
    Ok((docker, about))
}

/// Runs it on threads of our own and waits: callers may stand on a thread of an async runtime, which must not block on itself.
pub(super) fn wait<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> T {
    let (tell, told) = mpsc::sync_channel(1);
    reactor().spawn(async move {
        // Whoever asked waits for it below.
        let _ = tell.send(future.await);
    });
    told.recv().unwrap_or_else(|_| unreachable!("a task that was spawned ends by telling"))
}

/// The threads on which engines are spoken to, for the life of the process.
pub(crate) fn reactor() -> &'static Runtime {
    static REACTOR: OnceLock<Runtime> = OnceLock::new();
    REACTOR.get_or_init(|| {
        let made = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("engine")
            .enable_all()
            .build();
        made.unwrap_or_else(|error| panic!("no thread can be started: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_that_is_not_there_is_said_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let socket = format!("unix://{}/docker.sock", dir.path().display());
        let words = Engine::at(Some(socket.clone())).client().unwrap_err().to_string();
        assert!(words.contains(&socket) && words.contains("hint: "), "{words}");
        let words = Engine::at(Some("tcp://10.0.0.1:2375".into())).client().unwrap_err().to_string();
        assert!(words.contains("unix://"), "{words}");
    }
}
