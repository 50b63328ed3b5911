//! What should run against what does: start, declare healthy, replace, retire, heal. Pure: the estate and an observation in, decisions out.

use std::collections::{BTreeMap, BTreeSet};

use andon_model::event::{Drift, InfraTool, PlannedService, Revision};
use andon_model::{DeploymentId, EnvironmentName, HostName, InstanceId, ServiceName, Span, Time};

use crate::estate::{Deployment, DeploymentState, Environment, Estate, Instance};
use crate::exception::Exception;
use crate::hosts::{Places, Standing};
use crate::rotation::{self, Chosen, MOVED, ON_HOST};

/// First pause before a crashed instance is replaced; triples each time (Argo CD's self-heal uses the same 2 s × 3 up to 300 s).
pub const BACK_OFF: Span = Span::secs(2);
/// Longest pause before a replacement.
pub const BACK_OFF_MOST: Span = Span::secs(300);
/// A healthy instance that gives no good answer for this long is replaced.
pub const UNHEALTHY: Span = Span::secs(10);
/// Replacements older than this no longer lengthen the pause.
pub const MEMORY: Span = Span::secs(600);

/// What a difference begins with that the infrastructure tool found.
pub const RESOURCE: &str = "resource ";
/// What a difference begins with that was found on a host by Ansible.
pub const HOST: &str = "host ";

/// The tool that found this difference, which alone can say that it is gone; none: it was seen without one.
pub fn found_by(what: &str) -> Option<InfraTool> {
    match what {
        what if what.starts_with(RESOURCE) => Some(InfraTool::Terraform),
        what if what.starts_with(HOST) => Some(InfraTool::Ansible),
        _ => None,
    }
}

/// One instance as found.
#[derive(Debug, Clone, PartialEq)]
pub enum Seen {
    /// Nothing of it exists on the host.
    Absent,
    /// It runs; the last health answer, if one came since it started.
    Alive {
        /// None while nobody has asked yet.
        health: Option<Result<(), String>>,
        /// For how long it has given no good answer.
        failing: Span,
    },
    /// It ended.
    Exited {
        /// How, with the last words of its log.
        words: String,
    },
}

/// Everything found in one look.
#[derive(Debug, Clone, Default)]
pub struct Observation {
    /// What was found of each known instance.
    pub instances: BTreeMap<InstanceId, Seen>,
    /// Files of a running release that are not as unpacked: instance, path, before, after.
    pub files: Vec<(InstanceId, String, String, String)>,
    /// Settings of a running instance that are not as it was started: instance, what, before, after.
    pub settings: Vec<(InstanceId, String, String, String)>,
    /// Processes that say they belong to an environment and that no instance accounts for: environment, what.
    pub foreign: Vec<(EnvironmentName, u32, String)>,
    /// Instances that no request is on its way to.
    pub idle: BTreeSet<InstanceId>,
}

/// What is wanted beside what the journal tells.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Wishes {
    /// Revisions that run on for the way back.
    pub keep_warm: BTreeSet<(EnvironmentName, Revision)>,
    /// Differences from code that are no drift, by environment: `file PATH`.
    pub ignores: BTreeMap<EnvironmentName, Vec<Exception>>,
    /// The hosts of this moment.
    pub places: Places,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// Give a new instance a number and a port.
    Plan {
        /// Where.
        environment: EnvironmentName,
        /// Of what.
        service: ServiceName,
        /// Of which revision.
        revision: Revision,
        /// On which host; none: the server's own.
        host: Option<HostName>,
    },
    /// Start it; it has been planned.
    Start(InstanceId),
    /// It answers: users may be sent to it.
    Healthy(InstanceId),
    /// Send it no more users and stop it.
    Retire {
        /// Which.
        instance: InstanceId,
        /// The reason.
        why: String,
    },
    /// It is retired and nobody uses it: stop it now and remove what is left.
    Remove(InstanceId),
    /// A deployment is complete.
    Up(DeploymentId),
    /// A deployment is given up.
    GiveUp {
        /// Which.
        deployment: DeploymentId,
        /// The reason.
        why: String,
    },
    /// Put a difference from code on display.
    Drift {
        /// Where.
        environment: EnvironmentName,
        /// What.
        drift: Drift,
    },
    /// A difference is gone.
    Healed {
        /// Where.
        environment: EnvironmentName,
        /// What differed.
        what: String,
        /// How it was mended.
        how: String,
    },
    /// End a process that nobody accounts for.
    Kill {
        /// Where it claims to be.
        environment: EnvironmentName,
        /// Its process id.
        pid: u32,
    },
}

