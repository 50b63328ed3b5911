//! The state machine of the http backend against the facts of the protocol: any sequence of what tools and people do, beside a model that is
//! written in another way.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

use andon_environment::states::{Denied, Offer, States};
use andon_model::event::{Actor, Event, LockInfo, Recorded, StoredState};
use andon_model::{Digest, StateName, Time};
use proptest::prelude::*;

/// What somebody does to one state.
#[derive(Debug, Clone)]
enum Act {
    Lock(u8),
    Unlock(u8),
    Force,
    /// Under which lock, by how much the serial differs from the newest, which lineage, which bytes.
    Store(Option<u8>, i64, u8, u8),
    Restore(u32),
    Delete(Option<u8>),
}

fn acts() -> impl Strategy<Value = Act> {
    let lock = || proptest::option::of(0u8..3);
    prop_oneof![
        (0u8..3).prop_map(Act::Lock),
        (0u8..3).prop_map(Act::Unlock),
        Just(Act::Force),
        (lock(), -2i64..3, prop_oneof![4 => Just(0u8), 1 => Just(1u8)], 0u8..3)
            .prop_map(|(l, s, li, b)| Act::Store(l, s, li, b)),
        (0u32..6).prop_map(Act::Restore),
        lock().prop_map(Act::Delete),
    ]
}

/// The plainest thing that could be right: a list and an option.
#[derive(Default)]
struct Model {
    lock: Option<u8>,
    all: Vec<(u64, u8, u8)>,
    empty: bool,
}

fn name() -> StateName {
    "production/network".parse().unwrap()
}

fn info(id: u8) -> LockInfo {
    LockInfo {
        id: format!("lock-{id}"),
        operation: "OperationTypeApply".into(),
        who: format!("user-{id}@host"),
        version: "1.11.4".into(),
        run: None,
        maintenance: false,
    }
}

fn take(states: &mut States, events: Vec<Event>) {
    for event in events {
        states.evolve(&Recorded { seq: 1, at: Time(5), by: Actor::line("t"), project: None, event });
    }
}

fn stored(serial: u64, lineage: u8, bytes: u8, restored_from: Option<u32>) -> Event {
    let version = StoredState {
        serial,
        lineage: format!("lineage-{lineage}"),
        digest: Digest::of(&[bytes]),
        blob: Digest::of(&[bytes, 1]),
        bytes: 1,
        lock: None,
        restored_from,
        recovered: None,
    };
    Event::StateStored { state: name(), version }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn nothing_is_lost_overwritten_or_written_by_who_does_not_hold_the_lock(acts in proptest::collection::vec(acts(), 1..60)) {
        let (mut states, mut model) = (States::default(), Model::default());
        for act in acts {
            match act {
                Act::Lock(id) => {
                    let answer = states.lock(&name(), info(id));
                    prop_assert_eq!(answer.is_ok(), model.lock.is_none_or(|held| held == id));
                    if let Ok(events) = answer { take(&mut states, events); model.lock = Some(id); }
                }
                Act::Unlock(id) => {
                    let answer = states.unlock(&name(), &format!("lock-{id}"));
                    prop_assert_eq!(answer.is_ok(), model.lock.is_none_or(|held| held == id));
                    if let Ok(events) = answer { take(&mut states, events); model.lock = None; }
                }
                Act::Force => { let events = states.force_unlock(&name(), "asked"); take(&mut states, events); model.lock = None; }
                Act::Store(lock, step, lineage, bytes) => {
                    let newest = model.all.last().copied().filter(|_| !model.empty);
                    let serial = (newest.map_or(0, |n| n.0 as i64) + step).max(0) as u64;
                    let offer = Offer { serial, lineage: format!("lineage-{lineage}"), digest: Digest::of(&[bytes]), lock: lock.map(|l| format!("lock-{l}")) };
                    let answer = states.may_store(&name(), &offer);
                    let expected = if lock != model.lock { None } else { match newest {
                        None => Some(true),
                        Some((_, l, _)) if l != lineage => None,
                        Some((s, _, b)) if s == serial && b == bytes => Some(false),
                        Some((s, _, _)) => (serial > s).then_some(true),
                    }};
                    prop_assert_eq!(answer.clone().ok(), expected, "{:?}", answer);
                    if answer == Ok(true) {
                        take(&mut states, vec![stored(serial, lineage, bytes, None)]);
                        model.all.push((serial, lineage, bytes)); model.empty = false;
                    }
                }
                Act::Restore(version) => {
                    let answer = states.restore(&name(), version).map(|(v, serial)| (v.stored.clone(), serial));
                    let there = version >= 1 && version as usize <= model.all.len();
                    prop_assert_eq!(answer.is_ok(), there && model.lock.is_none());
                    if let Ok((old, serial)) = answer {
                        prop_assert!(model.all.iter().all(|(s, ..)| *s < serial));
                        let (_, lineage, bytes) = model.all[version as usize - 1];
                        prop_assert_eq!(old.lineage, format!("lineage-{lineage}"));
                        take(&mut states, vec![stored(serial, lineage, bytes, Some(version))]);
                        model.all.push((serial, lineage, bytes)); model.empty = false;
                    }
                }
                Act::Delete(lock) => {
                    let answer = states.delete(&name(), lock.map(|l| format!("lock-{l}")).as_deref());
                    prop_assert_eq!(answer.is_ok(), lock == model.lock);
                    if let Ok(events) = answer { take(&mut states, events); model.empty = true; }
                }
            }
            let held = states.get(&name()).and_then(|s| s.lock.as_ref()).map(|l| l.info.id.clone());
            prop_assert_eq!(held, model.lock.map(|l| format!("lock-{l}")));
            let kept: Vec<u64> = states.get(&name()).map(|s| s.versions.iter().map(|v| v.stored.serial).collect()).unwrap_or_default();
            prop_assert_eq!(kept, model.all.iter().map(|(s, ..)| *s).collect::<Vec<_>>());
            prop_assert_eq!(states.newest(&name()).is_some(), !model.all.is_empty() && !model.empty);
        }
    }
}

#[test]
fn the_refusal_of_a_lock_names_who_holds_it_since_when_and_how_to_free_it() {
    let mut states = States::default();
    let events = states.lock(&name(), info(1)).unwrap();
    take(&mut states, events);
    let Err(Denied::Locked { holder, .. }) = states.lock(&name(), info(2)) else { panic!("two hold it") };
    let words = holder.sentence(&name(), Time(180_005));
    assert!(words.contains("user-1@host") && words.contains("apply of production/network"), "{words}");
    assert!(words.contains("3 min ago") && words.contains("lock-1"), "{words}");
}

#[test]
fn a_maintenance_lock_keeps_tools_out_and_lets_a_restore_through() {
    let mut states = States::default();
    take(&mut states, vec![stored(4, 0, 0, None)]);
    let mine = LockInfo { maintenance: true, ..info(1) };
    let events = states.lock(&name(), mine).unwrap();
    take(&mut states, events);
    assert!(states.lock(&name(), info(2)).is_err());
    assert_eq!(states.restore(&name(), 1).unwrap().1, 5);
}
