//! Stories of promotion and upkeep, told as events.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use andon_environment::data;
use andon_environment::promote::{self, Declared};
use andon_environment::upkeep::{self, Observation, Seen, Wishes, pause};
use andon_environment::{DeploymentState, Estate, Exception};
use andon_model::event::{
    DataMigrated, DataWanted, Event, Phase, PlannedService, Purpose, Recorded, ReleaseEnd, Revision,
    RuntimeKind,
};
use andon_model::{
    Actor, AndonId, ChangeId, DeploymentId, Digest, EnvironmentName, InstanceId, Oid, Pins, ReleaseId, RunId,
    ServiceName, Span, Strategy, Time,
};

struct Story {
    estate: Estate,
    now: i64,
    /// What goes with the artifacts that are built from now on.
    pins: Pins,
    wishes: Wishes,
}

fn name(text: &str) -> EnvironmentName {
    text.parse().unwrap()
}
fn web() -> ServiceName {
    "web".parse().unwrap()
}
fn commit(n: u32) -> Oid {
    format!("{n:040x}").parse().unwrap()
}
fn artifact(n: u32) -> Digest {
    Digest::of(&n.to_be_bytes())
}
fn declared() -> Vec<Declared> {
    ["staging", "production"].into_iter().map(|n| Declared { name: name(n), on_green: true }).collect()
}

impl Story {
    fn new() -> Story {
        let mut story =
            Story { estate: Estate::default(), now: 0, pins: Pins::default(), wishes: Wishes::default() };
        for environment in ["staging", "production"] {
            story.then(Event::EnvironmentCreated {
                environment: name(environment),
                like: None,
                standing: true,
                expires: None,
                change: None,
            });
        }
        story
    }
    fn then(&mut self, event: Event) {
        self.now += 1000;
        let recorded = Recorded {
            seq: self.now as u64,
            at: Time(self.now),
            by: Actor::line("test"),
            project: None,
            event,
        };
        self.estate.evolve(&recorded);
    }
    fn builds(&mut self, run: u32, content: u32) {
        self.then(Event::ArtifactBuilt {
            run: RunId(run),
            artifact: artifact(content),
            bytes: 1,
            commit: commit(run),
            pins: self.pins.clone(),
        });
    }
    /// A change lands with an artifact; the same artifact number is the same content.
    fn lands(&mut self, change: u32, content: u32) {
        let run = RunId(change);
        self.builds(change, content);
        self.then(Event::Landed {
            change: ChangeId(change),
            patch_set: 1,
            run,
            commit: commit(change),
            parent: None,
            tested_tree: commit(1),
            landed_tree: commit(1),
        });
    }
    fn due(&self, hold: &[AndonId]) -> Vec<(String, u32)> {
        let decisions = promote::plan(&self.estate, &declared(), hold);
        let one = |decision: promote::Decision| match decision {
            promote::Decision::Create { environment } => (environment.to_string(), 0),
            promote::Decision::Deploy(candidate) => (candidate.environment.to_string(), candidate.run.0),
        };
        decisions.into_iter().map(one).collect()
    }
    /// Everything that is due is deployed; returns the numbers.
    fn deploys(&mut self) -> Vec<u32> {
        let decisions = promote::plan(&self.estate, &declared(), &[]);
        let mut made = Vec::new();
        for decision in decisions {
            let promote::Decision::Deploy(candidate) = decision else { continue };
            let deployment = self.estate.next_deployment();
            self.then(Event::DeploymentStarted {
                deployment,
                environment: candidate.environment,
                artifact: candidate.artifact,
                commit: candidate.commit,
                run: candidate.run,
                services: vec![PlannedService { replicas: 2, ..PlannedService::new(web(), &["x"]) }],
                changes: candidate.changes,
                runtime: RuntimeKind::Process,
                pins: candidate.pins,
            });
            made.push(deployment.0);
        }
        made
    }
    fn look(&self, seen: &Observation) -> Vec<upkeep::Decision> {
        upkeep::plan(&self.estate, seen, &self.wishes, Time(self.now))
    }
    /// Plans instances until none is missing, and all of them are healthy.
    fn comes_up(&mut self, deployment: u32) {
        let d = self.estate.deployments[&DeploymentId(deployment)].clone();
        for _ in 0..2 {
            let instance = self.estate.next_instance();
            let (environment, service, revision) = (d.environment.clone(), web(), d.revision());
            self.then(Event::InstancePlanned {
                instance,
                environment,
                service,
                revision,
                port: 1,
                address: None,
                host: None,
            });
            self.then(Event::InstanceHealthy { instance });
        }
        self.then(Event::DeploymentFinished { deployment: d.id, ok: true, why: String::new() });
        self.then(Event::EnvironmentTested {
            deployment: d.id,
            environment: d.environment.clone(),
            ok: true,
            why: String::new(),
            log: None,
        });
    }
    fn released(&mut self, deployment: u32, how: ReleaseEnd) {
        let d = self.estate.deployments[&DeploymentId(deployment)].clone();
        let release = ReleaseId(deployment);
        let from =
            self.estate.environments[&d.environment].serving.get(&web()).and_then(|s| s.stable.clone());
        self.then(Event::ReleaseStarted {
            release,
            deployment: d.id,
            environment: d.environment.clone(),
            service: web(),
            from,
            to: d.revision(),
            strategy: Strategy::AllAtOnce,
            strategy_name: "all-at-once".into(),
            limits_us: vec![],
        });
        self.then(Event::ReleaseFinished {
            release,
            how,
            why: "x".into(),
            explanation: serde_json::Value::Null,
        });
    }
    fn through(&mut self, deployment: u32) {
        self.comes_up(deployment);
        self.released(deployment, ReleaseEnd::Released);
    }
    fn alive(&self) -> Observation {
        let seen = |id: &InstanceId| (*id, Seen::Alive { health: Some(Ok(())), failing: Span(0) });
        Observation { instances: self.estate.instances.keys().map(seen).collect(), ..Observation::default() }
    }
}

