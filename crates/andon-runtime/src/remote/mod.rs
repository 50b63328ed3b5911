//! Hosts that joined: machines whose agent runs instances for a server elsewhere.
//!
//! The agent dials out to the server and keeps one connection, on which the server asks (`andon-dial`). What it says first is in [`wire`];
//! what is asked is [`crate::Runtime`] one to one, a line of JSON each, and an artifact as a stream behind it. [`fleet`] is the server's
//! end of all connections and a runtime for each host, [`door`] lets agents in, [`agent`] is the other end. Which host runs what is decided
//! elsewhere.

pub mod agent;
mod answer;
pub mod door;
pub mod fleet;
pub mod wire;

pub use agent::{Joining, join, run};
pub use andon_dial::{Refused, trust};
pub use door::Admit;
pub use fleet::Fleet;
pub use wire::Entry;

/// What every token of a host begins with.
pub const PREFIX: &str = "andon_host_";
