//! A look in words and numbers, stored with its counts so that it can be made again bit for bit. Judges
//! nothing itself.

use andon_model::strategy::Analysis as Settings;
use serde::{Deserialize, Serialize};

use crate::analysis::{self, BETA, Finding, Judgement, Metric, Outcome};
use crate::evidence;
use crate::sample::{P95, Sample};

/// Everything that a look rests on and says. Numbers are rounded to four digits, so that they survive any
/// JSON reader.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// The new revision, as people say it.
    pub who: String,
    /// What it says.
    pub outcome: Outcome,
    /// Evidence that the new revision is worse than allowed.
    pub evidence: f64,
    /// The highest evidence of any look so far, this one included.
    pub highest: f64,
    /// Evidence that takes it back: 1/alpha.
    pub evidence_needed: f64,
    /// Evidence that proves it healthy, for each metric: 1/beta.
    pub proof_needed: f64,
    /// By metric.
    pub metrics: Vec<Explained>,
    /// About so many more users on the new revision are needed for a proof of health; none when it is there
    /// or out of reach.
    pub users_missing: Option<u64>,
    /// All of it in one sentence.
    pub sentence: String,
    /// What was asked for.
    pub settings: Settings,
    /// What was counted.
    pub sample: Sample,
}

/// One metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Explained {
    /// Which.
    pub metric: Metric,
    /// The new revision's users.
    pub canary: Hit,
    /// The old revision's users.
    pub stable: Hit,
    /// How many times as often it happens on the new revision; none without an event on the old one.
    pub ratio: Option<f64>,
    /// Lower end of the ratio at 95 %, at every look at once.
    pub ratio_from: f64,
    /// Upper end; none while there is none.
    pub ratio_to: Option<f64>,
    /// Evidence of harm.
    pub evidence: f64,
    /// Evidence of health; none where it cannot be asked.
    pub proof: Option<f64>,
    /// The proof of health says "less than so many times as often".
    pub below: f64,
}

/// Users of one arm.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Hit {
    /// Users seen, at least: users of several steps are counted in the largest.
    pub of: u64,
    /// Users whom it happened to.
    pub users: u64,
    /// The share.
    pub rate: f64,
}

/// Looks at the counts: `who` is the new revision as people say it, `highest_before` the highest evidence of
/// the looks before.
pub fn look(settings: &Settings, who: &str, sample: &Sample, highest_before: f64) -> Explanation {
    let Judgement { findings, harm, outcome } = analysis::judge(settings, sample);
    let evidence = number(harm);
    let metrics: Vec<Explained> = findings.iter().map(|f| explained(sample, f)).collect();
    let mut explanation = Explanation {
        who: who.to_owned(),
        outcome,
        evidence,
        highest: evidence.max(highest_before),
        evidence_needed: number(analysis::harm_needed(settings)),
        proof_needed: 1.0 / BETA,
        metrics,
        users_missing: if outcome == Outcome::Inconclusive { users_missing(settings, sample) } else { None },
        sentence: String::new(),
        settings: settings.clone(),
        sample: sample.clone(),
    };
    explanation.sentence = explanation.in_words();
    explanation
}

impl Explanation {
    /// The same look made again from the stored counts. Equal to the stored one, or one of them was tampered
    /// with.
    pub fn again(&self) -> Explanation {
        look(&self.settings, &self.who, &self.sample, self.highest)
    }

    fn in_words(&self) -> String {
        let who = &self.who;
        // Of those that say the same, the first: it is the one that users are asked about.
        let worst = self.metrics.iter().rev().max_by(|a, b| a.evidence.total_cmp(&b.evidence));
        let asked =
            self.metrics.iter().rev().filter(|m| matches!(m.metric, Metric::Errors | Metric::Latency));
        let asked = asked.max_by(|a, b| a.evidence.total_cmp(&b.evidence));
        let told = if self.outcome == Outcome::Regression { worst } else { asked };
        let Some(worst) = told else {
            return format!("{who} is not compared with anything");
        };
        let needed = grouped(self.evidence_needed);
        match self.outcome {
            Outcome::Regression => {
                let (times, counts) = (self.times(worst), counts(worst));
                let evidence = grouped(self.evidence);
                format!(
                    "{who} {} {times}: {counts}; evidence {evidence} of {needed} needed",
                    self.verb(worst.metric)
                )
            }
            Outcome::Certified => {
                let each: Vec<String> = self
                    .metrics
                    .iter()
                    .filter(|m| matches!(m.metric, Metric::Errors | Metric::Latency))
                    .map(|m| self.bound(m))
                    .collect();
                format!("{who} is proven healthy: {}", each.join(", and "))
            }
            Outcome::Inconclusive => {
                let more = match self.users_missing {
                    Some(users) => {
                        format!("about {} more users on it are needed for a proof of health", whole(users))
                    }
                    None => "no number of users would prove it healthy at the present rates".into(),
                };
                format!("nothing proven yet on {who}: {}; {more}", counts(worst))
            }
        }
    }

