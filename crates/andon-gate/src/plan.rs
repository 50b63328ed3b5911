//! What the gate does next. Pure: the queue, the cord and trunk's position in, decisions out.
//!
//! One change is tested at a time, on the commit that would land. The rules, in order:
//! 1. A green patch set lands, unless it changes `andon.yaml` and nobody approved that, trunk is not where it was tested on (then it is
//!    tested again) or the cord holds it.
//! 2. A red patch set is refused with the verdict's headline.
//! 3. A run whose infrastructure broke is made again, at most [`TRIES`] times.
//! 4. A run whose patch set nobody waits for any more is stopped.
//! 5. When nothing is being tested (a run that waits for a person is not), the next change is: those that fix the open andon first, then the oldest patch set.

use andon_model::event::{DefinitionRule, Role, Verdict};
use andon_model::{AndonId, ChangeId, Oid, RunId};

use crate::state::{Change, GateRun, Queue, Standing};

/// How often a run that broke by infrastructure is made for one patch set before a person must look.
pub const TRIES: usize = 3;

/// The andons that stop the line: only changes that name one of them may land. None: the line runs.
pub type Hold<'a> = &'a [AndonId];

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// Make the commit that would land and test exactly that.
    Test {
        /// The change.
        change: ChangeId,
        /// Its newest patch set.
        patch_set: u32,
        /// What was pushed.
        head: Oid,
    },
    /// Move trunk to the commit that the run proved green.
    Land {
        /// The change.
        change: ChangeId,
        /// Its patch set.
        patch_set: u32,
        /// The proof.
        run: RunId,
    },
    /// Tell its author that it will not land.
    Refuse {
        /// The change.
        change: ChangeId,
        /// Its patch set.
        patch_set: u32,
        /// The run that says so.
        run: RunId,
        /// The reason.
        why: String,
    },
    /// Nobody waits for this run any more: stop it.
    Stop {
        /// The run.
        run: RunId,
        /// The reason.
        why: String,
    },
}

/// The next decisions. `trunk` is where the branch stands in git now.
pub fn plan(queue: &Queue, hold: Hold<'_>, trunk: Option<&Oid>) -> Vec<Decision> {
    let mut decisions: Vec<Decision> = stale(queue).collect();
    decisions.extend(queue.open().filter_map(|c| settle(queue, c, hold, trunk)));
    let busy = queue.open().any(|c| is_under_test(queue, c));
    if decisions.is_empty() && !busy {
        decisions.extend(next(queue, hold).map(test));
    }
    decisions
}

/// Why an open change does not move right now, for people; none while it is being tested or landed.
pub fn waits_for(queue: &Queue, change: &Change, hold: Hold<'_>) -> Option<String> {
    match (&change.standing, hold) {
        (Standing::Waiting { .. } | Standing::Green { .. }, [andon, ..]) if !admitted(change, hold) => {
            Some(format!("waits for {andon}: the line is stopped; only what names it lands"))
        }
        (Standing::Green { run, .. }, _) => {
            let asks = queue.runs.get(run).and_then(|run| queue.unapproved(run))?;
            Some(format!("waits for {}: it changes andon.yaml", approver(asks)))
        }
        (Standing::Waiting { .. }, _) => {
            let before = queue.open().find(|other| other.id != change.id && is_under_test(queue, other))?;
            Some(format!("waits for {}: one change is tested at a time", before.id))
        }
        _ => None,
    }
}

/// Who is asked to approve another `andon.yaml`, for people.
pub fn approver(rule: DefinitionRule) -> &'static str {
    match (rule.role, rule.not_author) {
        (Role::Releaser, false) => "a releaser's approval",
        (Role::Releaser, true) => "the approval of a releaser who did not push it",
        (_, false) => "an owner's approval",
        (_, true) => "the approval of an owner who did not push it",
    }
}

/// Runs whose change has a newer patch set or was taken back.
fn stale(queue: &Queue) -> impl Iterator<Item = Decision> {
    queue.runs.iter().filter(|(_, run)| run.verdict.is_none()).filter_map(|(id, run)| {
        let change = queue.changes.get(&run.change)?;
        let tests_it = matches!(&change.standing, Standing::Testing { run, .. } if run == id);
        let why = match change.push.patch_set {
            newest if newest != run.patch_set => format!("superseded by patch set {newest}"),
            _ => "its change was taken back".into(),
        };
        (!tests_it).then_some(Decision::Stop { run: *id, why })
    })
}

