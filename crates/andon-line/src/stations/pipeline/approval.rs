//! People who are asked before a run goes on: who may answer, and what their answer is in the journal. When they are asked is decided in
//! andon-pipeline.

use andon_model::event::{Actor, Event, PlannedApproval, Purpose};
use andon_model::{JobName, RunId};
use andon_pipeline::JobState;

use super::PIPELINE;
use crate::refusal::role;
use crate::{Caller, Line, Project, Refusal, State};

/// Nobody said yes in time. Somebody may have answered in this very moment: that holds.
pub(super) async fn expire(
    line: &Line,
    project: &Project,
    run: RunId,
    job: JobName,
    why: String,
) -> Result<(), Refusal> {
    line.decide(project, Actor::line(PIPELINE), |state, now| {
        let asked = state.runs.all.get(&run).and_then(|run| run.job(&job));
        let over =
            asked.is_some_and(|job| matches!(job.state, JobState::Asked { until, .. } if now >= until));
        Ok((if over { vec![Event::ApprovalRefused { run, job, why }] } else { vec![] }, ()))
    })
    .await
}

impl Line {
    /// Lets a run go on, or makes it red.
    pub async fn answer(
        &self,
        project: &Project,
        caller: &Caller,
        (run, job): (RunId, JobName),
        yes: bool,
        why: &str,
    ) -> Result<(), Refusal> {
        let why = crate::intake::plain(why);
        if why.is_empty() {
            return Err(Refusal::Bad(
                "an answer has a reason\nhint: say it in a few words, with --why".into(),
            ));
        }
        self.decide(project, caller.actor(), |state, _| {
            let found = state.runs.all.get(&run);
            let found = found.ok_or_else(|| Refusal::Unknown(format!("there is no {run}")))?;
            let asked = found.job(&job).ok_or_else(|| Refusal::Unknown(format!("{run} has no job {job}")))?;
            let Some(approve) = &asked.plan.approve else {
                return Err(Refusal::Conflict(format!("{job} runs commands: nobody is asked")));
            };
            match &asked.state {
                JobState::Asked { .. } if found.finished.is_none() => {}
                JobState::Asked { .. } => {
                    return Err(Refusal::Conflict(format!("{run} is over: nobody is asked any more")));
                }
                JobState::Waiting => return Err(Refusal::Conflict(format!("{job} of {run} is not due yet"))),
                _ => return Err(Refusal::Conflict(format!("{job} of {run} is answered already"))),
            }
            may(state, caller, &found.purpose, approve, yes)?;
            let event = match yes {
                true => Event::ApprovalGiven { run, job, why },
                false => Event::ApprovalRefused { run, job, why },
            };
            Ok((vec![event], ()))
        })
        .await
    }
}

/// Who may answer. Whoever pushed the change may always take it back by a no.
fn may(
    state: &State,
    caller: &Caller,
    purpose: &Purpose,
    approve: &PlannedApproval,
    yes: bool,
) -> Result<(), Refusal> {
    let known =
        approve.people.contains(&caller.user) || approve.roles.iter().any(|role| caller.may(*role).is_ok());
    let author = is_author(state, caller, purpose);
    if !known && (yes || !author) {
        return Err(Refusal::Conflict(format!(
            "{} is not asked here\nhint: {} may answer",
            caller.user,
            asked(approve)
        )));
    }
    if yes && approve.not_author && author {
        return Err(Refusal::Conflict(
            "whoever pushed the change does not approve it here\nhint: ask somebody else to look".into(),
        ));
    }
    Ok(())
}

/// Whether the caller may say yes: what is not allowed is not offered.
pub fn is_asked(state: &State, caller: &Caller, purpose: &Purpose, approve: &PlannedApproval) -> bool {
    may(state, caller, purpose, approve, true).is_ok()
}

fn is_author(state: &State, caller: &Caller, purpose: &Purpose) -> bool {
    let Purpose::Gate { change, .. } = purpose else { return false };
    state.queue.changes.get(change).is_some_and(|change| change.pushers.contains(&caller.user))
}

/// Who is asked, in words.
pub fn asked(approve: &PlannedApproval) -> String {
    let roles = approve.roles.iter().map(|asked| format!("any {}", role(asked)));
    let all: Vec<String> = approve.people.iter().map(ToString::to_string).chain(roles).collect();
    all.join(", ")
}
