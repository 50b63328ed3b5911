//! The laws of a release: one by one on small stories, then all together on random ones.

use std::collections::BTreeMap;

use andon_model::event::{Event, Recorded, ReleaseEnd, Revision};
use andon_model::strategy::{Analysis, Strategy};
use andon_model::{Actor, DeploymentId, EnvironmentName, ReleaseId, ServiceName, Time};
use proptest::prelude::*;
use proptest::strategy::Strategy as Generate;

use super::{Decision, Mirror, Observed, plan};
use crate::analysis::tests::sample;
use crate::command::{self, Refusal};
use crate::explain::{Explanation, look};
use crate::state::{Fact, ROLL_BACK, Release, Releases};
use crate::waiting::waits_for;

const R1: ReleaseId = ReleaseId(1);
const CAREFUL: &str = concat!(
    r#"{"canary":[{"weight":5,"for":"2s"},{"weight":25,"until":"certified","for":"60s"},"#,
    r#"{"weight":50,"until":"approved"}]}"#
);

/// A release on its way through a journal of its own.
struct Story {
    releases: Releases,
    journal: Vec<Recorded>,
    seen: Observed,
    now: Time,
}

impl Story {
    fn new(strategy: &str) -> Story {
        let seen = Observed { candidate_healthy: true, stable_healthy: true, ..Observed::default() };
        let mut story =
            Story { releases: Releases::default(), journal: Vec::new(), seen, now: Time(1_000_000) };
        story.start(R1, Some("1111111-D1"), "2222222-D2", strategy, "some");
        story
    }

    fn start(&mut self, release: ReleaseId, from: Option<&str>, to: &str, strategy: &str, name: &str) {
        self.record(Event::ReleaseStarted {
            release,
            deployment: DeploymentId(release.0 + 1),
            environment: production(),
            service: web(),
            from: from.map(|from| Revision(from.into())),
            to: Revision(to.into()),
            strategy: serde_json::from_str(strategy).unwrap(),
            strategy_name: name.into(),
            limits_us: Vec::new(),
        });
    }

    fn record(&mut self, event: Event) {
        let seq = self.journal.len() as u64 + 1;
        let recorded = Recorded { seq, at: self.now, by: Actor::line("test"), project: None, event };
        self.releases.evolve(&recorded);
        self.journal.push(recorded);
    }

    fn obey(&mut self, decisions: Vec<Decision>) {
        decisions.into_iter().for_each(|decision| self.record(decision.into()));
    }

    /// Plans until nothing is left to do at this moment.
    fn settle(&mut self) -> &mut Story {
        for _ in 0..100 {
            let observed =
                self.releases.iter().map(|r| (r.id, self.seen.clone())).collect::<BTreeMap<_, _>>();
            let decisions = plan(&self.releases, &observed, self.now);
            if decisions.is_empty() {
                return self;
            }
            self.obey(decisions);
        }
        panic!("it never settles: {:?}", self.newest());
    }

    fn after(&mut self, ms: i64) -> &mut Story {
        self.now.0 += ms;
        self.settle()
    }

    fn newest(&self) -> &Release {
        self.releases.iter().next_back().unwrap()
    }

    fn weight(&self) -> u16 {
        self.newest().weight_bp
    }

    fn how(&self) -> Option<ReleaseEnd> {
        self.newest().ended.as_ref().map(|end| end.how)
    }

    fn waits(&self) -> String {
        waits_for(self.newest(), &self.seen, self.now)
    }

    fn ask(
        &mut self,
        command: impl Fn(&Release, &Observed) -> Result<Vec<Decision>, Refusal>,
    ) -> Result<(), String> {
        let decisions = command(self.newest(), &self.seen).map_err(|refusal| refusal.to_string())?;
        self.obey(decisions);
        Ok(())
    }
}

fn production() -> EnvironmentName {
    "production".parse().unwrap()
}

fn web() -> ServiceName {
    "web".parse().unwrap()
}

fn healthy(weight_bp: u16) -> Explanation {
    let stable = 8_000 * u64::from(10_000 - weight_bp) / u64::from(weight_bp);
    look(&Analysis::default(), "2222222", &sample(weight_bp, (8_000, 40), (stable, stable / 200)), 0.0)
}

fn regressed(weight_bp: u16) -> Explanation {
    look(&Analysis::default(), "2222222", &sample(weight_bp, (400, 60), (7_600, 38)), 0.0)
}

