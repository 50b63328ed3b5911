//! The destroy guard: which resources of a plan nobody may delete or replace alone, and who may approve. Pure; it sees typed plans only.
//!
//! In a protected environment every end of a resource is guarded unless it is listed as harmless: deletion, replacement, an old copy's
//! removal, being forgotten, and any action that this version does not know.

use andon_model::UserName;
use serde::{Deserialize, Serialize};

use crate::blueprint::Plan;
use crate::exception::matches;
use crate::infrastructure::{Run, Stage};

/// How an environment is protected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Protected {
    /// How many people have to approve.
    pub approvals: u32,
    /// Types or addresses that may go; `*` stands for any part.
    pub harmless: Vec<String>,
}

/// A resource that does not go without approval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guarded {
    /// Which.
    pub address: String,
    /// What would happen to it: `destroy`, `replace`.
    pub what: &'static str,
}

/// Why an approval does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotApproved {
    /// There is nothing to approve.
    #[error("{0} does not wait for approval\nhint: `andon infra show` says what waits")]
    NotWaiting(andon_model::InfraRunId),
    /// The name was not typed, or another one.
    #[error("type the environment's name, {0}, to approve what ends in it\nhint: --environment {0}")]
    OtherName(andon_model::EnvironmentName),
    /// Approved by this person already.
    #[error("{0} has approved already\nhint: somebody else has to approve as well")]
    Twice(UserName),
    /// They wrote it.
    #[error(
        "{0} wrote this change or asked for it\nhint: where several people have to approve, the author is none of them"
    )]
    Author(UserName),
}

/// The resources of a plan that are guarded; none where the environment is not protected.
pub fn guarded(plan: &Plan, protected: Option<&Protected>) -> Vec<Guarded> {
    let Some(protected) = protected else { return Vec::new() };
    let harmless = |text: &str| protected.harmless.iter().any(|pattern| matches(pattern, text));
    plan.changes
        .iter()
        .filter(|change| change.deposed || change.ends())
        .filter(|change| !harmless(&change.kind) && !harmless(&change.address))
        .map(|change| Guarded { address: change.address.clone(), what: change.word() })
        .collect()
}

/// Whether this person's approval counts.
pub fn may_approve(run: &Run, who: &UserName, typed: &str) -> Result<(), NotApproved> {
    if run.stage != Stage::Waiting {
        return Err(NotApproved::NotWaiting(run.id()));
    }
    if typed != run.asked.environment.as_str() {
        return Err(NotApproved::OtherName(run.asked.environment.clone()));
    }
    if run.approvals.iter().any(|(user, ..)| user == who) {
        return Err(NotApproved::Twice(who.clone()));
    }
    let several = run.planned.as_ref().is_some_and(|planned| planned.approvals > 1);
    if several && run.authors.contains(who) {
        return Err(NotApproved::Author(who.clone()));
    }
    Ok(())
}
