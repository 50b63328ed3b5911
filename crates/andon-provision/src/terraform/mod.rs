//! Terraform and OpenTofu: which binary there is, and one run of it in a room of its own.
//!
//! [`stream`] reads what `-json` prints, [`plan`] what `show -json` says, [`document`] what a state says, [`room`] prepares a working folder, [`process`] runs the binary so
//! that it outlives us, and stops it gently.

pub mod document;
pub mod plan;
pub use crate::process;
pub mod room;
pub mod stream;

use std::path::{Path, PathBuf};

use serde::Deserialize;

pub use process::{Ended, Running};
pub use room::Room;
pub use stream::Said;

/// Why the tool could not be driven.
#[derive(Debug, thiserror::Error)]
pub enum TerraformError {
    /// There is none.
    #[error(
        "neither terraform nor tofu can be run\nhint: install one of them on the server, or name it with ANDON_TERRAFORM"
    )]
    Absent,
    /// It answered something that this version does not understand.
    #[error(
        "{what} of the tool is not understood: {why}\nhint: use a version of the tool that this version of andon knows"
    )]
    Unknown {
        /// What was read.
        what: &'static str,
        /// Why not.
        why: String,
    },
    /// The tool itself said no.
    #[error("{0}")]
    Failed(String),
    /// The system did not do it.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// The binary that is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tool {
    /// Where it is.
    pub binary: PathBuf,
    /// `terraform` or `tofu`.
    pub name: String,
    /// Its version.
    pub version: String,
}

impl std::fmt::Display for Tool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.name, self.version)
    }
}

#[derive(Deserialize)]
struct Version {
    terraform_version: String,
}

/// The tool that is to be used: the one that was named, else `terraform`, else `tofu`. Asks each for its version.
pub async fn probe(wanted: Option<&Path>) -> Result<Tool, TerraformError> {
    let candidates: Vec<PathBuf> = match wanted {
        Some(wanted) => vec![wanted.to_owned()],
        None => vec!["terraform".into(), "tofu".into()],
    };
    for binary in candidates {
        let mut command = tokio::process::Command::new(&binary);
        command.args(["version", "-json"]).env("CHECKPOINT_DISABLE", "1").env_remove("TF_CLI_ARGS");
        let Ok(out) = command.kill_on_drop(true).output().await else { continue };
        // OpenTofu keeps the name of the field.
        let Ok(read) = serde_json::from_slice::<Version>(&out.stdout) else { continue };
        let name = binary.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        return Ok(Tool { binary, name, version: read.terraform_version });
    }
    Err(TerraformError::Absent)
}
