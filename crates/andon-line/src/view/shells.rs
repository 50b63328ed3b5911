//! Shells that people opened inside instances, for pages, terminal and programs. Shows nothing of what was typed: that is in the recording.

use andon_environment::glass::Shell;
use andon_model::Time;
use serde::{Deserialize, Serialize};

use super::{Frame, Mark, ago, frame};
use crate::{Line, Project};

/// All of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShellsView {
    /// Over every page.
    pub frame: Frame,
    /// Newest first.
    pub rows: Vec<ShellRow>,
}

/// A shell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShellRow {
    /// `S3`.
    pub id: String,
    /// Open, over, or over with a trouble.
    pub mark: Mark,
    /// The same in words.
    pub words: String,
    /// Where.
    pub environment: String,
    /// `i5`.
    pub instance: String,
    /// Who opened it.
    pub by: String,
    /// The reason.
    pub why: String,
    /// What was run; empty: it was typed in.
    pub command: String,
    /// When.
    pub opened: Time,
    /// Whether there is a recording to read.
    pub recorded: bool,
}

/// Every shell of a project.
pub fn shells(line: &Line, project: &Project) -> ShellsView {
    let (state, now) = (project.state(), line.now());
    let rows = state.estate.shells.all.values().rev().map(|shell| row(shell, now)).collect();
    ShellsView { rows, frame: frame(&state, project.name.as_str(), now) }
}

/// One of them.
pub fn row(shell: &Shell, now: Time) -> ShellRow {
    let (mark, words) = match &shell.ended {
        None => (Mark::Live, format!("open for {}", now.since(shell.opened))),
        Some(ended) => {
            let cut = if ended.cut { "; more was shown than its recording keeps" } else { "" };
            let took = ended.at.since(shell.opened);
            (Mark::None, format!("{} after {took}, {}{cut}", ended.how, ago(now, ended.at)))
        }
    };
    ShellRow {
        id: shell.id.to_string(),
        mark,
        words,
        environment: shell.environment.to_string(),
        instance: shell.instance.to_string(),
        by: shell.by.to_string(),
        why: shell.why.clone(),
        command: shell.command.join(" "),
        opened: shell.opened,
        recorded: shell.ended.as_ref().is_some_and(|ended| ended.recording.is_some()),
    }
}
