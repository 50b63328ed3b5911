//! The compatibility mode against R: the same intervals, the same estimates, the same classes.
//!
//! `ANDON_CASES` says how many random cases (200 by default), `ANDON_CASES_FIGURES` a file for the largest differences.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

use std::fmt::Write as _;
use std::process::Command;

use andon_release::kayenta::{Class, Direction, Marks, NoValue, Rule, Series, classify, judge};
use andon_release::rank::shift;
use andon_release::simulate::Random;

/// Interval by `wilcox.test`; the estimate by `uniroot` on the same statistic with the correction that `wilcox.test` leaves out there.
const ORACLE: &str = r#"
lines <- readLines(commandArgs(TRUE)[1])
numbers <- function(text) as.numeric(strsplit(text, " ")[[1]])
for (line in lines) {
  halves <- strsplit(line, ";")[[1]]
  x <- numbers(halves[1]); y <- numbers(halves[2])
  z <- function(d) {
    r <- rank(c(x - d, y)); m <- length(x); n <- length(y); t <- table(r)
    dz <- sum(r[seq_along(x)]) - m * (m + 1) / 2 - m * n / 2
    (dz - sign(dz) * 0.5) / sqrt(m * n / 12 * (m + n + 1 - sum(t^3 - t) / ((m + n) * (m + n - 1))))
  }
  low <- min(x) - max(y); high <- max(x) - min(y)
  estimate <- if (z(low) <= 0) low else if (z(high) >= 0) high else uniroot(z, c(low, high), tol = 1e-4)$root
  ci <- suppressWarnings(wilcox.test(x, y, conf.int = TRUE, conf.level = 0.98, exact = FALSE, correct = TRUE))$conf.int
  cat(sprintf("%.17g %.17g %.17g\n", ci[1], estimate, ci[2]))
}
"#;

fn sample(random: &mut Random, count: usize, kind: u64, scale: f64, by: f64) -> Vec<f64> {
    let mut before = 0.0;
    (0..count)
        .map(|_| {
            let noise: f64 = (0..12).map(|_| random.unit()).sum::<f64>() - 6.0;
            before = 0.7 * before + noise;
            let value = match kind {
                // Smooth, in steps (many ties), with a long tail, correlated.
                0 => 10.0 + noise,
                1 => (random.unit() * 8.0).floor(),
                2 => random.unit().max(1e-9).powf(-1.0 / 1.5),
                _ => 10.0 + before,
            };
            // As it travels to R, so that both have the same number.
            format!("{:.9e}", (value + by) * scale).parse().unwrap()
        })
        .collect()
}

#[test]
fn random_cases_have_the_interval_the_estimate_and_the_class_that_r_gives() {
    if Command::new("Rscript").arg("--version").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "Rscript is missing");
        println!("SKIPPED: Rscript is missing");
        return;
    }
    let count: u64 = std::env::var("ANDON_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(200);
    let mut random = Random::new(20_260_101);
    let cases: Vec<(Vec<f64>, Vec<f64>)> = (0..count)
        .map(|n| {
            let (m, k) = (5 + random.bits() % 70, 5 + random.bits() % 70);
            let scale = [1.0, 100.0, 0.05][(n / 4 % 3) as usize];
            let by = [0.0, 0.3, 2.0][(n / 12 % 3) as usize];
            let canary = sample(&mut random, m as usize, n % 4, scale, by);
            (canary, sample(&mut random, k as usize, n % 4, scale, 0.0))
        })
        .collect();
    let room = tempfile::tempdir().unwrap();
    let (script, data) = (room.path().join("oracle.R"), room.path().join("cases"));
    let words =
        |values: &[f64]| values.iter().map(|value| format!("{value:e}")).collect::<Vec<_>>().join(" ");
    let mut text = String::new();
    for (x, y) in &cases {
        writeln!(text, "{};{}", words(x), words(y)).unwrap();
    }
    std::fs::write(&data, text).unwrap();
    std::fs::write(&script, ORACLE).unwrap();
    let out = Command::new("Rscript").arg(&script).arg(&data).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let said = String::from_utf8(out.stdout).unwrap();
    let (mut furthest, mut classes, mut compared) = (0.0f64, 0, 0);
    for ((x, y), line) in cases.iter().zip(said.lines()) {
        let theirs: Vec<f64> = line.split(' ').map(|number| number.parse().unwrap()).collect();
        let ours = shift(x, y).unwrap();
        for (own, other) in [ours.low, ours.estimate, ours.high].iter().zip(&theirs) {
            furthest = furthest.max((own - other).abs());
        }
        let series = Series {
            name: "m".into(),
            group: "g".into(),
            rule: Rule::default(),
            canary: x.clone(),
            baseline: y.clone(),
        };
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let (ratio, bound) = (mean(x) / mean(y), 0.25 * theirs[1].abs());
        let expected = match () {
            () if theirs[0] > bound && ratio >= 1.0 => Class::High,
            () if theirs[2] < -bound && ratio <= 1.0 => Class::Low,
            () => Class::Pass,
        };
        classes += u64::from(classify(&series).class != expected);
        compared += 1;
    }
    assert_eq!(compared, count);
    if let Some(file) = std::env::var_os("ANDON_CASES_FIGURES") {
        std::fs::write(
            file,
            format!("{{\"cases\":{count},\"furthest\":{furthest:e},\"classes\":{classes}}}"),
        )
        .unwrap();
    }
    assert!(furthest <= 1e-4, "an end or an estimate is {furthest:e} away from R's");
    assert_eq!(classes, 0, "of {count} cases so many have another class");
}

