//! What the router counted during a release, in the form that the analysis reads. Sums only, so counts of
//! several routers merge by adding.

use serde::{Deserialize, Serialize};

/// Numbers of errors whose first reaching by a user is counted.
pub const REACHED: [u64; 3] = [1, 3, 10];
/// Quantiles of the old revision's answer times that become the limits, frozen when the release starts.
pub const QUANTILES: [f64; 6] = [0.5, 0.75, 0.9, 0.95, 0.99, 0.999];
/// Place of the 95th percentile among [`QUANTILES`]: the limit that a proof of health is about.
pub const P95: usize = 3;

/// All counts of one release. Traffic that was forced to one side (a header, an allow-list) must not be in
/// it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Epochs in order; each change of the weight opens one.
    pub epochs: Vec<EpochCounts>,
    /// Limits in microseconds, one for each quantile; empty where the old revision had too few answers.
    #[serde(default)]
    pub limits_us: Vec<u64>,
    /// Instances that had been healthy and exited or stopped answering; each change of the number of instances
    /// opens an interval.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exits: Vec<Exits>,
}

/// Exits while both revisions had so many instances.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exits {
    /// Instances of the old revision, and of the new one.
    pub instances: [u32; 2],
    /// Their exits.
    pub exits: [u64; 2],
}

/// Counts while the weight stood still.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct EpochCounts {
    /// Its number.
    pub epoch: u64,
    /// Share of users on the canary, in basis points.
    pub weight_bp: u16,
    /// The revision that served before.
    pub stable: ArmCounts,
    /// The new revision.
    pub canary: ArmCounts,
}

/// Counts of one arm in one epoch.
///
/// `reached` and `slow` count a user once in the whole release, in whichever arm and epoch it happened first.
/// Counting a user anew after a step would put everyone whom the old revision failed, too, on the canary's
/// account when they move.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ArmCounts {
    /// Different users seen in this epoch.
    pub subjects: u64,
    /// Requests.
    pub requests: u64,
    /// Requests that ended in an error.
    pub errors: u64,
    /// Users who reached 1, 3 and 10 errors.
    pub reached: [u64; 3],
    /// Users who met an answer above each limit; for the canary, above the limit times 1 + the allowance.
    #[serde(default)]
    pub slow: Vec<u64>,
    /// Users who came for the first time in the whole release.
    #[serde(default)]
    pub came: u64,
    /// Of those, users whose first answer lay above each limit.
    #[serde(default)]
    pub first_slow: Vec<u64>,
    /// Users who got a good answer (2xx) for the first time in the whole release.
    #[serde(default)]
    pub good: u64,
}

impl ArmCounts {
    /// Users whose first answer lay above limit `k - 1` and not above limit `k`.
    pub fn first_between(&self, k: usize) -> u64 {
        let above = |k: usize| self.first_slow.get(k).copied().unwrap_or(0);
        let from = if k == 0 { self.came } else { above(k - 1) };
        from.saturating_sub(above(k))
    }

    /// Users who met an answer above limit `k`.
    pub fn slow(&self, k: usize) -> u64 {
        self.slow.get(k).copied().unwrap_or(0)
    }
}

impl EpochCounts {
    /// Share of users on the canary, 0 to 1.
    pub fn weight(&self) -> f64 {
        f64::from(self.weight_bp) / 10_000.0
    }
}
