//! Puts tests in the order of what they tell per second, and says of each in a sentence why it stands where it does.

use super::history::History;
use super::known::{Found, Known};
use super::near::Near;

/// What nearness to the change counts for at most: as much as a failure some forty runs ago. A test that never failed is as good as near.
const NEAR: f64 = 0.02;
/// How long a test takes of which nothing is known, where nothing is known at all, in milliseconds.
const UNKNOWN: f64 = 1_000.0;

/// A test and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranked {
    /// Its place in what was asked.
    pub index: usize,
    /// What it tells per second: only to be compared.
    pub tells: f64,
}

/// The tests in order, and what decided it.
#[derive(Debug)]
pub struct Order<'a> {
    /// First what tells most.
    pub ranked: Vec<Ranked>,
    changed: &'a [String],
    /// Of each test, in the order in which they were asked for.
    found: Vec<Found<'a>>,
    near: Near,
    /// How long a new one is expected to take.
    new: f64,
}

/// Orders the tests. `changed` are the paths that the change touches, as git names them; equal ones stay as they were
/// given, so that the same list with the same history always has the same order.
pub fn order<'a>(tests: &[&str], known: &'a Known, changed: &'a [String]) -> Order<'a> {
    let near = Near::of(tests, changed);
    let found = known.find_all(tests);
    let new = middle(found.iter().filter_map(Found::history).map(|history| history.usual)).unwrap_or(UNKNOWN);
    let tells = |(index, found): (usize, &Found<'_>)| match (found.history(), near.of_test(index).0) {
        (Some(history), close) => history.tells(NEAR * close),
        (None, close) => History::tells_new(new) * (1.0 + close),
    };
    // What is sorted is small: a number that grows as `tells` falls, and the place.
    let mut places: Vec<(u64, u32)> = found.iter().enumerate().map(tells).map(falling).zip(0u32..).collect();
    places.sort_unstable();
    let ranked = places
        .into_iter()
        .map(|(number, at)| Ranked { index: at as usize, tells: f64::from_bits(rising(number)) })
        .collect();
    Order { ranked, changed, found, near, new }
}

/// A number whose order is the opposite of this one's.
fn falling(value: f64) -> u64 {
    let bits = value.to_bits();
    // As `f64::total_cmp` has it: the bits of negative ones are turned round, the others' sign is.
    !(if bits >> 63 == 1 { !bits } else { bits | 1 << 63 })
}

/// The bits of the number that fell to this one.
fn rising(number: u64) -> u64 {
    let bits = !number;
    if bits >> 63 == 1 { bits & !(1 << 63) } else { !bits }
}

impl Order<'_> {
    /// How long this one takes, in milliseconds, as far as anybody knows.
    pub fn millis(&self, of: &Ranked) -> f64 {
        self.found.get(of.index).and_then(Found::history).map_or(self.new, |history| history.usual)
    }

    /// Why this one stands where it does, in a sentence.
    pub fn why(&self, of: &Ranked) -> String {
        let Some(found) = self.found.get(of.index) else { return String::new() };
        let takes = || format!("takes {}", shown(self.millis(of)));
        let near = self.near.of_test(of.index).1;
        let near = near.and_then(|at| self.changed.get(at)).map(|path| format!("near {path}, which changed"));
        match (found, near) {
            (Found::New, Some(near)) => format!("nobody saw it run yet; {near}"),
            (Found::New, None) => "nobody saw it run yet".into(),
            (Found::Test(_) | Found::Group(..), near) => {
                let Some(history) = found.history() else { return String::new() };
                let (failed, runs) = history.lately();
                let which = match found {
                    Found::Group(_, tests) => format!("of its {tests} tests at least one "),
                    _ => String::new(),
                };
                let failed = match (history.since_failure(), failed) {
                    (Some(0), 1) => format!("{which}failed in the last run"),
                    (Some(0), n) => format!("{which}failed in the last run, and in {n} of the last {runs}"),
                    (Some(ago), 1) => format!("{which}failed {}", runs_ago(ago)),
                    (Some(ago), n) => {
                        format!("{which}failed in {n} of the last {runs} runs, last {}", runs_ago(ago))
                    }
                    (None, _) if history.failed > 0 => format!("{which}failed more than {runs} runs ago"),
                    (None, _) => format!("did not fail in {} runs", history.ran),
                };
                match near {
                    Some(near) => format!("{failed}; {near}; {}", takes()),
                    None => format!("{failed}; {}", takes()),
                }
            }
        }
    }
}

