//! Smart HTTP: git's two services, run per request. Knows who pushes only as a name to hand to the hook.
//! Protocol: git's `Documentation/gitprotocol-http`.

use std::process::Stdio;

use tokio::process::Child;

use crate::repository::git;
use crate::{GitError, Repository};

/// Which of git's two services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// Fetching.
    UploadPack,
    /// Pushing.
    ReceivePack,
}

impl Service {
    /// From the name in a request.
    pub fn named(name: &str) -> Option<Service> {
        match name {
            "git-upload-pack" => Some(Service::UploadPack),
            "git-receive-pack" => Some(Service::ReceivePack),
            _ => None,
        }
    }

    /// The name in requests and media types.
    pub fn name(self) -> &'static str {
        match self {
            Service::UploadPack => "git-upload-pack",
            Service::ReceivePack => "git-receive-pack",
        }
    }
}

/// What the hook of a push needs to find its way back to the server.
#[derive(Debug, Clone)]
pub struct Way {
    /// The server's socket.
    pub socket: std::path::PathBuf,
    /// Good for this one push.
    pub key: String,
}

/// The `protocol` header as git may see it: only the versions that exist.
fn version(header: Option<&str>) -> Option<&'static str> {
    match header {
        Some("version=2") => Some("version=2"),
        Some("version=1") => Some("version=1"),
        _ => None,
    }
}

/// The answer to `GET …/info/refs?service=…`.
pub async fn advertise(
    repository: &Repository,
    service: Service,
    protocol: Option<&str>,
) -> Result<Vec<u8>, GitError> {
    let mut command = git(repository.dir());
    if let Some(version) = version(protocol) {
        command.env("GIT_PROTOCOL", version);
    }
    command.args([&service.name()[4..], "--stateless-rpc", "--http-backend-info-refs"]).arg(repository.dir());
    let out = command.output().await.map_err(GitError::Absent)?;
    if !out.status.success() {
        let words = String::from_utf8_lossy(&out.stderr).into_owned();
        return Err(GitError::Failed { command: service.name().into(), words });
    }
    // A client of version 2 expects no service line for fetching, yet accepts it; older ones need it.
    let line = format!("# service={}\n", service.name());
    let mut answer = format!("{:04x}{line}0000", line.len() + 4).into_bytes();
    answer.extend(out.stdout);
    Ok(answer)
}

/// Starts the service for one `POST`: the body goes to its stdin, its stdout is the answer. It is killed when dropped.
pub fn start(
    repository: &Repository,
    service: Service,
    protocol: Option<&str>,
    way: Option<&Way>,
) -> Result<Child, GitError> {
    let mut command = git(repository.dir());
    if let Some(version) = version(protocol) {
        command.env("GIT_PROTOCOL", version);
    }
    if let Some(way) = way {
        command.env(crate::hook::SOCKET, &way.socket).env(crate::hook::KEY, &way.key);
    }
    command.args([&service.name()[4..], "--stateless-rpc"]).arg(repository.dir());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().map_err(GitError::Absent)
}
