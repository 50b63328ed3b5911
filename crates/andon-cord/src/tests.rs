//! The rules, as stories over a journal.

use andon_model::event::{
    Cause, Drift, Event, Purpose, Push, Recorded, ReleaseEnd, Revision, TestCounts, Verdict,
};
use andon_model::strategy::Strategy;
use andon_model::{Actor, AndonId, ChangeId, DeploymentId, Digest, InstanceId, ReleaseId, RunId, Span, Time};
use proptest::prelude::*;

use crate::{Cord, PullOn, command, react, recover};

/// A journal with a line that reacts to it, as the server does: every event is followed by what the rules make of it.
struct Line {
    cord: Cord,
    journal: Vec<Recorded>,
    policy: PullOn,
}

impl Line {
    fn new() -> Line {
        let mut line = Line { cord: Cord::default(), journal: vec![], policy: PullOn::default() };
        for (name, standing) in [("staging", true), ("production", true), ("mine", false)] {
            line.happens(Event::EnvironmentCreated {
                environment: name.parse().unwrap(),
                like: None,
                standing,
                expires: None,
                change: None,
            });
        }
        line
    }

    fn records(&mut self, event: Event) -> Recorded {
        let seq = self.journal.len() as u64 + 1;
        let recorded =
            Recorded { seq, at: Time(seq as i64 * 1000), by: Actor::line("cord"), project: None, event };
        self.cord.evolve(&recorded);
        self.journal.push(recorded.clone());
        recorded
    }

    fn happens(&mut self, event: Event) {
        let recorded = self.records(event);
        let follows: Vec<Event> = react(&self.cord, &self.policy, &recorded)
            .into_iter()
            .chain(recover(&self.cord, &recorded))
            .collect();
        for event in follows {
            self.records(event);
        }
        // Rule 5: asked again, the rules answer nothing.
        assert_eq!(react(&self.cord, &self.policy, &recorded), None);
        assert_eq!(recover(&self.cord, &recorded), vec![]);
    }

    fn lands(&mut self, change: u32, fixes: Option<u32>) {
        let identity = String::new();
        self.happens(Event::ChangePushed(Push {
            change: ChangeId(change),
            patch_set: 1,
            head: oid(change),
            title: "t".into(),
            author: "a".into(),
            authored: Time(0),
            identity,
            fixes: fixes.map(AndonId),
            edits_pipeline: false,
            commits: 1,
        }));
        let (commit, tested_tree, landed_tree) = (oid(change), oid(0), oid(0));
        self.happens(Event::Landed {
            change: ChangeId(change),
            patch_set: 1,
            run: RunId(change),
            commit,
            parent: None,
            tested_tree,
            landed_tree,
        });
    }

    fn deploys(&mut self, id: u32, environment: &str, change: u32) {
        self.happens(Event::DeploymentStarted {
            deployment: DeploymentId(id),
            environment: environment.parse().unwrap(),
            artifact: Digest::of(b""),
            commit: oid(change),
            run: RunId(change),
            services: vec![],
            changes: vec![ChangeId(change)],
            runtime: Default::default(),
            pins: Default::default(),
        });
    }

    fn tested(&mut self, id: u32, environment: &str, ok: bool) {
        let environment = environment.parse().unwrap();
        self.happens(Event::EnvironmentTested {
            deployment: DeploymentId(id),
            environment,
            ok,
            why: "smoke said no".into(),
            log: None,
        });
    }

    fn releases(&mut self, id: u32, deployment: u32, how: ReleaseEnd) {
        let (release, why) = (ReleaseId(id), "errors doubled".to_owned());
        self.happens(Event::ReleaseStarted {
            release,
            deployment: DeploymentId(deployment),
            environment: "production".parse().unwrap(),
            service: "web".parse().unwrap(),
            from: None,
            to: Revision("x".into()),
            strategy: Strategy::AllAtOnce,
            strategy_name: "s".into(),
            limits_us: vec![],
        });
        self.happens(Event::ReleaseFinished { release, how, why, explanation: Default::default() });
    }

    fn trunk(&mut self, run: u32, change: u32) {
        let (commit, tree) = (oid(change), oid(change));
        self.happens(Event::RunQueued {
            run: RunId(run),
            purpose: Purpose::Trunk,
            commit,
            tree,
            parent: None,
            jobs: vec![],
            plan: None,
            again: None,
        });
    }

