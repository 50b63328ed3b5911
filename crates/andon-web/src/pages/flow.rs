//! Flow: the five metrics with their doubt, where time goes, and the way of each change.

use andon_line::view::FlowView;
use andon_line::view::flow::{StageRow, WayRow};
use andon_model::Span;
use maud::{Markup, html};

use crate::parts::{bar, facts, head, sheet};

/// The page.
pub fn flow(view: &FlowView) -> Markup {
    let project = &view.frame.project;
    let most = view.stages.iter().map(|stage| stage.total_ms).max().unwrap_or(0).max(1);
    html! {
        (head(&view.heading, &view.sentence, html! {}))
        (facts(&view.metrics))
        (sheet("stages", "Where the time goes, most first", html! {
            @if view.stages.is_empty() { p.soft { "Nothing has passed the line yet." } } @else {
                div.scroll { table {
                    thead { tr { th scope="col" { "Between" } th scope="col" { "Is" } th scope="col" { "One change" } th scope="col" { "All changes" } th scope="col" { span.unseen { "Share" } } } }
                    tbody { @for stage in &view.stages { (self::stage(stage, most)) } }
                } }
            }
        }))
        (sheet("ways", "The way of each change", html! {
            p.legend-line { span.key.working { "worked on" } span.key.waiting { "waited" } }
            @if view.changes.is_empty() { p.soft { "No change has set out yet." } }
            ol.ways { @for way in &view.changes { (self::way(project, way)) } }
        }))
    }
}

fn stage(stage: &StageRow, most: u64) -> Markup {
    let look = if stage.kind == "waiting" { "wait" } else { "live" };
    html! {
        tr {
            th scope="row" { (stage.from) " → " (stage.to) }
            td { span.st.(look) { (stage.kind) } }
            td { (stage.took) }
            td.num { (Span(stage.total_ms)) }
            td.meter { (bar(stage.total_ms as f64 * 100.0 / most as f64, look, &format!("{} of all", Span(stage.total_ms)))) }
        }
    }
}

fn way(project: &str, way: &WayRow) -> Markup {
    let total = (way.working_ms + way.waiting_ms).max(1) as f64;
    let segments: Vec<String> = way
        .segments
        .iter()
        .map(|(from, to, kind, ms)| format!("{from} to {to}: {kind} {}", Span(*ms)))
        .collect();
    let mut at = 0.0;
    let mut rects = Vec::new();
    for (from, to, kind, ms) in &way.segments {
        let width = *ms as f64 * 100.0 / total;
        rects.push((
            format!("{at:.3}"),
            format!("{width:.3}"),
            kind.clone(),
            format!("{from} → {to}: {}", Span(*ms)),
        ));
        at += width;
    }
    html! {
        li id={ "way-" (way.number) } {
            a href={ "/" (project) "/changes/" (way.number) } { b { "#" (way.number) } " " (way.title) }
            span.small.soft { "worked on for " (Span(way.working_ms)) ", waited " (Span(way.waiting_ms)) }
            svg.bar.way viewBox="0 0 100 4" preserveAspectRatio="none" role="img" aria-label=(if segments.is_empty() { "no time yet".to_owned() } else { segments.join("; ") }) {
                rect.rest width="100" height="4" {}
                @for (x, width, kind, title) in &rects { rect x=(x) width=(width) height="4" class=(kind) { title { (title) } } }
            }
        }
    }
}
