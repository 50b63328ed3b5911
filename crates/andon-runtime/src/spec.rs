//! The files of an instance's directory: what is to run, how it is. Read by servers of other versions too: fields are
//! only added, with a default.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use andon_model::{Digest, EnvironmentName, Limits, Span, Time};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::process::Process;

/// Bytes of a log file before it is set aside.
const LOG_BYTES: u64 = 16 * 1024 * 1024;
/// Log files kept beside the current one.
const LOG_KEEP: u32 = 2;

/// What is to run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// Unique on this host; the name of its directory.
    pub instance: String,
    /// Whose it is: project, environment, service, revision. Not read by the runtime.
    pub labels: BTreeMap<String, String>,
    /// Program and arguments; `$PORT` and `${PORT}` in them stand for the port, `$HOST` for the address to listen on. No shell
    /// reads it.
    pub command: Vec<String>,
    /// Its environment, beside PATH, HOME, LANG, TMPDIR and PORT.
    pub env: BTreeMap<String, String>,
    /// Where it runs, relative to its release directory; empty: there itself.
    pub workdir: String,
    /// Where it is to listen.
    pub port: u16,
    /// The address it listens on; none: loopback.
    #[serde(default)]
    pub address: Option<IpAddr>,
    /// The one address of the host itself that it binds to; none: as `address` says.
    #[serde(default)]
    pub bind: Option<IpAddr>,
    /// Its environment: instances of one may share a network.
    #[serde(default)]
    pub environment: Option<EnvironmentName>,
    /// Its artifact.
    #[serde(default)]
    pub artifact: Option<Digest>,
    /// What the artifact is put on, where instances are containers; none: nothing.
    #[serde(default)]
    pub image: Option<String>,
    /// What it may use.
    #[serde(default)]
    pub limits: Limits,
    /// Paths below its release directory that it may write.
    #[serde(default)]
    pub writes: Vec<String>,
    /// From the request to end until it is ended.
    pub stop_within: Span,
    /// Bytes of a log file before it is set aside.
    #[serde(default = "log_bytes")]
    pub log_bytes: u64,
    /// Log files kept beside the current one.
    #[serde(default = "log_keep")]
    pub log_keep: u32,
}

fn log_bytes() -> u64 {
    LOG_BYTES
}

fn log_keep() -> u32 {
    LOG_KEEP
}

impl Spec {
    /// A spec without labels or environment, stopped within 10 s.
    pub fn new(instance: &str, command: &[&str], port: u16) -> Spec {
        Spec {
            instance: instance.to_owned(),
            labels: BTreeMap::new(),
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            env: BTreeMap::new(),
            workdir: String::new(),
            port,
            address: None,
            bind: None,
            environment: None,
            artifact: None,
            image: None,
            limits: Limits::default(),
            writes: Vec::new(),
            stop_within: Span::secs(10),
            log_bytes: LOG_BYTES,
            log_keep: LOG_KEEP,
        }
    }

    /// The command with the port in its place, and the address.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let (host, port) = (self.listens_on().to_string(), self.port.to_string());
        let filled = |word: &String| with(&with(word, "PORT", &port), "HOST", &host);
        self.command.iter().map(filled).collect()
    }

    /// What it binds to: loopback, or, with an address of its own, every address that it has.
    pub(crate) fn listens_on(&self) -> IpAddr {
        match self.address {
            _ if self.bind.is_some() => self.bind.unwrap_or(Ipv4Addr::LOCALHOST.into()),
            None => Ipv4Addr::LOCALHOST.into(),
            Some(_) => Ipv4Addr::UNSPECIFIED.into(),
        }
    }
}

/// `$PORT` is replaced where the name ends there: `$PORTAL` stays.
fn with(word: &str, name: &str, value: &str) -> String {
    let (braced, plain) = (format!("${{{name}}}"), format!("${name}"));
    let whole = word.replace(&braced, value);
    let mut parts = whole.split(&plain);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let longer = part.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        out.push_str(if longer { &plain } else { value });
        out.push_str(part);
    }
    out
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// By itself, with this status.
    Code(i32),
    /// By a signal.
    Signal(i32),
    /// Killed by the kernel, because it used more memory than its limit; in bytes, if it had one of its own.
    OutOfMemory(Option<u64>),
    /// It never ran.
    NotStarted(String),
    /// Its shim was killed, or the host went down: nobody saw how it ended.
    Unseen,
}

/// A clause to put after the instance's name.
impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Exit::Code(code) => write!(f, "ended with status {code}"),
            Exit::Signal(9) => f.write_str("was killed (signal 9)"),
            Exit::Signal(signal) => write!(f, "was ended by signal {signal}"),
            Exit::OutOfMemory(Some(limit)) => {
                write!(f, "was killed: it used more memory than its limit of {} MiB", limit / (1024 * 1024))
            }
            Exit::OutOfMemory(None) => f.write_str("was killed: memory ran out"),
            Exit::NotStarted(why) => write!(f, "did not start: {why}"),
            Exit::Unseen => f.write_str("ended unseen: its supervisor was killed or the host went down"),
        }
    }
}

/// How it is, as its shim writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    /// The shim itself.
    pub shim: Process,
    /// The command's process; none before it was started.
    pub main: Option<Process>,
    /// When the shim began.
    pub started_at: Time,
    /// How the command ended, once everything it started is gone too.
    pub exit: Option<Exit>,
}

pub(crate) const SPEC: &str = "spec.json";
pub(crate) const STATE: &str = "state.json";
pub(crate) const LOCK: &str = "lock";
pub(crate) const LOG: &str = "log";
pub(crate) const RELEASE: &str = "release";
pub(crate) const MANIFEST: &str = "manifest.json";

/// Reads a file; none if it is not there.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes a file that only its owner reads, wholly or not at all.
pub(crate) fn write<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    static UNIQUE: AtomicU64 = AtomicU64::new(0);
    let unique = UNIQUE.fetch_add(1, Ordering::Relaxed);
    let beside = path.with_extension(format!("new-{}-{unique}", std::process::id()));
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(&serde_json::to_vec(value)?)?;
    std::fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_put_where_it_is_asked_for_and_nowhere_else() {
        for (word, want) in [
            ("--port=$PORT", "--port=8080"),
            ("${PORT}0", "80800"),
            ("$PORTAL", "$PORTAL"),
            ("$PORT_2", "$PORT_2"),
            ("$PORT:$PORT", "8080:8080"),
            ("$HOME", "$HOME"),
        ] {
            assert_eq!(with(word, "PORT", "8080"), want);
        }
    }

    #[test]
    fn a_command_listens_on_loopback_unless_it_has_an_address_of_its_own() {
        let mut spec = Spec::new("i1", &["serve", "--bind=$HOST:$PORT", "$HOSTNAME"], 81);
        assert_eq!(spec.arguments(), ["serve", "--bind=127.0.0.1:81", "$HOSTNAME"]);
        spec.address = Some(Ipv4Addr::new(10, 0, 0, 7).into());
        assert_eq!(spec.arguments(), ["serve", "--bind=0.0.0.0:81", "$HOSTNAME"]);
    }

    #[test]
    fn a_spec_of_an_older_server_is_still_read() {
        let old = r#"{"instance":"i1","labels":{},"command":["x"],"env":{},"workdir":"","port":1,"stop_within":"10s"}"#;
        assert_eq!(serde_json::from_str::<Spec>(old).unwrap(), Spec::new("i1", &["x"], 1));
    }
}
