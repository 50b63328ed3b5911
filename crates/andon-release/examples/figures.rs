//! Measures the immune system by simulation and prints one JSON object a line: name, value, unit, bar,
//! better, met.
//!
//! `cargo run --release -p andon-release --example figures [TRIALS]`; TRIALS scales all counts (1,000 healthy
//! releases by default).
#![allow(clippy::print_stdout, reason = "this program's product is its output")]

use andon_model::strategy::{Analysis, Percent, WorseBy};
use andon_release::analysis::Outcome;
use andon_release::simulate::{Ending, Scenario, Users, run};

fn main() {
    let trials = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(1_000u64);
    let some = (trials / 5).max(20);
    let (many, few) = (Users::pareto(50_000), Users::pareto(5_000));
    let usual = Analysis::default();
    let strict = Analysis { errors: Some(WorseBy { worse_by: Percent::from_ppm(0) }), ..usual.clone() };

    let back = |endings: &[Ending]| share(endings, Outcome::Regression);
    let aa = endings(trials, &Scenario::harmless(), &many, &strict);
    figure("healthy releases taken back, nothing allowed", 100.0 * back(&aa), "%", Some(0.3));
    figure("the same, upper end (Wilson, 95 %)", 100.0 * wilson(&aa), "%", None);
    let aa = endings(trials, &Scenario::harmless(), &many, &usual);
    figure("healthy releases taken back, 0.5 points allowed", 100.0 * back(&aa), "%", Some(0.3));
    let steps = vec![(0, 500), (600, 2_500), (1_200, 5_000)];
    let rough = Scenario { weights: steps, broken: [0.01; 2], weather: true, ..Scenario::harmless() };
    let aa = endings(trials, &rough, &few, &strict);
    figure(
        "healthy releases taken back, rough weather, 1 % broken users, steps",
        100.0 * back(&aa),
        "%",
        Some(0.3),
    );

    let worse = |to: f64| Scenario { errors: [0.005, to], seconds: 1_800, ..Scenario::harmless() };
    for (users, count, bar) in [(&many, "50,000", 30.0), (&few, "5,000", 40.0)] {
        for (settings, allowed) in [(&strict, "nothing allowed"), (&usual, "0.5 points allowed")] {
            let found = endings(some, &worse(0.05), users, settings);
            let name = |what: &str| format!("errors 0.5 to 5 %, {count} users, 5 %, {allowed}: {what}");
            let bar = (allowed == "nothing allowed").then_some(bar);
            figure(&name("taken back, median"), quantile(&found, 0.5, |e| e.second), "s", bar);
            figure(&name("taken back, p95"), quantile(&found, 0.95, |e| e.second), "s", bar.map(|_| 90.0));
            figure(
                &name("bad answers, median"),
                quantile(&found, 0.5, |e| e.bad),
                "answers",
                bar.map(|_| 10.0),
            );
        }
    }
    for (users, count) in [(&many, "50,000"), (&few, "5,000")] {
        let allowed = Scenario { errors: [0.005, 0.01], ..Scenario::harmless() };
        let found = endings(some, &allowed, users, &usual);
        figure(
            &format!("errors 0.5 to 1 %, 0.5 points allowed, {count} users: taken back in an hour"),
            100.0 * back(&found),
            "%",
            Some(5.0),
        );
    }
    let found = endings(some, &worse(0.02), &many, &strict);
    figure(
        "errors 0.5 to 2 %, 50,000 users: taken back, median",
        quantile(&found, 0.5, |e| e.second),
        "s",
        Some(200.0),
    );
    let slow = Scenario { slower: 1.5, seconds: 1_800, ..Scenario::harmless() };
    let found = endings(some, &slow, &many, &usual);
    figure(
        "answers 1.5 times as slow, 20 % allowed: taken back, median",
        quantile(&found, 0.5, |e| e.second),
        "s",
        Some(60.0),
    );
    let clean = Scenario { errors: [0.0, 1.0], seconds: 60, ..Scenario::harmless() };
    let found = endings(some, &clean, &many, &usual);
    figure(
        "a canary that always fails beside a clean revision: median",
        quantile(&found, 0.5, |e| e.second),
        "s",
        Some(5.0),
    );

    let mut ramp = 0.0;
    for (weight, bar) in [(500, 420.0), (2_500, 143.0), (5_000, 127.0)] {
        let healthy = Scenario { weights: vec![(0, weight)], until_certified: true, ..Scenario::harmless() };
        let proven = endings(some, &healthy, &many, &usual);
        let name = format!("healthy canary at {} % proven healthy, median", weight / 100);
        figure(&name, quantile(&proven, 0.5, |e| e.second), "s", Some(bar));
        ramp += quantile(&proven, 0.5, |e| e.second);
        let name = format!("healthy canary at {} % not proven within an hour", weight / 100);
        figure(&name, 100.0 * (1.0 - share(&proven, Outcome::Certified)), "%", Some(5.0));
    }
    figure(
        "healthy canary from 5 over 25 and 50 % to everyone by proof, sum of medians",
        ramp,
        "s",
        Some(600.0),
    );
    for (times, canary_errors) in [("2.2", 0.011), ("3", 0.015)] {
        let worse =
            Scenario { errors: [0.005, canary_errors], until_certified: true, ..Scenario::harmless() };
        for (users, count) in [(&many, "50,000"), (&few, "5,000")] {
            let wrong = endings(some, &worse, users, &usual);
            let name = format!("canary with {times} times the errors, {count} users: certified by mistake");
            figure(&name, 100.0 * share(&wrong, Outcome::Certified), "%", Some(5.0));
        }
    }
}

/// Two halves at once: each seed stands alone.
/// Far from the seeds that weights and grids were tuned on: what was tuned on a story says little about it.
const FRESH: u64 = 1_000_000;

fn endings(trials: u64, scenario: &Scenario, users: &Users, settings: &Analysis) -> Vec<Ending> {
    let half = |from: u64| {
        (from..trials).step_by(2).map(|seed| run(scenario, users, settings, FRESH + seed)).collect::<Vec<_>>()
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(|| half(1));
        let mut all = half(0);
        all.extend(other.join().unwrap_or_default());
        all
    })
}

fn share(endings: &[Ending], outcome: Outcome) -> f64 {
    endings.iter().filter(|e| e.outcome == outcome).count() as f64 / endings.len() as f64
}

/// The upper end of the share taken back.
fn wilson(endings: &[Ending]) -> f64 {
    let (n, p, z) = (endings.len() as f64, share(endings, Outcome::Regression), 1.96);
    (p + z * z / (2.0 * n) + z * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt()) / (1.0 + z * z / n)
}

fn quantile(endings: &[Ending], q: f64, value: impl Fn(&Ending) -> u64) -> f64 {
    let mut values: Vec<u64> = endings.iter().map(value).collect();
    values.sort_unstable();
    values[((values.len() - 1) as f64 * q).round() as usize] as f64
}

/// All of these are better when lower. Without a bar nothing is claimed.
fn figure(name: &str, value: f64, unit: &str, bar: Option<f64>) {
    let met = bar.map(|bar| value <= bar);
    println!(
        "{}",
        serde_json::json!({ "name": name, "value": value, "unit": unit, "bar": bar, "better": "lower", "met": met })
    );
}
