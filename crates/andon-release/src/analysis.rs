//! The immune system's judgement: one pure function from counts to an outcome, with everything it rests on.
//! Words are in `explain`.
//!
//! One alpha covers the whole release: all evidence is mixed with weights that depend on nothing that was
//! seen.

use andon_model::strategy::Analysis as Settings;
use serde::{Deserialize, Serialize};

use crate::evidence::{self, Labels, Nats, Share};
use crate::sample::{ArmCounts, EpochCounts, P95, REACHED, Sample};

/// Chance of certifying a revision that is worse than allowed.
pub const BETA: f64 = 0.05;
/// A proof of health says "less than twice as often" where the allowance asks for no more.
const CERTIFIED_BELOW: f64 = 2.0;
/// Where the allowance is smaller than this, a baseline without errors still lets health be proven at this
/// share.
const LEAST_ALLOWANCE: f64 = 0.001;
/// Weights of the tests for users with 1, 3 and 10 errors, by labels and by shares. The first of each finds
/// most; the others find a few users for whom all fails. Without an allowance the labels do it all; an
/// allowance weakens them where the old revision has few errors, and there the shares find what they miss.
const STRICT: ([f64; 3], [f64; 3]) = ([0.90, 0.06, 0.04], [0.0; 3]);
const ALLOWING: ([f64; 3], [f64; 3]) = ([0.25, 0.05, 0.0], [0.50, 0.10, 0.10]);
/// Weights of errors and latency where both are watched.
const METRICS: [f64; 2] = [0.75, 0.25];

/// How sure the baseline's rate is when the allowance is turned into a ratio. An equal canary is safe
/// whatever the rate is; this is about one that is worse by nearly the allowance, so it need not cost much.
const TOLERANCE: Nats = Nats(1.0);
/// How sure the baseline's rate is in a proof of health.
const PROOF: Nats = Nats(2.0);

/// What a look says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Proven worse than allowed.
    Regression,
    /// Proven not worse than allowed, from this step's users.
    Certified,
    /// Neither: more users are needed.
    Inconclusive,
}

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Users who met an error.
    Errors,
    /// Users who met a slow answer.
    Latency,
}

/// Evidence on one metric, in natural logarithms.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Finding {
    /// Which.
    pub metric: Metric,
    /// Its weight in the whole.
    pub weight: f64,
    /// That the canary is worse than allowed.
    pub harm: f64,
    /// That it is not; none where the metric cannot be asked.
    pub health: Option<f64>,
    /// The bound that the proof of health is about: "less than so many times as often".
    pub below: f64,
}

/// A look without words.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgement {
    /// By metric.
    pub findings: Vec<Finding>,
    /// That the canary is worse, over all metrics: logarithm.
    pub harm: f64,
    /// What it says.
    pub outcome: Outcome,
}

impl Judgement {
    /// Whether every metric that can be asked is proven healthy.
    pub fn healthy(&self) -> bool {
        let proven = |f: &Finding| f.health.is_none_or(|health| health >= -BETA.ln());
        self.findings.iter().any(|f| f.health.is_some()) && self.findings.iter().all(proven)
    }
}

/// Evidence needed to take a release back, as a logarithm.
pub fn harm_needed(settings: &Settings) -> f64 {
    -settings.alpha.fraction().max(1e-9).ln()
}

/// Judges the counts. Costs about 1,000 exponentials an epoch.
pub fn judge(settings: &Settings, sample: &Sample) -> Judgement {
    let both = settings.errors.is_some() && settings.latency_p95.is_some();
    let weight = |k: usize| if both { METRICS[k] } else { 1.0 };
    let mut findings = Vec::with_capacity(2);
    if let Some(allowed) = settings.errors {
        findings.push(errors(&sample.epochs, allowed.worse_by.fraction(), weight(0)));
    }
    if settings.latency_p95.is_some() {
        findings.push(latency(&sample.epochs, sample.limits_us.len(), weight(1)));
    }
    let harm = evidence::log_mean(findings.iter().map(|f| (f.weight, f.harm)));
    let mut judgement = Judgement { findings, harm, outcome: Outcome::Inconclusive };
    if harm >= harm_needed(settings) {
        judgement.outcome = Outcome::Regression;
    } else if judgement.healthy() {
        judgement.outcome = Outcome::Certified;
    }
    judgement
}

/// Labels of one kind of event, by epoch.
pub(crate) fn labels(epochs: &[EpochCounts], count: impl Fn(&ArmCounts) -> u64) -> Vec<Labels> {
    let one =
        |e: &EpochCounts| Labels { weight: e.weight(), canary: count(&e.canary), stable: count(&e.stable) };
    epochs.iter().map(one).collect()
}

fn share(arm: &ArmCounts, k: usize) -> Share {
    // A router that counts a user's error just before the user itself must not make a share above 1.
    Share { of: arm.subjects.max(arm.reached[k]), hit: arm.reached[k] }
}

