//! The router as a data plane behind the port. It lacks nothing, and a table is in force when `set` returns.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use andon_traffic::{Differences, Lack, Plane, RevisionName, RouteTable, ServiceSignals, TableError};

use crate::router::Router;

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Router").finish_non_exhaustive()
    }
}

impl Plane for Router {
    fn name(&self) -> &'static str {
        "Andon's router"
    }

    fn lacks(&self) -> &[Lack] {
        &[]
    }

    fn set(&self, table: &RouteTable) -> Result<(), TableError> {
        Router::set(self, table.clone())
    }

    fn behind(&self) -> Option<String> {
        None
    }

    fn signals(&self) -> Vec<ServiceSignals> {
        Router::signals(self)
    }

    fn in_flight(&self, service: &str, revision: &RevisionName) -> Option<usize> {
        Some(Router::in_flight(self, service, revision))
    }

    fn drained<'a>(
        &'a self,
        service: &'a str,
        revision: &'a RevisionName,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(Router::drained(self, service, revision))
    }

    fn idle(&self, service: &str) -> Option<Duration> {
        Router::idle(self, service)
    }

    fn differences(&self, service: &str) -> Option<Differences> {
        Router::differences(self, service)
    }
}
