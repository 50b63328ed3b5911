//! Lines and how often they ran, for every file of a project; and how foreign paths become the project's own. Judges nothing.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use serde::{Deserialize, Serialize};

use crate::detect::{Kind, NotAReport, detect};

/// The highest line number that is believed. Longer files are data, not code.
pub(crate) const LAST_LINE: u32 = 10_000_000;
/// Lines of one report that are kept; beyond it memory would not stay flat. The Linux kernel has about a sixth that run.
pub(crate) const MOST_LINES: usize = 5_000_000;

/// Coverage of a project: from any number of reports, merged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    /// By path, relative to the root of the repository, with `/`.
    pub files: BTreeMap<String, FileCoverage>,
}

/// Coverage of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileCoverage {
    /// How often each line ran that can run, by number from 1.
    pub lines: BTreeMap<u32, u64>,
}

/// A report that was read, and what was odd about it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reading {
    /// What it says.
    pub coverage: Coverage,
    /// What was odd.
    pub warnings: Vec<String>,
}

/// Reads a coverage report of either kind. `working_copy` is the folder that the job ran in: paths inside it become relative to it.
pub fn read(bytes: &[u8], working_copy: &str) -> Result<Reading, NotAReport> {
    match detect(bytes)? {
        Kind::Lcov => Ok(crate::lcov::read(bytes, working_copy)),
        _ => Ok(crate::cobertura::read(bytes, working_copy)),
    }
}

/// Percent; 100 where there is nothing to cover.
pub fn percent(covered: u64, lines: u64) -> f64 {
    if lines == 0 { 100.0 } else { covered as f64 * 100.0 / lines as f64 }
}

impl FileCoverage {
    /// Lines that ran, and lines that could.
    pub fn sums(&self) -> (u64, u64) {
        (self.lines.values().filter(|hits| **hits > 0).count() as u64, self.lines.len() as u64)
    }

    /// Percent of lines that ran.
    pub fn percent(&self) -> f64 {
        let (covered, lines) = self.sums();
        percent(covered, lines)
    }

    /// Lines that could run and did not.
    pub fn uncovered(&self) -> impl Iterator<Item = u32> {
        self.lines.iter().filter(|(_, hits)| **hits == 0).map(|(line, _)| *line)
    }
}

impl Coverage {
    /// Lines that ran, and lines that could, in all files.
    pub fn sums(&self) -> (u64, u64) {
        self.files.values().map(FileCoverage::sums).fold((0, 0), |sum, file| (sum.0 + file.0, sum.1 + file.1))
    }

    /// Percent of lines that ran.
    pub fn percent(&self) -> f64 {
        let (covered, lines) = self.sums();
        percent(covered, lines)
    }

    /// Adds what another report says about the same commit: hits add up. The order of merging does not matter.
    pub fn merge(&mut self, other: &Coverage) {
        for (path, file) in &other.files {
            let own = self.files.entry(path.clone()).or_default();
            for (line, hits) in &file.lines {
                let own = own.lines.entry(*line).or_default();
                *own = own.saturating_add(*hits);
            }
        }
    }
}

/// Line numbers as people write them: `12-15,19`. They must be ascending.
pub fn ranges(lines: impl IntoIterator<Item = u32>) -> String {
    let mut spans: Vec<(u32, u32)> = Vec::new();
    for line in lines {
        match spans.last_mut() {
            Some((_, last)) if last.saturating_add(1) == line => *last = line,
            _ => spans.push((line, line)),
        }
    }
    let span = |(first, last): &(u32, u32)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    spans.iter().map(span).collect::<Vec<_>>().join(",")
}

