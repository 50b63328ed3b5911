//! Tests in quarantine: they keep running and reporting, and their failures do not stop a change until a day that is said beforehand. Gives no verdict.
//!
//! A quarantine has an owner, a reason and an end, at most 30 days away. When it ends the test counts again, whether anybody looked or not.

use std::collections::BTreeMap;

use andon_model::event::{Event, Recorded};
use andon_model::{Actor, Span, Time, UserName};
use serde::Serialize;

use crate::order::names;

/// The longest quarantine.
pub const LONGEST: Span = Span::secs(30 * 24 * 3600);
/// Tests in quarantine at the same time: more is no quarantine but a suite that is switched off.
pub const MOST: usize = 200;
/// The longest reason, in characters.
const WORDS: usize = 500;
/// The longest name of a test, in bytes.
const NAME: usize = 1024;

/// A test in quarantine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Quarantined {
    /// As it was named.
    pub test: String,
    /// Who makes it reliable again.
    pub owner: UserName,
    /// The reason.
    pub why: String,
    /// Since when.
    pub since: Time,
    /// When it counts again.
    pub until: Time,
}

/// All of a project, by the key of the test.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Quarantine {
    all: BTreeMap<String, Quarantined>,
}

impl Quarantine {
    /// Takes in what happened.
    pub fn evolve(&mut self, recorded: &Recorded) {
        match &recorded.event {
            Event::TestQuarantined { test, owner, why, until } => {
                let (owner, why) = (owner.clone(), why.clone());
                let entry = Quarantined { test: test.clone(), owner, why, since: recorded.at, until: *until };
                self.all.insert(names::key(test), entry);
            }
            Event::QuarantineEnded { test, .. } => drop(self.all.remove(&names::key(test))),
            _ => {}
        }
    }

    /// The quarantine that a test is in at this time.
    pub fn of(&self, key: &str, now: Time) -> Option<&Quarantined> {
        self.all.get(key).filter(|entry| now < entry.until)
    }

    /// Those that still hold, in the order of their ends.
    pub fn held(&self, now: Time) -> Vec<&Quarantined> {
        let mut held: Vec<&Quarantined> = self.all.values().filter(|entry| now < entry.until).collect();
        held.sort_by_key(|entry| entry.until);
        held
    }

    /// Those whose end has come and that nobody recorded yet.
    pub fn over(&self, now: Time) -> Vec<Event> {
        let over = self.all.values().filter(|entry| now >= entry.until);
        over.map(|entry| Event::QuarantineEnded { test: entry.test.clone(), why: "its time is over".into() })
            .collect()
    }

    /// Puts a test into quarantine, or says why not.
    pub fn begin(
        &self,
        test: &str,
        owner: &UserName,
        why: &str,
        lasts: Span,
        now: Time,
    ) -> Result<Event, String> {
        let (test, why) = (test.trim(), why.trim());
        if names::key(test).is_empty() || test.len() > NAME || test.chars().any(char::is_control) {
            return Err(
                "that names no test\nhint: name it as the run's page does, as in tests.test_app::test_add"
                    .into(),
            );
        }
        if why.is_empty() || why.chars().count() > WORDS || why.chars().any(|c| c.is_control() && c != '\n') {
            return Err(format!(
                "a quarantine needs a reason of at most {WORDS} characters\nhint: say what makes the test unreliable, and where that is worked on"
            ));
        }
        if lasts < Span::secs(60) || lasts > LONGEST {
            return Err("a quarantine lasts 30 days at most\nhint: name an end that the owner can keep, as in --for 7d".into());
        }
        if self.held(now).len() >= MOST {
            return Err(format!(
                "{MOST} tests are in quarantine already\nhint: make some of them reliable, or delete them"
            ));
        }
        Ok(Event::TestQuarantined {
            test: test.to_owned(),
            owner: owner.clone(),
            why: why.to_owned(),
            until: now + lasts,
        })
    }

    /// Ends a quarantine before its time, or says why not.
    pub fn end(&self, test: &str, by: &Actor) -> Result<Event, String> {
        match self.all.get(&names::key(test)) {
            Some(entry) => Ok(Event::QuarantineEnded {
                test: entry.test.clone(),
                why: format!("{by} says it is reliable again"),
            }),
            None => {
                Err("that test is not in quarantine\nhint: `andon tests list` names those that are".into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(quarantine: &mut Quarantine, at: i64, event: Event) {
        quarantine.evolve(&Recorded { seq: 1, at: Time(at), by: Actor::line("test"), project: None, event });
    }

    const DAY: Span = Span::secs(24 * 3600);

    fn begun() -> Quarantine {
        let mut quarantine = Quarantine::default();
        let event = quarantine
            .begin("tests/test_a.py::test_x", &"ann".parse().unwrap(), "races with the clock", DAY, Time(0))
            .unwrap();
        told(&mut quarantine, 0, event);
        quarantine
    }

    #[test]
    fn a_quarantine_holds_until_its_end_and_not_a_moment_longer() {
        let mut quarantine = begun();
        let key = names::key("tests.test_a.test_x");
        assert_eq!(quarantine.of(&key, Time(1)).unwrap().owner.as_str(), "ann");
        assert!(quarantine.over(Time(1)).is_empty());
        let end = Time(0) + DAY;
        assert!(quarantine.of(&key, end).is_none(), "it counts again although nobody recorded the end yet");
        let over = quarantine.over(end);
        assert_eq!(over.len(), 1);
        told(&mut quarantine, end.0, over[0].clone());
        assert!(quarantine.over(end).is_empty());
    }

    #[test]
    fn without_an_owner_a_reason_and_a_near_end_there_is_none() {
        let quarantine = begun();
        let ann = "ann".parse().unwrap();
        let begin = |test: &str, why: &str, lasts| quarantine.begin(test, &ann, why, lasts, Time(0));
        assert!(begin("t", "flaky", Span(LONGEST.0 + 1)).unwrap_err().contains("30 days"));
        assert!(begin("t", " ", DAY).unwrap_err().contains("hint:"));
        assert!(begin("::", "flaky", DAY).is_err());
        assert!(begin("a\nb", "flaky", DAY).is_err());
        assert!(begin("t", "flaky", LONGEST).is_ok());
    }

    #[test]
    fn it_can_be_ended_early_once() {
        let mut quarantine = begun();
        let by = Actor::User("bob".parse().unwrap());
        let event = quarantine.end("tests.test_a.test_x", &by).unwrap();
        told(&mut quarantine, 1, event);
        assert!(quarantine.end("tests.test_a.test_x", &by).unwrap_err().contains("not in quarantine"));
    }
}