/// The next decisions.
pub fn plan(estate: &Estate, seen: &Observation, wishes: &Wishes, now: Time) -> Vec<Decision> {
    let wanted = wanted(estate, &wishes.keep_warm);
    let too_many = rotation::too_many(estate, &wanted, seen, &wishes.places);
    let mut decisions = Vec::new();
    for instance in estate.instances.values() {
        decisions.extend(look_after(estate, instance, seen, &wanted, &too_many, wishes, now));
    }
    decisions.extend(missing(estate, &wanted, &wishes.places, now));
    for (environment, service, revision, host) in rotation::uneven(estate, &wanted, &wishes.places, now) {
        let (environment, service, revision) = (environment.clone(), service.clone(), revision.clone());
        decisions.push(Decision::Plan { environment, service, revision, host });
    }
    decisions.extend(deployments(estate, seen, &wishes.places, now));
    decisions.extend(foreigners(estate, seen));
    decisions.extend(healed(estate, seen, &wishes.places));
    decisions
}

pub(crate) type Wanted<'a> = BTreeMap<(&'a EnvironmentName, Revision), &'a Deployment>;

/// Revisions that have to run: those that serve, those that come, and those kept for the way back.
fn wanted<'a>(estate: &'a Estate, keep_warm: &BTreeSet<(EnvironmentName, Revision)>) -> Wanted<'a> {
    let mut wanted = Wanted::new();
    for deployment in estate.deployments.values() {
        let Some(environment) = estate.environments.get(&deployment.environment) else { continue };
        if environment.destroying.is_some() {
            continue;
        }
        let revision = deployment.revision();
        let serves = environment.serving.values().any(|serving| {
            serving.stable.as_ref() == Some(&revision)
                || serving.incoming.as_ref().is_some_and(|incoming| incoming.revision == revision)
        });
        // What an environment held before it was emptied is no way back.
        let warm = keep_warm.contains(&(environment.name.clone(), revision.clone()))
            && deployment.state != DeploymentState::Superseded;
        if serves || warm || deployment.under_way() {
            wanted.insert((&environment.name, revision), deployment);
        }
    }
    wanted
}

fn look_after(
    estate: &Estate,
    instance: &Instance,
    seen: &Observation,
    wanted: &Wanted<'_>,
    too_many: &BTreeMap<InstanceId, &str>,
    wishes: &Wishes,
    now: Time,
) -> Vec<Decision> {
    let id = instance.id;
    let found = seen.instances.get(&id).unwrap_or(&Seen::Absent);
    let lost = wishes.places.standing(instance.host.as_ref()) == Standing::Lost;
    if lost && instance.retired.is_some() {
        return vec![Decision::Remove(id)];
    }
    if let Some((since, _)) = &instance.retired {
        let patience = service_of(estate, instance).map_or(Span::secs(10), |s| s.stop_within);
        let gone = !matches!(found, Seen::Alive { .. });
        let over = seen.idle.contains(&id) || now.since(*since) > patience;
        return if gone || over { vec![Decision::Remove(id)] } else { Vec::new() };
    }
    if !wanted.contains_key(&(&instance.environment, instance.revision.clone())) {
        return vec![Decision::Retire { instance: id, why: "its revision serves nobody any more".into() }];
    }
    if let Some(host) = instance.host.as_ref().filter(|_| lost) {
        let drift = Drift {
            service: None,
            instance: None,
            what: format!("{ON_HOST}{host}"),
            before: "running".into(),
            after: "lost: nobody reaches the host".into(),
        };
        let why = format!("{MOVED}its host {host} is lost");
        return vec![
            Decision::Drift { environment: instance.environment.clone(), drift },
            Decision::Retire { instance: id, why },
        ];
    }
    if let Some(why) = too_many.get(&id) {
        return vec![Decision::Retire { instance: id, why: (*why).into() }];
    }
    let mut decisions = Vec::new();
    match found {
        Seen::Absent if instance.healthy.is_none() => decisions.push(Decision::Start(id)),
        Seen::Absent => decisions.extend(replace(instance, "process", "running", "gone without a trace")),
        Seen::Exited { words } if instance.healthy.is_some() => {
            decisions.extend(replace(instance, "process", "running", words));
        }
        // Before its first healthy answer an exit fails its deployment, or, of a revision that already served, is tried again.
        Seen::Exited { words } => decisions.push(Decision::Retire { instance: id, why: words.clone() }),
        Seen::Alive { health: Some(Ok(())), .. } if instance.healthy.is_none() => {
            decisions.push(Decision::Healthy(id))
        }
        Seen::Alive { health: Some(Err(why)), failing }
            if instance.healthy.is_some() && *failing >= UNHEALTHY =>
        {
            decisions.extend(replace(instance, "health", "good", &format!("bad for {failing}: {why}")));
        }
        Seen::Alive { health: Some(Err(why)), failing } if instance.healthy.is_none() => {
            let patience = patience(estate, instance).filter(|patience| failing > patience);
            decisions.extend(patience.map(|patience| {
                let why = format!("it was not healthy within {patience}: {why}");
                Decision::Retire { instance: id, why }
            }));
        }
        Seen::Alive { .. } => {}
    }
    let ignores = wishes.ignores.get(&instance.environment).map_or(&[][..], Vec::as_slice);
    let drifted = |path: &str| Exception::find(ignores, &format!("file {path}"), now).is_none();
    let changed = seen.files.iter().find(|(at, path, ..)| *at == id && drifted(path));
    if let Some((_, path, before, after)) = changed {
        decisions.extend(replace(instance, &format!("file {path}"), before, after));
    } else if let Some((_, what, before, after)) = seen.settings.iter().find(|(at, ..)| *at == id) {
        decisions.extend(replace(instance, what, before, after));
    }
    decisions
}