/// A path of a report as the repository knows it; none when it lies outside of the working copy.
pub(crate) fn normal_path(path: &str, working_copy: &str) -> Option<String> {
    let path = path.trim().replace('\\', "/");
    let root = working_copy.trim().replace('\\', "/");
    let root = root.trim_end_matches('/');
    let inside = path.strip_prefix(root).filter(|rest| !root.is_empty() && rest.starts_with('/'));
    let path = inside.map_or(path.as_str(), |rest| rest.trim_start_matches('/'));
    if path.starts_with('/') || path.chars().nth(1) == Some(':') {
        return None;
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    (!parts.is_empty() && path.len() <= 4096 && !path.contains('\0')).then(|| parts.join("/"))
}

/// Collects lines of one file after the other, with the limits that keep memory flat, and counts what is left out.
#[derive(Default)]
pub(crate) struct Collector {
    reading: Reading,
    /// The file that lines belong to; none: they belong to one that lies outside.
    current: Option<(String, FileCoverage)>,
    lines: usize,
    outside: Vec<String>,
    outside_count: usize,
    over: bool,
}

impl Collector {
    /// The lines that follow belong to this file; to none, with a warning at the end, when it lies outside.
    pub fn open(&mut self, path: &str, working_copy: &str) {
        self.close();
        match normal_path(path, working_copy) {
            Some(path) => {
                let file = self.reading.coverage.files.remove(&path).unwrap_or_default();
                self.current = Some((path, file));
            }
            None => {
                self.outside_count += 1;
                if self.outside.len() < 3 {
                    self.outside.push(path.chars().take(200).collect());
                }
            }
        }
    }

    /// The lines that follow belong to no file.
    pub fn close(&mut self) {
        if let Some((path, file)) = self.current.take() {
            self.reading.coverage.files.insert(path, file);
        }
    }

    /// One line; `join` says what its hits become when it was seen before in this report.
    pub fn line(&mut self, line: u32, hits: u64, join: fn(u64, u64) -> u64) {
        let Some((_, file)) = self.current.as_mut().filter(|_| (1..=LAST_LINE).contains(&line)) else {
            return;
        };
        match file.lines.entry(line) {
            Entry::Occupied(mut seen) => {
                let before = *seen.get();
                seen.insert(join(before, hits));
            }
            Entry::Vacant(place) if self.lines < MOST_LINES => {
                self.lines += 1;
                place.insert(hits);
            }
            Entry::Vacant(_) => self.over = true,
        }
    }

    /// Something odd.
    pub fn warn(&mut self, text: impl Into<String>) {
        self.reading.warnings.push(text.into());
    }

    /// Everything, with warnings about what was left out.
    pub fn finish(mut self) -> Reading {
        self.close();
        if self.outside_count > 0 {
            let (count, some) = (self.outside_count, self.outside.join(", "));
            self.warn(format!("{count} files lie outside of the working copy and were left out: {some}"));
        }
        if self.over {
            self.warn(format!("the report has more than {MOST_LINES} lines; the rest was left out"));
        }
        self.reading
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_are_written_as_people_write_them() {
        assert_eq!(ranges([12, 13, 14, 15, 19]), "12-15,19");
        assert_eq!(ranges([]), "");
    }

    #[test]
    fn paths_become_the_repositorys_own_or_are_refused() {
        let normal = |path| normal_path(path, "/build/7/");
        assert_eq!(normal("/build/7/src/a.py").as_deref(), Some("src/a.py"));
        assert_eq!(normal("./src/x/../a.py").as_deref(), Some("src/a.py"));
        assert_eq!(normal("src\\a.py").as_deref(), Some("src/a.py"));
        for outside in ["/build/77/a.py", "/usr/lib/x.py", "../a.py", "a/../../b", "C:\\x\\a.py", "", "."] {
            assert_eq!(normal(outside), None, "{outside}");
        }
    }

    fn any_coverage() -> impl Strategy<Value = Coverage> {
        let file = proptest::collection::btree_map(
            1..20u32,
            prop_oneof![Just(0u64), Just(u64::MAX), 0..9u64],
            0..10,
        );
        proptest::collection::btree_map("[a-c]", file.prop_map(|lines| FileCoverage { lines }), 0..4)
            .prop_map(|files| Coverage { files })
    }

    proptest! {
        #[test]
        fn merging_is_commutative_and_associative(a in any_coverage(), b in any_coverage(), c in any_coverage()) {
            let join = |x: &Coverage, y: &Coverage| { let mut sum = x.clone(); sum.merge(y); sum };
            prop_assert_eq!(join(&a, &b), join(&b, &a));
            prop_assert_eq!(join(&join(&a, &b), &c), join(&a, &join(&b, &c)));
        }

        #[test]
        fn sums_of_files_add_up_to_the_projects(coverage in any_coverage()) {
            let (covered, lines) = coverage.sums();
            let uncovered: usize = coverage.files.values().map(|file| file.uncovered().count()).sum();
            prop_assert_eq!(covered + uncovered as u64, lines);
            prop_assert!((0.0..=100.0).contains(&coverage.percent()));
        }
    }
}
