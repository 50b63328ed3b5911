//! Hosts come, leave, are lost and come back while a service runs: what the upkeep decides is carried out by a model of the world, and
//! users never have fewer healthy instances than they could.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::collections::{BTreeMap, BTreeSet};

use andon_environment::Estate;
use andon_environment::hosts::{Hosts, Places, Standing};
use andon_environment::upkeep::{self, Decision, Observation, Seen, Wishes};
use andon_model::event::{Event, PlannedService, Recorded, ReleaseEnd, RuntimeKind};
use andon_model::{
    Actor, DeploymentId, Digest, EnvironmentName, HostName, InstanceId, Oid, Pins, ReleaseId, RunId,
    ServiceName, Span, Time,
};
use proptest::prelude::*;

const NAMES: [&str; 3] = ["n1", "n2", "n3"];

/// What happens to hosts and to the service.
#[derive(Debug, Clone)]
enum Step {
    Join(usize),
    Leave(usize),
    LeaveHere,
    Stay(usize),
    StayHere,
    /// Its connection breaks; what it runs goes on.
    Silence(usize),
    Reach(usize),
    /// With everything on it.
    Lose(usize),
    Scale(u32),
    /// The upkeep looks, and what it decides is done; of what was started, every so many answers.
    Look(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let host = 0..NAMES.len();
    prop_oneof![
        2 => host.clone().prop_map(Step::Join),
        2 => host.clone().prop_map(Step::Leave),
        1 => Just(Step::LeaveHere),
        1 => host.clone().prop_map(Step::Stay),
        2 => Just(Step::StayHere),
        1 => host.clone().prop_map(Step::Silence),
        2 => host.clone().prop_map(Step::Reach),
        1 => host.prop_map(Step::Lose),
        1 => (0_u32..6).prop_map(Step::Scale),
        12 => (1_u8..4).prop_map(Step::Look),
    ]
}

fn name(text: &str) -> EnvironmentName {
    text.parse().unwrap()
}
fn web() -> ServiceName {
    "web".parse().unwrap()
}
fn host(n: usize) -> HostName {
    NAMES[n].parse().unwrap()
}

struct World {
    estate: Estate,
    hosts: Hosts,
    reached: BTreeSet<HostName>,
    /// What runs, with whether it answers.
    runs: BTreeMap<InstanceId, bool>,
    /// When it was first asked.
    asked: BTreeMap<InstanceId, i64>,
    now: i64,
    wanted: u32,
}

impl World {
    fn new(service: PlannedService) -> World {
        let mut world = World {
            estate: Estate::default(),
            hosts: Hosts::default(),
            reached: BTreeSet::new(),
            runs: BTreeMap::new(),
            asked: BTreeMap::new(),
            now: 0,
            wanted: service.replicas,
        };
        let commit: Oid = format!("{:040x}", 1).parse().unwrap();
        let deployment = DeploymentId(1);
        world.then(Event::EnvironmentCreated {
            environment: name("production"),
            like: None,
            standing: true,
            expires: None,
            change: None,
        });
        world.then(Event::DeploymentStarted {
            deployment,
            environment: name("production"),
            artifact: Digest::of(b"1"),
            commit,
            run: RunId(1),
            services: vec![service],
            changes: vec![],
            runtime: RuntimeKind::Process,
            pins: Pins::default(),
        });
        world
    }

    /// Everyone has it from now on.
    fn is_released(&mut self) {
        let (deployment, revision) = {
            let d = &self.estate.deployments[&DeploymentId(1)];
            (d.id, d.revision())
        };
        self.then(Event::ReleaseStarted {
            release: ReleaseId(1),
            deployment,
            environment: name("production"),
            service: web(),
            from: None,
            to: revision,
            strategy: andon_model::Strategy::AllAtOnce,
            strategy_name: "all-at-once".into(),
            limits_us: vec![],
        });
        self.then(Event::ReleaseFinished {
            release: ReleaseId(1),
            how: ReleaseEnd::Released,
            why: "x".into(),
            explanation: serde_json::Value::Null,
        });
    }

    fn then(&mut self, event: Event) {
        self.now += 1;
        let (seq, at) = (self.now as u64, Time(self.now));
        let recorded = Recorded { seq, at, by: Actor::line("t"), project: None, event };
        self.estate.evolve(&recorded);
        self.hosts.evolve(&recorded);
    }

    fn places(&self) -> Places {
        self.hosts.places(|host| self.reached.contains(host))
    }

    fn observe(&self) -> Observation {
        let seen = |i: &andon_environment::Instance| {
            let dark = i.host.as_ref().is_some_and(|host| !self.reached.contains(host));
            let asked = self.asked.get(&i.id).copied().unwrap_or(self.now);
            let failing = Span((self.now - asked) as u64);
            let alive = |health| Seen::Alive { health, failing };
            let seen = match self.runs.get(&i.id) {
                _ if dark => alive(None),
                None => Seen::Absent,
                Some(true) => alive(Some(Ok(()))),
                Some(false) => alive(Some(Err("not yet".into()))),
            };
            (i.id, seen)
        };
        let all = self.estate.instances.values();
        Observation {
            instances: all.map(seen).collect(),
            idle: self.estate.instances.keys().copied().collect(),
            ..Observation::default()
        }
    }

