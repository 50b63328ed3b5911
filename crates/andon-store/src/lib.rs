//! The journal and leases on SQLite, and content-addressed blobs on disk. Decides nothing.
