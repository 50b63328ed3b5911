//! The verdict on a run whose jobs are settled. What it says is decided in andon-validation.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use andon_model::event::{Event, JobEnd, Purpose};
use andon_model::{Digest, JobName, RunId, Time};
use andon_pipeline::definition::{self, FindingsOn, Job};
use andon_pipeline::runs::{JobRun, Run, Runs};
use andon_pipeline::{Definition, JobState};
use andon_store::Blobs;
use andon_validation::findings::{Finding, FindingLimits};
use andon_validation::gates::{Came, Part};
use andon_validation::limits::{CoverageLimits, Shares};
use andon_validation::measured::{self, Number};
use andon_validation::pyramid::{Layer, LayerLine};
use andon_validation::{Coverage, JobResult, RunReport, diff, findings, gates, pyramid, verdict};

use super::reports::Gathered;
use crate::{Line, Project, Refusal};

/// Largest stored report that is read again, in bytes.
const STORED_LIMIT: u64 = 512 << 20;
/// Findings that a run's report keeps.
const MOST_FINDINGS: usize = 5000;

/// Judges the run and records it.
pub(super) async fn give(line: &Arc<Line>, project: &Project, id: RunId) -> Result<(), Refusal> {
    let found = {
        let state = project.state();
        let quarantine = state.quarantine.clone();
        state.runs.all.get(&id).cloned().map(|run| (run, state.runs.trunk_coverage, quarantine))
    };
    let Some((run, before, quarantine)) = found else { return Ok(()) };
    let defined = project.definition(&run.commit).await?;
    let mut rules = Rules::of(defined.as_ref().as_ref().ok());
    let own = unapproved(line, project, &run, &mut rules, defined.as_ref().as_ref().ok()).await?;
    // A run of trunk changes nothing, and what a team brings along with its first push is not what it changes.
    let text = match (&run.purpose, &run.parent) {
        (Purpose::Gate { .. }, Some(parent)) => {
            Some(project.repository.diff(Some(parent), &run.commit).await?)
        }
        _ => None,
    };
    let (blobs, now) = (line.blobs.clone(), line.now());
    let (carried, landings) = {
        let state = project.state();
        (carried(&state.runs, &run, &rules), landings(&state.runs, id))
    };
    let judged = tokio::task::spawn_blocking(move || {
        let mut all = All::default();
        for job in &run.jobs {
            all.take(&blobs, job, &rules, carried.get(&job.plan.name), now);
        }
        let diff = text.map(|text| diff::read(&text));
        if let Some(diff) = &diff {
            findings::mark(&mut all.findings, diff);
        }
        all.findings.sort_by_key(|finding| (!finding.on_change, std::cmp::Reverse(finding.level)));
        let measured = gates::Measured { whole: &all.whole, layers: &all.layers, parts: &all.parts };
        let judgement = gates::judge(&rules.coverage, measured, diff.as_ref(), before);
        let layers = all.pyramid();
        let mut report =
            RunReport::of(all.results, Some(&all.whole), diff.as_ref(), judgement.breaches, all.warnings);
        report.notes = judgement.notes;
        report.notes.extend(own);
        report.surplus = findings::judge(&rules.findings, &all.findings);
        report.numbers = all.numbers;
        if let Some(worse_by) = rules.worse_by.filter(|_| !report.numbers.is_empty()) {
            let landings =
                landings.iter().filter_map(|digest| numbers_of(&blobs, digest)).collect::<Vec<_>>();
            let (worse, notes) = measured::judge(&report.numbers, &landings, worse_by);
            report.surplus.extend(worse);
            report.notes.extend(notes);
        }
        report.warnings.extend(pyramid::warnings(&layers));
        report.layers = layers;
        all.findings.truncate(MOST_FINDINGS);
        report.findings = all.findings;
        if !all.whole.is_empty() {
            let bytes = serde_json::to_vec(&all.whole).map_err(std::io::Error::other)?;
            report.measured = Some(blobs.put(&bytes[..])?.0);
        }
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

/// Limits of a run that makes another `andon.yaml`, which nobody approved yet: those of trunk hold too. Says so.
async fn unapproved(
    line: &Line,
    project: &Project,
    run: &Run,
    rules: &mut Rules,
    own: Option<&Definition>,
) -> Result<Option<String>, Refusal> {
    let asks = {
        let queue = &project.state().queue;
        queue.runs.get(&run.id).and_then(|run| queue.unapproved(run))
    };
    let (Some(asks), Some(trunk)) = (asks, &run.parent) else { return Ok(None) };
    let trunk = project.definition(trunk).await?;
    let Ok(trunk) = trunk.as_ref() else { return Ok(None) };
    let both = own.map(|own| own.validation.stricter(&trunk.validation));
    rules.limit(both.unwrap_or_else(|| trunk.validation.clone()));
    let url = &line.settings.url;
    let change = match &run.purpose {
        Purpose::Gate { change, .. } => format!("{url}/{}/changes/{}", project.name, change.0),
        Purpose::Trunk => url.clone(),
    };
    let who = andon_gate::plan::approver(asks);
    Ok(Some(format!(
        "it changes andon.yaml and waits for {who}: until then trunk's limits hold too ({change})"
    )))
}

/// What `andon.yaml` says about reports, as the validation suite takes it.
struct Rules {
    coverage: CoverageLimits,
    findings: FindingLimits,
    /// By what share a measured number may be worse.
    worse_by: Option<f64>,
    /// Layers of jobs.
    layers: BTreeMap<JobName, Layer>,
    /// Jobs that declare coverage.
    measuring: BTreeSet<JobName>,
}

impl Rules {
    fn of(definition: Option<&Definition>) -> Rules {
        let validation = definition.map(|definition| definition.validation.clone()).unwrap_or_default();
        let jobs = || definition.into_iter().flat_map(|definition| definition.pipeline.jobs.iter());
        let layer = |job: &Job| match job.layer {
            Some(definition::Layer::Unit) => Layer::Unit,
            Some(definition::Layer::Integration) => Layer::Integration,
            Some(definition::Layer::E2e) => Layer::E2e,
            None => Layer::of_stage(job.stage.as_str()),
        };
        let measures = |job: &Job| job.reports.coverage.iter().next().is_some();
        let mut rules = Rules {
            coverage: CoverageLimits::default(),
            findings: FindingLimits::default(),
            worse_by: None,
            layers: jobs().map(|(name, job)| (name.clone(), layer(job))).collect(),
            measuring: jobs().filter(|(_, job)| measures(job)).map(|(name, _)| name.clone()).collect(),
        };
        rules.limit(validation);
        rules
    }

    /// These limits and no others.
    fn limit(&mut self, validation: definition::Validation) {
        self.coverage = validation.coverage.map(coverage_limits).unwrap_or_default();
        self.findings = validation.findings.map_or_else(FindingLimits::default, |limits| FindingLimits {
            errors: limits.errors,
            warnings: limits.warnings,
            on_change: limits.on == FindingsOn::Change,
        });
        self.worse_by = validation.performance.map(|limits| limits.worse_by.fraction());
    }
}

fn coverage_limits(said: definition::CoverageLimits) -> CoverageLimits {
    let shares = |said: &definition::Shares| Shares {
        lines: said.lines,
        branches: said.branches,
        functions: said.functions,
    };
    let layer = |layer: &definition::Layer| match layer {
        definition::Layer::Unit => Layer::Unit.word().to_owned(),
        definition::Layer::Integration => Layer::Integration.word().to_owned(),
        definition::Layer::E2e => Layer::E2e.word().to_owned(),
    };
    CoverageLimits {
        all: Shares { lines: said.lines, branches: said.branches, functions: said.functions },
        classes_with_tests: said.classes_with_tests,
        per_file: said.per_file,
        diff: said.diff,
        ratchet: said.ratchet,
        paths: said.paths.iter().map(|(pattern, least)| (pattern.clone(), shares(least))).collect(),
        layers: said.layers.iter().map(|(name, least)| (layer(name), shares(least))).collect(),
        carry_at_most: said.carry_at_most,
    }
}

/// For jobs that are not needed this time: the newest trusted run in which each of them was green, when that was, and what it reported.
fn carried(runs: &Runs, run: &Run, rules: &Rules) -> BTreeMap<JobName, (RunId, Time, Digest)> {
    let skipped = run.jobs.iter().filter(|job| matches!(job.state, JobState::NotNeeded { .. }));
    let find = |name: &JobName| {
        let before =
            runs.all.range(..run.id).rev().map(|(_, other)| other).filter(|other| other.is_trusted());
        before.filter_map(|other| Some((other.id, other.job(name)?))).find_map(|(id, job)| match &job.state {
            JobState::Ended { end: JobEnd::Passed, at, report: Some(report), .. } => {
                Some((job.replayed.unwrap_or(id), *at, report.clone()))
            }
            _ => None,
        })
    };
    let own = skipped.map(|job| &job.plan.name).filter(|name| rules.measuring.contains(*name));
    own.filter_map(|name| Some((name.clone(), find(name)?))).collect()
}

/// Reports of the last landings before this run, newest first.
fn landings(runs: &Runs, run: RunId) -> Vec<Digest> {
    let before = runs.all.range(..run).rev().map(|(_, other)| other).filter(|other| other.is_trusted());
    before.filter_map(|other| other.report.clone()).take(measured::WINDOW).collect()
}

fn numbers_of(blobs: &Blobs, report: &Digest) -> Option<Vec<Number>> {
    let report: RunReport = serde_json::from_slice(&blobs.read(report, STORED_LIMIT).ok()?).ok()?;
    Some(report.numbers)
}

/// What all jobs of a run reported.
#[derive(Default)]
struct All {
    results: Vec<JobResult>,
    whole: Coverage,
    layers: BTreeMap<String, Coverage>,
    of_layer: BTreeMap<Layer, Vec<usize>>,
    parts: Vec<Part>,
    findings: Vec<Finding>,
    numbers: Vec<Number>,
    warnings: Vec<String>,
}

impl All {
    fn take(
        &mut self,
        blobs: &Blobs,
        job: &JobRun,
        rules: &Rules,
        carried: Option<&(RunId, Time, Digest)>,
        now: Time,
    ) {
        let name = &job.plan.name;
        let stored = |digest: &Digest| -> Option<Gathered> {
            serde_json::from_slice(&blobs.read(digest, STORED_LIMIT).ok()?).ok()
        };
        let aged = |from: RunId, at: Time| Came::Carried { from, age: now.since(at) };
        let (end, gathered, came) = match &job.state {
            JobState::Ended { end, report, at, .. } => {
                let came = match (end, job.replayed) {
                    (JobEnd::Passed, Some(from)) => aged(from, *at),
                    (JobEnd::Passed, None) => Came::Now,
                    _ => Came::Missing { why: "did not pass".into() },
                };
                (Some(end.clone()), report.as_ref().and_then(stored), came)
            }
            JobState::NotNeeded { why } => {
                let found = carried.and_then(|(from, at, report)| Some((stored(report)?, aged(*from, *at))));
                // Its tests and findings are not of this run; what they cover still is.
                let only =
                    |gathered: Gathered| Gathered { coverage: gathered.coverage, ..Gathered::default() };
                let none =
                    || Came::Missing { why: format!("was not needed ({why}), and no earlier run has it") };
                match found {
                    Some((gathered, came)) => (Some(JobEnd::Passed), Some(only(gathered)), came),
                    None => (Some(JobEnd::Passed), None, none()),
                }
            }
            JobState::Skipped { why } => (None, None, Came::Missing { why: format!("was skipped: {why}") }),
            _ => (None, None, Came::Missing { why: "was not run".into() }),
        };
        let gathered = gathered.unwrap_or_default();
        if rules.measuring.contains(name) {
            let came = match (&came, gathered.coverage.is_empty() && !gathered.unreadable.is_empty()) {
                (Came::Now, true) => Came::Missing { why: gathered.unreadable.join(", ") },
                _ => came,
            };
            self.parts.push(Part { job: name.to_string(), came });
        }
        let layer = rules.layers.get(name).copied().unwrap_or_else(|| Layer::of_stage(&job.plan.stage));
        self.whole.merge(&gathered.coverage);
        self.layers.entry(layer.word().to_owned()).or_default().merge(&gathered.coverage);
        self.of_layer.entry(layer).or_default().push(self.results.len());
        self.findings.extend(gathered.findings);
        self.numbers.extend(gathered.numbers);
        self.warnings.extend(gathered.warnings);
        let (tests, unreadable) = (gathered.tests, gathered.unreadable);
        self.results.push(JobResult { job: name.clone(), end, tests, unreadable });
    }

    fn pyramid(&self) -> Vec<LayerLine> {
        let line = |(layer, jobs): (&Layer, &Vec<usize>)| {
            let reports = jobs.iter().filter_map(|at| self.results.get(*at)).flat_map(|job| &job.tests);
            let lines = self.layers.get(layer.word()).filter(|own| !own.is_empty());
            pyramid::line(
                *layer,
                reports.flat_map(|report| &report.cases),
                lines.map(|own| own.totals().lines),
            )
        };
        self.of_layer.iter().map(line).filter(|line| line.tests > 0 || line.lines.is_some()).collect()
    }
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
