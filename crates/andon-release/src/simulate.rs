//! A seeded model of users, router and two revisions, to measure the analysis: false alarms, delay, bad
//! answers. No part of a running server.
//!
//! Users are sticky and heavy-tailed (Pareto), each assigned by a hash of the seed; the counts follow the
//! rules of [`crate::sample`].

use andon_model::strategy::Analysis as Settings;

use crate::analysis::{Outcome, judge};
use crate::sample::{ArmCounts, EpochCounts, QUANTILES, Sample};

/// A small generator (SplitMix64): the same seed gives the same numbers on every machine.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed(self.0)
    }

    /// Evenly from 0 to 1.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// From the normal distribution, near enough: twelve even numbers.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }
}

fn mixed(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Users with their shares of the requests, drawn in constant time (Vose's alias method).
#[derive(Debug, Clone)]
pub struct Users {
    keep: Vec<f64>,
    other: Vec<u32>,
}

impl Users {
    /// So many users, whose request shares follow a Pareto law with exponent 1.5.
    pub fn pareto(count: usize) -> Users {
        let weights: Vec<f64> =
            (0..count).map(|n| ((n as f64 + 0.5) / count as f64).powf(-1.0 / 1.5)).collect();
        let mean = weights.iter().sum::<f64>() / count as f64;
        let mut keep: Vec<f64> = weights.iter().map(|w| w / mean).collect();
        let mut other: Vec<u32> = (0..count as u32).collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) = (0..count).partition(|n| keep[*n] < 1.0);
        while let (Some(s), Some(&l)) = (small.pop(), large.last()) {
            other[s] = l as u32;
            keep[l] -= 1.0 - keep[s];
            if keep[l] < 1.0 {
                large.pop();
                small.push(l);
            }
        }
        Users { keep, other }
    }

    fn draw(&self, random: &mut Random) -> usize {
        let user = ((u128::from(random.bits()) * self.keep.len() as u128) >> 64) as usize;
        if random.unit() < self.keep[user] { user } else { self.other[user] as usize }
    }
}

/// What happens.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Requests in a second.
    pub per_second: f64,
    /// How long.
    pub seconds: u64,
    /// Weights in basis points, each from a second on.
    pub weights: Vec<(u64, u16)>,
    /// Share of requests that fail on the old revision, and on the new one.
    pub errors: [f64; 2],
    /// Share of users for whom everything fails, on the old revision, and on the new one.
    pub broken: [f64; 2],
    /// Answer times of the new revision as a multiple of the old one's (log-normal, sigma 0.6).
    pub slower: f64,
    /// Load that swings by half, and an error rate that both arms share and that wanders over two orders of
    /// magnitude.
    pub weather: bool,
    /// Stop at the first proof of health.
    pub until_certified: bool,
}

impl Scenario {
    /// 100 requests a second for an hour, 5 % of the users on a canary that is as good as the old revision.
    pub fn harmless() -> Scenario {
        Scenario {
            per_second: 100.0,
            seconds: 3_600,
            weights: vec![(0, 500)],
            errors: [0.005; 2],
            broken: [0.0; 2],
            slower: 1.0,
            weather: false,
            until_certified: false,
        }
    }
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ending {
    /// What the last look said.
    pub outcome: Outcome,
    /// After so many seconds.
    pub second: u64,
    /// Failed answers from the new revision until then.
    pub bad: u64,
}

/// Runs a scenario with a look each second until it is decided or over.
pub fn run(scenario: &Scenario, users: &Users, settings: &Settings, seed: u64) -> Ending {
    let mut random = Random::new(mixed(seed.wrapping_mul(0x2545_f491_4f6c_dd1d)));
    let salt = random.bits();
    let limits = limits(settings, scenario.slower);
    let mut known: Vec<Known> = vec![Known::default(); users.keep.len()];
    let mut sample = Sample { epochs: Vec::new(), limits_us: (1..=QUANTILES.len() as u64).collect() };
    let (mut bad, mut wander) = (0, 0.0f64);
    for second in 0..scenario.seconds {
        if let Some((_, weight_bp)) = scenario.weights.iter().find(|(from, _)| *from == second) {
            sample.epochs.push(opened(sample.epochs.len() as u64 + 1, *weight_bp));
        }
        wander = 0.99 * wander + 0.15 * random.normal();
        let weather = if scenario.weather { wander.exp() } else { 1.0 };
        let swing = if scenario.weather { 1.0 + 0.5 * (second as f64 / 400.0).sin() } else { 1.0 };
        for _ in 0..(scenario.per_second * swing) as u64 {
            let user = users.draw(&mut random);
            let Some(epoch) = sample.epochs.last_mut() else { continue };
            let place = mixed(salt ^ user as u64);
            let canary = place % 10_000 < u64::from(epoch.weight_bp);
            let arm = if canary { &mut epoch.canary } else { &mut epoch.stable };
            let broken = (mixed(place) >> 11) as f64 / (1u64 << 53) as f64;
            let side = usize::from(canary);
            let failed = broken < scenario.broken[side] || random.unit() < scenario.errors[side] * weather;
            bad += u64::from(failed && canary);
            let fast = random.unit();
            let slow = limits[side].iter().take_while(|limit| fast > **limit).count();
            known[user].count(arm, epoch.epoch as u8, failed, slow);
        }
        let outcome = judge(settings, &sample).outcome;
        let over =
            outcome == Outcome::Regression || (outcome == Outcome::Certified && scenario.until_certified);
        if over {
            return Ending { outcome, second: second + 1, bad };
        }
    }
    Ending { outcome: Outcome::Inconclusive, second: scenario.seconds, bad }
}

fn opened(epoch: u64, weight_bp: u16) -> EpochCounts {
    let arm = ArmCounts { slow: vec![0; QUANTILES.len()], ..ArmCounts::default() };
    EpochCounts { epoch, weight_bp, stable: arm.clone(), canary: arm }
}

/// What the router remembers of a user.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    epoch: u8,
    errors: u8,
    slow: u8,
}