/// Requests of a user in this epoch, at least 1.
fn each(epoch: &EpochCounts) -> f64 {
    let requests = (epoch.stable.requests + epoch.canary.requests) as f64;
    (requests / (epoch.stable.subjects + epoch.canary.subjects).max(1) as f64).max(1.0)
}

/// The allowance of requests as an allowance of users: those who would meet an error in the requests that a
/// user made here and had not met one anyway. An upper end: where a few users make most requests, fewer
/// would.
fn allowed_users(epoch: &EpochCounts, allowed: f64) -> f64 {
    (1.0 - share(&epoch.stable, 0).rate()) * -(-allowed * each(epoch)).exp_m1()
}

/// How many times as often an error may be met: 1 + the allowance over a lower end of the old revision's
/// rate. The rate is the smaller one of errors by requests and of what its users met, so that a few users for
/// whom all fails do not use up the allowance.
fn tolerated(epochs: &[EpochCounts], allowed: f64) -> f64 {
    if allowed == 0.0 {
        return 1.0;
    }
    let by_requests = evidence::bound(requests(epochs), TOLERANCE, false);
    let by_users =
        |e: &EpochCounts| -(-evidence::bound(share(&e.stable, 0), TOLERANCE, false)).ln_1p() / each(e);
    1.0 + allowed / epochs.iter().map(by_users).fold(0.0, f64::max).min(by_requests)
}

fn requests<'a>(epochs: impl IntoIterator<Item = &'a EpochCounts>) -> Share {
    let add = |sum: Share, e: &EpochCounts| Share {
        of: sum.of + e.stable.requests,
        hit: sum.hit + e.stable.errors,
    };
    epochs.into_iter().fold(Share { of: 0, hit: 0 }, add)
}

fn errors(epochs: &[EpochCounts], allowed: f64, weight: f64) -> Finding {
    let (by_labels, by_shares) = if allowed == 0.0 { STRICT } else { ALLOWING };
    let tolerated = tolerated(epochs, allowed);
    let tests = (0..3).flat_map(|k| {
        let labels = labels(epochs, |arm| arm.reached[k]);
        // A user has three errors as often as the cube of the ratio says.
        let tolerated = tolerated.powi(REACHED[k] as i32);
        // Each epoch starts its own test on shares, since users who moved make the shares of two epochs
        // incomparable; the weights 1/2, 1/6, 1/12, … sum to 1 however many follow.
        let by_epoch = epochs.iter().enumerate().filter(|_| by_shares[k] > 0.0).map(move |(n, epoch)| {
            let weight = 1.0 / ((n + 1) * (n + 2)) as f64;
            let stable = share(&epoch.stable, k);
            let limit = evidence::bound(stable, TOLERANCE, true) + allowed_users(epoch, allowed);
            (weight, evidence::worse_by_shares(share(&epoch.canary, k), stable, limit))
        });
        [
            (by_labels[k], evidence::worse_by_labels(&labels, tolerated)),
            (by_shares[k], evidence::log_mean(by_epoch)),
        ]
    });
    let tests = tests.filter(|(weight, _)| *weight > 0.0);
    let harm = evidence::log_mean(tests.collect::<Vec<_>>());
    let Some(now) = epochs.last().filter(|e| e.weight_bp < 10_000) else {
        return Finding { metric: Metric::Errors, weight, harm, health: None, below: CERTIFIED_BELOW };
    };
    let (health, below) = errors_healthy(now, allowed);
    Finding { metric: Metric::Errors, weight, harm, health: Some(health), below }
}

/// The share of users that meets an error when each error is `ratio` times as likely, where `share` of them
/// does now. Less than `ratio` times as many, since nobody meets the first error twice.
fn users_hit(share: f64, ratio: f64) -> f64 {
    -(ratio * (-share).ln_1p()).exp_m1()
}

/// Evidence of health from the users of one epoch, and the ratio that it is about.
///
/// Half of it bounds the ratio of the arms, half the canary's own share. A canary that is `below` times as
/// bad breaks both bounds, so their mean is evidence against exactly that.
fn errors_healthy(now: &EpochCounts, allowed: f64) -> (f64, f64) {
    let allowed = allowed.max(LEAST_ALLOWANCE);
    let baseline = share(&now.stable, 0);
    let ratio = (1.0 + allowed / evidence::bound(requests([now]), PROOF, true)).max(CERTIFIED_BELOW);
    let met = evidence::bound(baseline, PROOF, true).clamp(1e-9, 1.0 - 1e-9);
    let of_users = users_hit(met, ratio) / met;
    let by_ratio =
        evidence::below_by_labels(&labels(std::slice::from_ref(now), |arm| arm.reached[0]), of_users);
    // Where errors came, what the same users would have met with the allowance on top is known better.
    let observed = (baseline.rate(), 1.0 + allowed / requests([now]).rate());
    let in_proportion = users_hit(observed.0, observed.1) - observed.0;
    let allowed = allowed_users(now, allowed);
    let allowed = if in_proportion > 0.0 { allowed.min(in_proportion) } else { allowed };
    let by_share = evidence::below(share(&now.canary, 0), evidence::bound(baseline, PROOF, false) + allowed);
    (evidence::log_mean([(0.5, by_ratio), (0.5, by_share)]), ratio)
}

