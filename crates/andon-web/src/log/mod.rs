//! The output of a job: opened where it first fails, read on in pieces in both directions, searched, never cut off. Knows no HTTP.
//!
//! [`piece`] takes lines out of it, [`paint`] shows a line with its colours and nothing else that a terminal would do, [`groups`] folds what belongs together,
//! [`tail`] reads a growing output once for all who follow it.

mod groups;
mod paint;
mod piece;
pub mod tail;

use std::sync::Arc;

use andon_line::view::{Mark, Output, Place};
use andon_line::{Line, Project, Refusal};
use andon_model::{JobName, RunId};
use maud::{Markup, html};
use serde::Deserialize;

use piece::{LINES, Piece, previous, read};

/// Lines shown before the one that is looked for.
const BEFORE: u64 = 20;
/// Bytes that are looked through for the first failing line of output that grows, beyond what is known of it.
const SEARCHED: u64 = 64 << 20;
/// Lines shown that hold what is looked for.
const FOUND: usize = 200;
/// The longest text that is looked for, in characters.
const LONGEST: usize = 200;

/// Where in the output a page begins.
#[derive(Debug, Default, Clone, Deserialize)]
pub struct From {
    /// At this byte, which begins the line that is said beside it.
    at: Option<u64>,
    /// At this line, or the one that begins at the byte.
    line: Option<u64>,
    /// With the piece before this byte.
    until: Option<u64>,
    /// With what holds this text.
    find: Option<String>,
}

/// The output as a page shows it.
#[derive(Debug)]
pub struct Opened {
    /// The lines with the ways to those before and after.
    pub markup: Markup,
    /// Byte and line from where a growing output is followed.
    pub follow: Option<(u64, u64)>,
}

/// A step, and the byte at which its output begins.
type Step = (String, u64);

/// What was looked for, and where it stands.
struct Found {
    text: String,
    lines: Vec<(Place, Vec<u8>)>,
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
        row.as_ref().map_or((false, false), |row| (row.mark == Mark::Live, row.mark == Mark::Stop));
    let Ok(output) = line.log(project, run, job) else {
        return Ok(Opened { markup: html! {}, follow: None });
    };
    let steps: Vec<Step> = line.steps_of(project, run, job);
    let whole = format!("/api/v1/{}/runs/{}/jobs/{job}/log", project.name, run.0);
    let (path, from) = (path.to_owned(), from.clone());
    let drawn = move || -> std::io::Result<Opened> {
        let mut log = match output.open() {
            Ok(log) => log,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let page =
                    Page { path: &path, whole: &whole, steps: &[], bad: None, before: None, found: None };
                return Ok(Opened {
                    markup: page.draw(&Piece::nothing()),
                    follow: running.then_some((0, 1)),
                });
            }
            Err(error) => return Err(error),
        };
        let mut bad = None;
        let start = match (from.at, from.until, from.line) {
            (Some(at), _, line) => Place { at, line: line.unwrap_or(1) },
            (None, Some(until), line) => previous(&mut log, Place { at: until, line: line.unwrap_or(1) })?,
            (None, None, Some(line)) => log.line(line.saturating_sub(BEFORE).max(1))?,
            (None, None, None) => {
                bad = if failed { log.first_failure(SEARCHED)? } else { None };
                match bad {
                    Some(bad) => log.line(bad.line.saturating_sub(BEFORE).max(1))?,
                    None if running => log.tail(LINES as u64 / 2)?,
                    None => Place::BEGIN,
                }
            }
        };
        let piece = read(&mut log, start, None, running)?;
        let text = from
            .find
            .map(|text| text.chars().take(LONGEST).collect::<String>())
            .filter(|text| !text.is_empty());
        let found = match text {
            Some(text) => Some(Found { lines: log.find(text.as_bytes(), Place::BEGIN, FOUND)?, text }),
            None => None,
        };
        let follow = (running && piece.last).then_some((piece.to.at, piece.to.line));
        let before = (piece.from.at > 0).then_some(piece.from);
        let page = Page { path: &path, whole: &whole, steps: &steps, bad, before, found };
        Ok(Opened { markup: page.draw(&piece), follow })
    };
    let opened =
        tokio::task::spawn_blocking(drawn).await.map_err(|error| Refusal::Broken(error.to_string()))?;
    Ok(opened?)
}

