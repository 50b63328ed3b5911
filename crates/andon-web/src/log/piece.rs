//! A piece of an output: whole lines from a place on, a page full. Draws nothing.

use std::io;

use andon_line::view::{Log, Place};

/// Lines in one piece.
pub const LINES: usize = 1000;
/// Bytes in one piece; a longer line goes on in the next one.
pub const BYTES: usize = 256 * 1024;

/// A piece of output.
#[derive(Debug, PartialEq, Eq)]
pub struct Piece {
    /// Where it begins.
    pub from: Place,
    /// Where the next piece begins.
    pub to: Place,
    /// Its lines, as they were printed.
    pub lines: Vec<Vec<u8>>,
    /// Nothing follows.
    pub last: bool,
}

impl Piece {
    /// Of an output that is not there yet.
    pub fn nothing() -> Piece {
        Piece { from: Place::BEGIN, to: Place::BEGIN, lines: Vec::new(), last: true }
    }
}

/// A piece from a place on, to a byte that ends a line at most. Of a growing output the last line is taken once it is whole. A place without a line's number
/// gets it.
pub fn read(log: &mut Log, from: Place, until: Option<u64>, growing: bool) -> io::Result<Piece> {
    let size = log.size();
    let at = from.at.min(size);
    let from = if from.line == 0 { log.line_of(at)? } else { Place { at, line: from.line } };
    let at = from.at;
    let most = until.map_or(BYTES as u64, |until| until.saturating_sub(at).min(BYTES as u64)) as usize;
    let bytes = log.read(at, most)?;
    let mut piece = Piece { from, to: from, lines: Vec::new(), last: false };
    let mut rest = bytes.as_slice();
    while !rest.is_empty() && piece.lines.len() < LINES {
        let (line, used) = match rest.iter().position(|byte| *byte == b'\n') {
            Some(end) => (&rest[..end], end + 1),
            // One line fills the whole piece and goes on in the next; or the output ends here.
            None if bytes.len() == BYTES && piece.lines.is_empty() => (rest, rest.len()),
            None if !growing && at + bytes.len() as u64 >= size => (rest, rest.len()),
            None => break,
        };
        piece.lines.push(line.to_vec());
        piece.to = Place { at: piece.to.at + used as u64, line: piece.to.line + 1 };
        rest = &rest[used..];
    }
    piece.last = at + bytes.len() as u64 >= size && !rest.contains(&b'\n');
    Ok(piece)
}

/// Where the piece before a place begins.
pub fn previous(log: &mut Log, place: Place) -> io::Result<Place> {
    let from = place.at.saturating_sub(BYTES as u64);
    let bytes = log.read(from, (place.at - from) as usize)?;
    // Beginnings of lines, newest first; the newline that ends the piece is none.
    let ends = bytes
        .iter()
        .enumerate()
        .rev()
        .skip(1)
        .filter(|(_, byte)| **byte == b'\n')
        .map(|(n, _)| from + n as u64 + 1);
    let mut starts: Vec<u64> = ends.take(LINES).collect();
    if starts.len() < LINES && (from == 0 || starts.is_empty()) {
        starts.push(from);
    }
    let at = starts.last().copied().unwrap_or(0);
    Ok(Place { at, line: place.line.saturating_sub(starts.len() as u64).max(1) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Write;

    fn log(lines: impl Iterator<Item = String>) -> (tempfile::TempDir, Log) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut file = File::create(&path).unwrap();
        lines.for_each(|line| writeln!(file, "{line}").unwrap());
        let log = Log::growing(&path).unwrap();
        (dir, log)
    }

    #[test]
    fn ten_thousand_lines_are_all_there_and_numbered_whichever_way_they_are_read() {
        let (_dir, mut log) = log((1..=10_000).map(|n| format!("line {n}")));
        let (mut place, mut all, mut turns) = (Place::BEGIN, Vec::new(), Vec::new());
        loop {
            let piece = read(&mut log, place, None, false).unwrap();
            turns.push(piece.from);
            all.extend(piece.lines.iter().cloned());
            place = piece.to;
            if piece.last {
                break;
            }
        }
        assert_eq!(all.len(), 10_000);
        assert!(all.iter().enumerate().all(|(n, line)| *line == format!("line {}", n + 1).into_bytes()));
        for pair in turns.windows(2) {
            assert_eq!(previous(&mut log, pair[1]).unwrap(), pair[0]);
        }
        let unnumbered = read(&mut log, Place { at: turns[3].at, line: 0 }, None, false).unwrap();
        assert_eq!(unnumbered.from, turns[3]);
    }

    #[test]
    fn of_a_growing_output_a_line_is_taken_when_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, "one\ntwo").unwrap();
        let piece = read(&mut Log::growing(&path).unwrap(), Place::BEGIN, None, true).unwrap();
        assert_eq!((piece.lines.len(), piece.last, piece.to), (1, true, Place { at: 4, line: 2 }));
        let piece = read(&mut Log::growing(&path).unwrap(), Place::BEGIN, None, false).unwrap();
        assert_eq!(piece.lines.len(), 2);
    }

    #[test]
    fn a_line_without_end_is_read_on_in_the_next_piece() {
        let (_dir, mut log) = log(std::iter::once("x".repeat(BYTES * 2 + 5)));
        let first = read(&mut log, Place::BEGIN, None, false).unwrap();
        assert!(!first.last && first.lines.len() == 1);
        let (mut total, mut place, mut turns) = (first.lines[0].len(), first.to, 0);
        while turns < 9 {
            let piece = read(&mut log, place, None, false).unwrap();
            total += piece.lines.iter().map(Vec::len).sum::<usize>();
            place = piece.to;
            turns += 1;
            if piece.last {
                break;
            }
        }
        assert_eq!(total, BYTES * 2 + 5);
    }
}
