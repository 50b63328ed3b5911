//! Where every change stands, and DORA's five metrics, computed from line events alone. No SQL, no clock, no configuration.
//!
//! `state` folds the journal into a [`Flow`]; `timeline` tells one change's way from its author to all users; `summary` counts a window
//! of time. Every figure carries the places in the journal that it was counted from, so that anyone can recount it.

pub mod state;
pub mod summary;
pub mod timeline;

pub use state::{Flow, Point};
pub use summary::{Durations, FlowSummary, Share, Window};
pub use timeline::{Kind, Mark, Segment, Station, Timeline};

#[cfg(test)]
mod recount;
#[cfg(test)]
mod tests;
