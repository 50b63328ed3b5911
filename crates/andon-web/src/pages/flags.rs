//! Flags: who gets what, and the switches.

use andon_line::Caller;
use andon_line::view::FlagsView;
use andon_line::view::flags::FlagRow;
use andon_model::event::Role;
use maud::{Markup, html};

use crate::parts::{Ask, day, head, hidden, may, sheet, state, text, timeline};

/// The page.
pub fn flags(view: &FlagsView, caller: &Caller) -> Markup {
    let project = &view.frame.project;
    let can = may(caller, Role::Releaser);
    let create = Ask {
        id: "new-flag",
        label: "New flag",
        look: "go",
        action: &format!("/{project}/flags/create"),
        what: "It is off for everyone until you open it.",
        yes: "Create it",
    };
    html! {
        (head(&view.heading, &view.sentence, html! { @if can { (create.with(text("key", "Key", "gift-cards", true))) } }))
        @if view.rows.is_empty() {
            (sheet("flags", "Flags", html! { p.soft { "A flag shows a feature to some users apart from its deployment: first employees, then one percent, then everyone." } }))
        } @else {
            section.sheet #flags aria-label="Flags" { ul.flags { @for (n, row) in view.rows.iter().enumerate() { (flag(project, n, row, can)) } } }
        }
        (timeline(project, &view.timeline))
    }
}

fn flag(project: &str, n: usize, row: &FlagRow, can: bool) -> Markup {
    let key = &row.key;
    let id = |what: &str| format!("{what}-{n}");
    html! {
        li.flag id={ "flag-" (key) } {
            div {
                h2.key { code { (key) } }
                p { (state(row.mark, &row.state)) " " (row.audience) }
                @if let Some((at, by)) = &row.changed { p.small.soft { "since " (day(*at)) ", by " (by) } }
                details.small id=(id("definition")) { summary { "Definition" } pre { (pretty(&row.definition)) } }
            }
            @if can { div.acts { (switches(project, row, &id)) } }
        }
    }
}

fn switches(project: &str, row: &FlagRow, id: &dyn Fn(&str) -> String) -> Markup {
    let to = |what: &str| format!("/{project}/flags/{what}");
    let key = || hidden("key", &row.key);
    let one = |what: &str, label: &str, look: &str| html! { form.one method="post" action=(to(what)) { (key()) button.btn.(look) { (label) } } };
    if row.state == "killed" {
        return html! { (one("restore", "Restore", "go")) (remove(&to("remove"), id, key())) };
    }
    html! {
        @if row.state == "on" { (Ask { id: &id("off"), label: "Off", look: "", action: &to("off"), what: "Off for everyone; whom it was open to is forgotten.", yes: "Switch it off" }.with(key())) }
        @else { (Ask { id: &id("on"), label: "On", look: "", action: &to("on"), what: "On for everyone at once.", yes: "Switch it on" }.with(key())) }
        (Ask { id: &id("ramp"), label: "Percent", look: "", action: &to("ramp"), what: "This share of all users has it, beside its groups. Whoever has it keeps it when the share grows.", yes: "Set it" }
            .with(html! { (key()) label.field { span { "Percent of users" } input type="number" name="percent" min="0" max="100" step="any" required inputmode="decimal"; } }))
        (Ask { id: &id("open"), label: "Open to", look: "", action: &to("open-to"), what: "This group has it, whatever the percentage.", yes: "Open it" }
            .with(html! { (key()) (text("group", "Group", "group=employees", true)) }))
        @if row.state == "targeted" || row.state == "ramping" {
            (Ask { id: &id("close"), label: "Close to", look: "", action: &to("close-to"), what: "The group gets what everyone gets.", yes: "Close it" }
                .with(html! { (key()) (text("group", "Group", "group=employees", true)) }))
        }
        (Ask { id: &id("kill"), label: "Kill", look: "danger", action: &to("kill"), what: "Off for everyone with the next evaluation. What it was is remembered for restoring.", yes: "Kill it" }
            .with(html! { (key()) (text("why", "Why", "orders fail with it", false)) }))
        (remove(&to("remove"), id, key()))
    }
}

fn remove(to: &str, id: &dyn Fn(&str) -> String, key: Markup) -> Markup {
    Ask {
        id: &id("remove"),
        label: "Remove",
        look: "danger",
        action: to,
        what: "The flag is gone: every caller gets its own default.",
        yes: "Remove it",
    }
    .with(key)
}

fn pretty(definition: &serde_json::Value) -> String {
    serde_json::to_string_pretty(definition).unwrap_or_default()
}
