//! Measures the immune system by simulation and prints one JSON object a line: name, value, unit, bar,
//! better, met.
//!
//! `cargo run --release -p andon-release --example figures [RUNS] [PART…]`: RUNS healthy releases of an hour (10,000 by
//! default); the parts are `alarms`, `found`, `proven` and `peers` (all by default).
#![allow(clippy::print_stdout, reason = "this program's product is its output")]

use std::collections::BTreeMap;

use andon_model::strategy::{Analysis, Percent, WorseBy};
use andon_release::analysis::Outcome;
use andon_release::simulate::{Ending, Scenario, Users, run};

use crate::peers::Judge;

mod peers;

/// Releases of each story of harm and of health.
const SOME: u64 = 600;

fn main() {
    let mut args = std::env::args().skip(1);
    let trials = args.next().and_then(|n| n.parse().ok()).unwrap_or(10_000u64);
    let parts: Vec<String> = args.collect();
    let asked = |part: &str| parts.is_empty() || parts.iter().any(|asked| asked == part);
    let (many, few) = (Users::pareto(50_000), Users::pareto(5_000));
    if asked("alarms") {
        alarms(trials, &many, &few);
    }
    if asked("found") {
        found(&many, &few);
    }
    if asked("proven") {
        proven(&many, &few);
    }
    if asked("peers") {
        compared(&many);
    }
}

/// As `andon.yaml` says without a word of it; nothing allowed for errors; nothing allowed at all.
fn settings() -> [Analysis; 3] {
    let none = Some(WorseBy { worse_by: Percent::from_ppm(0) });
    let usual = Analysis::default();
    let strict = Analysis { errors: none, ..usual.clone() };
    [usual, strict.clone(), Analysis { latency_p95: none, ..strict }]
}

/// Healthy releases of an hour.
fn alarms(trials: u64, many: &Users, few: &Users) {
    let [usual, _, strict] = settings();
    let back = |endings: &[Ending]| share(endings, Outcome::Regression);
    let steps = vec![(0, 500), (1_200, 2_500), (2_400, 5_000)];
    let rough = Scenario { weights: steps, broken: [0.01; 2], weather: true, ..Scenario::harmless() };
    let aa = endings(trials, &rough, few, &strict);
    let name = format!(
        "{trials} healthy releases of an hour, a look each second, nothing allowed, load that swings, weights that change, correlated errors and answer times, sticky heavy users, 1 % for whom all fails: taken back"
    );
    figure(&name, 100.0 * back(&aa), "%", Some(0.2));
    figure("the same, upper end (Wilson, 95 %)", 100.0 * wilson(&aa), "%", Some(0.2));
    let fewer = (trials / 10).max(20);
    for (settings, allowed) in [(&strict, "nothing allowed"), (&usual, "the usual allowance")] {
        let aa = endings(fewer, &Scenario::harmless(), many, settings);
        let name = format!("{fewer} healthy releases of an hour in fair weather, {allowed}: taken back");
        figure(&name, 100.0 * back(&aa), "%", Some(0.3));
    }
}

