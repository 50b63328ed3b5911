//! What a dark launch has found: how many answers differ, and in which fields. Types only; the router's `mirror` fills them.

use crate::table::RevisionName;

/// What a mirror has found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Differences {
    /// The revision that saw the copies.
    pub revision: Option<RevisionName>,
    /// Copies that were answered.
    pub mirrored: u64,
    /// Answers that were compared: all complete and at most 256 KB.
    pub compared: u64,
    /// Compared answers that said something else, in a field that is no noise.
    pub different: u64,
    /// Compared answers that differed in noise only.
    pub noisy: u64,
    /// Copies not made: too long a body, or too many under way.
    pub dropped: u64,
    /// Copies that the shadow did not answer, or not within 5 s.
    pub failed: u64,
    /// Where answers differ, the most frequent first; what is noise comes last.
    pub fields: Vec<Field>,
}

/// One place in answers where they differ.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Field {
    /// `status`, `header cache-control`, `body /items/*/price`, `body`.
    pub at: String,
    /// Answers that differ here between the revisions.
    pub count: u64,
    /// Answers that differ here between two instances of one request to the revision that serves.
    pub noise_count: u64,
    /// Whether it differs by itself: then it does not count.
    pub noise: bool,
    /// A few of the differences, oldest first, without secrets.
    pub samples: Vec<Difference>,
}

/// One answer of the shadow that was another one than the user's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Of the request.
    pub method: String,
    /// Of the request, without its query, where secrets stand.
    pub path: String,
    /// What the user's answer says there.
    pub primary: String,
    /// What the shadow's answer says there.
    pub shadow: String,
}