#[test]
fn a_declared_environment_that_is_missing_is_created() {
    let story = Story { estate: Estate::default(), now: 0, pins: Pins::default(), wishes: Wishes::default() };
    assert_eq!(story.due(&[]), [("staging".to_owned(), 0), ("production".to_owned(), 0)]);
}

#[test]
fn production_takes_only_what_staging_released() {
    let mut story = Story::new();
    story.lands(1, 1);
    assert_eq!(story.due(&[]), [("staging".to_owned(), 1)]);
    assert_eq!(story.deploys(), [1]);
    assert_eq!(story.due(&[]), [], "nothing overtakes a deployment that is under way");
    story.through(1);
    assert_eq!(story.due(&[]), [("production".to_owned(), 1)]);
}

#[test]
fn what_was_taken_back_is_not_tried_again_but_the_next_landing_is() {
    let mut story = Story::new();
    story.lands(1, 1);
    story.deploys();
    story.through(1);
    story.deploys();
    story.comes_up(2);
    story.released(2, ReleaseEnd::TakenBack);
    assert_eq!(story.due(&[]), []);
    story.lands(2, 2);
    assert_eq!(story.due(&[]), [("staging".to_owned(), 2)]);
}

#[test]
fn a_change_that_leaves_the_artifact_as_it_is_goes_nowhere_and_a_revert_after_a_failure_does() {
    let mut story = Story::new();
    story.lands(1, 1);
    story.deploys();
    story.through(1);
    story.deploys();
    story.through(2);
    story.lands(2, 1);
    assert_eq!(story.due(&[]), [], "the artifact serves everywhere already");
    story.lands(3, 3);
    let bad = story.deploys()[0];
    story.then(Event::DeploymentFinished { deployment: DeploymentId(bad), ok: false, why: "x".into() });
    story.lands(4, 1);
    assert_eq!(story.due(&[]), [("staging".to_owned(), 4)], "the revert is proven where it failed");
}

#[test]
fn while_the_line_is_stopped_only_a_fix_moves_on() {
    let mut story = Story::new();
    story.lands(1, 1);
    assert_eq!(story.due(&[AndonId(7)]), []);
}

