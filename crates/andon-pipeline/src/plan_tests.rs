//! What is planned next, told as stories of runs.

use super::*;
use andon_model::event::{Event, PlannedJob, Purpose, Recorded, TestCounts};
use andon_model::{Actor, Oid, Span, Time};

fn job(name: &str, stage: &str, needs: &[&str], retries: u32) -> PlannedJob {
    let needs = needs.iter().map(|n| n.parse().unwrap()).collect();
    PlannedJob { needs, retries, ..PlannedJob::new(name.parse().unwrap(), stage) }
}

fn evolve(runs: &mut Runs, event: Event) {
    runs.evolve(&Recorded { seq: 1, at: Time(1), by: Actor::line("test"), project: None, event });
}

fn queued(runs: &mut Runs, run: u32, jobs: Vec<PlannedJob>) {
    let oid: Oid = "a".repeat(40).parse().unwrap();
    evolve(
        runs,
        Event::RunQueued {
            run: RunId(run),
            purpose: Purpose::Trunk,
            commit: oid.clone(),
            tree: oid,
            parent: None,
            jobs,
            plan: None,
            again: None,
        },
    );
}

fn plan(runs: &Runs, free: usize) -> Vec<Decision> {
    super::plan(runs, &Places::here(free), Time(1))
}

fn begins(runs: &mut Runs, run: u32, job: &str) {
    let (run, job): (RunId, JobName) = (RunId(run), job.parse().unwrap());
    let attempt = runs.all[&run].job(&job).map_or(0, |j| j.attempts) + 1;
    evolve(runs, Event::JobStarted { run, job, attempt, isolation: Default::default() });
}

fn ended(runs: &mut Runs, run: u32, job: &str, end: JobEnd, took: u64) {
    let (run, name): (RunId, JobName) = (RunId(run), job.parse().unwrap());
    let attempt = runs.all[&run].job(&name).map_or(0, |j| j.attempts) + 1;
    evolve(runs, Event::JobStarted { run, job: name.clone(), attempt, isolation: Default::default() });
    let tests = TestCounts::default();
    evolve(
        runs,
        Event::JobFinished {
            run,
            job: name,
            attempt,
            ended: end,
            took: Span(took),
            log: None,
            tests,
            report: None,
        },
    );
}

fn started(decisions: &[Decision]) -> Vec<String> {
    let name = |d: &Decision| match d {
        Decision::Start { job, .. } => Some(job.to_string()),
        _ => None,
    };
    decisions.iter().filter_map(name).collect()
}

#[test]
fn quick_jobs_go_first_and_unknown_ones_before_them() {
    let mut runs = Runs::default();
    let jobs = vec![job("slow", "commit", &[], 0), job("fast", "commit", &[], 0)];
    queued(&mut runs, 1, jobs.clone());
    ended(&mut runs, 1, "slow", JobEnd::Passed, 900);
    ended(&mut runs, 1, "fast", JobEnd::Passed, 10);
    let mut more = jobs;
    more.push(job("new", "commit", &[], 0));
    queued(&mut runs, 2, more);
    assert_eq!(started(&plan(&runs, 9)), ["new", "fast", "slow"]);
    assert_eq!(started(&plan(&runs, 1)), ["new"]);
}

#[test]
fn a_stage_waits_for_the_stages_before_it_and_a_job_for_its_needs() {
    let mut runs = Runs::default();
    queued(
        &mut runs,
        1,
        vec![job("a", "commit", &[], 0), job("b", "commit", &["a"], 0), job("c", "late", &[], 0)],
    );
    assert_eq!(started(&plan(&runs, 9)), ["a"]);
    ended(&mut runs, 1, "a", JobEnd::Passed, 1);
    assert_eq!(started(&plan(&runs, 9)), ["b"]);
    ended(&mut runs, 1, "b", JobEnd::Passed, 1);
    assert_eq!(started(&plan(&runs, 9)), ["c"]);
}