    fn verb(&self, metric: Metric) -> &'static str {
        match metric {
            Metric::Errors => "fails",
            Metric::Latency => "is slow",
            Metric::Good => "gives users a good answer",
            Metric::Coming => "is met by users",
            Metric::Exits => "loses instances",
        }
    }

    fn times(&self, m: &Explained) -> String {
        match (m.ratio, m.ratio_to) {
            (Some(ratio), Some(to)) => {
                format!("{}x as often ({}x to {}x)", short(ratio), short(m.ratio_from), short(to))
            }
            (Some(ratio), None) => format!("{}x as often (at least {}x)", short(ratio), short(m.ratio_from)),
            (None, _) => {
                format!("where the old revision does not (at least {}x as often)", short(m.ratio_from))
            }
        }
    }

    fn bound(&self, m: &Explained) -> String {
        let verb = self.verb(m.metric);
        match m.proof {
            Some(proof) => {
                let (below, proof, needed) = (short(m.below), grouped(proof), grouped(self.proof_needed));
                format!(
                    "it {verb} less than {below}x as often ({}; proof {proof} of {needed} needed)",
                    counts(m)
                )
            }
            None => {
                "its answer times could not be compared, since the old revision had too few answers".into()
            }
        }
    }
}

fn counts(m: &Explained) -> String {
    let what = match m.metric {
        Metric::Errors => "users met an error",
        Metric::Latency => "users met a slow answer",
        Metric::Good => "users got a good answer",
        Metric::Coming => "users came",
        Metric::Exits => "instances exited",
    };
    let (c, s) = (m.canary, m.stable);
    format!("{} of {} {what} against {} of {}", whole(c.users), whole(c.of), whole(s.users), whole(s.of))
}

fn explained(sample: &Sample, finding: &Finding) -> Explained {
    let p95 = P95.min(sample.limits_us.len().saturating_sub(1));
    let hit = |arm: &crate::sample::ArmCounts| match finding.metric {
        Metric::Errors => arm.reached[0],
        Metric::Latency => arm.slow(p95),
        Metric::Good => arm.good,
        Metric::Coming => arm.came,
        Metric::Exits => 0,
    };
    let labels = match finding.metric {
        Metric::Exits => analysis::exits(sample),
        _ => analysis::labels(&sample.epochs, hit),
    };
    let seen = |arm: fn(&crate::sample::EpochCounts) -> &crate::sample::ArmCounts| {
        let users = sample.epochs.iter().map(|e| hit(arm(e))).sum();
        let of = sample.epochs.iter().map(|e| arm(e).subjects).max().unwrap_or(0).max(users);
        Hit { of, users, rate: digits(if of == 0 { 0.0 } else { users as f64 / of as f64 }) }
    };
    let (from, to) = evidence::ratio_between(&labels);
    let exits = |side: usize| {
        let users = sample.exits.iter().map(|e| e.exits[side]).sum();
        let of = sample.exits.iter().map(|e| u64::from(e.instances[side])).max().unwrap_or(0).max(users);
        Hit { of, users, rate: digits(if of == 0 { 0.0 } else { users as f64 / of as f64 }) }
    };
    let (canary, stable) = match finding.metric {
        Metric::Exits => (exits(1), exits(0)),
        _ => (seen(|e| &e.canary), seen(|e| &e.stable)),
    };
    Explained {
        metric: finding.metric,
        canary,
        stable,
        ratio: (stable.users > 0).then(|| digits(evidence::most_likely(&labels))),
        ratio_from: digits(from),
        ratio_to: to.map(digits),
        evidence: number(finding.harm),
        proof: finding.health.map(number),
        below: digits(finding.below),
    }
}

