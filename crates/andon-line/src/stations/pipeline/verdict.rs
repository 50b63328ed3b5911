//! The verdict on a run whose jobs are settled. What it says is decided in andon-validation.

use std::sync::Arc;

use andon_model::event::{Event, JobEnd, Purpose};
use andon_model::{Digest, RunId};
use andon_pipeline::JobState;
use andon_validation::limits::{CoverageLimits, judge};
use andon_validation::{Coverage, JobResult, RunReport, diff, verdict};

use super::reports::Gathered;
use crate::{Line, Project, Refusal};

/// Largest stored report that is read again, in bytes.
const STORED_LIMIT: u64 = 512 << 20;

/// Judges the run and records it.
pub(super) async fn give(line: &Arc<Line>, project: &Project, id: RunId) -> Result<(), Refusal> {
    let found = {
        let state = project.state();
        let quarantine = state.quarantine.clone();
        state.runs.all.get(&id).cloned().map(|run| (run, state.runs.trunk_coverage, quarantine))
    };
    let Some((run, before, quarantine)) = found else { return Ok(()) };
    let defined = project.definition(&run.commit).await?;
    let limits = match &*defined {
        Ok(definition) => definition.validation.coverage.clone().unwrap_or_default(),
        Err(_) => Default::default(),
    };
    let limits = CoverageLimits {
        lines: limits.lines,
        per_file: limits.per_file,
        diff: limits.diff,
        ratchet: limits.ratchet,
    };
    // A run of trunk changes nothing, and what a team brings along with its first push is not what it changes.
    let text = match (&run.purpose, &run.parent) {
        (Purpose::Gate { .. }, Some(parent)) => {
            Some(project.repository.diff(Some(parent), &run.commit).await?)
        }
        _ => None,
    };
    let (blobs, now) = (line.blobs.clone(), line.now());
    let judged = tokio::task::spawn_blocking(move || {
        let (mut results, mut merged, mut warnings) = (Vec::new(), Coverage::default(), Vec::new());
        for job in &run.jobs {
            let (end, stored) = match &job.state {
                JobState::Ended { end, report, .. } => (Some(end.clone()), report.as_ref()),
                JobState::NotNeeded { .. } => (Some(JobEnd::Passed), None),
                _ => (None, None),
            };
            let gathered: Gathered = stored
                .and_then(|digest| blobs.read(digest, STORED_LIMIT).ok())
                .and_then(|bytes| serde_json::from_slice(&bytes).ok())
                .unwrap_or_default();
            merged.merge(&gathered.coverage);
            warnings.extend(gathered.warnings);
            results.push(JobResult {
                job: job.plan.name.clone(),
                end,
                tests: gathered.tests,
                unreadable: gathered.unreadable,
            });
        }
        let diff = text.map(|text| diff::read(&text));
        let breaches = judge(&limits, &merged, diff.as_ref(), before);
        let mut report = RunReport::of(results, Some(&merged), diff.as_ref(), breaches, warnings);
        report.excuse(&quarantine, now);
        let verdict = verdict::of(&report);
        let bytes = serde_json::to_vec(&report).map_err(std::io::Error::other)?;
        let (digest, _) = blobs.put(&bytes[..])?;
        Ok::<_, std::io::Error>((report, verdict, digest))
    })
    .await
    .map_err(|error| Refusal::Broken(error.to_string()))?;
    let (report, verdict, digest) = judged?;
    line.decide(project, andon_model::Actor::line("validation"), |state, _| {
        let open = state.runs.all.get(&id).is_some_and(|run| run.finished.is_none());
        let (tests, coverage, report) = (report.counts, report.coverage, Some(digest));
        let finished = Event::RunFinished { run: id, verdict, tests, coverage, report };
        Ok((if open { vec![finished] } else { vec![] }, ()))
    })
    .await
}

impl Line {
    /// Everything that was tested in a run, as kept with its verdict.
    pub async fn run_report(&self, digest: Digest) -> Result<RunReport, Refusal> {
        let blobs = self.blobs.clone();
        let read = tokio::task::spawn_blocking(move || blobs.read(&digest, STORED_LIMIT)).await;
        let bytes = read.map_err(|error| Refusal::Broken(error.to_string()))??;
        serde_json::from_slice(&bytes).map_err(|error| Refusal::Broken(error.to_string()))
    }
}
