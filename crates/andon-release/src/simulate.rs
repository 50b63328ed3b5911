//! A seeded model of users, router and two revisions, to measure the analysis: false alarms, delay, bad
//! answers. No part of a running server.
//!
//! Users are sticky and heavy-tailed (Pareto), each assigned by a hash of the seed; the counts follow the
//! rules of [`crate::sample`].

use andon_model::strategy::Analysis as Settings;

use crate::analysis::{Eye, Outcome, PLACES};
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
    /// Share of the new revision's requests that stall, above every limit.
    pub stalled: f64,
    /// Share of the new revision's requests that get no good answer, though no error either (302 in place of 200).
    pub lost: f64,
    /// Load that swings by half, an error rate that both arms share and that wanders over two orders of magnitude,
    /// and answer times that wander with it.
    pub weather: bool,
    /// Stop at the first proof of health, or go on with the next weight of the ramp.
    pub until_certified: bool,
    /// Weights in basis points that follow, each after a proof of health with the users of the one before.
    pub ramp: Vec<u16>,
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
            stalled: 0.0,
            lost: 0.0,
            ramp: Vec::new(),
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
    let mut world = World::new(scenario, users, settings, seed);
    let (mut eye, mut ramp) = (Eye::default(), scenario.ramp.iter());
    for second in 0..scenario.seconds {
        world.second();
        let judged = match scenario.until_certified {
            true => eye.judge(settings, &world.sample),
            false => eye.harm(settings, &world.sample),
        };
        let next = (judged.outcome == Outcome::Certified).then(|| ramp.next());
        if let Some(Some(weight_bp)) = next {
            world.turn_to(*weight_bp);
        } else if judged.outcome != Outcome::Inconclusive {
            return Ending { outcome: judged.outcome, second: second + 1, bad: world.bad };
        }
    }
    Ending { outcome: Outcome::Inconclusive, second: scenario.seconds, bad: world.bad }
}

/// Users, router and two revisions, second by second.
#[derive(Debug)]
pub struct World<'a> {
    scenario: &'a Scenario,
    users: &'a Users,
    random: Random,
    salt: u64,
    limits: [Vec<f64>; 2],
    known: Vec<Known>,
    wander: f64,
    now: u64,
    /// What the router counted.
    pub sample: Sample,
    /// Failed answers from the new revision.
    pub bad: u64,
}

impl<'a> World<'a> {
    /// At the start.
    pub fn new(scenario: &'a Scenario, users: &'a Users, settings: &Settings, seed: u64) -> World<'a> {
        let mut random = Random::new(mixed(seed.wrapping_mul(0x2545_f491_4f6c_dd1d)));
        let limits_us = (1..=QUANTILES.len() as u64).collect();
        World {
            salt: random.bits(),
            random,
            limits: limits(settings, scenario.slower),
            known: vec![Known::default(); users.keep.len()],
            sample: Sample { limits_us, ..Sample::default() },
            scenario,
            users,
            wander: 0.0,
            now: 0,
            bad: 0,
        }
    }

    /// From now on this share of the users is on the new revision.
    pub fn turn_to(&mut self, weight_bp: u16) {
        self.sample.epochs.push(opened(self.sample.epochs.len() as u64 + 1, weight_bp));
    }

    /// The requests of a second.
    pub fn second(&mut self) {
        let scenario = self.scenario;
        if let Some((_, weight_bp)) = scenario.weights.iter().find(|(from, _)| *from == self.now) {
            self.turn_to(*weight_bp);
        }
        self.wander = 0.99 * self.wander + 0.15 * self.random.normal();
        let weather = if scenario.weather { self.wander.exp() } else { 1.0 };
        let swing = if scenario.weather { 1.0 + 0.5 * (self.now as f64 / 400.0).sin() } else { 1.0 };
        self.now += 1;
        for _ in 0..(scenario.per_second * swing) as u64 {
            let user = self.users.draw(&mut self.random);
            let Some(epoch) = self.sample.epochs.last_mut() else { continue };
            let place = mixed(self.salt ^ user as u64);
            let canary = place % 10_000 < u64::from(epoch.weight_bp);
            let arm = if canary { &mut epoch.canary } else { &mut epoch.stable };
            let broken = (mixed(place) >> 11) as f64 / (1u64 << 53) as f64;
            let side = usize::from(canary);
            let failed =
                broken < scenario.broken[side] || self.random.unit() < scenario.errors[side] * weather;
            self.bad += u64::from(failed && canary);
            // Bad weather is slow, too: the same for both arms, from half to double the share above a limit.
            let fast = match scenario.weather {
                true => self.random.unit().powf((-0.3 * self.wander).exp()),
                false => self.random.unit(),
            };
            let mut slow = self.limits[side].iter().take_while(|limit| fast > **limit).count();
            if canary && scenario.stalled > 0.0 && self.random.unit() < scenario.stalled {
                slow = QUANTILES.len();
            }
            let lost = canary && scenario.lost > 0.0 && self.random.unit() < scenario.lost;
            self.known[user].count(arm, epoch.epoch as u8, failed, !failed && !lost, slow);
        }
    }
}

fn opened(epoch: u64, weight_bp: u16) -> EpochCounts {
    let none = || vec![0; QUANTILES.len()];
    let arm = ArmCounts { slow: none(), first_slow: none(), ..ArmCounts::default() };
    EpochCounts { epoch, weight_bp, stable: arm.clone(), canary: arm }
}

/// What the router remembers of a user.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    epoch: u8,
    errors: u8,
    slow: u8,
    good: bool,
}

impl Known {
    fn count(&mut self, arm: &mut ArmCounts, epoch: u8, failed: bool, good: bool, slow: usize) {
        arm.requests += 1;
        if self.epoch == 0 {
            arm.came += 1;
            arm.first_slow.iter_mut().take(slow).for_each(|count| *count += 1);
        }
        if good && !self.good {
            self.good = true;
            arm.good += 1;
        }
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
    let moved = |z: f64| 0.5 * (1.0 + statrs::function::erf::erf((z + shift) / std::f64::consts::SQRT_2));
    [QUANTILES.to_vec(), PLACES.iter().map(|z| moved(*z)).collect()]
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
