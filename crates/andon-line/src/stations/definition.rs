//! Changes of `andon.yaml`: what a run finds of them, who approves them, and that trunk's questions are still asked. What differs and what is
//! stricter is decided in andon-pipeline, what an approval is for in andon-gate.

use andon_gate::{Change, Standing};
use andon_model::event::{DefinitionEdit, DefinitionRule, Event, PlannedJob};
use andon_model::{ChangeId, Oid};
use andon_pipeline::definition::Guarded;
use andon_pipeline::{Plan, guards};

use crate::refusal::role;
use crate::{Caller, Line, Project, Refusal, State};

/// The file that this is about.
pub(crate) const FILE: &str = "andon.yaml";

/// What the tree of a run makes of trunk's `andon.yaml`.
pub(super) struct Edited {
    edits: Vec<DefinitionEdit>,
    asks: Option<DefinitionRule>,
    trunk: Vec<PlannedJob>,
}

impl Edited {
    /// Read from both commits. A file of trunk that cannot be read any more leaves the strictest rule.
    pub(super) async fn of(project: &Project, trunk: &Oid, commit: &Oid) -> Result<Edited, Refusal> {
        let text = async |commit| project.repository.file(commit, FILE, andon_pipeline::check::LARGEST).await;
        let (before, after, defined) = tokio::join!(text(trunk), text(commit), project.definition(trunk));
        let (before, after, defined) = (before?.unwrap_or_default(), after?.unwrap_or_default(), defined?);
        let known = defined.as_ref().as_ref().ok();
        let rule = known.map_or(Guarded::default(), |known| known.definition);
        let edits = tokio::task::spawn_blocking(move || guards::compare(&before, &after)).await;
        let edits = edits.map_err(|error| Refusal::Broken(error.to_string()))?;
        let trunk = known.map(|known| Plan::of(known).jobs(None)).unwrap_or_default();
        Ok(Edited { edits, asks: rule.rule(), trunk })
    }

    /// Puts trunk's questions into the run.
    pub(super) fn keep_asking(&self, jobs: &mut Vec<PlannedJob>) {
        guards::keep_asking(jobs, &self.trunk);
    }

    /// As it is recorded beside its run.
    pub(super) fn event(self, run: andon_model::RunId, change: ChangeId, patch_set: u32) -> Event {
        Event::DefinitionEdited { run, change, patch_set, edits: self.edits, asks: self.asks }
    }
}

impl Line {
    /// Who approves another `andon.yaml`, as trunk says now; none: nobody, or trunk has none yet.
    pub(crate) async fn definition_rule(&self, project: &Project) -> Result<Option<DefinitionRule>, Refusal> {
        let Some(defined) = project.trunk_definition().await? else { return Ok(None) };
        let known = defined.as_ref().as_ref().ok();
        Ok(known.map_or(Guarded::default(), |known| known.definition).rule())
    }

    /// Why this caller's approval would not count, with what to do; none: it counts.
    pub(crate) fn not_approver(
        &self,
        caller: &Caller,
        rule: DefinitionRule,
        pushed_it: bool,
    ) -> Option<Refusal> {
        if let Err(refusal) = caller.may(rule.role) {
            return Some(refusal);
        }
        let others = || {
            let access = self.access();
            access.0.users.iter().any(|(name, user)| {
                let holds = |role| user.roles.contains(&role);
                *name != caller.user && (holds(andon_model::event::Role::Owner) || holds(rule.role))
            })
        };
        (rule.not_author && pushed_it && others()).then(|| {
            Refusal::Conflict(format!(
                "whoever pushed the change does not approve it here\nhint: ask another {} to look",
                role(&rule.role)
            ))
        })
    }

    /// Lets what the newest patch set makes of `andon.yaml` land. `read`: the one that was looked at; a newer one is not approved by it.
    pub async fn approve_definition(
        &self,
        project: &Project,
        caller: &Caller,
        (change, read): (ChangeId, Option<u32>),
        why: &str,
    ) -> Result<u32, Refusal> {
        let why = crate::intake::plain(why);
        if why.is_empty() {
            return Err(Refusal::Bad(
                "an approval has a reason\nhint: say it in a few words, with --why".into(),
            ));
        }
        let rule = self.definition_rule(project).await?;
        self.decide(project, caller.actor(), |state, _| {
            let found = state.queue.changes.get(&change);
            let found = found.ok_or_else(|| Refusal::Unknown(format!("there is no change {change}")))?;
            let conflict = |why: String| Err(Refusal::Conflict(why));
            match &found.standing {
                Standing::Landed { .. } => return conflict(format!("{change} is on trunk already")),
                Standing::Abandoned { .. } => return conflict(format!("{change} was taken back")),
                _ => {}
            }
            if !edits(state, found) {
                return conflict(format!("{change} leaves andon.yaml as it is: nothing is to be approved"));
            }
            let Some(rule) = rule else {
                return conflict("nobody has to approve it: trunk's andon.yaml asks nobody".into());
            };
            if read.is_some_and(|read| read != found.push.patch_set) {
                let newest = found.push.patch_set;
                return conflict(format!("{change} has patch set {newest} by now\nhint: look at it again"));
            }
            if let Some(approval) = found.approved() {
                return conflict(format!("{} approved this patch set already", approval.by));
            }
            if let Some(refusal) = self.not_approver(caller, rule, found.pushers.contains(&caller.user)) {
                return Err(refusal);
            }
            let patch_set = found.push.patch_set;
            Ok((vec![Event::DefinitionApproved { change, patch_set, why, by_push: false }], patch_set))
        })
        .await
    }
}

/// Whether the newest patch set makes another `andon.yaml`, as its push or its run says.
pub(crate) fn edits(state: &State, change: &Change) -> bool {
    change.push.edits_pipeline || state.queue.edited(change).is_some()
}
