//! On which host an instance runs, and how instances move from one to another: new ones first, old ones only when enough healthy ones
//! stand without them. Pure; which instances are wanted at all is decided in `upkeep`.

use std::collections::{BTreeMap, BTreeSet};

use andon_model::event::{PlannedService, Revision};
use andon_model::{EnvironmentName, HostName, InstanceId, ServiceName, Span, Time};

use crate::estate::{Deployment, Estate, Instance};
use crate::hosts::{Places, Standing};
use crate::upkeep::{Observation, Seen, Wanted};

/// What the reason begins with of an instance that was healthy and gave way to one on another host.
pub const MOVED: &str = "moved: ";
/// What differs begins with, where a host with instances is lost; its name follows.
pub const ON_HOST: &str = "instances on ";
/// A host on which a service did not come up is left alone by it for so long, where there is another.
pub const SETBACK: Span = Span::secs(600);

/// Instances of one revision of a service in one environment that are not retired, oldest first.
struct Group<'a> {
    environment: &'a EnvironmentName,
    service: &'a PlannedService,
    revision: &'a Revision,
    deployment: &'a Deployment,
    members: Vec<&'a Instance>,
    replicas: usize,
    /// No deployment is on its way in its environment: instances may move.
    moves: bool,
}

fn groups<'a>(estate: &'a Estate, wanted: &'a Wanted<'a>) -> Vec<Group<'a>> {
    let mut groups = Vec::new();
    for ((environment, revision), deployment) in wanted {
        let Some(place) = estate.environments.get(*environment) else { continue };
        let moves = may_move(estate, environment);
        for service in &deployment.services {
            let of_it =
                |i: &&Instance| i.service == service.name && i.revision == *revision && i.retired.is_none();
            groups.push(Group {
                environment,
                service,
                revision,
                deployment,
                members: estate.instances_in(environment).filter(of_it).collect(),
                replicas: place.replicas(service) as usize,
                moves,
            });
        }
    }
    groups
}

/// Whether instances of an environment may change their hosts: while it is being deployed into, nothing does.
pub fn may_move(estate: &Estate, environment: &EnvironmentName) -> bool {
    !estate.deployments.values().any(|d| &d.environment == environment && d.under_way())
}

impl Group<'_> {
    fn standing(&self, places: &Places, instance: &Instance) -> Standing {
        let standing = places.standing_for(self.service, self.deployment.runtime, instance.host.as_ref());
        match standing {
            Standing::Leaving if !self.moves => Standing::Takes,
            standing => standing,
        }
    }
}

/// Whether an instance counts as one of those that are wanted: it does not where it is about to go.
pub(crate) fn counts(estate: &Estate, places: &Places, deployment: &Deployment, instance: &Instance) -> bool {
    let Some(service) = deployment.service(&instance.service) else { return true };
    match places.standing_for(service, deployment.runtime, instance.host.as_ref()) {
        Standing::Takes | Standing::Away => true,
        Standing::Leaving => !may_move(estate, &instance.environment),
        Standing::Lost => false,
    }
}

/// Instances that are too many, with the reason: first those on hosts that are being emptied, then the youngest on the fullest host.
/// A healthy one goes only if enough healthy ones stay.
pub(crate) fn too_many(
    estate: &Estate,
    wanted: &Wanted<'_>,
    seen: &Observation,
    places: &Places,
) -> BTreeMap<InstanceId, &'static str> {
    let mut going = BTreeMap::new();
    for group in groups(estate, wanted) {
        let standing = |i: &Instance| group.standing(places, i);
        let found = |i: &Instance| seen.instances.get(&i.id).unwrap_or(&Seen::Absent);
        // As it was seen just now: one that died meanwhile stands for nobody.
        let stands = |i: &Instance| {
            i.healthy.is_some()
                && matches!(found(i), Seen::Alive { health: Some(Ok(())), .. })
                && standing(i) != Standing::Lost
        };
        let serves_nobody = |i: &Instance| i.healthy.is_none() || !matches!(found(i), Seen::Alive { .. });
        let mut standing_by = group.members.iter().filter(|i| stands(i)).count();
        let mut may_go = |i: &Instance| {
            if stands(i) {
                let enough = standing_by > group.replicas;
                standing_by -= usize::from(enough);
                return enough;
            }
            // One that may serve, for all that is known, goes as if it did not count.
            serves_nobody(i) || standing_by >= group.replicas
        };
        let asleep = estate.environments.get(group.environment).is_some_and(|e| e.asleep.is_some());
        for instance in group.members.iter().filter(|i| standing(i) == Standing::Leaving) {
            if may_go(instance) {
                going.insert(instance.id, "moved: its host is being emptied");
            }
        }
        let mut staying: Vec<&Instance> = group
            .members
            .iter()
            .copied()
            .filter(|i| matches!(standing(i), Standing::Takes | Standing::Away))
            .collect();
        let youngest = staying.last().map(|i| i.id);
        while staying.len() > group.replicas {
            let Some(victim) = fullest(&staying).map(|at| staying.remove(at)) else { break };
            if !may_go(victim) {
                break;
            }
            let why = match youngest == Some(victim.id) {
                _ if asleep => "nobody uses it: it sleeps",
                false if group.replicas > 0 && hosts(&group.members).len() > 1 => {
                    "moved: its host has more of them than others"
                }
                _ => "fewer are wanted",
            };
            going.insert(victim.id, why);
        }
    }
    going
}

