//! Scores an order of tests on a recorded history by the measures of the field, beside rules that anybody can have. Reads no file itself.
//!
//! With n tests in a cycle, m of them failing, r the ranks of those, c durations, C their sum. Cycles without a failure count nowhere.
//! - APFD = 1 − Σr/(n·m) + 1/(2n) (Rothermel et al., 2001), over cycles of at least six tests.
//! - APFDc = Σ over failing tests of (C − what ran before it − c/2) / (C·m) (Elbaum et al., 2001, with costs and without severities). A cycle that
//!   took no time at all scores its APFD.
//! - NAPFD at half the time (Spieker et al., 2017): only what fits into C/2 runs; what does not is passed over and the next one tried. With p the
//!   share of failures found, ranks among what ran: p − Σr/(n·m) + p/(2n).
//! - Early: the share of cycles whose first failure has ended within a quarter of the cycle's time.
//! - Early: the share of cycles in which a failing test has ended within a quarter of the cycle's time.

use std::collections::HashMap;

use super::history::History;
use super::split::Handout;

/// The least number of tests of a cycle that APFD is taken of.
const LEAST: usize = 6;
/// A first failure is early within this part of a cycle's time.
const EARLY: f64 = 0.25;
/// Times that ties are broken anew; means are taken over all.
pub const SEEDS: u64 = 10;

/// One result of a recorded history.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ran {
    /// Which test, as a number.
    pub test: u32,
    /// How long it took. Any unit, as long as it is the same everywhere.
    pub took: f64,
    /// Whether it failed.
    pub failed: bool,
}

/// How tests are put in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Andon's own.
    Andon,
    /// By chance.
    Random,
    /// What failed last first.
    LastFailed,
    /// What was quickest the last time first.
    Shortest,
}

impl Rule {
    /// All of them.
    pub const ALL: [Rule; 4] = [Rule::Andon, Rule::LastFailed, Rule::Shortest, Rule::Random];

    /// As people call it.
    pub fn name(self) -> &'static str {
        match self {
            Rule::Andon => "andon",
            Rule::Random => "random",
            Rule::LastFailed => "last failed",
            Rule::Shortest => "shortest first",
        }
    }
}

/// Means over the cycles of a history.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Scores {
    /// With half the cycle's time.
    pub napfd: f64,
    /// By ranks.
    pub apfd: f64,
    /// By time.
    pub apfdc: f64,
    /// Share of cycles whose first failure is known within a quarter of their time.
    pub early: f64,
    /// Cycles with a failure.
    pub cycles: usize,
    /// Those with at least six tests, of which APFD is the mean.
    pub large: usize,
}

/// The scores of one rule.
pub fn score(cycles: &[Vec<Ran>], rule: Rule) -> Scores {
    let all: Vec<Scores> = (0..SEEDS).map(|seed| once(cycles, rule, seed)).collect();
    let mean = |of: fn(&Scores) -> f64| all.iter().map(of).sum::<f64>() / all.len() as f64;
    Scores {
        napfd: mean(|s| s.napfd),
        apfd: mean(|s| s.apfd),
        apfdc: mean(|s| s.apfdc),
        early: mean(|s| s.early),
        ..all[0]
    }
}

/// What a rule remembers of a test.
#[derive(Debug, Clone, Copy, Default)]
struct Memory {
    history: History,
    last_failed: Option<usize>,
    last_took: f64,
}

