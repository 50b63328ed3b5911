//! The output of jobs: kept whole, found by byte, by line and by its first failure, while it grows and afterwards. Draws nothing.
//!
//! While it grows it is a plain file; beside it stand [`marks`] of where its lines are. When the job is over it is packed ([`pack`]) into pieces that are
//! read one by one. [`signs`] knows what a failure looks like.

pub mod marks;
pub mod pack;
pub mod signs;

use std::fs::File;
use std::io::{self, BufRead, Read, Seek, SeekFrom};
use std::path::Path;

use marks::Marks;
use pack::Index;
pub use pack::Packing;
use signs::Scanner;

/// Bytes read at once where something is looked for.
const STRIDE: usize = 256 * 1024;

/// A place in an output: the beginning of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Place {
    /// Bytes before it.
    pub at: u64,
    /// The number of the line that begins there, from 1.
    pub line: u64,
}

impl Place {
    /// Where every output begins.
    pub const BEGIN: Place = Place { at: 0, line: 1 };
}

/// An output to read.
#[derive(Debug)]
pub struct Log {
    file: File,
    form: Form,
}

#[derive(Debug)]
enum Form {
    Plain { size: u64, marks: Marks },
    Packed(Index, Option<(usize, Vec<u8>)>),
}

impl Log {
    /// Opens one that is kept: packed, or plain as earlier versions kept it.
    pub fn open(path: &Path) -> io::Result<Log> {
        let mut file = File::open(path)?;
        match Index::read(&mut file)? {
            Some(index) => Ok(Log { file, form: Form::Packed(index, None) }),
            None => Log::growing(path),
        }
    }

    /// Opens one that grows. It is never taken for a packed one: what is in it was written by whoever likes.
    pub fn growing(path: &Path) -> io::Result<Log> {
        let file = File::open(path)?;
        let form = Form::Plain { size: file.metadata()?.len(), marks: Marks::beside(path) };
        Ok(Log { file, form })
    }

    /// Bytes of output.
    pub fn size(&self) -> u64 {
        match &self.form {
            Form::Plain { size, .. } => *size,
            Form::Packed(index, _) => index.size,
        }
    }

    /// At most so many bytes from a place on; fewer only at the end.
    pub fn read(&mut self, at: u64, most: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        match &mut self.form {
            Form::Plain { .. } => {
                self.file.seek(SeekFrom::Start(at))?;
                (&mut self.file).take(most as u64).read_to_end(&mut bytes)?;
            }
            Form::Packed(index, open) => {
                let mut at = at;
                while bytes.len() < most && at < index.size {
                    let number = index.frame_of(at);
                    if open.as_ref().is_none_or(|(known, _)| *known != number) {
                        *open = Some((number, index.frame(&mut self.file, number)?));
                    }
                    let Some((_, frame)) = open else { break };
                    let from = (at - index.frames[number].at) as usize;
                    let take = frame.len().saturating_sub(from).min(most - bytes.len());
                    if take == 0 {
                        return Err(damaged());
                    }
                    bytes.extend_from_slice(&frame[from..from + take]);
                    at += take as u64;
                }
            }
        }
        Ok(bytes)
    }

    /// The last known beginning of a line at or before what is asked for.
    fn before(&self, is_before: impl Fn(&Place) -> bool) -> Place {
        let places = match &self.form {
            Form::Plain { marks, .. } => &marks.lines,
            Form::Packed(index, _) => &index.lines,
        };
        places[..places.partition_point(is_before)].last().copied().unwrap_or(Place::BEGIN)
    }

    /// Where a line begins; the end of the last one where there are fewer.
    pub fn line(&mut self, number: u64) -> io::Result<Place> {
        let mut place = self.before(|place| place.line <= number);
        self.walk(&mut place, |next| next.line <= number)?;
        Ok(place)
    }

    /// The beginning of the line that this byte is in.
    pub fn line_of(&mut self, at: u64) -> io::Result<Place> {
        let mut place = self.before(|place| place.at <= at);
        self.walk(&mut place, |next| next.at <= at)?;
        Ok(place)
    }

    /// From line to line for as long as the next one is wanted.
    fn walk(&mut self, place: &mut Place, wanted: impl Fn(&Place) -> bool) -> io::Result<()> {
        let mut at = place.at;
        loop {
            let bytes = self.read(at, STRIDE)?;
            if bytes.is_empty() {
                return Ok(());
            }
            for end in memchr::memchr_iter(b'\n', &bytes) {
                let next = Place { at: at + end as u64 + 1, line: place.line + 1 };
                if !wanted(&next) {
                    return Ok(());
                }
                *place = next;
            }
            at += bytes.len() as u64;
        }
    }

