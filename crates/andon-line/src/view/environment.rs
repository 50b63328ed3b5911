//! Environments: what serves in each, its instances, its deployments, its drift.

use andon_environment::promote::Refused;
use andon_environment::{Environment, Instance};
use andon_model::{EnvironmentName, ServiceName, Span, Time};
use serde::{Deserialize, Serialize};

use super::data::{DatabaseRow, databases};
use super::isolation::isolation;
use super::parity::{between, model};
use super::shells::{self, ShellRow};
use super::wall::{deployment_words, order, shown, signals};
use super::{Fact, Frame, Mark, Moment, ago, count, fact, frame, moments};
use crate::stations::environment::waits::waits_for;
use crate::stations::routes;
use crate::{Line, Project, Refusal, State};

/// Deployments that the page shows.
const DEPLOYMENTS: usize = 20;
/// Shells that the page shows.
const SHELLS: usize = 20;

/// The page of all environments.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EnvironmentsView {
    /// Over every page.
    pub frame: Frame,
    /// The answer.
    pub heading: String,
    /// What they are.
    pub sentence: String,
    /// In the order in which a change passes.
    pub rows: Vec<EnvironmentRow>,
}

/// An environment in a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EnvironmentRow {
    /// Its name.
    pub name: String,
    /// Its state.
    pub mark: Mark,
    /// The same in words.
    pub words: String,
    /// The environment that it is like.
    pub like: Option<String>,
    /// Declared in `andon.yaml`.
    pub standing: bool,
    /// Commit that serves, by service.
    pub serving: Vec<(String, String)>,
    /// Instances that run.
    pub instances: usize,
    /// Differences from code.
    pub drifts: usize,
    /// When it ends by itself.
    pub expires: Option<Time>,
    /// The change that it shows.
    pub change: Option<u32>,
    /// Hundredths that are alike in the environment it is measured by, and which that is.
    pub parity: Option<(u8, String)>,
}

/// The page of an environment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EnvironmentView {
    /// Over every page.
    pub frame: Frame,
    /// The answer.
    pub heading: String,
    /// Since when, until when.
    pub sentence: String,
    /// As in the list.
    pub row: EnvironmentRow,
    /// Numbers.
    pub facts: Vec<Fact>,
    /// Services.
    pub services: Vec<ServicePlace>,
    /// Deployments, newest first.
    pub deployments: Vec<DeploymentRow>,
    /// Differences from code that are not healed yet.
    pub drifts: Vec<DriftRow>,
    /// Nothing is deployed into it.
    pub held: bool,
    /// What is out of the ordinary: held, asleep, tainted, scaled; each in a sentence.
    pub notes: Vec<String>,
    /// Services whose number of instances a person chose, and the number.
    #[serde(default)]
    pub scaled: Vec<(String, u32)>,
    /// What separates its instances from the rest of the host.
    pub isolated_by: Vec<String>,
    /// What does not, with the reason.
    pub not_isolated_by: Vec<(String, String)>,
    /// There are other hosts than the server's own: the host of each instance is worth a word.
    #[serde(default)]
    pub several_hosts: bool,
    /// Its databases.
    #[serde(default)]
    pub databases: Vec<DatabaseRow>,
    /// Shells that people opened inside its instances, newest first.
    #[serde(default)]
    pub shells: Vec<ShellRow>,
    /// What happened, newest first.
    pub timeline: Vec<Moment>,
}

/// A service in an environment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServicePlace {
    /// Its name.
    pub name: String,
    /// Where users reach it.
    pub address: String,
    /// The revision that serves.
    pub revision: Option<String>,
    /// The one before, kept for the way back.
    pub previous: Option<String>,
    /// Errors and p95 lately.
    pub signals: Option<(String, String)>,
    /// Running copies.
    pub instances: Vec<InstanceRow>,
}

/// A running copy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InstanceRow {
    /// `i5`.
    pub id: String,
    /// Of which revision.
    pub revision: String,
    /// Its state.
    pub mark: Mark,
    /// The same in words.
    pub words: String,
    /// Where it listens.
    pub address: String,
    /// The host that runs it; none: the server's own.
    #[serde(default)]
    pub host: Option<String>,
}

/// A deployment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeploymentRow {
    /// `D7`.
    pub id: String,
    /// Its commit, short.
    pub commit: String,
    /// Its artifact.
    pub artifact: String,
    /// Changes that were new with it.
    pub changes: Vec<u32>,
    /// Its state.
    pub mark: Mark,
    /// The same in words.
    pub words: String,
    /// What the environment's tests said.
    pub tested: Option<(bool, String)>,
    /// When it began.
    pub started: Time,
}

/// A difference from code.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DriftRow {
    /// Since when.
    pub since: Time,
    /// What differs.
    pub what: String,
    /// As code says.
    pub before: String,
    /// As found.
    pub after: String,
}

