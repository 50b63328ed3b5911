//! The immune system's judgement: one pure function from counts to an outcome, with everything it rests on.
//! Words are in `explain`.
//!
//! One alpha covers the whole release: all evidence is mixed with weights that depend on nothing that was
//! seen.

use andon_model::strategy::Analysis as Settings;
use serde::{Deserialize, Serialize};

use std::sync::LazyLock;

use crate::evidence::{self, Grid, Labels, Nats, Remembered, Share};
use crate::sample::{ArmCounts, EpochCounts, P95, QUANTILES, REACHED, Sample};

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
const STRICT: ([f64; 3], [f64; 3]) = ([0.94, 0.03, 0.03], [0.0; 3]);
const ALLOWING: ([f64; 3], [f64; 3]) = ([0.25, 0.05, 0.0], [0.50, 0.10, 0.10]);
/// Weights of what is watched: errors, latency, good answers, who comes, exits. The last three are loud where they
/// happen at all, so that little weight does.
const WEIGHTS: [f64; 5] = [0.72, 0.25, 0.01, 0.01, 0.01];
/// Of latency's weight, the part of the test on first answers; the limits share the rest.
const FIRST: f64 = 0.5;
/// Good answers may come to this many times as many users before it is called a loss: a slow start delays the
/// first ones.
const GOOD: f64 = 0.9;
/// Who comes may differ by this factor from what the weight says: a proxy in front rounds it.
const COMING: f64 = 1.25;

/// Ratios for users with errors.
static HARM: LazyLock<Grid> = LazyLock::new(Grid::harm);
/// Ratios for good answers lost, and for users who do not come.
static LOST: LazyLock<Grid> = LazyLock::new(|| Grid::new(0.01, 0.7, 12));
static FEWER: LazyLock<Grid> = LazyLock::new(|| Grid::new(0.01, 0.7, 12));
/// Ratios for users above each limit: what few are above can rise by more.
static LEVELS: LazyLock<Vec<Grid>> = LazyLock::new(|| {
    let top = |q: f64| 0.8 / (1.0 - q);
    QUANTILES
        .iter()
        .map(|q| Grid::new(1.1 + 6.0 * q.powi(200), top(*q).clamp(1.8, 80.0), if *q > 0.99 { 3 } else { 6 }))
        .collect()
});
/// Standard normal quantiles of [`QUANTILES`].
pub(crate) const PLACES: [f64; 6] = [0.0, 0.674_490, 1.281_552, 1.644_854, 2.326_348, 3.090_232];
/// What slower first answers look like: all of them shifted, or some of them stalled.
static STORIES: LazyLock<Vec<Vec<Grid>>> = LazyLock::new(|| (0..=QUANTILES.len()).map(stories).collect());

/// The part of limit `k` of so many: the highest ones find answers that stall, and first answers say little of those.
fn of_limit(k: usize, limits: usize) -> f64 {
    match limits - k {
        _ if limits < 3 => 1.0 / limits as f64,
        1 => 0.5,
        2 => 0.14,
        _ => 0.36 / (limits - 2) as f64,
    }
}

/// For every place between two neighbouring limits, of so many limits: how many times as likely a first answer is
/// there, story by story.
fn stories(limits: usize) -> Vec<Grid> {
    let above = |shift: f64| {
        let normal = |z: f64| 0.5 * statrs::function::erf::erfc((z - shift) / std::f64::consts::SQRT_2);
        let above: Vec<f64> =
            std::iter::once(1.0).chain(PLACES[..limits].iter().map(|z| normal(*z))).chain([0.0]).collect();
        above.windows(2).map(|pair| pair[0] - pair[1]).collect::<Vec<f64>>()
    };
    let usual = above(0.0);
    let shifted = [0.2, 0.45, 1.0].map(|shift| {
        let ratios: Vec<f64> = above(shift).iter().zip(&usual).map(|(now, before)| now / before).collect();
        ratios
    });
    let stalled = [0.02].into_iter().flat_map(|part| {
        (limits.saturating_sub(1)..limits).map(move |k| {
            let beyond = 1.0 - part + part / (1.0 - QUANTILES[k]);
            (0..=limits).map(|at| if at > k { beyond } else { 1.0 - part }).collect()
        })
    });
    let stories: Vec<Vec<f64>> = shifted.into_iter().chain(stalled).collect();
    (0..=limits).map(|place| Grid::of(stories.iter().map(|story| story[place]).collect())).collect()
}

