//! The route table of all projects, computed from what is recorded. Sends no traffic; the router does.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};

use andon_environment::{Environment, Estate};
use andon_model::event::{Event, Revision};
use andon_model::strategy::{Asked, Methods, Strategy};
use andon_model::{EnvironmentName, ProjectName, ServiceName, Spoken};
use andon_release::Release;
use andon_release::sample::REACHED;
use andon_traffic::{Arm, By, Candidate, Forced, Mirror, Plane, Protocol, Route, RouteTable, ServiceSignals};

use crate::{Line, Refusal, State};

const _: () = assert!(REACHED.len() == 3, "the router and the analysis count the same levels of errors");

/// The router's name of a service.
pub fn key(project: &ProjectName, environment: &EnvironmentName, service: &ServiceName) -> String {
    format!("{project}/{environment}/{service}")
}

/// The name under which users always reach a service.
pub fn host(project: &ProjectName, environment: &EnvironmentName, service: &ServiceName) -> String {
    format!("{service}.{environment}.{project}.localhost")
}

/// The routes of one project.
pub fn routes(project: &ProjectName, state: &State) -> Vec<Route> {
    let mut routes = Vec::new();
    for environment in state.estate.environments.values() {
        for (service, serving) in &environment.serving {
            let release = state.releases.of(&environment.name, service);
            let everyone = serving.incoming.as_ref().filter(|incoming| incoming.basis_points == 10_000);
            let Some(stable) = serving.stable.as_ref().or(everyone.map(|incoming| &incoming.revision)) else {
                continue;
            };
            routes.push(route(project, state, environment, service, stable, release));
        }
    }
    routes
}

fn route(
    project: &ProjectName,
    state: &State,
    environment: &Environment,
    service: &ServiceName,
    stable: &Revision,
    release: Option<&Release>,
) -> Route {
    let estate = &state.estate;
    let mut hosts = vec![host(project, &environment.name, service)];
    let planned = estate.of_revision(&environment.name, stable).and_then(|d| d.service(service));
    hosts.extend(planned.iter().flat_map(|service| service.hosts.clone()));
    let mut backends = HashMap::new();
    backends.insert(stable.clone(), addresses(estate, &environment.name, service, stable));
    let protocol = match planned.map(|service| service.protocol) {
        Some(Spoken::Http2) => Protocol::Http2,
        _ => Protocol::Http1,
    };
    let mut made = Route {
        hosts,
        service: key(project, &environment.name, service),
        stable: stable.clone(),
        candidate: None,
        mirror: None,
        backends,
        epoch: state.epochs.get(&(environment.name.clone(), service.clone())).copied().unwrap_or(0),
        slow_thresholds_us: Vec::new(),
        candidate_slow_thresholds_us: Vec::new(),
        subject_header: None,
        asleep: environment.asleep.is_some() || environment.waking,
        protocol,
        forced: Vec::new(),
    };
    // Whoever runs answers, also while the rest still wakes.
    made.asleep &= made.backends.values().all(Vec::is_empty);
    let Some(release) = release.filter(|release| release.to != *stable) else { return made };
    made.backends.insert(release.to.clone(), addresses(estate, &environment.name, service, &release.to));
    match &release.strategy {
        Strategy::Dark(dark) => {
            made.mirror = release.stage.map(|_| Mirror {
                revision: release.to.clone(),
                percent_bp: dark.mirror.basis_points(),
                compare: dark.compare,
                all_methods: dark.methods == Methods::All,
            });
        }
        strategy => {
            let salt = format!("{project} {}", release.id);
            made.candidate =
                Some(Candidate { revision: release.to.clone(), weight_bp: release.weight_bp, salt });
            made.forced =
                strategy.guard().iter().flat_map(|guard| guard.routes.iter().filter_map(forced)).collect();
            let allowed = strategy.guard().and_then(|guard| guard.analysis.latency_p95);
            let factor = 1.0 + allowed.map_or(0.0, |allowed| allowed.worse_by.fraction());
            made.slow_thresholds_us = release.limits_us.clone();
            made.candidate_slow_thresholds_us =
                release.limits_us.iter().map(|limit| (*limit as f64 * factor).ceil() as u64).collect();
        }
    }
    made
}