    fn judged(&mut self, run: u32, verdict: Verdict) {
        self.happens(Event::RunFinished {
            run: RunId(run),
            verdict,
            tests: TestCounts::default(),
            coverage: None,
            report: None,
        });
    }

    fn open(&self) -> Vec<u32> {
        self.cord.open().map(|andon| andon.id.0).collect()
    }
}

fn oid(n: u32) -> andon_model::Oid {
    format!("{n:040x}").parse().unwrap()
}

fn red() -> Verdict {
    Verdict::Red { headline: "t failed".into(), reasons: vec![] }
}

#[test]
fn failing_staging_tests_stop_the_line_and_name_the_changes() {
    let mut line = Line::new();
    line.lands(1, None);
    line.deploys(1, "staging", 1);
    line.tested(1, "staging", false);
    let andon = line.cord.open().next().unwrap();
    assert_eq!(andon.why, "staging tests failed: smoke said no");
    assert_eq!(andon.suspects, [ChangeId(1)]);
    let hold = line.cord.hold(None).unwrap();
    assert!(
        hold.says.starts_with(
            "A1 is open: staging tests failed: smoke said no; pulled by the line (cord) at 00:00"
        ),
        "{}",
        hold.says
    );
    assert_eq!(line.cord.hold(Some(AndonId(1))), None);
    assert!(line.cord.hold(Some(AndonId(7))).is_some(), "only an open andon opens the way");
}

#[test]
fn one_andon_is_enough_for_a_place_and_another_place_gets_its_own() {
    let mut line = Line::new();
    line.deploys(1, "staging", 1);
    line.happens(Event::DeploymentFinished { deployment: DeploymentId(1), ok: false, why: "crashed".into() });
    line.deploys(2, "staging", 1);
    line.tested(2, "staging", false);
    assert_eq!(line.open(), [1]);
    line.deploys(3, "production", 1);
    line.tested(3, "production", false);
    line.releases(1, 3, ReleaseEnd::TakenBack);
    line.trunk(9, 1);
    line.judged(9, red());
    assert_eq!(line.open(), [1, 2, 3, 4]);
    assert!(
        line.cord
            .get(AndonId(3))
            .unwrap()
            .why
            .contains("R1 of web in production was taken back: errors doubled")
    );
}

#[test]
fn a_landed_fix_is_proven_only_by_the_place_that_failed() {
    let mut line = Line::new();
    line.lands(1, None);
    line.deploys(1, "staging", 1);
    line.tested(1, "staging", false);
    line.lands(2, Some(1));
    assert_eq!(line.cord.get(AndonId(1)).unwrap().fix.as_ref().unwrap().change, ChangeId(2));
    line.deploys(2, "production", 2);
    line.tested(2, "production", true);
    line.deploys(3, "staging", 1);
    line.tested(3, "staging", true);
    assert_eq!(line.open(), [1], "another place, or an artifact without the fix, proves nothing");
    line.deploys(4, "staging", 2);
    line.tested(4, "staging", true);
    assert!(!line.cord.is_red());
    let andon = line.cord.get(AndonId(1)).unwrap();
    assert_eq!(andon.released.as_ref().unwrap().why, "#2 fixed it: the tests of staging passed with D4");
}

#[test]
fn a_pass_that_began_before_the_fix_landed_proves_nothing() {
    let mut line = Line::new();
    line.lands(1, None);
    line.deploys(1, "staging", 1);
    line.tested(1, "staging", false);
    line.deploys(2, "staging", 1);
    line.lands(2, Some(1));
    line.tested(2, "staging", true);
    assert_eq!(line.open(), [1]);
}

#[test]
fn a_fix_that_does_not_help_is_said_so_and_the_next_one_counts() {
    let mut line = Line::new();
    line.lands(1, None);
    line.trunk(50, 1);
    line.judged(50, red());
    line.lands(2, Some(1));
    line.trunk(51, 2);
    line.judged(51, red());
    let andon = line.cord.get(AndonId(1)).unwrap();
    assert_eq!(andon.timeline.last().unwrap().what, "#2 did not fix it: run-51 on trunk is red: t failed");
    line.trunk(52, 2);
    line.judged(52, Verdict::Green);
    assert_eq!(line.open(), [1], "pass and fail on the same fix prove nothing");
    line.lands(3, Some(1));
    line.trunk(53, 3);
    line.judged(53, Verdict::Broken { why: "disk".into() });
    assert_eq!(line.open(), [1]);
    line.trunk(54, 3);
    line.judged(54, Verdict::Green);
    assert!(!line.cord.is_red());
}

