//! Fakes, builders and contract suites for tests. Never shipped.

pub mod journal;
pub mod leaks;
pub mod pebble;
pub mod plane;
pub mod postgres;
