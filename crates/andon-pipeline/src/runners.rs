//! The machines that jobs run on, as the server's own stream tells of them, and which of them a job may get. Speaks with none of them.

use std::collections::{BTreeMap, BTreeSet};

use andon_model::event::{Event, Recorded};
use andon_model::{Digest, LabelName, RunnerName, Time};
use serde::Serialize;

/// A runner gets no job any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Leaving {
    /// Since when.
    pub since: Time,
    /// It is no runner any more once its last job is over.
    pub forget: bool,
    /// The reason.
    pub why: String,
}

/// A machine that joined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Runner {
    /// Its name.
    pub name: RunnerName,
    /// What jobs may ask for.
    pub labels: BTreeSet<LabelName>,
    /// Jobs at once.
    pub slots: u32,
    /// Since when it is one.
    pub joined: Time,
    /// The digest of its secret.
    #[serde(skip)]
    pub credential: Digest,
    /// It gets no job any more.
    pub leaving: Option<Leaving>,
}

/// All runners.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Runners {
    /// Those that joined.
    pub joined: BTreeMap<RunnerName, Runner>,
    invited: BTreeMap<Digest, (Time, Vec<LabelName>)>,
    left: BTreeMap<Digest, RunnerName>,
}

impl Runners {
    /// Takes in what happened.
    pub fn evolve(&mut self, recorded: &Recorded) {
        let at = recorded.at;
        match &recorded.event {
            Event::RunnerInvited { token, expires, labels } => {
                self.invited.retain(|_, (end, _)| *end > at);
                self.invited.insert(token.clone(), (*expires, labels.clone()));
            }
            Event::RunnerJoined { runner, labels, slots, token, credential } => {
                self.invited.remove(token);
                let made = Runner {
                    name: runner.clone(),
                    labels: labels.iter().cloned().collect(),
                    slots: *slots,
                    joined: at,
                    credential: credential.clone(),
                    leaving: None,
                };
                self.joined.insert(runner.clone(), made);
            }
            Event::RunnerLeaving { runner, forget, why } => {
                if let Some(found) = self.joined.get_mut(runner) {
                    let since = found.leaving.as_ref().map_or(at, |before| before.since);
                    found.leaving = Some(Leaving { since, forget: *forget, why: why.clone() });
                }
            }
            Event::RunnerStays { runner } => {
                if let Some(found) = self.joined.get_mut(runner) {
                    found.leaving = None;
                }
            }
            Event::RunnerLeft { runner, .. } => {
                if let Some(gone) = self.joined.remove(runner) {
                    self.left.insert(gone.credential, gone.name);
                }
            }
            _ => {}
        }
    }

    /// The labels that a machine gets which comes with this; none: it may not join.
    pub fn invites(&self, token: &Digest, now: Time) -> Option<&[LabelName]> {
        self.invited.get(token).filter(|(end, _)| now < *end).map(|(_, labels)| &labels[..])
    }

    /// The runner that comes back with this.
    pub fn holder(&self, credential: &Digest) -> Option<&Runner> {
        self.joined.values().find(|runner| &runner.credential == credential)
    }

    /// The runner that this belonged to before it left.
    pub fn left_with(&self, credential: &Digest) -> Option<&RunnerName> {
        self.left.get(credential)
    }
}

/// What a runner is to those who decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It takes jobs.
    Takes,
    /// Nobody reaches it at this moment.
    Away,
    /// It gets no job any more.
    Leaving,
}

/// A runner at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Place {
    /// Its name.
    pub name: RunnerName,
    /// What jobs may ask for.
    pub labels: BTreeSet<LabelName>,
    /// Jobs that it can take now.
    pub free: usize,
    /// Whether it takes any.
    pub standing: Standing,
}

impl Place {
    fn has(&self, labels: &[LabelName]) -> bool {
        labels.iter().all(|label| self.labels.contains(label))
    }
}

/// Where jobs may run at one moment. The server's own machine has no labels: a job that asks for one does not run there.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Places {
    /// Jobs that the server's own machine can take now.
    pub here: usize,
    /// All others.
    pub runners: Vec<Place>,
}

impl Places {
    /// The server's own machine alone.
    pub fn here(free: usize) -> Places {
        Places { here: free, runners: Vec::new() }
    }

    pub(crate) fn is_full(&self) -> bool {
        let takes = |place: &Place| place.standing == Standing::Takes && place.free > 0;
        self.here == 0 && !self.runners.iter().any(takes)
    }

    /// The place for a job that asks for these labels: the server's own machine, to which nothing is sent; else the runner with the most
    /// room, and the one where it just broke last of all. None: no place is free.
    pub(crate) fn choose(
        &self,
        labels: &[LabelName],
        broke: Option<&RunnerName>,
    ) -> Option<Option<RunnerName>> {
        if labels.is_empty() && self.here > 0 {
            return Some(None);
        }
        let free = |place: &&Place| place.standing == Standing::Takes && place.free > 0 && place.has(labels);
        let best = self
            .runners
            .iter()
            .filter(free)
            .min_by_key(|place| (Some(&place.name) == broke, std::cmp::Reverse(place.free), &place.name));
        best.map(|place| Some(place.name.clone()))
    }

    pub(crate) fn take(&mut self, on: Option<&RunnerName>) {
        let free = match on {
            None => Some(&mut self.here),
            Some(name) => {
                self.runners.iter_mut().find(|place| &place.name == name).map(|place| &mut place.free)
            }
        };
        if let Some(free) = free {
            *free = free.saturating_sub(1);
        }
    }

