//! The L7 data plane: hosts, weights, stickiness, mirroring, draining, golden signals. Knows no store, git or pages.
//!
//! A [`RouteTable`] says where users go; [`Router::set`] switches to a new one in a single store, and requests in
//! flight end where they began. What happened is read back as [`Router::signals`], [`Router::differences`] and
//! [`Router::in_flight`]. The router decides nothing: who may go where is said by its caller.
//!
//! One request passes `serve` (connection), `proxy` (which revision), `forward` (which backend, retries), `pool`
//! (which connection) and comes back through `body` (counting, returning the connection).

pub mod access;
mod apart;
mod body;
mod count;
mod differ;
mod forward;
mod hygiene;
mod load;
mod mirror;
mod pool;
pub mod prometheus;
mod proxy;
mod router;
mod serve;
pub mod signals;
mod sleep;
pub mod subject;
pub mod table;
pub mod tls;

pub use access::Access;
pub use apart::{Apart, Delta, Held, Report};
pub use mirror::{Difference, Differences};
pub use router::{Options, Router};
pub use signals::{Arm, ArmSignals, Latency, ServiceSignals};
pub use table::{By, Candidate, Forced, Mirror, Protocol, RevisionName, Route, RouteTable, TableError};
