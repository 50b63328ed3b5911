//! The wall: the line with the changes on it, services by environments, flow, what happened last.

use std::collections::BTreeSet;

use andon_environment::{DeploymentState, Serving};
use andon_flow::summary::Window;
use andon_model::{EnvironmentName, ServiceName, Span, Time};
use serde::{Deserialize, Serialize};

use super::flow::metrics;
use super::queue::{row, since};
use super::{Fact, Frame, Mark, Moment, ago, frame, moments};
use crate::stations::routes;
use crate::words::percent;
use crate::{Line, Project, State};

/// The page of the wall.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WallView {
    /// Over every page.
    pub frame: Frame,
    /// The answer.
    pub heading: String,
    /// Since when, what follows by itself.
    pub sentence: String,
    /// Stations, left to right.
    pub stations: Vec<Station>,
    /// Environments, in the order in which a change passes.
    pub environments: Vec<String>,
    /// One row a service.
    pub services: Vec<ServiceRow>,
    /// The metrics of the last 30 days.
    pub flow: Vec<Fact>,
    /// What happened, newest first.
    pub feed: Vec<Moment>,
}

/// A station of the line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Station {
    /// Its name.
    pub name: String,
    /// Something is under way there.
    pub busy: bool,
    /// Changes and revisions at it.
    pub cars: Vec<Car>,
}

/// A change or revision on the line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Car {
    /// Where more of it is shown: a path below the project.
    pub link: String,
    /// `#12` or a commit.
    pub label: String,
    /// What it is.
    pub title: String,
    /// Its state.
    pub mark: Mark,
    /// The same in words; what it waits for.
    pub words: String,
    /// How far it is, in percent.
    pub progress: Option<u8>,
}

/// A service over all environments.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceRow {
    /// Its name.
    pub name: String,
    /// `4 instances`.
    pub instances: String,
    /// One cell an environment.
    pub cells: Vec<Cell>,
    /// Errors and p95 in production, lately; none without requests.
    pub signals: Option<(String, String)>,
}

/// A service in an environment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// Its state.
    pub mark: Mark,
    /// `51b0aa2`, or `51b0aa2 → 9c41d7e` while users move.
    pub version: String,
    /// What is going on.
    pub words: String,
    /// Basis points of users on the new revision, while they move.
    pub split: Option<u16>,
    /// Its page: a path below the project.
    pub link: String,
}

/// The view at this moment.
pub fn wall(line: &Line, project: &Project) -> WallView {
    let (state, now) = (project.state(), line.now());
    let environments = order(project, &state);
    let andon = state.cord.open().next();
    let heading = match andon {
        None => "The line is green".to_owned(),
        Some(andon) => format!("The line is stopped: {}", andon.why),
    };
    let last = state.queue.landed.last().and_then(|id| state.queue.changes.get(id));
    let sentence = match (andon, last) {
        (Some(andon), _) => {
            let owner =
                andon.owner.as_ref().map_or("nobody has it yet".into(), |owner| format!("{owner} has it"));
            format!("{} for {}, {owner}. Only what names {} lands.", andon.id, andon.red_for(now), andon.id)
        }
        (None, Some(last)) => {
            format!(
                "Last landing {}: {} {}. Any change on {} can be released now.",
                ago(now, since(last)),
                last.id,
                last.push.title,
                state.trunk
            )
        }
        (None, None) => format!("Nothing has landed yet. git push andon HEAD:refs/for/{}", state.trunk),
    };
    let names: BTreeSet<&ServiceName> = state
        .estate
        .environments
        .values()
        .flat_map(|e| e.serving.keys())
        .chain(state.estate.deployments.values().flat_map(|d| d.services.iter().map(|s| &s.name)))
        .collect();
    let services =
        names.into_iter().map(|name| service(line, project, &state, name, &environments)).collect();
    WallView {
        frame: frame(&state, project.name.as_str(), now),
        heading,
        sentence,
        stations: stations(&state, &environments, now),
        environments: environments.iter().map(ToString::to_string).collect(),
        services,
        flow: metrics(&state.flow.summary(&month(&state, now), now)),
        feed: moments(state.feed.iter(), 14),
    }
}

