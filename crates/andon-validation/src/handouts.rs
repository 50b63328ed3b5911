//! Tests of a run that its jobs share while they run: who has which, what is left, what goes back. Runs nothing and knows no names of tests.
//!
//! A list lies longest first. A piece is a stretch of it: large at first, one test in the end. What an attempt has counts once its report does; an
//! attempt that was lost, broke, or is followed by another has reported nothing that counts, so what it had is given out again.

use std::collections::BTreeMap;
use std::ops::Range;

use andon_model::event::{Event, JobEnd, Recorded};
use andon_model::{Digest, JobName, RunId};

use crate::order::split::PART;

/// Lists that jobs of one run may share, by name.
pub const MOST: usize = 100;

/// What a test takes at least, in milliseconds.
const LEAST: f64 = 0.001;

/// All of a project whose runs are not over.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Handouts {
    all: BTreeMap<(RunId, String), Handout>,
}

/// One list.
#[derive(Debug, Clone, PartialEq)]
pub struct Handout {
    /// SHA-256 of its names: all shards must have found the same tests.
    pub names: Digest,
    /// Where it lies.
    pub list: Digest,
    /// How many tests.
    pub tests: u32,
    /// From here on nobody had them yet.
    fresh: u32,
    /// What came back.
    back: Vec<Range<u32>>,
    held: Vec<Held>,
}

/// A piece that an attempt has.
#[derive(Debug, Clone, PartialEq)]
struct Held {
    job: JobName,
    attempt: u32,
    ask: String,
    piece: Range<u32>,
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub struct Asker<'a> {
    /// Its job.
    pub job: &'a JobName,
    /// Which attempt of it.
    pub attempt: u32,
    /// What this question is known by, should it come twice.
    pub ask: &'a str,
    /// Shards that ask at the same time.
    pub shards: u32,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// It was asked before, and this was the answer.
    Before(Range<u32>),
    /// This is to be recorded, then it is the answer.
    Piece(Range<u32>),
    /// All is given out.
    Nothing,
}

impl Handouts {
    /// Takes in what happened.
    pub fn evolve(&mut self, recorded: &Recorded) {
        match &recorded.event {
            Event::HandoutOpened { run, name, names, list, tests } => {
                let made = Handout {
                    names: names.clone(),
                    list: list.clone(),
                    tests: *tests,
                    fresh: 0,
                    back: Vec::new(),
                    held: Vec::new(),
                };
                self.all.entry((*run, name.clone())).or_insert(made);
            }
            Event::TestsHanded { run, name, job, attempt, ask, from, to } => {
                if let Some(handout) = self.all.get_mut(&(*run, name.clone())) {
                    handout.take(*from..*to);
                    let (job, ask) = (job.clone(), ask.clone());
                    handout.held.push(Held { job, attempt: *attempt, ask, piece: *from..*to });
                }
            }
            Event::JobStarted { run, job, attempt, .. } => {
                self.give_back(*run, |held| held.job == *job && held.attempt < *attempt);
            }
            Event::JobLost { run, job, .. }
            | Event::JobFinished { run, job, ended: JobEnd::Broken { .. }, .. } => {
                self.give_back(*run, |held| held.job == *job);
            }
            Event::RunFinished { run, .. } => self.all.retain(|(of, _), _| of != run),
            _ => {}
        }
    }

    fn give_back(&mut self, run: RunId, whose: impl Fn(&Held) -> bool) {
        for (_, handout) in self.all.iter_mut().filter(|((of, _), _)| *of == run) {
            let (back, held) = std::mem::take(&mut handout.held).into_iter().partition(|held| whose(held));
            handout.held = held;
            handout.back.extend(Vec::into_iter(back).map(|held: Held| held.piece));
        }
    }

    /// The list of this name.
    pub fn get(&self, run: RunId, name: &str) -> Option<&Handout> {
        self.all.get(&(run, name.to_owned()))
    }

    /// Lists that the run has.
    pub fn of_run(&self, run: RunId) -> impl Iterator<Item = (&str, &Handout)> {
        self.all
            .iter()
            .filter(move |((of, _), _)| *of == run)
            .map(|((_, name), handout)| (name.as_str(), handout))
    }
}

impl Handout {
    fn take(&mut self, piece: Range<u32>) {
        if piece.start == self.fresh {
            self.fresh = piece.end;
        } else if let Some(at) = self.back.iter().position(|back| back.start == piece.start) {
            let rest = piece.end..self.back[at].end;
            if rest.is_empty() {
                self.back.remove(at);
            } else {
                self.back[at] = rest;
            }
        }
    }

    /// How many tests nobody has.
    pub fn left(&self) -> u32 {
        self.tests - self.fresh + self.back.iter().map(|back| back.end - back.start).sum::<u32>()
    }

