//! Release strategies as state machines, and the immune system's statistics. No sockets, no clock.
//!
//! Counts come in as a [`Sample`], [`look`] says what they prove, [`plan`](plan::plan) decides what each
//! release does next, and [`command`] holds what people may ask. All of it is pure: the line persists the
//! decisions and acts on them.

pub mod analysis;
pub mod command;
pub mod evidence;
pub mod explain;
pub mod kayenta;
pub mod plan;
pub mod rank;
pub mod sample;
pub mod simulate;
pub mod state;
pub mod waiting;

pub use analysis::Outcome;
pub use explain::{Explanation, look};
pub use plan::{Decision, Mirror, Observed};
pub use sample::{ArmCounts, EpochCounts, Sample};
pub use state::{Fact, Release, Releases};
pub use waiting::waits_for;
