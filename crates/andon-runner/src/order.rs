//! What is to be run and how it ended, as the server says and hears it. Runs nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;

use andon_model::Span;
use andon_sandbox::Bounds;
use serde::{Deserialize, Serialize};

/// An attempt of a job: steps, one after the other, in one working copy.
#[derive(Debug, Clone)]
pub struct Order {
    /// Unique among all attempts of the server; what they have on the host is named after it.
    pub name: String,
    /// The attempt's own directory, which is there: its record is kept in it, and everything else of it that is nobody's business.
    pub room: PathBuf,
    /// The commands.
    pub steps: Vec<Step>,
    /// The working copy.
    pub workdir: PathBuf,
    /// The whole environment of every step.
    pub env: BTreeMap<String, String>,
    /// Stopped after this.
    pub timeout: Span,
    /// Stopped when it printed nothing for this long.
    pub quiet: Option<Span>,
    /// Time between asking it to end and killing it.
    pub grace: Span,
    /// Values that are not to be seen in the log, in no form.
    pub secrets: Vec<String>,
    /// Gets all output as it comes.
    pub log: PathBuf,
    /// Bytes of output after which it is stopped, so that it cannot fill the disk.
    pub log_limit: u64,
    /// What all its processes may use together.
    pub limits: Bounds,
    /// It runs in a container of this image; none: in a sandbox of this machine's own.
    pub image: Option<String>,
    /// Whether it reaches others than itself.
    pub network: bool,
    /// What it may read beside the system, its working copy and the tools on its PATH.
    pub reads: Vec<PathBuf>,
    /// What it may write beside its working copy and its temporary files.
    pub writes: Vec<PathBuf>,
}

/// One command of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What people call it.
    pub name: String,
    /// Given to `sh -e -c` as it stands: it comes from the repository, nothing is put into it.
    pub script: String,
    /// What its environment has beside the attempt's.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// The attempt is stopped when it takes longer; in milliseconds.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
    /// It is not waited for: it runs beside the steps behind it, and the step is over when it can be reached.
    #[serde(default)]
    pub service: Option<Service>,
}

/// What runs beside the steps until the attempt ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// The variable in which it and the steps behind it find its port.
    pub variable: String,
    /// The port that it listens on, on the loopback address; none: one that is free.
    #[serde(default)]
    pub port: Option<u16>,
    /// Milliseconds in which it has to listen.
    pub within_ms: u64,
}

/// How a step or a whole attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// By itself, with this status; 128 + n for signal n.
    Exited(i32),
    /// Stopped after this time, in milliseconds.
    TimedOut(u64),
    /// Stopped because it printed nothing for this long, in milliseconds.
    Quiet(u64),
    /// Stopped because nobody needs it any more.
    Cancelled,
    /// Killed by the kernel, because it used more memory than its limit; in bytes, if it had one.
    OutOfMemory(Option<u64>),
    /// Stopped because it printed more than this, in bytes.
    TooMuchOutput(u64),
    /// Not by what it did: it never began, or what held it is gone.
    Broken(String),
}

/// A step that ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepEnd {
    /// Counts from 1.
    pub step: u32,
    /// What people call it.
    pub name: String,
    /// How.
    pub end: End,
    /// How long it took.
    pub took: Span,
    /// Where its output begins in the log, in bytes.
    pub log_at: u64,
}