/// Worse releases: after how long, and at which price.
fn found(many: &Users, few: &Users) {
    let [usual, strict, strictest] = settings();
    let back = |endings: &[Ending]| share(endings, Outcome::Regression);
    let some = SOME;

    let worse = |to: f64| Scenario { errors: [0.005, to], seconds: 1_800, ..Scenario::harmless() };
    for (users, count, bar) in [(many, "50,000", [30.0, 8.0]), (few, "5,000", [40.0, 10.0])] {
        for (settings, allowed) in [(&strict, "nothing allowed"), (&usual, "0.5 points allowed")] {
            let found = endings(some, &worse(0.05), users, settings);
            let name = |what: &str| format!("errors 0.5 to 5 %, {count} users, 5 %, {allowed}: {what}");
            let bar = (allowed == "nothing allowed").then_some(bar);
            figure(
                &name("taken back, median"),
                quantile(&found, 0.5, |e| e.second),
                "s",
                bar.map(|bar| bar[0]),
            );
            figure(&name("taken back, p95"), quantile(&found, 0.95, |e| e.second), "s", bar.map(|_| 90.0));
            figure(
                &name("bad answers, median"),
                quantile(&found, 0.5, |e| e.bad),
                "answers",
                bar.map(|bar| bar[1]),
            );
        }
    }
    for (users, count) in [(many, "50,000"), (few, "5,000")] {
        let allowed = Scenario { errors: [0.005, 0.01], ..Scenario::harmless() };
        let found = endings(some, &allowed, users, &usual);
        figure(
            &format!("errors 0.5 to 1 %, 0.5 points allowed, {count} users: taken back in an hour"),
            100.0 * back(&found),
            "%",
            Some(5.0),
        );
    }
    let found = endings(some, &worse(0.02), many, &strict);
    figure(
        "errors 0.5 to 2 %, 50,000 users: taken back, median",
        quantile(&found, 0.5, |e| e.second),
        "s",
        Some(200.0),
    );
    let slow = Scenario { slower: 1.5, seconds: 1_800, ..Scenario::harmless() };
    let found = endings(some, &slow, many, &usual);
    figure(
        "answers 1.5 times as slow, 20 % allowed: taken back, median",
        quantile(&found, 0.5, |e| e.second),
        "s",
        Some(60.0),
    );
    let story = Scenario { seconds: 1_800, ..Scenario::harmless() };
    let stalls = Scenario { stalled: 0.02, ..story.clone() };
    let slower = Scenario { slower: 1.2, ..story.clone() };
    let lost = Scenario { lost: 1.0, ..story };
    for (name, scenario, bar) in [
        ("a second more on 2 % of the requests, nothing allowed", &stalls, 60.0),
        ("answers 1.2 times as slow, nothing allowed", &slower, 110.0),
        ("no good answers (302 in place of 200), no errors", &lost, 10.0),
    ] {
        let found = endings(some, scenario, many, &strictest);
        figure(&format!("{name}: taken back, median"), quantile(&found, 0.5, |e| e.second), "s", Some(bar));
    }
    let clean = Scenario { errors: [0.0, 1.0], seconds: 60, ..Scenario::harmless() };
    let found = endings(some, &clean, many, &usual);
    figure(
        "a canary that always fails beside a clean revision: median",
        quantile(&found, 0.5, |e| e.second),
        "s",
        Some(5.0),
    );
}

/// Healthy releases: after how long they are proven so, and worse ones that are by mistake.
fn proven(many: &Users, few: &Users) {
    let (usual, some) = (&settings()[0], SOME);
    for (weight, bar) in [(500, 420.0), (2_500, 143.0), (5_000, 127.0)] {
        let healthy = Scenario { weights: vec![(0, weight)], until_certified: true, ..Scenario::harmless() };
        let proven = endings(some, &healthy, many, usual);
        let name = format!("healthy canary at {} % proven healthy, median", weight / 100);
        figure(&name, quantile(&proven, 0.5, |e| e.second), "s", Some(bar));
        let name = format!("healthy canary at {} % not proven within an hour", weight / 100);
        figure(&name, 100.0 * (1.0 - share(&proven, Outcome::Certified)), "%", Some(5.0));
    }
    for (errors, name, bar) in [(0.005, "0.5 % errors", Some(600.0)), (0.0, "no errors", Some(600.0))] {
        let ramp = vec![2_500, 5_000];
        let healthy = Scenario { errors: [errors; 2], ramp, until_certified: true, ..Scenario::harmless() };
        let proven = endings(some, &healthy, many, usual);
        let name =
            format!("healthy release with {name} from 5 over 25 and 50 % to everyone by proof, median");
        figure(&name, quantile(&proven, 0.5, |e| e.second), "s", bar);
    }
    for (times, canary_errors) in [("2.2", 0.011), ("3", 0.015)] {
        let worse =
            Scenario { errors: [0.005, canary_errors], until_certified: true, ..Scenario::harmless() };
        for (users, count) in [(many, "50,000"), (few, "5,000")] {
            let wrong = endings(some, &worse, users, usual);
            let name = format!("canary with {times} times the errors, {count} users: certified by mistake");
            figure(&name, 100.0 * share(&wrong, Outcome::Certified), "%", Some(5.0));
        }
    }
}

