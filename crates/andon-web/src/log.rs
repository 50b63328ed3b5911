//! The output of a job: opened where it first fails, read on in pieces in both directions, never cut off. Reads files; knows no HTTP.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;

use andon_line::view::Mark;
use andon_line::{Line, Project, Refusal};
use andon_model::{JobName, RunId};
use maud::{Markup, html};
use serde::Deserialize;

/// Lines in one piece.
const LINES: usize = 1000;
/// Bytes in one piece; a longer line goes on in the next one.
const BYTES: usize = 256 * 1024;
/// Lines shown before the first failing one.
const BEFORE: usize = 20;
/// Bytes that are looked through for the first failing line.
const SEARCHED: u64 = 256 << 20;

/// Where in the output a page begins.
#[derive(Debug, Default, Deserialize)]
pub struct From {
    at: Option<u64>,
    line: Option<u64>,
}

/// The output as a page shows it.
#[derive(Debug)]
pub struct Opened {
    /// The lines with the ways to those before and after.
    pub markup: Markup,
    /// Byte and line from where a growing output is followed.
    pub follow: Option<(u64, u64)>,
}

/// A piece of output.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Piece {
    /// Where it begins.
    pub from: u64,
    /// Number of its first line.
    pub first: u64,
    /// Where the next piece begins.
    pub to: u64,
    /// Its lines, without control characters.
    pub lines: Vec<String>,
    /// Nothing follows.
    pub last: bool,
}

/// The output of a job from where somebody wants to read it.
pub async fn open(
    line: &Arc<Line>,
    project: &Arc<Project>,
    run: RunId,
    job: &JobName,
    from: &From,
    path: &str,
) -> Result<Opened, Refusal> {
    let row = line.run_view(project, run).await?.jobs.into_iter().find(|row| row.name == job.as_str());
    let (running, failed) =
        row.map_or((false, false), |row| (row.mark == Mark::Live, row.mark == Mark::Stop));
    let Ok(file) = line.log_file(project, run, job) else {
        return Ok(Opened { markup: html! {}, follow: None });
    };
    let (at, number) = (from.at, from.line.unwrap_or(1));
    let (whole, path) = (format!("/api/v1/{}/runs/{}/jobs/{job}/log", project.name, run.0), path.to_owned());
    let read = move || -> std::io::Result<Opened> {
        if !file.exists() {
            return Ok(Opened {
                markup: lines(&path, &Piece { last: true, ..Piece::default() }, None, None, &whole),
                follow: running.then_some((0, 1)),
            });
        }
        let (start, bad) = match at {
            Some(at) => ((at, number), None),
            None => {
                let found = scan(&file, running)?;
                match found.first_bad.filter(|_| failed) {
                    Some(bad) => (found.before_bad, Some(bad)),
                    None if running => (found.tail, None),
                    None => ((0, 1), None),
                }
            }
        };
        let piece = read(&file, start.0, start.1, running)?;
        let before = (piece.from > 0).then(|| previous(&file, piece.from, piece.first)).transpose()?;
        let follow = (running && piece.last).then(|| (piece.to, piece.first + piece.lines.len() as u64));
        Ok(Opened { markup: lines(&path, &piece, before, bad, &whole), follow })
    };
    let opened =
        tokio::task::spawn_blocking(read).await.map_err(|error| Refusal::Broken(error.to_string()))?;
    Ok(opened?)
}

/// What follows in a growing output.
pub async fn grown(file: PathBuf, at: u64, number: u64, growing: bool) -> Option<Piece> {
    let piece = tokio::task::spawn_blocking(move || read(&file, at, number, growing)).await.ok()?.ok()?;
    (piece.to > at).then_some(piece)
}

fn lines(path: &str, piece: &Piece, before: Option<(u64, u64)>, bad: Option<u64>, whole: &str) -> Markup {
    html! {
        section.sheet.output #output data-keep aria-labelledby="output-title" {
            div.head {
                h2 #output-title { @match bad { Some(line) => { "Fails first at line " a href={ "#L" (line) } { (line) } }, None => "Output" } }
                div.acts { a.btn href=(whole) { "Whole output as text" } @if piece.from > 0 { a.btn href={ (path) "?at=0&line=1" } { "From the beginning" } } }
            }
            @if let Some((at, number)) = before { a.more data-more="before" href={ (path) "?at=" (at) "&line=" (number) } { "Lines before" } }
            div.log #log tabindex="0" role="log" aria-label="Output" { (chunk(piece, bad)) }
            @if !piece.last { a.more data-more="after" href={ (path) "?at=" (piece.to) "&line=" (piece.first + piece.lines.len() as u64) } { "Lines after" } }
        }
    }
}