#[test]
fn a_release_that_reaches_everyone_proves_the_fix_of_one_that_was_taken_back() {
    let mut line = Line::new();
    line.lands(1, None);
    line.deploys(1, "production", 1);
    line.releases(1, 1, ReleaseEnd::TakenBack);
    line.lands(2, Some(1));
    line.deploys(2, "production", 2);
    line.tested(2, "production", true);
    assert_eq!(line.open(), [1], "tests passed before the bad release, too");
    line.releases(2, 2, ReleaseEnd::Released);
    assert!(!line.cord.is_red());
}

#[test]
fn an_echo_of_what_is_over_does_not_stop_the_line_again() {
    let mut line = Line::new();
    line.trunk(50, 1);
    line.trunk(51, 1);
    line.judged(50, red());
    line.happens(command::release(&line.cord, AndonId(1), "known and harmless").unwrap());
    line.judged(51, red());
    assert_eq!(line.open(), [0u32; 0]);
    line.trunk(52, 1);
    line.judged(52, red());
    assert_eq!(line.open(), [2]);
}

#[test]
fn overtaken_deployments_and_ones_own_environments_stop_nobody() {
    let mut line = Line::new();
    line.deploys(1, "staging", 1);
    line.deploys(2, "staging", 2);
    line.tested(1, "staging", false);
    line.happens(Event::DeploymentFinished {
        deployment: DeploymentId(1),
        ok: false,
        why: "superseded".into(),
    });
    line.deploys(3, "mine", 2);
    line.tested(3, "mine", false);
    line.happens(Event::EnvironmentDestroyed {
        environment: "staging".parse().unwrap(),
        rebuild: true,
        why: "drill".into(),
    });
    line.happens(Event::DeploymentFinished { deployment: DeploymentId(2), ok: false, why: "gone".into() });
    assert!(!line.cord.is_red());
}

#[test]
fn the_policy_decides_what_pulls_and_people_always_can() {
    let mut line = Line::new();
    line.policy = PullOn { trunk: false, environment: false, production: false };
    line.deploys(1, "staging", 1);
    line.tested(1, "staging", false);
    line.trunk(9, 1);
    line.judged(9, red());
    line.releases(1, 1, ReleaseEnd::TakenBack);
    assert!(!line.cord.is_red());
    line.happens(command::pull(&line.cord, "the shop looks odd", "", vec![]).unwrap());
    assert_eq!(line.cord.get(AndonId(1)).unwrap().cause, Cause::Person);
    line.lands(2, Some(1));
    line.deploys(2, "staging", 2);
    line.tested(2, "staging", true);
    assert!(line.cord.is_red(), "what a person pulled only a person releases");
}

#[test]
fn commands_are_refused_with_a_hint_where_they_make_no_sense() {
    let mut line = Line::new();
    let ann: andon_model::UserName = "ann".parse().unwrap();
    assert!(command::pull(&line.cord, "  ", "", vec![]).is_err());
    assert!(command::acknowledge(&line.cord, AndonId(1), ann.clone()).is_err());
    line.happens(command::pull(&line.cord, "help", "", vec![]).unwrap());
    line.happens(command::acknowledge(&line.cord, AndonId(1), ann.clone()).unwrap());
    assert!(command::acknowledge(&line.cord, AndonId(1), ann).is_err());
    line.happens(command::acknowledge(&line.cord, AndonId(1), "bob".parse().unwrap()).unwrap());
    line.happens(command::note(&line.cord, AndonId(1), "it is the cache").unwrap());
    assert!(command::release(&line.cord, AndonId(1), "").is_err());
    line.happens(command::release(&line.cord, AndonId(1), "cache emptied").unwrap());
    let error = command::release(&line.cord, AndonId(1), "again").unwrap_err().to_string();
    assert!(error.contains("was released by") && error.contains("hint: "), "{error}");
    let andon = line.cord.get(AndonId(1)).unwrap();
    assert_eq!(andon.acknowledged_after(), Some(Span(1000)));
    assert_eq!(andon.red_for(Time(99_000)), Span(4000));
    assert_eq!(andon.timeline.len(), 5);
}

