//! Releases: two revisions side by side, the evidence, and the big red button.

use andon_line::Caller;
use andon_line::view::release::{DifferenceRow, ReleaseRow, ReleaseView, ReleasesView, SignalRow};
use andon_model::event::Role;
use maud::{Markup, html};

use crate::chart;
use crate::parts::{
    Ask, bar, changes, class, day, facts, head, head_of, hidden, may, push, sheet, state, text, timeline,
};
use crate::shell::sentence;

/// The page of all.
pub fn releases(view: &ReleasesView) -> Markup {
    let project = &view.frame.project;
    html! {
        (head(&view.heading, &view.sentence, html! {}))
        (sheet("releases", "Newest first", html! {
            @if view.rows.is_empty() { p.soft { "Nothing was released yet. A release follows each deployment, by the strategy that andon.yaml names." } }
            ol.rows { @for row in &view.rows { (self::row(project, row)) } }
        }))
    }
}

fn row(project: &str, row: &ReleaseRow) -> Markup {
    html! {
        li id={ "release-" (row.number) } {
            a.row.release href={ "/" (project) "/releases/" (row.number) } {
                b { (row.id) }
                span { (row.service) " in " (row.environment) " " code { @if let Some(from) = &row.from { (from) " → " } (row.to) } span.small.soft { (row.kind) " “" (row.strategy) "”" } }
                span.says {
                    (state(row.mark, &row.words))
                    @if row.ended.is_none() { (bar(f64::from(row.weight_bp) / 100.0, "split", &format!("{} % of users on the new one", f64::from(row.weight_bp) / 100.0))) }
                }
                span.when { (day(row.started)) }
            }
        }
    }
}

/// The page of one.
pub fn release(view: &ReleaseView, caller: &Caller) -> Markup {
    let project = &view.frame.project;
    let row = &view.row;
    let old = row.from.as_deref().unwrap_or("nothing");
    let heading = html! { (row.service) " in " (row.environment) ": " span.sha { @if let Some(from) = &row.from { span.old { (from) } " → " } span.new { (row.to) } } };
    let below = html! { (view.sentence) @if !view.changes.is_empty() { " New with it: " (changes(project, &view.changes)) "." } };
    html! {
        (head_of(heading, below, acts(view, caller)))
        (split(view, old))
        (facts(&view.facts))
        @if let Some(says) = &view.says { p.verdict #verdict { (sentence(says)) } }
        @if !view.curve.is_empty() {
            div.two {
                (sheet("errors", "Users with an error, per thousand", chart::errors(&view.curve, old, &row.to)))
                (sheet("evidence", "Evidence that it is worse", chart::evidence(&view.curve, view.evidence.map_or(1000.0, |(_, needed)| needed))))
            }
        }
        @if !view.signals.is_empty() { (sheet("signals", "What is watched", signals(&view.signals, old, &row.to))) }
        @if !view.differences.is_empty() { (sheet("differences", "Answers that differ", differences(&view.differences, old, &row.to))) }
        (sheet("steps", "Steps", html! {
            ol.steps { @for (words, mark) in &view.steps { li class=(class(*mark)) { (state(*mark, words)) } } }
        }))
        (timeline(project, &view.timeline))
    }
}

/// Both revisions with their users, in their two colours.
fn split(view: &ReleaseView, old: &str) -> Markup {
    let new = f64::from(view.row.weight_bp) / 100.0;
    let (was, is) = match view.row.state.as_str() {
        "released" => ("served before", "serves"),
        "taken_back" | "aborted" => ("serves", "was taken back"),
        "dark_ended" => ("serves", "was only compared"),
        _ => ("serves", "is new"),
    };
    let left = format!("{:.2}", 100.0 - new);
    let says = format!("{} % of users on {old}, {new} % on {}", 100.0 - new, view.row.to);
    html! {
        section.sheet.sides #sides aria-label="Both revisions" {
            div.side.old { span.small.soft { (was) } code { (old) } b { (100.0 - new) " %" } }
            svg.bar.sides-bar viewBox="0 0 100 4" preserveAspectRatio="none" role="img" aria-label=(says) {
                rect.old width=(left) height="4" {}
                rect.new x=(left) width=(format!("{new:.2}")) height="4" {}
            }
            div.side.new { span.small.soft { (is) } code { (view.row.to) } b { (new) " %" } }
        }
    }
}

