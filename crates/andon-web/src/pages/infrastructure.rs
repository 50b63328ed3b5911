//! Infrastructure of an environment: the newest plan as a readable diff, runs and what they wait for, states with their versions and holders.

use andon_environment::blueprint::{Plan, ResourceChange};
use andon_line::Caller;
use andon_line::view::infrastructure::{InfraRunView, InfrastructureView, LostView, StateView};
use andon_line::view::{Mark, count};
use andon_model::event::Role;
use maud::{Markup, html};

use crate::parts::{Ask, day, head, hidden, may, sheet, state, text};

/// Versions of a state that are shown.
const VERSIONS: usize = 20;

/// The page.
pub fn infrastructure(view: &InfrastructureView, caller: &Caller) -> Markup {
    let newest = view.runs.iter().find_map(|run| Some((run, run.plan.as_ref()?)));
    html! {
        (head(&view.heading, &view.sentence, html! {}))
        @if let Some((run, plan)) = newest { (sheet("plan", &format!("What {} would do, or did", run.run), diff(plan))) }
        (sheet("runs", "Runs of the tool", html! {
            @if view.runs.is_empty() { p.soft { "None yet." } }
            ol.rows { @for run in &view.runs { (one(view, run, caller)) } }
        }))
        (sheet("states", "States", html! {
            @if view.states.is_empty() { p.soft { "Nothing was stored yet." } }
            @for stored in &view.states { (versions(stored)) }
        }))
        @if !view.unknown.is_empty() {
            (sheet("unknown", "Unknown", html! {
                p.soft { "Of these the last look could not tell whether they are as the code says." }
                ol.rows { @for what in &view.unknown { li.row { (state(Mark::Wait, what)) } } }
            }))
        }
        @if !view.lost.is_empty() {
            (sheet("lost", "In no state", html! {
                p.soft { "Runs made these, or were making them, and were ended before they could save. Look after each, then say so." }
                ol.rows { @for (place, lost) in view.lost.iter().enumerate() { li.row {
                    (state(Mark::Stop, &lost.words))
                    @if may(caller, Role::Deployer) { (forget(view, place, lost)) }
                } } }
            }))
        }
        @if !view.outputs.is_empty() {
            (sheet("outputs", "Output values", html! { ul.rows { @for (name, value) in &view.outputs { li.row { code { (name) } code { (value) } } } } }))
        }
    }
}

fn one(view: &InfrastructureView, run: &InfraRunView, caller: &Caller) -> Markup {
    let held = run.mark == Mark::Wait && !run.guarded.is_empty();
    let action = format!(
        "/{}/environments/{}/infrastructure/{}/approve",
        view.frame.project, view.environment, run.run
    );
    let id = format!("approve-{}", run.run);
    let what = format!(
        "This ends: {}. Type the environment's name, {}, to approve it.",
        run.guarded.join(", "),
        view.environment
    );
    let ask =
        Ask { id: &id, label: "Approve", look: "danger", action: &action, what: &what, yes: "Approve it" };
    let works = run.place == Some(1) && run.mark == Mark::Live && may(caller, Role::Deployer);
    let end =
        format!("/{}/environments/{}/infrastructure/{}/stop", view.frame.project, view.environment, run.run);
    let stop_id = format!("stop-{}", run.run);
    let stop = Ask {
        id: &stop_id,
        label: "Stop",
        look: "",
        action: &end,
        what: "The tool is asked to save what it did and to end; when it does not in time it is ended by force.",
        yes: "Stop it",
    };
    html! {
        li.row id={ "run-" (run.run) } {
            span { b { (run.run) } " " (run.action) span.small.soft { @if let Some(place) = run.place { " place " (place) ", " } " by " (run.by) @if let Some(tool) = &run.tool { ", " (tool) } } }
            span.says { (state(run.mark, &run.words)) @if let Some(counts) = &run.counts { span.small.soft { (counts) } } }
            @for address in &run.guarded { span.small { (state(Mark::Wait, address)) } }
            @if !run.approvals.is_empty() { span.small.soft { "approved by " (run.approvals.join(", ")) } }
            @if held && may(caller, Role::Deployer) { (ask.with(html! { (text("environment", "Environment", &view.environment, true)) (text("why", "Reason", "", false)) })) }
            @if works { (stop.with(html! {})) }
            span.when { (day(run.at)) }
        }
    }
}

/// Asks what became of something that is in no state.
fn forget(view: &InfrastructureView, place: usize, lost: &LostView) -> Markup {
    let action = format!("/{}/environments/{}/infrastructure/forget", view.frame.project, view.environment);
    let id = format!("forget-{place}");
    let what = format!("{} is not shown any more. Remove it or import it first.", lost.address);
    let ask =
        Ask { id: &id, label: "Looked after", look: "", action: &action, what: &what, yes: "Do not show it" };
    ask.with(html! { (hidden("address", &lost.address)) (text("why", "What became of it", "", true)) })
}

/// The plan as a diff.
fn diff(plan: &Plan) -> Markup {
    html! {
        @if plan.changes.is_empty() { p.soft { "Nothing: reality is as the code says." } }
        @for change in &plan.changes { (resource(change)) }
    }
}

fn resource(change: &ResourceChange) -> Markup {
    let mark = if change.ends() { Mark::Stop } else { Mark::Live };
    html! {
        details open[change.attributes.len() <= 20] {
            summary { (state(mark, change.word())) " " code { (change.address) } @if let Some(reason) = change.reason.as_ref().filter(|_| change.is_unknown()) { span.small.soft { " " (reason) } } @if !change.replaced_by.is_empty() { span.small.soft { " because of " (change.replaced_by.join(", ")) } } }
            pre { @for attribute in &change.attributes {
                @if let Some(before) = &attribute.before { "- " (attribute.path) " = " (before) "\n" }
                @if let Some(after) = &attribute.after { "+ " (attribute.path) " = " (after) "\n" }
            } }
        }
    }
}

fn versions(stored: &StateView) -> Markup {
    html! {
        h3 { (stored.name) }
        @match &stored.lock {
            Some(holder) => { p { (state(Mark::Wait, &format!("held by {holder}"))) } }
            None => { p { (state(Mark::Go, "free")) } }
        }
        ol.rows { @for version in stored.versions.iter().take(VERSIONS) {
            li.row { span { "version " b { (version.number) } " serial " (version.serial) } span.small { (version.bytes) " bytes, by " (version.by) @if let Some(from) = version.restored_from { ", version " (from) " again" } @if let Some(run) = &version.recovered { ", found after " (run) ", which could not store it" } } span.when { (day(version.at)) } }
        } }
        @if stored.versions.len() > VERSIONS { p.soft { (count(stored.versions.len() - VERSIONS, "older version")) ": " code { "andon infra state " (stored.name) } } }
    }
}
