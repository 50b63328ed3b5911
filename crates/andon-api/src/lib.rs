//! The doors that programs use: JSON, git over HTTP, events, flags by OFREP; and the guard in front of every door. No HTML.
//!
//! [`door`] is the table form of a route: its method, path, and the role it needs. Nothing is reachable that is not in a table, and a
//! door without a role is public by being written so. [`guard`] stands in front of all of them, also of the pages.

pub mod answer;
pub mod door;
pub mod events;
pub mod git;
pub mod guard;
pub mod ofrep;
pub mod routes;
pub mod shell;

pub use door::{Door, open};
