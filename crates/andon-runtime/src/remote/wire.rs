//! What server and agent say to each other: the greeting, the questions, the troubles. Sends nothing.
//!
//! The greeting is a length of four bytes, most significant first, and so many bytes of JSON, once in each direction. A question is one
//! line of JSON in the body of a POST to `/PROJECT`; the answer is JSON too.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};

use andon_model::{Digest, EnvironmentName, HostName};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::error::RuntimeError;
use crate::{Isolation, Process, Spec};

/// What this version speaks.
pub const VERSION: u32 = 1;
/// The longest greeting, in bytes.
const GREETING_BYTES: u32 = 64 * 1024;
/// The longest question, in bytes.
pub(super) const ASK_BYTES: usize = 4 << 20;
/// The longest answer, in bytes.
pub(super) const ANSWER_BYTES: usize = 16 << 20;
/// The longest words of a trouble, in characters.
const WORDS: usize = 4_000;
/// Labels a host may have, and the longest of their names and values.
const LABELS: usize = 32;
const LABEL: usize = 100;

/// The agent's first words.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// What it speaks.
    pub version: u32,
    /// What separates instances there.
    pub isolation: Isolation,
    /// How it wants to come in.
    pub entry: Entry,
}

/// By what a machine comes in.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Entry {
    /// For the first time.
    Join {
        /// The secret part of its token.
        token: String,
        /// What it is to be called.
        name: HostName,
        /// Where its instances listen.
        address: IpAddr,
        /// What its owner says of it.
        labels: BTreeMap<String, String>,
        /// The digest of the secret that it will come back with.
        credential: Digest,
    },
    /// Again.
    Back {
        /// Its secret.
        secret: String,
    },
}

/// Secrets are not shown.
impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Entry::Join { name, address, .. } => write!(f, "Join({name}, {address})"),
            Entry::Back { .. } => f.write_str("Back"),
        }
    }
}

impl Entry {
    /// What cannot be taken over as it is.
    pub fn flaw(&self) -> Option<String> {
        let Entry::Join { address, labels, .. } = self else { return None };
        if address.is_unspecified() || address.is_multicast() {
            return Some(format!(
                "{address} is no address that users can be sent to\nhint: give --address with one of that machine"
            ));
        }
        let plain = |text: &String| {
            text.chars().count() <= LABEL && !text.chars().any(char::is_control) && !text.is_empty()
        };
        let good = labels.len() <= LABELS && labels.iter().all(|(key, value)| plain(key) && plain(value));
        (!good).then(|| {
            format!("its labels cannot be kept\nhint: at most {LABELS}, each of at most {LABEL} characters")
        })
    }
}

/// The server's first words.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Greeting {
    /// It is this host.
    Welcome(HostName),
    /// It is not let in.
    Refused(Refused),
}

/// Why a machine is not let in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// In words.
    pub why: String,
    /// It was a host and is none any more: what still runs there is to be ended.
    #[serde(default)]
    pub left: bool,
}

impl Refused {
    /// For this reason.
    pub fn because(why: impl Into<String>) -> Refused {
        Refused { why: why.into(), left: false }
    }
}

/// Says it.
pub(super) async fn say<T: Serialize>(to: &mut (impl AsyncWrite + Unpin), words: &T) -> io::Result<()> {
    let text = serde_json::to_vec(words)?;
    let length = u32::try_from(text.len()).ok().filter(|length| *length <= GREETING_BYTES);
    let length = length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "too long a greeting"))?;
    to.write_all(&length.to_be_bytes()).await?;
    to.write_all(&text).await?;
    to.flush().await
}

/// Hears it.
pub(super) async fn hear<T: DeserializeOwned>(from: &mut (impl AsyncRead + Unpin)) -> io::Result<T> {
    let length = from.read_u32().await?;
    if length > GREETING_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "what it says is no greeting"));
    }
    let mut text = vec![0; length as usize];
    from.read_exact(&mut text).await?;
    Ok(serde_json::from_slice(&text)?)
}

/// What is asked of a host for one project.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// An address for one more instance.
    Place {
        /// Its environment.
        environment: EnvironmentName,
        /// Those that are taken.
        used: BTreeSet<SocketAddr>,
    },
    /// The artifact follows as a tar.
    Prepare(Box<Spec>),
    /// Start it.
    Start(Box<Spec>),
    /// End it.
    Stop(String),
    /// End it and remove what is left.
    Remove(String),
    /// Every instance.
    List,
    /// The last lines of its output.
    Logs(String, usize),
    /// What differs from its artifact.
    Differences(String),
    /// What differs in its settings.
    Settings(String),
    /// Packages of the operating system that it sees.
    Packages(String),
    /// Instances whose files may have changed.
    Touched,
    /// Answered when the count is no longer this one, or after a while.
    Watch(u64),
    /// Processes without an instance.
    Foreign,
    /// Kill one of those.
    KillForeign(Process),
    /// Remove what an environment left.
    Clear(EnvironmentName),
}

