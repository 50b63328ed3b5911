//! What a line of output looks like that speaks of a failure, as the common tools write it. Keeps no output.

use std::sync::LazyLock;

use aho_corasick::AhoCorasick;

use super::Place;

/// Any of these in a line.
const SIGNS: [&str; 17] = [
    "error:",
    "Error:",
    "error[",
    "ERROR",
    "FAILED",
    "FAIL:",
    "FAIL ",
    "--- FAIL",
    "panicked at",
    "Traceback (most recent",
    "AssertionError",
    "assertion failed",
    "fatal:",
    "not ok ",
    "Exception:",
    "npm ERR!",
    "✖ failing tests",
];
/// None of these.
const FINE: [&str; 5] = [" 0 FAILED", "ERRORS: 0", "0 ERROR", "0 errors", "# fail 0"];
/// Of a line so much is looked at, in bytes.
const LOOKED_AT: usize = 4096;

static FINDER: LazyLock<AhoCorasick> = LazyLock::new(|| {
    AhoCorasick::new(SIGNS).unwrap_or_else(|error| unreachable!("constant patterns: {error}"))
});

/// Whether this line speaks of a failure.
pub fn fails(line: &[u8]) -> bool {
    let line = &line[..line.len().min(LOOKED_AT)];
    FINDER.is_match(line) && !FINE.iter().any(|fine| memchr::memmem::find(line, fine.as_bytes()).is_some())
}

/// Counts lines and looks for the first failure in output that comes in pieces.
#[derive(Debug)]
pub struct Scanner {
    /// Where the line begins that is not over yet.
    pub open: Place,
    /// The first line that speaks of a failure.
    pub failure: Option<Place>,
    /// The beginning of the line that is not over yet.
    rest: Vec<u8>,
    /// Bytes of it.
    long: u64,
}

impl Scanner {
    /// For what follows a place.
    pub fn from(open: Place) -> Scanner {
        Scanner { open, failure: None, rest: Vec::new(), long: 0 }
    }

    /// Takes a piece.
    pub fn push(&mut self, bytes: &[u8]) {
        let Some(first) = memchr::memchr(b'\n', bytes) else {
            self.keep(bytes);
            return;
        };
        // The line that began before.
        self.keep(&bytes[..first]);
        if self.failure.is_none() && fails(&self.rest) {
            self.failure = Some(self.open);
        }
        self.open = Place { at: self.open.at + self.long + 1, line: self.open.line + 1 };
        self.rest.clear();
        self.long = 0;
        // Whole lines, all at once.
        let last = memchr::memrchr(b'\n', bytes).unwrap_or(first);
        let whole = &bytes[first + 1..=last.max(first)];
        if self.failure.is_none() {
            self.failure = self.first_in(whole);
        }
        self.open.line += memchr::memchr_iter(b'\n', whole).count() as u64;
        self.open.at += whole.len() as u64;
        self.keep(&bytes[last + 1..]);
    }

    /// The line that is not over, if it speaks of a failure.
    pub fn last(&self) -> Option<Place> {
        self.failure.or_else(|| fails(&self.rest).then_some(self.open))
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = LOOKED_AT.saturating_sub(self.rest.len()).min(bytes.len());
        self.rest.extend_from_slice(&bytes[..room]);
        self.long += bytes.len() as u64;
    }

    fn first_in(&self, lines: &[u8]) -> Option<Place> {
        let mut from = 0;
        while let Some(found) = FINDER.find(&lines[from..]) {
            let sign = from + found.start();
            let start = memchr::memrchr(b'\n', &lines[..sign]).map_or(0, |end| end + 1);
            let end = memchr::memchr(b'\n', &lines[sign..]).map_or(lines.len(), |end| sign + end);
            if fails(&lines[start..end]) {
                let before = memchr::memchr_iter(b'\n', &lines[..start]).count() as u64;
                return Some(Place { at: self.open.at + start as u64, line: self.open.line + before });
            }
            from = (end + 1).min(lines.len());
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failing_line_is_the_same_however_the_output_is_cut() {
        let text = b"ok\n12 passed, 0 FAILED\nlong line\nerror[E0308]: no\nFAILED again\n";
        for step in 1..text.len() {
            let mut scanner = Scanner::from(Place::BEGIN);
            text.chunks(step).for_each(|piece| scanner.push(piece));
            assert_eq!(scanner.failure, Some(Place { at: 33, line: 4 }), "pieces of {step}");
            assert_eq!(scanner.open, Place { at: text.len() as u64, line: 6 });
        }
    }

    #[test]
    fn a_failure_in_a_line_without_end_counts() {
        let mut scanner = Scanner::from(Place { at: 10, line: 3 });
        scanner.push(b"ok\nfatal: no");
        assert_eq!((scanner.failure, scanner.last()), (None, Some(Place { at: 13, line: 4 })));
    }
}
