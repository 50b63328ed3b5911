//! The journal and leases on SQLite, and content-addressed blobs on disk. Decides nothing.
//!
//! [`journal`] is the port and its words, [`sqlite`] the embedded engine, [`blobs`] the bulk, [`derived`] what would take long to derive again, [`vault`] what is sealed.

pub mod blobs;
pub mod derived;
pub mod journal;
pub mod sqlite;
pub mod vault;

pub use blobs::Blobs;
pub use derived::Derived;
pub use journal::{Batch, Fence, Journal, JournalError, Lease, NewEvent};
pub use sqlite::SqliteJournal;
pub use vault::Vault;
