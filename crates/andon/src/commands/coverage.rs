//! Coverage in the terminal.

use andon_line::view::{CoverageView, SourceView};
use andon_validation::coverage::{LineMark, Share};
use clap::Args;

use super::Place;
use crate::cli::Common;
use crate::client::Failure;
use crate::say::say;

/// `andon coverage [WHAT]`.
#[derive(Debug, Args)]
pub struct Coverage {
    /// A run (`12`, `run-12`), a folder that ends in `/`, or a file; default: the newest landing.
    what: Option<String>,
    /// The run that folder or file are of; default: the newest landing.
    #[arg(long)]
    run: Option<String>,
}

/// Shows it.
pub fn coverage(common: &Common, wanted: Coverage) -> Result<(), Failure> {
    let place = Place::find(common)?;
    let number = |text: &str| text.trim_start_matches("run-").parse::<u32>().ok();
    let run = wanted.run.as_deref().map(|run| number(run).map_or_else(|| run.to_owned(), |n| n.to_string()));
    let run = run.unwrap_or_else(|| "newest".into());
    match wanted.what.as_deref() {
        None => drop(place.show(&format!("/coverage/{run}"), folder)?),
        Some(what) if number(what).is_some() => {
            let run = number(what).unwrap_or_default();
            place.show(&format!("/coverage/{run}"), folder)?;
        }
        Some(what) if what.ends_with('/') => {
            place.show(&format!("/coverage/{run}?folder={}", escaped(what.trim_end_matches('/'))), folder)?;
        }
        Some(file) => drop(place.show(&format!("/coverage/{run}/file?path={}", escaped(file)), source)?),
    }
    Ok(())
}

fn folder(view: &CoverageView) {
    say!("{}", view.heading);
    say!("  {}", view.sentence);
    if let Some((ran, added)) = view.added {
        say!("  {ran} of {added} added lines ran in tests");
    }
    for note in &view.notes {
        say!("  ▲ {note}");
    }
    let width = view.rows.iter().map(|row| row.name.len() + 1).max().unwrap_or(0).min(60);
    say!("  {:width$} {:>8} {:>8} {:>9} {:>8}", "", "lines", "branches", "functions", "missing");
    for row in &view.rows {
        let name = if row.files.is_some() { format!("{}/", row.name) } else { row.name.clone() };
        let missing = row.totals.lines.total - row.totals.lines.covered;
        let (lines, branches, functions) =
            (share(row.totals.lines), share(row.totals.branches), share(row.totals.functions));
        say!("  {name:width$} {lines:>8} {branches:>8} {functions:>9} {missing:>8}");
    }
    if view.more > 0 {
        say!("  and {} more", view.more);
    }
}

fn share(share: Share) -> String {
    if share.total == 0 { "–".into() } else { format!("{:.1} %", share.percent()) }
}

fn source(view: &SourceView) {
    say!("{}", view.heading);
    say!("  {}", view.sentence);
    for line in &view.lines {
        let mark = match line.mark {
            Some(LineMark::Covered) => "●",
            Some(LineMark::Partly) => "▲",
            Some(LineMark::Uncovered) => "■",
            None => " ",
        };
        let (added, hits) =
            (if line.added { "+" } else { " " }, line.hits.map_or(String::new(), |hits| hits.to_string()));
        // What stands in a file is foreign: a terminal would obey its control characters.
        let text: String =
            line.text.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect();
        say!("{added}{mark} {:>5} {hits:>6} {text}", line.number);
        for finding in &line.findings {
            say!("                ▲ {finding}");
        }
    }
    if view.more > 0 {
        say!("  and {} more lines", view.more);
    }
}

/// A value as it stands in a query.
fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'.' | b'-' | b'_' | b'~');
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}
