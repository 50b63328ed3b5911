//! Broken glass as the journal tells it: who opened a shell inside which instance, and since when an environment is not what code made of
//! it. Opens no shell.

use std::collections::BTreeMap;

use andon_model::event::{Actor, Event, Recorded};
use andon_model::{Digest, EnvironmentName, InstanceId, ShellId, Time};
use serde::Serialize;

/// A person had a hand in an environment: nothing goes into it or out of it until it is rebuilt.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Taint {
    /// Since when.
    pub since: Time,
    /// Who.
    pub by: Actor,
    /// The reason.
    pub why: String,
}

/// `tainted by ann: the queue hangs`.
impl std::fmt::Display for Taint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "tainted by {}: {}", self.by, self.why)
    }
}

/// A shell inside an instance.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Shell {
    /// Its number.
    pub id: ShellId,
    /// Where.
    pub environment: EnvironmentName,
    /// Inside which.
    pub instance: InstanceId,
    /// Program and arguments; empty: one to type in.
    pub command: Vec<String>,
    /// Who opened it.
    pub by: Actor,
    /// The reason.
    pub why: String,
    /// When.
    pub opened: Time,
    /// What became of it; none: it is open.
    pub ended: Option<Ended>,
}

/// The end of a shell.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Ended {
    /// When.
    pub at: Time,
    /// How, in words.
    pub how: String,
    /// Its exit status, if it came so far.
    pub code: Option<i32>,
    /// The blob with what was typed and shown.
    pub recording: Option<Digest>,
    /// Not all that was shown is in it.
    pub cut: bool,
}

/// All shells of a project.
#[derive(Debug, Clone, Default)]
pub struct Shells {
    /// By number.
    pub all: BTreeMap<ShellId, Shell>,
}

impl Shells {
    /// The number that the next one gets.
    pub fn next(&self) -> ShellId {
        self.all.keys().next_back().map_or(ShellId(1), |id| id.next())
    }

    /// Those of an environment, newest first.
    pub fn of<'a>(&'a self, environment: &'a EnvironmentName) -> impl Iterator<Item = &'a Shell> {
        self.all.values().rev().filter(move |shell| &shell.environment == environment)
    }

    /// Those that nothing says the end of.
    pub fn open(&self) -> impl Iterator<Item = &Shell> {
        self.all.values().filter(|shell| shell.ended.is_none())
    }

    /// Takes in what happened.
    pub fn evolve(&mut self, recorded: &Recorded) {
        match &recorded.event {
            Event::ShellOpened { shell, environment, instance, command, why } => {
                let opened = Shell {
                    id: *shell,
                    environment: environment.clone(),
                    instance: *instance,
                    command: command.clone(),
                    by: recorded.by.clone(),
                    why: why.clone(),
                    opened: recorded.at,
                    ended: None,
                };
                self.all.insert(*shell, opened);
            }
            Event::ShellEnded { shell, code, how, recording, cut } => {
                if let Some(shell) = self.all.get_mut(shell) {
                    let (how, recording) = (how.clone(), recording.clone());
                    let ended = Ended { at: recorded.at, how, code: *code, recording, cut: *cut };
                    shell.ended.get_or_insert(ended);
                }
            }
            _ => {}
        }
    }
}
