//! All that is remembered of a project's tests, found by the names that runners use. Ranks nothing.

use std::borrow::Cow;
use std::collections::HashMap;

use super::history::History;
use super::names;

/// Tests that are remembered at most; of more the rest is new each time.
pub const MOST: usize = 500_000;

/// A map whose hash is quick, and still another one in every process.
pub(super) type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// What is remembered, by key.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Known {
    tests: Map<String, History>,
    /// Sorted, for what a name is the beginning of.
    sorted: Vec<String>,
}

/// What is remembered under a name.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Found {
    /// Of the test itself.
    Test(History),
    /// Of so many tests in the file or class of that name, as one.
    Group(History, u32),
    /// Nothing.
    New,
}

impl Found {
    /// The history, if there is one.
    pub fn history(&self) -> Option<&History> {
        match self {
            Found::Test(history) | Found::Group(history, _) => Some(history),
            Found::New => None,
        }
    }
}

impl Known {
    /// Puts it together.
    pub fn of(tests: impl IntoIterator<Item = (String, History)>) -> Known {
        let tests: Map<String, History> = tests.into_iter().take(MOST).collect();
        let mut sorted: Vec<String> = tests.keys().cloned().collect();
        sorted.sort_unstable();
        Known { tests, sorted }
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
        for key in &self.sorted {
            text += &serde_json::to_string(&(key, self.tests[key])).unwrap_or_default();
            text.push('\n');
        }
        text
    }

    /// What is remembered of a test, or of the file or class that has this name.
    pub fn find(&self, name: &str) -> Found {
        self.of_key(&names::key(name))
    }

    /// The same of many. All keys are made before the first is looked for: the looks do not wait for each other then, and memory is slow.
    pub fn find_all(&self, tests: &[&str]) -> Vec<Found> {
        let (mut keys, mut ends) = (String::new(), Vec::with_capacity(tests.len()));
        let mut folders: Map<&str, (usize, usize)> = Map::default();
        let mut last = ("", (0, 0));
        for test in tests {
            let (folder, own) = test.split_at(names::last_part(test));
            let begin = keys.len();
            if folder != last.0 {
                last = match folders.get(folder) {
                    Some(known) => (folder, *known),
                    None => {
                        names::add_key(folder, &mut keys);
                        folders.insert(folder, (begin, keys.len()));
                        (folder, (begin, keys.len()))
                    }
                };
            }
            let (from, to) = last.1;
            if from != begin {
                keys.extend_from_within(from..to);
            }
            if keys.len() > begin {
                keys.push('.');
            }
            let dot = keys.len();
            names::add_key(own, &mut keys);
            if keys.len() == dot && dot > begin {
                keys.pop();
            }
            ends.push(keys.len());
        }
        let begins = std::iter::once(&0).chain(&ends);
        begins.zip(&ends).map(|(begin, end)| self.of_key(&keys[*begin..*end])).collect()
    }

    fn of_key(&self, key: &str) -> Found {
        if let Some(history) = self.tests.get(key) {
            return Found::Test(*history);
        }
        if key.is_empty() {
            return Found::New;
        }
        let begin = format!("{key}.");
        let from = self.sorted.partition_point(|other| other.as_str() < begin.as_str());
        let inside = self.sorted[from..].iter().take_while(|other| other.starts_with(&begin));
        let (mut whole, mut tests) = (None::<History>, 0);
        for own in inside.filter_map(|key| self.tests.get(key)) {
            whole = Some(whole.map_or(*own, |whole| whole.with(own)));
            tests += 1;
        }
        whole.map_or(Found::New, |whole| Found::Group(whole, tests))
    }

    /// Every test, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &History)> {
        self.tests.iter().map(|(key, history)| (key.as_str(), history))
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.tests.len()
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.tests.is_empty()
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
        let Found::Group(file, tests) = known().find("tests/test_app.py") else { panic!() };
        assert_eq!((tests, file.usual, file.quick), (2, 30.0, 1.0));
        assert!(matches!(known().find("tests/test_app.py::test_a"), Found::Test(_)));
        for new in ["tests/test_new.py", "", "::", "tests/test_ap"] {
            assert_eq!(known().find(new), Found::New, "{new}");
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
