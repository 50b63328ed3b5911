//! Hosts that joined: machines whose agent runs instances for a server elsewhere.
//!
//! The agent dials out to the server and keeps one connection (TLS with the server's certificate pinned). It says who it is ([`wire`]);
//! from then on the roles are reversed: the server is the HTTP/2 client and the agent the HTTP/2 server on that connection. What is
//! asked is [`crate::Runtime`] one to one, a line of JSON each, and an artifact as a stream behind it. [`fleet`] is the server's end of all
//! connections and a runtime for each host, [`door`] lets agents in, [`agent`] is the other end, [`keep`] what the agent
//! remembers, [`trust`] the certificate. Which host runs what is decided elsewhere.

pub mod agent;
mod answer;
pub mod door;
pub mod fleet;
mod keep;
pub mod trust;
pub mod wire;

pub use agent::{Joining, join, run};
pub use door::Admit;
pub use fleet::Fleet;
pub use wire::{Entry, Refused};

use std::time::Duration;

/// Between two questions whether the other end lives, where nothing else is said.
const ALIVE_EVERY: Duration = Duration::from_secs(2);
/// How long an answer to that may take.
const ALIVE_WITHIN: Duration = Duration::from_secs(5);
/// How long the two may take to get to know each other.
const GREETING: Duration = Duration::from_secs(10);
/// Bytes on their way in one stream before they are acknowledged.
const WINDOW: u32 = 1 << 20;