/// How many more users on the canary, with errors at the present rates, would prove it healthy. None if a
/// thousand times as many would not.
fn users_missing(settings: &Settings, sample: &Sample) -> Option<u64> {
    let now = sample.epochs.last().filter(|e| (1..10_000).contains(&e.weight_bp))?;
    let known = now.canary.subjects.max(1);
    let enough = |factor: f64| {
        let grown = |count: u64| (count as f64 * factor).round() as u64;
        let mut later = sample.clone();
        let Some(last) = later.epochs.last_mut() else { return false };
        last.canary.subjects = known;
        for arm in [&mut last.canary, &mut last.stable] {
            arm.subjects = grown(arm.subjects);
            arm.reached = arm.reached.map(grown);
            arm.slow.iter_mut().for_each(|count| *count = grown(*count));
        }
        analysis::judge(settings, &later).healthy()
    };
    let mut high = 2.0;
    while !enough(high) {
        high *= 2.0;
        if high * known as f64 > 1e6 && high > 1_000.0 {
            return None;
        }
    }
    let mut low = high / 2.0;
    for _ in 0..8 {
        let middle = f64::midpoint(low, high);
        if enough(middle) { high = middle } else { low = middle }
    }
    Some((known as f64 * (high - 1.0)).ceil() as u64)
}

/// Evidence from its logarithm: four digits, never more than a trillion.
fn number(log: f64) -> f64 {
    digits(log.min(1e12f64.ln()).exp())
}

/// Four significant digits.
fn digits(number: f64) -> f64 {
    format!("{number:.3e}").parse().unwrap_or(0.0)
}

/// A ratio as people say it.
fn short(ratio: f64) -> String {
    match ratio {
        r if r >= 20.0 => format!("{r:.0}"),
        r if r >= 0.1 => format!("{r:.1}"),
        r => format!("{r:.2}"),
    }
}

fn grouped(number: f64) -> String {
    if number < 10.0 { format!("{number:.1}") } else { whole(number as u64) }
}

/// `12,034`.
pub(crate) fn whole(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::tests::sample;
    use proptest::prelude::*;

    fn at(canary: (u64, u64), stable: (u64, u64)) -> Explanation {
        look(&Settings::default(), "9c41d7e", &sample(500, canary, stable), 0.0)
    }

    #[test]
    fn a_regression_is_told_with_the_users_it_hit() {
        let told = at((212, 20), (4_030, 12)).sentence;
        assert!(told.starts_with("9c41d7e fails 32x as often ("), "{told}");
        assert!(told.contains("20 of 212 users met an error against 12 of 4,030; evidence "), "{told}");
        assert!(told.ends_with("of 1,000 needed"), "{told}");
        let told = at((30, 10), (500, 0)).sentence;
        assert!(told.contains("fails where the old revision does not (at least "), "{told}");
    }

    #[test]
    fn what_is_missing_for_a_proof_is_about_what_a_proof_takes() {
        let little = at((100, 0), (1_900, 0));
        let missing = little.users_missing.unwrap();
        assert!((500..1_200).contains(&missing), "{}", little.sentence);
        assert_eq!(at((100 + missing, 0), ((100 + missing) * 19, 0)).outcome, Outcome::Certified);
        assert_eq!(look(&Settings::default(), "x", &Sample::default(), 0.0).users_missing, None);
        let nobody = look(&Settings::default(), "x", &sample(500, (0, 0), (0, 0)), 0.0);
        assert!(nobody.users_missing.is_some_and(|users| users > 500), "{}", nobody.sentence);
    }

    proptest! {
        #[test]
        fn a_look_is_made_again_bit_for_bit_from_the_journal(
            weight in 1u16..9_999, canary in 0u64..5_000, stable in 0u64..50_000, c in 0u64..60, s in 0u64..60,
        ) {
            let sample = sample(weight, (canary.max(c), c), (stable.max(s), s));
            let first = look(&Settings::default(), "9c41d7e", &sample, 0.0);
            let stored = serde_json::to_string(&first).unwrap();
            let read: Explanation = serde_json::from_str(&stored).unwrap();
            prop_assert_eq!(serde_json::to_string(&read.again()).unwrap(), stored);
        }
    }
}