fn hosts<'a>(instances: &[&'a Instance]) -> BTreeSet<Option<&'a HostName>> {
    instances.iter().map(|i| i.host.as_ref()).collect()
}

/// The youngest on the host that has most of them.
fn fullest(instances: &[&Instance]) -> Option<usize> {
    let on = |host: &Option<HostName>| instances.iter().filter(|i| &i.host == host).count();
    (0..instances.len()).max_by_key(|at| (on(&instances[*at].host), instances[*at].id))
}

/// What was chosen in one look and is not recorded yet.
#[derive(Default)]
pub(crate) struct Chosen(Vec<(EnvironmentName, ServiceName, Revision, Option<HostName>)>);

impl Chosen {
    /// The host for one more instance: where the service did come up, the one with the fewest of it, then the one with the fewest in
    /// all. None: no host takes any.
    pub fn next(
        &mut self,
        estate: &Estate,
        places: &Places,
        (environment, service, revision): (&EnvironmentName, &PlannedService, &Revision),
        deployment: &Deployment,
        now: Time,
    ) -> Option<Option<HostName>> {
        let takers = places.takers(service, deployment.runtime);
        let rank = |host: &Option<HostName>| {
            let stand = estate.instances.values().filter(|i| i.host == *host && i.retired.is_none());
            let same = stand.clone().filter(|i| {
                &i.environment == environment && i.service == service.name && &i.revision == revision
            });
            let chosen = self.0.iter().filter(|(.., at)| at == host);
            let chosen_same =
                chosen.clone().filter(|(e, s, r, _)| e == environment && *s == service.name && r == revision);
            (
                setback(estate, environment, &service.name, host.as_ref(), now),
                same.count() + chosen_same.count(),
                stand.count() + chosen.count(),
                host.clone(),
            )
        };
        let host = takers.into_iter().min_by_key(rank)?;
        self.0.push((environment.clone(), service.name.clone(), revision.clone(), host.clone()));
        Some(host)
    }
}

fn setback(
    estate: &Estate,
    environment: &EnvironmentName,
    service: &ServiceName,
    host: Option<&HostName>,
    now: Time,
) -> bool {
    let key = (environment.clone(), service.clone(), host.cloned());
    estate.setbacks.get(&key).is_some_and(|at| now.since(*at) < SETBACK)
}

/// Services that are spread unevenly: one more of each is to run on the emptiest host, and what is then too many goes from the fullest.
/// One at a time, where all that is wanted stands and is healthy.
pub(crate) fn uneven<'a>(
    estate: &'a Estate,
    wanted: &'a Wanted<'a>,
    places: &Places,
    now: Time,
) -> Vec<(&'a EnvironmentName, &'a ServiceName, &'a Revision, Option<HostName>)> {
    let mut found = Vec::new();
    for group in groups(estate, wanted) {
        let place = estate.environments.get(group.environment);
        let stable = place.and_then(|p| p.serving.get(&group.service.name)?.stable.as_ref());
        let settled = group.moves
            && stable == Some(group.revision)
            && group.members.len() == group.replicas
            && group
                .members
                .iter()
                .all(|i| i.healthy.is_some() && group.standing(places, i) == Standing::Takes)
            && place.is_some_and(|p| p.drifts.is_empty());
        if !settled {
            continue;
        }
        let count = |host: &Option<HostName>| group.members.iter().filter(|i| &i.host == host).count();
        let takers = places.takers(group.service, group.deployment.runtime);
        let most = takers.iter().map(&count).max().unwrap_or(0);
        let free = |host: &&Option<HostName>| {
            !setback(estate, group.environment, &group.service.name, host.as_ref(), now)
        };
        let least = takers.iter().filter(free).min_by_key(|host| count(host));
        if let Some(host) = least.filter(|host| count(host) + 2 <= most) {
            found.push((group.environment, &group.service.name, group.revision, host.clone()));
        }
    }
    found
}