/// How sure the baseline's rate is when the allowance is turned into a ratio. An equal canary is safe
/// whatever the rate is; this is about one that is worse by nearly the allowance, so it need not cost much.
const TOLERANCE: Nats = Nats(1.0);
/// Of a proof of health, the part of the ratio of the arms; the canary's own share has the rest.
const RATIO: f64 = 0.92;
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
    /// Users who got a good answer at all: fewer is worse.
    Good,
    /// Users who come, against the share that was asked for: more or fewer, and the comparison is worth nothing.
    Coming,
    /// Instances that exited.
    Exits,
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

/// Judges the counts.
pub fn judge(settings: &Settings, sample: &Sample) -> Judgement {
    Eye::default().judge(settings, sample)
}

/// Judges one release again and again: remembers what a look needs of the one before. The same counts give the
/// same judgement bit for bit, whatever was seen before.
#[derive(Debug, Clone, Default)]
pub struct Eye {
    errors: [Remembered; 3],
    levels: [Remembered; QUANTILES.len()],
    first: [Remembered; QUANTILES.len() + 1],
    good: Remembered,
    coming: [Remembered; 2],
    exits: Remembered,
}

impl Eye {
    /// Judges the counts.
    pub fn judge(&mut self, settings: &Settings, sample: &Sample) -> Judgement {
        self.see(settings, sample, true)
    }

    /// The same without asking for health: never certified.
    pub fn harm(&mut self, settings: &Settings, sample: &Sample) -> Judgement {
        self.see(settings, sample, false)
    }

    fn see(&mut self, settings: &Settings, sample: &Sample, health: bool) -> Judgement {
        let asked = [settings.errors.is_some(), settings.latency_p95.is_some()];
        let watched = [asked[0], asked[1], asked[0], asked[0] || asked[1], asked[0]];
        // Fixed by the settings alone: what is not watched leaves its weight to the others.
        let sum: f64 = WEIGHTS.iter().zip(watched).filter(|(_, on)| *on).map(|(weight, _)| weight).sum();
        let weight = |k: usize| WEIGHTS[k] / sum;
        let epochs = &sample.epochs;
        let mut findings = Vec::with_capacity(5);
        if let Some(allowed) = settings.errors {
            findings.push(self.errors(epochs, allowed.worse_by.fraction(), weight(0), health));
        }
        if settings.latency_p95.is_some() {
            findings.push(self.latency(epochs, sample.limits_us.len(), weight(1), health));
        }
        let silent =
            |metric, k: usize, harm| Finding { metric, weight: weight(k), harm, health: None, below: 0.0 };
        if watched[2] {
            let good = labels(epochs, |arm| arm.good);
            findings.push(silent(Metric::Good, 2, evidence::below_again(&mut self.good, &good, GOOD, &LOST)));
        }
        if watched[3] {
            let came = labels(epochs, |arm| arm.came);
            let more = evidence::worse_again(&mut self.coming[0], &came, COMING, &HARM);
            let fewer = evidence::below_again(&mut self.coming[1], &came, 1.0 / COMING, &FEWER);
            findings.push(silent(Metric::Coming, 3, evidence::log_mean([(0.5, more), (0.5, fewer)])));
        }
        if watched[4] {
            let exits = exits(sample);
            let harm = evidence::worse_again(&mut self.exits, &exits, 1.0, &HARM);
            findings.push(silent(Metric::Exits, 4, harm));
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
}

/// Exits by revision: the next one is the canary's as its share of the instances says.
pub(crate) fn exits(sample: &Sample) -> Vec<Labels> {
    let one = |e: &crate::sample::Exits| {
        let [stable, canary] = e.instances.map(f64::from);
        Labels { weight: canary / (stable + canary).max(1.0), canary: e.exits[1], stable: e.exits[0] }
    };
    sample.exits.iter().map(one).collect()
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

impl Eye {
    fn errors(&mut self, epochs: &[EpochCounts], allowed: f64, weight: f64, ask: bool) -> Finding {
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
                let (canary, stable) = (share(&epoch.canary, k), share(&epoch.stable, k));
                if canary.hit == 0 {
                    return (weight, f64::NEG_INFINITY);
                }
                let limit = evidence::bound(stable, TOLERANCE, true) + allowed_users(epoch, allowed);
                (weight, evidence::worse_by_shares(canary, stable, limit))
            });
            [
                (by_labels[k], evidence::worse_again(&mut self.errors[k], &labels, tolerated, &HARM)),
                (by_shares[k], evidence::log_mean(by_epoch)),
            ]
        });
        let tests = tests.filter(|(weight, _)| *weight > 0.0);
        let harm = evidence::log_mean(tests.collect::<Vec<_>>());
        let Some(now) = epochs.last().filter(|e| ask && e.weight_bp < 10_000) else {
            return Finding { metric: Metric::Errors, weight, harm, health: None, below: CERTIFIED_BELOW };
        };
        let (health, below) = errors_healthy(now, allowed);
        Finding { metric: Metric::Errors, weight, harm, health: Some(health), below }
    }

    /// The allowance needs nothing here: the router counts the canary's users above limits that are already
    /// longer by it.
    fn latency(&mut self, epochs: &[EpochCounts], limits: usize, weight: f64, ask: bool) -> Finding {
        let metric = Metric::Latency;
        let limits = limits.min(QUANTILES.len());
        if limits == 0 {
            return Finding { metric, weight, harm: f64::NEG_INFINITY, health: None, below: CERTIFIED_BELOW };
        }
        let by_limit =
            self.levels.iter_mut().zip(LEVELS.iter()).take(limits).enumerate().map(|(k, (memory, grid))| {
                let labels = labels(epochs, |arm| arm.slow(k));
                ((1.0 - FIRST) * of_limit(k, limits), evidence::worse_again(memory, &labels, 1.0, grid))
            });
        let kinds: Vec<Vec<Labels>> =
            (0..=limits).map(|k| labels(epochs, |arm| arm.first_between(k))).collect();
        let first = evidence::worse_by_kinds(&mut self.first, &kinds, &STORIES[limits]);
        let harm = evidence::log_mean(by_limit.chain([(FIRST, first)]));
        let asked = labels(epochs, |arm| arm.slow(P95.min(limits - 1)));
        let health = ask.then(|| evidence::below_by_labels(&asked, CERTIFIED_BELOW));
        Finding { metric, weight, harm, health, below: CERTIFIED_BELOW }
    }
}