/// The last 30 days, or as long as the project is there.
pub fn month(state: &State, now: Time) -> Window {
    let production = "production".parse().unwrap_or_else(|_| unreachable!("a constant name"));
    Window { from: (now - Span::secs(30 * 86_400)).max(state.created), to: now, production }
}
/// Environments in the order of `andon.yaml`, others after them.
pub fn order(project: &Project, state: &State) -> Vec<EnvironmentName> {
    let declared = project
        .known_definition(state)
        .map(|d| d.environments.keys().cloned().collect::<Vec<_>>())
        .unwrap_or_default();
    let others = state.estate.environments.keys().filter(|name| !declared.contains(name)).cloned();
    declared
        .iter()
        .filter(|name| state.estate.environments.contains_key(*name))
        .cloned()
        .chain(others)
        .collect()
}

/// Environments that a landed change passes: those declared, whether they exist yet or not.
pub fn places(project: &Project, state: &State) -> Vec<EnvironmentName> {
    match project.known_definition(state) {
        Some(definition) => definition.environments.keys().cloned().collect(),
        None => state.estate.environments.values().filter(|e| e.standing).map(|e| e.name.clone()).collect(),
    }
}

fn stations(state: &State, environments: &[EnvironmentName], now: Time) -> Vec<Station> {
    let rows: Vec<_> = state.queue.open().map(|change| row(state, change, now)).collect();
    let car = |row: &super::ChangeRow| Car {
        link: format!("changes/{}", row.number),
        label: row.id.clone(),
        title: row.title.clone(),
        mark: row.mark,
        words: row.words.clone(),
        progress: row.progress,
    };
    let of = |wanted: bool| {
        rows.iter().filter(|row| (row.standing == "testing") == wanted).take(5).map(car).collect()
    };
    let (waiting, testing): (Vec<Car>, Vec<Car>) = (of(false), of(true));
    let artifact = state.estate.landings.iter().rev().find(|l| l.artifact.is_some()).map(|landing| {
        let run = state.runs.all.get(&landing.run);
        let covered = run
            .and_then(|run| run.coverage)
            .map(|c| format!("{:.1} % covered, ", c.percent()))
            .unwrap_or_default();
        let digest = landing.artifact.as_ref().map(|d| d.short().to_owned()).unwrap_or_default();
        Car {
            link: format!("runs/{}", landing.run.0),
            label: landing.commit.short().to_owned(),
            title: String::new(),
            mark: Mark::Go,
            words: format!("{covered}{digest}"),
            progress: None,
        }
    });
    let mut stations = vec![
        Station { name: "Gate".into(), busy: !waiting.is_empty(), cars: waiting },
        Station { name: "Tests".into(), busy: !testing.is_empty(), cars: testing },
        Station { name: "Artifact".into(), busy: false, cars: artifact.into_iter().collect() },
    ];
    for name in environments {
        let standing = state.estate.environments.get(name).is_some_and(|e| e.standing);
        if standing {
            stations.push(environment_station(state, name));
        }
    }
    stations
}

fn environment_station(state: &State, name: &EnvironmentName) -> Station {
    let mut cars = Vec::new();
    let mut busy = false;
    if let Some(deployment) = shown(state, name) {
        let (mark, words) = deployment_words(state, deployment);
        busy = mark == Mark::Live;
        cars.push(Car {
            link: format!("environments/{name}"),
            label: deployment.commit.short().to_owned(),
            title: deployment.changes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
            mark,
            words,
            progress: None,
        });
    }
    let mut title = name.to_string();
    if let Some(first) = title.get_mut(0..1) {
        first.make_ascii_uppercase();
    }
    Station { name: title, busy, cars }
}

/// The deployment that says how an environment stands: the newest, or after a way back the one that serves.
pub(super) fn shown<'a>(
    state: &'a State,
    name: &EnvironmentName,
) -> Option<&'a andon_environment::Deployment> {
    let mut here = state.estate.deployments.values().rev().filter(|d| &d.environment == name);
    let newest = here.next();
    let tells = newest.filter(|d| !matches!(d.state, DeploymentState::Released { .. }) || serves(state, d));
    tells.or_else(|| here.find(|d| serves(state, d))).or(newest)
}

/// Whether users of a service are on it.
pub(super) fn serves(state: &State, deployment: &andon_environment::Deployment) -> bool {
    let place = state.estate.environments.get(&deployment.environment);
    let stable = place
        .into_iter()
        .flat_map(|place| place.serving.values())
        .filter_map(|serving| serving.stable.as_ref());
    let mut commits = stable.map(|revision| revision.commit());
    // Nothing is known to serve while a service is being made anew: the deployment's own state stands then.
    place.is_none_or(|place| place.serving.is_empty())
        || commits.any(|commit| commit == deployment.commit.short())
}

