//! Reading foreign text line by line: each is cut at a limit while it is read, and its number is known. Understands nothing of it.

use std::io::{self, BufRead};

use memchr::memchr;

/// The lines of an input.
pub(crate) struct Lines<R> {
    input: R,
    longest: usize,
    held: Vec<u8>,
    /// Bytes of the input's buffer that the newest line took and that are not given back yet: a line that lies whole in it is not copied.
    taken: usize,
    /// Lines read so far.
    pub number: u64,
    /// The newest line was longer than what is kept of it.
    pub cut: bool,
    /// A read failed; reading ended there.
    pub failed: Option<io::Error>,
}

impl<R: BufRead> Lines<R> {
    /// Lines are cut at `longest` bytes.
    pub fn new(input: R, longest: usize) -> Lines<R> {
        Lines { input, longest, held: Vec::new(), taken: 0, number: 0, cut: false, failed: None }
    }

    /// The next line without its end, and its number from 1; none when there is no more.
    pub fn next(&mut self) -> Option<(u64, &[u8])> {
        self.input.consume(std::mem::take(&mut self.taken));
        self.held.clear();
        self.cut = false;
        let whole = self.input.fill_buf().ok().and_then(|chunk| memchr(b'\n', chunk));
        if let Some(end) = whole.filter(|end| *end <= self.longest) {
            self.taken = end + 1;
            self.number += 1;
            let line = &self.input.fill_buf().ok()?[..end];
            return Some((self.number, line.strip_suffix(b"\r").unwrap_or(line)));
        }
        let mut any = false;
        loop {
            let chunk = match self.input.fill_buf() {
                Ok(chunk) => chunk,
                Err(error) => {
                    self.failed = Some(error);
                    return None;
                }
            };
            if chunk.is_empty() {
                self.number += u64::from(any);
                return any.then_some((self.number, self.held.as_slice()));
            }
            any = true;
            let end = memchr(b'\n', chunk);
            let part = &chunk[..end.unwrap_or(chunk.len())];
            let kept = part.len().min(self.longest - self.held.len());
            self.held.extend_from_slice(&part[..kept]);
            self.cut |= kept < part.len();
            let used = part.len() + usize::from(end.is_some());
            self.input.consume(used);
            if end.is_some() {
                self.number += 1;
                let line = self.held.strip_suffix(b"\r").unwrap_or(&self.held);
                return Some((self.number, line));
            }
        }
    }

    /// What to say when reading ended too early.
    pub fn cut_short(&self) -> Option<String> {
        let error = self.failed.as_ref()?;
        Some(format!("the report could not be read to its end: {error} (behind line {})", self.number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_the_same_whatever_the_buffer_and_long_ones_are_cut() {
        for size in [1, 2, 100] {
            let text = b"one\r\n\nlonger than ten\nlast".as_slice();
            let mut lines = Lines::new(io::BufReader::with_capacity(size, text), 10);
            let mut all = Vec::new();
            while let Some((number, line)) = lines.next().map(|(number, line)| (number, line.to_vec())) {
                all.push((String::from_utf8(line).unwrap(), number, lines.cut));
            }
            let line = |text: &str, number, cut| (text.to_owned(), number, cut);
            let wanted = [
                line("one", 1, false),
                line("", 2, false),
                line("longer tha", 3, true),
                line("last", 4, false),
            ];
            assert_eq!(all, wanted);
        }
    }
}