fn settle(queue: &Queue, change: &Change, hold: Hold<'_>, trunk: Option<&Oid>) -> Option<Decision> {
    let (Standing::Testing { run: id, .. } | Standing::Green { run: id, .. }) = &change.standing else {
        return None;
    };
    let run = queue.runs.get(id)?;
    let patch_set = change.push.patch_set;
    match run.verdict.as_ref()? {
        // Who has to approve it is said by trunk's file: when that became another one, it is asked anew.
        Verdict::Green if queue.unapproved(run).is_some() && run.definitions == queue.definitions => None,
        Verdict::Green if run.parent.as_ref() != trunk => Some(test(change)),
        Verdict::Green if !admitted(change, hold) => None,
        Verdict::Green => Some(Decision::Land { change: change.id, patch_set, run: *id }),
        Verdict::Red { headline, .. } => {
            Some(Decision::Refuse { change: change.id, patch_set, run: *id, why: headline.clone() })
        }
        Verdict::Broken { why } if tries(change) >= TRIES => {
            let why = format!("infrastructure broke {TRIES} times: {why}");
            Some(Decision::Refuse { change: change.id, patch_set, run: *id, why })
        }
        Verdict::Broken { .. } => Some(test(change)),
    }
}

fn is_under_test(queue: &Queue, change: &Change) -> bool {
    // Whoever waits for a person keeps nobody from being tested.
    let running = |run: &GateRun| run.verdict.is_none() && run.asks.is_empty();
    matches!(&change.standing, Standing::Testing { run, .. } if queue.runs.get(run).is_some_and(running))
}

fn next<'a>(queue: &'a Queue, hold: Hold<'_>) -> Option<&'a Change> {
    let waiting = |c: &&Change| matches!(c.standing, Standing::Waiting { .. }) && admitted(c, hold);
    queue.open().filter(waiting).min_by_key(|c| (!fixes(c, hold), c.pushed, c.id))
}

fn test(change: &Change) -> Decision {
    Decision::Test { change: change.id, patch_set: change.push.patch_set, head: change.push.head.clone() }
}

fn tries(change: &Change) -> usize {
    change.runs.iter().filter(|(patch_set, _)| *patch_set == change.push.patch_set).count()
}

fn admitted(change: &Change, hold: Hold<'_>) -> bool {
    hold.is_empty() || fixes(change, hold)
}

fn fixes(change: &Change, hold: Hold<'_>) -> bool {
    change.fixes().is_some_and(|andon| hold.contains(&andon))
}

#[cfg(test)]
mod tests {
    use super::*;
    use andon_model::event::{Event, Purpose, Push, Recorded};
    use andon_model::{Actor, Time};

    fn oid(digit: char) -> Oid {
        digit.to_string().repeat(40).parse().unwrap()
    }

    struct Story {
        queue: Queue,
        at: i64,
    }

    impl Story {
        fn new() -> Story {
            Story { queue: Queue::default(), at: 0 }
        }
        fn then(&mut self, event: Event) -> &mut Story {
            self.at += 1;
            let by = Actor::line("test");
            self.queue.evolve(&Recorded { seq: self.at as u64, at: Time(self.at), by, project: None, event });
            self
        }
        fn push(&mut self, change: u32, patch_set: u32, fixes: Option<u32>) -> &mut Story {
            self.then(Event::ChangePushed(Push {
                change: ChangeId(change),
                patch_set,
                head: oid('c'),
                title: "t".into(),
                author: "a".into(),
                authored: Time(0),
                identity: change.to_string(),
                fixes: fixes.map(AndonId),
                edits_pipeline: false,
                commits: 1,
            }))
        }
        fn tested(&mut self, change: u32, patch_set: u32, run: u32, parent: Option<Oid>) -> &mut Story {
            let purpose = Purpose::Gate { change: ChangeId(change), patch_set };
            let (commit, tree) = (oid('d'), oid('e'));
            self.then(Event::RunQueued {
                run: RunId(run),
                purpose,
                commit,
                tree,
                parent,
                jobs: vec![],
                plan: None,
                again: None,
            })
        }
        fn says(&mut self, run: u32, verdict: Verdict) -> &mut Story {
            let tests = Default::default();
            self.then(Event::RunFinished { run: RunId(run), verdict, tests, coverage: None, report: None })
        }
        fn plan(&self, hold: Option<u32>, trunk: Option<Oid>) -> Vec<Decision> {
            plan(&self.queue, &hold.map(AndonId).into_iter().collect::<Vec<_>>(), trunk.as_ref())
        }
    }

