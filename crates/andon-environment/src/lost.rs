//! What a run made and no state knows, because its tool was ended before it could save. Each stays on display until it is taken into the
//! state or a person says that it was looked after. Finds nothing itself.

use andon_model::event::{Event, Recorded};
use andon_model::{EnvironmentName, InfraRunId, Time};
use serde::Serialize;

/// Most that is remembered of one project: more is one accident, and the journal has it all.
const MOST: usize = 1000;

/// One resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Lost {
    /// Where.
    pub environment: EnvironmentName,
    /// Who made it.
    pub run: InfraRunId,
    /// Its address in the code.
    pub address: String,
    /// What its maker calls it; none: it was being made, and whether it exists nobody knows.
    pub id: Option<String>,
    /// Why it is in no state.
    pub why: String,
    /// When that was found.
    pub at: Time,
}

impl Lost {
    /// In one sentence.
    pub fn sentence(&self) -> String {
        match &self.id {
            Some(id) => format!("{} ({id}), made by {}: {}", self.address, self.run, self.why),
            None => format!("{}, perhaps made by {}: {}", self.address, self.run, self.why),
        }
    }
}

/// All of a project.
#[derive(Debug, Clone, Default)]
pub struct Losses {
    lost: Vec<Lost>,
}

impl Losses {
    /// Those of one environment, oldest first.
    pub fn of<'a>(&'a self, environment: &'a EnvironmentName) -> impl Iterator<Item = &'a Lost> {
        self.lost.iter().filter(move |lost| &lost.environment == environment)
    }

    /// Takes in what happened.
    pub fn evolve(&mut self, recorded: &Recorded) {
        match &recorded.event {
            Event::InfraLost { run, environment, address, id, why } => {
                let (environment, address, id, why) =
                    (environment.clone(), address.clone(), id.clone(), why.clone());
                let new = Lost { environment, run: *run, address, id, why, at: recorded.at };
                let same = |old: &Lost| {
                    old.environment == new.environment && old.address == new.address && old.id == new.id
                };
                self.lost.retain(|old| !same(old));
                self.lost.push(new);
                let surplus = self.lost.len().saturating_sub(MOST);
                self.lost.drain(..surplus);
            }
            Event::InfraAdopted { environment, address, id, .. } => self.lost.retain(|lost| {
                let same = &lost.environment == environment && &lost.address == address;
                !(same && lost.id.as_ref() == Some(id))
            }),
            Event::InfraForgotten { environment, address, .. } => {
                self.lost.retain(|lost| &lost.environment != environment || &lost.address != address);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use andon_model::Actor;

    fn lost(address: &str, id: Option<&str>) -> Event {
        let (run, environment) = (InfraRunId(4), "production".parse().unwrap());
        let (address, id, why) = (address.to_owned(), id.map(str::to_owned), "cut off".to_owned());
        Event::InfraLost { run, environment, address, id, why }
    }

    fn tell(losses: &mut Losses, event: Event) {
        losses.evolve(&Recorded { seq: 1, at: Time(1), by: Actor::line("t"), project: None, event });
    }

    fn left(losses: &Losses) -> Vec<String> {
        losses.of(&"production".parse().unwrap()).map(Lost::sentence).collect()
    }

    #[test]
    fn what_is_lost_stays_on_display_until_it_is_adopted_or_somebody_looked_after_it() {
        let mut all = Losses::default();
        tell(&mut all, lost("a.x", Some("1")));
        tell(&mut all, lost("a.x", Some("1")));
        tell(&mut all, lost("a.x", None));
        tell(&mut all, lost("a.y", None));
        let words = ["a.x (1), made by T4: cut off", "a.x, perhaps made by T4: cut off"];
        assert_eq!(left(&all)[..2], words);
        let environment: EnvironmentName = "production".parse().unwrap();
        let (run, address, id) = (InfraRunId(5), "a.x".to_owned(), "2".to_owned());
        tell(
            &mut all,
            Event::InfraAdopted { run, environment: environment.clone(), address: address.clone(), id },
        );
        assert_eq!(left(&all).len(), 3, "another one with this address was adopted");
        let id = "1".to_owned();
        tell(
            &mut all,
            Event::InfraAdopted { run, environment: environment.clone(), address: address.clone(), id },
        );
        assert_eq!(left(&all).len(), 2);
        tell(&mut all, Event::InfraForgotten { environment, address, why: "removed by hand".into() });
        assert_eq!(left(&all), ["a.y, perhaps made by T4: cut off"]);
    }

    #[test]
    fn an_accident_of_any_size_is_remembered_in_bounds() {
        let mut all = Losses::default();
        (0..MOST + 10).for_each(|n| tell(&mut all, lost(&format!("a.x[{n}]"), None)));
        let sentences = left(&all);
        assert!(sentences.len() == MOST && sentences[0].starts_with("a.x[10]"));
    }
}
