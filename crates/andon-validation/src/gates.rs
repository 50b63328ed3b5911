//! When coverage is judged: only when every report that was declared came in, or is carried from a run that is young enough. What is judged
//! is in `limits`.

use std::collections::BTreeMap;

use andon_model::{RunId, Span};

use crate::coverage::Coverage;
use crate::diff::Diff;
use crate::limits::{self, Breach, CoverageLimits, Limit};

/// The coverage of one job that declares some.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// Its name.
    pub job: String,
    /// How its coverage came.
    pub came: Came,
}

/// How the coverage of a job came.
#[derive(Debug, Clone, PartialEq)]
pub enum Came {
    /// From this run.
    Now,
    /// It did not run this time: from the run in which it last did.
    Carried {
        /// That run.
        from: RunId,
        /// Since it was measured.
        age: Span,
    },
    /// Not at all.
    Missing {
        /// The reason, in words.
        why: String,
    },
}

/// What is to be judged.
#[derive(Debug, Clone, Copy)]
pub struct Measured<'a> {
    /// Everything, merged.
    pub whole: &'a Coverage,
    /// By layer.
    pub layers: &'a BTreeMap<String, Coverage>,
    /// Every job that declares coverage.
    pub parts: &'a [Part],
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Judgement {
    /// Limits that are broken.
    pub breaches: Vec<Breach>,
    /// What is carried, and what was not judged and why.
    pub notes: Vec<String>,
}

/// Judges, or says why not.
pub fn judge(
    limits: &CoverageLimits,
    measured: Measured<'_>,
    diff: Option<&Diff>,
    previous: Option<f64>,
) -> Judgement {
    let mut judgement = Judgement::default();
    let mut missing = Vec::new();
    for part in measured.parts {
        match &part.came {
            Came::Now => {}
            Came::Missing { why } => missing.push(format!("{} {why}", part.job)),
            Came::Carried { from, age } => {
                judgement.notes.push(format!(
                    "coverage of {} is carried from {from}, {} old",
                    part.job,
                    words(*age)
                ));
                if limits.any() && age.0 > limits.carry_at_most.0 {
                    let says = format!(
                        "coverage of {} is carried from {from} and {} old; no older than {} is accepted: let the job run again",
                        part.job,
                        words(*age),
                        words(limits.carry_at_most)
                    );
                    let (least, found) = (0.0, 0.0);
                    judgement.breaches.push(Breach {
                        limit: Limit::Carried,
                        least,
                        found,
                        lacking: Vec::new(),
                        says,
                    });
                }
            }
        }
    }
    if !limits.any() {
        return judgement;
    }
    // A part of the reports says less than it seems: it would look as if coverage fell.
    if !missing.is_empty() {
        judgement
            .notes
            .push(format!("coverage was not judged, since not all of it came in: {}", missing.join("; ")));
        judgement.breaches.clear();
        return judgement;
    }
    // A figure that is too old passes no limit, nor does it break one.
    if judgement.breaches.is_empty() {
        judgement.breaches = limits::judge(limits, measured.whole, diff, previous);
        for (layer, least) in &limits.layers {
            let nothing = Coverage::default();
            let own = measured.layers.get(layer).unwrap_or(&nothing);
            let of = format!(" by {layer} tests");
            judgement.breaches.extend(limits::shares(
                least,
                &own.files.iter().collect::<Vec<_>>(),
                Some(Limit::Layer),
                &of,
            ));
        }
    }
    judgement
}

/// An age as people say it: the largest unit is enough.
fn words(age: Span) -> String {
    let minutes = age.0 / 60_000;
    if minutes == 0 {
        return "less than a minute".into();
    }
    let (number, unit) = match minutes {
        0..60 => (minutes, "minute"),
        60..2880 => (minutes / 60, "hour"),
        _ => (minutes / 1440, "day"),
    };
    format!("{number} {unit}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coverage::FileCoverage;
    use crate::limits::Shares;

    const DAY: Span = Span::secs(24 * 3600);

    fn coverage(lines: &[(u32, u64)]) -> Coverage {
        let file = FileCoverage { lines: lines.iter().copied().collect(), ..FileCoverage::default() };
        Coverage { files: [("a.py".to_owned(), file)].into() }
    }

    fn limits() -> CoverageLimits {
        let all = Shares { lines: Some(80.0), ..Shares::default() };
        CoverageLimits { all, carry_at_most: Span(DAY.0 * 7), ..CoverageLimits::default() }
    }

    fn judged(came: Came) -> Judgement {
        let parts = [Part { job: "unit".into(), came: Came::Now }, Part { job: "e2e".into(), came }];
        let whole = coverage(&[(1, 1), (2, 0)]);
        judge(&limits(), Measured { whole: &whole, layers: &BTreeMap::new(), parts: &parts }, None, None)
    }

    #[test]
    fn a_shard_that_did_not_come_is_no_fall() {
        let judgement = judged(Came::Missing { why: "was skipped: lint is red".into() });
        assert!(judgement.breaches.is_empty());
        assert_eq!(
            judgement.notes,
            ["coverage was not judged, since not all of it came in: e2e was skipped: lint is red"]
        );
        assert_eq!(judged(Came::Now).breaches[0].limit, Limit::Lines);
    }

    #[test]
    fn a_carried_figure_is_labelled_and_judged_while_it_is_young() {
        let judgement = judged(Came::Carried { from: RunId(9), age: Span(DAY.0 * 2) });
        assert_eq!(judgement.notes, ["coverage of e2e is carried from run-9, 2 days old"]);
        assert_eq!(judgement.breaches[0].limit, Limit::Lines);
        let old = judged(Came::Carried { from: RunId(9), age: Span(DAY.0 * 8) });
        assert_eq!(old.breaches.len(), 1);
        assert!(
            old.breaches[0].says.contains("8 days old; no older than 7 days is accepted"),
            "{}",
            old.breaches[0].says
        );
    }

    #[test]
    fn a_layer_is_judged_by_what_its_own_tests_run() {
        let whole = coverage(&[(1, 1), (2, 1)]);
        let layers = [("unit".to_owned(), coverage(&[(1, 1), (2, 0)]))].into();
        let measured = Measured { whole: &whole, layers: &layers, parts: &[] };
        let mut limits = limits();
        let least = Shares { lines: Some(60.0), ..Shares::default() };
        limits.layers = vec![("unit".to_owned(), least), ("e2e".to_owned(), least)];
        let breaches = judge(&limits, measured, None, None).breaches;
        assert_eq!(breaches[0].says, "50 % of all lines ran in tests by unit tests; the limit is 60 %");
        assert_eq!(breaches[1].says, "a limit on lines by e2e tests is set, but no report measures any");
        assert_eq!(breaches.len(), 2);
    }

    #[test]
    fn without_limits_nothing_is_judged_and_what_is_carried_is_still_said() {
        let parts =
            [Part { job: "unit".into(), came: Came::Carried { from: RunId(3), age: Span(DAY.0 * 30) } }];
        let whole = Coverage::default();
        let measured = Measured { whole: &whole, layers: &BTreeMap::new(), parts: &parts };
        let judgement = judge(&CoverageLimits::default(), measured, None, None);
        assert_eq!((judgement.breaches.len(), judgement.notes.len()), (0, 1));
    }
}