    fn red() -> Verdict {
        Verdict::Red { headline: "test_x failed".into(), reasons: vec![] }
    }

    #[test]
    fn one_change_is_tested_at_a_time_oldest_first() {
        let mut story = Story::new();
        story.push(1, 1, None).push(2, 1, None);
        assert!(matches!(story.plan(None, None)[..], [Decision::Test { change: ChangeId(1), .. }]));
        story.tested(1, 1, 1, None);
        assert_eq!(story.plan(None, None), []);
    }

    #[test]
    fn green_lands_only_on_the_trunk_it_was_tested_on() {
        let mut story = Story::new();
        story.push(1, 1, None).tested(1, 1, 1, Some(oid('a'))).says(1, Verdict::Green);
        assert!(matches!(story.plan(None, Some(oid('a')))[..], [Decision::Land { .. }]));
        assert!(matches!(story.plan(None, Some(oid('b')))[..], [Decision::Test { .. }]));
    }

    #[test]
    fn red_is_refused_with_its_headline_and_the_next_change_follows() {
        let mut story = Story::new();
        story.push(1, 1, None).push(2, 1, None).tested(1, 1, 1, None).says(1, red());
        let refusals = story.plan(None, None);
        assert!(matches!(&refusals[..], [Decision::Refuse { why, .. }] if why == "test_x failed"));
        story.then(Event::ChangeRefused {
            change: ChangeId(1),
            patch_set: 1,
            run: Some(RunId(1)),
            why: "x".into(),
        });
        assert!(matches!(story.plan(None, None)[..], [Decision::Test { change: ChangeId(2), .. }]));
    }

    #[test]
    fn a_red_line_lands_nothing_but_what_names_the_andon() {
        let mut story = Story::new();
        story.push(1, 1, None).tested(1, 1, 1, None).says(1, Verdict::Green).push(2, 1, None).push(
            3,
            1,
            Some(4),
        );
        assert!(matches!(story.plan(Some(4), None)[..], [Decision::Test { change: ChangeId(3), .. }]));
        let waiting = &story.queue.changes[&ChangeId(2)];
        assert!(waits_for(&story.queue, waiting, &[AndonId(4)]).unwrap().contains("A4"));
        assert!(matches!(story.plan(None, None)[..], [Decision::Land { change: ChangeId(1), .. }]));
    }

    #[test]
    fn a_new_patch_set_makes_the_old_verdict_worthless() {
        let mut story = Story::new();
        story.push(1, 1, None).tested(1, 1, 1, None).push(1, 2, None);
        assert!(matches!(story.plan(None, None)[..], [Decision::Stop { run: RunId(1), .. }]));
        story.says(1, Verdict::Green);
        assert!(matches!(story.plan(None, None)[..], [Decision::Test { patch_set: 2, .. }]));
    }

    #[test]
    fn a_run_that_waits_for_a_person_keeps_nobody_from_being_tested() {
        let mut story = Story::new();
        story.push(1, 1, None).tested(1, 1, 1, None).push(2, 1, None);
        let (run, job): (RunId, andon_model::JobName) = (RunId(1), "ask".parse().unwrap());
        story.then(Event::ApprovalAsked { run, job: job.clone(), until: Time(99) });
        assert!(matches!(story.plan(None, None)[..], [Decision::Test { change: ChangeId(2), .. }]));
        story.tested(2, 1, 2, None).says(2, Verdict::Green);
        assert!(matches!(story.plan(None, None)[..], [Decision::Land { change: ChangeId(2), .. }]));
        // A yes that comes when trunk has moved on: what would land now is tested.
        story.then(Event::ApprovalGiven { run, job, why: "yes".into() }).says(1, Verdict::Green);
        let moved = story.plan(None, Some(oid('f')));
        assert!(moved.iter().any(|d| matches!(d, Decision::Test { change: ChangeId(1), .. })), "{moved:?}");
    }

