//! The judge that users of Spinnaker know, as a compatibility mode: Mann-Whitney on values by time, a class for each metric, one score.
//!
//! It follows `NetflixACAJudge-v1.0` of spinnaker/kayenta (kayenta-judge, kayenta-mannwhitney; format: docs/canary-config.md) where that judge can be followed: where it
//! adds unseeded noise to two constant series, the same is decided here without chance. Its flaws come along: its false alarms grow with every look and with
//! correlated values, which is why [`crate::analysis`] judges where nothing else is asked for. Reads no telemetry.

use serde::{Deserialize, Serialize};

use crate::rank::{Interval, ranks, shift};

/// Below this a difference of values drowns in the tolerance of the root finder, which is absolute.
pub const LEAST_SCALE: f64 = 1e-3;

/// Which way is bad.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// More is bad.
    Increase,
    /// Less is bad.
    Decrease,
    /// Either is.
    #[default]
    Either,
}

/// What becomes of a time without a value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NoValue {
    /// It is left out.
    #[default]
    Remove,
    /// It counts as 0.
    Replace,
}

/// How large a difference is said to be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Mean of the canary over that of the baseline.
    #[default]
    MeanRatio,
    /// Chance that a value of the canary is above one of the baseline (common language effect size).
    Cles,
}

/// How one metric is judged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Rule {
    /// Which way is bad.
    pub direction: Direction,
    /// Times without a value.
    pub no_value: NoValue,
    /// Values further out than this many times the distance of the quartiles are left out; none: all count.
    pub outliers: Option<f64>,
    /// Not passing makes the whole score 0.
    pub critical: bool,
    /// No values is a failure.
    pub must_have_data: bool,
    /// It is shown and not counted.
    pub muted: bool,
    /// How the difference is measured.
    pub measure: Measure,
    /// Smaller differences upwards pass.
    pub allowed_increase: Option<f64>,
    /// Smaller differences downwards pass.
    pub allowed_decrease: Option<f64>,
    /// From this on an increase of a critical metric is critical.
    pub critical_increase: Option<f64>,
    /// From this on a decrease of a critical metric is critical.
    pub critical_decrease: Option<f64>,
}

impl Default for Rule {
    fn default() -> Rule {
        Rule {
            direction: Direction::Either,
            no_value: NoValue::Remove,
            outliers: None,
            critical: false,
            must_have_data: false,
            muted: false,
            measure: Measure::MeanRatio,
            allowed_increase: None,
            allowed_decrease: None,
            critical_increase: None,
            critical_decrease: None,
        }
    }
}

/// One metric with its values by time; a time without a value is NaN.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Its name.
    pub name: String,
    /// The group that its class counts for.
    pub group: String,
    /// How it is judged.
    pub rule: Rule,
    /// Values of the canary.
    pub canary: Vec<f64>,
    /// Values of the baseline.
    pub baseline: Vec<f64>,
}

/// What a metric is found to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Not told apart from the baseline.
    Pass,
    /// Above the baseline, where that is bad.
    High,
    /// Below the baseline, where that is bad.
    Low,
    /// No values.
    Nodata,
    /// No values, though there must be some.
    NodataFail,
    /// It cannot be tested.
    Error,
}

/// A metric, judged.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// Its name.
    pub name: String,
    /// What it is found to be.
    pub class: Class,
    /// Whether that makes the whole score 0.
    pub critical: bool,
    /// The difference between the arms at 98 %, where it was tested.
    pub interval: Option<Interval>,
    /// The difference as the rule measures it, where it was tested.
    pub effect: Option<f64>,
    /// Its values are so small that the judge's tolerance decides.
    pub tiny: bool,
}

/// What the whole says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Grade {
    /// The score reaches the mark for passing.
    Pass,
    /// Between the two marks.
    Marginal,
    /// Below both.
    Fail,
}

/// The whole, judged.
#[derive(Debug, Clone, PartialEq)]
pub struct Score {
    /// 0 to 100, with two decimals.
    pub points: f64,
    /// What it says.
    pub grade: Grade,
    /// Why the points are 0 whatever the groups say.
    pub overruled: Option<&'static str>,
    /// By metric, in order.
    pub metrics: Vec<Judged>,
}

/// Scores from which the whole passes, and is marginal.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Marks {
    /// From here on it passes.
    pub pass: f64,
    /// From here on it is marginal.
    pub marginal: f64,
}

impl Default for Marks {
    fn default() -> Marks {
        Marks { pass: 75.0, marginal: 50.0 }
    }
}

/// Judges metrics by groups. A group without a weight shares what the others leave of 100.
pub fn judge(metrics: &[Series], weights: &[(String, f64)], marks: Marks) -> Score {
    let judged: Vec<Judged> = metrics.iter().map(classify).collect();
    let counted: Vec<(&Series, &Judged)> =
        metrics.iter().zip(&judged).filter(|(series, _)| !series.rule.muted).collect();
    let nodata = counted.iter().filter(|(_, one)| one.class == Class::Nodata).count();
    let overruled = if counted.iter().any(|(_, one)| one.critical && one.class != Class::Pass) {
        Some("a critical metric did not pass")
    } else if !counted.is_empty() && nodata * 2 >= counted.len() {
        Some("half of the metrics or more have no data")
    } else {
        None
    };
    let points = if overruled.is_some() { 0.0 } else { (summed(&counted, weights) * 100.0).round() / 100.0 };
    let grade = match () {
        () if points >= marks.pass => Grade::Pass,
        () if points >= marks.marginal => Grade::Marginal,
        () => Grade::Fail,
    };
    Score { points, grade, overruled, metrics: judged }
}

