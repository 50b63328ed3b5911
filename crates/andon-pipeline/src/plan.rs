//! Which job to start next. Pure: all runs and the free slots in, decisions out.
//!
//! The order among jobs that may start: older run first; then earlier stage; then what was never seen (it may fail in a new way); then the
//! quicker one; then by name, so that the same state always gives the same plan.

use andon_model::event::JobEnd;
use andon_model::{JobName, RunId};

use crate::runs::{JobRun, JobState, Run, Runs};

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// Give the job to a runner.
    Start {
        /// The run.
        run: RunId,
        /// The job.
        job: JobName,
        /// Counts from 1.
        attempt: u32,
    },
    /// The job will not be run.
    Skip {
        /// The run.
        run: RunId,
        /// The job.
        job: JobName,
        /// The reason.
        why: String,
    },
    /// All jobs are settled: the verdict is due.
    Judge {
        /// The run.
        run: RunId,
    },
}

/// The next decisions with this many free slots.
pub fn plan(runs: &Runs, free: usize) -> Vec<Decision> {
    let mut decisions = Vec::new();
    let mut ready = Vec::new();
    for run in runs.open() {
        if run.jobs.iter().all(JobRun::is_settled) {
            decisions.push(Decision::Judge { run: run.id });
        } else if run.is_lost() {
            decisions.extend(skip_rest(run));
        } else {
            ready.extend(
                run.jobs
                    .iter()
                    .enumerate()
                    .filter(|(_, job)| may_start(run, job))
                    .map(|(at, job)| (run, at, job)),
            );
        }
    }
    ready.sort_by(|a, b| rank(runs, a).partial_cmp(&rank(runs, b)).unwrap_or(std::cmp::Ordering::Equal));
    decisions.extend(ready.into_iter().take(free).map(|(run, _, job)| Decision::Start {
        run: run.id,
        job: job.plan.name.clone(),
        attempt: job.attempts + 1,
    }));
    decisions
}

fn rank<'a>(runs: &Runs, (run, _, job): &(&'a Run, usize, &'a JobRun)) -> (RunId, usize, f64, &'a JobName) {
    let usual = runs.usual.get(&job.plan.name).map_or(-1.0, |usual| usual.millis);
    (run.id, stage_of(run, job), usual, &job.plan.name)
}

fn stage_of(run: &Run, job: &JobRun) -> usize {
    run.jobs.iter().position(|other| other.plan.stage == job.plan.stage).unwrap_or(0)
}

fn may_start(run: &Run, job: &JobRun) -> bool {
    let due = match &job.state {
        JobState::Waiting => true,
        JobState::Ended { end, .. } => !job.is_settled() && *end != JobEnd::Passed,
        _ => false,
    };
    let stage = stage_of(run, job);
    due && job.plan.needs.iter().all(|need| run.job(need).is_some_and(JobRun::passed))
        && run.jobs.iter().filter(|other| stage_of(run, other) < stage).all(JobRun::passed)
}

fn skip_rest(run: &Run) -> Vec<Decision> {
    let red = run.jobs.iter().find(|job| matches!(job.state, JobState::Ended { .. }) && !job.passed());
    let why = red.map_or_else(String::new, |job| format!("{} is red: the run is decided", job.plan.name));
    let waiting = run.jobs.iter().filter(|job| matches!(job.state, JobState::Waiting));
    waiting.map(|job| Decision::Skip { run: run.id, job: job.plan.name.clone(), why: why.clone() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use andon_model::event::{Event, PlannedJob, Purpose, Recorded, TestCounts};
    use andon_model::{Actor, Oid, Span, Time};

    fn job(name: &str, stage: &str, needs: &[&str], retries: u32) -> PlannedJob {
        let needs = needs.iter().map(|n| n.parse().unwrap()).collect();
        PlannedJob { name: name.parse().unwrap(), stage: stage.into(), needs, retries }
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
            },
        );
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
}
