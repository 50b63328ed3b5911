//! Environments: what serves in each, its instances, deployments and drift, and what can be done with it.

use andon_line::Caller;
use andon_line::view::Mark;
use andon_line::view::environment::{
    DeploymentRow, DriftRow, EnvironmentRow, EnvironmentView, EnvironmentsView, InstanceRow, ServicePlace,
};
use andon_model::event::Role;
use maud::{Markup, html};

use crate::parts::{Ask, changes, day, facts, head, hidden, may, sheet, state, text, timeline};

/// The page of all.
pub fn environments(view: &EnvironmentsView, caller: &Caller) -> Markup {
    let project = &view.frame.project;
    let declared: Vec<String> =
        view.rows.iter().filter(|row| row.standing).map(|row| row.name.clone()).collect();
    html! {
        (head(&view.heading, &view.sentence, html! { a.btn href="/hosts" { "Hosts" } a.btn href="/recovery" { "Recovery" } (create(project, &declared, caller)) }))
        (sheet("environments", "In the order in which a change passes", html! {
            @if view.rows.is_empty() { p.soft { "Declare them under " code { "environments:" } " in andon.yaml; they appear when that lands." } }
            ul.rows { @for row in &view.rows { (self::row(project, row)) } }
        }))
    }
}

fn row(project: &str, row: &EnvironmentRow) -> Markup {
    html! {
        li id={ "environment-" (row.name) } {
            a.row.place-row href={ "/" (project) "/environments/" (row.name) } {
                span { b { (row.name) } span.small.soft { @if let Some(change) = row.change { "shows #" (change) ", " } @match &row.like { Some(like) => { "like " (like) }, None => "declared in andon.yaml" } } }
                (state(row.mark, &row.words))
                span.small { @for (n, (service, commit)) in row.serving.iter().enumerate() { @if n > 0 { ", " } (service) " " code { (commit) } } @if row.serving.is_empty() { span.soft { "nothing serves" } } }
                span.small.soft { (andon_line::view::count(row.instances, "instance")) @if let Some((percent, model)) = &row.parity { ", " (percent) " % like " (model) } @if let Some(end) = row.expires { ", ends " (day(end)) } }
            }
        }
    }
}

/// The button for a new environment.
pub fn create(project: &str, declared: &[String], caller: &Caller) -> Markup {
    if !may(caller, Role::Developer) || declared.is_empty() {
        return html! {};
    }
    let ask = Ask {
        id: "new-environment",
        label: "New environment",
        look: "",
        action: &format!("/{project}/environments"),
        what: "Made from code like a declared one, with the same revisions, and gone by itself.",
        yes: "Create it",
    };
    ask.with(html! {
        (text("name", "Name", "try-gift-cards", true))
        label.field { span { "Like" } select name="like" { @for name in declared { option value=(name) { (name) } } } }
        (text("change", "Change", "empty: what serves there", false))
        label.field { span { "Lasts" } input type="text" name="lasts" value="8h" placeholder="2h, 3d" autocomplete="off" maxlength="20"; }
    })
}

/// The page of one.
pub fn environment(view: &EnvironmentView, caller: &Caller) -> Markup {
    let project = &view.frame.project;
    html! {
        (head(&view.heading, &view.sentence, acts(view, caller)))
        (facts(&view.facts))
        @if !view.notes.is_empty() { (sheet("notes", "Out of the ordinary", html! { ul.rows { @for note in &view.notes { li.row { (state(Mark::Wait, note)) } } } })) }
        @if !view.drifts.is_empty() { (sheet("drift", "Differs from code", html! { ul.rows { @for drift in &view.drifts { (self::drift(drift)) } } })) }
        (sheet("services", "Services", html! {
            @if view.services.is_empty() { p.soft { "Nothing runs here yet: it waits for an artifact of a project with services." } }
            @for service in &view.services { (self::service(view, service, caller)) }
        }))
        @if !view.databases.is_empty() { (sheet("databases", "Databases", databases(view))) }
        @if !view.shells.is_empty() { (sheet("shells", "Shells that people opened", shells(view, caller))) }
        (sheet("isolation", "What separates its instances", isolation(view)))
        (sheet("deployments", "Deployments", deployments(project, &view.deployments)))
        (timeline(project, &view.timeline))
    }
}

