//! Databases and templates of a project, for terminal and programs. Shows no password and no address.

use std::collections::BTreeSet;

use andon_environment::data::{Database, Template};
use andon_model::{DatabaseName, EnvironmentName, Time};
use serde::{Deserialize, Serialize};

use super::{Frame, Mark, ago, frame};
use crate::{Line, Project, State};

/// All of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DataView {
    /// Over every page.
    pub frame: Frame,
    /// Databases of environments.
    pub databases: Vec<DatabaseRow>,
    /// What others are cloned from.
    pub templates: Vec<TemplateRow>,
}

/// A database.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DatabaseRow {
    /// Whether its last migrations went well.
    pub mark: Mark,
    /// Where.
    pub environment: String,
    /// Which.
    pub database: String,
    /// As PostgreSQL has it.
    pub name: String,
    /// What it was cloned from.
    pub template: Option<String>,
    /// How old that is, in words.
    #[serde(default)]
    pub cloned: Option<String>,
    /// Digest of its shape.
    pub schema: Option<String>,
    /// Migrations that ran, in order.
    pub migrations: Vec<String>,
    /// Why the last ones failed.
    pub failed: Option<String>,
}

/// A template.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TemplateRow {
    /// Whether there is one.
    pub mark: Mark,
    /// Of which database.
    pub database: String,
    /// As PostgreSQL has it.
    pub name: Option<String>,
    /// In a sentence.
    pub says: String,
}

/// Every database and template.
pub fn data(line: &Line, project: &Project) -> DataView {
    let (state, now) = (project.state(), line.now());
    let data = &state.estate.data;
    let all = data.databases.keys().map(|(environment, _)| environment);
    let rows = all.collect::<BTreeSet<_>>().into_iter().flat_map(|place| databases(&state, place, now));
    let templates = data.templates.iter().map(|(database, template)| {
        let (mark, says) = said(template, |then| ago(now, then));
        TemplateRow {
            mark,
            database: database.to_string(),
            name: template.sealed.as_ref().map(|(sealed, _)| sealed.name.clone()),
            says,
        }
    });
    DataView {
        databases: rows.collect(),
        templates: templates.collect(),
        frame: frame(&state, project.name.as_str(), now),
    }
}

/// The databases of an environment.
pub fn databases(state: &State, environment: &EnvironmentName, now: Time) -> Vec<DatabaseRow> {
    let data = &state.estate.data;
    let here = data.databases.iter().filter(|((place, _), _)| place == environment);
    let row = |((_, database), found): (&(EnvironmentName, DatabaseName), &Database)| {
        let last = data.last(environment);
        let failed = last.filter(|done| !done.ok).map(|done| done.why.clone());
        let sealed = data.templates.get(database).and_then(|template| template.sealed.as_ref());
        let cloned = found.template.as_ref().map(|from| match sealed {
            Some((sealed, at)) if &sealed.name == from => format!("a masked template made {}", ago(now, *at)),
            _ => "a masked template that was replaced since".to_owned(),
        });
        DatabaseRow {
            mark: if failed.is_some() { Mark::Stop } else { Mark::Go },
            environment: environment.to_string(),
            database: database.to_string(),
            name: found.name.clone(),
            template: found.template.clone(),
            cloned,
            schema: found.schema.as_ref().map(ToString::to_string),
            migrations: found.ran.iter().map(|ran| ran.name.clone()).collect(),
            failed,
        }
    };
    here.map(row).collect()
}

fn said(template: &Template, ago: impl Fn(andon_model::Time) -> String) -> (Mark, String) {
    match (&template.asked, &template.failed, &template.sealed) {
        (Some(from), ..) => (Mark::Live, format!("is being made from {from}")),
        (None, Some(why), _) => (Mark::Stop, format!("could not be made: {why}")),
        (None, None, Some((sealed, at))) => {
            (Mark::Go, format!("made from {} {} in {}", sealed.from, ago(*at), sealed.took))
        }
        (None, None, None) => (Mark::None, "was never made".into()),
    }
}
