//! What is remembered of one test: how often it fails, lately and at all, and how long it takes. Knows no names.
//!
//! The numbers below were chosen on two histories of the Dune project (Debian 11, Ubuntu 20.04) and are frozen: `andon tests evaluate` scores
//! any other history with them. Two decayed averages do what one does not: the quick one puts what broke just now first, the slow
//! one keeps order among what breaks now and then.

use serde::{Deserialize, Serialize};

/// Weight of the newest result in the quick average.
const QUICK: f64 = 0.7;
/// In the slow one.
const SLOW: f64 = 0.05;
/// What the slow average counts for, beside the quick one.
const SLOW_COUNTS: f64 = 1.0;
/// Chance of failing that a test has that nobody saw run: it goes before all that passed for long.
const NEW: f64 = 0.4;
/// Keeps those that never failed in the order of their durations.
const NEVER: f64 = 1e-6;
/// Weight of the newest duration.
const NEWEST: f64 = 0.2;
/// Shorter durations than this, in milliseconds, are as good as this: below it a runner's own work decides.
const SHORTEST: f64 = 10.0;
/// Results that an explanation looks back on.
const RECENT: u32 = 16;

/// What is remembered of a test.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct History {
    /// The quick average of failing, 0 to 1.
    #[serde(rename = "q")]
    pub quick: f64,
    /// The slow one.
    #[serde(rename = "s")]
    pub slow: f64,
    /// How long it takes, in milliseconds: a decayed average.
    #[serde(rename = "ms")]
    pub usual: f64,
    /// How often it ran.
    #[serde(rename = "n")]
    pub ran: u32,
    /// How often it failed.
    #[serde(rename = "f", default)]
    pub failed: u32,
    /// Its last results, the newest in the lowest bit; a one is a failure.
    #[serde(rename = "r", default)]
    pub recent: u16,
}

impl History {
    /// Takes in a result. A duration that is not known teaches nothing.
    pub fn learn(&mut self, failed: bool, millis: Option<f64>) {
        let now = f64::from(u8::from(failed));
        let first = self.ran == 0;
        self.ran = self.ran.saturating_add(1);
        // The weight grows with what is missing: else the first result of a test would count for years in the slow average.
        let weight = |newest: f64| newest / (1.0 - (1.0 - newest).powf(f64::from(self.ran)));
        let towards = |old: f64, newest: f64| old + weight(newest) * (now - old);
        (self.quick, self.slow) = (towards(self.quick, QUICK), towards(self.slow, SLOW));
        if let Some(millis) = millis.filter(|millis| millis.is_finite() && *millis >= 0.0) {
            self.usual = if first { millis } else { self.usual + NEWEST * (millis - self.usual) };
        }
        self.failed = self.failed.saturating_add(u32::from(failed));
        self.recent = self.recent << 1 | u16::from(failed);
    }

    /// What running it tells per second, without a unit: higher goes first. `near`, 0 to 1, is how much its names are those of what changed.
    pub fn tells(&self, near: f64) -> f64 {
        (self.quick + SLOW_COUNTS * self.slow + NEVER + near) / self.usual.max(SHORTEST).sqrt().sqrt()
    }

    /// What a test tells that nobody saw run, when tests take this long.
    pub fn tells_new(millis: f64) -> f64 {
        NEW * (1.0 + SLOW_COUNTS) / millis.max(SHORTEST).sqrt().sqrt()
    }

    /// Both as one: a file or class with these tests in it fails when one of them does, and takes as long as all.
    pub fn with(&self, other: &History) -> History {
        let either = |a: f64, b: f64| 1.0 - (1.0 - a) * (1.0 - b);
        History {
            quick: either(self.quick, other.quick),
            slow: either(self.slow, other.slow),
            usual: self.usual + other.usual,
            ran: self.ran.max(other.ran),
            failed: self.failed.max(other.failed),
            recent: self.recent | other.recent,
        }
    }

    /// Failures among its last results, and how many those are.
    pub fn lately(&self) -> (u32, u32) {
        (self.recent.count_ones(), self.ran.min(RECENT))
    }

    /// Runs since it last failed, 0 when that was the newest; none when it did not lately.
    pub fn since_failure(&self) -> Option<u32> {
        (self.recent != 0).then(|| self.recent.trailing_zeros())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(results: &str, millis: f64) -> History {
        let mut history = History::default();
        results.chars().for_each(|result| history.learn(result == 'x', Some(millis)));
        history
    }

    #[test]
    fn what_failed_just_now_tells_more_than_what_failed_long_ago() {
        assert!(history("...x", 100.0).tells(0.0) > history("x...", 100.0).tells(0.0));
        assert!(history("x..x", 100.0).tells(0.0) > history("...x", 100.0).tells(0.0));
    }

    #[test]
    fn of_two_that_never_failed_the_quick_one_goes_first_and_a_new_one_before_both() {
        let (quick, slow) = (history("...", 20.0), history("...", 9_000.0));
        assert!(quick.tells(0.0) > slow.tells(0.0));
        assert!(History::tells_new(9_000.0) > quick.tells(0.0));
        assert!(slow.tells(0.02) > quick.tells(0.0), "nearness to the change weighs more than time");
    }

    #[test]
    fn a_folder_fails_when_one_of_its_tests_does() {
        let both = history("..x", 10.0).with(&history("...", 30.0));
        assert_eq!(both.usual, 40.0);
        assert_eq!(both.quick, history("..x", 10.0).quick);
        assert_eq!((both.lately(), both.since_failure()), ((1, 3), Some(0)));
    }

    #[test]
    fn nonsense_durations_teach_nothing() {
        let mut known = history("..", 10.0);
        for millis in [f64::NAN, f64::INFINITY, -5.0] {
            known.learn(false, Some(millis));
        }
        assert_eq!((known.usual, known.ran), (10.0, 5));
    }
}