#[test]
fn a_service_gets_as_many_instances_as_it_wants_and_no_more() {
    let mut story = Story::new();
    story.lands(1, 1);
    story.deploys();
    let plans = |story: &Story| {
        story.look(&story.alive()).iter().filter(|d| matches!(d, upkeep::Decision::Plan { .. })).count()
    };
    assert_eq!(plans(&story), 2);
    story.comes_up(1);
    assert_eq!(plans(&story), 0);
}

#[test]
fn a_deployment_whose_instance_dies_before_it_was_healthy_is_given_up() {
    let mut story = Story::new();
    story.lands(1, 1);
    story.deploys();
    let revision = story.estate.deployments[&DeploymentId(1)].revision();
    story.then(Event::InstancePlanned {
        instance: InstanceId(1),
        environment: name("staging"),
        service: web(),
        revision,
        port: 1,
        address: None,
        host: None,
    });
    let mut seen = Observation::default();
    seen.instances.insert(InstanceId(1), Seen::Exited { words: "no such file".into() });
    let given_up = story.look(&seen).into_iter().find_map(|decision| match decision {
        upkeep::Decision::GiveUp { why, .. } => Some(why),
        _ => None,
    });
    assert!(given_up.unwrap().contains("no such file"));
}

#[test]
fn a_changed_file_is_drift_and_the_instance_is_replaced() {
    let mut story = Story::new();
    story.lands(1, 1);
    story.deploys();
    story.through(1);
    let mut seen = story.alive();
    seen.files.push((InstanceId(1), "app.py".into(), "sha256:1".into(), "sha256:2".into()));
    let decisions = story.look(&seen);
    assert!(
        decisions
            .iter()
            .any(|d| matches!(d, upkeep::Decision::Drift { drift, .. } if drift.what.contains("app.py")))
    );
    assert!(decisions.iter().any(|d| matches!(d, upkeep::Decision::Retire { instance: InstanceId(1), .. })));
    story.then(Event::InstanceRetired { instance: InstanceId(1), why: "drift".into() });
    let again = story.look(&story.alive());
    assert!(!again.iter().any(|d| matches!(d, upkeep::Decision::Drift { .. })), "it is said once");
    assert!(
        again.iter().any(|d| matches!(d, upkeep::Decision::Plan { .. })),
        "the first replacement comes at once"
    );
}

#[test]
fn an_instance_that_gives_no_good_answer_for_long_is_replaced() {
    let mut story = Story::new();
    story.lands(1, 1);
    story.deploys();
    story.through(1);
    let mut seen = story.alive();
    let failing = |span| Seen::Alive { health: Some(Err("500".into())), failing: span };
    seen.instances.insert(InstanceId(1), failing(Span::secs(1)));
    assert!(!story.look(&seen).iter().any(|d| matches!(d, upkeep::Decision::Retire { .. })));
    seen.instances.insert(InstanceId(1), failing(upkeep::UNHEALTHY));
    assert!(story.look(&seen).iter().any(|d| matches!(d, upkeep::Decision::Retire { .. })));
}

#[test]
fn replacements_come_slower_and_slower_up_to_a_limit() {
    let pauses: Vec<u64> = (0..9).map(|n| pause(n).0 / 1000).collect();
    assert_eq!(pauses, [0, 0, 2, 6, 18, 54, 162, 300, 300]);
}

#[test]
fn a_revision_that_serves_nobody_is_stopped_only_when_nobody_is_on_the_way() {
    let mut story = Story::new();
    story.lands(1, 1);
    story.deploys();
    story.through(1);
    story.lands(2, 2);
    story.deploys();
    story.comes_up(3.min(story.estate.deployments.len() as u32));
    let newest =
        story.estate.deployments.values().rev().find(|d| d.environment == name("staging")).unwrap().id;
    story.released(newest.0, ReleaseEnd::Released);
    let retired: Vec<InstanceId> = story
        .look(&story.alive())
        .into_iter()
        .filter_map(|d| match d {
            upkeep::Decision::Retire { instance, .. } => Some(instance),
            _ => None,
        })
        .collect();
    assert_eq!(retired, [InstanceId(1), InstanceId(2)]);
    story.then(Event::InstanceRetired { instance: InstanceId(1), why: "x".into() });
    let removes = |seen: &Observation| story.look(seen).contains(&upkeep::Decision::Remove(InstanceId(1)));
    assert!(!removes(&story.alive()));
    let mut idle = story.alive();
    idle.idle.insert(InstanceId(1));
    assert!(removes(&idle));
}

