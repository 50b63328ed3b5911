//! Secrets of a project, for terminal and programs. Shows no value: the server opens one only for what may have it.

use andon_model::Time;
use serde::{Deserialize, Serialize};

use super::{Frame, frame};
use crate::{Line, Project};

/// All of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SecretsView {
    /// Over every page.
    pub frame: Frame,
    /// By name.
    pub rows: Vec<SecretRow>,
}

/// A secret.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SecretRow {
    /// Its name, and that of its variable.
    pub name: String,
    /// Environments that it is for; empty: all, and runs of trunk.
    pub environments: Vec<String>,
    /// Given to changes that have not landed, too.
    pub unlanded: bool,
    /// Who gets it, in a sentence.
    pub says: String,
    /// When it was set.
    pub at: Time,
    /// Who set it.
    pub by: String,
}

/// Every secret of a project.
pub fn secrets(line: &Line, project: &Project) -> SecretsView {
    let state = project.state();
    let rows = state.secrets.all.iter().map(|(name, secret)| {
        let environments: Vec<String> = secret.environments.iter().map(ToString::to_string).collect();
        let says = match (environments.is_empty(), secret.unlanded) {
            (true, false) => "for trunk and every environment".to_owned(),
            (true, true) => "for trunk, every environment, and changes that have not landed".to_owned(),
            (false, _) => format!("for {} only", environments.join(", ")),
        };
        let (at, by) = (secret.at, secret.by.to_string());
        SecretRow { name: name.to_string(), environments, unlanded: secret.unlanded, says, at, by }
    });
    SecretsView { rows: rows.collect(), frame: frame(&state, project.name.as_str(), line.now()) }
}
