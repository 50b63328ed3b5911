//! Where the lines of a growing output are: a small file beside it, a line for each quarter of a megabyte and one for the first failure. Whoever
//! opens the output finds its place by them; what they do not tell yet is looked for.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::Place;
use super::signs::Scanner;

/// Bytes between two marks.
const EVERY: u64 = 256 * 1024;
/// Before the line of the first failure.
const FAILURE: &str = "failure ";

/// The file of marks of an output.
pub fn path(log: &Path) -> PathBuf {
    let mut name = log.as_os_str().to_owned();
    name.push(".marks");
    PathBuf::from(name)
}

/// What is marked.
#[derive(Debug, Default)]
pub struct Marks {
    /// Beginnings of lines, in order.
    pub lines: Vec<Place>,
    /// The first failure.
    pub failure: Option<Place>,
}

impl Marks {
    /// Those beside an output; none where nobody made any. What is half written is passed over.
    pub fn beside(log: &Path) -> Marks {
        let mut marks = Marks::default();
        let text = std::fs::read_to_string(path(log)).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let place = |text: &str| {
            let (at, line) = text.split_once(' ')?;
            Some(Place { at: at.parse().ok()?, line: line.parse().ok()? })
        };
        for line in whole.lines() {
            match line.strip_prefix(FAILURE) {
                Some(rest) => marks.failure = marks.failure.or(place(rest)),
                None => marks
                    .lines
                    .extend(place(line).filter(|new| marks.lines.last().is_none_or(|last| last < new))),
            }
        }
        marks
    }

    /// The last one.
    pub fn last(&self) -> Place {
        self.lines.last().copied().unwrap_or(Place::BEGIN)
    }
}

/// Makes marks while an output grows.
#[derive(Debug)]
pub struct Marking {
    file: File,
    scanner: Scanner,
    marked: u64,
    told: bool,
}

impl Marking {
    /// For an output that begins.
    pub fn begin(log: &Path) -> io::Result<Marking> {
        let file = File::options().create(true).append(true).open(path(log))?;
        Ok(Marking { file, scanner: Scanner::from(Place::BEGIN), marked: 0, told: false })
    }

    /// What was just written to the output.
    pub fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.scanner.push(bytes);
        if let Some(Place { at, line }) = self.scanner.failure.filter(|_| !self.told) {
            self.told = true;
            self.file.write_all(format!("{FAILURE}{at} {line}\n").as_bytes())?;
        }
        let Place { at, line } = self.scanner.open;
        if at - self.marked >= EVERY {
            self.marked = at;
            self.file.write_all(format!("{at} {line}\n").as_bytes())?;
        }
        Ok(())
    }
}
