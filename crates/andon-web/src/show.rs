//! Answers the pages of a project: reads the place, takes its view, has it drawn. The same drawing serves the live updates.

use std::sync::Arc;

use andon_line::{Caller, Line, Project, Refusal, view};
use andon_model::event::Role;
use axum::extract::{FromRequestParts, Path, Query, State};
use axum::response::{IntoResponse, Redirect, Response};
use http::request::Parts;
use http::{HeaderMap, StatusCode, Uri};
use maud::{Markup, html};
use serde::Deserialize;

use crate::parts::{self, Ask, may};
use crate::place::Place;
use crate::said::Said;
use crate::shell::{self, Sheet};
use crate::trouble::Trouble;
use crate::{log, pages};

/// The caller behind a door that needs a role.
#[derive(Debug, Clone)]
pub struct Who(pub Caller);

impl<S: Sync> FromRequestParts<S> for Who {
    type Rejection = Trouble;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Who, Trouble> {
        let caller = parts.extensions.get::<Caller>().cloned();
        caller
            .map(Who)
            .ok_or_else(|| Trouble { status: StatusCode::UNAUTHORIZED, words: "log in first".into() })
    }
}

/// Any page of a project.
pub async fn show(
    State(line): State<Arc<Line>>,
    Who(caller): Who,
    uri: Uri,
    headers: HeaderMap,
    Query(from): Query<log::From>,
) -> Result<Response, Trouble> {
    let (name, place) = Place::read(uri.path()).ok_or_else(Trouble::no_page)?;
    let project = line.project(name.as_str())?;
    let mut sheet = draw(&line, &project, &place, &caller).await?;
    let mut live = format!("/{name}/live?page={}", uri.path().trim_end_matches('/'));
    if let Place::Log(run, job) = &place {
        let opened = log::open(&line, &project, *run, job, &from, uri.path()).await?;
        sheet.main = html! { (sheet.main) (opened.markup) };
        if let Some((at, number)) = opened.follow {
            live += &format!("&at={at}&line={number}");
        }
    }
    let said = Said::read(&headers);
    let mut answer = shell::document(&sheet, &caller, said.as_ref(), &live).into_response();
    if said.is_some() {
        Said::forget(answer.headers_mut());
    }
    Ok(answer)
}

/// A page at this moment. A job's output is not part of it: it grows on its own.
pub async fn draw(
    line: &Arc<Line>,
    project: &Arc<Project>,
    place: &Place,
    caller: &Caller,
) -> Result<Sheet, Refusal> {
    let (name, now) = (project.name.as_str(), line.now());
    let (title, frame, main) = match place {
        Place::Wall => {
            let view = view::wall::wall(line, project);
            let main = pages::wall::wall(&view, caller);
            (format!("{} · {name}", view.heading), view.frame, main)
        }
        Place::Queue => {
            let view = view::queue::queue(&project.state(), name, now);
            let main = pages::queue::queue(&view, caller);
            (format!("{} · {name}", view.heading), view.frame, main)
        }
        Place::Change(id) => {
            let view = line.change_view(project, *id)?;
            let main = pages::change::change(&view, caller);
            (view.heading, view.frame, main)
        }
        Place::Run(id) => {
            let view = line.run_view(project, *id).await?;
            let main = pages::run::run(&view, caller);
            (format!("{} · {name}", view.heading), view.frame, main)
        }
        Place::Log(id, job) => {
            let view = line.run_view(project, *id).await?;
            let main = pages::run::job(&view, job.as_str())?;
            (format!("{job} · {id} · {name}"), view.frame, main)
        }
        Place::Coverage(run, sort, folder) => {
            let view = line.coverage_view(project, *run, folder, *sort).await?;
            let main = pages::coverage::coverage(&view);
            (format!("{} · {name}", view.heading), view.frame, main)
        }
        Place::Source(run, path) => {
            let view = line.source_view(project, *run, path).await?;
            let main = pages::coverage::source(&view);
            (format!("{path} · {run} · {name}"), view.frame, main)
        }
        Place::Environments => {
            let view = view::environment::environments(project, now);
            let main = pages::environment::environments(&view, caller);
            (format!("{} · {name}", view.heading), view.frame, main)
        }
        Place::Environment(environment) => {
            let view = view::environment::environment(line, project, environment)?;
            let main = pages::environment::environment(&view, caller);
            (format!("{environment} · {name}"), view.frame, main)
        }
        Place::Infrastructure(environment) => {
            let view = line.infrastructure_view(project, environment).await?;
            let main = pages::infrastructure::infrastructure(&view, caller);
            (format!("{} · {name}", view.heading), view.frame, main)
        }
        Place::Parity(here, there) => {
            let view = view::parity::parity(line, project, here, there)?;
            let main = pages::parity::parity(&view);
            (format!("{} · {name}", view.heading), view.frame, main)
        }
        Place::Tests => {
            let view = line.tests_view(project).await?;
            let main = pages::suite::suite(&view, caller);
            (format!("{} · {name}", view.heading), view.frame, main)
        }
        Place::Releases => {
            let view = view::release::releases(line, project);
            let main = pages::release::releases(&view);
            (format!("{} · {name}", view.heading), view.frame, main)
        }
        Place::Release(id) => {
            let view = view::release::release(line, project, *id)?;
            let main = pages::release::release(&view, caller);
            (format!("{id} {}", view.heading), view.frame, main)
        }
        Place::Flags => {
            let view = view::flags::flags(&project.state(), name, now);
            let main = pages::flags::flags(&view, caller);
            (format!("{} · {name}", view.heading), view.frame, main)
        }
        Place::Andons => {
            let view = view::andon::andons(&project.state(), name, now);
            let main = pages::andon::andons(&view);
            (format!("{} · {name}", view.heading), view.frame, main)
        }
        Place::Andon(id) => {
            let view = view::andon::andon(&project.state(), name, *id, now)?;
            let main = pages::andon::andon(&view, caller);
            (view.heading, view.frame, main)
        }
        Place::Flow => {
            let view = view::flow::flow(&project.state(), name, now);
            let main = pages::flow::flow(&view);
            (format!("{} · {name}", view.heading), view.frame, main)
        }
    };
    Ok(Sheet { title, entry: place.entry(), frame, main })
}

