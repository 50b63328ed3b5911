//! Runners: machines whose agent runs jobs for a server elsewhere.
//!
//! The agent dials out to the server and keeps one connection, on which the server asks (`andon-dial`): the runner needs no open door, no git
//! and no credential but its own. [`wire`] is what is said. An assignment has a number; the working copy is sent whole, the runner
//! runs it in a room like any other, under a shim that outlives its agent, and hides the secrets before anything leaves it. The server
//! follows: steps, output and end are asked for from where it stands, so that either may go away and come back. [`crew`] is the server's
//! end of all connections, [`follow`] of one attempt, [`door`] lets agents in, [`agent`] is the other end. Who gets which job is
//! decided elsewhere.

pub mod agent;
mod answer;
pub mod crew;
pub mod door;
pub mod follow;
mod held;
pub mod wire;

pub use agent::{Joining, join, run};
pub use andon_dial::{Refused, trust};
pub use crew::{Crew, Trouble};
pub use door::Admit;
pub use follow::Following;
pub use wire::{Entry, Which, Work};

/// What every token of a runner begins with.
pub const PREFIX: &str = "andon_runner_";