/// Whether a later deployment was released here before users came back to this one.
fn gone_back(state: &State, deployment: &andon_environment::Deployment) -> bool {
    let later = state
        .estate
        .deployments
        .values()
        .filter(|d| d.environment == deployment.environment && d.id > deployment.id);
    later.into_iter().any(|d| matches!(d.state, DeploymentState::Released { .. }) && !serves(state, d))
}

/// How far a deployment is, in words.
pub fn deployment_words(state: &State, deployment: &andon_environment::Deployment) -> (Mark, String) {
    let releasing = state.releases.under_way().find(|r| r.deployment == deployment.id);
    match (&deployment.state, releasing) {
        (_, Some(release)) => {
            (Mark::Live, format!("{} {} % of users", release.strategy.kind(), percent(release.weight_bp)))
        }
        (DeploymentState::Starting, _) => (Mark::Live, "starting beside what serves".into()),
        (DeploymentState::Up, _) => (Mark::Live, "up, being tested".into()),
        (DeploymentState::Ready, _) => (Mark::Wait, "tested, waits for its release".into()),
        (DeploymentState::Released { .. }, _) if !serves(state, deployment) => {
            (Mark::None, "serves nobody any more".into())
        }
        (DeploymentState::Released { .. }, _) if gone_back(state, deployment) => {
            (Mark::Go, "everyone is back on it".into())
        }
        (DeploymentState::Released { at }, _) => (Mark::Go, format!("everyone has it since {}", at.hh_mm())),
        (DeploymentState::Failed { why }, _) => {
            (Mark::Stop, why.lines().next().unwrap_or_default().to_owned())
        }
        (DeploymentState::Superseded, _) => (Mark::None, "superseded".into()),
    }
}

fn service(
    line: &Line,
    project: &Project,
    state: &State,
    name: &ServiceName,
    environments: &[EnvironmentName],
) -> ServiceRow {
    let running =
        state.estate.instances.values().filter(|i| &i.service == name && i.retired.is_none()).count();
    let cells = environments.iter().map(|environment| cell(state, environment, name)).collect();
    let production = environments.iter().find(|e| e.as_str() == "production");
    ServiceRow {
        name: name.to_string(),
        instances: super::count(running, "instance"),
        cells,
        signals: production.and_then(|environment| signals(line, project, environment, name)),
    }
}

fn cell(state: &State, environment: &EnvironmentName, service: &ServiceName) -> Cell {
    let link = format!("environments/{environment}");
    let place = state.estate.environments.get(environment);
    let serving = place.and_then(|place| place.serving.get(service)).cloned().unwrap_or_default();
    let drift =
        place.and_then(|place| place.drifts.iter().find(|(_, d)| d.service.as_ref() == Some(service)));
    let tainted = place.filter(|place| place.tainted.is_some()).map(super::environment::tainted);
    match serving {
        Serving { stable: Some(stable), incoming: Some(incoming), .. } => Cell {
            mark: Mark::Live,
            version: format!("{} → {}", stable.commit(), incoming.revision.commit()),
            words: format!("{} % on the new one", percent(incoming.basis_points)),
            split: Some(incoming.basis_points),
            link: format!("releases/{}", incoming.release.0),
        },
        Serving { stable: Some(stable), .. } => Cell {
            mark: if drift.is_some() || tainted.is_some() { Mark::Wait } else { Mark::Go },
            version: stable.commit().to_owned(),
            words: drift
                .map(|(_, drift)| format!("drift: {}, healing", drift.what))
                .or(tainted)
                .unwrap_or_default(),
            split: None,
            link,
        },
        Serving { incoming: Some(incoming), .. } => Cell {
            mark: Mark::Live,
            version: incoming.revision.commit().to_owned(),
            words: "first release".into(),
            split: None,
            link,
        },
        _ => Cell { mark: Mark::None, version: "not here".into(), words: String::new(), split: None, link },
    }
}

/// Errors and p95 of a service, as the router saw them lately.
pub fn signals(
    line: &Line,
    project: &Project,
    environment: &EnvironmentName,
    service: &ServiceName,
) -> Option<(String, String)> {
    let key = routes::key(&project.name, environment, service);
    let all = line.signals();
    let newest = all.iter().rev().find(|signals| signals.service == key)?;
    let (requests, errors) =
        newest.arms.iter().fold((0, 0), |(r, e), arm| (r + arm.requests, e + arm.errors));
    let p95 = newest.arms.iter().map(|arm| arm.latency.p95_us).max().unwrap_or(0);
    (requests > 0).then(|| {
        (
            format!("{:.2} %", errors as f64 * 100.0 / requests as f64),
            format!("{:.1} ms", p95 as f64 / 1000.0),
        )
    })
}
