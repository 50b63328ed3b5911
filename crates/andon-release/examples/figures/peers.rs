//! The rules of others on the same requests as ours: what each would have said, minute by minute. Nothing of it
//! decides a release.
//!
//! Sources: Argo Rollouts 1.9 (analysis: a measurement fails when its success condition does not hold; more failures
//! than `failureLimit` end the release), Flagger 1.4x (a check below the threshold of `request-success-rate` counts;
//! `threshold` failed checks end it), IMVU's cluster immune system (one look after a minute, then everyone),
//! Kayenta's judge (`andon_release::kayenta`) over one point a minute.

use andon_model::strategy::{Analysis, Percent, WorseBy};
use andon_release::analysis::Eye;
use andon_release::kayenta::{Class, Direction, Rule, Series, classify};
use andon_release::simulate::{Scenario, Users, World};

/// Share of good answers that Argo's and Flagger's rules ask for.
const SUCCESS: f64 = 0.99;

/// A rule of somebody, with its setting.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Judge {
    /// Ours, with 1/alpha.
    Ours(f64),
    /// With `failureLimit`.
    Argo(u32),
    /// With `threshold`.
    Flagger(u32),
    /// With the standard score that counts as significant.
    Imvu(f64),
    /// From so many points on.
    Kayenta(usize),
}

impl Judge {
    /// All rules and settings that are compared.
    pub fn all() -> Vec<Judge> {
        let ours = [100.0, 1_000.0].map(Judge::Ours);
        let argo = [0, 1, 3, 5].map(Judge::Argo);
        let flagger = [1, 2, 5, 10].map(Judge::Flagger);
        let imvu = [1.645, 2.326, 3.09].map(Judge::Imvu);
        let kayenta = [3, 5, 10, 50].map(Judge::Kayenta);
        ours.into_iter().chain(argo).chain(flagger).chain(imvu).chain(kayenta).collect()
    }

    /// As people say it.
    pub fn name(self) -> String {
        match self {
            Judge::Ours(odds) => format!("Andon, alpha {} %", 100.0 / odds),
            Judge::Argo(limit) => format!("Argo Rollouts, failureLimit {limit}"),
            Judge::Flagger(threshold) => format!("Flagger, threshold {threshold}"),
            Judge::Imvu(z) => format!("IMVU, one look, z {z}"),
            Judge::Kayenta(points) => format!("Kayenta each minute from {points} points on"),
        }
    }
}

/// What was counted in a minute: requests and errors of the old and the new revision.
#[derive(Debug, Clone, Copy, Default)]
struct Minute([(u64, u64); 2]);

fn rate((requests, errors): (u64, u64)) -> Option<f64> {
    (requests > 0).then(|| errors as f64 / requests as f64)
}

/// The second in which each judge takes the release back, over one story; none where it never does.
pub fn run(scenario: &Scenario, users: &Users, seed: u64, judges: &[Judge]) -> Vec<Option<u64>> {
    let errors = Some(WorseBy { worse_by: Percent::from_ppm(0) });
    let settings = Analysis { errors, latency_p95: None, ..Analysis::default() };
    let mut world = World::new(scenario, users, &settings, seed);
    let (mut eye, mut said) = (Eye::default(), vec![None; judges.len()]);
    let (mut minutes, mut before) = (Vec::<Minute>::new(), Minute::default());
    for second in 1..=scenario.seconds {
        world.second();
        let harm = eye.harm(&settings, &world.sample).harm;
        if second % 60 == 0 {
            let mut sums = Minute::default();
            for epoch in &world.sample.epochs {
                for (sum, arm) in sums.0.iter_mut().zip([&epoch.stable, &epoch.canary]) {
                    *sum = (sum.0 + arm.requests, sum.1 + arm.errors);
                }
            }
            let fresh = |side: usize| (sums.0[side].0 - before.0[side].0, sums.0[side].1 - before.0[side].1);
            minutes.push(Minute([fresh(0), fresh(1)]));
            before = sums;
        }
        for (judge, said) in judges.iter().zip(&mut said).filter(|(_, said)| said.is_none()) {
            let bad = match judge {
                Judge::Ours(odds) => harm >= odds.ln(),
                judge => second % 60 == 0 && worse(*judge, &minutes),
            };
            *said = bad.then_some(second);
        }
        if said.iter().all(Option::is_some) {
            break;
        }
    }
    said
}

fn worse(judge: Judge, minutes: &[Minute]) -> bool {
    let failed = || {
        let good = |minute: &&Minute| rate(minute.0[1]).is_some_and(|rate| 1.0 - rate < SUCCESS);
        minutes.iter().filter(good).count() as u32
    };
    match judge {
        Judge::Ours(_) => false,
        Judge::Argo(limit) => failed() > limit,
        Judge::Flagger(threshold) => failed() >= threshold,
        Judge::Imvu(least) => minutes.len() == 1 && z(minutes[0]) > least,
        Judge::Kayenta(points) => minutes.len() >= points && kayenta(minutes) == Class::High,
    }
}

/// Standard score of the difference of two shares.
fn z(Minute([stable, canary]): Minute) -> f64 {
    let (Some(low), Some(high)) = (rate(stable), rate(canary)) else { return 0.0 };
    let pooled = (stable.1 + canary.1) as f64 / (stable.0 + canary.0) as f64;
    let spread = (pooled * (1.0 - pooled) * (1.0 / stable.0 as f64 + 1.0 / canary.0 as f64)).sqrt();
    if spread > 0.0 { (high - low) / spread } else { 0.0 }
}

fn kayenta(minutes: &[Minute]) -> Class {
    let of = |side: usize| {
        minutes.iter().map(|m| rate(m.0[side]).map_or(f64::NAN, |rate| 100.0 * rate)).collect::<Vec<f64>>()
    };
    let rule = Rule { direction: Direction::Increase, ..Rule::default() };
    classify(&Series { name: "errors".into(), group: "errors".into(), rule, canary: of(1), baseline: of(0) })
        .class
}
