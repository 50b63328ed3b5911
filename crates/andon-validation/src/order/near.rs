//! How near tests are to what changed: words that their names share with changed paths, of which rare ones count more. Ranks nothing.

use super::known::Map;
use super::names;

/// Nearness below this is chance.
const BARELY: f64 = 0.15;

/// Of a test that is near to nothing that changed.
const FAR: (f64, Option<usize>) = (0.0, None);

/// How near each test is. Every name is taken apart once; tests that share the same words are compared once.
#[derive(Debug)]
pub(super) struct Near {
    /// Of each test the place of its answer; empty where nothing changed.
    places: Vec<u32>,
    /// From 0 to 1, and the path that it is nearest to.
    answers: Vec<(f64, Option<usize>)>,
}

impl Near {
    pub fn of(tests: &[&str], changed: &[String]) -> Near {
        let mut numbers: Map<String, u32> = Map::default();
        let mut counts: Vec<(f64, Vec<u32>)> = Vec::new();
        for (path, at) in changed.iter().zip(0u32..) {
            names::words(path, |word| {
                let next = counts.len() as u32;
                let number = *numbers.entry(word.to_owned()).or_insert(next);
                if number == next {
                    counts.push((0.0, Vec::new()));
                }
                let paths = &mut counts[number as usize].1;
                if paths.last() != Some(&at) {
                    paths.push(at);
                }
            });
        }
        let (mut words, mut ends) = (Vec::<u32>::new(), Vec::with_capacity(tests.len()));
        if !counts.is_empty() {
            // Most words are in no changed path: one bit of the first byte and the length says so without a hash.
            let bit = |word: &str| match word.as_bytes().first() {
                Some(first) if word.is_ascii() => {
                    1u64 << ((usize::from(first.to_ascii_lowercase()).wrapping_mul(7) + word.len()) % 64)
                }
                _ => u64::MAX,
            };
            let filter = numbers.keys().fold(0, |all, word| all | bit(word));
            let mut lower = String::new();
            let mut read = |text: &str, words: &mut Vec<u32>, begin: usize| {
                names::all_words(text, |word| {
                    if filter & bit(word) == 0 {
                        return;
                    }
                    lower.clear();
                    if word.is_ascii() {
                        lower.push_str(word);
                        lower.make_ascii_lowercase();
                    } else {
                        lower.extend(word.chars().flat_map(char::to_lowercase));
                    }
                    if let Some(number) = numbers.get(lower.as_str())
                        && !words[begin..].contains(number)
                    {
                        words.push(*number);
                    }
                });
            };
            let mut folders: Map<&str, (usize, usize)> = Map::default();
            let mut last = ("", (0, 0));
            for test in tests {
                let (folder, own) = test.split_at(names::last_part(test));
                let begin = words.len();
                if folder != last.0 {
                    last.0 = folder;
                    last.1 = *folders.entry(folder).or_insert_with(|| {
                        read(folder, &mut words, begin);
                        (begin, words.len())
                    });
                }
                if last.1.0 != begin {
                    words.extend_from_within(last.1.0..last.1.1);
                }
                read(own, &mut words, begin);
                words[begin..].iter().for_each(|word| counts[*word as usize].0 += 1.0);
                ends.push(words.len());
            }
        }
        let all = tests.len() as f64;
        let mut sums = vec![0.0; changed.len()];
        for (count, paths) in &mut counts {
            *count = ((1.0 + all) / (1.0 + *count)).ln();
            paths.iter().for_each(|path| sums[*path as usize] += *count);
        }
        let mut near = Near { places: Vec::with_capacity(ends.len()), answers: vec![FAR] };
        let mut known: Map<&[u32], u32> = Map::default();
        let mut both = vec![0.0; changed.len()];
        let mut begin = 0;
        for end in ends {
            let own = &words[begin..end];
            begin = end;
            let place = match own {
                [] => 0,
                own => *known.entry(own).or_insert_with(|| {
                    near.answers.push(nearest(own, &counts, &sums, &mut both));
                    near.answers.len() as u32 - 1
                }),
            };
            near.places.push(place);
        }
        near
    }

    /// Of the test at this place: from 0 to 1, and the path that it is nearest to.
    pub fn of_test(&self, index: usize) -> (f64, Option<usize>) {
        self.places.get(index).and_then(|place| self.answers.get(*place as usize)).copied().unwrap_or(FAR)
    }
}

/// What these words are nearest to. `both` is room for sums: zeros before and after.
fn nearest(own: &[u32], counts: &[(f64, Vec<u32>)], sums: &[f64], both: &mut [f64]) -> (f64, Option<usize>) {
    for word in own {
        let (count, paths) = &counts[*word as usize];
        paths.iter().for_each(|path| both[*path as usize] += count);
    }
    let mut best = FAR;
    for (at, (both, sum)) in both.iter_mut().zip(sums).enumerate() {
        let share = if *sum > 0.0 { *both / sum } else { 0.0 };
        if share >= BARELY && share > best.0 {
            best = (share, Some(at));
        }
        *both = 0.0;
    }
    best
}
