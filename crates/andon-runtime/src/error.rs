//! What can go wrong on a host, in words.

use std::path::PathBuf;

/// Why something did not happen. Nothing is left half done.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// Not usable as the name of a directory.
    #[error(
        "{0:?} cannot name an instance\nhint: use letters, digits, '.', '_' and '-', at most 100, not starting with '.'"
    )]
    BadId(String),
    /// The disk said no.
    #[error("cannot {what} {path}: {source}\nhint: check owner, permissions and free space of that path")]
    Disk {
        /// The attempt, as a verb.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// The answer.
        source: std::io::Error,
    },
    /// The artifact holds something that must not be unpacked.
    #[error("the artifact cannot be unpacked: {path:?} {why}\nhint: {hint}")]
    Artifact {
        /// The entry.
        path: String,
        /// What is wrong with it.
        why: String,
        /// What to do about it.
        hint: &'static str,
    },
    /// Started without having been prepared.
    #[error("instance {0} has no release directory\nhint: prepare it from its artifact first")]
    NotPrepared(String),
    /// No such instance.
    #[error("there is no instance {0} on this host\nhint: it was removed, or belongs to another host")]
    Unknown(String),
    /// The command did not start.
    #[error(
        "instance {id} did not start: {why}\nhint: the command runs in the directory of the artifact; check its path and that it is executable"
    )]
    NotStarted {
        /// Which.
        id: String,
        /// What the operating system said.
        why: String,
    },
    /// The environment's network.
    #[error(
        "the network cannot be set up: {0}\nhint: leave `port` out of the service, and it listens on $PORT of the host instead"
    )]
    Network(String),
    /// Something of it lives on.
    #[error(
        "instance {id} could not be stopped: {why}\nhint: look at its processes; one may hang in the kernel"
    )]
    NotStopped {
        /// Which.
        id: String,
        /// What is left.
        why: String,
    },
    /// A host that joined said no.
    #[error("host {host}: {why}")]
    OnHost {
        /// Its name.
        host: String,
        /// Its words.
        why: String,
    },
    /// A host that joined does not answer.
    #[error(
        "host {host} is not reached: {why}\nhint: its agent (`andon host run`) may be down; `andon host list` shows since when"
    )]
    Silent {
        /// Its name.
        host: String,
        /// What happened.
        why: String,
    },
    /// No shell is opened inside of it.
    #[error("no shell can be opened inside {id}: {why}\nhint: `andon env show` names the instances that run")]
    NoShell {
        /// Which.
        id: String,
        /// The reason.
        why: String,
    },
    /// No container engine answers.
    #[error(
        "no container engine answers at {host}: {why}\nhint: install and start Docker (or Podman's socket), let this user open the socket, or name it in DOCKER_HOST; it is looked for again by itself"
    )]
    NoEngine {
        /// Where it was looked for.
        host: String,
        /// What came instead.
        why: String,
    },
    /// The container engine refused.
    #[error(
        "the container engine did not {what}: {why}\nhint: its own log says more; `docker info` shows whether it is well"
    )]
    Engine {
        /// What it was asked for, as a verb.
        what: &'static str,
        /// Its answer.
        why: String,
    },
    /// The image that the artifact is to be put on is not on the engine.
    #[error(
        "there is no image {0:?} on the container engine\nhint: images are taken as they lie there: pull, load or import it first"
    )]
    NoImage(String),
}

impl RuntimeError {
    /// For `map_err`.
    pub(crate) fn disk(
        what: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> RuntimeError {
        let path = path.into();
        move |source| RuntimeError::Disk { what, path, source }
    }
}
