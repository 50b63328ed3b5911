//! By how much one sample lies above another, by ranks alone: the Mann-Whitney test turned into an interval, as R's `wilcox.test(x, y, conf.int = TRUE, conf.level
//! = 0.98, exact = FALSE)` has it. Knows no metric.

/// Standard normal quantile at 99 %: both ends of 98 %.
const Z: f64 = 2.326_347_874_040_841;
/// The absolute tolerance of roots, R's own. It is part of what is compared: another one gives other classes.
const TOLERANCE: f64 = 1e-4;
/// Turns that the search for a root may take, R's own.
const TURNS: usize = 1000;

/// The difference between two samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// The lower end.
    pub low: f64,
    /// The likeliest (Hodges and Lehmann), with the same correction for continuity as the ends.
    pub estimate: f64,
    /// The upper end.
    pub high: f64,
}

/// Ranks of two samples together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ranks {
    /// Sum of the ranks of the first.
    pub of_first: f64,
    /// Sum of t³ − t over all ties of t values.
    pub ties: f64,
}

/// Ranks from 1; those of equal values are their mean.
pub fn ranks(first: &[f64], second: &[f64]) -> Ranks {
    let mut all: Vec<(f64, bool)> = first.iter().map(|value| (*value, true)).collect();
    all.extend(second.iter().map(|value| (*value, false)));
    ranked(&mut all)
}

fn ranked(all: &mut [(f64, bool)]) -> Ranks {
    all.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    let (mut sum, mut ties, mut at) = (0.0, 0.0, 0);
    while at < all.len() {
        let tied = all[at..].iter().take_while(|(value, _)| *value == all[at].0).count();
        let of_first = all[at..at + tied].iter().filter(|(_, first)| *first).count();
        sum += of_first as f64 * (at as f64 + (tied as f64 + 1.0) / 2.0);
        ties += (tied as f64).powi(3) - tied as f64;
        at += tied;
    }
    Ranks { of_first: sum, ties }
}

/// The interval of what `first` lies above `second`; none where all values are the same.
pub fn shift(first: &[f64], second: &[f64]) -> Option<Interval> {
    let ends = |values: &[f64]| {
        values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
            (low.min(*value), high.max(*value))
        })
    };
    let (x, y) = (ends(first), ends(second));
    let (least, most) = (x.0 - y.1, x.1 - y.0);
    let (m, n) = (first.len() as f64, second.len() as f64);
    let mut room = Vec::with_capacity(first.len() + second.len());
    let mut z = |by: f64| {
        room.clear();
        // So that no zero is told apart from another by its sign.
        room.extend(first.iter().map(|value| (value - by + 0.0, true)));
        room.extend(second.iter().map(|value| (value + 0.0, false)));
        let ranked = ranked(&mut room);
        let above = ranked.of_first - m * (m + 1.0) / 2.0 - m * n / 2.0;
        let correction = if above == 0.0 { 0.0 } else { 0.5 * above.signum() };
        let variance = m * n / 12.0 * (m + n + 1.0 - ranked.ties / ((m + n) * (m + n - 1.0)));
        (above - correction) / variance.sqrt()
    };
    let mut at = |wanted: f64| -> Option<f64> {
        let (low, high) = (z(least) - wanted, z(most) - wanted);
        if low.is_nan() || high.is_nan() {
            return None;
        }
        Some(match () {
            () if low <= 0.0 => least,
            () if high >= 0.0 => most,
            () => root(|by| z(by) - wanted, (least, low), (most, high)),
        })
    };
    Some(Interval { low: at(Z)?, estimate: at(0.0)?, high: at(-Z)? })
}

/// Where a function crosses zero between two places with different signs (R. P. Brent, Algorithms for Minimization without Derivatives, 1973, chapter 4: inverse
/// quadratic interpolation, secants, halving), with the stopping rule of R's `uniroot`.
fn root(mut f: impl FnMut(f64) -> f64, from: (f64, f64), to: (f64, f64)) -> f64 {
    // `best` is the newest place and `last` the one before; the root lies between `best` and `other`.
    let (mut last, mut best, mut other) = (from, to, from);
    if from.1 == 0.0 {
        return from.0;
    }
    for _ in 0..=TURNS {
        if best.1 == 0.0 {
            return best.0;
        }
        let before = best.0 - last.0;
        if other.1.abs() < best.1.abs() {
            (last, best, other) = (best, other, best);
        }
        let near = 2.0 * f64::EPSILON * best.0.abs() + TOLERANCE / 2.0;
        let half = (other.0 - best.0) / 2.0;
        if half.abs() <= near || best.1 == 0.0 {
            return best.0;
        }
        let mut step = half;
        if before.abs() >= near && last.1.abs() > best.1.abs() {
            let span = other.0 - best.0;
            let (mut p, mut q) = if last.0 == other.0 {
                let s = best.1 / last.1;
                (span * s, 1.0 - s)
            } else {
                let (q, r, s) = (last.1 / other.1, best.1 / other.1, best.1 / last.1);
                (s * (span * q * (q - r) - (best.0 - last.0) * (r - 1.0)), (q - 1.0) * (r - 1.0) * (s - 1.0))
            };
            if p > 0.0 {
                q = -q
            } else {
                p = -p
            }
            if p < 0.75 * span * q - (near * q).abs() / 2.0 && p < (before * q / 2.0).abs() {
                step = p / q;
            }
        }
        if step.abs() < near {
            step = if step > 0.0 { near } else { -near };
        }
        last = best;
        let next = best.0 + step;
        best = (next, f(next));
        if (best.1 > 0.0) == (other.1 > 0.0) && best.1 != 0.0 && other.1 != 0.0 {
            other = last;
        }
    }
    best.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_share_the_mean_of_their_ranks() {
        let ranked = ranks(&[1.0, 2.0, 2.0], &[2.0, 5.0]);
        assert_eq!(ranked.of_first, 1.0 + 3.0 + 3.0);
        assert_eq!(ranked.ties, 24.0);
    }

    #[test]
    fn a_sample_that_lies_ten_higher_is_found_ten_higher_within_an_interval_that_holds_it() {
        let base: Vec<f64> = (0..60).map(|n| f64::from(n * 7919 % 101) / 10.0).collect();
        let higher: Vec<f64> = base.iter().map(|value| value + 10.0).collect();
        let found = shift(&higher, &base).unwrap();
        assert!((found.estimate - 10.0).abs() < 0.1, "{found:?}");
        assert!(found.low < 10.0 && 10.0 < found.high && found.high - found.low < 6.0, "{found:?}");
    }

    #[test]
    fn one_value_everywhere_cannot_be_tested() {
        assert_eq!(shift(&[3.0; 5], &[3.0; 7]), None);
    }
}
