//! The vocabulary: typed ids, validated names and the line events that stations exchange. No IO, no clock.
//!
//! A type enters this crate only when two other crates need it.

pub mod time;

pub use time::{Span, Time};
