//! The commands that people and programs may give, and one controller per station: load, plan, persist, act. No HTTP, no HTML, no rules.
//!
//! [`line`] is the whole server: its journal, its accounts and its projects. [`project`] is one line with its [`state`], a fold over the
//! journal. What a caller may do is in [`access`], each station has a module with its commands and its controller.

pub mod access;
mod accounts;
pub mod backup;
mod drill;
pub mod hosts;
pub mod intake;
mod keys;
pub mod line;
pub mod project;
mod recording;
pub mod recovery;
pub mod refusal;
pub mod runners;
mod secrets;
pub mod state;
pub mod stations;
pub mod view;
pub mod words;

pub use access::{Access, Caller};
pub use line::{CertificateSettings, LEASE_OF_RUNNERS, Line, Settings};
pub use project::Project;
pub use refusal::Refusal;
pub use state::State;