#[test]
fn time_red_counts_overlapping_andons_once() {
    let mut line = Line::new();
    line.happens(command::pull(&line.cord, "one", "", vec![]).unwrap());
    line.happens(command::pull(&line.cord, "two", "", vec![]).unwrap());
    line.happens(command::release(&line.cord, AndonId(1), "x").unwrap());
    line.happens(command::release(&line.cord, AndonId(2), "x").unwrap());
    line.happens(command::pull(&line.cord, "three", "", vec![]).unwrap());
    // Pulled at 4, 5 and 8 s, released at 6 and 7 s.
    assert_eq!(line.cord.red_between(Time(0), Time(10_000)), Span(3000 + 2000));
    assert_eq!(line.cord.red_between(Time(5_000), Time(6_500)), Span(1500));
}

proptest! {
    /// Over any journal: one open andon for a place at most, no andon by the line without its policy, and a replay gives the same cord.
    #[test]
    fn any_journal_keeps_the_laws(steps in proptest::collection::vec((0..9u8, 1..5u32, 1..5u32, any::<bool>()), 0..60)) {
        let mut line = Line::new();
        for (what, a, b, yes) in steps {
            let environment = ["staging", "production", "mine"][b as usize % 3];
            match what {
                0 => line.lands(a, yes.then_some(b)),
                1 => line.deploys(a, environment, b),
                2 => line.tested(a, environment, yes),
                3 => line.happens(Event::DeploymentFinished { deployment: DeploymentId(a), ok: yes, why: "w".into() }),
                4 => line.releases(a, b, if yes { ReleaseEnd::Released } else { ReleaseEnd::TakenBack }),
                5 => line.trunk(a, b),
                6 => line.judged(a, if yes { Verdict::Green } else { red() }),
                7 => if let Ok(event) = command::release(&line.cord, AndonId(a), "because") { line.happens(event) },
                _ => line.happens(Event::EnvironmentDestroyed { environment: environment.parse().unwrap(), rebuild: yes, why: "w".into() }),
            }
            let places: Vec<_> = line.cord.open().filter(|a| a.cause != Cause::Person).map(|a| format!("{:?}", a.place)).collect();
            let mut unique = places.clone();
            unique.sort();
            unique.dedup();
            prop_assert_eq!(unique.len(), places.len());
        }
        let mut again = Cord::default();
        line.journal.iter().for_each(|recorded| again.evolve(recorded));
        prop_assert_eq!(format!("{again:?}"), format!("{:?}", line.cord));
        prop_assert!(line.cord.history().all(|andon| andon.released.is_none() || andon.timeline.len() >= 2));
    }
}

#[test]
fn an_environment_in_which_the_same_thing_drifts_again_and_again_stops_the_line() {
    let mut line = Line::new();
    let seen = |environment: &str, what: &str, instance: u32| Event::DriftSeen {
        environment: environment.parse().unwrap(),
        drift: Drift {
            service: None,
            instance: Some(InstanceId(instance)),
            what: format!("{what} of web i{instance}"),
            before: "a".into(),
            after: "b".into(),
        },
    };
    for instance in 1..=2 {
        line.happens(seen("staging", "file app.py", instance));
        line.happens(seen("staging", "file other.py", instance));
        line.happens(seen("mine", "file app.py", instance));
    }
    line.happens(seen("mine", "file app.py", 3));
    assert!(line.open().is_empty(), "twice is chance, and what somebody made on demand stops nobody");
    line.happens(seen("staging", "file app.py", 3));
    assert_eq!(line.open(), [1]);
    line.happens(seen("staging", "file app.py", 4));
    assert_eq!(line.open(), [1], "one andon for one place");
    line.happens(Event::CordReleased { andon: AndonId(1), why: "it was the backup job".into() });
    line.happens(seen("staging", "file app.py", 5));
    assert!(line.open().is_empty(), "what was seen before counts no more");
    line.happens(seen("staging", "file app.py", 6));
    line.happens(seen("staging", "file app.py", 7));
    assert_eq!(line.open(), [2]);
}
