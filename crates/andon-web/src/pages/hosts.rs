//! The machines that instances and jobs run on: which take some, what is on each, and what one that is emptied waits for.

use andon_line::Caller;
use andon_line::view::hosts::HostRow;
use andon_line::view::runners::RunnerRow;
use andon_line::view::{HostsView, RunnersView};
use andon_model::event::Role;
use maud::{Markup, html};

use crate::parts::{Ask, day, facts, head, may, sheet, state, text};

/// The page.
pub fn hosts(view: &HostsView, runners: &RunnersView, caller: &Caller) -> Markup {
    html! {
        (head(&view.heading, &view.sentence, html! {}))
        (facts(&view.facts))
        (sheet("hosts", "Hosts", html! { @for host in &view.hosts { (self::host(host, caller)) } }))
        (sheet("runners", &runners.heading, html! {
            @for runner in &runners.runners { (self::runner(runner, caller)) }
            @if runners.dial.is_some() {
                p.small.soft { "On the server, " code { "andon runner token" } " prints the command for one more; a job asks for its labels with " code { "runs_on" } "." }
            } @else {
                p.small.soft { code { "andon serve --runners ADDRESS:PORT" } " lets other machines run jobs." }
            }
        }))
        (sheet("join", "One more", html! {
            @if view.dial.is_some() {
                p { "On the server, " code { "andon host token" } " prints the command for the new machine: good once, for a quarter of an hour. Its instances bind " code { "$HOST" } "." }
            } @else {
                p { code { "andon serve --hosts ADDRESS:PORT" } " lets other machines join." }
            }
            p.small.soft { "Containers, services with a " code { "port" } " of their own and those whose database listens on this machine stay on the server's own host." }
        }))
    }
}

fn host(host: &HostRow, caller: &Caller) -> Markup {
    html! {
        article.service id={ "host-" (host.name) } {
            div.head {
                div {
                    h3 { (host.name) }
                    p { (state(host.mark, &host.words)) }
                    p.small.soft {
                        @match &host.address { Some(address) => { "listens on " code { (address) } }, None => "the server's own machine" }
                        @if let Some(joined) = host.joined { ", joined " (day(joined)) }
                        @for (key, value) in &host.labels { ", " (key) " " (value) }
                    }
                }
                @if may(caller, Role::Owner) { div.acts { (acts(host)) } }
            }
            @if host.services.is_empty() { p.soft { "Nothing runs here." } } @else {
                ul.rows { @for (service, many) in &host.services { li.row { (many) " × " (service) } } }
            }
            @if !host.waits.is_empty() { ul.rows { @for waits in &host.waits { li.row { (state(andon_line::view::Mark::Wait, waits)) } } } }
        }
    }
}

fn acts(host: &HostRow) -> Markup {
    let to = |what: &str| format!("/hosts/{}/{what}", host.name);
    let why = || text("why", "Why", "a new disk", false);
    let (drain, resume, leave) = (to("drain"), to("resume"), to("leave"));
    let id = |what: &str| format!("{what}-{}", host.name);
    let own = host.joined.is_none();
    html! {
        @if host.leaving {
            (Ask { id: &id("resume"), label: "Take instances again", look: "go", action: &resume, what: "It gets its share of every service again.", yes: "Take them" }.with(html! {}))
        } @else {
            (Ask { id: &id("drain"), label: "Empty it", look: "", action: &drain, what: "It takes nothing more, and what runs on it moves: each instance ends when another one is healthy elsewhere. No request fails.", yes: "Empty it" }.with(why()))
        }
        @if !own {
            (Ask { id: &id("leave"), label: "Let it leave", look: "danger", action: &leave, what: "It is emptied, then it is no host any more. To come back it has to join again.", yes: "Let it leave" }.with(why()))
        }
    }
}

fn runner(runner: &RunnerRow, caller: &Caller) -> Markup {
    let to = |what: &str| format!("/runners/{}/{what}", runner.name);
    let why = || text("why", "Why", "a new disk", false);
    let (drain, resume, leave) = (to("drain"), to("resume"), to("leave"));
    let id = |what: &str| format!("runner-{what}-{}", runner.name);
    html! {
        article.service id={ "runner-" (runner.name) } {
            div.head {
                div {
                    h3 { (runner.name) }
                    p { (state(runner.mark, &runner.words)) }
                    p.small.soft { "joined " (day(runner.joined)) @if !runner.labels.is_empty() { ", " (runner.labels.join(", ")) } }
                }
                @if may(caller, Role::Owner) {
                    div.acts {
                        @if runner.leaving {
                            (Ask { id: &id("resume"), label: "Give it jobs again", look: "go", action: &resume, what: "It gets jobs as before.", yes: "Give them" }.with(html! {}))
                        } @else {
                            (Ask { id: &id("drain"), label: "No more jobs", look: "", action: &drain, what: "What it has is run to its end.", yes: "No more" }.with(why()))
                        }
                        (Ask { id: &id("leave"), label: "Let it leave", look: "danger", action: &leave, what: "What it has is run to its end, then it is no runner any more. To come back it has to join again.", yes: "Let it leave" }.with(why()))
                    }
                }
            }
            @if !runner.jobs.is_empty() { ul.rows { @for job in &runner.jobs { li.row { (job) } } } }
        }
    }
}
