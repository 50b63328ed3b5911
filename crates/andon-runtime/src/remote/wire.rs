//! What server and agent say to each other: the agent's first words, the questions, the troubles. Sends nothing.
//!
//! A question is one line of JSON in the body of a POST to `/PROJECT`; the answer is JSON too.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use andon_model::{Digest, EnvironmentName, HostName};
use serde::{Deserialize, Serialize};

use crate::error::RuntimeError;
use crate::{Isolation, Process, Spec};

/// What this version speaks.
pub const VERSION: u32 = 1;
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
