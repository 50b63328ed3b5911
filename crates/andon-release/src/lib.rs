//! Release strategies as state machines, and the immune system's statistics. No sockets, no clock.

pub mod analysis;
pub mod evidence;
pub mod explain;
pub mod sample;
pub mod simulate;

pub use analysis::Outcome;
pub use explain::{Explanation, look};
pub use sample::{ArmCounts, EpochCounts, Sample};