/// All projects, or straight to the only one.
pub async fn projects(State(line): State<Arc<Line>>, Who(caller): Who, headers: HeaderMap) -> Response {
    let all = line.projects();
    let said = Said::read(&headers);
    if let ([only], None) = (all.as_slice(), &said) {
        return Redirect::to(&format!("/{}", only.name)).into_response();
    }
    let heading = match all.len() {
        0 => "There is no project yet".to_owned(),
        n => view::count(n, "project"),
    };
    let rows = all.iter().map(|project| {
        let state = project.state();
        view::frame(&state, project.name.as_str(), line.now())
    });
    let main = html! {
        (parts::head(&heading, "A project is one repository with its andon.yaml and one line to production.", html! { a.btn href="/hosts" { "Hosts" } a.btn href="/recovery" { "Recovery" } (create(&caller)) }))
        @if !all.is_empty() { section.sheet #projects aria-label="Projects" { ul.rows { @for frame in rows { (row(&frame)) } } } }
    };
    let mut answer = shell::outside("Projects", Some(&caller), said.as_ref(), main).into_response();
    if said.is_some() {
        Said::forget(answer.headers_mut());
    }
    answer
}

/// Backups and drills.
pub async fn recovery(State(line): State<Arc<Line>>, Who(caller): Who, headers: HeaderMap) -> Response {
    let said = Said::read(&headers);
    let main = pages::recovery::recovery(&view::recovery::recovery(&line), &caller);
    let mut answer = shell::outside("Recovery", Some(&caller), said.as_ref(), main).into_response();
    if said.is_some() {
        Said::forget(answer.headers_mut());
    }
    answer
}

fn row(frame: &view::Frame) -> Markup {
    let words = match &frame.andon {
        Some((id, why)) => format!("stopped by {id}: {why}"),
        None => "the line runs".to_owned(),
    };
    html! {
        li { a.row href={ "/" (frame.project) } { b { (frame.project) } span.soft { (frame.trunk) @if let Some(commit) = &frame.commit { " " code { (commit) } } } (parts::state(frame.cord, &words)) } }
    }
}

fn create(caller: &Caller) -> Markup {
    if !may(caller, Role::Owner) {
        return html! {};
    }
    let ask = Ask {
        id: "new-project",
        label: "New project",
        look: "go",
        action: "/",
        what: "Makes an empty repository here. Push to it as to any other.",
        yes: "Create it",
    };
    ask.with(html! {
        (parts::text("name", "Name", "shop", true))
        label.field { span { "Trunk" } input type="text" name="trunk" value="main" required maxlength="100"; }
    })
}

/// What somebody typed into the bar.
#[derive(Debug, Deserialize)]
pub struct Wanted {
    #[serde(default)]
    q: String,
}

/// Most results of a search.
const RESULTS: usize = 50;

/// Straight to what is named, or a list of what it may mean.
pub async fn jump(
    State(line): State<Arc<Line>>,
    Who(caller): Who,
    Path(project): Path<String>,
    Query(wanted): Query<Wanted>,
) -> Result<Response, Trouble> {
    let project = line.project(&project)?;
    let asked: String = wanted.q.trim().chars().take(200).collect();
    let found = find(&project, &asked);
    if let [(_, path, _)] = found.as_slice() {
        return Ok(Redirect::to(path).into_response());
    }
    let heading = match found.len() {
        0 => format!("Nothing is called “{asked}”"),
        n => format!("{} for “{asked}”", view::count(n, "place")),
    };
    let main = html! {
        (parts::head(&heading, "Changes by number, title or commit; releases, andons and runs by number; environments and flags by name.", html! {}))
        @if !found.is_empty() {
            section.sheet #found aria-label="Found" {
                ul.rows { @for (name, path, title) in &found { li { a.row href=(path) { b { (name) } span { (title) } } } } }
            }
        }
    };
    let frame = view::frame(&project.state(), project.name.as_str(), line.now());
    let sheet = Sheet { title: heading, entry: "none", frame, main };
    let live = format!("/{}/live?page=none", project.name);
    Ok(shell::document(&sheet, &caller, None, &live).into_response())
}