    #[test]
    fn a_refused_patch_set_that_is_tested_again_lands_when_it_is_green() {
        let mut story = Story::new();
        story.push(1, 1, None).tested(1, 1, 1, None).says(1, red());
        let (change, why) = (ChangeId(1), "x".to_owned());
        story.then(Event::ChangeRefused { change, patch_set: 1, run: Some(RunId(1)), why });
        story.tested(1, 1, 2, None);
        assert_eq!(story.plan(None, None), [], "it is under test");
        story.says(2, Verdict::Green);
        assert!(matches!(story.plan(None, None)[..], [Decision::Land { run: RunId(2), .. }]));
    }

    fn edited(run: u32, change: u32, patch_set: u32) -> Event {
        let edits =
            vec![andon_model::event::DefinitionEdit { says: "the job ask is gone".into(), loosens: true }];
        let asks = Some(DefinitionRule { role: Role::Owner, not_author: false });
        Event::DefinitionEdited { run: RunId(run), change: ChangeId(change), patch_set, edits, asks }
    }

    fn approved(change: u32, patch_set: u32) -> Event {
        Event::DefinitionApproved {
            change: ChangeId(change),
            patch_set,
            why: "agreed".into(),
            by_push: false,
        }
    }

    #[test]
    fn another_andon_yaml_waits_for_an_approval_of_its_own_patch_set_and_keeps_nobody_from_being_tested() {
        let mut story = Story::new();
        story.push(1, 1, None).tested(1, 1, 1, None).then(edited(1, 1, 1)).says(1, Verdict::Green);
        assert_eq!(story.plan(None, None), []);
        let words = waits_for(&story.queue, &story.queue.changes[&ChangeId(1)], &[]).unwrap();
        assert!(words.contains("an owner's approval"), "{words}");
        story.push(2, 1, None);
        assert!(matches!(story.plan(None, None)[..], [Decision::Test { change: ChangeId(2), .. }]));
        story.then(approved(1, 1));
        assert!(matches!(story.plan(None, None)[..], [Decision::Land { change: ChangeId(1), .. }]));
        // A new patch set is another question.
        story.push(1, 2, None).tested(1, 2, 2, None).then(edited(2, 1, 2)).says(2, Verdict::Green);
        assert!(!story.plan(None, None).iter().any(|d| matches!(d, Decision::Land { .. })));
    }

    #[test]
    fn what_was_refused_by_the_limits_of_trunk_is_tested_again_when_it_is_approved() {
        let mut story = Story::new();
        story.push(1, 1, None).tested(1, 1, 1, None).then(edited(1, 1, 1)).says(1, red());
        let (change, why) = (ChangeId(1), "x".to_owned());
        story.then(Event::ChangeRefused { change, patch_set: 1, run: Some(RunId(1)), why });
        assert_eq!(story.plan(None, None), []);
        story.then(approved(1, 1));
        assert!(matches!(story.plan(None, None)[..], [Decision::Test { change: ChangeId(1), .. }]));
    }

    #[test]
    fn who_is_asked_is_asked_anew_when_trunks_file_became_another_one() {
        let mut story = Story::new();
        story.push(1, 1, None).tested(1, 1, 1, None).then(edited(1, 1, 1)).says(1, Verdict::Green);
        story.push(2, 1, None).tested(2, 1, 2, None).then(edited(2, 2, 1)).then(approved(2, 1));
        story.says(2, Verdict::Green);
        let (tested_tree, landed_tree) = (oid('e'), oid('e'));
        let (change, run, commit) = (ChangeId(2), RunId(2), oid('d'));
        story.then(Event::Landed {
            change,
            patch_set: 1,
            run,
            commit,
            parent: None,
            tested_tree,
            landed_tree,
        });
        let next = story.plan(None, Some(oid('d')));
        assert!(matches!(next[..], [Decision::Test { change: ChangeId(1), .. }]), "{next:?}");
    }

    #[test]
    fn broken_infrastructure_is_tried_again_and_then_said() {
        let mut story = Story::new();
        story.push(1, 1, None);
        for run in 1..=3 {
            assert!(matches!(story.plan(None, None)[..], [Decision::Test { .. }]), "run {run}");
            story.tested(1, 1, run, None).says(run, Verdict::Broken { why: "disk full".into() });
        }
        assert!(
            matches!(&story.plan(None, None)[..], [Decision::Refuse { why, .. }] if why.contains("disk full"))
        );
    }
}
