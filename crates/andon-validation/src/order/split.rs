//! Deals tests out to shards so that all end at about the same time. Runs none.
//!
//! Two ways: [`deal`] fixes beforehand who runs what, longest first onto whoever has least (Graham's rule: at most 4/3 of the best when
//! durations are as expected); [`Handout`] gives out pieces while shards ask, large ones first, so that durations that are not
//! as expected even out.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::known::Known;
use super::names;

/// How long a test takes that nobody saw run, where nothing is known, in milliseconds.
const UNKNOWN: f64 = 1_000.0;
/// A piece is this part of what one shard would get of the rest.
pub(crate) const PART: f64 = 0.5;

/// How long each test will take, in milliseconds: as it usually does; a new one as the middle one of its folder, or of the nearest above it.
pub fn expected(tests: &[&str], known: &Known) -> Vec<f64> {
    let usual: Vec<Option<f64>> =
        known.find_all(tests).iter().map(|found| found.history().map(|history| history.usual)).collect();
    if usual.iter().all(Option::is_some) {
        return usual.into_iter().flatten().collect();
    }
    let mut folders: std::collections::HashMap<&str, Vec<f64>> = std::collections::HashMap::new();
    for (key, history) in known.iter() {
        above(key).for_each(|folder| folders.entry(folder).or_default().push(history.usual));
    }
    let middles: std::collections::HashMap<&str, f64> =
        folders.into_iter().map(|(folder, mut all)| (folder, middle(&mut all))).collect();
    let guess = |test: &str| {
        above(&names::key(test)).find_map(|folder| middles.get(folder).copied()).unwrap_or(UNKNOWN)
    };
    tests.iter().zip(usual).map(|(test, millis)| millis.unwrap_or_else(|| guess(test))).collect()
}

/// What a key lies in, from near to far, the whole project (empty) last.
fn above(key: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(key);
    std::iter::from_fn(move || {
        let now = rest?;
        if now.is_empty() {
            rest = None;
            return None;
        }
        let up = now.rsplit_once('.').map_or("", |(up, _)| up);
        rest = Some(up);
        Some(up)
    })
}

fn middle(values: &mut [f64]) -> f64 {
    let at = values.len() / 2;
    *values.select_nth_unstable_by(at, f64::total_cmp).1
}

/// Who runs what: for each of `shards` the places of its tests, in the order given. Nobody's work depends on what the others do.
pub fn deal(millis: &[f64], shards: usize) -> Vec<Vec<usize>> {
    let mut dealt = vec![Vec::new(); shards.max(1)];
    let mut least: BinaryHeap<Reverse<(Load, usize)>> =
        (0..dealt.len()).map(|shard| Reverse((Load(0.0), shard))).collect();
    for test in longest_first(millis) {
        let Some(Reverse((Load(load), shard))) = least.pop() else { break };
        dealt[shard].push(test);
        // What takes no time at all still takes its turn: else one shard would get all of them.
        least.push(Reverse((Load(load + millis[test].max(1e-3)), shard)));
    }
    dealt.iter_mut().for_each(|tests| tests.sort_unstable());
    dealt
}

/// Places of tests, those first that take longest.
pub fn longest_first(millis: &[f64]) -> Vec<usize> {
    let mut tests: Vec<usize> = (0..millis.len()).collect();
    tests.sort_by(|a, b| millis[*b].total_cmp(&millis[*a]).then(a.cmp(b)));
    tests
}

/// A sum of milliseconds, ordered.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Load(f64);

impl Eq for Load {}
impl PartialOrd for Load {
    fn partial_cmp(&self, other: &Load) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Load {
    fn cmp(&self, other: &Load) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// Tests that are given out while shards ask for them.
#[derive(Debug, Clone)]
pub struct Handout {
    /// Longest first.
    left: std::collections::VecDeque<usize>,
    millis: Vec<f64>,
    rest: f64,
    shards: usize,
}

impl Handout {
    /// Everything is still to be given out.
    pub fn new(millis: Vec<f64>, shards: usize) -> Handout {
        let left = longest_first(&millis).into();
        Handout { left, rest: millis.iter().sum(), millis, shards: shards.max(1) }
    }

    /// The next piece for a shard that has nothing to do; empty when all is given out. Large at first, in the end one test.
    pub fn take(&mut self) -> Vec<usize> {
        let most = self.rest / self.shards as f64 * PART;
        let (mut piece, mut sum) = (Vec::new(), 0.0);
        while let Some(test) = self.left.front().copied() {
            if !piece.is_empty() && sum + self.millis[test] > most {
                break;
            }
            self.left.pop_front();
            sum += self.millis[test];
            piece.push(test);
        }
        self.rest = (self.rest - sum).max(0.0);
        piece
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::History;
    use proptest::prelude::*;

    #[test]
    fn a_new_test_is_expected_to_take_as_long_as_those_beside_it() {
        let with = |millis| {
            let mut history = History::default();
            history.learn(false, Some(millis));
            history
        };
        let known = Known::of([
            ("unit.a.x".into(), with(10.0)),
            ("unit.a.y".into(), with(20.0)),
            ("e2e.z".into(), with(5_000.0)),
        ]);
        let tests =
            ["unit/a/x.py", "unit/a/y.py", "unit/a/new.py", "unit/b/new.py", "e2e/new.py", "other.py"];
        let expected = expected(&tests, &known);
        assert_eq!(expected[..3], [10.0, 20.0, 20.0]);
        assert_eq!((expected[3], expected[4], expected[5]), (20.0, 5_000.0, 20.0));
        assert_eq!(super::expected(&["a"], &Known::default()), [UNKNOWN]);
    }

    fn ends(millis: &[f64], shards: &[Vec<usize>]) -> f64 {
        shards.iter().map(|tests| tests.iter().map(|test| millis[*test]).sum::<f64>()).fold(0.0, f64::max)
    }

    proptest! {
        #[test]
        fn every_test_is_dealt_once_and_nobody_ends_much_later_than_possible(
            millis in proptest::collection::vec(0.0..1e4, 0..200), shards in 1usize..33,
        ) {
            let dealt = deal(&millis, shards);
            let mut all: Vec<usize> = dealt.concat();
            all.sort_unstable();
            prop_assert_eq!(all, (0..millis.len()).collect::<Vec<_>>());
            let least = (millis.iter().sum::<f64>() / shards as f64).max(millis.iter().copied().fold(0.0, f64::max));
            prop_assert!(ends(&millis, &dealt) <= least * 4.0 / 3.0 + least / 3.0 + 1.0);
        }

        #[test]
        fn every_test_is_handed_out_once(millis in proptest::collection::vec(0.0..1e4, 0..200), shards in 1usize..33) {
            let mut handout = Handout::new(millis.clone(), shards);
            let mut all = Vec::new();
            loop {
                let piece = handout.take();
                if piece.is_empty() {
                    break;
                }
                all.extend(piece);
            }
            all.sort_unstable();
            prop_assert_eq!(all, (0..millis.len()).collect::<Vec<_>>());
        }
    }

    #[test]
    fn pieces_are_large_at_first_and_single_tests_in_the_end() {
        let mut handout = Handout::new(vec![10.0; 64], 4);
        let sizes: Vec<usize> =
            std::iter::from_fn(|| Some(handout.take().len()).filter(|size| *size > 0)).collect();
        assert_eq!(sizes.first(), Some(&8));
        assert_eq!(sizes.last(), Some(&1));
        assert!(sizes.windows(2).all(|pair| pair[0] >= pair[1]));
    }
}
