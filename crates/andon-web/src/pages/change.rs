//! A change: from commit to users, with the proof of its landing.

use andon_line::Caller;
use andon_line::view::change::{ChangeView, DefinitionView, Proof, RunLine};
use andon_model::event::Role;
use maud::{Markup, html};

use crate::parts::{Ask, day, facts, head_of, may, sheet, state, text, timeline};

/// The page.
pub fn change(view: &ChangeView, caller: &Caller) -> Markup {
    let project = &view.frame.project;
    let open = matches!(view.row.standing.as_str(), "waiting" | "testing" | "green" | "refused");
    let act = Ask {
        id: "abandon",
        label: "Take it back",
        look: "danger",
        action: &format!("/{project}/changes/{}/abandon", view.row.number),
        what: "It leaves the queue and its run is stopped. Pushing it again brings it back.",
        yes: "Take it back",
    };
    let acts = html! {
        @if let Some(run) = view.row.run { a.btn href={ "/" (project) "/runs/" (run) } { "Its newest run" } }
        @if open && may(caller, Role::Developer) { (act.with(text("why", "Why", "superseded by #12", false))) }
    };
    html! {
        (head_of(html! { (view.heading) }, html! { (view.sentence) " " code { (view.row.head) } }, acts))
        @if !view.reasons.is_empty() {
            (sheet("reasons", "Why it does not land", html! { ul.reasons { @for reason in &view.reasons { li { (reason) } } } }))
        }
        @if let Some(found) = &view.definition { (sheet("definition", "It changes andon.yaml", definition(view, found, caller))) }
        (facts(&view.facts))
        div.two {
            (sheet("places", "Where users have it", places(view)))
            (sheet("runs", "Runs", runs(project, &view.runs)))
        }
        @if let Some(found) = &view.proof { (sheet("proof", "What landed is what was tested", proof(project, found))) }
        (timeline(project, &view.timeline))
    }
}

fn definition(view: &ChangeView, found: &DefinitionView, caller: &Caller) -> Markup {
    let action = format!("/{}/changes/{}/approve", view.frame.project, view.row.number);
    let approve = Ask {
        id: "approve-definition",
        label: "Approve",
        look: "go",
        action: &action,
        what: "This patch set may land with what it makes of andon.yaml. A new patch set asks again.",
        yes: "Approve it",
    };
    let rows = |loosens| found.edits.iter().filter(move |edit| edit.loosens == loosens);
    html! {
        p { (state(found.mark, &found.says)) }
        @if rows(true).next().is_some() {
            p { "What guards trunk and users becomes another:" }
            ul.reasons.wait { @for edit in rows(true) { li { (edit.says) } } }
        }
        @if rows(false).next().is_some() {
            p.soft { "And beside it:" }
            ul { @for edit in rows(false) { li { (edit.says) } } }
        }
        @if found.asks.is_some_and(|role| may(caller, role)) {
            div.acts { (approve.with(html! { input type="hidden" name="patch_set" value=(view.row.patch_set); (text("why", "Why", "agreed in the team", true)) })) }
        }
    }
}

fn places(view: &ChangeView) -> Markup {
    html! {
        @if view.places.is_empty() { p.soft { "Nowhere yet: it has to land first." } }
        ul.rows { @for (name, mark, words) in &view.places {
            li { a.row.place href={ "/" (view.frame.project) "/environments/" (name) } { b { (name) } (state(*mark, words)) } }
        } }
    }
}

fn runs(project: &str, runs: &[RunLine]) -> Markup {
    html! {
        @if runs.is_empty() { p.soft { "Not tested yet." } }
        ul.rows { @for run in runs {
            li { a.row.place href={ "/" (project) "/runs/" (run.number) } { b { "run-" (run.number) } (state(run.mark, &run.words)) span.small.soft { "patch set " (run.patch_set) ", " (day(run.queued)) } } }
        } }
    }
}

fn proof(project: &str, proof: &Proof) -> Markup {
    let same = proof.tested_tree == proof.landed_tree;
    html! {
        p { (state(if same { andon_line::view::Mark::Go } else { andon_line::view::Mark::Stop }, if same { "The tree on trunk is the tree that was green." } else { "The trees differ." })) }
        dl.pairs {
            div { dt { "Commit on trunk" } dd { code { (proof.commit) } } }
            div { dt { "Tree tested" } dd { code { (proof.tested_tree) } " by " a href={ "/" (project) "/runs/" (proof.run) } { "run-" (proof.run) } } }
            div { dt { "Tree landed" } dd { code { (proof.landed_tree) } } }
        }
    }
}