/// A trouble on its way from a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wrong {
    /// See [`RuntimeError::BadId`].
    BadId(String),
    /// See [`RuntimeError::NotPrepared`].
    NotPrepared(String),
    /// See [`RuntimeError::Unknown`].
    Unknown(String),
    /// See [`RuntimeError::NotStarted`].
    NotStarted(String, String),
    /// See [`RuntimeError::NotStopped`].
    NotStopped(String, String),
    /// Any other.
    Other(String),
}

impl From<RuntimeError> for Wrong {
    fn from(error: RuntimeError) -> Wrong {
        match error {
            RuntimeError::BadId(id) => Wrong::BadId(id),
            RuntimeError::NotPrepared(id) => Wrong::NotPrepared(id),
            RuntimeError::Unknown(id) => Wrong::Unknown(id),
            RuntimeError::NotStarted { id, why } => Wrong::NotStarted(id, why),
            RuntimeError::NotStopped { id, why } => Wrong::NotStopped(id, why),
            other => Wrong::Other(other.to_string()),
        }
    }
}

impl Wrong {
    /// As the trouble of this host. Its words are cut: nobody else wrote them.
    pub(super) fn on(self, host: &HostName) -> RuntimeError {
        let cut = |text: String| -> String { text.chars().take(WORDS).collect() };
        let at = |why: String| format!("{} (on host {host})", cut(why));
        match self {
            Wrong::BadId(id) => RuntimeError::BadId(cut(id)),
            Wrong::NotPrepared(id) => RuntimeError::NotPrepared(cut(id)),
            Wrong::Unknown(id) => RuntimeError::Unknown(cut(id)),
            Wrong::NotStarted(id, why) => RuntimeError::NotStarted { id: cut(id), why: at(why) },
            Wrong::NotStopped(id, why) => RuntimeError::NotStopped { id: cut(id), why: at(why) },
            Wrong::Other(why) => RuntimeError::OnHost { host: host.to_string(), why: cut(why) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_greeting_is_heard_as_it_was_said_and_noise_is_refused() {
        let hello = Hello {
            version: VERSION,
            isolation: Isolation { has: vec!["memory limit".into()], lacks: vec![] },
            entry: Entry::Back { secret: "s".into() },
        };
        let mut said = Vec::new();
        say(&mut said, &hello).await.unwrap();
        assert_eq!(hear::<Hello>(&mut &said[..]).await.unwrap(), hello);
        for cut in 0..said.len() {
            assert!(hear::<Hello>(&mut &said[..cut]).await.is_err(), "{cut} bytes were enough");
        }
        for noise in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 64], &[0, 0, 0, 2, b'{', b'}'], b"\x16\x03\x01"]
        {
            assert!(hear::<Hello>(&mut &noise[..]).await.is_err(), "{noise:?}");
        }
    }

    #[test]
    fn an_address_that_is_none_and_labels_without_end_are_refused() {
        let entry = |address: [u8; 4], labels: BTreeMap<String, String>| Entry::Join {
            token: String::new(),
            name: "n1".parse().unwrap(),
            address: address.into(),
            labels,
            credential: Digest::of(b""),
        };
        assert_eq!(entry([10, 0, 0, 2], BTreeMap::from([("zone".into(), "a".into())])).flaw(), None);
        assert!(entry([0, 0, 0, 0], BTreeMap::new()).flaw().is_some());
        assert!(entry([224, 0, 0, 1], BTreeMap::new()).flaw().is_some());
        let long = BTreeMap::from([("a".repeat(101), "b".into())]);
        assert!(entry([10, 0, 0, 2], long).flaw().is_some());
        let odd = BTreeMap::from([("a".to_owned(), "\u{1b}[2J".to_owned())]);
        assert!(entry([10, 0, 0, 2], odd).flaw().is_some());
        let many = (0..33).map(|n| (n.to_string(), "b".to_owned())).collect();
        assert!(entry([10, 0, 0, 2], many).flaw().is_some());
    }

    #[test]
    fn a_secret_is_not_shown() {
        let entry = Entry::Back { secret: "andon_host_x".into() };
        assert!(!format!("{entry:?}").contains("andon_host_x"));
    }
}
