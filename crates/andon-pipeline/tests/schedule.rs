//! Whatever the graph, whatever happens to its jobs: every run comes to its verdict, and nothing is started that may not be. The
//! world around the scheduler is played by chance; proptest finds the smallest story that goes wrong.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

use andon_model::event::{
    Event, JobEnd, PlannedApproval, PlannedJob, Purpose, Recorded, TestCounts, Verdict,
};
use andon_model::{Actor, JobName, Oid, RunId, Span, Time};
use andon_pipeline::plan::{Decision, waits_for};
use andon_pipeline::runs::JobState;
use andon_pipeline::{Places, Runs, plan};
use proptest::prelude::*;

/// What a job of the story is like; `needs` point to jobs before it.
#[derive(Debug, Clone)]
struct Shape {
    stage: u8,
    needs: Vec<prop::sample::Index>,
    group: Option<u8>,
    kind: u8,
    retries: u32,
}

fn shape() -> impl Strategy<Value = Shape> {
    let needs = prop::collection::vec(any::<prop::sample::Index>(), 0..3);
    (0u8..3, needs, prop::option::of(0u8..2), 0u8..8, 0u32..3)
        .prop_map(|(stage, needs, group, kind, retries)| Shape { stage, needs, group, kind, retries })
}

fn jobs(shapes: &[Shape]) -> Vec<PlannedJob> {
    let name = |n: usize| format!("j{n}").parse::<JobName>().unwrap();
    let mut jobs: Vec<PlannedJob> = Vec::new();
    for (n, shape) in shapes.iter().enumerate() {
        // A need of a later stage would never be met: the check refuses it as a circle of stages only by its stage order.
        let stage = jobs.last().map_or(0, |job| job.stage.parse::<u8>().unwrap()).max(shape.stage);
        let mut job = PlannedJob::new(name(n), stage.to_string());
        job.needs = shape.needs.iter().filter(|_| n > 0).map(|index| name(index.index(n))).collect();
        job.group = shape.group.map(|group| format!("g{group}").parse().unwrap());
        job.retries = shape.retries;
        job.broken = shape.retries % 2;
        match shape.kind {
            0 => job.not_needed = Some("untouched".into()),
            1 => {
                let (roles, people, within) = (vec![], vec![], Span(50));
                job.approve =
                    Some(PlannedApproval { roles, people, within, why: "?".into(), not_author: false });
            }
            _ => {}
        }
        jobs.push(job);
    }
    jobs
}

struct World {
    runs: Runs,
    now: i64,
    running: Vec<(RunId, JobName, u32)>,
}

impl World {
    fn tell(&mut self, event: Event) {
        self.now += 1;
        let by = Actor::line("story");
        self.runs.evolve(&Recorded { seq: self.now as u64, at: Time(self.now), by, project: None, event });
    }

    fn job(&self, run: RunId, job: &JobName) -> &andon_pipeline::runs::JobRun {
        self.runs.all[&run].job(job).unwrap()
    }

    /// What the controller does, with the rules that nothing may break.
    fn obey(&mut self, decision: Decision, slots: usize) {
        match decision {
            Decision::Start { run, job, attempt, .. } => {
                let found = self.job(run, &job);
                assert_eq!(attempt, found.attempts + 1, "attempts count up");
                assert!(
                    found.plan.not_needed.is_none() && found.plan.approve.is_none(),
                    "{job} runs nothing"
                );
                let all = &self.runs.all[&run];
                assert!(
                    found.plan.needs.iter().all(|need| all.job(need).unwrap().passed()),
                    "{job} begins too early"
                );
                let stage = |job: &PlannedJob| job.stage.parse::<u8>().unwrap();
                let before = all.jobs.iter().filter(|other| stage(&other.plan) < stage(&found.plan));
                assert!(before.into_iter().all(|other| other.passed()), "{job} does not wait for its stage");
                if let Some(group) = &found.plan.group {
                    let held = self
                        .running
                        .iter()
                        .any(|(r, j, _)| self.job(*r, j).plan.group.as_ref() == Some(group));
                    assert!(!held, "two jobs of {group} at once");
                }
                assert!(
                    found.red <= found.plan.retries && found.broken <= found.plan.broken,
                    "{job} is tried too often"
                );
                assert!(self.running.len() < slots, "more than there are places for");
                self.running.push((run, job.clone(), attempt));
                self.tell(Event::JobStarted { run, job, attempt, isolation: Default::default() });
            }
            Decision::Ask { run, job, until } => self.tell(Event::ApprovalAsked { run, job, until }),
            Decision::Carry { run, job, from } => self.tell(Event::JobReplayed { run, job, from, key: None }),
            Decision::Expire { run, job, why } => self.tell(Event::ApprovalRefused { run, job, why }),
            Decision::Skip { run, job, why } => {
                assert!(!why.is_empty(), "whoever is not run is told why");
                self.tell(Event::JobSkipped { run, job, why });
            }
            Decision::Judge { run } => {
                assert!(!self.running.iter().any(|(of, ..)| *of == run), "judged while it runs");
                let (verdict, tests) = (Verdict::Green, TestCounts::default());
                self.tell(Event::RunFinished { run, verdict, tests, coverage: None, report: None });
            }
        }
    }