#[test]
fn a_rebuild_repeats_the_same_deployment_once_all_is_gone() {
    let mut story = Story::new();
    story.lands(1, 1);
    story.deploys();
    story.through(1);
    story.then(Event::EnvironmentDestroyed { environment: name("staging"), rebuild: true, why: "x".into() });
    assert_eq!(
        story.due(&[]).iter().filter(|(e, _)| e == "staging").count(),
        0,
        "first everything is stopped"
    );
    let ids: Vec<InstanceId> = story.estate.instances.keys().copied().collect();
    ids.into_iter().for_each(|id| story.estate.forget(id));
    let again = promote::plan(&story.estate, &declared(), &[]);
    assert!(
        again.iter().any(|d| matches!(d, promote::Decision::Deploy(c) if c.repeats == Some(DeploymentId(1))))
    );
}

#[test]
fn a_rebuilt_environment_keeps_nothing_warm_of_what_it_held_before() {
    let mut story = Story::new();
    story.lands(1, 1);
    story.deploys();
    story.through(1);
    let old = story.estate.deployments[&DeploymentId(1)].revision();
    story.then(Event::EnvironmentDestroyed { environment: name("staging"), rebuild: true, why: "x".into() });
    let ids: Vec<InstanceId> = story.estate.instances.keys().copied().collect();
    ids.into_iter().for_each(|id| story.estate.forget(id));
    story.deploys();
    story.wishes.keep_warm.insert((name("staging"), old.clone()));
    let decisions = story.look(&story.alive());
    let planned =
        |d: &&upkeep::Decision| matches!(d, upkeep::Decision::Plan { revision, .. } if *revision == old);
    assert_eq!(decisions.iter().filter(planned).count(), 0);
}

#[test]
fn a_stranger_is_put_on_display_and_ended() {
    let story = Story::new();
    let seen = Observation { foreign: vec![(name("staging"), 77, "nc -l".into())], ..Observation::default() };
    let decisions = story.look(&seen);
    assert!(
        decisions
            .iter()
            .any(|d| matches!(d, upkeep::Decision::Drift { drift, .. } if drift.after == "nc -l"))
    );
    assert!(decisions.iter().any(|d| matches!(d, upkeep::Decision::Kill { pid: 77, .. })));
}

#[test]
fn a_release_that_was_taken_back_leaves_the_old_revision_serving() {
    let mut story = Story::new();
    story.lands(1, 1);
    story.deploys();
    story.through(1);
    let before: Option<Revision> = story.estate.environments[&name("staging")].serving[&web()].stable.clone();
    story.lands(2, 2);
    story.deploys();
    let newest =
        story.estate.deployments.values().rev().find(|d| d.environment == name("staging")).unwrap().id;
    story.comes_up(newest.0);
    story.released(newest.0, ReleaseEnd::TakenBack);
    assert_eq!(story.estate.environments[&name("staging")].serving[&web()].stable, before);
    assert!(matches!(story.estate.deployments[&newest].state, DeploymentState::Failed { .. }));
}

#[test]
fn the_same_artifact_with_another_configuration_is_another_change() {
    let mut story = Story::new();
    story.lands(1, 1);
    story.deploys();
    story.comes_up(1);
    story.released(1, ReleaseEnd::Released);
    story.deploys();
    story.comes_up(2);
    story.released(2, ReleaseEnd::Released);
    assert!(story.due(&[]).is_empty());
    story.pins = Pins { configuration: Some(Digest::of(b"three replicas")), ..Pins::default() };
    story.lands(2, 1);
    assert_eq!(story.due(&[]), [("staging".to_owned(), 2)], "the artifact is the same, what runs is not");
}

