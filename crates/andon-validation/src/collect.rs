//! Collects what a coverage report says of one file after the other, in bounded memory, and counts what is left out. Reads no format.

use crate::coverage::{Class, FileCoverage, Function, Reading};
use crate::places::Places;
use crate::text::{cut, line as one_line};

/// The highest line number that is believed. Longer files are data, not code.
pub(crate) const LAST_LINE: u32 = 10_000_000;
/// Lines of one report that are kept; beyond it memory would not stay flat. The Linux kernel has about a sixth that run.
pub(crate) const MOST_LINES: usize = 5_000_000;
/// Branches of one line that are kept.
const MOST_BRANCHES: usize = 4096;
/// Bytes of a function's or a class's name.
const LONGEST_NAME: usize = 300;

/// What hits of a line become when it was said before in the same report.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Join {
    /// Each record is another run of it.
    Add,
    /// Each record tells the same run once more.
    Max,
}

/// The collector.
pub(crate) struct Collector<'a> {
    places: &'a Places,
    join: Join,
    reading: Reading,
    /// The file that lines belong to; none: they belong to one that lies outside.
    current: Option<Open>,
    lines: usize,
    others: usize,
    outside: Vec<String>,
    outside_count: usize,
    over: bool,
    odd: Option<(String, u64)>,
}

struct Open {
    path: String,
    /// As they come, mostly ascending: sorted once at the end.
    lines: Vec<(u32, u64)>,
    file: FileCoverage,
}