    /// Something happens to what runs, or to who is asked, by chance.
    fn happen(&mut self, dice: u8) {
        let asked: Vec<(RunId, JobName)> = self
            .runs
            .open()
            .flat_map(|run| run.jobs.iter().map(move |job| (run.id, job)))
            .filter(|(_, job)| matches!(job.state, JobState::Asked { .. }))
            .map(|(run, job)| (run, job.plan.name.clone()))
            .collect();
        if let Some((run, job)) =
            asked.first().cloned().filter(|_| dice.is_multiple_of(3) || self.running.is_empty())
        {
            let why = "said".to_owned();
            return match dice % 4 {
                0 => self.tell(Event::ApprovalRefused { run, job, why }),
                // Nobody answers: its time runs out.
                1 => self.now += 60,
                _ => self.tell(Event::ApprovalGiven { run, job, why }),
            };
        }
        if self.running.is_empty() {
            return;
        }
        let (run, job, attempt) = self.running.swap_remove(usize::from(dice) % self.running.len());
        let ended = match dice % 8 {
            0 => JobEnd::Failed { code: 1 },
            1 => JobEnd::TimedOut { after: Span(1) },
            2 => JobEnd::Broken { why: "x".into() },
            3 => return self.tell(Event::JobLost { run, job, attempt, why: "restart".into() }),
            _ => JobEnd::Passed,
        };
        let (took, tests) = (Span(u64::from(dice)), TestCounts::default());
        self.tell(Event::JobFinished { run, job, attempt, ended, took, log: None, tests, report: None });
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn every_run_comes_to_its_verdict_and_nothing_begins_that_may_not(
        graphs in prop::collection::vec(prop::collection::vec(shape(), 1..9), 1..4),
        slots in 1usize..4,
        dice in prop::collection::vec(any::<u8>(), 64),
    ) {
        let mut world = World { runs: Runs::default(), now: 0, running: Vec::new() };
        let oid: Oid = "a".repeat(40).parse().unwrap();
        for (n, shapes) in graphs.iter().enumerate() {
            let run = RunId(n as u32 + 1);
            let purpose = Purpose::Gate { change: andon_model::ChangeId(1), patch_set: 1 };
            let (commit, tree, jobs) = (oid.clone(), oid.clone(), jobs(shapes));
            world.tell(Event::RunQueued { run, purpose, commit, tree, parent: None, jobs, plan: None, again: None });
        }
        let mut dice = dice.into_iter().cycle();
        // Lost attempts come back without using up anything: chance ends them, and this bound is far beyond it.
        for _ in 0..5_000 {
            for decision in plan(&world.runs, &Places::here(slots - world.running.len()), Time(world.now)) {
                world.obey(decision, slots);
            }
            if world.runs.open().next().is_none() {
                break;
            }
            for run in world.runs.open() {
                for job in run.jobs.iter().filter(|job| matches!(job.state, JobState::Waiting)) {
                    prop_assert!(!waits_for(&world.runs, &Places::here(0), run, job).is_empty());
                }
            }
            // The same dice for ever would lose an attempt for ever.
            let throw = dice.next().unwrap().wrapping_add((world.now / 64) as u8);
            world.happen(throw);
        }
        let open: Vec<RunId> = world.runs.open().map(|run| run.id).collect();
        prop_assert!(open.is_empty(), "never judged: {open:?}, running {:?}", world.running);
        for run in world.runs.all.values() {
            let left = run.jobs.iter().any(|job| matches!(job.state, JobState::Waiting | JobState::Running { .. }));
            prop_assert!(!left, "{} has something left", run.id);
        }
    }
}