fn replace(instance: &Instance, what: &str, before: &str, after: &str) -> [Decision; 2] {
    let what = format!("{what} of {} {}", instance.service, instance.id);
    let drift = Drift {
        service: Some(instance.service.clone()),
        instance: Some(instance.id),
        what: what.clone(),
        before: before.to_owned(),
        after: after.to_owned(),
    };
    let why = format!("drift: {what} is {after}");
    [
        Decision::Drift { environment: instance.environment.clone(), drift },
        Decision::Retire { instance: instance.id, why },
    ]
}

/// How long one that is to take another one's place is waited for. The first ones of a deployment fail that instead.
fn patience(estate: &Estate, instance: &Instance) -> Option<Span> {
    let starting = estate.deployments.get(&instance.deployment)?.state == DeploymentState::Starting;
    let service = service_of(estate, instance)?;
    (!starting).then_some(service.start_within)
}

fn service_of<'a>(estate: &'a Estate, instance: &Instance) -> Option<&'a PlannedService> {
    estate.deployments.get(&instance.deployment)?.service(&instance.service)
}

fn missing(estate: &Estate, wanted: &Wanted<'_>, places: &Places, now: Time) -> Vec<Decision> {
    let (mut decisions, mut chosen) = (Vec::new(), Chosen::default());
    for ((environment, revision), deployment) in wanted {
        // What comes waits for its infrastructure; what serves is kept up whatever happens to that.
        let starting = deployment.state == DeploymentState::Starting;
        let id = deployment.id;
        if starting && (estate.infrastructure.lacks(id).is_some() || estate.data.lacks(id)) {
            continue;
        }
        for service in &deployment.services {
            let of_it = |i: &&Instance| i.service == service.name && &i.revision == revision;
            let stands =
                |i: &&Instance| i.retired.is_none() && rotation::counts(estate, places, deployment, i);
            let have = estate.instances_in(environment).filter(of_it).filter(stands).count();
            // Whoever moved, or was lost with its host, says nothing against the service.
            let flaw = |why: &str| !why.starts_with(MOVED);
            let retired: Vec<Time> = estate
                .instances_in(environment)
                .filter(of_it)
                .filter_map(|i| i.retired.as_ref().filter(|(_, why)| flaw(why)).map(|(at, _)| *at))
                .chain(heals_of(estate, environment))
                .filter(|at| now.since(*at) < MEMORY)
                .collect();
            if retired.iter().max().is_some_and(|last| now < *last + pause(retired.len())) {
                continue;
            }
            let replicas = estate.environments.get(*environment).map_or(0, |e| e.replicas(service));
            for _ in have..replicas as usize {
                let which = (*environment, service, revision);
                let Some(host) = chosen.next(estate, places, which, deployment, now) else { break };
                decisions.push(Decision::Plan {
                    environment: (*environment).clone(),
                    service: service.name.clone(),
                    revision: revision.clone(),
                    host,
                });
            }
        }
    }
    decisions
}

fn heals_of(estate: &Estate, environment: &EnvironmentName) -> Vec<Time> {
    estate.environments.get(environment).map(|e| e.heals.clone()).unwrap_or_default()
}

/// How long to wait before the next replacement after so many within [`MEMORY`]: none for the first, which heals at once.
pub fn pause(times: usize) -> Span {
    match times {
        0 | 1 => Span(0),
        n => Span(BACK_OFF.0.saturating_mul(3u64.saturating_pow(n as u32 - 2)).min(BACK_OFF_MOST.0)),
    }
}

fn deployments(estate: &Estate, seen: &Observation, places: &Places, now: Time) -> Vec<Decision> {
    let starting = estate.deployments.values().filter(|d| d.state == DeploymentState::Starting);
    starting.filter_map(|d| progress(estate, d, seen, places, now)).collect()
}

