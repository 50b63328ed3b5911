//! Coverage of a run by folder and file, its course, the pyramid; and a source file with a mark on every line. Reads without script.

use andon_line::view::coverage::{CoverageRow, Sort, SourceLine};
use andon_line::view::{CoverageView, SourceView};
use andon_validation::coverage::{LineMark, Share};
use andon_validation::pyramid::LayerLine;
use maud::{Markup, html};

use crate::chart;
use crate::parts::{bar, head_of, sheet};

/// The page.
pub fn coverage(view: &CoverageView) -> Markup {
    let project = &view.frame.project;
    let sentence = html! {
        (view.sentence)
        @if let Some((ran, added)) = view.added { " " (ran) " of " (added) " added lines ran." }
        " " a href={ "/" (project) "/runs/" (view.run) } { "To run-" (view.run) }
    };
    html! {
        (head_of(html! { (view.heading) }, sentence, html! {}))
        @if !view.notes.is_empty() { (sheet("notes", "How it came", html! { ul.reasons.wait { @for note in &view.notes { li { (note) } } } })) }
        section.sheet #sums aria-label="All that is counted" {
            dl.facts {
                (sum("lines", view.totals.lines)) (sum("branches", view.totals.branches))
                (sum("functions", view.totals.functions)) (sum("classes with tests", view.totals.classes))
            }
        }
        @if view.course.len() > 1 { (sheet("course", "Lines that ran in tests, at each landing", chart::course(&view.course))) }
        (sheet("files", if view.folder.is_empty() { "By folder and file" } else { "In this folder" }, files(view)))
        @if !view.layers.is_empty() { (sheet("pyramid", "The pyramid", pyramid(&view.layers))) }
    }
}

fn sum(what: &str, share: Share) -> Markup {
    html! {
        @if share.total > 0 {
            div.fact { dt { (what) ": " (share.covered) " of " (share.total) } dd { (format!("{:.1} %", share.percent())) } }
        }
    }
}

fn files(view: &CoverageView) -> Markup {
    let project = &view.frame.project;
    let here = |sort: Sort, folder: &str| match (sort, folder) {
        (Sort::Lines, "") => format!("/{project}/coverage/{}", view.run),
        (sort, "") => format!("/{project}/coverage/{}/{}", view.run, sort.word()),
        (sort, folder) => format!("/{project}/coverage/{}/{}/{}", view.run, sort.word(), escaped(folder)),
    };
    let heading = |sort: Sort, text: &str, numeric: bool| {
        html! {
            th.num[numeric] scope="col" aria-sort=[(view.sort == sort).then_some(if sort == Sort::Missing { "descending" } else { "ascending" })] {
                @if view.sort == sort { b { (text) } } @else { a href=(here(sort, &view.folder)) { (text) } }
            }
        }
    };
    let parts: Vec<&str> = view.folder.split('/').filter(|part| !part.is_empty()).collect();
    html! {
        @if !parts.is_empty() {
            p.crumbs {
                a href=(here(view.sort, "")) { "all" }
                @for n in 1..=parts.len() { " / " @if n == parts.len() { (parts[n - 1]) } @else { a href=(here(view.sort, &parts[..n].join("/"))) { (parts[n - 1]) } } }
            }
        }
        div.scroll { table {
            thead { tr {
                (heading(Sort::Name, "Name", false)) (heading(Sort::Lines, "Lines", true)) th scope="col" { span.unseen { "Share" } }
                (heading(Sort::Branches, "Branches", true)) (heading(Sort::Functions, "Functions", true)) (heading(Sort::Missing, "Without tests", true))
            } }
            tbody { @for row in &view.rows { (line(row, &if row.files.is_some() { here(view.sort, &row.path) } else { format!("/{project}/source/{}/{}", view.run, escaped(&row.path)) })) } }
        } }
        @if view.more > 0 { p.soft { "And " (view.more) " more." } }
    }
}

