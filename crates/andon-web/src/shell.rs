//! What stands around every page: the cord, the bar, the words of the last form, the footer. Knows nothing of what the page shows.

use andon_line::Caller;
use andon_line::view::{Frame, Mark};
use andon_model::event::Role;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::assets;
use crate::parts::{Ask, class, may, text};
use crate::said::Said;
use crate::trouble;

/// A page, drawn.
#[derive(Debug, Clone)]
pub struct Sheet {
    /// What the tab says.
    pub title: String,
    /// The entry of the bar that is lit.
    pub entry: &'static str,
    /// What stands over it.
    pub frame: Frame,
    /// Everything below the bar.
    pub main: Markup,
}

/// Entries of the bar: path, name, the key after `g`.
const ENTRIES: [(&str, &str, &str); 8] = [
    ("", "Wall", "w"),
    ("queue", "Queue", "q"),
    ("tests", "Tests", "t"),
    ("releases", "Releases", "r"),
    ("environments", "Environments", "e"),
    ("flags", "Flags", "f"),
    ("andons", "Andons", "a"),
    ("flow", "Flow", "l"),
];

/// The whole document of a project's page. `live` is where its news come from.
pub fn document(sheet: &Sheet, caller: &Caller, said: Option<&Said>, live: &str) -> Markup {
    let body = html! {
        (header(sheet, caller))
        @if let Some(said) = said { (word(said)) }
        main #main tabindex="-1" { (sheet.main) }
        (footer())
        (pull(&sheet.frame, caller))
        (help())
    };
    whole(&sheet.title, sheet.frame.cord, Some(live), body)
}

/// A page outside of any project.
pub fn plain(title: &str, main: Markup) -> Markup {
    outside(title, None, None, main)
}

/// The same with who is logged in and what was just done.
pub fn outside(title: &str, caller: Option<&Caller>, said: Option<&Said>, main: Markup) -> Markup {
    let body = html! {
        header.cord #cord data-state="none" {
            div.rope {}
            div.bar {
                a.mark href="/" { "andon" }
                span.grow {}
                @if let Some(caller) = caller { a.who href="/account" { (caller.user) } }
            }
        }
        @if let Some(said) = said { (word(said)) }
        main.narrow #main tabindex="-1" { (main) }
        (footer())
    };
    whole(title, Mark::None, None, body)
}

fn whole(title: &str, cord: Mark, live: Option<&str>, body: Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · andon" }
                link rel="icon" href=(assets::icon(cord == Mark::Stop)) type="image/svg+xml";
                link rel="stylesheet" href=(assets::style());
                script src=(assets::script()) defer {}
            }
            body data-live=[live] {
                a.skip href="#main" { "To the content" }
                (body)
            }
        }
    }
}

/// The cord with the bar under it.
pub fn header(sheet: &Sheet, caller: &Caller) -> Markup {
    let frame = &sheet.frame;
    let project = &frame.project;
    let (cord, words) = match (frame.cord, &frame.says) {
        (Mark::Stop, _) => ("red", "the line is stopped".to_owned()),
        (Mark::Wait, Some(says)) => ("yellow", format!("the line runs; {says}")),
        (Mark::Wait, None) => ("yellow", "the line runs, something waits".to_owned()),
        _ => ("green", "the line runs".to_owned()),
    };
    html! {
        header.cord #cord data-state=(cord) {
            div.rope role="img" aria-label={ "The cord: " (words) } title=(words) {}
            div.bar {
                a.mark href="/" { span class={ "st " (class(frame.cord)) } {} "andon" }
                nav aria-label="Project" {
                    @for (path, name, key) in ENTRIES {
                        @let href = if path.is_empty() { format!("/{project}") } else { format!("/{project}/{path}") };
                        a href=(href) data-key=(key) aria-current=[(path == sheet.entry).then_some("page")] { (name) }
                    }
                }
                form.jump action={ "/" (project) "/jump" } role="search" {
                    input #jump type="search" name="q" placeholder="#12, R3, A5 …" aria-label="Jump to a change, release, andon, run, environment or flag" autocomplete="off";
                }
                span.where { a href={ "/" (project) } { (project) } " " (frame.trunk) @if let Some(commit) = &frame.commit { " " code { (commit) } } }
                a.who href="/account" { (caller.user) }
                button.keys type="button" popovertarget="help" aria-label="Keys" { "?" }
                @if let Some((id, why)) = &frame.andon {
                    a.stopped href={ "/" (project) "/andons/" (id.trim_start_matches('A')) } title=(why) { span.st.stop { "Line stopped · " (id) } }
                } @else if may(caller, Role::Developer) {
                    button.pull type="button" popovertarget="pull" { "Pull the cord" }
                }
            }
            @if frame.cord == Mark::Wait { @if let Some(says) = &frame.says { p.why { span.st.wait { (says) } } } }
        }
    }
}

/// The question behind the cord. It stays closed on a red line, where the button is a link.
fn pull(frame: &Frame, caller: &Caller) -> Markup {
    if !may(caller, Role::Developer) {
        return html! {};
    }
    let ask = Ask {
        id: "pull",
        label: "Pull the cord",
        look: "danger",
        action: &format!("/{}/cord/pull", frame.project),
        what: "The line stops: nothing lands and no release goes on until this is fixed. Everybody sees it, and anyone may do it.",
        yes: "Pull the cord",
    };
    ask.pop(text("why", "What is wrong", "checkout shows the wrong total", true))
}

fn word(said: &Said) -> Markup {
    let (what, hint) = trouble::split(&said.words);
    html! {
        div.said.(if said.done { "go" } else { "stop" }) role="status" {
            p { span class={ "st " (if said.done { "go" } else { "stop" }) } { (sentence(what)) } }
            @if let Some(hint) = hint { p.soft { (sentence(hint)) } }
        }
    }
}

/// Words as a sentence: a capital in front, a full stop behind.
pub fn sentence(words: &str) -> String {
    let mut chars = words.trim().chars();
    let first: String = chars.next().map(|c| c.to_uppercase().collect()).unwrap_or_default();
    let whole = first + chars.as_str();
    if whole.ends_with(['.', '!', '?', ':', '`']) || whole.is_empty() { whole } else { whole + "." }
}

fn footer() -> Markup {
    html! { footer { p { "Times are UTC. " span #live-state data-keep {} } } }
}

/// The keys, for whoever asks.
fn help() -> Markup {
    html! {
        div.pop #help popover role="dialog" aria-label="Keys" {
            strong.pop-title { "Keys" }
            dl.keylist {
                div { dt { kbd { "/" } } dd { "jump to a change, release, andon, environment" } }
                @for (_, name, key) in ENTRIES { div { dt { kbd { "g" } " " kbd { (key) } } dd { (name) } } }
                div { dt { kbd { "?" } } dd { "this list" } }
                div { dt { kbd { "Esc" } } dd { "close what is open" } }
            }
            button.btn type="button" popovertarget="help" popovertargetaction="hide" { "Close" }
        }
    }
}

/// Our own text that was escaped already, for parts that are sent on their own.
pub fn ready(markup: &Markup) -> &str {
    let PreEscaped(text) = markup;
    text
}
