//! Two environments against each other, as the page and the terminal show it.

use andon_environment::parity::{Parity, Picture, Row, Subject};
use andon_environment::{Environment, Exception, Serving};
use andon_flags::{Context, evaluate};
use andon_model::{EnvironmentName, Packages};
use andon_pipeline::Definition;
use serde::{Deserialize, Serialize};

use super::isolation::isolation;
use super::{Fact, Frame, Mark, count, fact, frame};
use crate::stations::environment::exceptions;
use crate::{Line, Project, Refusal, State};

/// The page of a comparison.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ParityView {
    /// Over every page.
    pub frame: Frame,
    /// The answer.
    pub heading: String,
    /// What was compared.
    pub sentence: String,
    /// The first environment.
    pub here: String,
    /// The second.
    pub there: String,
    /// Hundredths of what is alike or may differ.
    pub percent: u8,
    /// Numbers.
    pub facts: Vec<Fact>,
    /// What differs: first what nothing allows.
    pub rows: Vec<ParityRow>,
}

/// A difference.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ParityRow {
    /// Whether it may.
    pub mark: Mark,
    /// What it is about: `limits`, `version`.
    pub subject: String,
    /// Which of them.
    pub what: String,
    /// In the first environment.
    pub here: String,
    /// In the second.
    pub there: String,
    /// Why it may differ and until when.
    pub allowed: Option<String>,
}

/// Compares two environments as they are.
pub fn parity(
    line: &Line,
    project: &Project,
    here: &EnvironmentName,
    there: &EnvironmentName,
) -> Result<ParityView, Refusal> {
    let (state, now) = (project.state(), line.now());
    let parity = between(project, &state, here, there, now)?;
    let unexplained = parity.unexplained().count();
    let heading = match (parity.differences.len(), unexplained) {
        (0, _) => format!("{here} and {there} are alike"),
        (_, 0) => format!("{here} and {there} differ only where they may"),
        (_, n) => format!("{here} and {there} differ in {}", count(n, "thing")),
    };
    let mut rows: Vec<ParityRow> = parity.differences.iter().map(row).collect();
    rows.sort_by_key(|row| row.allowed.is_some());
    let facts = vec![
        Fact {
            mark: if unexplained == 0 { Mark::Go } else { Mark::Wait },
            ..fact(format!("{} %", parity.percent()), "parity")
        },
        fact(parity.alike.to_string(), "alike"),
        fact(unexplained.to_string(), "differ without a reason"),
        fact((parity.differences.len() - unexplained).to_string(), "differ for a reason"),
    ];
    Ok(ParityView {
        frame: frame(&state, project.name.as_str(), now),
        heading,
        sentence: "Versions, names of variables, shapes, limits, isolation, infrastructure, packages, tables and flags of everything that serves.".into(),
        here: here.to_string(),
        there: there.to_string(),
        percent: parity.percent(),
        facts,
        rows,
    })
}

/// The environment that one is measured by: what a change passes before it, else the one it is like.
pub fn model(project: &Project, state: &State, name: &EnvironmentName) -> Option<EnvironmentName> {
    let definition = project.known_definition(state)?;
    let place = definition.environments.get_index_of(name);
    let before = place.and_then(|place| definition.environments.get_index(place.checked_sub(1)?));
    let before = before.map(|(before, _)| before.clone());
    let found = before.or_else(|| state.estate.environments.get(name)?.like.clone())?;
    state.estate.environments.contains_key(&found).then_some(found)
}

/// The comparison itself, with the exceptions of both.
pub fn between(
    project: &Project,
    state: &State,
    here: &EnvironmentName,
    there: &EnvironmentName,
    now: andon_model::Time,
) -> Result<Parity, Refusal> {
    let (one, other) = (picture(project, state, here, now)?, picture(project, state, there, now)?);
    let definition = project.known_definition(state);
    let allowed = definition.map(|definition| differs(&definition, &[here, there])).unwrap_or_default();
    let mut found = Parity::between(&one, &other, &allowed, now);
    name_packages(project, &mut found);
    Ok(found)
}

/// Says of differing packages which they are.
pub(crate) fn name_packages(project: &Project, parity: &mut Parity) {
    /// A text of more bytes is not one of packages.
    const LARGEST: u64 = 8 << 20;
    let differ = parity.differences.iter().filter(|row| row.subject == Subject::Packages);
    let digests = differ.flat_map(|row| [row.here.clone(), row.there.clone()]).flatten();
    let known = digests.filter_map(|said| {
        let bytes = project.blobs.read(&said.parse().ok()?, LARGEST).ok()?;
        Some((said, Packages::read(&String::from_utf8_lossy(&bytes))))
    });
    let known = known.collect();
    parity.name_packages(&known);
}

/// What may differ between these, as the file says of each.
pub(crate) fn differs(definition: &Definition, names: &[&EnvironmentName]) -> Vec<Exception> {
    let of = |name: &&EnvironmentName| definition.resolve(name).map(|found| exceptions(&found.rules.differs));
    names.iter().filter_map(of).flatten().collect()
}

/// Everything that is known of an environment.
pub(crate) fn picture(
    project: &Project,
    state: &State,
    name: &EnvironmentName,
    now: andon_model::Time,
) -> Result<Picture, Refusal> {
    let environment: &Environment = state.estate.environments.get(name).ok_or_else(|| {
        Refusal::Unknown(format!(
            "there is no environment {name}\nhint: `andon env list` shows those there are"
        ))
    })?;
    let stable = |serving: &Serving| state.estate.of_revision(name, serving.stable.as_ref()?);
    let mut picture = Picture::of(environment, stable);
    let kinds = environment.serving.values().filter_map(stable).map(|deployment| deployment.runtime);
    for kind in kinds.collect::<std::collections::BTreeSet<_>>() {
        let isolation = isolation(project, state, name, kind);
        for has in isolation.has {
            picture.add(Subject::Isolation, has, "in force");
        }
        for (lacks, why) in isolation.lacks {
            picture.add(Subject::Isolation, lacks, format!("lacking: {why}"));
        }
    }
    // To somebody of whom nothing is known but where they are: rules that name the environment show here.
    let context = Context::default().with("environment", name.as_str());
    for flag in state.flags.iter() {
        let said = evaluate(&state.flags, &flag.key, &context, now);
        let value = said.variant.map_or_else(|| "what the code says".to_owned(), str::to_owned);
        picture.add(Subject::Flags, flag.key.clone(), value);
    }
    for ((_, service), packages) in state.estate.packages.iter().filter(|((place, _), _)| place == name) {
        if environment.serving.contains_key(service) {
            picture.add(Subject::Packages, service.to_string(), packages.to_string());
        }
    }
    let databases = state.estate.data.databases.iter().filter(|((place, _), _)| place == name);
    for ((_, database), found) in databases {
        let shape = found.schema.as_ref().map_or_else(|| "not known".to_owned(), ToString::to_string);
        picture.add(Subject::Schema, database.to_string(), shape);
    }
    Ok(picture)
}

fn row(row: &Row) -> ParityRow {
    let said = |value: &Option<String>| value.clone().unwrap_or_else(|| "–".into());
    let ends = |e: &andon_environment::Exception| {
        format!("{}, until {}", e.why, e.until.rfc3339().get(..10).unwrap_or_default())
    };
    ParityRow {
        mark: if row.allowed.is_some() { Mark::None } else { Mark::Wait },
        subject: row.subject.word().to_owned(),
        what: row.what.clone(),
        here: said(&row.here),
        there: said(&row.there),
        allowed: row.allowed.as_ref().map(ends),
    }
}