fn once(cycles: &[Vec<Ran>], rule: Rule, seed: u64) -> Scores {
    let mut memory: HashMap<u32, Memory> = HashMap::new();
    let mut sums = Scores::default();
    for (at, cycle) in cycles.iter().enumerate() {
        let middle = middle(cycle.iter().filter_map(|ran| memory.get(&ran.test)).map(|m| m.history.usual));
        let tells = |ran: &Ran| match (rule, memory.get(&ran.test)) {
            (Rule::Andon, Some(known)) => known.history.tells(0.0),
            (Rule::Andon, None) => History::tells_new(middle.unwrap_or(1_000.0)),
            (Rule::LastFailed, known) => known.and_then(|m| m.last_failed).map_or(-1.0, |at| at as f64),
            (Rule::Shortest, known) => -known.map_or(0.0, |m| m.last_took),
            (Rule::Random, _) => 0.0,
        };
        let mut order: Vec<(f64, u64, &Ran)> = cycle
            .iter()
            .enumerate()
            .map(|(n, ran)| (tells(ran), mix(seed, at as u64, n as u64), ran))
            .collect();
        order.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let order: Vec<Ran> = order.into_iter().map(|(_, _, ran)| *ran).collect();
        add(&mut sums, &order);
        for ran in cycle {
            let known = memory.entry(ran.test).or_default();
            // Milliseconds: histories are published in seconds, and ten milliseconds are the least that Andon tells apart.
            known.history.learn(ran.failed, Some(ran.took * 1_000.0));
            known.last_took = ran.took;
            if ran.failed {
                known.last_failed = Some(at);
            }
        }
    }
    let (cycles, large) = (sums.cycles.max(1) as f64, sums.large.max(1) as f64);
    Scores {
        napfd: sums.napfd / cycles,
        apfd: sums.apfd / large,
        apfdc: sums.apfdc / cycles,
        early: sums.early / cycles,
        ..sums
    }
}

/// Adds one cycle, run in this order.
fn add(sums: &mut Scores, order: &[Ran]) {
    let failing = || order.iter().enumerate().filter(|(_, ran)| ran.failed).map(|(at, _)| at as f64 + 1.0);
    let (n, m) = (order.len() as f64, failing().count() as f64);
    if m == 0.0 {
        return;
    }
    let apfd = 1.0 - failing().sum::<f64>() / (n * m) + 1.0 / (2.0 * n);
    let whole: f64 = order.iter().map(|ran| ran.took).sum();
    let (mut before, mut area, mut first) = (0.0, 0.0, None);
    let (mut spent, mut ran_so_far, mut ranks, mut found) = (0.0, 0.0, 0.0, 0.0);
    for ran in order {
        if ran.failed {
            area += whole - before - ran.took / 2.0;
            first.get_or_insert(before + ran.took);
        }
        before += ran.took;
        if spent + ran.took <= whole / 2.0 {
            spent += ran.took;
            ran_so_far += 1.0;
            if ran.failed {
                ranks += ran_so_far;
                found += 1.0;
            }
        }
    }
    let share = found / m;
    sums.napfd += share - ranks / (n * m) + share / (2.0 * n);
    sums.apfdc += if whole > 0.0 { area / (whole * m) } else { apfd };
    sums.early += f64::from(u8::from(first.is_some_and(|first| first <= whole * EARLY)));
    sums.cycles += 1;
    if order.len() >= LEAST {
        sums.apfd += apfd;
        sums.large += 1;
    }
}

/// How much later than possible the last of so many shards ends, as a mean over the later half of a history: dealt out beforehand, and handed out.
/// The least possible is the longest test, or an even share of all.
pub fn split(cycles: &[Vec<Ran>], shards: usize) -> (f64, f64) {
    let mut memory: HashMap<u32, History> = HashMap::new();
    let (mut dealt, mut handed, mut counted) = (0.0, 0.0, 0.0);
    for (at, cycle) in cycles.iter().enumerate() {
        let middle = middle(memory.values().map(|history| history.usual)).unwrap_or(1_000.0);
        let expected: Vec<f64> =
            cycle.iter().map(|ran| memory.get(&ran.test).map_or(middle, |history| history.usual)).collect();
        let whole: f64 = cycle.iter().map(|ran| ran.took).sum();
        if at >= cycles.len() / 2 && whole > 0.0 {
            let least = (whole / shards as f64).max(cycle.iter().map(|ran| ran.took).fold(0.0, f64::max));
            let ends = |tests: &[usize]| tests.iter().map(|test| cycle[*test].took).sum::<f64>();
            dealt +=
                super::split::deal(&expected, shards).iter().map(|own| ends(own)).fold(0.0, f64::max) / least;
            let mut handout = Handout::new(expected, shards);
            let mut busy = vec![0.0f64; shards];
            loop {
                let piece = handout.take();
                if piece.is_empty() {
                    break;
                }
                if let Some(first) = busy.iter_mut().min_by(|a, b| a.total_cmp(b)) {
                    *first += ends(&piece);
                }
            }
            handed += busy.iter().copied().fold(0.0, f64::max) / least;
            counted += 1.0;
        }
        cycle
            .iter()
            .for_each(|ran| memory.entry(ran.test).or_default().learn(ran.failed, Some(ran.took * 1_000.0)));
    }
    (dealt / f64::max(counted, 1.0), handed / f64::max(counted, 1.0))
}