    /// The first line that speaks of a failure; none where there is none. Of output that nobody marked, at most so many bytes are looked through.
    pub fn first_failure(&mut self, most: u64) -> io::Result<Option<Place>> {
        let (known, from) = match &self.form {
            Form::Packed(index, _) => return Ok(index.failure),
            Form::Plain { marks, .. } => (marks.failure, marks.last()),
        };
        if known.is_some() {
            return Ok(known);
        }
        let mut scanner = Scanner::from(from);
        let mut at = from.at;
        while at - from.at < most && scanner.failure.is_none() {
            let bytes = self.read(at, STRIDE)?;
            if bytes.is_empty() {
                break;
            }
            scanner.push(&bytes);
            at += bytes.len() as u64;
        }
        Ok(scanner.failure.or_else(|| scanner.last()))
    }

    /// The beginning of the last lines, so many of them.
    pub fn tail(&mut self, lines: u64) -> io::Result<Place> {
        let end = self.line_of(self.size())?;
        self.line(end.line.saturating_sub(lines).max(1))
    }

    /// Lines that hold this text, from a place on: at most so many, each with its number, beginning and (cut) text.
    pub fn find(&mut self, text: &[u8], from: Place, most: usize) -> io::Result<Vec<(Place, Vec<u8>)>> {
        /// Of a line that is found so much is shown, in bytes.
        const SHOWN: usize = 1024;
        let finder = memchr::memmem::Finder::new(text);
        let (mut found, mut place) = (Vec::new(), from);
        let mut rest: Vec<u8> = Vec::new();
        let mut reader = self.reader(from.at);
        while found.len() < most {
            let chunk = reader.fill_buf()?;
            let (read, over) = (chunk.len(), chunk.is_empty());
            rest.extend_from_slice(chunk);
            reader.consume(read);
            // Whole lines only, and a line without end in pieces: what is looked for may stand across two of them.
            let whole = if over || rest.len() > 4 * STRIDE {
                rest.len()
            } else {
                memchr::memrchr(b'\n', &rest).map_or(0, |last| last + 1)
            };
            let mut begin = 0;
            while begin < whole && found.len() < most {
                match finder.find(&rest[begin..whole]) {
                    None => {
                        place.line += memchr::memchr_iter(b'\n', &rest[begin..whole]).count() as u64;
                        place.at += (whole - begin) as u64;
                        begin = whole;
                    }
                    Some(at) => {
                        let start = memchr::memrchr(b'\n', &rest[begin..begin + at])
                            .map_or(begin, |end| begin + end + 1);
                        place.line += memchr::memchr_iter(b'\n', &rest[begin..start]).count() as u64;
                        place.at += (start - begin) as u64;
                        let end = memchr::memchr(b'\n', &rest[start..whole]).map_or(whole, |end| start + end);
                        found.push((place, rest[start..end.min(start + SHOWN)].to_vec()));
                        let next = (end + 1).min(whole);
                        place.line += u64::from(end < whole);
                        place.at += (next - start) as u64;
                        begin = next;
                    }
                }
            }
            rest.drain(..begin);
            if over {
                break;
            }
        }
        Ok(found)
    }

    /// All bytes from a place on.
    pub fn reader(&mut self, at: u64) -> Reader<'_> {
        Reader { log: self, at, chunk: Vec::new(), used: 0 }
    }

    /// All bytes from a place on, for whoever keeps the log no longer.
    pub fn into_reader(self, at: u64) -> impl Read + Send + use<> {
        Owned { log: self, at }
    }
}

/// Reads on and on.
#[derive(Debug)]
pub struct Reader<'a> {
    log: &'a mut Log,
    at: u64,
    chunk: Vec<u8>,
    used: usize,
}

impl BufRead for Reader<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.used == self.chunk.len() {
            self.chunk = self.log.read(self.at, STRIDE)?;
            self.at += self.chunk.len() as u64;
            self.used = 0;
        }
        Ok(&self.chunk[self.used..])
    }

    fn consume(&mut self, amount: usize) {
        self.used += amount;
    }
}

impl Read for Reader<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let chunk = self.fill_buf()?;
        let take = chunk.len().min(into.len());
        into[..take].copy_from_slice(&chunk[..take]);
        self.consume(take);
        Ok(take)
    }
}

struct Owned {
    log: Log,
    at: u64,
}

impl Read for Owned {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let bytes = self.log.read(self.at, into.len().min(STRIDE))?;
        into[..bytes.len()].copy_from_slice(&bytes);
        self.at += bytes.len() as u64;
        Ok(bytes.len())
    }
}

