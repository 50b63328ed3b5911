//! The journal and leases on SQLite, and content-addressed blobs on disk. Decides nothing.
//!
//! [`journal`] is the port and its words, [`sqlite`] the embedded engine, [`blobs`] the bulk.

pub mod blobs;
pub mod journal;
pub mod sqlite;

pub use blobs::Blobs;
pub use journal::{Batch, Fence, Journal, JournalError, Lease, NewEvent};
pub use sqlite::SqliteJournal;
