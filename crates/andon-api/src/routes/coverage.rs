//! The coverage of a run: by folder, and a file with its marks.

use std::sync::Arc;

use andon_line::view::coverage::Sort;
use andon_line::view::{CoverageView, SourceView};
use andon_line::{Line, Project, Refusal};
use andon_model::RunId;
use andon_model::event::Role::Viewer;
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::routing::get;
use http::Method;
use serde::Deserialize;

use super::number;
use crate::answer::{Answer, Trouble};
use crate::door::Door;

/// The doors; `newest` in place of a run is the newest that landed.
pub(super) fn doors() -> Vec<Door> {
    vec![
        Door::new(Method::GET, "/api/v1/{project}/coverage/{run}", Viewer, get(coverage)),
        Door::new(Method::GET, "/api/v1/{project}/coverage/{run}/file", Viewer, get(file)),
    ]
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    #[serde(default)]
    folder: String,
    #[serde(default)]
    sort: Sort,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    path: String,
}

fn run_of(line: &Line, project: &Project, run: &str) -> Result<RunId, Trouble> {
    match run {
        "newest" => Ok(line.newest_coverage(project)?),
        run => number::<RunId>(run),
    }
}

async fn coverage(
    State(line): State<Arc<Line>>,
    Path((project, run)): Path<(String, String)>,
    Query(wanted): Query<Wanted>,
) -> Answer<CoverageView> {
    let project = line.project(&project)?;
    let run = run_of(&line, &project, &run)?;
    Ok(Json(line.coverage_view(&project, run, &wanted.folder, wanted.sort).await?))
}

async fn file(
    State(line): State<Arc<Line>>,
    Path((project, run)): Path<(String, String)>,
    Query(file): Query<File>,
) -> Answer<SourceView> {
    let project = line.project(&project)?;
    let run = run_of(&line, &project, &run)?;
    if file.path.len() > 4096 {
        return Err(Refusal::Unknown("no path is that long".into()).into());
    }
    Ok(Json(line.source_view(&project, run, &file.path).await?))
}
