//! Ansible: which `ansible-playbook` there is, and one play of a playbook in a room of its own.
//!
//! [`room`] writes inventory and variables and starts the tool, with a callback plugin of ours (`callback.py`) that prints one JSON object a
//! line; [`stream`] reads those, [`plan`] makes of a check what would change and what nobody can know.

pub mod plan;
pub mod room;
pub mod stream;

use std::path::{Path, PathBuf};

pub use room::{Input, clear, furnish, start};
pub use stream::Said;

pub use crate::terraform::Tool;

/// What the binary is called where nobody names another.
const BINARY: &str = "ansible-playbook";

/// Why the tool could not be driven.
#[derive(Debug, thiserror::Error)]
pub enum AnsibleError {
    /// There is none.
    #[error(
        "ansible-playbook cannot be run\nhint: install ansible-core on the server, or name its ansible-playbook with ANDON_ANSIBLE"
    )]
    Absent,
    /// What it printed is of another form than ours.
    #[error(
        "the output of ansible-playbook is not understood: {0}\nhint: take what sets another stdout callback out of ansible.cfg"
    )]
    Unknown(String),
    /// A secret that nobody gave.
    #[error(
        "the server has no value for the secret {0}\nhint: start the server with the variable ANDON_INFRA_{0}"
    )]
    Secret(String),
    /// The code or the tool said no.
    #[error("{0}")]
    Failed(String),
    /// The system did not do it.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// The tool that is to be used: the one that was named, else `ansible-playbook` of the path. Asks it for its version.
pub async fn probe(wanted: Option<&Path>) -> Result<Tool, AnsibleError> {
    let binary = wanted.map_or_else(|| PathBuf::from(BINARY), Path::to_owned);
    let mut command = tokio::process::Command::new(&binary);
    command.arg("--version").env("LC_ALL", "C.UTF-8").env("ANSIBLE_NOCOLOR", "1").kill_on_drop(true);
    let out = command.output().await.map_err(|_| AnsibleError::Absent)?;
    let version = version(&String::from_utf8_lossy(&out.stdout)).ok_or(AnsibleError::Absent)?;
    Ok(Tool { binary, name: "ansible".into(), version })
}

/// From `ansible-playbook [core 2.14.18]`; before core was named so, from `ansible-playbook 2.9.27`.
fn version(text: &str) -> Option<String> {
    let words = text.lines().next()?.strip_prefix("ansible-playbook ")?;
    let version = words.trim_start_matches("[core ").trim_end_matches(']').trim();
    let good = version.starts_with(|c: char| c.is_ascii_digit())
        && version.len() < 40
        && version.chars().all(|c| c.is_ascii_alphanumeric() || c == '.' || c == '-');
    good.then(|| version.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_the_first_line() {
        let text = "ansible-playbook [core 2.14.18]\n  config file = None\n";
        assert_eq!(version(text).as_deref(), Some("2.14.18"));
        assert_eq!(version("ansible-playbook 2.9.27\n").as_deref(), Some("2.9.27"));
        for strange in ["", "terraform 1", "ansible-playbook [core \u{1b}[0m]", "ansible-playbook what"] {
            assert_eq!(version(strange), None, "{strange:?}");
        }
    }

    #[tokio::test]
    async fn a_tool_that_is_not_there_is_named_with_what_to_do() {
        let error = probe(Some(Path::new("/nowhere/ansible-playbook"))).await.unwrap_err();
        assert!(error.to_string().contains("hint: install ansible-core"), "{error}");
    }
}
