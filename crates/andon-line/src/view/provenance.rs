//! What the server vouches for, with the envelopes, and whether it is believed now.

use std::collections::BTreeMap;

use andon_attest::dsse;
use andon_attest::ledger::Made;
use andon_model::event::Attestation;
use andon_model::{Digest, RunId, Time};
use andon_pipeline::runs::Run;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::stations::provenance::{self, Look};
use crate::{Line, Project, Refusal};

/// What is said about the artifact of a run, for people and programs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttestationsView {
    /// The run.
    pub run: u32,
    /// The artifact.
    pub artifact: String,
    /// `good`, or why it is not believed; none: nothing is said of it yet.
    pub found: Option<String>,
    /// What is said.
    pub attestations: Vec<AttestationRow>,
}

/// One statement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttestationRow {
    /// `provenance` or `test_result`.
    pub what: Attestation,
    /// The key that signed it.
    pub key: String,
    /// The digest of the envelope.
    pub digest: String,
    /// When it was signed.
    pub at: Time,
    /// The envelope (DSSE).
    pub envelope: Value,
}

impl Line {
    /// What is said about the artifact of a run. Looks at it now.
    pub async fn attestations(&self, project: &Project, run: RunId) -> Result<AttestationsView, Refusal> {
        let (artifact, made) = {
            let state = project.state();
            let found = state.runs.all.get(&run);
            let found = found.ok_or_else(|| Refusal::Unknown(format!("there is no {run}")))?;
            let artifact = found.artifact.as_ref().map(|(artifact, _)| artifact.clone());
            let artifact = artifact.ok_or_else(|| Refusal::Unknown(format!("{run} built no artifact")))?;
            let kinds = [Attestation::Provenance, Attestation::TestResult];
            let made: BTreeMap<_, _> = kinds
                .into_iter()
                .filter_map(|what| Some((what, state.attestations.of(run, what, &artifact)?.clone())))
                .collect();
            (artifact, made)
        };
        let found = match provenance::look(self, project, run, &artifact).await? {
            Look::Good => Some("good".to_owned()),
            Look::NotYet => None,
            Look::Bad(why) => Some(why),
        };
        let blobs = self.blobs.clone();
        let read = tokio::task::spawn_blocking(move || {
            let row = |(what, made): (Attestation, Made)| {
                let bytes = blobs.read(&made.envelope, dsse::LARGEST).unwrap_or_default();
                AttestationRow {
                    what,
                    key: made.key,
                    digest: made.envelope.to_string(),
                    at: made.at,
                    envelope: serde_json::from_slice(&bytes).unwrap_or_default(),
                }
            };
            made.into_iter().map(row).collect()
        });
        let attestations = read.await.map_err(|error| Refusal::Broken(error.to_string()))?;
        Ok(AttestationsView { run: run.0, artifact: artifact.to_string(), found, attestations })
    }

    /// The newest run that built this artifact.
    pub fn run_of_artifact(&self, project: &Project, artifact: &Digest) -> Result<RunId, Refusal> {
        let state = project.state();
        let built = |run: &&Run| run.artifact.as_ref().is_some_and(|(digest, _)| digest == artifact);
        let found = state.runs.all.values().rev().find(built).map(|run| run.id);
        found.ok_or_else(|| Refusal::Unknown("no run of this project built it".into()))
    }
}
