//! Folds what an output itself marks as belonging together: `::group::NAME` … `::endgroup::` (and `##[group]`), or `section_start` … `section_end`. The marks
//! are read for showing alone: nothing that a job prints is a command.

use maud::{Markup, html};

use super::paint::{self, Paint};
use andon_line::view::log::signs::fails;

/// A line to show.
pub struct Row<'a> {
    /// Its number.
    pub number: u64,
    /// As it was printed.
    pub line: &'a [u8],
    /// The step that begins with it.
    pub step: Option<&'a str>,
    /// It is the first failure.
    pub bad: bool,
}

enum Sign {
    Begin(String),
    End,
}

fn sign(line: &[u8]) -> Option<Sign> {
    // Only short lines can be marks, and most lines begin otherwise.
    if line.len() > 1024 || !matches!(line.first(), Some(b':' | b'#' | b's' | 0x1b)) {
        return None;
    }
    let text = paint::plain(line);
    let name = |rest: &str| Sign::Begin(rest.trim().to_owned());
    if let Some(rest) = text.strip_prefix("::group::").or_else(|| text.strip_prefix("##[group]")) {
        return Some(name(rest));
    }
    if text.starts_with("::endgroup::") || text.starts_with("##[endgroup]") {
        return Some(Sign::End);
    }
    let raw = String::from_utf8_lossy(line);
    let section = raw.trim_start_matches("\u{1b}[0K");
    if section.starts_with("section_end:") {
        return Some(Sign::End);
    }
    let rest = section.strip_prefix("section_start:")?;
    Some(name(rest.split_once('\r').map_or(rest, |(_, header)| header.trim_start_matches("\u{1b}[0K"))))
}

/// The rows, folded. A group that goes on beyond them, or in which something failed, is open.
pub fn fold(rows: &[Row<'_>], paint: &mut Paint) -> Markup {
    let mut drawn = Vec::new();
    let mut at = 0;
    while at < rows.len() {
        let row = &rows[at];
        let begun = match sign(row.line) {
            Some(Sign::Begin(name)) => Some(name),
            _ => None,
        };
        let Some(name) = begun else {
            drawn.push(line(row, paint));
            at += 1;
            continue;
        };
        // Up to its end, or to where the next one begins.
        let inside = &rows[at + 1..];
        let end = inside.iter().position(|row| sign(row.line).is_some());
        let ended = end.is_some_and(|end| matches!(sign(inside[end].line), Some(Sign::End)));
        let inside = &inside[..end.unwrap_or(inside.len())];
        let open = end.is_none() || inside.iter().any(|row| row.bad || fails(row.line));
        drawn.push(html! {
            @if let Some(step) = row.step { (self::step(step)) }
            details.group open[open] {
                summary id={ "L" (row.number) } { b { (name) } " " span.soft { (inside.len()) " lines" } }
                @for row in inside { (line(row, paint)) }
            }
        });
        at += 1 + inside.len() + usize::from(ended);
    }
    html! { @for one in drawn { (one) } }
}

fn step(name: &str) -> Markup {
    html! { h3.step { (name) } }
}

fn line(row: &Row<'_>, paint: &mut Paint) -> Markup {
    let look = match () {
        () if row.bad => " bad first",
        () if fails(row.line) => " bad",
        () => "",
    };
    html! {
        @if let Some(name) = row.step { (step(name)) }
        div class={ "ln" (look) } id={ "L" (row.number) } { a href={ "#L" (row.number) } { (row.number) } span { (paint::line(row.line, paint)) } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folded(lines: &[&str]) -> String {
        let rows: Vec<Row<'_>> = (1..)
            .zip(lines)
            .map(|(number, line)| Row { number, line: line.as_bytes(), step: None, bad: false })
            .collect();
        fold(&rows, &mut Paint::default()).0
    }

    #[test]
    fn a_group_is_folded_unless_something_in_it_failed_or_it_goes_on() {
        let closed = folded(&["a", "::group::Install <it>", "one", "two", "::endgroup::", "b"]);
        assert!(
            closed.contains("<details class=\"group\"><summary id=\"L2\"><b>Install &lt;it&gt;</b>"),
            "{closed}"
        );
        assert!(closed.contains("2 lines") && closed.contains("id=\"L6\"") && !closed.contains("endgroup"));
        assert!(folded(&["##[group]x", "error: no", "##[endgroup]"]).contains("class=\"group\" open"));
        assert!(folded(&["::group::x", "one"]).contains("open"));
        let section = folded(&[
            "\u{1b}[0Ksection_start:1:x\r\u{1b}[0KBuild",
            "one",
            "\u{1b}[0Ksection_end:2:x\r\u{1b}[0K",
        ]);
        assert!(section.contains("<b>Build</b>"), "{section}");
    }

    #[test]
    fn marks_without_their_other_half_lose_no_line() {
        let shown = folded(&["::endgroup::", "a", "::group::x", "b", "::group::y", "c"]);
        for line in ["L1", "L2", "L3", "L4", "L5", "L6"] {
            assert!(shown.contains(&format!("id=\"{line}\"")), "{line} in {shown}");
        }
    }
}