#[test]
fn production_takes_only_what_staging_released_with_the_same_things_beside_it() {
    let mut story = Story::new();
    let production = name("production");
    let refusal = |story: &Story| {
        let landing = story.estate.landings.last().unwrap();
        promote::refusal(&story.estate, &declared(), &production, landing).map(|refused| refused.why)
    };
    story.lands(1, 1);
    assert_eq!(refusal(&story), Some(format!("staging has not released {} yet", commit(1).short())));
    story.deploys();
    story.comes_up(1);
    story.released(1, ReleaseEnd::Released);
    assert_eq!(refusal(&story), None);
    let folders = [("infra".to_owned(), commit(9))].into();
    story.pins = Pins { folders, ..Pins::default() };
    story.lands(2, 1);
    let why = refusal(&story).unwrap();
    assert!(why.contains("the folder infra differs"), "{why}");
}

fn created(environment: &str, change: Option<u32>) -> Event {
    Event::EnvironmentCreated {
        environment: name(environment),
        like: Some(name("production")),
        standing: false,
        expires: Some(Time(i64::MAX)),
        change: change.map(ChangeId),
    }
}

#[test]
fn an_environment_of_a_change_shows_its_newest_artifact_before_it_landed() {
    let mut story = Story::new();
    story.then(created("try-it", Some(4)));
    assert!(story.due(&[]).is_empty(), "nothing is built yet");
    for run in [4, 5] {
        let (parent, jobs) = (None, Vec::new());
        let purpose = Purpose::Gate { change: ChangeId(4), patch_set: run };
        let (commit, tree) = (commit(run), commit(run));
        story.then(Event::RunQueued {
            run: RunId(run),
            purpose,
            commit,
            tree,
            parent,
            jobs,
            plan: None,
            again: None,
        });
        story.builds(run, run);
        assert_eq!(story.due(&[]), [("try-it".to_owned(), run)]);
        let made = story.deploys()[0];
        story.comes_up(made);
        story.released(made, ReleaseEnd::Released);
        assert!(story.due(&[]).is_empty(), "each is tried once");
    }
}

#[test]
fn nothing_goes_into_a_held_environment_and_it_is_looked_after_all_the_same() {
    let mut story = Story::new();
    story.lands(1, 1);
    story.deploys();
    story.comes_up(1);
    story.released(1, ReleaseEnd::Released);
    story.then(Event::EnvironmentHeld { environment: name("staging"), why: Some("fair on Friday".into()) });
    story.lands(2, 2);
    let due = story.due(&[]);
    assert!(due.iter().all(|(environment, _)| environment != "staging"), "{due:?}");
    let gone = story.look(&Observation::default());
    assert!(gone.iter().any(|d| matches!(d, upkeep::Decision::Drift { .. })), "{gone:?}");
    story.then(Event::EnvironmentHeld { environment: name("staging"), why: None });
    assert!(story.due(&[]).contains(&("staging".to_owned(), 2)));
}

#[test]
fn what_a_tainted_environment_released_since_counts_for_nothing_until_it_is_rebuilt() {
    let mut story = Story::new();
    story.lands(1, 1);
    story.deploys();
    story.comes_up(1);
    story.then(Event::EnvironmentTainted { environment: name("staging"), why: "a shell".into() });
    story.released(1, ReleaseEnd::Released);
    assert!(story.due(&[]).is_empty(), "production must not get it");
    let landing = story.estate.landings.last().unwrap().clone();
    for place in ["staging", "production"] {
        let refused = promote::refusal(&story.estate, &declared(), &name(place), &landing).unwrap();
        assert!(
            refused.why.contains("staging is tainted by") && refused.why.ends_with(": a shell"),
            "{refused:?}"
        );
        assert!(refused.hint.contains("andon env rebuild staging"), "{refused:?}");
    }
    let environment = name("staging");
    story.then(Event::EnvironmentDestroyed {
        environment: environment.clone(),
        rebuild: true,
        why: String::new(),
    });
    for id in [1, 2] {
        story.estate.forget(InstanceId(id));
    }
    assert_eq!(story.due(&[]), [("staging".to_owned(), 1)], "the same again, from code");
}