    /// What a job waits for that may begin and has no place, for people.
    pub fn waits_for(&self, labels: &[LabelName]) -> String {
        let said = match labels {
            [] => return "waits for a runner".into(),
            [one] => format!("label {one}"),
            many => format!("labels {}", many.iter().map(LabelName::as_str).collect::<Vec<_>>().join(", ")),
        };
        let fit = |standing: Standing| {
            let fits =
                self.runners.iter().filter(move |place| place.standing == standing && place.has(labels));
            fits.map(|place| place.name.as_str()).collect::<Vec<_>>()
        };
        let (takes, away, leaving) = (fit(Standing::Takes), fit(Standing::Away), fit(Standing::Leaving));
        let are = |names: &[&str]| if names.len() == 1 { "is" } else { "are" };
        match (&takes[..], &away[..], &leaving[..]) {
            ([], [], []) => format!("waits for a runner with {said}"),
            ([], [], names) => {
                format!("waits for a runner with {said}: {} {} being emptied", names.join(", "), are(names))
            }
            ([], names, _) => {
                format!("waits for a runner with {said}: {} {} not connected", names.join(", "), are(names))
            }
            (names, ..) => format!("waits for a free place on {}", names.join(" or ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use andon_model::Actor;

    fn labels(words: &[&str]) -> Vec<LabelName> {
        words.iter().map(|word| word.parse().unwrap()).collect()
    }

    fn place(name: &str, has: &[&str], free: usize, standing: Standing) -> Place {
        Place { name: name.parse().unwrap(), labels: labels(has).into_iter().collect(), free, standing }
    }

    fn told(events: Vec<Event>) -> Runners {
        let mut runners = Runners::default();
        for (n, event) in events.into_iter().enumerate() {
            let (seq, at) = (n as u64, Time(n as i64));
            runners.evolve(&Recorded { seq, at, by: Actor::line("t"), project: None, event });
        }
        runners
    }

    #[test]
    fn a_token_lets_one_machine_in_with_its_labels_and_only_in_its_time() {
        let token = Digest::of(b"token");
        let invited = || Event::RunnerInvited {
            token: Digest::of(b"token"),
            expires: Time(10),
            labels: labels(&["gpu"]),
        };
        let runners = told(vec![invited()]);
        assert_eq!(runners.invites(&token, Time(9)), Some(&labels(&["gpu"])[..]));
        assert_eq!(runners.invites(&token, Time(10)), None);
        let joined = Event::RunnerJoined {
            runner: "r1".parse().unwrap(),
            labels: labels(&["gpu"]),
            slots: 2,
            token: token.clone(),
            credential: Digest::of(b"own"),
        };
        let runners = told(vec![invited(), joined.clone()]);
        assert_eq!(runners.invites(&token, Time(2)), None, "it was used");
        assert!(runners.holder(&Digest::of(b"own")).is_some());
        let left = Event::RunnerLeft { runner: "r1".parse().unwrap(), why: "sold".into() };
        let runners = told(vec![joined, left]);
        assert!(runners.holder(&Digest::of(b"own")).is_none());
        assert_eq!(runners.left_with(&Digest::of(b"own")).map(RunnerName::as_str), Some("r1"));
    }

    #[test]
    fn a_job_goes_where_its_labels_are_and_one_without_any_stays_here_while_there_is_room() {
        let mut places = Places::here(1);
        places.runners = vec![
            place("a", &["linux"], 1, Standing::Takes),
            place("b", &["linux", "gpu"], 2, Standing::Takes),
            place("c", &["linux", "gpu"], 9, Standing::Away),
        ];
        let name = |name: &str| Some(Some(name.parse::<RunnerName>().unwrap()));
        assert_eq!(places.choose(&[], None), Some(None));
        assert_eq!(places.choose(&labels(&["linux"]), None), name("b"), "the one with the most room");
        assert_eq!(places.choose(&labels(&["linux"]), Some(&"b".parse().unwrap())), name("a"));
        assert_eq!(
            places.choose(&labels(&["gpu"]), Some(&"b".parse().unwrap())),
            name("b"),
            "there is no other"
        );
        assert_eq!(places.choose(&labels(&["gpu", "arm64"]), None), None);
        places.take(None);
        assert_eq!(places.choose(&[], None), name("b"));
        (0..2).for_each(|_| places.take(Some(&"b".parse().unwrap())));
        places.take(Some(&"a".parse().unwrap()));
        assert!(places.is_full() && places.choose(&[], None).is_none());
    }

    #[test]
    fn what_a_job_waits_for_is_said() {
        let mut places = Places::here(0);
        assert_eq!(places.waits_for(&labels(&["gpu"])), "waits for a runner with label gpu");
        assert_eq!(places.waits_for(&labels(&["arm64", "gpu"])), "waits for a runner with labels arm64, gpu");
        places.runners.push(place("a", &["gpu"], 1, Standing::Leaving));
        assert_eq!(
            places.waits_for(&labels(&["gpu"])),
            "waits for a runner with label gpu: a is being emptied"
        );
        places.runners.push(place("b", &["gpu"], 1, Standing::Away));
        assert_eq!(
            places.waits_for(&labels(&["gpu"])),
            "waits for a runner with label gpu: b is not connected"
        );
        places.runners.push(place("c", &["gpu"], 0, Standing::Takes));
        assert_eq!(places.waits_for(&labels(&["gpu"])), "waits for a free place on c");
        assert_eq!(places.waits_for(&[]), "waits for a runner");
    }
}