fn series(name: &str, canary: &[f64], baseline: &[f64], rule: Rule) -> Series {
    Series {
        name: name.into(),
        group: name.into(),
        rule,
        canary: canary.to_vec(),
        baseline: baseline.to_vec(),
    }
}

fn noisy(by: f64) -> Vec<f64> {
    (0..60).map(|n| f64::from(n * 7919 % 101) / 10.0 + by).collect()
}

#[test]
fn a_critical_metric_that_is_high_makes_the_score_nothing_whatever_the_others_say() {
    let rule = Rule { critical: true, direction: Direction::Increase, ..Rule::default() };
    let all = [
        series("errors", &noisy(20.0), &noisy(0.0), rule),
        series("latency", &noisy(0.0), &noisy(0.0), Rule::default()),
        series("load", &noisy(0.1), &noisy(0.0), Rule::default()),
    ];
    let score = judge(&all, &[], Marks::default());
    assert_eq!((score.points, score.metrics[0].class), (0.0, Class::High));
    assert!(score.overruled.is_some());
}

#[test]
fn groups_without_a_weight_share_what_the_others_leave() {
    let all = [
        series("errors", &noisy(20.0), &noisy(0.0), Rule::default()),
        series("latency", &noisy(0.0), &noisy(0.0), Rule::default()),
        series("load", &noisy(0.0), &noisy(0.0), Rule::default()),
    ];
    let score = judge(&all, &[("errors".to_owned(), 40.0)], Marks::default());
    assert_eq!(score.points, 60.0);
    assert_eq!(score.grade, andon_release::kayenta::Grade::Marginal);
}

#[test]
fn a_metric_without_values_is_no_pass_unless_its_rule_says_that_nothing_is_zero() {
    let nothing = [f64::NAN; 5];
    let class = |rule: Rule| classify(&series("m", &nothing, &noisy(0.0), rule)).class;
    assert_eq!(class(Rule::default()), Class::Nodata);
    assert_eq!(class(Rule { must_have_data: true, ..Rule::default() }), Class::NodataFail);
    let replaced =
        classify(&series("m", &[], &noisy(0.0), Rule { no_value: NoValue::Replace, ..Rule::default() }));
    assert_eq!(replaced.class, Class::Pass);
}

#[test]
fn outliers_are_left_out_only_beyond_both_fences() {
    let mut canary = noisy(0.0);
    canary[3] = 1e6;
    let rule = Rule { outliers: Some(3.0), ..Rule::default() };
    assert_eq!(classify(&series("m", &canary, &noisy(0.0), rule)).class, Class::Pass);
}
