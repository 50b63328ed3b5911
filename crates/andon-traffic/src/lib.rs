//! The port of data planes: route tables in, golden signals and differences out. Moves no request; a plane does.
//!
//! Our own router is one plane, HAProxy another. A plane decides nothing: who may go where is said by its caller, and
//! what a plane cannot do it says in [`Plane::lacks`], so that nobody takes silence for health.

pub mod differences;
pub mod plane;
pub mod signals;
pub mod table;

pub use differences::{Difference, Differences, Field};
pub use plane::{Lack, Plane};
pub use signals::{Arm, ArmSignals, Latency, ServiceSignals};
pub use table::{By, Candidate, Forced, Mirror, Protocol, RevisionName, Route, RouteTable, TableError};
