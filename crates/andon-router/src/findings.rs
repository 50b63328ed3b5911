//! What many pairs of answers say together: which fields differ, how often, and which of them differ by themselves. Pure.
//!
//! Noise is learned as Twitter's Diffy does: the revision that serves is asked the same thing twice, and a field in
//! which its own two answers differ about as often as the two revisions do says nothing about the new one. What is
//! noise may turn out later, so what is kept is which fields differed *together*: the count of different answers is
//! made from that whenever it is read.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use andon_traffic::{Difference, Differences, Field};

use crate::differ::Said;

/// Places told apart; further ones are one place.
const FIELDS: usize = 300;
/// The name of that one.
const FURTHER: &str = "(further fields)";
/// Sets of fields told apart. Beyond, an answer counts under the first field of its set.
const SETS: usize = 2000;
/// Samples of each field, the newest.
const SAMPLES: usize = 3;
/// A field is noise if the old revision differs from itself at least this many times less often than from the new one.
const FACTOR: u64 = 2;

/// Places and what both said there.
pub(crate) type Found = BTreeMap<String, Said>;

/// All that was found.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    compared: u64,
    /// Pairs of answers of the revision that serves.
    pairs: u64,
    index: HashMap<String, usize>,
    fields: Vec<Field>,
    sets: HashMap<Vec<usize>, u64>,
}

impl Findings {
    /// Two answers of the revision that serves were compared, and differ here.
    pub fn noise(&mut self, found: Found) {
        self.pairs += 1;
        let at: BTreeSet<usize> = found.into_keys().map(|at| self.place(at)).collect();
        for field in at {
            self.fields[field].noise_count += 1;
        }
    }

    /// An answer of the new revision was compared, and differs here.
    pub fn compared(&mut self, method: &str, path: &str, found: Found) {
        self.compared += 1;
        let mut set = BTreeSet::new();
        for (at, Said { primary, shadow }) in found {
            let at = self.place(at);
            let field = &mut self.fields[at];
            if set.insert(at) {
                field.count += 1;
            }
            if field.samples.len() == SAMPLES {
                field.samples.remove(0);
            }
            field.samples.push(Difference { method: method.into(), path: path.into(), primary, shadow });
        }
        let Some(first) = set.first().copied() else { return };
        let set: Vec<usize> = set.into_iter().collect();
        let set = if self.sets.len() < SETS || self.sets.contains_key(&set) { set } else { vec![first] };
        *self.sets.entry(set).or_default() += 1;
    }

    fn place(&mut self, at: String) -> usize {
        if let Some(known) = self.index.get(&at) {
            return *known;
        }
        let at = if self.fields.len() < FIELDS { at } else { FURTHER.to_owned() };
        *self.index.entry(at.clone()).or_insert_with(|| {
            self.fields.push(Field { at, ..Field::default() });
            self.fields.len() - 1
        })
    }

    /// What is known of a field by now. Without a second answer of the old revision nothing is noise.
    fn is_noise(&self, field: &Field) -> bool {
        let (of_new, of_old) = (field.count * self.pairs, field.noise_count * self.compared);
        field.noise_count > 0 && of_old * FACTOR >= of_new
    }

    /// Whether the next request should be asked twice: always at first, later one of ten.
    pub fn wants_pair(&self, turn: usize) -> bool {
        self.pairs < 200 || turn.is_multiple_of(10)
    }

    /// Writes all of it into what is read.
    pub fn tell(&self, told: &mut Differences) {
        let noise: Vec<bool> = self.fields.iter().map(|field| self.is_noise(field)).collect();
        let differing: u64 = self.sets.values().sum();
        let different: u64 = self
            .sets
            .iter()
            .filter(|(set, _)| set.iter().any(|at| !noise[*at]))
            .map(|(_, times)| times)
            .sum();
        told.compared = self.compared;
        told.different = different;
        told.noisy = differing - different;
        told.fields = self.fields.clone();
        told.fields.iter_mut().zip(noise).for_each(|(field, noise)| field.noise = noise);
        told.fields.sort_by(|a, b| (a.noise, b.count, &a.at).cmp(&(b.noise, a.count, &b.at)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(places: &[&str]) -> Found {
        let said = || Said { primary: "a".into(), shadow: "b".into() };
        places.iter().map(|place| ((*place).to_owned(), said())).collect()
    }

    fn told(findings: &Findings) -> Differences {
        let mut told = Differences::default();
        findings.tell(&mut told);
        told
    }

    #[test]
    fn a_field_that_always_differs_by_itself_does_not_count() {
        let mut findings = Findings::default();
        for n in 0..100 {
            findings.noise(found(&["body /time"]));
            let price = if n % 10 == 0 { &["body /price", "body /time"][..] } else { &["body /time"] };
            findings.compared("GET", "/", found(price));
        }
        let told = told(&findings);
        assert_eq!((told.compared, told.different, told.noisy), (100, 10, 90));
        let fields: Vec<_> = told.fields.iter().map(|f| (f.at.as_str(), f.count, f.noise)).collect();
        assert_eq!(fields, [("body /price", 10, false), ("body /time", 100, true)]);
        assert_eq!(told.fields[0].samples.len(), SAMPLES);
    }

    #[test]
    fn a_field_that_differs_now_and_then_by_itself_still_counts_when_it_always_differs_now() {
        let mut findings = Findings::default();
        for n in 0..100 {
            findings.noise(if n % 20 == 0 { found(&["body /stock"]) } else { found(&[]) });
            findings.compared("GET", "/", found(&["body /stock"]));
        }
        assert_eq!(told(&findings).different, 100);
    }

    #[test]
    fn noise_that_is_learned_late_is_taken_off_what_was_counted() {
        let mut findings = Findings::default();
        (0..50).for_each(|_| findings.compared("GET", "/", found(&["body /time"])));
        assert_eq!(told(&findings).different, 50, "nothing is known of noise yet");
        (0..5).for_each(|_| findings.noise(found(&["body /time"])));
        assert_eq!(told(&findings).different, 0);
    }

    #[test]
    fn memory_is_bounded_whatever_the_answers_say() {
        let mut findings = Findings::default();
        for n in 0..10_000 {
            let place = format!("body /{n}");
            findings.compared("GET", "/", found(&[&place, "status"]));
        }
        assert!(findings.fields.len() <= FIELDS + 1 && findings.sets.len() <= SETS + FIELDS + 1);
        assert_eq!(told(&findings).different, 10_000);
    }
}
