//! Andons: the list, and the room of one with owner, clock, suspects and what waits.

use andon_line::Caller;
use andon_line::view::andon::{AndonRow, AndonView, AndonsView};
use andon_model::Span;
use andon_model::event::Role;
use maud::{Markup, html};

use crate::parts::{Ask, changes, class, day, head, may, push, sheet, state, text, timeline};

/// The page of all.
pub fn andons(view: &AndonsView) -> Markup {
    let project = &view.frame.project;
    html! {
        (head(&view.heading, &view.sentence, html! {}))
        (sheet("andons", "Newest first", html! {
            @if view.rows.is_empty() { p.soft { "The cord was never pulled." } }
            ol.rows { @for row in &view.rows { (self::row(project, row)) } }
        }))
    }
}

fn row(project: &str, row: &AndonRow) -> Markup {
    let words = match (&row.released, &row.owner) {
        (Some(why), _) => format!("over after {}: {why}", Span(row.red_ms)),
        (None, Some(owner)) => format!("{owner} has it, red for {}", Span(row.red_ms)),
        (None, None) => format!("nobody has it yet, red for {}", Span(row.red_ms)),
    };
    html! {
        li id={ "andon-" (row.number) } {
            a.row.release href={ "/" (project) "/andons/" (row.number) } { b { (row.id) } span { (row.why) } span.says { (state(row.mark, &words)) } span.when { (day(row.pulled)) } }
        }
    }
}

/// The room.
pub fn andon(view: &AndonView, caller: &Caller) -> Markup {
    let project = &view.frame.project;
    html! {
        (head(&view.heading, &view.sentence, acts(view, caller)))
        (room(view))
        div.two {
            (sheet("suspects", "Suspects", html! {
                @if view.suspects.is_empty() { p.soft { "No change is suspected." } }
                ul.rows { @for (number, title, words) in &view.suspects {
                    li { a.row.place href={ "/" (project) "/changes/" (number) } { b { "#" (number) } span { (title) span.small.soft { (words) } } } }
                } }
            }))
            (sheet("fix", "How it ends", html! {
                @if view.row.open {
                    p { "Push the fix with this line at the end of its message; it lands past the others:" }
                    pre.secret { (view.trailer) }
                    p.soft { "The cord is released by itself when the fix is proven where it failed." }
                    @if !view.waiting.is_empty() { p { "Until then wait: " (changes(project, &view.waiting)) "." } }
                } @else { p { "It is over" @if let Some(why) = &view.row.released { ": " (why) } "." } }
            }))
        }
        (timeline(project, &view.timeline))
    }
}

/// The clock and the few facts beside it.
fn room(view: &AndonView) -> Markup {
    html! {
        section.sheet #facts aria-label="The numbers that decide" {
            dl.facts {
                @for (n, fact) in view.facts.iter().enumerate() {
                    div.fact.(if n == 0 && view.row.open { "clock" } else { "still" }) {
                        dt { (fact.label) }
                        dd class=(class(fact.mark)) { @if fact.mark == andon_line::view::Mark::None { (fact.value) } @else { (state(fact.mark, &fact.value)) } }
                    }
                }
            }
        }
    }
}

fn acts(view: &AndonView, caller: &Caller) -> Markup {
    if !may(caller, Role::Developer) {
        return html! {};
    }
    let to = |what: &str| format!("/{}/andons/{}/{what}", view.frame.project, view.row.number);
    html! {
        @if view.row.open && view.row.owner.as_deref() != Some(caller.user.as_str()) { (push(&to("acknowledge"), "I am on it", "go")) }
        (Ask { id: "note", label: "Add a note", look: "", action: &to("note"), what: "Everyone who looks here reads it.", yes: "Add it" }.with(text("why", "Note", "looking at the rounding", true)))
        @if view.row.open {
            (Ask { id: "release", label: "Release the cord", look: "danger", action: &to("release"), what: "The line runs again at once, without proof that this is fixed. Everything that waits may land.", yes: "Release it" }
                .with(text("why", "Why is it fine", "the test was wrong, not the product", true)))
        }
    }
}
