//! The station of provenance: vouches for what runs built, and looks before every deployment whether the artifact is still that. What is said
//! and what is believed is decided in andon-attest.

use std::sync::Arc;
use std::time::Duration;

use andon_attest::statement::{Origin, Said};
use andon_attest::{Doubt, Envelope, Expected, check, dsse};
use andon_model::event::{Actor, Attestation, Event, JobIsolation, KeyPurpose, Purpose, Verdict};
use andon_model::{Digest, JobName, Oid, RunId, Time};
use andon_pipeline::JobState;
use andon_pipeline::runs::{JobRun, Run};
use andon_validation::junit::Outcome;
use andon_validation::{RunReport, memory};
use tokio_util::sync::CancellationToken;

use super::Pulse;
use crate::{Line, Project, Refusal, State};

/// The station's name in the journal.
const PROVENANCE: &str = "provenance";
/// Between two looks: what failed to be said is said then.
const LOOK: Duration = Duration::from_secs(5);

pub(super) async fn run(line: Arc<Line>, project: Arc<Project>, stop: CancellationToken) {
    let mut pulse = Pulse::new(&line, &project, stop, LOOK);
    loop {
        let due: Vec<(RunId, Attestation)> = project.state().attestations.due.iter().copied().collect();
        let mut done = Ok(());
        for (run, what) in due {
            // One that cannot be said keeps the others from nothing.
            if let Err(error) = vouch(&line, &project, run, what).await {
                tracing::error!(project = %project.name, %run, ?what, %error, "an attestation could not be made");
                done = Err(error);
            }
        }
        if !pulse.beat(done, PROVENANCE).await {
            return;
        }
    }
}

/// Says it and records that. The same run is said the same words: after a kill in between the envelope has the same name.
async fn vouch(line: &Line, project: &Project, id: RunId, what: Attestation) -> Result<(), Refusal> {
    let (run, trunk) = {
        let state = project.state();
        (state.runs.all.get(&id).cloned(), state.trunk.clone())
    };
    let Some((run, artifact)) = run.and_then(|run| run.artifact.clone().map(|(artifact, _)| (run, artifact)))
    else {
        return Ok(());
    };
    let signer = line.signer(KeyPurpose::Provenance).await?;
    let builder =
        line.keys().all.iter().find(|key| key.public == signer.public).map(|key| key.builder.clone());
    let builder = builder.unwrap_or_else(|| line.builder());
    let job = builder_of(project, &run).await?;
    let nothing = JobIsolation::default();
    let origin = Origin {
        url: &line.settings.url,
        project: &project.name,
        trunk: &trunk,
        change: match run.purpose {
            Purpose::Gate { change, patch_set } => Some((change, patch_set)),
            Purpose::Trunk => None,
        },
        run: id,
        job: job.as_ref().map(|job| (&job.plan.name, job.attempts)),
        replayed: job.as_ref().and_then(|job| job.replayed),
        commit: &run.commit,
        tree: &run.tree,
        plan: run.plan.as_ref(),
        isolation: job.as_ref().map_or(&nothing, |job| &job.isolation),
        builder: &builder,
        version: env!("CARGO_PKG_VERSION"),
        times: job.as_ref().and_then(times),
    };
    let statement = match what {
        Attestation::Provenance => origin.provenance(&artifact),
        Attestation::TestResult => {
            let report = match run.report.clone() {
                Some(report) => line.run_report(report).await?,
                None => RunReport::default(),
            };
            let green = matches!(run.finished, Some((_, Verdict::Green)));
            origin.test_result(&artifact, &said(&report, green))
        }
    };
    let envelope = Envelope::seal(statement.to_string().as_bytes(), &signer);
    let envelope = envelope.map_err(|error| Refusal::Broken(error.to_string()))?;
    let bytes = serde_json::to_vec(&envelope).map_err(|error| Refusal::Broken(error.to_string()))?;
    let blobs = line.blobs.clone();
    let put = tokio::task::spawn_blocking(move || blobs.put(&bytes[..])).await;
    let (envelope, _) = put.map_err(|error| Refusal::Broken(error.to_string()))??;
    let key = signer.public.id();
    line.decide(project, Actor::line(PROVENANCE), |state, _| {
        let due = state.attestations.due.contains(&(id, what));
        let said = Event::Attested { run: id, artifact, what, envelope, key };
        Ok((if due { vec![said] } else { vec![] }, ()))
    })
    .await
}

