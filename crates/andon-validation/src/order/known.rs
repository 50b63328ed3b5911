//! All that is remembered of a project's tests, found by the names that runners use. Ranks nothing.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, Hasher};

use super::history::History;
use super::names;

/// Tests that are remembered at most; of more the rest is new each time.
pub const MOST: usize = 500_000;

/// A map whose hash is quick, and still another one in every process.
pub(super) type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// What is remembered, by key.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Sorted, for what a name is the beginning of.
    keys: Vec<String>,
    /// Of each key, in the same order.
    histories: Vec<History>,
    /// Where in both a key stands, by the hash of its parts. Keys are not compared: names are looked up by the ten thousand and memory is slow, and that two of half a
    /// million have the same one of 2^64 hashes, which are others in each process, happens once in a hundred million times and puts one test at a wrong place.
    places: Map<u64, u32>,
    seed: foldhash::fast::RandomState,
}

impl PartialEq for Known {
    fn eq(&self, other: &Known) -> bool {
        self.keys == other.keys && self.histories == other.histories
    }
}

/// What is remembered under a name.
#[derive(Debug, Clone, PartialEq)]
pub enum Found<'a> {
    /// Of the test itself.
    Test(&'a History),
    /// Of so many tests in the file or class of that name, as one.
    Group(Box<History>, u32),
    /// Nothing.
    New,
}

impl Found<'_> {
    /// The history, if there is one.
    pub fn history(&self) -> Option<&History> {
        match self {
            Found::Test(history) => Some(history),
            Found::Group(history, _) => Some(history),
            Found::New => None,
        }
    }
}

impl Known {
    /// Puts it together.
    pub fn of(tests: impl IntoIterator<Item = (String, History)>) -> Known {
        let tests: BTreeMap<String, History> = tests.into_iter().take(MOST).collect();
        let mut known = Known::default();
        for ((key, history), at) in tests.into_iter().zip(0u32..) {
            known.places.insert(known.hash(0, key.split('.')), at);
            known.keys.push(key);
            known.histories.push(history);
        }
        known
    }

    /// Reads what [`Known::write`] wrote. Lines that are none are left out; how many is the second value.
    pub fn read(text: &str) -> (Known, usize) {
        let mut odd = 0;
        let mut tests = Vec::new();
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            match serde_json::from_str::<(Cow<'_, str>, History)>(line) {
                Ok((test, history)) => tests.push((test.into_owned(), history)),
                Err(_) => odd += 1,
            }
        }
        (Known::of(tests), odd)
    }

    /// One test a line, in order of keys: `["a.b",{"q":0.0,"s":0.0,"ms":12.0,"n":3,"f":0,"r":0}]`.
    pub fn write(&self) -> String {
        let mut text = String::new();
        for entry in self.iter() {
            text += &serde_json::to_string(&entry).unwrap_or_default();
            text.push('\n');
        }
        text
    }

    /// What is remembered of a test, or of the file or class that has this name.
    pub fn find(&self, name: &str) -> Found<'_> {
        self.at(self.hash(0, names::parts(name)), name)
    }

    /// The same of many. All hashes are made before the first is looked for: the looks do not wait for each other then. What tests have before their last part
    /// is shared by many, and read once.
    pub fn find_all(&self, tests: &[&str]) -> Vec<Found<'_>> {
        let mut folders: Map<&str, u64> = Map::default();
        let mut last = ("", 0);
        let mut hashes = Vec::with_capacity(tests.len());
        for test in tests {
            let (folder, own) = test.split_at(names::last_part(test));
            if folder != last.0 {
                let hash = folders.entry(folder).or_insert_with(|| self.hash(0, names::parts(folder)));
                last = (folder, *hash);
            }
            hashes.push(self.hash(last.1, names::parts(own)));
        }
        hashes.into_iter().zip(tests).map(|(hash, name)| self.at(hash, name)).collect()
    }

    /// Of parts of a name that follow on parts with the hash `before`.
    fn hash<'a>(&self, before: u64, parts: impl Iterator<Item = &'a str>) -> u64 {
        parts.fold(before, |before, part| {
            let mut hasher = self.seed.build_hasher();
            hasher.write_u64(before);
            hasher.write(part.as_bytes());
            hasher.finish()
        })
    }

    fn at(&self, hash: u64, name: &str) -> Found<'_> {
        match self.places.get(&hash) {
            Some(at) => Found::Test(&self.histories[*at as usize]),
            None => self.group(&names::key(name)),
        }
    }

    fn group(&self, key: &str) -> Found<'_> {
        if key.is_empty() {
            return Found::New;
        }
        let begin = format!("{key}.");
        let from = self.keys.partition_point(|other| other.as_str() < begin.as_str());
        let tests = self.keys[from..].iter().take_while(|other| other.starts_with(&begin)).count();
        let inside = self.histories[from..from + tests].iter().copied();
        match inside.reduce(|whole, own| whole.with(&own)) {
            Some(whole) => Found::Group(Box::new(whole), tests as u32),
            None => Found::New,
        }
    }

    /// Every test, in order of keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &History)> {
        self.keys.iter().map(String::as_str).zip(&self.histories)
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Known {
        let history = |failed, millis| {
            let mut history = History::default();
            history.learn(failed, Some(millis));
            history
        };
        Known::of([
            ("tests.test_app.test_a".into(), history(false, 10.0)),
            ("tests.test_app.test_b".into(), history(true, 20.0)),
            ("tests.test_apple.test_c".into(), history(true, 40.0)),
        ])
    }

    #[test]
    fn a_file_is_all_its_tests_and_no_other_files() {
        let known = known();
        let Found::Group(file, tests) = known.find("tests/test_app.py") else { panic!() };
        assert_eq!((tests, file.usual, file.quick), (2, 30.0, 1.0));
        assert!(matches!(known.find("tests/test_app.py::test_a"), Found::Test(_)));
        for new in ["tests/test_new.py", "", "::", "tests/test_ap"] {
            assert_eq!(known.find(new), Found::New, "{new}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_name_is_found_by_its_key_alone_or_among_many(names in proptest::collection::vec("[ab:/#> .pyÉ›$]{0,12}", 1..30)) {
            let keyed = |name: &String| Some((names::key(name), History { ran: name.len() as u32, ..History::default() })).filter(|(key, _)| !key.is_empty());
            let known = Known::of(names.iter().step_by(2).filter_map(keyed));
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let all = known.find_all(&names);
            for (name, found) in names.iter().zip(&all) {
                let by_key = known.iter().find(|(key, _)| *key == names::key(name)).map(|(_, history)| history);
                proptest::prop_assert_eq!(found, &known.find(name));
                proptest::prop_assert_eq!(by_key, match found { Found::Test(history) => Some(*history), _ => None });
            }
        }
    }

    #[test]
    fn a_history_travels_as_lines_and_a_torn_one_loses_only_what_is_torn() {
        let text = known().write();
        assert_eq!(Known::read(&text), (known(), 0));
        let torn = &text[..text.len() - 5];
        let (left, odd) = Known::read(torn);
        assert_eq!((left.len(), odd), (2, 1));
        assert_eq!(Known::read("not json\n{}\n[1]\n").1, 3);
    }
}