/// The share of users that meets an error when each error is `ratio` times as likely, where `share` of them
/// does now. Less than `ratio` times as many, since nobody meets the first error twice.
fn users_hit(share: f64, ratio: f64) -> f64 {
    -(ratio * (-share).ln_1p()).exp_m1()
}

/// Evidence of health from the users of one epoch, and the ratio that it is about.
///
/// Most of it bounds the ratio of the arms, the rest the canary's own share. A canary that is `below` times as
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
    (evidence::log_mean([(RATIO, by_ratio), (1.0 - RATIO, by_share)]), ratio)
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
            ..ArmCounts::default()
        };
        EpochCounts { epoch: 1, weight_bp, canary: arm(canary), stable: arm(stable) }
    }

    pub(crate) fn sample(weight_bp: u16, canary: (u64, u64), stable: (u64, u64)) -> Sample {
        Sample { epochs: vec![epoch(weight_bp, canary, stable)], ..Sample::default() }
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
        assert_eq!(outcome(&sample(500, (1_300, 0), (25_000, 0))), Outcome::Certified);
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
            outcome(&Sample { epochs: vec![first, second], ..Sample::default() }),
            Outcome::Regression
        );
    }

    #[test]
    fn the_allowance_holds_for_users_with_several_errors_as_well() {
        let arm = |errors, reached| ArmCounts {
            subjects: 60_000,
            requests: 300_000,
            errors,
            reached,
            ..ArmCounts::default()
        };
        let (stable, canary) = (arm(1_500, [1_440, 24, 0]), arm(3_000, [2_790, 180, 4]));
        let twice = Sample {
            epochs: vec![EpochCounts { epoch: 1, weight_bp: 5_000, stable, canary }],
            ..Sample::default()
        };
        assert_ne!(outcome(&twice), Outcome::Regression);
        let strict = Settings {
            errors: Some(andon_model::strategy::WorseBy { worse_by: andon_model::Percent::from_ppm(0) }),
            ..Settings::default()
        };
        assert_eq!(judge(&strict, &twice).outcome, Outcome::Regression);
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
