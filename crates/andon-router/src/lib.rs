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
mod findings;
mod forward;
mod hygiene;
mod load;
mod mirror;
mod plane;
mod pool;
pub mod prometheus;
mod proxy;
mod redact;
mod router;
mod serve;
mod sleep;
pub mod subject;
pub mod tls;

pub use access::AccessLog;
pub use andon_traffic::{Difference, Differences, Field, signals, table};
pub use apart::{Apart, Delta, Held, Report};
pub use router::{Options, Router};
pub use signals::{Arm, ArmSignals, Latency, ServiceSignals};
pub use table::{By, Candidate, Forced, Mirror, Protocol, RevisionName, Route, RouteTable, TableError};
