//! The tests of a project: what is in quarantine, what is flaky, what is red, what takes long.

use andon_line::Caller;
use andon_line::view::TestsView;
use andon_line::view::tests::{QuarantineRow, TestRow};
use andon_model::Span;
use andon_model::event::Role;
use maud::{Markup, html};

use crate::parts::{Ask, day, facts, head, may, sheet, state, text};

/// The page.
pub fn suite(view: &TestsView, caller: &Caller) -> Markup {
    let project = &view.frame.project;
    let acts = html! { @if may(caller, Role::Developer) && !(view.flaky.is_empty() && view.red.is_empty()) { (begin(project)) } };
    html! {
        (head(&view.heading, &view.sentence, acts))
        (facts(&view.facts))
        @if !view.quarantined.is_empty() {
            (sheet("quarantine", "In quarantine", html! { ul.rows { @for (n, row) in view.quarantined.iter().enumerate() { (quarantined(project, n, row, caller)) } } }))
        }
        (tests("flaky", "Flaky, newest proof first", &view.flaky, project, "No test was red and green on one tree lately."))
        @if !view.red.is_empty() { (tests("red", "Red when they ran last", &view.red, project, "")) }
        @if let Some(impact) = &view.impact {
            (sheet("impact", "What a smaller selection would have missed", html! {
                p { (impact.says) " " (impact.standing) }
                ul.rows { @for row in &impact.rows { li { div.row {
                    a href={ "/" (project) "/runs/" (row.run) } { (state(row.mark, &format!("run-{}", row.run))) }
                    span.small.soft { (row.says) }
                } } } }
            }))
        }
        (tests("slow", "What takes longest", &view.slow, project, "Tests appear here when a job reports them: `reports` in andon.yaml names its files."))
    }
}

fn begin(project: &str) -> Markup {
    let ask = Ask {
        id: "quarantine",
        label: "Put a test into quarantine",
        look: "",
        action: &format!("/{project}/tests/quarantine"),
        what: "It goes on running and reporting, and its failures stop no change until the day you name, at most 30 days from now. Then it counts again.",
        yes: "Put it into quarantine",
    };
    ask.with(html! {
        (text("test", "The test", "tests.test_app::test_add", true))
        (text("why", "What makes it unreliable", "races with the clock, see #12", true))
        (text("owner", "Who makes it reliable again (you, if empty)", "ann", false))
        (text("lasts", "For how long", "7d", true))
    })
}

fn quarantined(project: &str, n: usize, row: &QuarantineRow, caller: &Caller) -> Markup {
    let id = format!("end-{n}");
    html! {
        li id={ "q-" (n) } { div.row {
            span.st.wait { b { (row.test) } }
            span.small { (row.why) }
            span.small.soft { (row.owner) " until " (day(row.until)) "; " (row.says) }
            @if may(caller, Role::Developer) {
                (Ask { id: &id, label: "It is reliable again", look: "", action: &format!("/{project}/tests/quarantine/end"), what: "The test counts again from now on.", yes: "Let it count again" }
                    .with(html! { input type="hidden" name="test" value=(row.test); }))
            }
        } }
    }
}

fn tests(id: &str, title: &str, rows: &[TestRow], project: &str, none: &str) -> Markup {
    sheet(
        id,
        title,
        html! {
            @if rows.is_empty() { p.soft { (none) } } @else {
                div.scroll { table {
                    thead { tr { th scope="col" { "Test" } th scope="col" { "Is" } th.num scope="col" { "Takes" } th.num scope="col" { "Failed" } th scope="col" { "Job" } } }
                    tbody { @for row in rows { tr {
                        th scope="row" { code { (row.name) } @if row.quarantined { " " span.small.soft { "in quarantine" } } }
                        td { @match row.run { Some(run) => a href={ "/" (project) "/runs/" (run) } { (state(row.mark, &row.says)) }, None => (state(row.mark, &row.says)) } }
                        td.num { (takes(row.ms)) }
                        td.num { (row.failed) " of " (row.ran) }
                        td { (row.job) }
                    } } }
                } }
            }
        },
    )
}

fn takes(millis: f64) -> String {
    if millis < 1.0 { "under 1 ms".into() } else { Span(millis as u64).to_string() }
}