fn middle(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    let at = values.len() / 2;
    (!values.is_empty()).then(|| *values.select_nth_unstable_by(at, f64::total_cmp).1)
}

/// A number that looks like chance and is always the same for the same three (the finaliser of SplitMix64).
fn mix(seed: u64, cycle: u64, test: u64) -> u64 {
    let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)
        ^ cycle.wrapping_mul(0xd1b5_4a32_d192_ed03)
        ^ test.wrapping_mul(0x94d0_49bb_1331_11eb);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cycle(results: &[(f64, bool)]) -> Vec<Ran> {
        results
            .iter()
            .enumerate()
            .map(|(test, (took, failed))| Ran { test: test as u32, took: *took, failed: *failed })
            .collect()
    }

    fn of(results: &[(f64, bool)]) -> Scores {
        let mut sums = Scores::default();
        add(&mut sums, &cycle(results));
        sums
    }

    #[test]
    fn the_measures_are_those_of_their_definitions() {
        // Four tests, the second fails: r = 2, n = 4, m = 1; one second each.
        let scores = of(&[(1.0, false), (1.0, true), (1.0, false), (1.0, false)]);
        assert_eq!(scores.apfdc, (4.0 - 1.0 - 0.5) / 4.0);
        assert_eq!(scores.napfd, 1.0 - 2.0 / 4.0 + 1.0 / 8.0);
        assert_eq!((scores.large, scores.apfd), (0, 0.0), "fewer than six tests");
        let six = of(&[(1.0, true), (1.0, false), (1.0, false), (1.0, false), (1.0, false), (5.0, true)]);
        assert!((six.apfd - (1.0 - 7.0 / 12.0 + 1.0 / 12.0)).abs() < 1e-12);
        // Half of ten seconds: the last one does not fit any more, so half the failures are found.
        assert!((six.napfd - (0.5 - 1.0 / 12.0 + 0.5 / 12.0)).abs() < 1e-12);
    }

    #[test]
    fn a_failure_is_early_when_it_is_known_within_a_quarter_of_the_time() {
        assert_eq!(of(&[(1.0, true), (3.0, false)]).early, 1.0);
        assert_eq!(of(&[(1.5, true), (3.0, false)]).early, 0.0, "it is known when the test ends");
        assert_eq!(of(&[(1.0, false), (1.0, true), (6.0, true)]).early, 1.0);
    }

    #[test]
    fn what_does_not_fit_into_half_the_time_is_passed_over_and_the_next_one_tried() {
        let scores = of(&[(8.0, false), (1.0, true), (1.0, false)]);
        assert!((scores.napfd - (1.0 - 1.0 / 3.0 + 1.0 / 6.0)).abs() < 1e-12);
    }

    #[test]
    fn a_cycle_without_failures_counts_nowhere_and_one_without_time_scores_its_ranks() {
        assert_eq!(of(&[(1.0, false)]), Scores::default());
        let scores = of(&[(0.0, true), (0.0, false)]);
        assert_eq!(scores.apfdc, 1.0 - 0.5 + 0.25);
    }

    #[test]
    fn on_a_history_where_one_test_always_fails_every_memory_beats_chance() {
        let cycles: Vec<Vec<Ran>> =
            (0..30).map(|_| cycle(&(0..20).map(|n| (1.0, n == 17)).collect::<Vec<_>>())).collect();
        let apfd = |rule| score(&cycles, rule).apfd;
        assert!(apfd(Rule::Andon) > 0.93 && apfd(Rule::LastFailed) > 0.93);
        assert!((0.4..0.6).contains(&apfd(Rule::Random)));
    }
}