fn little(weight_bp: u16) -> Explanation {
    look(&Analysis::default(), "2222222", &sample(weight_bp, (100, 0), (300, 1)), 0.0)
}

#[test]
fn a_canary_goes_by_time_by_proof_and_by_approval_to_everyone() {
    let mut story = Story::new(CAREFUL);
    assert_eq!(story.settle().weight(), 500);
    assert_eq!(story.waits(), "step 1 of 3 at 5%, for another 2.0 s");
    story.seen.look = Some(healthy(500));
    assert_eq!(story.after(1_999).weight(), 500);
    assert_eq!(
        story.after(1).weight(),
        2_500,
        "a proof from the users of an earlier step does not end the next one"
    );
    story.seen.look = Some(little(2_500));
    assert_eq!(story.after(20_000).weight(), 2_500);
    assert!(
        story.waits().starts_with("step 2 of 3 at 25%, until certified below 2x, 100 users of about "),
        "{}",
        story.waits()
    );
    assert!(
        story.waits().ends_with("seen; for at most another 40 s, then it holds until promoted"),
        "{}",
        story.waits()
    );
    story.seen.look = Some(healthy(2_500));
    assert_eq!(story.after(1).weight(), 5_000);
    assert!(
        story.after(3_600_000).waits().contains("until a releaser approves it; waits for 1 h"),
        "{}",
        story.waits()
    );
    story.ask(|r, _| command::approve(r)).unwrap();
    assert_eq!((story.settle().weight(), story.how()), (10_000, Some(ReleaseEnd::Released)));
}

#[test]
fn where_the_old_revision_cannot_serve_any_more_a_release_is_frozen_and_not_taken_back() {
    let mut story = Story::new(CAREFUL);
    story.settle();
    story.seen.lost = Some("the migration 3.contract took away what it needs".into());
    // Neither a regression nor the death of the new revision moves anybody back.
    story.seen.look = Some(regressed(500));
    assert_eq!((story.settle().weight(), story.how()), (500, None));
    assert!(
        story.waits().starts_with("frozen for ") && story.waits().contains("3.contract"),
        "{}",
        story.waits()
    );
    story.seen.candidate_healthy = false;
    assert_eq!((story.after(60_000).weight(), story.how()), (500, None));
    story.seen.candidate_healthy = true;
    assert!(story.ask(command::promote).unwrap_err().contains("proven worse"));
    let refused = story.ask(|r, seen| command::abort(r, seen, "x")).unwrap_err();
    assert!(refused.contains("cannot be taken back") && refused.contains("go forward"), "{refused}");
    // A person overrules it, and it goes on to everybody.
    story.ask(|r, _| command::resume(r)).unwrap();
    story.seen.look = Some(healthy(500));
    assert_eq!(story.after(2_000).weight(), 2_500);
    // Where the old revision can serve, the same is taken back.
    let mut story = Story::new(CAREFUL);
    story.settle().seen.look = Some(regressed(500));
    assert_eq!((story.settle().weight(), story.how()), (0, Some(ReleaseEnd::TakenBack)));
}

