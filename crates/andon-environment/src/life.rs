//! When an environment ends, when that is announced, when it sleeps and wakes. Pure: the estate, who used what and the time in.

use std::collections::{BTreeMap, BTreeSet};

use andon_model::{EnvironmentName, Span, Time};

use crate::estate::{Environment, Estate};

/// How long before its end people are told, longest first.
pub const WARNINGS: [Span; 3] = [Span::secs(2 * 86_400), Span::secs(2 * 3600), Span::secs(30 * 60)];
/// The longest life that may be asked for at once.
pub const LONGEST: Span = Span::secs(30 * 86_400);

/// What is seen of environments from outside.
#[derive(Debug, Clone, Default)]
pub struct Use {
    /// When somebody sent the last request there; none: not since the server started.
    pub last: BTreeMap<EnvironmentName, Time>,
    /// Somebody waits there for an answer that only a running instance can give.
    pub asked_for: BTreeSet<EnvironmentName>,
    /// When the server started: before that nobody watched.
    pub since: Time,
    /// Environments that sleep when unused, and after how long.
    pub sleep_after: BTreeMap<EnvironmentName, Span>,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// Destroy it, for this reason.
    End(EnvironmentName, &'static str),
    /// Say that it ends within this span.
    Warn(EnvironmentName, Span),
    /// Stop it, for this reason.
    Sleep(EnvironmentName, String),
    /// Start it again.
    Wake(EnvironmentName),
}

/// The next decisions.
pub fn plan(estate: &Estate, seen: &Use, now: Time) -> Vec<Decision> {
    let alive = estate.environments.values().filter(|e| e.destroying.is_none());
    alive.filter_map(|environment| decide(estate, environment, seen, now)).collect()
}

fn decide(estate: &Estate, environment: &Environment, seen: &Use, now: Time) -> Option<Decision> {
    let name = || environment.name.clone();
    if environment.expires.is_some_and(|end| end <= now) {
        return Some(Decision::End(name(), "its time is over"));
    }
    if environment.change.is_some_and(|change| estate.abandoned.contains(&change)) {
        return Some(Decision::End(name(), "its change was taken back"));
    }
    if let Some(left) = warning(environment, now) {
        return Some(Decision::Warn(name(), left));
    }
    if environment.asleep.is_some() {
        return seen.asked_for.contains(&environment.name).then(|| Decision::Wake(name()));
    }
    let after = *seen.sleep_after.get(&environment.name)?;
    // Neither a deployment on its way nor a release watches over a sleeping environment.
    let busy = estate.deployments.values().any(|d| d.environment == environment.name && d.under_way())
        || environment.serving.values().any(|serving| serving.incoming.is_some());
    let last = seen.last.get(&environment.name).copied().unwrap_or(seen.since);
    let newest = estate.newest(&environment.name).map_or(environment.created, |d| d.up.unwrap_or(d.started));
    let idle = now.since(last.max(newest).max(environment.woken.unwrap_or(newest)));
    let runs = environment.serving.values().any(|serving| serving.stable.is_some());
    (!busy && runs && idle >= after).then(|| Decision::Sleep(name(), format!("nobody used it for {after}")))
}

/// The warning that is due: the shortest span that reaches beyond the end, unless it was given. A life that is hardly longer than a warning
/// gets none of it.
fn warning(environment: &Environment, now: Time) -> Option<Span> {
    let end = environment.expires?;
    let (left, whole) = (end.since(now), end.since(environment.created));
    let due = WARNINGS.into_iter().rev().find(|span| left <= *span && span.0 < whole.0 / 2)?;
    environment.warned.is_none_or(|given| due < given).then_some(due)
}

#[cfg(test)]
mod tests {
    use super::*;
    use andon_model::event::{Event, Recorded};
    use andon_model::{Actor, ChangeId};

    const HOUR: i64 = 3_600_000;

    fn estate(events: Vec<Event>) -> Estate {
        let mut estate = Estate::default();
        for event in events {
            estate.evolve(&Recorded { seq: 1, at: Time(0), by: Actor::line("test"), project: None, event });
        }
        estate
    }

    fn demo() -> EnvironmentName {
        "demo".parse().unwrap()
    }

    fn created(hours: i64, change: Option<ChangeId>) -> Event {
        let expires = Some(Time(hours * HOUR));
        Event::EnvironmentCreated { environment: demo(), like: None, standing: false, expires, change }
    }

    #[test]
    fn an_end_is_announced_once_at_each_step_and_again_after_an_extension() {
        let mut events = vec![created(72, None)];
        let due = |events: &[Event], hour: f64| {
            plan(&estate(events.to_vec()), &Use::default(), Time((hour * HOUR as f64) as i64))
        };
        assert_eq!(due(&events, 23.0), []);
        for (hour, span) in [(70.5, WARNINGS[1]), (71.6, WARNINGS[2])] {
            assert_eq!(due(&events, hour), [Decision::Warn(demo(), span)]);
            events.push(Event::ExpiryNear { environment: demo(), left: span });
            assert_eq!(due(&events, hour + 0.1), []);
        }
        assert_eq!(due(&events, 72.0), [Decision::End(demo(), "its time is over")]);
        events.push(Event::EnvironmentExtended { environment: demo(), expires: Some(Time(73 * HOUR)) });
        assert_eq!(due(&events, 72.6), [Decision::Warn(demo(), WARNINGS[2])]);
    }

    #[test]
    fn an_environment_of_a_change_ends_with_the_change() {
        let abandoned = Event::ChangeAbandoned { change: ChangeId(7), why: String::new() };
        let estate = estate(vec![created(8, Some(ChangeId(7))), abandoned]);
        let decided = plan(&estate, &Use::default(), Time(1));
        assert_eq!(decided, [Decision::End(demo(), "its change was taken back")]);
    }

    #[test]
    fn nothing_sleeps_that_runs_nothing_and_whoever_asks_wakes_a_sleeper() {
        let mut seen = Use { sleep_after: [(demo(), Span::secs(60))].into(), ..Use::default() };
        assert_eq!(plan(&estate(vec![created(72, None)]), &seen, Time(2 * HOUR)), []);
        let asleep = Event::EnvironmentAsleep { environment: demo(), asleep: true, why: String::new() };
        let sleeper = estate(vec![created(72, None), asleep]);
        assert_eq!(plan(&sleeper, &seen, Time(2 * HOUR)), []);
        seen.asked_for.insert(demo());
        assert_eq!(plan(&sleeper, &seen, Time(2 * HOUR)), [Decision::Wake(demo())]);
    }
}
