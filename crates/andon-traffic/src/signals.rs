//! Golden signals: what happened to whom, by service, revision and epoch. Types only; a plane fills them.
//!
//! Subjects are counted where requests are, because a user who fails ten times is one witness and not ten. Within one
//! release (one salt) a subject counts **once** for each level it reaches - its first, third, tenth error, its first
//! request slower than a threshold - in the epoch and arm where it reached it. So a change of weight never makes two
//! witnesses of one user.

use serde::{Deserialize, Serialize};

use crate::table::RevisionName;

/// Numbers of errors at which a subject is counted.
pub const ERROR_LEVELS: [u32; 3] = [1, 3, 10];

/// The side of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Arm {
    /// What served before.
    Stable,
    /// What users are being moved to.
    Candidate,
}

/// What is known of one service in one epoch. The weight and the counts belong together.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ServiceSignals {
    /// `project/environment/service`.
    pub service: String,
    /// As the route said.
    pub epoch: u64,
    /// The candidate's share of subjects in force, in basis points.
    pub weight_bp: u16,
    /// The release's salt; none while there is no candidate.
    pub salt: Option<String>,
    /// More subjects came than are told apart: `subjects` is an estimate, the levels count a random part.
    pub estimated: bool,
    /// The stable revision, then the candidate if there is one.
    pub arms: Vec<ArmSignals>,
}

/// What is known of one revision in one epoch.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ArmSignals {
    /// Which revision.
    pub revision: RevisionName,
    /// On which side.
    pub arm: Arm,
    /// Requests answered or failed; those that the client gave up are counted apart.
    pub requests: u64,
    /// Requests that the client gave up before an answer began.
    pub abandoned: u64,
    /// Distinct subjects that sent a request.
    pub subjects: u64,
    /// Requests that went wrong: 5xx, no connection, no answer in time, an answer that broke off.
    pub errors: u64,
    /// Subjects that reached 1, 3 and 10 errors here.
    pub reached_errors: [u64; 3],
    /// The thresholds in µs that were in force.
    pub slow_thresholds_us: Vec<u64>,
    /// Subjects that exceeded each threshold for the first time here.
    pub slow_subjects: Vec<u64>,
    /// Subjects that came for the first time in the whole release.
    pub came: u64,
    /// Of those, subjects whose first answer exceeded each threshold.
    pub first_slow: Vec<u64>,
    /// Subjects that got a 2xx for the first time in the whole release.
    pub good_subjects: u64,
    /// Answers by class: 1xx, 2xx, 3xx, 4xx, 5xx; the router's own 502 and 504 are among the last.
    pub status: [u64; 5],
    /// Connections that a backend refused or did not accept in time.
    pub connect_failures: u64,
    /// Answers that did not begin in time.
    pub timeouts: u64,
    /// Attempts after the first.
    pub retries: u64,
    /// Bytes of request bodies.
    pub bytes_in: u64,
    /// Bytes of response bodies.
    pub bytes_out: u64,
    /// Requests and tunnels of the revision under way now, over all epochs.
    pub in_flight: usize,
    /// Time until the answer began.
    pub latency: Latency,
}

/// A distribution of latencies in µs, within 0.1 %. Quantiles are 0 while nothing was measured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// How many.
    pub count: u64,
    /// Arithmetic mean.
    pub mean_us: f64,
    /// Half are faster.
    pub p50_us: u64,
    /// Three quarters are faster.
    pub p75_us: u64,
    /// 90 % are faster.
    pub p90_us: u64,
    /// 95 % are faster.
    pub p95_us: u64,
    /// 99 % are faster.
    pub p99_us: u64,
    /// 99.9 % are faster.
    pub p999_us: u64,
    /// The slowest.
    pub max_us: u64,
}
