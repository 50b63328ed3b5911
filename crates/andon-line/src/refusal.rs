//! Why a command was not carried out, in words for whoever gave it.

use andon_model::event::Role;
use andon_store::JournalError;

/// Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The caller's roles do not suffice.
    #[error("this needs the role {}\nhint: an owner gives roles with `andon user set NAME --role {}`", role(.0), role(.0))]
    Forbidden(Role),
    /// There is no such thing.
    #[error("{0}")]
    Unknown(String),
    /// It cannot be done as things stand.
    #[error("{0}")]
    Conflict(String),
    /// The input makes no sense.
    #[error("{0}")]
    Bad(String),
    /// The server cannot do it right now.
    #[error("{0}")]
    Broken(String),
}

impl Refusal {
    /// As HTTP counts it, for programs and for pages. What the server failed at is written to its log here, once.
    pub fn status(&self) -> u16 {
        match self {
            Refusal::Forbidden(_) => 403,
            Refusal::Unknown(_) => 404,
            Refusal::Conflict(_) => 409,
            Refusal::Bad(_) => 400,
            Refusal::Broken(_) => {
                tracing::error!(error = %self, "a request failed");
                500
            }
        }
    }
}

/// A role as people write it.
pub fn role(role: &Role) -> &'static str {
    match role {
        Role::Viewer => "viewer",
        Role::Developer => "developer",
        Role::Deployer => "deployer",
        Role::Releaser => "releaser",
        Role::Owner => "owner",
    }
}

impl From<JournalError> for Refusal {
    fn from(error: JournalError) -> Refusal {
        Refusal::Broken(error.to_string())
    }
}

impl From<andon_git::GitError> for Refusal {
    fn from(error: andon_git::GitError) -> Refusal {
        Refusal::Broken(error.to_string())
    }
}

impl From<std::io::Error> for Refusal {
    fn from(error: std::io::Error) -> Refusal {
        Refusal::Broken(error.to_string())
    }
}
