//! The destroy guard against 10,000 generated plans and a naive scan that was written without it.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

use andon_environment::blueprint::{Action, Plan, ResourceChange};
use andon_environment::guard::{NotApproved, Protected, expired, guarded};
use andon_environment::infrastructure::{Infrastructure, Run};
use andon_model::event::{Actor, Event, InfraAction, InfraPlanned, InfraQueued, Recorded};
use andon_model::{Digest, InfraRunId, Span, Time, UserName};
use proptest::prelude::*;

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        Just(Action::NoOp),
        Just(Action::Create),
        Just(Action::Read),
        Just(Action::Update),
        Just(Action::Delete),
        Just(Action::Forget),
        Just(Action::Unknown("vanish".into())),
    ]
}

fn change() -> impl Strategy<Value = ResourceChange> {
    let kind = prop_oneof![Just("aws_db"), Just("null_resource"), Just("cache_item"), Just("cache")];
    (kind, 0u8..4, proptest::collection::vec(action(), 1..3), prop::bool::weighted(0.1)).prop_map(
        |(kind, n, actions, deposed)| ResourceChange {
            address: format!("module.m.{kind}.r{n}"),
            kind: kind.into(),
            actions,
            reason: None,
            replaced_by: vec![],
            deposed,
            attributes: vec![],
        },
    )
}

/// Written as one would explain it to a child, over the JSON and not over the types.
fn naive(plan: &serde_json::Value, harmless_kinds: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for change in plan["changes"].as_array().unwrap() {
        let mut bad = change["deposed"].as_bool().unwrap();
        for action in change["actions"].as_array().unwrap() {
            match action.as_str() {
                Some("no_op" | "create" | "read" | "update") => {}
                _ => bad = true,
            }
        }
        if bad && !harmless_kinds.contains(&change["kind"].as_str().unwrap()) {
            found.push(change["address"].as_str().unwrap().to_owned());
        }
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]
    #[test]
    fn nothing_that_ends_passes_the_guard_of_a_protected_environment(
        changes in proptest::collection::vec(change(), 0..12), lists in 0u8..3
    ) {
        let plan = Plan { changes, ..Plan::default() };
        let (harmless, kinds): (Vec<String>, Vec<&str>) = match lists {
            0 => (vec![], vec![]),
            1 => (vec!["null_resource".into()], vec!["null_resource"]),
            _ => (vec!["cache*".into(), "null_resource".into()], vec!["cache", "cache_item", "null_resource"]),
        };
        let protected = Protected { approvals: 1, harmless, approvers: vec![], backup_within: None };
        let held: Vec<String> = guarded(&plan, Some(&protected)).into_iter().map(|g| g.address).collect();
        prop_assert_eq!(&held, &naive(&serde_json::to_value(&plan).unwrap(), &kinds));
        prop_assert!(guarded(&plan, None).is_empty());
    }
}

fn may_approve(run: &Run, who: &UserName, typed: &str) -> Result<(), NotApproved> {
    andon_environment::guard::may_approve(run, who, typed, None, Time(1))
}

fn waiting(approvals: u32) -> Infrastructure {
    let mut all = Infrastructure::default();
    let mut tell = |by: Actor, event| all.evolve(&Recorded { seq: 1, at: Time(1), by, project: None, event });
    let oid: andon_model::Oid = "a".repeat(40).parse().unwrap();
    let asked = InfraQueued {
        run: InfraRunId(1),
        environment: "production".parse().unwrap(),
        action: InfraAction::Apply,
        commit: oid.clone(),
        tree: oid,
        folder: "infra".into(),
        variables: Default::default(),
        playbook: None,
        deployment: None,
        why: "asked".into(),
    };
    tell(Actor::User("ann".parse().unwrap()), Event::InfraQueued(asked));
    let planned = InfraPlanned {
        run: InfraRunId(1),
        counts: Default::default(),
        shown: Digest::of(b"x"),
        guarded: vec!["aws_db.main".into()],
        approvals,
        approvers: vec![],
        backup_within: None,
    };
    tell(Actor::line("infrastructure"), Event::InfraPlanned(planned));
    all
}

#[test]
fn two_different_people_approve_and_the_author_is_none_of_them() {
    let mut all = waiting(2);
    let (ann, bob, eve) = ("ann".parse().unwrap(), "bob".parse().unwrap(), "eve".parse().unwrap());
    let run = |all: &Infrastructure| all.runs[&InfraRunId(1)].clone();
    assert_eq!(may_approve(&run(&all), &ann, "production"), Err(NotApproved::Author(ann.clone())));
    assert!(matches!(may_approve(&run(&all), &bob, "staging"), Err(NotApproved::OtherName(_))));
    may_approve(&run(&all), &bob, "production").unwrap();
    let approve = |all: &mut Infrastructure, who: &andon_model::UserName| {
        let event = Event::InfraApproved { run: InfraRunId(1), why: "looked at it".into() };
        all.evolve(&Recorded { seq: 2, at: Time(2), by: Actor::User(who.clone()), project: None, event });
    };
    approve(&mut all, &bob);
    assert_eq!(may_approve(&run(&all), &bob, "production"), Err(NotApproved::Twice(bob)));
    assert_eq!(run(&all).missing(), 1);
    approve(&mut all, &eve);
    assert_eq!(run(&all).missing(), 0);
    assert!(matches!(may_approve(&run(&all), &ann, "production"), Err(NotApproved::NotWaiting(_))));
}

#[test]
fn one_alone_may_approve_their_own_where_one_is_enough() {
    let all = waiting(1);
    may_approve(&all.runs[&InfraRunId(1)], &"ann".parse().unwrap(), "production").unwrap();
}

#[test]
fn only_those_who_are_named_approve_and_the_last_one_needs_a_young_backup() {
    let all = waiting(1);
    let mut run = all.runs[&InfraRunId(1)].clone();
    let planned = run.planned.as_mut().unwrap();
    planned.approvers = vec!["bob".parse().unwrap()];
    planned.backup_within = Some(Span::secs(900));
    let (ann, bob): (UserName, UserName) = ("ann".parse().unwrap(), "bob".parse().unwrap());
    let stranger = may_approve(&run, &ann, "production").unwrap_err();
    assert!(stranger.to_string().contains("hint: ask one of bob"), "{stranger}");
    let now = Time(10_000_000);
    let approve =
        |run: &Run, backup| andon_environment::guard::may_approve(run, &bob, "production", backup, now);
    let none = approve(&run, None).unwrap_err();
    assert!(none.to_string().contains("none at all") && none.to_string().contains("andon backup"), "{none}");
    assert!(approve(&run, Some(Time(now.0 - 900_001))).is_err());
    approve(&run, Some(Time(now.0 - 900_000))).unwrap();
    // Where another person has to approve as well, theirs is the moment.
    run.planned.as_mut().unwrap().approvals = 2;
    approve(&run, None).unwrap();
}

#[test]
fn a_plan_expires_once_it_waited_long_enough_and_nothing_else_does() {
    let all = waiting(1);
    let mut run = all.runs[&InfraRunId(1)].clone();
    let day = Span::secs(24 * 3600);
    assert_eq!(expired(&run, Time(day.0 as i64), day), None);
    let why = expired(&run, Time(day.0 as i64 + 1), day).unwrap();
    assert!(why.contains("nobody approved") && why.contains("hint:"), "{why}");
    run.stage = andon_environment::infrastructure::Stage::Applying;
    assert_eq!(expired(&run, Time(day.0 as i64 * 9), day), None);
}
