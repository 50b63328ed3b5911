//! The destroy guard: which resources of a plan nobody may delete or replace alone, and who may approve. Pure; it sees typed plans only.
//!
//! In a protected environment every end of a resource is guarded unless it is listed as harmless: deletion, replacement, an old copy's
//! removal, being forgotten, and any action that this version does not know.

use andon_model::{Span, Time, UserName};
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
    /// Who they are; empty: everyone who may deploy.
    pub approvers: Vec<UserName>,
    /// How old the server's last backup may be when the last one approves.
    pub backup_within: Option<Span>,
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
    /// Somebody else has to.
    #[error("{who} is none of those who may approve in {environment}\nhint: ask one of {}", join(.of))]
    Stranger {
        /// Who tried.
        who: UserName,
        /// Where.
        environment: andon_model::EnvironmentName,
        /// Who may.
        of: Vec<UserName>,
    },
    /// What ends could not be brought back.
    #[error("the server's last backup is {}, and what ends in {environment} needs one of the last {within}\nhint: `andon backup`, then approve again", age(.last))]
    NoBackup {
        /// Where.
        environment: andon_model::EnvironmentName,
        /// How old it may be.
        within: Span,
        /// How old it is; none: there is none.
        last: Option<Span>,
    },
}

fn join(names: &[UserName]) -> String {
    names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn age(last: &Option<Span>) -> String {
    last.map_or_else(|| "none at all".to_owned(), |age| format!("{age} old"))
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

/// Why this run waits for people no longer; none: it still may.
pub fn expired(run: &Run, now: Time, within: Span) -> Option<String> {
    let waited = now.since(run.since);
    (run.stage == Stage::Waiting && waited >= within).then(|| {
        format!("nobody approved its plan within {within}, so it expired\nhint: ask for it again with `andon infra apply {}`", run.asked.environment)
    })
}

/// Whether this person's approval counts, at this time; `backup`: when the server's last backup was made.
pub fn may_approve(
    run: &Run,
    who: &UserName,
    typed: &str,
    backup: Option<Time>,
    now: Time,
) -> Result<(), NotApproved> {
    if run.stage != Stage::Waiting {
        return Err(NotApproved::NotWaiting(run.id()));
    }
    let environment = || run.asked.environment.clone();
    if typed != run.asked.environment.as_str() {
        return Err(NotApproved::OtherName(environment()));
    }
    let planned = run.planned.as_ref();
    if let Some(planned) = planned.filter(|p| !p.approvers.is_empty() && !p.approvers.contains(who)) {
        let (who, of) = (who.clone(), planned.approvers.clone());
        return Err(NotApproved::Stranger { who, environment: environment(), of });
    }
    if run.approvals.iter().any(|(user, ..)| user == who) {
        return Err(NotApproved::Twice(who.clone()));
    }
    let several = planned.is_some_and(|planned| planned.approvals > 1);
    if several && run.authors.contains(who) {
        return Err(NotApproved::Author(who.clone()));
    }
    // With the last approval it is applied: then it has to be possible to go back.
    let within = planned.and_then(|planned| planned.backup_within).filter(|_| run.missing() == 1);
    let age = backup.map(|at| now.since(at));
    match within {
        Some(within) if age.is_none_or(|age| age > within) => {
            Err(NotApproved::NoBackup { environment: environment(), within, last: age })
        }
        _ => Ok(()),
    }
}