/// The allowance needs nothing here: the router counts the canary's users above limits that are already
/// longer by it.
fn latency(epochs: &[EpochCounts], limits: usize, weight: f64) -> Finding {
    let metric = Metric::Latency;
    if limits == 0 {
        return Finding { metric, weight, harm: f64::NEG_INFINITY, health: None, below: CERTIFIED_BELOW };
    }
    let by_limit = (0..limits).map(|k| evidence::worse_by_labels(&labels(epochs, |arm| arm.slow(k)), 1.0));
    let harm = evidence::log_mean(by_limit.map(|log| (1.0 / limits as f64, log)));
    let asked = labels(epochs, |arm| arm.slow(P95.min(limits - 1)));
    Finding {
        metric,
        weight,
        harm,
        health: Some(evidence::below_by_labels(&asked, CERTIFIED_BELOW)),
        below: CERTIFIED_BELOW,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// One epoch: weight in basis points, then users and users with an error of the canary and of the
    /// baseline.
    pub(crate) fn epoch(weight_bp: u16, canary: (u64, u64), stable: (u64, u64)) -> EpochCounts {
        let arm = |(subjects, hit): (u64, u64)| ArmCounts {
            subjects,
            requests: subjects,
            errors: hit,
            reached: [hit, 0, 0],
            slow: Vec::new(),
        };
        EpochCounts { epoch: 1, weight_bp, canary: arm(canary), stable: arm(stable) }
    }

    pub(crate) fn sample(weight_bp: u16, canary: (u64, u64), stable: (u64, u64)) -> Sample {
        Sample { epochs: vec![epoch(weight_bp, canary, stable)], limits_us: Vec::new() }
    }

    fn outcome(sample: &Sample) -> Outcome {
        judge(&Settings::default(), sample).outcome
    }

    #[test]
    fn a_canary_with_ten_times_the_errors_is_taken_back_and_an_equal_one_is_certified() {
        assert_eq!(outcome(&sample(500, (400, 20), (7_600, 38))), Outcome::Regression);
        assert_eq!(outcome(&sample(500, (4_000, 20), (76_000, 380))), Outcome::Certified);
    }

    #[test]
    fn no_data_and_little_data_say_nothing() {
        assert_eq!(outcome(&Sample::default()), Outcome::Inconclusive);
        assert_eq!(outcome(&sample(500, (0, 0), (5_000, 2))), Outcome::Inconclusive);
        assert_eq!(outcome(&sample(500, (60, 0), (1_100, 0))), Outcome::Inconclusive);
        assert_eq!(outcome(&sample(500, (60, 1), (1_100, 0))), Outcome::Inconclusive);
    }

    #[test]
    fn a_clean_baseline_neither_hides_harm_nor_forbids_a_proof_of_health() {
        assert_eq!(outcome(&sample(500, (12, 12), (230, 0))), Outcome::Regression);
        assert_eq!(outcome(&sample(500, (900, 0), (17_000, 0))), Outcome::Certified);
    }

    #[test]
    fn at_full_weight_nobody_is_left_to_compare_with() {
        assert_eq!(outcome(&sample(10_000, (9_000, 0), (0, 0))), Outcome::Inconclusive);
    }

    #[test]
    fn users_who_moved_and_fail_everywhere_are_no_evidence_against_the_canary() {
        // 1 % fail for good: counted once, in the arm where it happened first, they are 5 % on the canary's
        // side.
        let first = epoch(500, (2_500, 25), (47_500, 475));
        let second = epoch(2_500, (12_500, 0), (37_500, 0));
        assert_ne!(
            outcome(&Sample { epochs: vec![first, second], limits_us: Vec::new() }),
            Outcome::Regression
        );
    }

    #[test]
    fn slow_answers_alone_take_a_release_back() {
        let mut slow = sample(500, (500, 2), (9_500, 40));
        slow.limits_us = vec![1; 6];
        slow.epochs[0].stable.slow = vec![5_000, 3_000, 1_500, 800, 190, 19];
        slow.epochs[0].canary.slow = vec![263, 158, 79, 42, 30, 20];
        let judged = judge(&Settings::default(), &slow);
        assert_eq!(judged.outcome, Outcome::Regression);
        assert!(judged.findings[1].harm > judged.findings[0].harm);
    }
}