fn line(row: &CoverageRow, link: &str) -> Markup {
    let lines = row.totals.lines;
    html! {
        tr {
            th scope="row" { a href=(link) { code { (row.name) @if row.files.is_some() { "/" } } } @if let Some(files) = row.files { span.soft.small { (files) @if files == 1 { " file" } @else { " files" } } } }
            td.num { (percent(lines)) }
            td.meter { (bar(lines.percent(), "go", &format!("{:.0} %", lines.percent()))) }
            td.num { (percent(row.totals.branches)) }
            td.num { (percent(row.totals.functions)) }
            td.num { (lines.total - lines.covered) }
        }
    }
}

fn percent(share: Share) -> String {
    if share.total == 0 { "–".into() } else { format!("{:.1} %", share.percent()) }
}

/// Tests, time and failures found of each layer.
pub fn pyramid(layers: &[LayerLine]) -> Markup {
    let most = layers.iter().map(|layer| layer.tests).max().unwrap_or(0).max(1);
    html! {
        div.scroll { table {
            thead { tr { th scope="col" { "Layer" } th.num scope="col" { "Tests" } th scope="col" { span.unseen { "Share" } } th.num scope="col" { "Time" } th.num scope="col" { "Failures found" } th.num scope="col" { "Lines it runs" } } }
            // The tip is on top, as in the picture.
            tbody { @for layer in layers.iter().rev() {
                tr {
                    th scope="row" { (layer.layer.word()) }
                    td.num { (layer.tests) }
                    td.meter { (bar(layer.tests as f64 * 100.0 / most as f64, "", &format!("{} tests", layer.tests))) }
                    td.num { (layer.took) }
                    td.num { (layer.failed) }
                    td.num { @if let Some(lines) = layer.lines { (percent(lines)) } @else { "–" } }
                }
            } }
        } }
    }
}

/// A source file.
pub fn source(view: &SourceView) -> Markup {
    let project = &view.frame.project;
    let folder = view.path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let up = match folder {
        "" => format!("/{project}/coverage/{}", view.run),
        folder => format!("/{project}/coverage/{}/lines/{}", view.run, escaped(folder)),
    };
    let sentence = html! { (view.sentence) " " a href=(up) { "To its folder" } };
    html! {
        (head_of(html! { (view.heading) }, sentence, html! {}))
        section.sheet #source aria-label="Source" {
            ul.legend.marks { li.go { "ran" } li.wait { "ran, but not every way out" } li.stop { "did not run" } li.added { "added by the change" } }
            ol.source { @for line in &view.lines { (source_line(line)) } }
            @if view.more > 0 { p.soft { "And " (view.more) " more lines, which are not shown here." } }
        }
    }
}

fn source_line(line: &SourceLine) -> Markup {
    let (class, mut says) = match line.mark {
        Some(LineMark::Covered) => ("go", "ran"),
        Some(LineMark::Partly) => ("wait", "partly"),
        Some(LineMark::Uncovered) => ("stop", "did not run"),
        None => ("", ""),
    };
    let ways = line.branches.map(|(taken, all)| format!("{taken} of {all} ways out taken"));
    let ways = ways.unwrap_or_default();
    if class == "wait" {
        says = &ways;
    }
    let title = match line.hits {
        Some(hits) if hits > 0 => {
            format!("ran {hits} times{}{ways}", if ways.is_empty() { "" } else { "; " })
        }
        _ => says.to_owned(),
    };
    html! {
        li.src.(class).added[line.added] id={ "L" (line.number) } {
            a.no href={ "#L" (line.number) } { (line.number) }
            span.plus { @if line.added { "+" span.unseen { " added" } } }
            span.mk title=(title) { span.unseen { (says) } }
            code { (line.text) }
            @for finding in &line.findings { span.finding { (finding) } }
        }
    }
}

/// A path as it stands in an address.
pub(super) fn escaped(path: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'.' | b'-' | b'_' | b'~');
    path.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}
