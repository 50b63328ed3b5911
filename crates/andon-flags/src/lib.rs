//! The flag model and its compiled evaluation with flagd's semantics. No HTTP, no clock: `now` is always given.
//!
//! A flag is a flagd definition in JSON, kept as it was given and compiled once. `set` folds the journal into a [`FlagSet`]; `evaluate`
//! answers for one context; `ofrep` says the answer the way OpenFeature clients accept it; `command` makes new definitions; `transfer`
//! reads and writes whole flagd files; `describe` says a flag in words. Rollouts use fractional hashing version 2 of flagd.

pub mod command;
pub mod definition;
pub mod describe;
pub mod evaluate;
mod logic;
mod murmur;
mod numbers;
pub mod ofrep;
mod rule;
mod semver;
pub mod set;
pub mod transfer;

pub use definition::Flag;
pub use evaluate::{Context, ErrorCode, Reason, Resolution, evaluate};
pub use set::FlagSet;