#[test]
fn a_red_job_skips_the_rest_and_then_the_run_is_judged() {
    let mut runs = Runs::default();
    queued(&mut runs, 1, vec![job("a", "commit", &[], 0), job("b", "commit", &["a"], 0)]);
    ended(&mut runs, 1, "a", JobEnd::Failed { code: 1 }, 1);
    let decisions = plan(&runs, 9);
    let [Decision::Skip { run, job, why }] = &decisions[..] else { panic!("{decisions:?}") };
    assert!(why.contains("a is red"));
    evolve(&mut runs, Event::JobSkipped { run: *run, job: job.clone(), why: why.clone() });
    assert_eq!(plan(&runs, 9), [Decision::Judge { run: RunId(1) }]);
}

#[test]
fn a_lost_attempt_does_not_use_up_a_retry_but_a_red_one_does() {
    let mut runs = Runs::default();
    queued(&mut runs, 1, vec![job("a", "commit", &[], 1)]);
    let name: JobName = "a".parse().unwrap();
    evolve(
        &mut runs,
        Event::JobStarted { run: RunId(1), job: name.clone(), attempt: 1, isolation: Default::default() },
    );
    evolve(&mut runs, Event::JobLost { run: RunId(1), job: name, attempt: 1, why: "restart".into() });
    ended(&mut runs, 1, "a", JobEnd::Failed { code: 1 }, 1);
    assert_eq!(started(&plan(&runs, 9)), ["a"], "one retry is left");
    ended(&mut runs, 1, "a", JobEnd::Failed { code: 1 }, 1);
    assert_eq!(plan(&runs, 9), [Decision::Judge { run: RunId(1) }]);
}

#[test]
fn broken_infrastructure_is_tried_again_by_itself_and_is_never_red() {
    let mut runs = Runs::default();
    queued(&mut runs, 1, vec![job("a", "commit", &[], 0), job("b", "commit", &["a"], 0)]);
    let broken = || JobEnd::Broken { why: "the disk is full".into() };
    for _ in 0..2 {
        ended(&mut runs, 1, "a", broken(), 1);
        assert_eq!(started(&plan(&runs, 9)), ["a"]);
    }
    ended(&mut runs, 1, "a", broken(), 1);
    let decisions = plan(&runs, 9);
    let [Decision::Skip { why, .. }] = &decisions[..] else { panic!("{decisions:?}") };
    assert!(why.contains("infrastructure"), "{why}");
}

#[test]
fn a_broken_attempt_uses_up_no_retry_of_a_red_one_nor_the_other_way_round() {
    let mut runs = Runs::default();
    queued(&mut runs, 1, vec![PlannedJob { broken: 1, ..job("a", "commit", &[], 1) }]);
    ended(&mut runs, 1, "a", JobEnd::Broken { why: "x".into() }, 1);
    ended(&mut runs, 1, "a", JobEnd::Failed { code: 1 }, 1);
    assert_eq!(started(&plan(&runs, 9)), ["a"]);
    ended(&mut runs, 1, "a", JobEnd::Failed { code: 1 }, 1);
    assert_eq!(plan(&runs, 9), [Decision::Judge { run: RunId(1) }]);
}

#[test]
fn a_decided_run_does_not_wait_for_what_would_be_tried_again() {
    let mut runs = Runs::default();
    queued(&mut runs, 1, vec![job("a", "commit", &[], 0), job("b", "commit", &[], 3)]);
    ended(&mut runs, 1, "b", JobEnd::Failed { code: 1 }, 1);
    ended(&mut runs, 1, "a", JobEnd::Failed { code: 1 }, 1);
    assert_eq!(plan(&runs, 9), [Decision::Judge { run: RunId(1) }]);
}

