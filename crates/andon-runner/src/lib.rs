//! Executes jobs as process trees, gathers what they leave behind. Schedules nothing and judges nothing.
//!
//! [`execute`] runs a script under a shim, [`shim`] is that process, [`gather`] finds reports and packs artifacts.

pub mod execute;
pub mod gather;
pub mod shim;

pub use execute::{End, Order, Runner};