    /// What this attempt is to run next. `millis` are the expected times in the order of the list.
    pub fn next(&self, asker: Asker<'_>, millis: &[f64]) -> Next {
        let same = |held: &&Held| {
            (&held.job, held.attempt, held.ask.as_str()) == (asker.job, asker.attempt, asker.ask)
        };
        if let Some(held) = self.held.iter().find(same) {
            return Next::Before(held.piece.clone());
        }
        // What takes no time at all still takes its turn: else one piece would be all of them.
        let takes = |test: u32| millis.get(test as usize).copied().unwrap_or_default().max(LEAST);
        let sum = |range: &Range<u32>| range.clone().map(takes).sum::<f64>();
        let fresh = self.fresh..self.tests;
        let rest = sum(&fresh) + self.back.iter().map(sum).sum::<f64>();
        // What came back has waited longest.
        let from = self.back.first().cloned().unwrap_or(fresh);
        if from.is_empty() {
            return Next::Nothing;
        }
        let most = rest / f64::from(asker.shards.max(1)) * PART;
        let (mut end, mut spent) = (from.start, 0.0);
        while end < from.end {
            if end > from.start && spent + takes(end) > most {
                break;
            }
            spent += takes(end);
            end += 1;
        }
        Next::Piece(from.start..end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use andon_model::event::TestCounts;
    use andon_model::{Actor, Span, Time};
    use proptest::prelude::*;

    const RUN: RunId = RunId(1);

    struct World {
        handouts: Handouts,
        millis: Vec<f64>,
        seq: u64,
    }

    impl World {
        fn of(tests: u32) -> World {
            let mut world = World {
                handouts: Handouts::default(),
                millis: (0..tests).map(|n| f64::from(tests - n)).collect(),
                seq: 0,
            };
            let digest = Digest::of(b"x");
            world.happens(Event::HandoutOpened {
                run: RUN,
                name: "unit".into(),
                names: digest.clone(),
                list: digest,
                tests,
            });
            world
        }

        fn happens(&mut self, event: Event) {
            self.seq += 1;
            let (at, by) = (Time(self.seq.cast_signed()), Actor::line("test"));
            self.handouts.evolve(&Recorded { seq: self.seq, at, by, project: None, event });
        }

        fn ask(&mut self, job: &str, attempt: u32, ask: &str) -> Range<u32> {
            let name: JobName = job.parse().unwrap();
            let asker = Asker { job: &name, attempt, ask, shards: 3 };
            match self.handouts.get(RUN, "unit").unwrap().next(asker, &self.millis) {
                Next::Before(piece) => piece,
                Next::Nothing => 0..0,
                Next::Piece(piece) => {
                    let (ask, from, to) = (ask.to_owned(), piece.start, piece.end);
                    self.happens(Event::TestsHanded {
                        run: RUN,
                        name: "unit".into(),
                        job: name,
                        attempt,
                        ask,
                        from,
                        to,
                    });
                    piece
                }
            }
        }

        fn ends(&mut self, job: &str, attempt: u32, ended: JobEnd) {
            self.happens(Event::JobFinished {
                run: RUN,
                job: job.parse().unwrap(),
                attempt,
                ended,
                took: Span(1),
                log: None,
                tests: TestCounts::default(),
                report: None,
            });
        }
    }

    #[test]
    fn who_asks_the_same_again_gets_the_same() {
        let mut world = World::of(40);
        let first = world.ask("a", 1, "x");
        assert!(first.len() > 1);
        assert_eq!(world.ask("a", 1, "x"), first);
        assert_ne!(world.ask("b", 1, "x"), first, "another job asks for itself");
        assert_ne!(world.ask("a", 1, "y"), first);
    }

    #[test]
    fn what_a_broken_attempt_had_is_given_out_again_and_what_a_green_one_had_is_not() {
        let mut world = World::of(40);
        let (lost, kept) = (world.ask("a", 1, "1"), world.ask("b", 1, "1"));
        world.ends("b", 1, JobEnd::Passed);
        world.ends("a", 1, JobEnd::Broken { why: "gone".into() });
        let mut again = Vec::new();
        for n in 0.. {
            let piece = world.ask("c", 1, &n.to_string());
            if piece.is_empty() {
                break;
            }
            again.extend(piece);
        }
        assert!(lost.clone().all(|test| again.contains(&test)));
        assert!(!kept.clone().any(|test| again.contains(&test)));
        assert_eq!(again.len() + kept.len(), 40);
        assert_eq!(world.handouts.get(RUN, "unit").unwrap().left(), 0);
    }

    #[test]
    fn a_second_attempt_of_a_red_job_has_what_the_first_had() {
        let mut world = World::of(6);
        while !world.ask("a", 1, &world.seq.to_string()).is_empty() {}
        world.ends("a", 1, JobEnd::Failed { code: 1 });
        assert_eq!(world.handouts.get(RUN, "unit").unwrap().left(), 0);
        let isolation = andon_model::event::JobIsolation::default();
        world.happens(Event::JobStarted { run: RUN, job: "a".parse().unwrap(), attempt: 2, isolation });
        assert_eq!(world.handouts.get(RUN, "unit").unwrap().left(), 6);
    }

    proptest! {
        /// Whatever breaks when, in the end what counts holds each test once.
        #[test]
        fn every_test_counts_once(tests in 0u32..120, turns in proptest::collection::vec((0u8..4, 0u8..6), 0..80)) {
            let mut world = World::of(tests);
            let jobs = ["a", "b", "c", "d"];
            let mut attempts = [1u32; 4];
            let mut had: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
            for (who, what) in turns {
                let who = usize::from(who);
                if what == 0 {
                    let job: JobName = jobs[who].parse().unwrap();
                    let (attempt, why) = (attempts[who], "gone".to_owned());
                    world.happens(Event::JobLost { run: RUN, job, attempt, why });
                    attempts[who] += 1;
                    had.remove(&who);
                } else {
                    let ask = world.seq.to_string();
                    had.entry(who).or_default().extend(world.ask(jobs[who], attempts[who], &ask));
                }
            }
            loop {
                let ask = world.seq.to_string();
                let piece = world.ask(jobs[0], attempts[0], &ask);
                if piece.is_empty() {
                    break;
                }
                had.entry(0).or_default().extend(piece);
            }
            let mut all: Vec<u32> = had.into_values().flatten().collect();
            all.sort_unstable();
            prop_assert_eq!(all, (0..tests).collect::<Vec<_>>());
        }
    }
}
