//! When what differs from infrastructure code may be applied again: at once, unless the same thing was healed a moment ago. Pure.
//!
//! The pause grows with how often the very same difference was healed, and with each attempt that did not help; what differs for the first
//! time does not wait because something else did. Who changes one thing after the other is slowed down as well, later.

use std::collections::BTreeMap;

use andon_model::event::{Drift, Event, Recorded};
use andon_model::{EnvironmentName, Time};

use crate::upkeep::{self, MEMORY};

/// Healings of anything at all that count like one of the same thing.
const OF_ALL: usize = 4;

/// What was healed by the infrastructure tool, and when.
#[derive(Debug, Clone, Default)]
pub struct Healings {
    times: BTreeMap<(EnvironmentName, String), Vec<Time>>,
}

impl Healings {
    /// Whether what differs here has to wait. `attempts`: ends of the runs that were to heal this environment, by this tool.
    pub fn rests(
        &self,
        environment: &EnvironmentName,
        differs: &[&(Time, Drift)],
        attempts: &[Time],
        now: Time,
    ) -> bool {
        let recent = |at: &&Time| now.since(**at) < MEMORY;
        let Some(last) = attempts.iter().filter(recent).max() else { return false };
        let first = differs.iter().map(|(seen, _)| *seen).min().unwrap_or(now);
        let in_vain = attempts.iter().filter(recent).filter(|ended| **ended > first).count();
        let of = |what: &str| self.times.get(&(environment.clone(), what.to_owned()));
        let times = |what: &str| of(what).map_or(0, |times| times.iter().filter(recent).count());
        let same = differs.iter().map(|(_, drift)| times(&drift.what)).max().unwrap_or(0);
        let all = attempts.iter().filter(recent).count() / OF_ALL;
        now < *last + upkeep::pause(1 + (in_vain + same).max(all))
    }

    /// Takes in what happened.
    pub fn evolve(&mut self, recorded: &Recorded) {
        let Event::DriftHealed { environment, what, .. } = &recorded.event else { return };
        if upkeep::found_by(what).is_none() {
            return;
        }
        let at = recorded.at;
        self.times.retain(|_, times| times.last().is_some_and(|last| at.since(*last) < MEMORY));
        let times = self.times.entry((environment.clone(), what.clone())).or_default();
        times.retain(|time| at.since(*time) < MEMORY);
        times.push(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use andon_model::Actor;
    use proptest::prelude::*;

    fn name() -> EnvironmentName {
        "production".parse().unwrap()
    }

    fn drift(what: &str, seen: i64) -> (Time, Drift) {
        let (before, after) = ("a".to_owned(), "b".to_owned());
        let drift = Drift { service: None, instance: None, what: what.into(), before, after };
        (Time(seen * 1000), drift)
    }

    fn healed(all: &mut Healings, what: &str, at: i64) {
        let event = Event::DriftHealed { environment: name(), what: what.into(), how: "again".into() };
        all.evolve(&Recorded { seq: 1, at: Time(at * 1000), by: Actor::line("t"), project: None, event });
    }

    fn rests(all: &Healings, differs: &(Time, Drift), attempts: &[i64], now: i64) -> bool {
        let attempts: Vec<Time> = attempts.iter().map(|at| Time(at * 1000)).collect();
        all.rests(&name(), &[differs], &attempts, Time(now * 1000))
    }

    #[test]
    fn what_differs_for_the_first_time_does_not_wait_because_something_else_was_healed() {
        let mut all = Healings::default();
        healed(&mut all, "host web1: The page", 10);
        assert!(!rests(&all, &drift("host web1: The password", 11), &[10], 11));
        assert!(rests(&all, &drift("host web1: The page", 11), &[10], 11), "the same thing waits 2 s");
        assert!(!rests(&all, &drift("host web1: The page", 11), &[10], 12));
    }

    #[test]
    fn the_same_thing_waits_longer_each_time_and_an_attempt_in_vain_counts() {
        let mut all = Healings::default();
        let page = "host web1: The page";
        healed(&mut all, page, 10);
        healed(&mut all, page, 20);
        assert!(
            rests(&all, &drift(page, 21), &[10, 20], 25) && !rests(&all, &drift(page, 21), &[10, 20], 26)
        );
        // Seen at 5, and still there after two runs.
        let none = Healings::default();
        assert!(
            rests(&none, &drift(page, 5), &[10, 20], 25) && !rests(&none, &drift(page, 5), &[10, 20], 26)
        );
        // Long ago is forgotten.
        assert!(!rests(&all, &drift(page, 700), &[10, 20], 700));
    }

    proptest! {
        #[test]
        fn whatever_flaps_is_healed_less_and_less_often(others in 0usize..3) {
            let (mut all, mut attempts, mut now) = (Healings::default(), Vec::new(), 0i64);
            let mut pauses = Vec::new();
            for round in 0..6 {
                // A moment after it was healed it differs again, and so does something new.
                let mut differs = vec![drift("resource a.b", now)];
                differs.extend((0..others).map(|n| drift(&format!("resource new.{round}-{n}"), now)));
                let seen: Vec<&(Time, Drift)> = differs.iter().collect();
                let ended: Vec<Time> = attempts.iter().map(|at| Time(at * 1000)).collect();
                let begun = now;
                while all.rests(&name(), &seen, &ended, Time(now * 1000)) {
                    now += 1;
                }
                pauses.push(now - begun);
                attempts.push(now);
                differs.iter().for_each(|(_, drift)| healed(&mut all, &drift.what, now));
            }
            prop_assert_eq!(pauses, vec![0, 2, 6, 18, 54, 162]);
        }
    }
}