/// The job of a run that built its artifact.
async fn builder_of(project: &Project, run: &Run) -> Result<Option<JobRun>, Refusal> {
    let defined = project.definition(&run.commit).await?;
    let Ok(definition) = defined.as_ref() else { return Ok(None) };
    let builds =
        |name: &JobName| definition.pipeline.jobs.get(name).is_some_and(|job| job.artifact.is_some());
    Ok(run.jobs.iter().find(|job| builds(&job.plan.name) && job.passed()).cloned())
}

fn times(job: &JobRun) -> Option<(Time, Time)> {
    let JobState::Ended { at, took, .. } = &job.state else { return None };
    Some((Time(at.0 - i64::try_from(took.0).unwrap_or_default()), *at))
}

/// What the tests said, by name.
fn said(report: &RunReport, green: bool) -> Said {
    let mut said = Said { green, ..Said::default() };
    for line in &report.tests {
        let name = format!("{}: {}", line.job, line.test.full_name());
        match &line.test.outcome {
            Outcome::Skipped { .. } => {}
            Outcome::Passed if line.test.flaky => said.warned.push(name),
            Outcome::Passed => said.passed.push(name),
            _ if report.quarantined.contains_key(&memory::key(&line.test)) => said.warned.push(name),
            _ => said.failed.push(name),
        }
    }
    said
}

/// What a look at an artifact found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Look {
    /// It is what this server built from what landed.
    Good,
    /// Nothing was said of it yet: it is, in a moment.
    NotYet,
    /// It is not.
    Bad(String),
}

/// Looks whether the artifact of a run is what was built from what landed: its bytes, who vouches, and for what.
pub(crate) async fn look(
    line: &Line,
    project: &Project,
    run: RunId,
    artifact: &Digest,
) -> Result<Look, Refusal> {
    let found = {
        let state = project.state();
        said_of(&state, run, artifact)
    };
    let Some((made, commit, tree)) = found else { return Ok(Look::NotYet) };
    let doubt = match project.repository.tree(&commit).await? {
        is if is != tree => {
            Some(Doubt::Source { what: "tree", says: is.to_string(), wanted: tree.to_string() })
        }
        _ => examine(line, artifact, made, Some((commit, tree))).await?,
    };
    Ok(doubt.map_or(Look::Good, |doubt| Look::Bad(doubt.to_string())))
}

/// Both envelopes by name, and commit and tree that have to be in them: of what landed those that were read from trunk.
fn said_of(state: &State, run: RunId, artifact: &Digest) -> Option<(Vec<Digest>, Oid, Oid)> {
    let found = state.runs.all.get(&run)?;
    let landed = state.queue.proofs.values().find(|proof| proof.run == run);
    let (commit, tree) = match landed {
        Some(proof) => (proof.commit.clone(), proof.landed_tree.clone()),
        None => (found.commit.clone(), found.tree.clone()),
    };
    let of = |what| state.attestations.of(run, what, artifact).map(|made| made.envelope.clone());
    let mut made = vec![of(Attestation::Provenance)?];
    // What is shown before it landed may be shown before its tests have ended.
    match (of(Attestation::TestResult), landed) {
        (Some(tests), _) if landed.is_some() => made.push(tests),
        (None, Some(_)) => return None,
        _ => {}
    }
    Some((made, commit, tree))
}

async fn examine(
    line: &Line,
    artifact: &Digest,
    made: Vec<Digest>,
    source: Option<(Oid, Oid)>,
) -> Result<Option<Doubt>, Refusal> {
    let (blobs, keys, artifact) = (line.blobs.clone(), line.provenance_keys(), artifact.clone());
    let looked = tokio::task::spawn_blocking(move || {
        let source = source.as_ref().map(|(commit, tree)| (commit, tree));
        for envelope in made {
            let bytes = match blobs.read(&envelope, dsse::LARGEST) {
                Ok(bytes) => bytes,
                Err(error) => return Some(Doubt::Unreadable(error.to_string())),
            };
            if let Err(doubt) = check(&bytes, &keys, Expected { artifact: &artifact, source }) {
                return Some(doubt);
            }
        }
        match blobs.get(&artifact).and_then(Digest::of_all) {
            Ok(is) if is == artifact => None,
            Ok(is) => Some(Doubt::Bytes(is)),
            Err(error) => Some(Doubt::Unreadable(format!("its bytes are gone: {error}"))),
        }
    });
    looked.await.map_err(|error| Refusal::Broken(error.to_string()))
}