fn acts(view: &EnvironmentView, caller: &Caller) -> Markup {
    let to = |what: &str| format!("/{}/environments/{}/{what}", view.frame.project, view.row.name);
    let (deploy, extend, rebuild, destroy) = (to("deploy"), to("extend"), to("rebuild"), to("destroy"));
    let hold = to("hold");
    let why = || text("why", "Why", "", false);
    html! {
        @if may(caller, Role::Deployer) {
            (Ask { id: "deploy", label: "Deploy", look: "", action: &deploy, what: "Puts a landed artifact beside what serves. It moves no user; its release does.", yes: "Deploy it" }
                .with(text("change", "Change", "empty: the newest that landed", false)))
        }
        @if may(caller, Role::Deployer) {
            @if view.held {
                (Ask { id: "unhold", label: "Let deployments in", look: "go", action: &hold, what: "Green changes are deployed here again.", yes: "Let them in" }.with(html! {}))
            } @else {
                (Ask { id: "hold", label: "Hold deployments", look: "", action: &hold, what: "Nothing new is deployed here; what runs is looked after all the same.", yes: "Hold them" }.with(text("why", "Why", "fair until Friday", true)))
            }
        }
        @if !view.row.standing && may(caller, Role::Developer) {
            (Ask { id: "extend", label: "Keep it longer", look: "", action: &extend, what: "It ends that long from now.", yes: "Keep it" }
                .with(html! { label.field { span { "From now on" } input type="text" name="lasts" value="8h" required maxlength="20" autocomplete="off"; } }))
        }
        @if may(caller, Role::Deployer) {
            (Ask { id: "rebuild", label: "Rebuild from code", look: "danger", action: &rebuild, what: "Everything in it is stopped and removed, then made anew from code. Its users wait that long.", yes: "Rebuild it" }.with(why()))
        }
        @if !view.row.standing && may(caller, Role::Developer) {
            (Ask { id: "destroy", label: "Destroy", look: "danger", action: &destroy, what: "Everything in it is stopped and removed. It can be made again from code.", yes: "Destroy it" }.with(why()))
        }
    }
}

fn databases(view: &EnvironmentView) -> Markup {
    html! {
        div.scroll { table {
            thead { tr { th scope="col" { "Database" } th scope="col" { "In PostgreSQL" } th scope="col" { "Tables" } th scope="col" { "Cloned from" } th scope="col" { "Migrations that ran" } } }
            tbody { @for row in &view.databases {
                tr id={ "database-" (row.database) } {
                    th scope="row" { (state(row.mark, &row.database)) @if let Some(why) = &row.failed { span.small { (why) } } }
                    td { code { (row.name) } }
                    td { @match &row.schema { Some(schema) => code title=(schema) { (schema.chars().skip(7).take(12).collect::<String>()) }, None => span.soft { "not known yet" } } }
                    td { @match &row.cloned { Some(from) => (from), None => span.soft { "nothing: made empty" } } }
                    td { (row.migrations.len()) @if let Some(last) = row.migrations.last() { ", the last " code { (last) } } }
                }
            } }
        } }
    }
}

fn shells(view: &EnvironmentView, caller: &Caller) -> Markup {
    html! {
        div.scroll { table {
            thead { tr { th scope="col" { "Shell" } th scope="col" { "Inside" } th scope="col" { "By" } th scope="col" { "Why" } th scope="col" { "State" } th scope="col" { "Recording" } } }
            tbody { @for row in &view.shells {
                tr id={ "shell-" (row.id) } {
                    th scope="row" { (row.id) }
                    td { (row.instance) }
                    td { (row.by) }
                    td { (row.why) @if !row.command.is_empty() { " " code { (row.command) } } }
                    td { (state(row.mark, &row.words)) }
                    td { @if row.recorded && may(caller, Role::Owner) { a href={ "/api/v1/" (view.frame.project) "/shells/" (row.id) "/recording" } { "download" } } @else if row.recorded { span.soft { "owners read it" } } @else { span.soft { "–" } } }
                }
            } }
        } }
    }
}

