//! What can be asked of a data plane.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use crate::differences::Differences;
use crate::signals::ServiceSignals;
use crate::table::{RevisionName, RouteTable, TableError};

/// Something a plane does not do, and what follows from it for a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lack {
    /// It tells requests, but not users, apart.
    Users,
    /// It knows no distribution of latencies.
    Latency,
    /// It sends no copies to a revision that answers nobody.
    Mirror,
    /// It does not look at headers and cookies by which somebody asks for a revision.
    Asked,
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Lack::Users => "it counts requests, not users",
            Lack::Latency => "it does not say how slow answers are, so latency is not judged",
            Lack::Mirror => "it copies no requests, so a dark launch sees none",
            Lack::Asked => {
                "it does not send those to the new revision who ask for it by a header or a cookie"
            }
        })
    }
}

/// A data plane. Everything but [`Plane::drained`] answers at once, from memory: whoever has to speak with another
/// program does so in a task of its own and works towards the newest table until that is in force.
pub trait Plane: fmt::Debug + Send + Sync {
    /// How people call it.
    fn name(&self) -> &'static str;

    /// What it does not do. Empty: nothing is missing.
    fn lacks(&self) -> &[Lack];

    /// The table that is to be in force from now on, wholly or (with an error) not at all. Until a plane that needs
    /// time for it is done, [`Plane::behind`] says so, and signals belong to the epoch that is really in force.
    fn set(&self, table: &RouteTable) -> Result<(), TableError>;

    /// Why the newest table is not, or not wholly, in force; none: it is. Users then go where they went before.
    fn behind(&self) -> Option<String>;

    /// What happened, for each service and each epoch that is still known, oldest epoch first. A plane begins anew when
    /// its memory is lost, and never counts anything twice.
    fn signals(&self) -> Vec<ServiceSignals>;

    /// Requests of a revision under way; none: not known at this moment, so nothing may be taken away.
    fn in_flight(&self, service: &str, revision: &RevisionName) -> Option<usize>;

    /// Resolves when nothing of the revision is under way, after it left the table.
    fn drained<'a>(
        &'a self,
        service: &'a str,
        revision: &'a RevisionName,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

    /// How long ago the last request for a service came; none: none was seen yet.
    fn idle(&self, service: &str) -> Option<Duration>;

    /// What the mirror of a service has found; none where none is at work.
    fn differences(&self, service: &str) -> Option<Differences>;
}