/// The rules of others on the same requests, over five loads and five sizes of harm.
fn compared(users: &Users) {
    const HEALTHY: u64 = 60;
    const WORSE: u64 = 20;
    let judges = Judge::all();
    let median = |said: &[Vec<Option<u64>>], at: usize| {
        let mut seconds: Vec<u64> = said.iter().map(|all| all[at].unwrap_or(3_600)).collect();
        seconds.sort_unstable();
        seconds[(seconds.len() - 1) / 2] as f64
    };
    let at = |per_second: f64, errors: f64, seeds: u64| {
        let scenario = Scenario { per_second, errors: [0.005, errors], ..Scenario::harmless() };
        halves(seeds, |seed| peers::run(&scenario, users, seed, &judges))
    };
    // Ours is the second: alpha 0.1 %.
    let mut won = vec![[0u32; 2]; judges.len()];
    for per_second in [2.0, 10.0, 30.0, 100.0, 300.0] {
        let healthy = at(per_second, 0.005, HEALTHY);
        let alarms = |k: usize| healthy.iter().filter(|said| said[k].is_some()).count() as u64;
        let by = |value: &dyn Fn(usize) -> f64| -> BTreeMap<String, f64> {
            judges.iter().enumerate().skip(2).map(|(k, judge)| (judge.name(), value(k))).collect()
        };
        let percent = |k: usize| 100.0 * alarms(k) as f64 / HEALTHY as f64;
        let name =
            format!("{per_second} requests/s, healthy, an hour: taken back by mistake ({HEALTHY} releases)");
        beside(&name, percent(1), "%", by(&percent));
        for errors in [0.01, 0.02, 0.05, 0.1, 0.25] {
            let worse = at(per_second, errors, WORSE);
            let delay = |k: usize| median(&worse, k);
            let name = format!(
                "{per_second} requests/s, errors 0.5 to {} %: taken back, median (3600: not within the hour)",
                errors * 100.0
            );
            beside(&name, delay(1), "s", by(&delay));
            for (k, won) in won.iter_mut().enumerate() {
                // Only where it alarms no less often than ours can a win be told.
                if alarms(k) >= alarms(1) && delay(1) <= delay(k) {
                    won[0] += 1;
                } else if alarms(k) <= alarms(1) && delay(k) < delay(1) {
                    won[1] += 1;
                }
            }
        }
    }
    for (k, judge) in judges.iter().enumerate().skip(2) {
        let name = format!("of 25 points, those where {} is sooner at no more false alarms", judge.name());
        figure(&name, f64::from(won[k][1]), "points", Some(0.0));
        let name = format!(
            "of 25 points, those where ours is no later than {} at no more false alarms",
            judge.name()
        );
        figure(&name, f64::from(won[k][0]), "points", None);
    }
}

/// Far from the seeds that weights and grids were tuned on: what was tuned on a story says little about it.
const FRESH: u64 = 1_000_000;

fn endings(trials: u64, scenario: &Scenario, users: &Users, settings: &Analysis) -> Vec<Ending> {
    halves(trials, |seed| run(scenario, users, settings, seed))
}

/// Two halves at once: each seed stands alone.
fn halves<T: Send>(trials: u64, one: impl Fn(u64) -> T + Sync) -> Vec<T> {
    let half = |from: u64| (from..trials).step_by(2).map(|seed| one(FRESH + seed)).collect::<Vec<_>>();
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
    // As they are read: no digits that nobody believes.
    let value = (value * 1_000.0).round() / 1_000.0;
    let met = bar.map(|bar| value <= bar);
    println!(
        "{}",
        serde_json::json!({ "name": name, "value": value, "unit": unit, "bar": bar, "better": "lower", "met": met })
    );
}

/// A figure without a bar, with the same of others.
fn beside(name: &str, value: f64, unit: &str, peers: BTreeMap<String, f64>) {
    let round = |value: f64| (value * 10.0).round() / 10.0;
    let peers: BTreeMap<String, f64> = peers.into_iter().map(|(name, value)| (name, round(value))).collect();
    println!(
        "{}",
        serde_json::json!({ "name": name, "value": round(value), "unit": unit, "bar": null, "better": "lower", "met": null, "peers": peers })
    );
}
