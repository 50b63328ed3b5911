//! Artifacts that are due, looked at before they are deployed. What is believed of them is decided in andon-attest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use andon_environment::promote::{self, Candidate, Declared};
use andon_model::{Digest, Oid, RunId};
use andon_pipeline::Definition;

use super::{deployment, too_unlike};
use crate::project::Defined;
use crate::stations::provenance::{self, Look};
use crate::{Line, Project, Refusal};

/// What is found of every artifact that would be deployed now: its bytes are read whole, so nothing else is looked at.
pub(super) async fn look_at(
    line: &Line,
    project: &Project,
    definition: &Definition,
    declared: &[Declared],
    defined: &BTreeMap<Oid, Arc<Defined>>,
) -> Result<BTreeMap<(RunId, Digest), Look>, Refusal> {
    let due: BTreeSet<(RunId, Digest)> = {
        let (state, now) = (project.state(), line.now());
        let would = |candidate: Candidate| {
            let own = defined.get(&candidate.commit)?;
            let found = (candidate.run, candidate.artifact.clone());
            let goes = !too_unlike(project, &state, own, definition, &candidate, now)
                && deployment(&state, own, definition, candidate, state.estate.next_deployment()).is_some();
            goes.then_some(found)
        };
        let planned = promote::plan(&state.estate, declared, &state.hold()).into_iter();
        planned
            .filter_map(|decision| match decision {
                promote::Decision::Deploy(candidate) => would(candidate),
                promote::Decision::Create { .. } => None,
            })
            .collect()
    };
    let mut looked = BTreeMap::new();
    for (run, artifact) in due {
        let found = provenance::look(line, project, run, &artifact).await?;
        looked.insert((run, artifact), found);
    }
    Ok(looked)
}
