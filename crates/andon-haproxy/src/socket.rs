//! Words to HAProxy's runtime socket and its answers. Knows no meaning of either.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// For one answer.
const WITHIN: Duration = Duration::from_secs(2);
/// The longest answer that is read, in bytes.
const MOST: u64 = 32 << 20;

/// Why nothing was heard from HAProxy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SocketError {
    /// Nobody there.
    #[error(
        "HAProxy cannot be spoken to at {0}: {1}\nhint: is HAProxy running, does its configuration say `stats socket {0} level admin`, and may this user open it? Users go where they went before"
    )]
    Gone(PathBuf, String),
    /// It said no.
    #[error(
        "HAProxy refused `{0}`: {1}\nhint: its configuration has to be the one that `andon haproxy config` prints now; reload it"
    )]
    Refused(String, String),
}

/// One command, one answer. The command is one line without `;`, which HAProxy would take for a second one.
pub(crate) async fn ask(socket: &Path, command: &str) -> Result<String, SocketError> {
    let gone = |error: std::io::Error| SocketError::Gone(socket.to_owned(), error.to_string());
    let answer = async {
        let mut stream = UnixStream::connect(socket).await?;
        stream.write_all(format!("{command}\n").as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(MOST).read_to_end(&mut answer).await?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    match tokio::time::timeout(WITHIN, answer).await {
        Ok(answer) => answer.map_err(gone),
        Err(_) => Err(gone(std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer within 2 s"))),
    }
}

/// The same for a command that has nothing to say when it worked, but that an address was changed.
pub(crate) async fn tell(socket: &Path, command: &str) -> Result<(), SocketError> {
    let said = ask(socket, command).await?;
    let said = said.trim();
    let fine = said.is_empty() || said.contains("changed from") || said.starts_with("no need to change");
    if fine { Ok(()) } else { Err(SocketError::Refused(command.to_owned(), short(said))) }
}

fn short(said: &str) -> String {
    let line = said.lines().next().unwrap_or_default();
    line.chars().filter(|c| !c.is_control()).take(200).collect()
}