/// All environments at this moment.
pub fn environments(project: &Project, now: Time) -> EnvironmentsView {
    let state = project.state();
    let names = order(project, &state);
    let rows: Vec<EnvironmentRow> = names
        .iter()
        .filter_map(|name| state.estate.environments.get(name))
        .map(|e| row(project, &state, e, now))
        .collect();
    let drifting = rows.iter().filter(|row| row.drifts > 0).count();
    let heading = match (rows.len(), drifting) {
        (0, _) => "There is no environment yet".to_owned(),
        (n, 0) => format!("{}, all equal to code", count(n, "environment")),
        (n, drifting) => format!("{drifting} of {} differ from code", count(n, "environment")),
    };
    EnvironmentsView {
        frame: frame(&state, project.name.as_str(), now),
        heading,
        sentence: "Created from code, rebuilt rather than repaired. A manual change is shown and healed."
            .into(),
        rows,
    }
}

fn row(project: &Project, state: &State, environment: &Environment, now: Time) -> EnvironmentRow {
    let newest = shown(state, &environment.name);
    let (mark, words) = match (environment.destroying, environment.drifts.first(), newest) {
        (Some(_), ..) => (Mark::Live, "is being rebuilt from code".into()),
        (None, Some((since, drift)), _) => {
            (Mark::Wait, format!("{} differs from code for {}, healing", drift.what, now.since(*since)))
        }
        (None, None, _) if environment.tainted.is_some() => (Mark::Wait, tainted(environment)),
        (None, None, _) if environment.asleep.is_some() => {
            (Mark::None, "sleeps; the first request wakes it".into())
        }
        (None, None, Some(deployment)) => deployment_words(state, deployment),
        (None, None, None) => (Mark::Wait, "waits for its first artifact".into()),
    };
    EnvironmentRow {
        name: environment.name.to_string(),
        mark,
        words,
        like: environment.like.as_ref().map(ToString::to_string),
        standing: environment.standing,
        serving: environment
            .serving
            .iter()
            .filter_map(|(service, serving)| {
                Some((service.to_string(), serving.stable.as_ref()?.commit().to_owned()))
            })
            .collect(),
        instances: state
            .estate
            .instances_in(&environment.name)
            .filter(|i| i.retired.is_none() && i.healthy.is_some())
            .count(),
        drifts: environment.drifts.len(),
        expires: environment.expires,
        change: environment.change.map(|change| change.0),
        parity: model(project, state, &environment.name).and_then(|model| {
            let parity = between(project, state, &environment.name, &model, now).ok()?;
            Some((parity.percent(), model.to_string()))
        }),
    }
}

/// `tainted by ann: the queue hangs; rebuild it`.
pub(super) fn tainted(environment: &Environment) -> String {
    environment.tainted.as_ref().map(|taint| format!("{taint}; rebuild it")).unwrap_or_default()
}

/// What is out of the ordinary.
fn notes(environment: &Environment, now: Time) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(taint) = &environment.tainted {
        let since = now.since(taint.since);
        notes.push(format!(
            "For {since} {taint}. Nothing is promoted into it or out of it until it is rebuilt: andon env rebuild {}",
            environment.name
        ));
    }
    if let Some((since, why)) = &environment.held {
        notes.push(format!("Takes no deployments for {}: {why}.", now.since(*since)));
    }
    if let Some(since) = environment.asleep {
        notes.push(format!("Asleep for {}: the first request wakes it.", now.since(since)));
    }
    for (service, replicas) in &environment.scaled {
        notes.push(format!("{service} runs {replicas} times because a person said so, not code."));
    }
    notes
}

