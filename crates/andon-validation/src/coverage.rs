//! Lines, branches, functions and classes and how often they ran, for every file of a project. Reads no format and judges nothing.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::detect::{Kind, NotAReport, detect};
use crate::places::Places;

/// Coverage of a project: from any number of reports, merged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    /// By path, relative to the root of the repository, with `/`.
    pub files: BTreeMap<String, FileCoverage>,
}

/// Coverage of a file. What a tool does not measure is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileCoverage {
    /// How often each line ran that can run, by number from 1.
    pub lines: BTreeMap<u32, u64>,
    /// How often each way out of a line was taken, in the order of the tool. Where it only says how many, the first ones are marked: of
    /// two such reports the larger number counts, which may be too little and never too much.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub branches: BTreeMap<u32, Vec<u64>>,
    /// Functions by line and name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub functions: Vec<Function>,
    /// Classes by name, where the format knows them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub classes: BTreeMap<String, Class>,
    /// Tests that ran a line of it, as the tool names them, where it tells them apart (contexts of coverage.py).
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub tests: BTreeSet<String>,
}

/// A function, method or closure.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Function {
    /// Where it begins; 0 where the tool does not say.
    pub line: u32,
    /// As the tool names it.
    pub name: String,
    /// How often it was called.
    pub hits: u64,
}

impl Function {
    /// Whether both mean the same function; then it takes in the other's hits.
    pub(crate) fn same_as(&mut self, other: &Function) -> bool {
        let same = self.line == other.line && self.name == other.name;
        if same {
            self.hits = self.hits.saturating_add(other.hits);
        }
        same
    }
}

/// Lines of a class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Class {
    /// Lines that ran.
    pub covered: u64,
    /// Lines that could run.
    pub lines: u64,
}

impl Class {
    pub(crate) fn join(&mut self, other: Class) {
        (self.covered, self.lines) = (self.covered.max(other.covered), self.lines.max(other.lines));
    }
}

/// So many of so many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// That ran.
    pub covered: u64,
    /// That could.
    pub total: u64,
}

impl Share {
    /// Percent; 100 where there is nothing to cover.
    pub fn percent(self) -> f64 {
        percent(self.covered, self.total)
    }

    fn add(&mut self, covered: bool) {
        self.covered += u64::from(covered);
        self.total += 1;
    }
}

impl std::ops::AddAssign for Share {
    fn add_assign(&mut self, other: Share) {
        self.covered += other.covered;
        self.total += other.total;
    }
}

/// All that is counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Lines.
    pub lines: Share,
    /// Branches; none where no tool measures them.
    pub branches: Share,
    /// Functions; none where no tool measures them.
    pub functions: Share,
    /// Classes with a covered line, of those with lines. A file without known classes counts as one.
    pub classes: Share,
}

impl std::ops::AddAssign for Totals {
    fn add_assign(&mut self, other: Totals) {
        self.lines += other.lines;
        self.branches += other.branches;
        self.functions += other.functions;
        self.classes += other.classes;
    }
}

/// A report that was read, and what was odd about it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reading {
    /// What it says.
    pub coverage: Coverage,
    /// Covered statements and all of them, where a tool counts in nothing else: the number that its users know.
    pub statements: Option<(u64, u64)>,
    /// What was odd.
    pub warnings: Vec<String>,
}

/// Reads a coverage report of any known kind.
pub fn read(bytes: &[u8], places: &Places) -> Result<Reading, NotAReport> {
    Ok(match detect(bytes)? {
        Kind::Lcov => crate::lcov::read(bytes, places),
        Kind::Cobertura => crate::cobertura::read(bytes, places),
        Kind::Jacoco => crate::jacoco::read(bytes, places),
        Kind::Clover => crate::clover::read(bytes, places),
        Kind::GoCover => crate::gocover::read(bytes, places),
        Kind::Json => return crate::coverage_json::read(bytes, places),
    })
}

/// Percent; 100 where there is nothing to cover.
pub fn percent(covered: u64, lines: u64) -> f64 {
    if lines == 0 { 100.0 } else { covered as f64 * 100.0 / lines as f64 }
}

/// How a line stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LineMark {
    /// It ran, and every way out of it was taken.
    Covered,
    /// It ran, but not every way out of it was taken.
    Partly,
    /// It did not run.
    Uncovered,
}

impl FileCoverage {
    /// Lines that ran, and lines that could.
    pub fn sums(&self) -> (u64, u64) {
        (self.lines.values().filter(|hits| **hits > 0).count() as u64, self.lines.len() as u64)
    }

