//! A run made once more: which of its jobs are kept, and which are run. The new run is made by the gate.

use std::collections::BTreeSet;

use andon_model::event::{Event, Verdict};
use andon_model::{JobName, Pins, RunId};
use andon_pipeline::{Definition, JobState, Run};

use crate::{Refusal, State};

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Again {
    /// The run that is made once more.
    pub run: RunId,
    /// Jobs that are run in any case, with all that need them; none named: what was not green.
    pub jobs: Vec<JobName>,
    /// Nothing counts because it was green before: the named jobs, or all, are really run.
    pub fresh: bool,
}

impl Again {
    /// Whether this run can be made again.
    pub(in crate::stations) fn check(&self, run: &Run) -> Result<(), Refusal> {
        if let Some(job) = self.jobs.iter().find(|job| run.job(job).is_none()) {
            let known: Vec<&str> = run.jobs.iter().map(|job| job.plan.name.as_str()).take(20).collect();
            return Err(Refusal::Unknown(format!(
                "{} has no job {job}\nhint: it has {}",
                run.id,
                known.join(", ")
            )));
        }
        match &run.finished {
            None => Err(Refusal::Conflict(format!("{} is still under way", run.id))),
            Some((_, Verdict::Green)) if self.jobs.is_empty() && !self.fresh => {
                Err(Refusal::Conflict(format!(
                    "{} is green: nothing is left to be run\nhint: --job NAME --fresh runs a job in any case",
                    run.id
                )))
            }
            Some(_) => Ok(()),
        }
    }

    /// The new run's events: that it was asked for, and what it keeps.
    pub(in crate::stations) fn keep(
        &self,
        state: &State,
        queued: Event,
        definition: &Definition,
        pins: &Pins,
    ) -> Vec<Event> {
        let Event::RunQueued { run, commit, tree, plan, mut jobs, purpose, parent, again } = queued else {
            return Vec::new();
        };
        let before = state.runs.all.get(&self.run);
        for job in &mut jobs {
            job.fresh = self.fresh && (self.jobs.is_empty() || self.jobs.contains(&job.name));
        }
        // Another tree or plan is another question: what was green there says nothing here.
        let same = before.filter(|before| before.tree == tree && before.plan == plan && plan.is_some());
        let kept = same.map(|before| self.kept(before)).unwrap_or_default();
        let mut events = Vec::new();
        for job in jobs.iter().filter(|job| kept.contains(&job.name)) {
            let key = before.and_then(|before| before.job(&job.name)?.key.clone());
            events.push(Event::JobReplayed { run, job: job.name.clone(), from: self.run, key });
            let made = before.and_then(|before| before.artifact.clone());
            if let Some((artifact, bytes)) = made
                && definition.pipeline.jobs.get(&job.name).is_some_and(|job| job.artifact.is_some())
            {
                events.push(Event::ArtifactBuilt {
                    run,
                    artifact,
                    bytes,
                    commit: commit.clone(),
                    pins: pins.clone(),
                });
            }
        }
        events.insert(0, Event::RunQueued { run, purpose, commit, tree, parent, jobs, plan, again });
        events
    }

    /// Jobs that were green and stay so: neither named nor behind one that is run.
    fn kept(&self, before: &Run) -> BTreeSet<JobName> {
        if self.fresh && self.jobs.is_empty() {
            return BTreeSet::new();
        }
        let green = |job: &&andon_pipeline::runs::JobRun| {
            job.passed() && matches!(job.state, JobState::Ended { .. }) && !self.jobs.contains(&job.plan.name)
        };
        let mut kept: BTreeSet<JobName> =
            before.jobs.iter().filter(green).map(|job| job.plan.name.clone()).collect();
        loop {
            let run_anew = |name: &JobName| {
                before.job(name).is_some_and(|job| matches!(job.state, JobState::Ended { .. }))
                    && !kept.contains(name)
            };
            let behind: Vec<JobName> = before
                .jobs
                .iter()
                .filter(|job| kept.contains(&job.plan.name) && job.plan.needs.iter().any(run_anew))
                .map(|job| job.plan.name.clone())
                .collect();
            if behind.is_empty() {
                return kept;
            }
            kept.retain(|name| !behind.contains(name));
        }
    }
}