    /// Healthy instances that users are sent to and that are not lost.
    fn healthy(&self) -> usize {
        let places = self.places();
        let good = |i: &&andon_environment::Instance| {
            i.retired.is_none()
                && i.healthy.is_some()
                && self.runs.get(&i.id) == Some(&true)
                && places.standing(i.host.as_ref()) != Standing::Lost
        };
        self.estate.instances.values().filter(good).count()
    }

    fn look(&mut self, answers: u8) -> Vec<Decision> {
        let wishes = Wishes { places: self.places(), ..Wishes::default() };
        let decisions = upkeep::plan(&self.estate, &self.observe(), &wishes, Time(self.now));
        let (before, places) = (self.healthy(), self.places());
        for decision in decisions.clone() {
            match decision {
                Decision::Plan { environment, service, revision, host } => {
                    assert_eq!(places.standing(host.as_ref()), Standing::Takes, "planned on {host:?}");
                    let instance = self.estate.next_instance();
                    let planned = Event::InstancePlanned {
                        instance,
                        environment,
                        service,
                        revision,
                        port: 1,
                        address: None,
                        host,
                    };
                    self.then(planned);
                }
                Decision::Start(id) => {
                    self.runs.insert(id, false);
                    self.asked.insert(id, self.now);
                }
                Decision::Healthy(instance) => self.then(Event::InstanceHealthy { instance }),
                Decision::Retire { instance, why } => self.then(Event::InstanceRetired { instance, why }),
                Decision::Remove(id) => {
                    self.runs.remove(&id);
                    self.estate.forget(id);
                }
                Decision::Up(deployment) => {
                    self.then(Event::DeploymentFinished { deployment, ok: true, why: String::new() });
                    self.is_released();
                }
                Decision::GiveUp { why, .. } => panic!("given up: {why}"),
                Decision::Drift { environment, drift } => {
                    let known = &self.estate.environments[&environment].drifts;
                    if !known.iter().any(|(_, seen)| seen.what == drift.what) {
                        self.then(Event::DriftSeen { environment, drift });
                    }
                }
                Decision::Healed { environment, what, how } => {
                    self.then(Event::DriftHealed { environment, what, how });
                }
                Decision::Kill { .. } => panic!("there are no strangers"),
            }
        }
        let after = self.healthy();
        assert!(
            after >= before.min(self.wanted as usize),
            "{before} healthy became {after} of {}",
            self.wanted
        );
        let starting: Vec<InstanceId> =
            self.runs.iter().filter(|(_, healthy)| !**healthy).map(|(id, _)| *id).collect();
        for id in starting.into_iter().filter(|id| id.0 % u32::from(answers) == 0) {
            self.runs.insert(id, true);
        }
        self.now += 100;
        decisions
    }

    fn does(&mut self, step: Step) {
        let joined = |world: &World, n| world.hosts.joined.contains_key(&host(n));
        let leaving = |host: HostName| Event::HostLeaving { host, forget: false, why: "x".into() };
        match step {
            Step::Join(n) if !joined(self, n) => {
                self.then(Event::HostJoined {
                    host: host(n),
                    address: [10, 0, 0, n as u8].into(),
                    labels: BTreeMap::new(),
                    token: Digest::of(b"t"),
                    credential: Digest::of(NAMES[n].as_bytes()),
                });
                self.reached.insert(host(n));
            }
            Step::Leave(n) => self.then(leaving(host(n))),
            Step::LeaveHere => self.then(leaving("here".parse().unwrap())),
            Step::Stay(n) => self.then(Event::HostStays { host: host(n) }),
            Step::StayHere => self.then(Event::HostStays { host: "here".parse().unwrap() }),
            Step::Silence(n) => {
                self.reached.remove(&host(n));
            }
            Step::Reach(n) if joined(self, n) => {
                // What is not known there any more was swept.
                self.then(Event::HostBack { host: host(n) });
                self.reached.insert(host(n));
            }
            Step::Lose(n) => {
                self.reached.remove(&host(n));
                self.then(Event::HostLost { host: host(n), why: "x".into() });
                let there = |i: &InstanceId| {
                    self.estate.instances.get(i).is_some_and(|i| i.host.as_ref() == Some(&host(n)))
                };
                let gone: Vec<InstanceId> = self.runs.keys().copied().filter(there).collect();
                self.runs.retain(|id, _| !gone.contains(id));
            }
            Step::Scale(replicas) => {
                let (environment, service) = (name("production"), web());
                self.wanted = replicas;
                self.then(Event::ServiceScaled { environment, service, replicas: Some(replicas) });
            }
            Step::Look(answers) => drop(self.look(answers)),
            _ => {}
        }
    }

