//! What server and runner say to each other: the agent's first words, the questions, the answers. Sends nothing.
//!
//! A question is a POST to `/VERB` whose body begins with one line of JSON; behind it may come a tar in zstd. The answer begins with a line of
//! JSON as well where there is one. The status says what went wrong: 404 it has no such attempt, 409 another assignment has its place.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use andon_model::{Digest, LabelName, ProjectName, RunnerName};
use andon_sandbox::{Bounds, Means};
use serde::{Deserialize, Serialize};

use crate::order::{End, Order, Step, StepEnd};

/// What this version speaks.
pub const VERSION: u32 = 1;
/// The longest line of a question, in bytes: the steps of a job and its secrets are in it.
pub(super) const ASK_BYTES: u64 = 8 << 20;
/// The longest answer that is not a parcel, in bytes.
pub(super) const ANSWER_BYTES: usize = 16 << 20;
/// Bytes of output in one answer.
pub(super) const PIECE: u64 = 1 << 20;
/// The longest name of an attempt, and of what an agent says of a trouble.
const NAME: usize = 120;
/// Labels a runner may have.
const LABELS: usize = 32;
/// Jobs that a machine runs at once, at most.
const SLOTS: u32 = 1_000;

/// The agent's first words.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Hello {
    /// What it speaks.
    pub version: u32,
    /// What its machine permits to separate jobs with.
    pub means: Means,
    /// Where its agent keeps things, for reports that name files by where they were.
    pub dir: PathBuf,
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
        name: RunnerName,
        /// What jobs may ask for.
        labels: Vec<LabelName>,
        /// Jobs at once.
        slots: u32,
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
            Entry::Join { name, slots, .. } => write!(f, "Join({name}, {slots})"),
            Entry::Back { .. } => f.write_str("Back"),
        }
    }
}

impl Entry {
    /// What cannot be taken over as it is.
    pub fn flaw(&self) -> Option<String> {
        let Entry::Join { labels, slots, .. } = self else { return None };
        if labels.len() > LABELS {
            return Some(format!("a runner has at most {LABELS} labels\nhint: give fewer --label"));
        }
        let many = *slots == 0 || *slots > SLOTS;
        many.then(|| format!("a runner takes 1 to {SLOTS} jobs at once\nhint: give --slots"))
    }
}

/// An assignment of an attempt to a runner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Which {
    /// Whose it is.
    pub project: ProjectName,
    /// Unique in its project, and good as the name of a directory.
    pub attempt: String,
    /// The number of the assignment; one with a lower number is stale.
    pub number: u64,
}

impl Which {
    /// Whether its name may become that of a directory.
    pub(super) fn is_sound(&self) -> bool {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
        self.attempt.len() <= NAME
            && self.attempt.bytes().all(plain)
            && self.attempt.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
            && !self.attempt.contains("..")
    }
}

/// What is to be run: an order without the places of a machine.
#[derive(Clone, Serialize, Deserialize)]
pub struct Work {
    pub(super) steps: Vec<Step>,
    pub(super) env: BTreeMap<String, String>,
    /// Variables whose values are paths below the attempt's room.
    pub(super) paths: BTreeMap<String, String>,
    pub(super) timeout_ms: u64,
    pub(super) quiet_ms: Option<u64>,
    pub(super) grace_ms: u64,
    pub(super) secrets: Vec<String>,
    pub(super) log_limit: u64,
    pub(super) limits: Bounds,
    pub(super) network: bool,
    #[serde(default)]
    pub(super) image: Option<String>,
    /// It asks for the container engine.
    pub(super) docker: bool,
    /// It is of trunk: its home is not that of changes.
    pub(super) landed: bool,
    /// What its output begins with.
    pub(super) said: String,
}

impl Work {
    /// The same as this order. Values of its environment that are paths below its room become those of the machine's own room.
    pub fn of(order: &Order, landed: bool, docker: bool, said: String) -> Work {
        let below = |value: &String| {
            let path = Path::new(value).strip_prefix(&order.room).ok()?;
            path.to_str().map(str::to_owned)
        };
        let (mut env, mut paths) = (BTreeMap::new(), BTreeMap::new());
        for (name, value) in &order.env {
            match below(value) {
                Some(path) => drop(paths.insert(name.clone(), path)),
                None => drop(env.insert(name.clone(), value.clone())),
            }
        }
        Work {
            steps: order.steps.clone(),
            env,
            paths,
            timeout_ms: order.timeout.0,
            quiet_ms: order.quiet.map(|quiet| quiet.0),
            grace_ms: order.grace.0,
            secrets: order.secrets.clone(),
            log_limit: order.log_limit,
            limits: order.limits,
            network: order.network,
            image: order.image.clone(),
            docker,
            landed,
            said,
        }
    }
}

/// Run this; its room follows.
#[derive(Serialize, Deserialize)]
pub(super) struct Begin {
    pub which: Which,
    pub work: Work,
}

/// What is new of an attempt, behind so many steps and bytes of output?
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Ask {
    pub which: Which,
    pub steps: u32,
    pub log: u64,
}

/// What is new. Behind it come bytes of output.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Progress {
    pub steps: Vec<StepEnd>,
    pub log: u64,
    /// Said once all steps and all output are.
    pub end: Option<End>,
}

/// Send what these patterns name in the working copy.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Take {
    pub which: Which,
    pub patterns: Vec<String>,
}

/// An attempt that a runner has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Has {
    /// Which.
    pub which: Which,
    /// Nothing of it runs any more.
    pub over: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_could_lead_elsewhere_is_none() {
        let of =
            |attempt: &str| Which { project: "shop".parse().unwrap(), attempt: attempt.into(), number: 1 };
        assert!(of("R1-unit-3.11-1").is_sound());
        for bad in ["", "..", ".a", "a/b", "a/../b", "-x", "a b", &"a".repeat(121)] {
            assert!(!of(bad).is_sound(), "{bad:?}");
        }
    }

    #[test]
    fn a_secret_is_not_shown_and_what_cannot_be_meant_is_refused() {
        let entry = Entry::Back { secret: "andon_runner_x".into() };
        assert!(!format!("{entry:?}").contains("andon_runner_x"));
        let join = |slots, labels: usize| Entry::Join {
            token: "t".into(),
            name: "r1".parse().unwrap(),
            labels: (0..labels).map(|n| n.to_string().parse().unwrap()).collect(),
            slots,
            credential: Digest::of(b""),
        };
        assert_eq!(join(4, 32).flaw(), None);
        assert!(
            join(0, 1).flaw().is_some() && join(1_001, 1).flaw().is_some() && join(1, 33).flaw().is_some()
        );
    }
}