fn progress(
    estate: &Estate,
    deployment: &Deployment,
    seen: &Observation,
    places: &Places,
    now: Time,
) -> Option<Decision> {
    let hopeless = estate.infrastructure.hopeless(deployment.id);
    if let Some(why) = hopeless.or_else(|| estate.data.hopeless(deployment.id)) {
        return Some(Decision::GiveUp { deployment: deployment.id, why });
    }
    let revision = deployment.revision();
    let of_it = |i: &&Instance| i.revision == revision;
    for instance in estate.instances_in(&deployment.environment).filter(of_it) {
        let died = match (seen.instances.get(&instance.id), &instance.retired) {
            (Some(Seen::Exited { words }), _) if instance.healthy.is_none() => Some(words.clone()),
            (_, Some((_, why))) if instance.healthy.is_none() && !why.starts_with(MOVED) => Some(why.clone()),
            _ => None,
        };
        if let Some(words) = died {
            let why = format!("{} did not start: {words}", instance.service);
            return Some(Decision::GiveUp { deployment: deployment.id, why });
        }
        let patience = deployment.service(&instance.service)?.start_within;
        if instance.healthy.is_none() && now.since(instance.planned) > patience {
            let last = match seen.instances.get(&instance.id) {
                Some(Seen::Alive { health: Some(Err(why)), .. }) => why.clone(),
                _ => "it never answered".into(),
            };
            let why = format!("{} was not healthy within {patience}: {last}", instance.service);
            return Some(Decision::GiveUp { deployment: deployment.id, why });
        }
    }
    let nowhere = |service: &&PlannedService| places.takers(service, deployment.runtime).is_empty();
    if let Some(service) = deployment.services.iter().find(nowhere)
        && now.since(deployment.started) > service.start_within
    {
        let why = format!("no host takes an instance of {}: `andon host list` shows why", service.name);
        return Some(Decision::GiveUp { deployment: deployment.id, why });
    }
    let environment = estate.environments.get(&deployment.environment)?;
    let complete = deployment.services.iter().all(|service| {
        let healthy = estate.healthy(&deployment.environment, &service.name, &revision).count();
        healthy >= environment.replicas(service) as usize
    });
    complete.then_some(Decision::Up(deployment.id))
}

fn foreigners(estate: &Estate, seen: &Observation) -> Vec<Decision> {
    let mut decisions = Vec::new();
    for (environment, pid, what) in &seen.foreign {
        if estate.environments.contains_key(environment) {
            let drift = Drift {
                service: None,
                instance: None,
                what: format!("process {pid}"),
                before: "not there".into(),
                after: what.clone(),
            };
            decisions.push(Decision::Drift { environment: environment.clone(), drift });
        }
        decisions.push(Decision::Kill { environment: environment.clone(), pid: *pid });
    }
    decisions
}

/// A difference is healed when what differed is gone and the full number of healthy instances is back.
fn healed(estate: &Estate, seen: &Observation, places: &Places) -> Vec<Decision> {
    let mut decisions = Vec::new();
    for environment in estate.environments.values() {
        // Of what the infrastructure tool made, that tool alone can say that it is as it should be.
        for (_, drift) in environment.drifts.iter().filter(|(_, drift)| found_by(&drift.what).is_none()) {
            let lost = drift.what.strip_prefix(ON_HOST);
            let still = match drift.instance {
                Some(id) => {
                    let full = drift.service.as_ref().is_none_or(|name| is_full(estate, environment, name));
                    estate.instances.contains_key(&id) || !full
                }
                None if let Some(host) = lost => {
                    // If it is back already it has new ones.
                    let on = |i: &Instance| {
                        i.host.as_ref().is_some_and(|name| name.as_str() == host)
                            && places.standing(i.host.as_ref()) == Standing::Lost
                    };
                    estate.instances_in(&environment.name).any(on)
                        || !environment.serving.keys().all(|name| is_full(estate, environment, name))
                }
                None => seen.foreign.iter().any(|(_, pid, _)| drift.what == format!("process {pid}")),
            };
            if !still {
                let how = match lost {
                    Some(_) => "replaced on another host",
                    None if drift.instance.is_some() => "replaced from the artifact",
                    None => "ended",
                };
                decisions.push(Decision::Healed {
                    environment: environment.name.clone(),
                    what: drift.what.clone(),
                    how: how.into(),
                });
            }
        }
    }
    decisions
}

fn is_full(estate: &Estate, place: &Environment, name: &ServiceName) -> bool {
    let Some(stable) = place.serving.get(name).and_then(|serving| serving.stable.as_ref()) else {
        return true;
    };
    let Some(service) = estate.of_revision(&place.name, stable).and_then(|d| d.service(name)) else {
        return true;
    };
    estate.healthy(&place.name, name, stable).count() >= place.replicas(service) as usize
}