/// What follows in a growing output, a piece at most and none beyond a byte that ends a line, and whether nothing follows that.
pub async fn grown(
    output: Output,
    from: Place,
    until: Option<u64>,
    growing: bool,
) -> Option<(tail::Growth, bool)> {
    let read = move || {
        let mut log = output.open().ok()?;
        let piece = read(&mut log, from, until, growing).ok()?;
        let growth = || tail::Growth::new(piece.from, piece.to, &chunk(&piece, None, &[]).0);
        (piece.to.at > from.at).then(|| (growth(), piece.last))
    };
    tokio::task::spawn_blocking(read).await.ok()?
}

struct Page<'a> {
    path: &'a str,
    whole: &'a str,
    steps: &'a [Step],
    bad: Option<Place>,
    before: Option<Place>,
    found: Option<Found>,
}

impl Page<'_> {
    fn draw(&self, piece: &Piece) -> Markup {
        let path = self.path;
        html! {
            section.sheet.output #output data-keep aria-labelledby="output-title" {
                div.head {
                    h2 #output-title { @match self.bad { Some(bad) => { "Fails first at line " a href={ "#L" (bad.line) } { (bad.line) } }, None => "Output" } }
                    div.acts {
                        form.find action=(path) role="search" { input type="search" name="find" value=[self.found.as_ref().map(|found| &found.text)] placeholder="Find in the output" aria-label="Find in the output" maxlength=(LONGEST) autocomplete="off"; }
                        a.btn href=(self.whole) { "Whole output as text" }
                        @if piece.from.at > 0 { a.btn href={ (path) "?at=0&line=1" } { "From the beginning" } }
                    }
                }
                @if self.steps.len() > 1 {
                    nav.steps aria-label="Steps" { @for (name, at) in self.steps { a href={ (path) "?at=" (at) "&line=0" } { (name) } } }
                }
                @if let Some(found) = &self.found { (self.hits(found)) }
                @if let Some(before) = self.before { a.more data-more="before" href={ (path) "?until=" (before.at) "&line=" (before.line) } { "Lines before" } }
                div.log #log tabindex="0" role="log" aria-label="Output" { (chunk(piece, self.bad, self.steps)) }
                @if !piece.last { a.more data-more="after" href={ (path) "?at=" (piece.to.at) "&line=" (piece.to.line) } { "Lines after" } }
            }
        }
    }

    fn hits(&self, found: &Found) -> Markup {
        let (many, text) = (found.lines.len(), &found.text);
        html! {
            p.soft role="status" {
                @match many { 0 => { "No line holds “" (text) "”." }, FOUND => { "The first " (FOUND) " lines that hold “" (text) "”:" }, 1 => { "One line holds “" (text) "”:" }, n => { (n) " lines hold “" (text) "”:" } }
            }
            @if many > 0 { ol.hits { @for (place, line) in &found.lines { li { a href={ (self.path) "?line=" (place.line) "#L" (place.line) } { (place.line) } " " code { (paint::plain(line)) } } } } }
        }
    }
}

/// The lines of a piece. Where a step begins its name stands above; groups are folded unless something in them failed.
pub fn chunk(piece: &Piece, bad: Option<Place>, steps: &[Step]) -> Markup {
    let mut paint = paint::Paint::default();
    let mut rows = Vec::with_capacity(piece.lines.len());
    let mut at = piece.from.at;
    for (number, line) in (piece.from.line..).zip(&piece.lines) {
        let step = steps
            .iter()
            .find(|(_, begin)| (at..at + line.len() as u64 + 1).contains(begin))
            .filter(|_| steps.len() > 1);
        rows.push(groups::Row {
            number,
            line,
            step: step.map(|(name, _)| name.as_str()),
            bad: bad.is_some_and(|bad| bad.line == number),
        });
        at += line.len() as u64 + 1;
    }
    html! {
        div.chunk data-at=(piece.from.at) data-line=(piece.from.line) { (groups::fold(&rows, &mut paint)) }
    }
}