fn summed(counted: &[(&Series, &Judged)], weights: &[(String, f64)]) -> f64 {
    let mut groups: Vec<&str> = Vec::new();
    for (series, _) in counted {
        if !groups.contains(&series.group.as_str()) {
            groups.push(&series.group);
        }
    }
    let given = |group: &str| weights.iter().find(|(name, _)| name == group).map(|(_, weight)| *weight);
    let taken: f64 = groups.iter().filter_map(|group| given(group)).sum();
    let open = groups.iter().filter(|group| given(group).is_none()).count();
    let share = |group: &str| given(group).unwrap_or((100.0 - taken) / open as f64);
    let passed = |group: &str| {
        let of = |wanted: &dyn Fn(Class) -> bool| {
            counted.iter().filter(|(series, one)| series.group == group && wanted(one.class)).count()
        };
        let pass = of(&|class| class == Class::Pass);
        let all = of(&|class| !matches!(class, Class::Nodata | Class::Error));
        if all == 0 { 1.0 } else { pass as f64 / all as f64 }
    };
    groups.iter().map(|group| share(group) * passed(group)).sum()
}

/// Judges one metric.
pub fn classify(series: &Series) -> Judged {
    let rule = &series.rule;
    let (canary, baseline) = (prepared(&series.canary, rule), prepared(&series.baseline, rule));
    let settled = |class, critical| Judged {
        name: series.name.clone(),
        class,
        critical,
        interval: None,
        effect: None,
        tiny: false,
    };
    if canary.is_empty() || baseline.is_empty() {
        return match rule.no_value {
            NoValue::Replace => settled(Class::Pass, false),
            NoValue::Remove if rule.must_have_data && !rule.critical => settled(Class::NodataFail, false),
            NoValue::Remove => settled(Class::Nodata, rule.critical),
        };
    }
    let sorted = |values: &[f64]| {
        let mut values = values.to_vec();
        values.sort_by(f64::total_cmp);
        values
    };
    let (ordered, against) = (sorted(&canary), sorted(&baseline));
    let constant = |values: &[f64]| values.first() == values.last();
    if ordered == against || (constant(&ordered) && constant(&against) && ordered[0] == against[0]) {
        return settled(Class::Pass, false);
    }
    let interval = if constant(&ordered) && constant(&against) {
        // The judge would add noise of a hundred-thousandth and find just this difference.
        let by = ordered[0] - against[0];
        Some(Interval { low: by, estimate: by, high: by })
    } else {
        shift(&canary, &baseline)
    };
    let Some(interval) = interval else { return settled(Class::Error, false) };
    let effect = effect(&canary, &baseline, rule.measure);
    let neutral = if rule.measure == Measure::MeanRatio { 1.0 } else { 0.5 };
    let beyond = |limit: Option<f64>, up: bool| {
        let limit = limit.unwrap_or(neutral);
        effect.is_none_or(|effect| if up { effect >= limit } else { effect <= limit })
    };
    let bound = 0.25 * interval.estimate.abs();
    let up =
        rule.direction != Direction::Decrease && interval.low > bound && beyond(rule.allowed_increase, true);
    let down = rule.direction != Direction::Increase
        && interval.high < -bound
        && beyond(rule.allowed_decrease, false);
    let (class, critical) = match (up, down) {
        (true, _) => (Class::High, rule.critical && beyond(rule.critical_increase, true)),
        (_, true) => (Class::Low, rule.critical && beyond(rule.critical_decrease, false)),
        _ => (Class::Pass, false),
    };
    let scale = ordered.iter().chain(&against).fold(0.0f64, |most, value| most.max(value.abs()));
    Judged {
        name: series.name.clone(),
        class,
        critical,
        interval: Some(interval),
        effect,
        tiny: scale < LEAST_SCALE,
    }
}

fn prepared(values: &[f64], rule: &Rule) -> Vec<f64> {
    let kept = values.iter().copied().filter_map(|value| match (value.is_nan(), rule.no_value) {
        (false, _) => Some(value),
        (true, NoValue::Replace) => Some(0.0),
        (true, NoValue::Remove) => None,
    });
    let kept: Vec<f64> = kept.collect();
    let Some(factor) = rule.outliers.filter(|_| !kept.is_empty()) else { return kept };
    let mut sorted = kept.clone();
    sorted.sort_by(f64::total_cmp);
    let (low, high) = (percentile(&sorted, 0.25), percentile(&sorted, 0.75));
    let far = factor * (high - low);
    let least = (low - far).min(percentile(&sorted, 0.01));
    let most = (high + far).max(percentile(&sorted, 0.99));
    kept.into_iter().filter(|value| (least..=most).contains(value)).collect()
}

/// Of sorted values, between neighbours in proportion (type 7 of Hyndman and Fan).
fn percentile(sorted: &[f64], share: f64) -> f64 {
    let place = (sorted.len() - 1) as f64 * share;
    let (below, part) = (place.floor() as usize, place.fract());
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + part * (sorted[above] - sorted[below])
}

/// None where a mean is 0.
fn effect(canary: &[f64], baseline: &[f64], measure: Measure) -> Option<f64> {
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    match measure {
        Measure::MeanRatio => {
            let (canary, baseline) = (mean(canary), mean(baseline));
            (canary != 0.0 && baseline != 0.0).then(|| canary / baseline)
        }
        Measure::Cles => {
            let (m, n) = (canary.len() as f64, baseline.len() as f64);
            let ranked = ranks(canary, baseline);
            Some((2.0 * ranked.of_first - m * (m + 1.0)) / (2.0 * m * n))
        }
    }
}
