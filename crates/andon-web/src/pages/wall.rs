//! The wall: the line with the changes on it, services by environments, flow, what happened.

use andon_line::Caller;
use andon_line::view::wall::{Car, Cell, ServiceRow, Station, WallView};
use maud::{Markup, html};

use crate::pages::environment::create;
use crate::parts::{bar, class, head, sheet, state, timeline};

/// The page.
pub fn wall(view: &WallView, caller: &Caller) -> Markup {
    let project = &view.frame.project;
    html! {
        (head(&view.heading, &view.sentence, create(project, &view.environments, caller)))
        (line(view))
        (services(view))
        (sheet("flow", "Flow, last 30 days", html! {
            dl.facts { @for fact in &view.flow { div.fact { dt { (fact.label) } dd { (fact.value) } } } }
            p.small { a href={ "/" (project) "/flow" } { "Where the time goes" } }
        }))
        (timeline(project, &view.feed))
    }
}

fn line(view: &WallView) -> Markup {
    let held = view.frame.andon.is_some();
    html! {
        section.sheet #line aria-label="The line" {
            ol.line { @for (n, one) in view.stations.iter().enumerate() { (station(&view.frame.project, one, held && n == 0)) } }
        }
    }
}

fn station(project: &str, station: &Station, held: bool) -> Markup {
    let look = match (held, station.busy) {
        (true, _) => "held",
        (false, true) => "busy",
        (false, false) => "calm",
    };
    html! {
        li.station.(look) id={ "station-" (station.name) } {
            h2 { (station.name) @if held { span.unseen { ", stopped" } } }
            @if station.cars.is_empty() { p.empty { "nothing here" } }
            @for one in &station.cars { (car(project, one)) }
        }
    }
}

fn car(project: &str, car: &Car) -> Markup {
    html! {
        a.car.(class(car.mark)) href={ "/" (project) "/" (car.link) } {
            span.car-name { b { (car.label) } @if !car.title.is_empty() { " " (car.title) } }
            @if !car.words.is_empty() { (state(car.mark, &car.words)) }
            @if let Some(progress) = car.progress { (bar(f64::from(progress), "live", &format!("{progress} % of its usual time"))) }
        }
    }
}

fn services(view: &WallView) -> Markup {
    sheet(
        "services",
        "Services and environments",
        html! {
            @if view.services.is_empty() {
                p.soft { "Nothing runs yet. Services are declared in andon.yaml and start with the first artifact that lands." }
            } @else {
                div.scroll { table.cells {
                    thead { tr {
                        th scope="col" { "Service" }
                        @for name in &view.environments { th scope="col" { a href={ "/" (view.frame.project) "/environments/" (name) } { (name) } } }
                        th.num scope="col" { "Errors, p95" }
                    } }
                    tbody { @for service in &view.services { (row(view, service)) } }
                } }
            }
        },
    )
}

fn row(view: &WallView, service: &ServiceRow) -> Markup {
    html! {
        tr {
            th scope="row" { b { (service.name) } span.small.soft { (service.instances) } }
            @for one in &service.cells { td { (cell(&view.frame.project, one)) } }
            td.num {
                @match &service.signals {
                    Some((errors, p95)) => { (errors) span.small.soft { (p95) } },
                    None => span.small.soft { "no requests lately" },
                }
            }
        }
    }
}

fn cell(project: &str, cell: &Cell) -> Markup {
    html! {
        a.cell href={ "/" (project) "/" (cell.link) } { span class={ "st " (class(cell.mark)) } { span.ver { (cell.version) } } }
        @if !cell.words.is_empty() { span.small.soft { (cell.words) } }
        @if let Some(split) = cell.split { (bar(f64::from(split) / 100.0, "split", &format!("{} % of users on the new revision", f64::from(split) / 100.0))) }
    }
}
