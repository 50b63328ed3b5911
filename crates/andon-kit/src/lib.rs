//! What every loop needs and no domain owns: a clock, secrets from the system, process trees. No domain words.

pub mod clock;
pub mod secret;
pub mod tree;

pub use clock::{Clock, ManualClock, SystemClock};