#[test]
fn more_instances_are_started_fewer_retire_the_youngest_and_a_sleeper_has_none() {
    let mut story = Story::new();
    story.lands(1, 1);
    story.deploys();
    story.comes_up(1);
    story.released(1, ReleaseEnd::Released);
    let seen = story.alive();
    let scale = |replicas| Event::ServiceScaled { environment: name("staging"), service: web(), replicas };
    assert!(story.look(&seen).is_empty());
    story.then(scale(Some(4)));
    let plans = |d: &&upkeep::Decision| matches!(d, upkeep::Decision::Plan { .. });
    assert_eq!(story.look(&seen).iter().filter(plans).count(), 2);
    story.then(scale(Some(1)));
    let why = "fewer are wanted".to_owned();
    assert_eq!(story.look(&seen), [upkeep::Decision::Retire { instance: InstanceId(2), why }]);
    story.then(scale(None));
    let asleep =
        |asleep| Event::EnvironmentAsleep { environment: name("staging"), asleep, why: String::new() };
    story.then(asleep(true));
    let retired = |d: &&upkeep::Decision| matches!(d, upkeep::Decision::Retire { .. });
    assert_eq!(story.look(&seen).iter().filter(retired).count(), 2);
    story.then(asleep(false));
    assert!(story.look(&seen).is_empty());
}

#[test]
fn a_difference_that_is_allowed_for_a_while_is_no_drift_until_then() {
    let mut story = Story::new();
    story.lands(1, 1);
    story.deploys();
    story.comes_up(1);
    story.released(1, ReleaseEnd::Released);
    let mut seen = story.alive();
    let file = (InstanceId(1), "cache/a".to_owned(), "absent".to_owned(), "sha256:1".to_owned());
    seen.files.push(file);
    let drifts =
        |story: &Story| story.look(&seen).iter().any(|d| matches!(d, upkeep::Decision::Drift { .. }));
    assert!(drifts(&story));
    let until = Time(story.now + 10);
    let rule = Exception { what: "file cache/*".into(), why: "it is a cache".into(), until };
    story.wishes.ignores.insert(name("staging"), vec![rule]);
    assert!(!drifts(&story));
    story.now += 10;
    assert!(drifts(&story));
}

#[test]
fn nothing_is_taken_away_from_tables_that_somebody_went_back_to() {
    let mut story = Story::new();
    let (staging, database): (_, andon_model::DatabaseName) = (name("staging"), "main".parse().unwrap());
    story.lands(1, 1);
    story.deploys();
    story.through(1);
    story.lands(2, 2);
    let second = DeploymentId(story.deploys()[0]);
    assert_eq!(story.estate.deployments[&second].environment, staging);
    story.then(Event::DataWanted(DataWanted {
        deployment: second,
        environment: staging.clone(),
        commit: commit(2),
        databases: [(database.clone(), Some("db".to_owned()))].into(),
    }));
    story.then(Event::DatabaseMade {
        environment: staging.clone(),
        database,
        name: "andon_shop_staging_main".into(),
        template: None,
    });
    story.then(Event::DataMigrated(DataMigrated {
        deployment: second,
        environment: staging.clone(),
        phase: Phase::Expand,
        ok: true,
        why: String::new(),
        schema: Default::default(),
    }));
    let contracts = |story: &Story| {
        let due = data::due(&story.estate, &Default::default());
        due.contains(&data::Due::Migrate(second, Phase::Contract))
    };
    story.through(second.0);
    assert!(contracts(&story), "everybody is on it");
    // Users go back to the revision before, which still needs what would be taken away.
    let first = story.estate.deployments[&DeploymentId(1)].clone();
    let release = ReleaseId(99);
    story.then(Event::ReleaseStarted {
        release,
        deployment: first.id,
        environment: staging,
        service: web(),
        from: Some(story.estate.deployments[&second].revision()),
        to: first.revision(),
        strategy: Strategy::AllAtOnce,
        strategy_name: "roll-back".into(),
        limits_us: vec![],
    });
    assert!(!contracts(&story), "somebody is on the way");
    let explanation = serde_json::Value::Null;
    story.then(Event::ReleaseFinished { release, how: ReleaseEnd::Released, why: "x".into(), explanation });
    assert!(!contracts(&story), "everybody is back on the one before");
}