pub(crate) fn damaged() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "the output was kept, but what is there is damaged\nhint: look at the disk; a backup may hold it whole",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::path::PathBuf;

    /// The same text as it grows and packed.
    fn both(text: &[u8]) -> (tempfile::TempDir, Vec<PathBuf>) {
        let dir = tempfile::tempdir().unwrap();
        let plain = dir.path().join("plain");
        std::fs::write(&plain, text).unwrap();
        let mut marks = marks::Marking::begin(&plain).unwrap();
        text.chunks(7_777).for_each(|piece| marks.push(piece).unwrap());
        let bare = dir.path().join("bare");
        std::fs::write(&bare, text).unwrap();
        let packed = dir.path().join("packed");
        io::copy(&mut Packing::of(File::open(&plain).unwrap()), &mut File::create(&packed).unwrap()).unwrap();
        (dir, vec![plain, bare, packed])
    }

    fn lines(count: u64) -> Vec<u8> {
        let mut text = Vec::new();
        for n in 1..=count {
            let what = if n == 30_000 { "FAILED tests::a" } else { "ok" };
            writeln!(text, "{n} {what} {}", "x".repeat((n % 60) as usize)).unwrap();
        }
        text
    }

    #[test]
    fn every_byte_and_every_line_is_found_in_every_form() {
        let text = lines(50_000);
        let (_dir, files) = both(&text);
        for file in files {
            let mut log = Log::open(&file).unwrap();
            assert_eq!(log.size(), text.len() as u64);
            let mut whole = Vec::new();
            log.reader(0).read_to_end(&mut whole).unwrap();
            assert!(whole == text, "{}", file.display());
            for number in [1, 2, 29_999, 30_000, 50_000] {
                let place = log.line(number).unwrap();
                let line = log.read(place.at, 12).unwrap();
                assert!(line.starts_with(format!("{number} ").as_bytes()), "{number} {place:?}");
                assert_eq!(log.line_of(place.at + 3).unwrap(), place);
            }
            let failure = log.first_failure(u64::MAX).unwrap().unwrap();
            assert_eq!(failure.line, 30_000);
            assert!(log.read(failure.at, 30).unwrap().starts_with(b"30000 FAILED"));
            assert_eq!(log.tail(10).unwrap().line, 49_991);
            let found = log.find(b"FAILED", Place::BEGIN, 5).unwrap();
            assert_eq!(found.len(), 1);
            assert_eq!(found[0].0, failure);
            assert_eq!(
                log.find(b"9 ok", log_place(&mut Log::open(&file).unwrap(), 49_000), 3).unwrap()[0].0.line,
                49_009
            );
        }
    }

    fn log_place(log: &mut Log, line: u64) -> Place {
        log.line(line).unwrap()
    }

    #[test]
    fn output_without_lines_without_end_and_without_anything_is_read_too() {
        for text in [Vec::new(), b"no end".to_vec(), vec![b'x'; 3_000_000], b"\n\n\n".to_vec()] {
            let (_dir, files) = both(&text);
            for file in files {
                let mut log = Log::open(&file).unwrap();
                let mut whole = Vec::new();
                log.reader(0).read_to_end(&mut whole).unwrap();
                assert!(whole == text);
                assert_eq!(log.first_failure(u64::MAX).unwrap(), None);
                log.line(5).unwrap();
                log.tail(3).unwrap();
            }
        }
    }

    #[test]
    fn what_is_looked_for_is_found_across_the_pieces_it_is_read_in() {
        let mut text = vec![b'.'; 256 * 1024 - 3];
        text.extend_from_slice(b"needle and more\nneedle\n");
        let (_dir, files) = both(&text);
        for file in files {
            let found = Log::open(&file).unwrap().find(b"needle", Place::BEGIN, 9).unwrap();
            assert_eq!(found.iter().map(|(place, _)| place.line).collect::<Vec<_>>(), [1, 2]);
        }
    }

    #[test]
    fn a_packed_output_that_was_damaged_is_an_error_and_never_another_output() {
        let (dir, files) = both(&lines(20_000));
        let bytes = std::fs::read(&files[2]).unwrap();
        let hurt = dir.path().join("hurt");
        for at in (0..bytes.len()).step_by(bytes.len() / 97) {
            let mut hurt_bytes = bytes.clone();
            hurt_bytes[at] ^= 0x55;
            std::fs::write(&hurt, &hurt_bytes).unwrap();
            let Ok(mut log) = Log::open(&hurt) else { continue };
            let mut whole = Vec::new();
            // An error, or the damage was where nothing is read, or (without its end) bytes that nobody takes for lines.
            let _ = log.reader(0).read_to_end(&mut whole);
            let _ =
                (log.line(9_000), log.tail(3), log.first_failure(1 << 20), log.find(b"ok", Place::BEGIN, 3));
        }
        for cut in [0, 1, 7, 8, 9, 100, bytes.len() - 1] {
            std::fs::write(&hurt, &bytes[..cut]).unwrap();
            let _ = Log::open(&hurt).map(|mut log| log.read(0, 100));
        }
    }
}
