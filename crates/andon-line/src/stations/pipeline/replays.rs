//! Jobs that are not run because everything they depend on was green before: their keys, and the runs that answer for them.
//!
//! A key is made of the files that a job reads, of everything that the plan says of it, of the outputs that it takes, and of the kind of
//! machine. Whose results a run may use is said by [`andon_pipeline::Run::may_use`].

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use andon_model::event::Event;
use andon_model::{Digest, JobName, Oid, RunId};
use andon_pipeline::plan::due_jobs;
use andon_pipeline::planned::{PlanJob, globs};
use andon_pipeline::{Definition, Plan};

use super::{PIPELINE, pins};
use crate::{Line, Project, Refusal};

/// Form of what a key is made of. Another number makes all earlier ones worthless.
const FORM: u32 = 1;

/// What is known of open runs, so that it is not asked of git at each look.
#[derive(Default)]
pub(super) struct Keys {
    runs: HashMap<RunId, Known>,
}

struct Known {
    commit: Oid,
    /// The plan by job; empty where the file cannot be read: then the attempt says so.
    jobs: HashMap<JobName, PlanJob>,
    /// Files of the commit with their objects.
    entries: Vec<(String, String)>,
    /// What patterns read, as one digest: jobs of a matrix read the same.
    read: HashMap<Vec<String>, Digest>,
    keys: HashMap<JobName, Digest>,
}

impl Keys {
    /// The key of a job that was looked at.
    pub fn of(&self, run: RunId, job: &JobName) -> Option<Digest> {
        self.runs.get(&run)?.keys.get(job).cloned()
    }

    /// Records every job that is due and was green before with the same inputs, in one go. True: there were some, others may be due now.
    pub async fn replay(&mut self, line: &Line, project: &Arc<Project>) -> Result<bool, Refusal> {
        let due: Vec<(RunId, JobName)> = {
            let state = project.state();
            self.runs.retain(|id, _| state.runs.all.get(id).is_some_and(|run| run.finished.is_none()));
            due_jobs(&state.runs)
                .filter(|(_, job)| job.plan.keyed)
                .map(|(run, job)| (run.id, job.plan.name.clone()))
                .collect()
        };
        let mut found = Vec::new();
        for (run, job) in due {
            let Some(key) = self.key(project, run, &job).await? else { continue };
            let from = {
                let state = project.state();
                let this = state.runs.all.get(&run);
                // An attempt that was begun is finished; who asked for a fresh one gets it.
                let this =
                    this.filter(|run| run.job(&job).is_some_and(|job| !job.plan.fresh && job.attempts == 0));
                this.and_then(|this| state.runs.green_before(this, &job, &key))
            };
            if let Some(from) = from {
                found.extend(self.events(project, run, job, from, key).await?);
            }
        }
        let any = !found.is_empty();
        line.tell(project, PIPELINE, found).await?;
        Ok(any)
    }

    async fn events(
        &self,
        project: &Project,
        run: RunId,
        job: JobName,
        from: RunId,
        key: Digest,
    ) -> Result<Vec<Event>, Refusal> {
        let mut events = Vec::new();
        let known = self.runs.get(&run);
        if let Some(known) =
            known.filter(|known| known.jobs.get(&job).is_some_and(|job| job.job.artifact.is_some()))
        {
            let made = project.state().runs.all.get(&from).and_then(|from| from.artifact.clone());
            let defined = project.definition(&known.commit).await?;
            // It was green without an artifact, which cannot be: then it is run.
            let (Some((artifact, bytes)), Ok(definition)) = (made, defined.as_ref()) else {
                return Ok(events);
            };
            let pins = pins(project, definition, &known.commit).await?;
            events.push(Event::ArtifactBuilt { run, artifact, bytes, commit: known.commit.clone(), pins });
        }
        events.push(Event::JobReplayed { run, job, from, key: Some(key) });
        Ok(events)
    }

    /// All that the job depends on, as one digest; none: it cannot be said, and the attempt will say why.
    async fn key(&mut self, project: &Project, run: RunId, job: &JobName) -> Result<Option<Digest>, Refusal> {
        let known = match self.runs.entry(run) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => {
                let commit = project.state().runs.all.get(&run).map(|run| run.commit.clone());
                let Some(commit) = commit else { return Ok(None) };
                place.insert(Known::of(project, commit).await?)
            }
        };
        if let Some(key) = known.keys.get(job) {
            return Ok(Some(key.clone()));
        }
        let Some(planned) = known.jobs.get(job) else { return Ok(None) };
        let taken: Option<Vec<Digest>> = {
            let state = project.state();
            let found = state.runs.all.get(&run);
            let of = |name: &JobName| Some(found?.job(name)?.outputs.as_ref()?.0.clone());
            planned.job.takes.iter().map(|take| of(&take.value)).collect()
        };
        let Some(taken) = taken else { return Ok(None) };
        let broken = |error: serde_json::Error| Refusal::Broken(error.to_string());
        let read = match known.read.get(&planned.job.reads) {
            Some(read) => read.clone(),
            None => {
                let Ok(reads) = globs(&planned.job.reads) else { return Ok(None) };
                let read: Vec<_> = known.entries.iter().filter(|(path, _)| reads.is_match(path)).collect();
                let read = Digest::of(&serde_json::to_vec(&read).map_err(broken)?);
                known.read.insert(planned.job.reads.clone(), read.clone());
                read
            }
        };
        let machine = (std::env::consts::OS, std::env::consts::ARCH);
        let all = serde_json::to_vec(&(FORM, machine, planned, taken, read));
        let key = Digest::of(&all.map_err(broken)?);
        known.keys.insert(job.clone(), key.clone());
        Ok(Some(key))
    }
}

impl Known {
    async fn of(project: &Project, commit: Oid) -> Result<Known, Refusal> {
        let defined = project.definition(&commit).await?;
        let plan = |definition: &Definition| {
            Plan::of(definition).jobs.into_iter().map(|job| (job.name.clone(), job)).collect()
        };
        let jobs = defined.as_ref().as_ref().map(plan).unwrap_or_default();
        let entries = project.repository.entries(&commit).await?;
        Ok(Known { commit, jobs, entries, read: HashMap::new(), keys: HashMap::new() })
    }
}