/// The middle one, in no order; none of none.
fn middle(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    let at = values.len() / 2;
    (!values.is_empty()).then(|| *values.select_nth_unstable_by(at, f64::total_cmp).1)
}

fn runs_ago(runs: u32) -> String {
    if runs == 1 { "one run ago".into() } else { format!("{runs} runs ago") }
}

fn shown(millis: f64) -> String {
    match millis {
        m if m < 1_000.0 => format!("{m:.0} ms"),
        m if m < 60_000.0 => format!("{:.1} s", m / 1_000.0),
        m => format!("{:.1} min", m / 60_000.0),
    }
}

#[cfg(test)]
mod tests {
    use super::super::names;
    use super::*;
    use proptest::prelude::*;

    fn known(tests: &[(&str, &str, f64)]) -> Known {
        Known::of(tests.iter().map(|(name, results, millis)| {
            let mut history = History::default();
            results.chars().for_each(|result| history.learn(result == 'x', Some(*millis)));
            (names::key(name), history)
        }))
    }

    fn says(tests: &[&str], known: &Known, changed: &[&str]) -> Vec<String> {
        let changed: Vec<String> = changed.iter().map(|path| (*path).to_owned()).collect();
        let order = order(tests, known, &changed);
        order.ranked.iter().map(|ranked| format!("{}: {}", tests[ranked.index], order.why(ranked))).collect()
    }

    #[test]
    fn what_tells_most_per_second_goes_first_and_every_rank_is_explained() {
        let known = known(&[
            ("app slow", "....", 30_000.0),
            ("app quick", "....", 15.0),
            ("app pay::refund", "....", 400.0),
            ("app broken", "...x", 900.0),
            ("app shaky", "x.x.", 900.0),
        ]);
        let tests = ["app slow", "app quick", "app pay::refund", "app new", "app shaky", "app broken"];
        assert_eq!(
            says(&tests, &known, &["src/pay.rs"]),
            [
                "app broken: failed in the last run; takes 900 ms",
                "app new: nobody saw it run yet",
                "app shaky: failed in 2 of the last 4 runs, last one run ago; takes 900 ms",
                "app pay::refund: did not fail in 4 runs; near src/pay.rs, which changed; takes 400 ms",
                "app quick: did not fail in 4 runs; takes 15 ms",
                "app slow: did not fail in 4 runs; takes 30.0 s",
            ]
        );
    }

    #[test]
    fn a_word_that_all_tests_share_does_not_make_one_near() {
        let tests: Vec<String> = (0..50)
            .map(|n| format!("shop/cart/test_{n}x.py"))
            .chain(["shop/mail/test_send.py".into()])
            .collect();
        let tests: Vec<&str> = tests.iter().map(String::as_str).collect();
        let changed = ["shop/mail.py".to_owned()];
        let known = Known::default();
        let order = order(&tests, &known, &changed);
        assert_eq!(tests[order.ranked[0].index], "shop/mail/test_send.py");
        assert_eq!(
            order.ranked.iter().filter(|ranked| order.near.of_test(ranked.index).1.is_some()).count(),
            1
        );
    }

    proptest! {
        #[test]
        fn numbers_fall_as_they_should(a in proptest::num::f64::ANY, b in proptest::num::f64::ANY) {
            prop_assert_eq!(falling(a).cmp(&falling(b)), b.total_cmp(&a));
            prop_assert_eq!(rising(falling(a)), a.to_bits());
        }

        #[test]
        fn every_test_is_ordered_once_whatever_is_known(
            tests in proptest::collection::vec("[a-c:/. ]{0,8}", 0..40),
            known_ones in proptest::collection::vec(("[a-c.]{1,6}", "[.x]{0,5}", 0.0..1e6), 0..20),
            changed in proptest::collection::vec("[a-c/.]{0,8}", 0..4),
        ) {
            let known_ones: Vec<(&str, &str, f64)> = known_ones.iter().map(|(a, b, c)| (a.as_str(), b.as_str(), *c)).collect();
            let tests: Vec<&str> = tests.iter().map(String::as_str).collect();
            let known = known(&known_ones);
            let order = order(&tests, &known, &changed);
            let mut places: Vec<usize> = order.ranked.iter().map(|ranked| ranked.index).collect();
            places.sort_unstable();
            prop_assert_eq!(places, (0..tests.len()).collect::<Vec<_>>());
            prop_assert!(order.ranked.windows(2).all(|pair| pair[0].tells >= pair[1].tells));
            prop_assert!(order.ranked.iter().all(|ranked| !order.why(ranked).is_empty()));
        }
    }
}
