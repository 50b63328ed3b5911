//! Backups and disaster drills of the whole server: when, how long, and whether the last one was worse than usual.

use andon_line::Caller;
use andon_line::view::{Mark, RecoveryView};
use andon_model::event::Role;
use maud::{Markup, html};

use crate::parts::{Ask, bar, day, facts, head, may, sheet, state};

/// The page.
pub fn recovery(view: &RecoveryView, caller: &Caller) -> Markup {
    let longest = view.curve.iter().flatten().copied().fold(0.0, f64::max);
    html! {
        (head(&view.heading, &view.sentence, acts(caller)))
        (facts(&view.facts))
        (sheet("drills", "Drills", html! {
            @if view.drills.is_empty() { p.soft { "None was held yet. " code { "andon serve --drill-every 7d" } " holds one every week." } } @else {
                div.scroll { table {
                    thead { tr { th scope="col" { "When" } th scope="col" { "State" } th.num scope="col" { "Server back" } th.num scope="col" { "All back" } th scope="col" { "" } th.num scope="col" { "Environments, instances" } } }
                    tbody { @for ((drill, mark, words), seconds) in view.drills.iter().zip(view.curve.iter().rev()) {
                        tr {
                            th scope="row" { (day(drill.at)) }
                            td { (state(*mark, words)) }
                            td.num { (drill.opened) }
                            td.num { @match drill.served { Some(served) => (served), None => "–" } }
                            td { @if let Some(seconds) = seconds { (bar(seconds * 100.0 / longest.max(0.001), look(*mark), &format!("{seconds:.1} s"))) } }
                            td.num { (drill.environments) ", " (drill.instances) }
                        }
                    } }
                } }
            }
        }))
        (sheet("backups", "Backups", html! {
            @if view.backups.is_empty() { p.soft { "None was made yet. " code { "andon serve --backup-every 1h" } " makes one every hour." } } @else {
                div.scroll { table {
                    thead { tr { th scope="col" { "File below " code { "backups" } } th.num scope="col" { "Up to event" } th.num scope="col" { "Size" } th.num scope="col" { "When" } } }
                    tbody { @for made in &view.backups {
                        tr { th scope="row" { code { (made.name) } } td.num { (made.seq) } td.num { (made.bytes.div_ceil(1000)) " kB" } td.num { (day(made.at)) } }
                    } }
                } }
            }
            p.small.soft { "The newest three are kept. States of infrastructure in them stay sealed without the file " code { "key" } " of the data directory: keep it apart." }
        }))
    }
}

fn look(mark: Mark) -> &'static str {
    if mark == Mark::Stop { "stop" } else { "go" }
}

fn acts(caller: &Caller) -> Markup {
    html! {
        @if may(caller, Role::Owner) {
            (Ask { id: "backup", label: "Make a backup", look: "", action: "/recovery/backup", what: "Journal, repositories and blobs in one file below the data directory.", yes: "Make it" }.with(html! {}))
            (Ask { id: "drill", label: "Hold a drill", look: "", action: "/recovery/drill", what: "Everything is made again from a backup and from code beside what runs, timed, and removed. Users notice nothing; the machine works harder meanwhile.", yes: "Hold it" }.with(html! {}))
        }
    }
}
