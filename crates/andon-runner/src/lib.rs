//! Executes jobs as process trees, gathers what they leave behind. Schedules nothing and judges nothing.
//!
//! [`execute`] runs a script under a shim, [`shim`] is that process, [`gather`] finds reports and packs artifacts, [`parcel`] carries files between working copies.

pub mod execute;
pub mod gather;
pub mod parcel;
pub mod shim;

pub use execute::{End, Order, Runner};