/// The lines of a piece.
pub fn chunk(piece: &Piece, bad: Option<u64>) -> Markup {
    html! {
        div.chunk {
            @for (n, text) in piece.lines.iter().enumerate() {
                @let number = piece.first + n as u64;
                div class={ "ln" (line_class(number, text, bad)) } id={ "L" (number) } { a href={ "#L" (number) } { (number) } span { (text) } }
            }
        }
    }
}

fn line_class(number: u64, text: &str, bad: Option<u64>) -> &'static str {
    match () {
        () if bad == Some(number) => " bad first",
        () if fails(text.as_bytes()) => " bad",
        () => "",
    }
}

/// Whether a line of output speaks of a failure, as the common tools write it.
fn fails(line: &[u8]) -> bool {
    const SIGNS: [&[u8]; 14] = [
        b"error:",
        b"Error:",
        b"error[",
        b"ERROR",
        b"FAILED",
        b"FAIL:",
        b"--- FAIL",
        b"panicked at",
        b"Traceback (most recent",
        b"AssertionError",
        b"assertion failed",
        b"fatal:",
        b"not ok ",
        b"Exception:",
    ];
    const FINE: [&[u8]; 3] = [b" 0 FAILED", b"ERRORS: 0", b"0 ERROR"];
    let line = &line[..line.len().min(4096)];
    let has = |sign: &&[u8]| line.windows(sign.len()).any(|part| part == *sign);
    SIGNS.iter().any(has) && !FINE.iter().any(has)
}

#[derive(Debug, Default)]
struct Scan {
    first_bad: Option<u64>,
    before_bad: (u64, u64),
    tail: (u64, u64),
    lines: u64,
}

/// Looks through the output once: where it fails first, where its end begins.
fn scan(path: &PathBuf, whole: bool) -> std::io::Result<Scan> {
    let most = if whole { u64::MAX } else { SEARCHED };
    let mut reader = BufReader::with_capacity(1 << 16, File::open(path)?.take(most));
    let mut found = Scan { before_bad: (0, 1), tail: (0, 1), ..Scan::default() };
    let mut starts = std::collections::VecDeque::from([0u64]);
    let (mut line, mut at) = (Vec::new(), 0u64);
    loop {
        line.clear();
        let read = (&mut reader).take(BYTES as u64).read_until(b'\n', &mut line)?;
        if read == 0 {
            break;
        }
        found.lines += 1;
        if found.first_bad.is_none() && fails(&line) {
            found.first_bad = Some(found.lines);
            let back = starts.len().min(BEFORE + 1);
            found.before_bad = (starts[starts.len() - back], found.lines + 1 - back as u64);
            if !whole {
                break;
            }
        }
        at += read as u64;
        starts.push_back(at);
        if starts.len() > LINES / 2 {
            starts.pop_front();
        }
    }
    let back = (starts.len() as u64).min(found.lines + 1);
    found.tail = (starts[0], found.lines + 2 - back);
    Ok(found)
}

/// A piece from a place on. Of a growing output the last line is taken once it is whole.
fn read(path: &PathBuf, at: u64, number: u64, growing: bool) -> std::io::Result<Piece> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    let at = at.min(size);
    file.seek(SeekFrom::Start(at))?;
    let mut bytes = Vec::new();
    file.take(BYTES as u64).read_to_end(&mut bytes)?;
    let mut piece = Piece { from: at, first: number, to: at, lines: Vec::new(), last: false };
    let mut rest = bytes.as_slice();
    while !rest.is_empty() && piece.lines.len() < LINES {
        let (line, used) = match rest.iter().position(|byte| *byte == b'\n') {
            Some(end) => (&rest[..end], end + 1),
            // One line fills the whole piece and goes on in the next; or the file ends here.
            None if bytes.len() == BYTES && piece.lines.is_empty() => (rest, rest.len()),
            None if !growing && at + bytes.len() as u64 >= size => (rest, rest.len()),
            None => break,
        };
        piece.lines.push(clean(line));
        piece.to += used as u64;
        rest = &rest[used..];
    }
    piece.last = at + bytes.len() as u64 >= size && !rest.contains(&b'\n');
    Ok(piece)
}

