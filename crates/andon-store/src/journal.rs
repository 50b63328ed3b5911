//! The journal's port: what every engine must do. The contract suite in andon-testkit holds each engine to it.
//!
//! One stream per project, and one for the server itself. An append names the version that its decision was made on; if anything else was
//! appended to the stream since, it is refused and the caller decides again. An append made under a lease carries the lease's fencing
//! number, and is refused once somebody else holds the lease.

use std::future::Future;

use andon_model::{Actor, Event, ProjectName, Recorded, Span, Time};

/// An event that is to be recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct NewEvent {
    /// Who did it.
    pub by: Actor,
    /// What happened.
    pub event: Event,
}

/// The proof of holding a lease, as an append shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    /// Name of the lease.
    pub lease: String,
    /// Its fencing number: grows with every change of hands.
    pub number: i64,
}

/// Events that are recorded together or not at all.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// The project's stream; none: the server's.
    pub project: Option<ProjectName>,
    /// Number of events in the stream when the decision was made.
    pub expected: u64,
    /// When.
    pub at: Time,
    /// What.
    pub events: Vec<NewEvent>,
    /// The lease under which it was decided.
    pub fence: Option<Fence>,
}

/// A lease that was granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// To be shown with every append.
    pub fence: Fence,
    /// When it ends unless renewed.
    pub until: Time,
}

/// Why the journal did not do it.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Somebody was faster: decide again on the newer state.
    #[error("the stream has {actual} events, not {expected}: something else was recorded first")]
    Conflict {
        /// Events that the caller knew.
        expected: u64,
        /// Events that there are.
        actual: u64,
    },
    /// The lease has changed hands: whoever decided this must not act any more.
    #[error("the lease {lease:?} is held by somebody else now")]
    Fenced {
        /// Name of the lease.
        lease: String,
    },
    /// The journal holds something that this version cannot read.
    #[error(
        "event {seq} cannot be read: {why}\nhint: this data directory was written by a newer version; run that version"
    )]
    Unreadable {
        /// Its place.
        seq: u64,
        /// The reason.
        why: String,
    },
    /// The engine failed.
    #[error(
        "the journal cannot be used: {0}\nhint: check that the data directory is writable and its disk is not full"
    )]
    Engine(String),
}

/// What every engine does.
pub trait Journal: Send + Sync + 'static {
    /// Records the batch durably, or nothing of it.
    fn append(&self, batch: Batch) -> impl Future<Output = Result<Vec<Recorded>, JournalError>> + Send;

    /// Up to `limit` events after `seq`, in order, over all streams.
    fn read(
        &self,
        after: u64,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<Recorded>, JournalError>> + Send;

    /// Takes the lease if it is free, over, or the same holder's; each taking has a new fencing number.
    fn acquire(
        &self,
        lease: &str,
        holder: &str,
        now: Time,
        lasts: Span,
    ) -> impl Future<Output = Result<Option<Lease>, JournalError>> + Send;

    /// Prolongs a lease that is still held under this number; false when it has changed hands.
    fn renew(&self, fence: &Fence, until: Time) -> impl Future<Output = Result<bool, JournalError>> + Send;
}
