//! What a job runs, and within which bounds: its steps, its limits, its network, how long it may be silent. Runs nothing.

use std::collections::{BTreeMap, BTreeSet};

use andon_model::{JobName, Span};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_saphyr::{Location, Spanned};

use crate::check::{Problem, at, whole};
use crate::definition::{Job, ServiceLimits};

/// Most steps of one job.
const MOST: usize = 200;
/// Longest name of a step, in characters.
const LONGEST: usize = 80;
/// The name of the one step of a job with `run`.
const RUN: &str = "run";
/// Less than this and no shell begins, in bytes.
const LEAST_MEMORY: u64 = 8 << 20;

/// One command of a job. Steps run one after the other in the same working copy; the first red one ends the job.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// What people call it.
    #[schemars(with = "String", length(min = 1, max = LONGEST))]
    pub name: Spanned<String>,
    /// The commands, given to `sh -e` as they stand.
    pub run: String,
    /// Environment variables of this step.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// The job is stopped when the step takes longer.
    pub timeout: Option<Span>,
}

impl Job {
    /// Its steps in order; `run` is one step of that name.
    pub fn all_steps(&self) -> Vec<Step> {
        match &self.run {
            None => self.steps.clone(),
            Some(run) => vec![Step {
                name: Spanned::new(RUN.to_owned(), Location::UNKNOWN, Location::UNKNOWN),
                run: run.value.clone(),
                env: BTreeMap::new(),
                timeout: None,
            }],
        }
    }
}

/// What is wrong with what a job runs.
pub(crate) fn problems(name: &JobName, job: &Job) -> Vec<Problem> {
    let mut problems = Vec::new();
    match (&job.run, &job.steps[..]) {
        (None, []) => problems.push(whole(
            format!("job {name} runs nothing"),
            "give it `run: COMMAND`, or `steps:` with a name and a command each, or `use: TEMPLATE`, or `approve:`",
        )),
        (Some(run), [_, ..]) => problems.push(at(
            run.referenced,
            format!("job {name} has both `run` and `steps`"),
            "make the command the first of the `steps`",
        )),
        _ => {}
    }
    if job.steps.len() > MOST {
        let what = format!("job {name} has {} steps, more than the {MOST} there may be", job.steps.len());
        problems.push(whole(what, "put some of them into a script of the repository"));
    }
    let mut seen = BTreeSet::new();
    for step in &job.steps {
        let (place, said) = (step.name.referenced, step.name.value.as_str());
        if said.trim().is_empty() || said.chars().count() > LONGEST || said.chars().any(char::is_control) {
            problems.push(at(
                place,
                format!("{said:?} of job {name} is no name of a step"),
                format!("write 1 to {LONGEST} characters on one line"),
            ));
        } else if !seen.insert(said) {
            let what = format!("job {name} has two steps called {said:?}");
            problems.push(at(place, what, "give each a name of its own: the page tells them apart by it"));
        }
        if step.timeout == Some(Span(0)) {
            problems.push(at(
                place,
                format!("step {said:?} of job {name} has no time"),
                "write `timeout: 5m`",
            ));
        }
    }
    problems.extend(bounds(name, job));
    problems
}

fn bounds(name: &JobName, job: &Job) -> Vec<Problem> {
    let ServiceLimits { memory, cpu, processes } = &job.limits;
    let checks = [
        (memory.is_some_and(|memory| memory.0 < LEAST_MEMORY), "limits.memory", "write 8MiB or more"),
        (cpu.is_some_and(|cpu| !(0.01..=1024.0).contains(&cpu)), "limits.cpu", "write processors: 0.5, 2"),
        (
            processes.is_some_and(|most| most < 2),
            "limits.processes",
            "a shell and its command are two processes",
        ),
        (job.quiet == Some(Span(0)), "quiet", "write how long it may print nothing: `quiet: 10m`"),
    ];
    let bad = checks.into_iter().filter(|(bad, ..)| *bad);
    bad.map(|(_, key, hint)| whole(format!("{key} of job {name} cannot be meant"), hint)).collect()
}

#[cfg(test)]
mod tests {
    use crate::check::read;

    fn with(job: &str) -> Result<crate::Definition, Vec<crate::check::Problem>> {
        read(&format!("version: 1\npipeline:\n  jobs:\n    unit:\n{job}"))
    }

    #[test]
    fn a_job_with_run_is_one_step_and_steps_keep_their_order() {
        let one = with("      run: make\n").unwrap();
        let steps = one.pipeline.jobs[0].all_steps();
        assert_eq!((steps.len(), steps[0].name.value.as_str(), steps[0].run.as_str()), (1, "run", "make"));
        let two = with(
            "      steps:\n      - { name: Get it, run: a, env: { A: b }, timeout: 1m }\n      - { name: b, run: c }\n",
        );
        let steps = two.unwrap().pipeline.jobs[0].all_steps();
        let names: Vec<&str> = steps.iter().map(|step| step.name.value.as_str()).collect();
        assert_eq!(names, ["Get it", "b"]);
    }

    #[test]
    fn what_a_job_runs_is_said_once_and_each_step_has_a_name_of_its_own() {
        for (job, line, says) in [
            ("      stage: commit\n", 0, "runs nothing"),
            ("      run: a\n      steps: [{ name: b, run: c }]\n", 5, "both `run` and `steps`"),
            (
                "      steps:\n      - { name: b, run: c }\n      - { name: b, run: d }\n",
                7,
                "two steps called",
            ),
            ("      steps:\n      - { name: '', run: c }\n", 6, "no name of a step"),
            ("      steps:\n      - { name: \"a\\nb\", run: c }\n", 6, "no name of a step"),
            ("      steps:\n      - { name: b, run: c, timeout: 0s }\n", 6, "has no time"),
            ("      run: a\n      limits: { processes: 1 }\n", 0, "limits.processes"),
            ("      run: a\n      limits: { memory: 1KiB }\n", 0, "limits.memory"),
            ("      run: a\n      quiet: 0s\n", 0, "quiet"),
        ] {
            let problems = with(job).unwrap_err();
            assert!(problems[0].what.contains(says), "{job}: {problems:?}");
            assert_eq!(problems[0].line, line, "{job}: {problems:?}");
        }
    }
}