fn isolation(view: &EnvironmentView) -> Markup {
    html! {
        ul.rows {
            @if !view.isolated_by.is_empty() { li.row { (state(Mark::Go, &view.isolated_by.join(", "))) } }
            @for (lacks, why) in &view.not_isolated_by { li.row { (state(Mark::Wait, &format!("lacking: {lacks}"))) span.small.soft { (why) } } }
        }
        p { a href={ "/" (view.frame.project) "/environments/" (view.row.name) "/infrastructure" } { "Infrastructure: plans, runs, states" } }
        @if let Some((percent, model)) = &view.row.parity {
            p { a href={ "/" (view.frame.project) "/environments/" (view.row.name) "/diff/" (model) } { "Parity with " (model) ": " (percent) " %" } }
        }
    }
}

fn drift(drift: &DriftRow) -> Markup {
    html! { li.row.drift { span.st.wait { b { (drift.what) } } span { "code says " code { (drift.before) } ", found " code { (drift.after) } } span.small.soft { "since " (day(drift.since)) } } }
}

fn service(view: &EnvironmentView, service: &ServicePlace, caller: &Caller) -> Markup {
    let id = format!("rollback-{}", service.name);
    let action = format!("/{}/environments/{}/rollback", view.frame.project, view.row.name);
    html! {
        article.service id={ "service-" (service.name) } {
            div.head {
                div {
                    h3 { (service.name) @if let Some(revision) = &service.revision { " " code { (revision) } } }
                    p.small.soft { a href=(service.address) rel="noreferrer" { (service.address) } @if let Some((errors, p95)) = &service.signals { ", errors " (errors) ", p95 " (p95) } }
                }
                @if may(caller, Role::Deployer) && service.revision.is_some() {
                    div.acts {
                        (Ask { id: &format!("scale-{}", service.name), label: "Scale", look: "", action: &format!("/{}/environments/{}/scale", view.frame.project, view.row.name), what: "Another number of instances than code says. Empty: as code says.", yes: "Scale it" }
                            .with(html! { (hidden("service", &service.name)) (text("replicas", "Instances", "3", false)) }))
                    }
                }
                @if let (Some(previous), true) = (&service.previous, may(caller, Role::Releaser)) {
                    div.acts {
                        (Ask { id: &id, label: &format!("Back to {previous}"), look: "danger", action: &action, what: &format!("All users of {} go back to {previous} at once.", service.name), yes: "Roll back" }
                            .with(hidden("service", &service.name)))
                    }
                }
            }
            div.scroll { table {
                caption.unseen { "Instances of " (service.name) }
                thead { tr { th scope="col" { "Instance" } th scope="col" { "Revision" } th scope="col" { "State" } @if view.several_hosts { th scope="col" { "Host" } } th.num scope="col" { "Address" } th scope="col" { "Output" } } }
                tbody { @for instance in &service.instances { (self::instance(&view.frame.project, instance, view.several_hosts)) } }
            } }
        }
    }
}

fn instance(project: &str, instance: &InstanceRow, several_hosts: bool) -> Markup {
    html! {
        tr id={ "instance-" (instance.id) } {
            th scope="row" { (instance.id) }
            td { code { (instance.revision) } }
            td { (state(instance.mark, &instance.words)) }
            @if several_hosts { td { a href={ "/hosts#host-" (instance.host.as_deref().unwrap_or("here")) } { (instance.host.as_deref().unwrap_or("here")) } } }
            td.num { (instance.address) }
            td { a href={ "/api/v1/" (project) "/instances/" (instance.id) "/log" } { "read" } }
        }
    }
}

fn deployments(project: &str, rows: &[DeploymentRow]) -> Markup {
    html! {
        @if rows.is_empty() { p.soft { "None yet." } } @else {
            div.scroll { table {
                thead { tr { th scope="col" { "Deployment" } th scope="col" { "Commit" } th scope="col" { "New with it" } th scope="col" { "State" } th scope="col" { "Tested here" } th.num scope="col" { "Began" } } }
                tbody { @for row in rows {
                    tr id={ "deployment-" (row.id) } {
                        th scope="row" { (row.id) }
                        td { code title=(row.artifact) { (row.commit) } }
                        td { (changes(project, &row.changes)) }
                        td { (state(row.mark, &row.words)) }
                        td { @match &row.tested { Some((ok, words)) => (state(if *ok { Mark::Go } else { Mark::Stop }, words)), None => span.soft { "–" } } }
                        td.num { (day(row.started)) }
                    }
                } }
            } }
        }
    }
}
