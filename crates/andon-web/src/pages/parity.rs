//! Two environments against each other: what differs, what may, and one number.

use andon_line::view::ParityView;
use andon_line::view::parity::ParityRow;
use maud::{Markup, html};

use crate::parts::{facts, head, sheet, state};

/// The page.
pub fn parity(view: &ParityView) -> Markup {
    let project = &view.frame.project;
    let page = |name: &str| html! { a href={ "/" (project) "/environments/" (name) } { (name) } };
    html! {
        (head(&view.heading, &view.sentence, html! {}))
        (facts(&view.facts))
        (sheet("differences", "What differs", html! {
            @if view.rows.is_empty() { p.soft { "Nothing: what serves in both is made alike." } } @else {
                div.scroll { table {
                    thead { tr { th scope="col" { "What" } th scope="col" { (page(&view.here)) } th scope="col" { (page(&view.there)) } th scope="col" { "Allowed" } } }
                    tbody { @for row in &view.rows { (self::row(row)) } }
                } }
            }
        }))
    }
}

fn row(row: &ParityRow) -> Markup {
    html! {
        tr {
            th scope="row" { (row.subject) " " (row.what) }
            td { code { (row.here) } }
            td { code { (row.there) } }
            td { @match &row.allowed { Some(why) => (why), None => (state(row.mark, "no reason given")) } }
        }
    }
}