    fn spread(&self) -> BTreeMap<String, usize> {
        let mut found = BTreeMap::new();
        for instance in self.estate.instances.values().filter(|i| i.retired.is_none()) {
            let at = instance.host.as_ref().map_or("here".to_owned(), ToString::to_string);
            *found.entry(at).or_default() += 1;
        }
        found
    }

    /// Looks until nothing is left to do.
    fn settles(&mut self) {
        for _ in 0..300 {
            let all_answer = self.runs.values().all(|healthy| *healthy);
            if self.look(1).is_empty() && all_answer {
                return;
            }
            // Pauses after replacements pass.
            self.now += 1_000;
        }
        panic!("it never settles: {:?}", self.spread());
    }
}

fn service(replicas: u32) -> PlannedService {
    PlannedService { replicas, ..PlannedService::new(web(), &["x"]) }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_to_hosts_no_healthy_instance_goes_before_another_stands_for_it(
        steps in proptest::collection::vec(step(), 1..60)
    ) {
        let mut world = World::new(service(4));
        world.settles();
        for step in steps {
            world.does(step);
        }
        // In the end every host that there is takes instances again.
        for n in 0..NAMES.len() {
            world.does(Step::Stay(n));
            world.does(Step::Reach(n));
        }
        world.does(Step::StayHere);
        world.settles();
        // Hosts on which it did not come up are given another chance by then.
        world.now += 700_000;
        world.settles();
        prop_assert_eq!(world.healthy(), world.wanted as usize);
        let places = world.places();
        let takers = places.takers(&service(1), RuntimeKind::Process).len();
        let spread = world.spread();
        let most = spread.values().copied().max().unwrap_or(0);
        let least = if spread.len() < takers { 0 } else { spread.values().copied().min().unwrap_or(0) };
        prop_assert!(most - least <= 1, "{:?} on {} hosts", spread, takers);
        prop_assert!(world.estate.environments[&name("production")].drifts.is_empty());
    }
}

#[test]
fn a_host_that_joins_gets_its_share_one_by_one_and_one_that_leaves_is_emptied() {
    let mut world = World::new(service(4));
    world.settles();
    assert_eq!(world.spread(), [("here".to_owned(), 4)].into());
    world.does(Step::Join(0));
    let plans =
        |decisions: &[Decision]| decisions.iter().filter(|d| matches!(d, Decision::Plan { .. })).count();
    assert_eq!(plans(&world.look(1)), 1, "one at a time");
    assert_eq!(plans(&world.look(1)), 0, "the next only when that one stands");
    world.settles();
    assert_eq!(world.spread(), [("here".to_owned(), 2), ("n1".to_owned(), 2)].into());
    world.does(Step::Leave(0));
    world.settles();
    assert_eq!(world.spread(), [("here".to_owned(), 4)].into());
}

#[test]
fn nothing_moves_while_a_deployment_is_on_its_way() {
    let mut world = World::new(service(2));
    world.does(Step::Join(0));
    world.does(Step::Look(9));
    assert_eq!(world.spread(), [("here".to_owned(), 1), ("n1".to_owned(), 1)].into(), "new ones are spread");
    world.does(Step::Leave(0));
    let before = world.spread();
    for _ in 0..5 {
        let decisions = world.look(250);
        assert!(!decisions.iter().any(|d| matches!(d, Decision::Plan { .. } | Decision::Retire { .. })));
    }
    assert_eq!(world.spread(), before);
    world.settles();
    assert_eq!(world.spread(), [("here".to_owned(), 2)].into());
}

#[test]
fn a_host_on_which_a_service_does_not_come_up_is_left_alone_for_a_while() {
    let mut world = World::new(service(2));
    world.settles();
    world.does(Step::Join(0));
    assert!(world.look(250).iter().any(|d| matches!(d, Decision::Plan { host: Some(_), .. })));
    world.look(250);
    world.now += 31_000;
    let given_up = world.look(250);
    let [Decision::Retire { why, .. }] = &given_up[..] else { panic!("{given_up:?}") };
    assert!(why.contains("not healthy within 30 s"), "{why}");
    world.settles();
    assert_eq!(world.spread(), [("here".to_owned(), 2)].into(), "it runs as before");
    world.now += 600_000;
    world.settles();
    assert_eq!(world.spread(), [("here".to_owned(), 1), ("n1".to_owned(), 1)].into());
}

#[test]
fn a_service_that_can_run_nowhere_else_stays_on_the_servers_own_host() {
    let mut world = World::new(PlannedService { port: Some(80), ..service(3) });
    world.does(Step::Join(0));
    world.settles();
    world.does(Step::LeaveHere);
    world.settles();
    assert_eq!(world.spread(), [("here".to_owned(), 3)].into());
}