/// Name, path and title of what a text may mean.
fn find(project: &Project, asked: &str) -> Vec<(String, String, String)> {
    let (state, name) = (project.state(), &project.name);
    let mut found = Vec::new();
    let lower = asked.to_lowercase();
    let number = |prefix: &str| lower.strip_prefix(prefix).and_then(|rest| rest.trim().parse::<u32>().ok());
    if let Some(id) = number("#")
        .or_else(|| number(""))
        .map(andon_model::ChangeId)
        .filter(|id| state.queue.changes.contains_key(id))
    {
        let title = state.queue.changes[&id].push.title.clone();
        return vec![(id.to_string(), format!("/{name}/changes/{}", id.0), title)];
    }
    if let Some(id) = number("r").map(andon_model::ReleaseId).filter(|id| state.releases.get(*id).is_some()) {
        return vec![(id.to_string(), format!("/{name}/releases/{}", id.0), "release".into())];
    }
    if let Some(id) = number("a").map(andon_model::AndonId).filter(|id| state.cord.get(*id).is_some()) {
        return vec![(id.to_string(), format!("/{name}/andons/{}", id.0), "andon".into())];
    }
    if let Some(id) = number("run-")
        .or_else(|| number("run"))
        .map(andon_model::RunId)
        .filter(|id| state.runs.all.contains_key(id))
    {
        return vec![(id.to_string(), format!("/{name}/runs/{}", id.0), "run".into())];
    }
    if asked.is_empty() {
        return found;
    }
    for environment in
        state.estate.environments.keys().filter(|environment| environment.as_str().contains(&lower))
    {
        found.push((
            environment.to_string(),
            format!("/{name}/environments/{environment}"),
            "environment".into(),
        ));
    }
    for flag in state.flags.iter().filter(|flag| flag.key.to_lowercase().contains(&lower)) {
        found.push((flag.key.clone(), format!("/{name}/flags"), "flag".into()));
    }
    let meant = |change: &&andon_line::view::ChangeRow| {
        change.title.to_lowercase().contains(&lower)
            || (lower.len() >= 4 && lower.starts_with(&change.head) || change.head.starts_with(&lower))
    };
    let rows = state
        .queue
        .changes
        .values()
        .rev()
        .map(|change| view::queue::row(&state, change, andon_model::Time(0)));
    let rows: Vec<_> = rows.collect();
    found.extend(
        rows.iter()
            .filter(meant)
            .map(|row| (row.id.clone(), format!("/{name}/changes/{}", row.number), row.title.clone())),
    );
    found.truncate(RESULTS);
    found
}