#[test]
fn a_release_that_is_over_can_be_frozen_and_says_so() {
    let mut story = Story::new(CAREFUL);
    story.start(ReleaseId(2), None, "3333333-D3", r#""all-at-once""#, "some");
    story.settle();
    assert_eq!(story.how(), Some(ReleaseEnd::Released));
    story.obey(vec![Decision::Fact(ReleaseId(2), Fact::Frozen { why: "a column is gone".into() })]);
    assert!(story.waits().ends_with("there is no way back behind it: a column is gone"), "{}", story.waits());
    assert_eq!(story.how(), Some(ReleaseEnd::Released));
}

#[test]
fn without_a_proof_a_step_holds_or_goes_on_as_the_strategy_says() {
    for (policy, weight) in [("hold", 2_500), ("promote", 5_000)] {
        let mut story = Story::new(&CAREFUL.replace("]}", &format!(r#"],"on_inconclusive":"{policy}"}}"#)));
        story.settle().after(2_000);
        story.seen.look = Some(little(2_500));
        assert_eq!(story.after(60_000).weight(), weight, "{policy}");
    }
}

#[test]
fn a_regression_takes_everyone_back_even_when_paused_or_held() {
    for (paused, held) in [(false, false), (true, false), (false, true)] {
        let mut story = Story::new(CAREFUL);
        story.settle();
        if paused {
            story.ask(|r, _| command::pause(r, "lunch")).unwrap();
        }
        (story.seen.look, story.seen.held) = (Some(regressed(500)), held);
        assert_eq!((story.settle().weight(), story.how()), (0, Some(ReleaseEnd::TakenBack)));
        let Event::ReleaseFinished { why, explanation, .. } = &story.journal.last().unwrap().event else {
            panic!()
        };
        assert!(why.starts_with("2222222 fails 30"), "{why}");
        let stored: Explanation = serde_json::from_value(explanation.clone()).unwrap();
        assert_eq!(stored.again(), stored);
    }
}

#[test]
fn a_strategy_may_ask_for_a_pause_and_a_person_may_overrule_it() {
    let mut story = Story::new(&CAREFUL.replace("]}", r#"],"on_regression":"pause"}"#));
    story.settle();
    story.seen.look = Some(regressed(500));
    assert_eq!(story.after(5_000).weight(), 500);
    assert!(story.waits().starts_with("paused by the line (test)"), "{}", story.waits());
    assert!(story.ask(command::promote).unwrap_err().contains("proven worse"));
    story.ask(|r, _| command::resume(r)).unwrap();
    assert_eq!(story.after(2_000).weight(), 2_500);
}

#[test]
fn nobody_is_sent_to_a_revision_without_a_healthy_instance() {
    for strategy in
        [CAREFUL, r#""all-at-once""#, r#"{"rolling":{}}"#, r#"{"blue-green":{}}"#, r#"{"dark":{}}"#]
    {
        let mut story = Story::new(strategy);
        story.seen.candidate_healthy = false;
        assert_eq!((story.after(600_000).weight(), story.how()), (0, None), "{strategy}");
        assert!(story.waits().starts_with("for a healthy instance of 2222222"), "{}", story.waits());
        assert!(story.ask(command::promote).unwrap_err().contains("no healthy instance"));
    }
    let mut story = Story::new(CAREFUL);
    assert_eq!(story.settle().weight(), 500);
    story.seen.candidate_healthy = false;
    assert_eq!((story.settle().weight(), story.how()), (0, Some(ReleaseEnd::TakenBack)));
}

#[test]
fn nobody_is_sent_back_to_a_revision_without_a_healthy_instance() {
    let mut story = Story::new(CAREFUL);
    story.settle();
    (story.seen.look, story.seen.stable_healthy) = (Some(regressed(500)), false);
    assert_eq!((story.settle().weight(), story.how()), (500, None));
    assert!(story.waits().contains("the old revision has no healthy instance"), "{}", story.waits());
    assert!(story.ask(|r, s| command::abort(r, s, "bad")).unwrap_err().contains("cannot be taken back"));
}

#[test]
fn the_plain_strategies_move_everyone_once_and_rolling_moves_in_equal_steps() {
    for strategy in [r#""all-at-once""#, r#"{"blue-green":{}}"#] {
        let mut story = Story::new(strategy);
        assert_eq!((story.settle().weight(), story.how()), (10_000, Some(ReleaseEnd::Released)));
    }
    let mut story = Story::new(r#"{"rolling":{"step":40,"each":"1s"}}"#);
    let weights: Vec<u16> = (0..4)
        .map(|_| {
            story.settle();
            story.now.0 += 1_000;
            story.weight()
        })
        .collect();
    assert_eq!(weights, [4_000, 8_000, 10_000, 10_000]);
}

#[test]
fn the_first_revision_of_a_service_gets_everyone_at_once() {
    for strategy in [CAREFUL, r#"{"dark":{}}"#] {
        let mut story = Story::new(r#""all-at-once""#);
        story.settle();
        story.start(ReleaseId(2), None, "3333333-D3", strategy, "careful");
        assert_eq!((story.settle().weight(), story.how()), (10_000, Some(ReleaseEnd::Released)));
    }
}

#[test]
fn a_dark_launch_moves_nobody_and_ends_by_time_or_by_too_many_differences() {
    let dark = r#"{"dark":{"mirror":100,"for":"20s","max_different":"1%"}}"#;
    for (compared, different, ms, how) in [
        (1_000, 5, 20_000, Some(ReleaseEnd::DarkEnded)),
        (0, 0, 20_000, Some(ReleaseEnd::DarkEnded)),
        (20, 1, 10_000, None),
        (1_000, 200, 10_000, Some(ReleaseEnd::TakenBack)),
        (1_000, 11, 20_000, Some(ReleaseEnd::TakenBack)),
    ] {
        let mut story = Story::new(dark);
        story.settle();
        story.seen.mirror = Mirror { compared, different };
        assert_eq!((story.after(ms).how(), story.weight()), (how, 0), "{different} of {compared}");
        let says = if compared == 0 { "no request came".into() } else { format!("{different} of ") };
        assert!(story.waits().contains(&says), "{}", story.waits());
    }
}

#[test]
fn a_pause_costs_a_step_no_time_and_the_stopped_line_freezes_the_ramp() {
    let mut story = Story::new(CAREFUL);
    story.settle().after(1_500);
    story.ask(|r, _| command::pause(r, "lunch")).unwrap();
    assert!(story.ask(|r, _| command::pause(r, "again")).is_err());
    assert_eq!(story.after(60_000).weight(), 500);
    story.ask(|r, _| command::resume(r)).unwrap();
    assert_eq!(story.after(499).weight(), 500);
    story.seen.held = true;
    assert_eq!(story.after(1).weight(), 500);
    assert!(story.ask(command::promote).unwrap_err().contains("the line is stopped"));
    story.seen.held = false;
    assert_eq!(story.settle().weight(), 2_500);
}

#[test]
fn the_way_back_leads_to_the_revision_before_and_is_not_held() {
    let mut story = Story::new(r#""all-at-once""#);
    let back = |story: &Story, healthy: bool| {
        command::roll_back(&story.releases, &production(), &web(), |_| healthy)
    };
    assert!(back(&story, true).unwrap_err().what.contains("still moving"));
    story.settle();
    assert!(
        back(&story, true).unwrap_err().what.contains("first revision"),
        "what brought it is not known here"
    );
    story.start(ReleaseId(2), Some("2222222-D2"), "3333333-D3", r#""all-at-once""#, "all-at-once");
    story.settle();
    assert!(back(&story, false).unwrap_err().what.contains("no healthy instance"));
    let way = back(&story, true).unwrap();
    assert_eq!((way.from.commit(), way.to.commit(), way.deployment), ("3333333", "2222222", DeploymentId(2)));
    story.seen.held = true;
    story.start(ReleaseId(3), Some(&way.from.0), &way.to.0, r#""all-at-once""#, ROLL_BACK);
    assert_eq!((story.settle().weight(), story.how()), (10_000, Some(ReleaseEnd::Released)));
}

#[test]
fn where_nobody_is_served_the_stopped_line_holds_nothing() {
    let mut story = Story::new(r#""all-at-once""#);
    story.settle();
    story.record(Event::EnvironmentDestroyed {
        environment: production(),
        rebuild: true,
        why: "rebuilt".into(),
    });
    story.seen.held = true;
    story.start(ReleaseId(2), None, "2222222-D3", CAREFUL, "careful");
    assert_eq!((story.settle().weight(), story.how()), (10_000, Some(ReleaseEnd::Released)));
}

#[test]
fn what_is_over_takes_no_command_and_a_destroyed_environment_ends_its_releases() {
    let mut story = Story::new(CAREFUL);
    story.settle();
    story.ask(|r, s| command::abort(r, s, "second thoughts")).unwrap();
    assert_eq!((story.weight(), story.how()), (0, Some(ReleaseEnd::Aborted)));
    assert!(story.ask(command::promote).unwrap_err().contains("is over: second thoughts"));
    let mut story = Story::new(CAREFUL);
    story.settle();
    story.record(Event::EnvironmentDestroyed {
        environment: production(),
        rebuild: true,
        why: "rebuilt".into(),
    });
    assert_eq!((story.weight(), story.how()), (0, Some(ReleaseEnd::Aborted)));
}

/// One thing that may happen in a random story.
#[derive(Debug, Clone)]
enum Turn {
    Wait(i64),
    See { look: Option<Explanation>, mirror: Mirror, candidate: bool, stable: bool, held: bool },
    Ask(u8),
    Strange(Fact),
}

fn turns() -> impl Generate<Value = Turn> {
    let weight = prop_oneof![Just(500u16), Just(2_500), Just(5_000), Just(10_000)];
    let counts = (0u64..3_000, 0u64..40, 0u64..9_000, 0u64..40);
    let looks = (weight, counts).prop_map(|(w, (c, ch, s, sh))| {
        look(&Analysis::default(), "2222222", &sample(w, (c.max(ch), ch), (s.max(sh), sh)), 0.0)
    });
    let mirror = (0u64..2_000, 0u64..100).prop_map(|(c, d)| Mirror { compared: c, different: d.min(c) });
    let often = || prop::bool::weighted(0.9);
    let see = (prop::option::of(looks), mirror, often(), often(), prop::bool::weighted(0.2)).prop_map(
        |(look, mirror, candidate, stable, held)| Turn::See { look, mirror, candidate, stable, held },
    );
    let strange = prop_oneof![
        (0u32..9).prop_map(|stage| Fact::StageStarted { stage, why: "strange".into() }),
        any::<bool>().prop_map(|regression| Fact::Paused { why: "strange".into(), regression }),
        Just(Fact::Resumed),
        Just(Fact::Approved),
    ];
    prop_oneof![
        4 => (0i64..70_000).prop_map(Turn::Wait),
        4 => see,
        2 => (0u8..5).prop_map(Turn::Ask),
        1 => strange.prop_map(Turn::Strange),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn no_story_breaks_a_law(
        strategy in prop_oneof![
            Just(CAREFUL.to_owned()),
            Just(CAREFUL.replace("]}", r#"],"on_regression":"pause","on_inconclusive":"promote"}"#)),
            Just(r#"{"rolling":{"step":30,"each":"5s"}}"#.to_owned()),
            Just(r#"{"dark":{"for":"30s"}}"#.to_owned()),
            Just(r#"{"blue-green":{}}"#.to_owned()),
        ],
        turns in prop::collection::vec(turns(), 1..40),
    ) {
        let mut story = Story::new(&strategy);
        for turn in turns {
            match turn {
                Turn::Wait(ms) => story.now.0 += ms,
                Turn::See { look, mirror, candidate, stable, held } => {
                    let (candidate_healthy, stable_healthy) = (candidate, stable);
                    story.seen =
                        Observed { look, mirror, candidate_healthy, stable_healthy, held, lost: None };
                }
                Turn::Ask(what) => {
                    let before = story.newest().clone();
                    let asked = story.ask(|r, s| match what {
                        0 => command::promote(r, s),
                        1 => command::pause(r, "why not"),
                        2 => command::resume(r),
                        3 => command::approve(r),
                        _ => command::abort(r, s, "enough"),
                    });
                    lawful(&before, story.newest(), &story.seen);
                    prop_assert!(before.ended.is_none() || asked.is_err());
                }
                Turn::Strange(fact) => story.obey(vec![Decision::Fact(R1, fact)]),
            }
            let before = story.newest().clone();
            story.settle();
            lawful(&before, story.newest(), &story.seen);
            prop_assert!(!story.waits().is_empty());
        }
        let mut again = Releases::default();
        story.journal.iter().for_each(|recorded| again.evolve(recorded));
        prop_assert_eq!(again, story.releases);
    }
}

/// What holds between two moments of a release.
fn lawful(before: &Release, after: &Release, seen: &Observed) {
    let went_up = after.weight_bp > before.weight_bp;
    assert!(!went_up || seen.candidate_healthy, "users were sent to a dead revision");
    assert!(!went_up || before.paused.is_none(), "a paused release went on");
    assert!(!went_up || !seen.held, "a held release went on");
    let proven = super::regression(before, seen).is_some();
    assert!(!went_up || !proven, "a release that is proven worse went on");
    assert!(!went_up || before.ended.is_none(), "a release that is over went on");
    let went_down = after.weight_bp < before.weight_bp;
    match after.ended.as_ref().map(|end| end.how) {
        Some(ReleaseEnd::TakenBack | ReleaseEnd::Aborted | ReleaseEnd::DarkEnded) => {
            assert_eq!(after.weight_bp, 0)
        }
        Some(ReleaseEnd::Released) => assert_eq!(after.weight_bp, 10_000),
        None => assert!(!went_down, "the ramp went down without an end"),
    }
    assert!(
        !matches!(after.strategy, Strategy::Dark(_)) || after.weight_bp == 0,
        "a dark launch moved users"
    );
}
