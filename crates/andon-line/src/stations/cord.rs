//! What people do with the cord. When it is pulled by itself, and what proves a fix, is decided in andon-cord and recorded by the line.

use andon_cord::command;
use andon_model::event::Role;
use andon_model::{AndonId, ChangeId};

use crate::{Caller, Line, Project, Refusal};

fn refused(refusal: command::Refusal) -> Refusal {
    Refusal::Conflict(refusal.to_string())
}

impl Line {
    /// Anyone who works here stops the line.
    pub async fn pull(
        &self,
        project: &Project,
        caller: &Caller,
        why: &str,
        tag: &str,
        suspects: Vec<ChangeId>,
    ) -> Result<AndonId, Refusal> {
        caller.may(Role::Developer)?;
        let (why, tag) = (crate::intake::plain(why), crate::intake::plain(tag));
        self.decide(project, caller.actor(), |state, _| {
            let id = state.cord.next_id();
            Ok((vec![command::pull(&state.cord, &why, &tag, suspects).map_err(refused)?], id))
        })
        .await
    }

    /// Somebody has it.
    pub async fn acknowledge(
        &self,
        project: &Project,
        caller: &Caller,
        andon: AndonId,
    ) -> Result<(), Refusal> {
        caller.may(Role::Developer)?;
        self.decide(project, caller.actor(), |state, _| {
            Ok((vec![command::acknowledge(&state.cord, andon, caller.user.clone()).map_err(refused)?], ()))
        })
        .await
    }

    /// A word for the timeline.
    pub async fn note(
        &self,
        project: &Project,
        caller: &Caller,
        andon: AndonId,
        note: &str,
    ) -> Result<(), Refusal> {
        caller.may(Role::Developer)?;
        let note = crate::intake::plain(note);
        self.decide(project, caller.actor(), |state, _| {
            Ok((vec![command::note(&state.cord, andon, &note).map_err(refused)?], ()))
        })
        .await
    }

    /// The line runs again because a person says so, with a reason.
    pub async fn release_cord(
        &self,
        project: &Project,
        caller: &Caller,
        andon: AndonId,
        why: &str,
    ) -> Result<(), Refusal> {
        caller.may(Role::Developer)?;
        let why = crate::intake::plain(why);
        self.decide(project, caller.actor(), |state, _| {
            Ok((vec![command::release(&state.cord, andon, &why).map_err(refused)?], ()))
        })
        .await
    }
}
