//! Plans what is tested together and what lands. No git, no processes.
//!
//! [`state::Queue`] is a fold over line events, [`plan::plan`] says what to do next, [`identity`] tells which change a push belongs to.

pub mod identity;
pub mod plan;
pub mod state;

pub use plan::{Decision, Hold, plan};
pub use state::{Approval, Change, Edited, Queue, Standing};