/// One environment at this moment.
pub fn environment(
    line: &Line,
    project: &Project,
    name: &EnvironmentName,
) -> Result<EnvironmentView, Refusal> {
    let (state, now) = (project.state(), line.now());
    let found = state.estate.environments.get(name);
    let found = found.ok_or_else(|| {
        Refusal::Unknown(format!(
            "there is no environment {name}\nhint: `andon env list` shows those there are"
        ))
    })?;
    let row = row(project, &state, found, now);
    let until = match found.expires {
        Some(end) => format!("It ends by itself in {}.", Span((end.0 - now.0).max(0) as u64)),
        None => "It stays.".to_owned(),
    };
    let like = found.like.as_ref().map(|like| format!(" like {like}")).unwrap_or_default();
    let here = state.estate.deployments.values().rev().filter(|d| d.environment == *name);
    let deployments: Vec<DeploymentRow> = here
        .clone()
        .take(DEPLOYMENTS)
        .map(|d| {
            let (mark, words) = deployment_words(&state, d);
            DeploymentRow {
                id: d.id.to_string(),
                commit: d.commit.short().to_owned(),
                artifact: d.artifact.to_string(),
                changes: d.changes.iter().map(|change| change.0).collect(),
                mark,
                words,
                tested: d.tested.clone(),
                started: d.started,
            }
        })
        .collect();
    let facts = vec![
        fact(row.instances.to_string(), "healthy instances"),
        fact(here.count().to_string(), "deployments"),
        Fact {
            mark: if row.drifts == 0 { Mark::Go } else { Mark::Wait },
            ..fact(row.drifts.to_string(), "differences from code")
        },
        fact(found.heals.len().to_string(), "healed so far"),
    ];
    let runtime = state.estate.newest(name).map(|d| d.runtime).unwrap_or_default();
    let isolation = isolation(project, &state, name, runtime);
    let about = |event: &&andon_model::Recorded| concerns(&state, name, event);
    Ok(EnvironmentView {
        frame: frame(&state, project.name.as_str(), now),
        heading: format!("{name}: {}", row.words),
        sentence: format!("Created{like} from code {}. {until}", ago(now, found.created)),
        facts,
        services: services(line, project, &state, found, now),
        deployments,
        drifts: found
            .drifts
            .iter()
            .map(|(since, d)| DriftRow {
                since: *since,
                what: d.what.clone(),
                before: d.before.clone(),
                after: d.after.clone(),
            })
            .collect(),
        held: found.held.is_some(),
        notes: {
            let mut notes = notes(found, now);
            // A hand in it, and a hold, are told above already.
            let told = found.tainted.is_some() || found.held.is_some();
            let waits = waits_for(project, &state, name, now).filter(|_| found.standing && !told);
            notes.extend(
                waits.map(|Refused { why, hint }| format!("The newest change waits: {why}. To do: {hint}.")),
            );
            notes
        },
        scaled: found.scaled.iter().map(|(service, replicas)| (service.to_string(), *replicas)).collect(),
        several_hosts: !line.hosts().joined.is_empty(),
        isolated_by: isolation.has,
        not_isolated_by: isolation.lacks,
        databases: databases(&state, name, now),
        shells: state.estate.shells.of(name).take(SHELLS).map(|shell| shells::row(shell, now)).collect(),
        timeline: moments(state.feed.iter().filter(about), 60),
        row,
    })
}

fn services(
    line: &Line,
    project: &Project,
    state: &State,
    environment: &Environment,
    now: Time,
) -> Vec<ServicePlace> {
    let mut names: Vec<&ServiceName> = environment.serving.keys().collect();
    names.extend(state.estate.instances_in(&environment.name).map(|i| &i.service));
    names.sort();
    names.dedup();
    let port = line.settings.router.port();
    names
        .into_iter()
        .map(|name| {
            let serving = environment.serving.get(name).cloned().unwrap_or_default();
            let of_it = state.estate.instances_in(&environment.name).filter(|i| &i.service == name);
            ServicePlace {
                name: name.to_string(),
                address: format!("http://{}:{port}", routes::host(&project.name, &environment.name, name)),
                revision: serving.stable.as_ref().map(|revision| revision.commit().to_owned()),
                previous: serving.previous.as_ref().map(|revision| revision.commit().to_owned()),
                signals: signals(line, project, &environment.name, name),
                instances: of_it.map(|instance| instance_row(instance, now)).collect(),
            }
        })
        .collect()
}

fn instance_row(instance: &Instance, now: Time) -> InstanceRow {
    let (mark, words) = match (&instance.retired, instance.healthy) {
        (Some((at, why)), _) => (Mark::None, format!("leaving for {}: {why}", now.since(*at))),
        (None, Some(since)) => (Mark::Go, format!("healthy for {}", now.since(since))),
        (None, None) => (Mark::Live, format!("starting for {}", now.since(instance.planned))),
    };
    InstanceRow {
        id: instance.id.to_string(),
        revision: instance.revision.commit().to_owned(),
        mark,
        words,
        address: instance.address.to_string(),
        host: instance.host.as_ref().map(ToString::to_string),
    }
}

fn concerns(state: &State, name: &EnvironmentName, recorded: &andon_model::Recorded) -> bool {
    use andon_model::Event as E;
    match &recorded.event {
        E::EnvironmentCreated { environment, .. }
        | E::EnvironmentDestroyed { environment, .. }
        | E::EnvironmentExtended { environment, .. }
        | E::ExpiryNear { environment, .. }
        | E::ServiceScaled { environment, .. }
        | E::EnvironmentHeld { environment, .. }
        | E::EnvironmentAsleep { environment, .. }
        | E::EnvironmentTainted { environment, .. }
        | E::ShellOpened { environment, .. }
        | E::PackagesSeen { environment, .. }
        | E::DriftSeen { environment, .. }
        | E::DriftHealed { environment, .. }
        | E::DeploymentStarted { environment, .. }
        | E::EnvironmentTested { environment, .. }
        | E::ReleaseStarted { environment, .. } => environment == name,
        E::ShellEnded { shell, .. } => {
            state.estate.shells.all.get(shell).is_some_and(|shell| shell.environment == *name)
        }
        E::DeploymentFinished { deployment, .. } => {
            state.estate.deployments.get(deployment).is_some_and(|d| d.environment == *name)
        }
        E::ReleaseFinished { release, .. } | E::WeightChanged { release, .. } => {
            state.releases.get(*release).is_some_and(|r| r.environment == *name)
        }
        E::InstanceRetired { instance, .. } => {
            state.estate.instances.get(instance).is_some_and(|i| i.environment == *name)
        }
        _ => false,
    }
}