/// How the router knows who asks for the new revision.
fn forced(asked: &Asked) -> Option<Forced> {
    let (by, name) = match (&asked.header, &asked.cookie) {
        (Some(name), _) => (By::Header, name),
        (None, Some(name)) => (By::Cookie, name),
        (None, None) => return None,
    };
    Some(Forced { by, name: name.clone(), value: asked.is.clone(), to: Arm::Candidate })
}

fn addresses(
    estate: &Estate,
    environment: &EnvironmentName,
    service: &ServiceName,
    revision: &Revision,
) -> Vec<SocketAddr> {
    estate.healthy(environment, service, revision).map(|i| i.address).collect()
}

/// Whether the route table may differ after this.
pub fn moves_users(event: &Event) -> bool {
    matches!(
        event,
        Event::InstanceHealthy { .. }
            | Event::InstanceRetired { .. }
            | Event::EnvironmentDestroyed { .. }
            | Event::EnvironmentAsleep { .. }
            | Event::ReleaseStarted { .. }
            | Event::ReleaseMoved { .. }
            | Event::WeightChanged { .. }
            | Event::ReleaseFinished { .. }
    )
}

/// A router apart that is silent for so long holds up nothing any more: it may be gone for good.
const SILENT: std::time::Duration = std::time::Duration::from_secs(60);

impl Line {
    /// What the router here and those apart have counted, added up.
    pub fn signals(&self) -> Vec<ServiceSignals> {
        self.apart.with(self.plane().signals())
    }

    /// Whether a router still has requests for a revision under way.
    pub(crate) fn in_use(&self, service: &str, revision: &Revision) -> bool {
        self.plane().in_flight(service, revision) != Some(0) || self.apart.uses(service, revision, SILENT)
    }

    /// How long ago the last request for a service came; none: none came yet.
    pub(crate) fn unused_for(&self, service: &str) -> Option<std::time::Duration> {
        self.plane().idle(service).into_iter().chain(self.apart.idle(service)).min()
    }

    /// A router apart reports what it has counted.
    pub fn hear_router(&self, report: andon_router::Report) -> Result<(), Refusal> {
        let asked = report.asked.clone();
        self.apart.hear(report).map_err(Refusal::Bad)?;
        self.knocked(asked);
        Ok(())
    }

    /// Puts what is recorded into force: after every record that [`moves_users`]. The same table again changes nothing.
    pub fn reroute(&self) {
        // One at a time: an older table must never be put over a newer one.
        let _turn = self.routing.lock().unwrap_or_else(PoisonError::into_inner);
        let table = self.route_table();
        if let Some(Err(error)) = self.plane.get().map(|plane| plane.set(&table)) {
            tracing::error!(%error, "the data plane keeps its last table");
        }
        // The router has it, too, where another plane stands in front: it wakes who sleeps.
        match self.router.set(table.clone()) {
            Ok(()) => self.apart.tell(&table),
            Err(error) => tracing::error!(%error, "the router keeps its last table"),
        }
    }

    /// What moves users: our router, unless another plane was given.
    pub fn plane(&self) -> &dyn Plane {
        self.plane.get().map_or(&self.router as &dyn Plane, |plane| plane.as_ref())
    }

    /// Another data plane moves users from now on. The first one that is given stays.
    pub fn use_plane(&self, plane: Arc<dyn Plane>) {
        if self.plane.set(plane).is_ok() {
            self.reroute();
        }
    }

    /// The routes of all projects as they are recorded, whoever puts them into force. A host belongs to whom it came first.
    pub fn route_table(&self) -> RouteTable {
        let mut routes: Vec<Route> = Vec::new();
        for project in self.projects() {
            routes.extend(self::routes(&project.name, &project.state()));
        }
        let mut taken: BTreeMap<String, String> = BTreeMap::new();
        let mut clashes = BTreeSet::new();
        for route in &mut routes {
            let service = route.service.clone();
            route.hosts.retain(|host| {
                let owner = taken.entry(host.to_lowercase()).or_insert_with(|| service.clone());
                let own = *owner == service;
                if !own {
                    clashes.insert(format!("{host} belongs to {owner}, so {service} does not get it"));
                }
                own
            });
            route.hosts.sort();
            route.hosts.dedup();
        }
        for clash in clashes {
            tracing::warn!("{clash}");
        }
        RouteTable { routes }
    }
}
