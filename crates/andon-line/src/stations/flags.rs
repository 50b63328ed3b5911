//! What people do with flags. What a command makes of a definition is decided in andon-flags.

use andon_flags::{FlagSet, command, transfer};
use andon_model::event::{Event, Role};

use crate::{Caller, Line, Project, Refusal};

/// What can be done with a flag.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Make it, off for everyone.
    Create,
    /// Take it away: callers get their own default.
    Remove,
    /// On or off for everyone.
    Switch(bool),
    /// This percentage of everyone, beside its groups.
    Ramp(f64),
    /// A group has it, whatever the percentage: `group=employees`.
    OpenTo(String),
    /// The group has it no more by being the group.
    CloseTo(String),
    /// Off at once, remembering what it was.
    Kill(String),
    /// As it was before it was killed.
    Restore,
}

impl Line {
    /// Changes one flag. Returns what changed, in a sentence.
    pub async fn flag(
        &self,
        project: &Project,
        caller: &Caller,
        key: &str,
        command: Command,
    ) -> Result<String, Refusal> {
        caller.may(Role::Releaser)?;
        self.decide(project, caller.actor(), |state, _| {
            let set: &FlagSet = &state.flags;
            let event = match &command {
                Command::Create => command::create(set, key),
                Command::Remove => command::remove(set, key),
                Command::Switch(on) => command::switch(set, key, *on),
                Command::Ramp(percent) => command::ramp(set, key, *percent),
                Command::OpenTo(group) => command::open_to(set, key, group),
                Command::CloseTo(group) => command::close_to(set, key, group),
                Command::Kill(why) => command::kill(set, key, &crate::intake::plain(why)),
                Command::Restore => command::restore(set, key),
            };
            let event = event.map_err(|refusal| Refusal::Conflict(refusal.to_string()))?;
            let what = match &event {
                Event::FlagChanged { what, .. } => what.clone(),
                _ => String::new(),
            };
            Ok((vec![event], what))
        })
        .await
    }

    /// Takes in a whole flagd file. Returns how many flags changed.
    pub async fn import_flags(
        &self,
        project: &Project,
        caller: &Caller,
        file: &str,
    ) -> Result<usize, Refusal> {
        caller.may(Role::Releaser)?;
        self.decide(project, caller.actor(), |state, _| {
            let events = transfer::import(&state.flags, file).map_err(|bad| Refusal::Bad(bad.to_string()))?;
            let changed = events.len();
            Ok((events, changed))
        })
        .await
    }
}
