//! The queue: what lands next, what waits and what for, what was decided.

use andon_line::Caller;
use andon_line::view::{ChangeRow, QueueView};
use andon_model::event::Role;
use maud::{Markup, html};

use crate::parts::{bar, head, may, push, sheet, state, time};

/// The page.
pub fn queue(view: &QueueView, caller: &Caller) -> Markup {
    let project = &view.frame.project;
    let again = html! { @if may(caller, Role::Developer) && view.frame.commit.is_some() { (push(&format!("/{project}/runs"), "Test trunk again", "")) } };
    html! {
        (head(&view.heading, &view.sentence, again))
        (sheet("open", "On the way", html! {
            @if view.open.is_empty() { p.soft { "Nothing waits. Push a change with " code { "git push andon HEAD:refs/for/" (view.frame.trunk) } "." } }
            (list(project, &view.open))
        }))
        (sheet("decided", "Decided lately", html! {
            @if view.recent.is_empty() { p.soft { "Nothing yet." } }
            (list(project, &view.recent))
        }))
    }
}

fn list(project: &str, rows: &[ChangeRow]) -> Markup {
    html! {
        ol.rows { @for row in rows {
            li id={ "change-" (row.number) } {
                a.row.change href={ "/" (project) "/changes/" (row.number) } {
                    b { (row.id) }
                    span.title { (row.title) span.small.soft { (author(&row.author)) ", patch set " (row.patch_set) @if let Some(andon) = &row.fixes { ", fixes " (andon) } } }
                    span.says { (state(row.mark, &row.words)) @if let Some(progress) = row.progress { (bar(f64::from(progress), "live", &format!("{progress} % of its usual time"))) } }
                    span.when { (time(row.since)) }
                }
            }
        } }
    }
}

/// The name without the address.
pub fn author(author: &str) -> &str {
    author.split(" <").next().unwrap_or_default()
}
