//! Machines that dial in to a server elsewhere and are asked there. Knows no question and decides nothing.
//!
//! A machine dials out and keeps one connection (TLS with the server's certificate pinned, [`trust`]). It says who it is ([`greeting`]); from then
//! on the roles are reversed: the server is the HTTP/2 client and the machine the HTTP/2 server on that connection. [`door`] lets machines in,
//! [`peer`] is the server's end of the connection to one of them, [`member`] is the other end, [`keep`] what it remembers.

pub mod door;
pub mod greeting;
pub mod keep;
pub mod member;
pub mod peer;
pub mod trust;

pub use door::Porter;
pub use greeting::Refused;
pub use member::{Member, attend};
pub use peer::{Body, Peer, one};

use std::time::Duration;

/// Between two questions whether the other end lives, where nothing else is said.
const ALIVE_EVERY: Duration = Duration::from_secs(2);
/// How long an answer to that may take.
const ALIVE_WITHIN: Duration = Duration::from_secs(5);
/// How long the two may take to get to know each other.
pub const GREETING: Duration = Duration::from_secs(10);
/// Bytes on their way in one stream before they are acknowledged.
const WINDOW: u32 = 1 << 20;