    /// Everything that is counted.
    pub fn totals(&self) -> Totals {
        let (covered, total) = self.sums();
        let mut totals = Totals { lines: Share { covered, total }, ..Totals::default() };
        self.branches.values().flatten().for_each(|hits| totals.branches.add(*hits > 0));
        self.functions.iter().for_each(|function| totals.functions.add(function.hits > 0));
        match self.classes.is_empty() {
            true if total > 0 => totals.classes.add(covered > 0),
            true => {}
            false => {
                let classes = self.classes.values().filter(|class| class.lines > 0);
                classes.for_each(|class| totals.classes.add(class.covered > 0));
            }
        }
        totals
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

    /// Lines with a way out that was not taken.
    pub fn partly(&self) -> impl Iterator<Item = u32> {
        self.branches.iter().filter(|(_, hits)| hits.contains(&0)).map(|(line, _)| *line)
    }

    /// How a line stands; none for one that cannot run.
    pub fn mark(&self, line: u32) -> Option<LineMark> {
        let branches = self.branches.get(&line);
        let missed = branches.is_some_and(|hits| hits.contains(&0));
        match self.lines.get(&line)? {
            0 => Some(LineMark::Uncovered),
            _ if missed => Some(LineMark::Partly),
            _ => Some(LineMark::Covered),
        }
    }

    /// Takes in branches, functions and classes of another reading of the same file.
    pub(crate) fn merge_rest(&mut self, other: &mut FileCoverage) {
        for (line, hits) in std::mem::take(&mut other.branches) {
            let own = self.branches.entry(line).or_default();
            own.resize(own.len().max(hits.len()), 0);
            own.iter_mut().zip(hits).for_each(|(own, hits)| *own = own.saturating_add(hits));
        }
        self.functions.append(&mut other.functions);
        self.tests.append(&mut other.tests);
        for (name, class) in std::mem::take(&mut other.classes) {
            self.classes.entry(name).or_default().join(class);
        }
    }
}

impl Coverage {
    /// Lines that ran, and lines that could, in all files.
    pub fn sums(&self) -> (u64, u64) {
        self.files.values().map(FileCoverage::sums).fold((0, 0), |sum, file| (sum.0 + file.0, sum.1 + file.1))
    }

    /// Everything that is counted, in all files.
    pub fn totals(&self) -> Totals {
        let mut sum = Totals::default();
        self.files.values().for_each(|file| sum += file.totals());
        sum
    }

    /// Percent of lines that ran.
    pub fn percent(&self) -> f64 {
        let (covered, lines) = self.sums();
        percent(covered, lines)
    }

    /// Whether it measures any line.
    pub fn is_empty(&self) -> bool {
        self.files.values().all(|file| file.lines.is_empty())
    }

    /// Adds what another report says about the same commit: hits add up. The order of merging does not matter.
    pub fn merge(&mut self, other: &Coverage) {
        for (path, file) in &other.files {
            let own = self.files.entry(path.clone()).or_default();
            for (line, hits) in &file.lines {
                let own = own.lines.entry(*line).or_default();
                *own = own.saturating_add(*hits);
            }
            own.merge_rest(&mut FileCoverage { lines: BTreeMap::new(), ..file.clone() });
            own.functions.sort();
            own.functions.dedup_by(|next, kept| kept.same_as(next));
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
    fn a_report_stored_by_an_earlier_version_still_reads() {
        let stored = r#"{"files":{"a.py":{"lines":{"1":2,"3":0}}}}"#;
        let read: Coverage = serde_json::from_str(stored).unwrap();
        assert_eq!(read.files["a.py"].lines, [(1, 2), (3, 0)].into());
        assert_eq!(
            serde_json::to_string(&read).unwrap(),
            stored,
            "and is written as before where nothing is new"
        );
    }

    #[test]
    fn a_line_with_a_way_out_that_was_not_taken_is_partly_covered() {
        let file = FileCoverage {
            lines: [(1, 1), (2, 1), (3, 0)].into(),
            branches: [(1, vec![1, 0]), (2, vec![1, 2]), (3, vec![0, 0])].into(),
            ..FileCoverage::default()
        };
        let marks = [1, 2, 3, 4].map(|line| file.mark(line));
        assert_eq!(marks, [Some(LineMark::Partly), Some(LineMark::Covered), Some(LineMark::Uncovered), None]);
        assert_eq!(file.totals().branches, Share { covered: 3, total: 6 });
    }

    fn any_coverage() -> impl Strategy<Value = Coverage> {
        let number = || prop_oneof![Just(0u64), Just(u64::MAX), 0..9u64];
        let lines = proptest::collection::btree_map(1..20u32, number(), 0..10);
        let branches =
            proptest::collection::btree_map(1..5u32, proptest::collection::vec(number(), 1..4), 0..3);
        let functions = proptest::collection::btree_map((1..4u32, "[a-b]"), number(), 0..4);
        let functions = functions.prop_map(|all| {
            all.into_iter().map(|((line, name), hits)| Function { line, name, hits }).collect::<Vec<_>>()
        });
        let classes = proptest::collection::btree_map("[A-B]", (0..5u64, 5..9u64), 0..3);
        let classes = classes.prop_map(|all| {
            all.into_iter().map(|(name, (covered, lines))| (name, Class { covered, lines })).collect()
        });
        let file = (lines, branches, functions, classes).prop_map(|(lines, branches, functions, classes)| {
            FileCoverage { lines, branches, functions, classes, ..FileCoverage::default() }
        });
        proptest::collection::btree_map("[a-c]", file, 0..4).prop_map(|files| Coverage { files })
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
            let totals = coverage.totals();
            for share in [totals.lines, totals.branches, totals.functions, totals.classes] {
                prop_assert!(share.covered <= share.total);
            }
        }
    }
}