#[test]
fn what_is_not_needed_counts_as_passed_and_starts_nothing() {
    let mut runs = Runs::default();
    let spared =
        PlannedJob { not_needed: Some("no file of docs/ changed".into()), ..job("docs", "commit", &[], 0) };
    queued(&mut runs, 1, vec![spared.clone(), job("unit", "late", &["docs"], 0)]);
    assert_eq!(started(&plan(&runs, 9)), ["unit"]);
    ended(&mut runs, 1, "unit", JobEnd::Passed, 1);
    assert_eq!(plan(&runs, 9), [Decision::Judge { run: RunId(1) }]);
    queued(&mut runs, 2, vec![spared]);
    assert!(plan(&runs, 9).contains(&Decision::Judge { run: RunId(2) }), "never left pending");
}

#[test]
fn jobs_of_a_group_run_one_at_a_time_in_order_and_none_is_dropped() {
    let mut runs = Runs::default();
    let deploy = || PlannedJob { group: Some("db".parse().unwrap()), ..job("deploy", "commit", &[], 0) };
    (1..=3).for_each(|run| queued(&mut runs, run, vec![deploy(), job("other", "commit", &[], 0)]));
    for run in 1..=3 {
        let decisions = plan(&runs, 9);
        let begun: Vec<_> = decisions
            .iter()
            .filter_map(|d| match d {
                Decision::Start { run, job, .. } if job.as_str() == "deploy" => Some(run.0),
                _ => None,
            })
            .collect();
        assert_eq!(begun, [run], "{decisions:?}");
        begins(&mut runs, run, "deploy");
        assert!(!started(&plan(&runs, 9)).contains(&"deploy".to_owned()));
        if run < 3 {
            let next = &runs.all[&RunId(run + 1)];
            let words = waits_for(&runs, &Places::here(0), next, &next.jobs[0]);
            assert_eq!(words, format!("waits for run-{run} deploy: one job of db at a time"));
        }
        runs_end(&mut runs, run, "deploy");
    }
}

fn runs_end(runs: &mut Runs, run: u32, job: &str) {
    let (run, job) = (RunId(run), job.parse().unwrap());
    let (ended, took, tests) = (JobEnd::Passed, Span(1), TestCounts::default());
    evolve(runs, Event::JobFinished { run, job, attempt: 1, ended, took, log: None, tests, report: None });
}

#[test]
fn a_person_is_asked_when_it_is_due_and_the_run_goes_on_with_a_yes() {
    let mut runs = Runs::default();
    let approve = andon_model::event::PlannedApproval {
        roles: vec![],
        people: vec![],
        within: Span(100),
        why: "to production?".into(),
        not_author: false,
    };
    let ask = || PlannedJob { approve: Some(approve.clone()), ..job("ask", "commit", &["a"], 0) };
    for run in 1..=2 {
        queued(&mut runs, run, vec![job("a", "commit", &[], 0), ask(), job("c", "commit", &["ask"], 0)]);
        ended(&mut runs, run, "a", JobEnd::Passed, 1);
        let (run, job): (RunId, JobName) = (RunId(run), "ask".parse().unwrap());
        let until = Time(101);
        // It needs no free slot.
        assert!(plan(&runs, 0).contains(&Decision::Ask { run, job: job.clone(), until }));
        evolve(&mut runs, Event::ApprovalAsked { run, job, until });
        assert!(!plan(&runs, 0).iter().any(|d| matches!(d, Decision::Ask { .. })));
    }
    let job: JobName = "ask".parse().unwrap();
    evolve(&mut runs, Event::ApprovalGiven { run: RunId(1), job: job.clone(), why: "yes".into() });
    assert_eq!(started(&plan(&runs, 9)), ["c"]);
    let late = super::plan(&runs, &Places::here(0), Time(101));
    let [Decision::Expire { run: RunId(2), why, .. }] = &late[..] else { panic!("{late:?}") };
    evolve(&mut runs, Event::ApprovalRefused { run: RunId(2), job, why: why.clone() });
    assert!(plan(&runs, 9).iter().any(|d| matches!(d, Decision::Skip { run: RunId(2), .. })));
}

