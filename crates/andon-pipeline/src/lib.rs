//! The file a team writes (`andon.yaml`), its checks, and the scheduling of its job graph. Runs nothing.
//!
//! [`definition`] is the file as types ([`ansible`] and [`job`] parts of it), [`check`] reads it and points at mistakes, [`expand`] unfolds templates and matrices,
//! [`planned`] names what comes of it, [`guards`] holds two of it against each other, [`detect`] writes a first file for a repository ([`compose`] from a Compose file),
//! [`runs`] is the state of all runs as a fold over line events, [`plan`] says which job to start next, [`runners`] which machines there are for
//! it beside the server's own.

pub mod ansible;
mod attempts;
pub mod check;
pub mod compose;
pub mod definition;
pub mod detect;
pub mod expand;
pub mod guards;
pub mod job;
mod jobs;
mod limits;
mod matrix;
mod pins;
pub mod plan;
pub mod planned;
pub mod rules;
pub mod runners;
pub mod runs;
pub mod secrets;
mod steps;

pub use check::{Problem, read, schema};
pub use definition::Definition;
pub use plan::{Decision, plan};
pub use planned::Plan;
pub use runners::{Place, Places, Runners, Standing};
pub use runs::{JobState, Run, Runs};
