//! What every loop needs and no domain owns: a clock, secrets from the system and what keeps them from being seen, process trees. No domain words.

pub mod clock;
pub mod mask;
pub mod secret;
pub mod tree;

pub use clock::{Clock, ManualClock, SystemClock};
pub use mask::Mask;