impl Known {
    fn count(&mut self, arm: &mut ArmCounts, epoch: u8, failed: bool, slow: usize) {
        arm.requests += 1;
        if self.epoch != epoch {
            self.epoch = epoch;
            arm.subjects += 1;
        }
        if failed {
            arm.errors += 1;
            self.errors = self.errors.saturating_add(1);
            match self.errors {
                1 => arm.reached[0] += 1,
                3 => arm.reached[1] += 1,
                10 => arm.reached[2] += 1,
                _ => {}
            }
        }
        while usize::from(self.slow) < slow {
            arm.slow[usize::from(self.slow)] += 1;
            self.slow += 1;
        }
    }
}

/// For both arms: the quantile of its own answer times above which an answer counts as slow, by limit.
fn limits(settings: &Settings, slower: f64) -> [Vec<f64>; 2] {
    let allowed = settings.latency_p95.map_or(0.0, |l| l.worse_by.fraction());
    let shift = ((1.0 + allowed) / slower).ln() / 0.6;
    // Standard normal quantiles of QUANTILES.
    let places = [0.0, 0.674_490, 1.281_552, 1.644_854, 2.326_348, 3.090_232];
    let moved = |z: f64| 0.5 * (1.0 + statrs::function::erf::erf((z + shift) / std::f64::consts::SQRT_2));
    [QUANTILES.to_vec(), places.iter().map(|z| moved(*z)).collect()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn healthy_releases_are_left_alone_in_any_weather() {
        let users = Users::pareto(5_000);
        let scenario = Scenario {
            seconds: 900,
            weights: vec![(0, 500), (300, 2_500), (600, 5_000)],
            broken: [0.01; 2],
            weather: true,
            ..Scenario::harmless()
        };
        for seed in 0..40 {
            let ending = run(&scenario, &users, &Settings::default(), seed);
            assert_ne!(ending.outcome, Outcome::Regression, "seed {seed}: {ending:?}");
        }
    }

    #[test]
    fn ten_times_the_errors_is_found_within_two_minutes_and_a_few_bad_answers() {
        let users = Users::pareto(50_000);
        let scenario = Scenario { errors: [0.005, 0.05], seconds: 300, ..Scenario::harmless() };
        for seed in 0..20 {
            let ending = run(&scenario, &users, &Settings::default(), seed);
            assert_eq!(ending.outcome, Outcome::Regression, "seed {seed}: {ending:?}");
            assert!(ending.second < 200 && ending.bad < 50, "seed {seed}: {ending:?}");
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_ending() {
        let users = Users::pareto(5_000);
        let scenario = Scenario { errors: [0.005, 0.05], seconds: 120, ..Scenario::harmless() };
        assert_eq!(
            run(&scenario, &users, &Settings::default(), 7),
            run(&scenario, &users, &Settings::default(), 7)
        );
    }
}