/// Where the piece before a place begins, and the number of its first line.
fn previous(path: &PathBuf, at: u64, number: u64) -> std::io::Result<(u64, u64)> {
    let from = at.saturating_sub(BYTES as u64);
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(at - from).read_to_end(&mut bytes)?;
    // Starts of lines, newest first; the newline that ends the piece is not one.
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
    let start = starts.last().copied().unwrap_or(0);
    Ok((start, number.saturating_sub(starts.len() as u64).max(1)))
}

/// A line without colours and control characters.
fn clean(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let mut clean = String::with_capacity(text.len());
    let mut chars = text.trim_end_matches('\r').chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' if chars.peek() == Some(&'[') => {
                chars.next();
                while chars.next().is_some_and(|c| !('@'..='~').contains(&c)) {}
            }
            '\t' => clean.push('\t'),
            c if c.is_control() => clean.push(' '),
            c => clean.push(c),
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn file(lines: impl Iterator<Item = String>) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut file = File::create(&path).unwrap();
        lines.for_each(|line| writeln!(file, "{line}").unwrap());
        (dir, path)
    }

    #[test]
    fn ten_thousand_lines_are_all_there_and_numbered_whichever_way_they_are_read() {
        let (_dir, path) = file((1..=10_000).map(|n| format!("line {n}")));
        let (mut at, mut number, mut all) = (0, 1, Vec::new());
        let mut turns = Vec::new();
        loop {
            let piece = read(&path, at, number, false).unwrap();
            turns.push((piece.from, piece.first));
            all.extend(piece.lines.iter().cloned());
            (at, number) = (piece.to, piece.first + piece.lines.len() as u64);
            if piece.last {
                break;
            }
        }
        assert_eq!(all.len(), 10_000);
        assert!(all.iter().enumerate().all(|(n, line)| *line == format!("line {}", n + 1)));
        for pair in turns.windows(2) {
            assert_eq!(previous(&path, pair[1].0, pair[1].1).unwrap(), pair[0]);
        }
    }

    #[test]
    fn a_log_is_opened_just_before_it_first_fails() {
        let (_dir, path) =
            file((1..=5_000).map(|n| if n == 3_000 { "FAILED tests::a".into() } else { format!("ok {n}") }));
        let found = scan(&path, false).unwrap();
        assert_eq!(found.first_bad, Some(3_000));
        let piece = read(&path, found.before_bad.0, found.before_bad.1, false).unwrap();
        assert_eq!(piece.first, 2_980);
        assert_eq!(piece.lines[20], "FAILED tests::a");
    }

    #[test]
    fn a_growing_log_is_followed_from_its_last_line() {
        let (_dir, path) = file((1..=2_000).map(|n| format!("line {n}")));
        let found = scan(&path, true).unwrap();
        let piece = read(&path, found.tail.0, found.tail.1, true).unwrap();
        assert!(piece.last);
        assert_eq!(piece.lines.last().unwrap(), "line 2000");
        assert_eq!(piece.first + piece.lines.len() as u64, 2_001);
    }

    #[test]
    fn a_line_without_end_is_read_on_in_the_next_piece() {
        let (_dir, path) = file(std::iter::once("x".repeat(BYTES * 2 + 5)));
        let first = read(&path, 0, 1, false).unwrap();
        assert!(!first.last && first.lines.len() == 1);
        let mut total = first.lines[0].len();
        let (mut at, mut turns) = (first.to, 0);
        while turns < 9 {
            let piece = read(&path, at, 1, false).unwrap();
            total += piece.lines.iter().map(String::len).sum::<usize>();
            at = piece.to;
            turns += 1;
            if piece.last {
                break;
            }
        }
        assert_eq!(total, BYTES * 2 + 5);
    }

    #[test]
    fn colours_of_a_terminal_are_not_shown_as_text() {
        assert_eq!(clean(b"\x1b[31mred\x1b[0m\tok\r"), "red\tok");
    }
}
