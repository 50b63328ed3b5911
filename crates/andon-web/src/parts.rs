//! The small parts that all pages are made of: marks, numbers, timelines, questions. Each takes values and gives escaped markup.

use andon_line::Caller;
use andon_line::view::{Fact, Mark, Moment};
use andon_model::Time;
use andon_model::event::Role;
use maud::{Markup, html};

/// The class of a mark.
pub fn class(mark: Mark) -> &'static str {
    match mark {
        Mark::Go => "go",
        Mark::Live => "live",
        Mark::Wait => "wait",
        Mark::Stop => "stop",
        Mark::None => "none",
    }
}

/// A mark with its words: shape and colour say the same as the text.
pub fn state(mark: Mark, words: &str) -> Markup {
    html! { span class={ "st " (class(mark)) } { span { (words) } } }
}

/// A point in time. All times are UTC, as the footer says.
pub fn time(at: Time) -> Markup {
    let full = at.rfc3339();
    html! { time datetime=(full) title=(full) { (at.hh_mm()) } }
}

/// To the second: in a timeline one second tells cause from effect.
fn exact(at: Time) -> Markup {
    let full = at.rfc3339();
    html! { time datetime=(full) title=(full) { (at.hh_mm_ss()) } }
}

/// The day and the time, for lists that reach back.
pub fn day(at: Time) -> Markup {
    let full = at.rfc3339();
    let day = full.get(0..10).unwrap_or_default();
    html! { time datetime=(full) title=(full) { (day) " " (at.hh_mm()) } }
}

/// The numbers that decide.
pub fn facts(facts: &[Fact]) -> Markup {
    html! {
        section.sheet #facts aria-label="The numbers that decide" {
            dl.facts {
                @for fact in facts {
                    div.fact {
                        dt { (fact.label) }
                        dd { @if fact.mark == Mark::None { (fact.value) } @else { (state(fact.mark, &fact.value)) } }
                    }
                }
            }
        }
    }
}

/// A part of a page with its own heading.
pub fn sheet(id: &str, title: &str, body: Markup) -> Markup {
    html! {
        section.sheet id=(id) aria-labelledby={ (id) "-title" } { h2 id={ (id) "-title" } { (title) } (body) }
    }
}

/// The answer, what follows from it, and what can be done.
pub fn head(heading: &str, sentence: &str, acts: Markup) -> Markup {
    head_of(html! { (heading) }, html! { (sentence) }, acts)
}

/// The same with markup in it.
pub fn head_of(heading: Markup, sentence: Markup, acts: Markup) -> Markup {
    html! {
        div.head #head { div { h1 { (heading) } p.soft { (sentence) } } div.acts { (acts) } }
    }
}

/// What happened, newest first.
pub fn timeline(project: &str, moments: &[Moment]) -> Markup {
    sheet(
        "happened",
        "What happened",
        html! {
            @if moments.is_empty() { p.soft { "Nothing yet." } }
            ol.time {
                @for moment in moments {
                    li id={ "e" (moment.seq) } class=(class(moment.mark)) {
                        (exact(moment.at))
                        div {
                            @match &moment.link {
                                Some(link) => a href={ "/" (project) "/" (link) } { (moment.words) },
                                None => (moment.words),
                            }
                            @if let Some(by) = by(&moment.by) { " " span.by { (by) } }
                        }
                    }
                }
            }
        },
    )
}

/// Who did it, unless it was the line itself.
fn by(actor: &str) -> Option<&str> {
    Some(actor).filter(|actor| !actor.starts_with("the line"))
}

/// Changes by number, as links.
pub fn changes(project: &str, changes: &[u32]) -> Markup {
    html! {
        @for (n, change) in changes.iter().enumerate() {
            @if n > 0 { ", " }
            a href={ "/" (project) "/changes/" (change) } { "#" (change) }
        }
    }
}

/// Something that asks before it is done: a button, and a question that opens over the page without script.
#[derive(Debug, Clone)]
pub struct Ask<'a> {
    /// Unique on its page.
    pub id: &'a str,
    /// What the button says, which is what it does.
    pub label: &'a str,
    /// `""`, `go` or `danger`.
    pub look: &'a str,
    /// Where the answer is posted to.
    pub action: &'a str,
    /// What will happen.
    pub what: &'a str,
    /// What the button that does it says.
    pub yes: &'a str,
}

impl Ask<'_> {
    /// The button and its question, with these fields in it.
    pub fn with(&self, fields: Markup) -> Markup {
        html! {
            button.btn.(self.look) id={ (self.id) "-button" } type="button" popovertarget=(self.id) { (self.label) }
            (self.pop(fields))
        }
    }

    /// The question alone.
    pub fn pop(&self, fields: Markup) -> Markup {
        html! {
            div.pop id=(self.id) popover role="dialog" aria-label=(self.label) {
                form method="post" action=(self.action) {
                    strong.pop-title { (self.label) }
                    p { (self.what) }
                    (fields)
                    div.acts {
                        button.btn type="button" popovertarget=(self.id) popovertargetaction="hide" { "Leave it" }
                        button.btn.(if self.look.is_empty() { "go" } else { self.look }) { (self.yes) }
                    }
                }
            }
        }
    }
}

/// Something harmless that is done at once.
pub fn push(action: &str, label: &str, look: &str) -> Markup {
    html! { form.one method="post" action=(action) { button.btn.(look) { (label) } } }
}

/// A field for a line of text.
pub fn text(name: &str, label: &str, hint: &str, required: bool) -> Markup {
    html! {
        label.field { span { (label) } input type="text" name=(name) placeholder=(hint) required[required] maxlength="200" autocomplete="off"; }
    }
}

/// A value that the form sends along.
pub fn hidden(name: &str, value: &str) -> Markup {
    html! { input type="hidden" name=(name) value=(value); }
}

/// Whether the caller holds a role: what is not allowed is not offered.
pub fn may(caller: &Caller, role: Role) -> bool {
    caller.may(role).is_ok()
}

/// A share as a bar: `part` of 100, with what it says for those who cannot see it.
pub fn bar(part: f64, look: &str, says: &str) -> Markup {
    let width = format!("{:.2}", part.clamp(0.0, 100.0));
    html! {
        svg.bar.(look) viewBox="0 0 100 4" preserveAspectRatio="none" role="img" aria-label=(says) {
            rect.rest width="100" height="4" {}
            rect.part width=(width) height="4" {}
        }
    }
}