#[test]
fn a_timeout_that_nobody_said_follows_from_what_the_job_takes() {
    let mut runs = Runs::default();
    let name: JobName = "a".parse().unwrap();
    assert_eq!(runs.timeout(&name, None), Span::secs(1800));
    for run in 1..=20 {
        queued(&mut runs, run, vec![job("a", "commit", &[], 0)]);
        let took = if run == 20 { 900_000 } else { 180_000 };
        ended(&mut runs, run, "a", JobEnd::Passed, took);
        if run == 4 {
            assert_eq!(runs.timeout(&name, None), Span::secs(1800), "four attempts are too few");
        }
    }
    assert_eq!(runs.timeout(&name, None), Span::secs(720), "one slow attempt in twenty is an exception");
    assert_eq!(runs.timeout(&name, Some(Span::secs(7))), Span::secs(7), "what is said holds");
    queued(&mut runs, 30, vec![job("quick", "commit", &[], 0)]);
    (0..5).for_each(|_| ended(&mut runs, 30, "quick", JobEnd::Passed, 3));
    assert_eq!(runs.timeout(&"quick".parse().unwrap(), None), Span::secs(300));
}

#[test]
fn ten_thousand_jobs_are_planned_in_one_look() {
    let mut runs = Runs::default();
    let stages = ["one", "two", "three", "four"];
    let jobs = (0..10_000).map(|n| {
        let needs = if n % 2_500 == 0 { vec![] } else { vec![format!("j{}", n - 1)] };
        let needs: Vec<&str> = needs.iter().map(String::as_str).collect();
        job(&format!("j{n}"), stages[n / 2_500], &needs, 0)
    });
    queued(&mut runs, 1, jobs.collect());
    assert_eq!(started(&plan(&runs, 9)), ["j0"]);
}

#[test]
fn a_yes_is_for_the_patch_set_and_nobody_is_asked_twice() {
    let mut runs = Runs::default();
    let approve = andon_model::event::PlannedApproval {
        roles: vec![],
        people: vec![],
        within: Span(100),
        why: "on?".into(),
        not_author: false,
    };
    let gate = |patch_set: u32| Purpose::Gate { change: andon_model::ChangeId(1), patch_set };
    let name: JobName = "ask".parse().unwrap();
    let mut asked = |run: u32, patch_set: u32, why: &str| {
        let approve = andon_model::event::PlannedApproval { why: why.into(), ..approve.clone() };
        let ask = PlannedJob { approve: Some(approve), ..job("ask", "commit", &[], 0) };
        let oid: Oid = "a".repeat(40).parse().unwrap();
        let (run, purpose) = (RunId(run), gate(patch_set));
        let (commit, tree, jobs) = (oid.clone(), oid, vec![ask]);
        let queued =
            Event::RunQueued { run, purpose, commit, tree, parent: None, jobs, plan: None, again: None };
        evolve(&mut runs, queued);
        let decisions = plan(&runs, 9);
        let carried = decisions.contains(&Decision::Carry { run, job: name.clone(), from: RunId(1) });
        let job = name.clone();
        evolve(
            &mut runs,
            match carried {
                true => Event::JobReplayed { run, job, from: RunId(1), key: None },
                false => Event::ApprovalGiven { run, job, why: "yes".into() },
            },
        );
        let (verdict, tests) = (andon_model::event::Verdict::Green, TestCounts::default());
        evolve(&mut runs, Event::RunFinished { run, verdict, tests, coverage: None, report: None });
        carried
    };
    assert!(!asked(1, 1, "on?"));
    assert!(asked(2, 1, "on?"), "on a newer trunk the same patch set has its yes");
    assert!(!asked(3, 1, "really?"), "another question is asked");
    assert!(!asked(4, 2, "on?"), "another patch set is looked at again");
}