impl<'a> Collector<'a> {
    pub fn new(places: &'a Places, join: Join) -> Collector<'a> {
        Collector {
            places,
            join,
            reading: Reading::default(),
            current: None,
            lines: 0,
            others: 0,
            outside: Vec::new(),
            outside_count: 0,
            over: false,
            odd: None,
        }
    }

    /// What follows belongs to this file; to none, with a warning at the end, when it lies outside. False then.
    pub fn open(&mut self, path: &str) -> bool {
        self.close();
        match self.places.find(path) {
            Some(path) => {
                self.current = Some(Open { path, lines: Vec::new(), file: FileCoverage::default() });
                true
            }
            None => {
                self.outside_count += 1;
                if self.outside.len() < 3 {
                    self.outside.push(cut(one_line(path), 200));
                }
                false
            }
        }
    }

    /// What follows belongs to no file.
    pub fn close(&mut self) {
        let Some(Open { path, mut lines, mut file }) = self.current.take() else { return };
        if !lines.is_sorted_by(|a, b| a.0 < b.0) {
            lines.sort_by_key(|(line, _)| *line);
            let join = self.join;
            lines.dedup_by(|next, kept| {
                let same = next.0 == kept.0;
                if same {
                    kept.1 = join.of(kept.1, next.1);
                }
                same
            });
        }
        let own = self.reading.coverage.files.entry(path).or_default();
        let before = own.lines.len();
        if own.lines.is_empty() {
            own.lines = lines.into_iter().collect();
        } else if own.lines.len() == lines.len() && own.lines.keys().eq(lines.iter().map(|(line, _)| line)) {
            // The same file again, as every shard tells it.
            own.lines.values_mut().zip(lines).for_each(|(own, (_, hits))| *own = self.join.of(*own, hits));
        } else {
            for (line, hits) in lines {
                own.lines.entry(line).and_modify(|own| *own = self.join.of(*own, hits)).or_insert(hits);
            }
        }
        self.lines += own.lines.len() - before;
        own.merge_rest(&mut file);
    }

    /// One line.
    pub fn line(&mut self, line: u32, hits: u64) {
        let Some(open) = &mut self.current else { return };
        if !(1..=LAST_LINE).contains(&line) {
            return;
        }
        if self.lines + open.lines.len() < MOST_LINES {
            open.lines.push((line, hits));
        } else {
            self.over = true;
        }
    }

    /// The next branch of a line, in the order that the tool always writes them.
    pub fn branch(&mut self, line: u32, hits: u64) {
        if !self.room() {
            return;
        }
        let Some(open) = self.current.as_mut().filter(|_| (1..=LAST_LINE).contains(&line)) else { return };
        let known = open.file.branches.entry(line).or_default();
        if known.len() < MOST_BRANCHES {
            known.push(hits);
        }
    }

    /// So many branches of a line were taken, and nobody knows which: as if it were the first ones. Said again it replaces what was said.
    pub fn branches(&mut self, line: u32, taken: u32, total: u32) {
        if !self.room() || total == 0 {
            return;
        }
        let Some(open) = self.current.as_mut().filter(|_| (1..=LAST_LINE).contains(&line)) else { return };
        let total = (total as usize).min(MOST_BRANCHES);
        let taken = (taken as usize).min(total);
        open.file.branches.insert(line, (0..total).map(|n| u64::from(n < taken)).collect());
    }

    /// A function. Two of the same name on the same line are the same.
    pub fn function(&mut self, line: u32, name: &str, hits: u64) {
        if !self.room() {
            return;
        }
        let Some(open) = self.current.as_mut().filter(|_| line <= LAST_LINE) else { return };
        let name = cut(one_line(name), LONGEST_NAME);
        open.file.functions.push(Function { line, name, hits });
    }

    /// A test that ran a line of the file.
    pub fn test(&mut self, name: &str) {
        let known = self.current.as_ref().is_some_and(|open| open.file.tests.contains(name));
        if known || !self.room() {
            return;
        }
        if let Some(open) = &mut self.current {
            open.file.tests.insert(cut(one_line(name), 1024));
        }
    }

    /// A class with so many of its lines covered.
    pub fn class(&mut self, name: &str, covered: u64, lines: u64) {
        if !self.room() {
            return;
        }
        let Some(open) = &mut self.current else { return };
        let known = open.file.classes.entry(cut(one_line(name), LONGEST_NAME)).or_default();
        known.join(Class { covered: covered.min(lines), lines });
    }

    fn room(&mut self) -> bool {
        self.others += 1;
        self.over |= self.others >= MOST_LINES;
        self.others < MOST_LINES
    }

    /// Something odd.
    pub fn warn(&mut self, text: impl Into<String>) {
        self.reading.warnings.push(text.into());
    }

    /// A piece that was not understood and passed over; the first is told with its place, the others are counted.
    pub fn odd(&mut self, first: impl FnOnce() -> String) {
        match &mut self.odd {
            Some((_, more)) => *more += 1,
            None => self.odd = Some((first(), 0)),
        }
    }

    /// Sums in units that only this tool counts in.
    pub fn statements(&mut self, covered: u64, all: u64) {
        let (own_covered, own) = self.reading.statements.get_or_insert((0, 0));
        (*own_covered, *own) = (own_covered.saturating_add(covered), own.saturating_add(all));
    }

    /// Everything, with warnings about what was left out.
    pub fn finish(mut self) -> Reading {
        self.close();
        for file in self.reading.coverage.files.values_mut() {
            file.functions.sort();
            file.functions.dedup_by(|next, kept| kept.same_as(next));
        }
        if let Some((first, more)) = self.odd.take() {
            self.warn(match more {
                0 => first,
                more => format!("{first}, and {more} more such places"),
            });
        }
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

impl Join {
    fn of(self, a: u64, b: u64) -> u64 {
        match self {
            Join::Add => a.saturating_add(b),
            Join::Max => a.max(b),
        }
    }
}

/// Numbers as tools write them: negative ones are an overflow of the tool's counter after many runs, so they count as none and not as
/// many; `1e3` is a thousand.
pub(crate) fn hits(text: &str) -> Option<u64> {
    let text = text.trim();
    match text.parse::<u64>() {
        Ok(hits) => Some(hits),
        Err(_) => text.parse::<f64>().ok().filter(|hits| hits.is_finite()).map(|hits| hits.max(0.0) as u64),
    }
}

/// For what a number in JSON says about hits.
pub(crate) fn hits_of(number: f64) -> u64 {
    if number.is_finite() { number.max(0.0) as u64 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_in_any_order_are_joined_as_the_format_means_it() {
        for (join, sum) in [(Join::Add, 5), (Join::Max, 3)] {
            let places = Places::at("/w");
            let mut collector = Collector::new(&places, join);
            collector.open("a");
            for (line, hits) in [(9, 1), (2, 3), (2, 2)] {
                collector.line(line, hits);
            }
            collector.open("a");
            collector.line(9, 0);
            let reading = collector.finish();
            assert_eq!(reading.coverage.files["a"].lines, [(2, sum), (9, 1)].into(), "{join:?}");
        }
    }

    #[test]
    fn counters_that_overflowed_are_no_hits() {
        let read = ["3", " 1e3", "-1", "18446744073709551615", "x", "inf"].map(hits);
        assert_eq!(read, [Some(3), Some(1000), Some(0), Some(u64::MAX), None, None]);
    }
}