fn acts(view: &ReleaseView, caller: &Caller) -> Markup {
    if !may(caller, Role::Releaser) {
        return html! {};
    }
    let row = &view.row;
    let to = |what: &str| format!("/{}/releases/{}/{what}", view.frame.project, row.number);
    let has = |what: &str| view.commands.iter().any(|command| command == what);
    let old = row.from.as_deref().unwrap_or("nothing");
    let rollback = format!("/{}/environments/{}/rollback", view.frame.project, row.environment);
    html! {
        @if has("resume") { (push(&to("resume"), "Go on", "go")) }
        @if has("pause") { (Ask { id: "pause", label: "Pause", look: "", action: &to("pause"), what: "The split of users stays as it is. The immune system keeps watching.", yes: "Pause" }.with(text("why", "Why", "", false))) }
        @if has("approve") { (push(&to("approve"), "Approve", "go")) }
        @if has("promote") { (Ask { id: "promote", label: "Promote now", look: "go", action: &to("promote"), what: &format!("{} goes to its next step without waiting for its proof. The immune system keeps watching.", row.to), yes: "Promote" }.with(html! {})) }
        @if has("abort") { (Ask { id: "abort", label: "Take it back", look: "danger", action: &to("abort"), what: &format!("Everyone is on {old} again at once. {} stays deployed and gets no user.", row.to), yes: "Take it back" }.with(text("why", "Why", "", false))) }
        @if has("rollback") && row.from.is_some() { (Ask { id: "rollback", label: "Roll back", look: "danger", action: &rollback, what: &format!("All users of {} in {} go back to the revision before at once.", row.service, row.environment), yes: "Roll back" }.with(hidden("service", &row.service))) }
    }
}

fn signals(rows: &[SignalRow], old: &str, new: &str) -> Markup {
    html! {
        div.scroll { table {
            thead { tr { th scope="col" { "Signal" } th.num.old scope="col" { code { (old) } } th.num.new scope="col" { code { (new) } } th.num scope="col" { "Ratio, band" } th scope="col" { "Says" } } }
            tbody { @for row in rows {
                tr { th scope="row" { (row.name) } td.num { (row.stable) } td.num { (row.canary) } td.num { (row.ratio) } td { (state(row.mark, &row.says)) } }
            } }
        } }
    }
}

fn differences(rows: &[DifferenceRow], old: &str, new: &str) -> Markup {
    html! {
        p.soft { "Users got the answer of " code { (old) } "; the same requests were sent to " code { (new) } " and only compared. What differs between two answers of " code { (old) } ", too, is noise and does not count." }
        div.scroll { table {
            thead { tr { th scope="col" { "Field" } th.num scope="col" { "Answers" } th.num scope="col" { "Share" } th scope="col" { "Request" } th.old scope="col" { code { (old) } } th.new scope="col" { code { (new) } } } }
            tbody { @for row in rows {
                @let samples = row.samples.iter().rev();
                @for (at, sample) in samples.enumerate() { tr {
                    @if at == 0 {
                        th scope="row" { (state(if row.noise { andon_line::view::Mark::None } else { andon_line::view::Mark::Stop }, &row.at)) @if row.noise { span.small.soft { " noise" } } }
                        td.num { (row.count) } td.num { (row.percent) " %" }
                    } @else { td {} td {} td {} }
                    td { code { (sample.request) } } td { pre { (sample.stable) } } td { pre { (sample.canary) } }
                } }
            } }
        } }
    }
}
