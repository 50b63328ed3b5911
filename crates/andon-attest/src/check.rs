//! Whether a statement about an artifact may be believed. Pure: the envelope, the keys and what has to be so in, a reason to doubt out.

use andon_model::{Digest, Oid};
use serde_json::Value;

use crate::dsse::{Envelope, IN_TOTO};
use crate::key::Public;
use crate::statement::{PROVENANCE, STATEMENT, Statement, TEST_RESULT};

/// Why an artifact is not believed to be what it is said to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Doubt {
    /// The envelope is not one.
    #[error("its attestation cannot be read: {0}")]
    Unreadable(String),
    /// Nobody whom we know signed it.
    #[error("the signature of its attestation is not good: none of the keys of this server made it")]
    Signature,
    /// It says something about something else.
    #[error("its attestation is about {0}, not about this artifact")]
    Subject(String),
    /// Its bytes are others.
    #[error("its bytes are not those that were built: they are {0}")]
    Bytes(Digest),
    /// Somebody else built it.
    #[error("it was built by {0}, not by this server")]
    Builder(String),
    /// It was built from something else.
    #[error("it was built from the {what} {says}, and {wanted} is what landed")]
    Source {
        /// `commit` or `tree`.
        what: &'static str,
        /// As the statement says.
        says: String,
        /// As it is.
        wanted: String,
    },
    /// Its tests were red.
    #[error("its tests are attested as {0}")]
    Tests(String),
}

/// What has to be so.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// The artifact, by the digest of its bytes.
    pub artifact: &'a Digest,
    /// What it was built from; none: not asked.
    pub source: Option<(&'a Oid, &'a Oid)>,
}

/// The statement in this envelope, if everything is as it has to be. `keys` come with the id of the builder that they speak for; none: any.
pub fn check(
    envelope: &[u8],
    keys: &[(Public, Option<String>)],
    expected: Expected<'_>,
) -> Result<Statement, Doubt> {
    let unreadable = |error: serde_json::Error| Doubt::Unreadable(error.to_string());
    let envelope: Envelope = serde_json::from_slice(envelope).map_err(unreadable)?;
    if envelope.payload_type != IN_TOTO {
        return Err(Doubt::Unreadable("it is no in-toto statement".into()));
    }
    let opened = keys.iter().find_map(|(key, builder)| Some((envelope.open(key)?, builder)));
    let (payload, builder) = opened.ok_or(Doubt::Signature)?;
    let statement: Statement = serde_json::from_slice(&payload).map_err(unreadable)?;
    if statement.kind != STATEMENT {
        return Err(Doubt::Unreadable("it is no in-toto statement of version 1".into()));
    }
    let is_it = |digest: &String| digest == expected.artifact.hex();
    if !statement.subject.iter().any(|subject| subject.digest.get("sha256").is_some_and(is_it)) {
        let about = statement.subject.first().and_then(|subject| subject.digest.get("sha256"));
        return Err(Doubt::Subject(
            about.map_or_else(|| "nothing".into(), |about| format!("sha256:{about}")),
        ));
    }
    let predicate = &statement.predicate;
    let resolved = match statement.predicate_type.as_str() {
        PROVENANCE => {
            let by = &predicate["runDetails"]["builder"]["id"];
            if builder.as_ref().is_some_and(|builder| by != builder) {
                return Err(Doubt::Builder(by.as_str().unwrap_or("nobody").to_owned()));
            }
            &predicate["buildDefinition"]["resolvedDependencies"]
        }
        TEST_RESULT => {
            match predicate["result"].as_str() {
                Some("PASSED" | "WARNED") => {}
                other => return Err(Doubt::Tests(other.unwrap_or("nothing").to_owned())),
            }
            &predicate["configuration"]
        }
        other => return Err(Doubt::Unreadable(format!("it says {other:?}, which is not known here"))),
    };
    if let Some((commit, tree)) = expected.source {
        for (what, algorithm, wanted) in [("commit", "gitCommit", commit), ("tree", "gitTree", tree)] {
            let says =
                resolved.as_array().into_iter().flatten().find_map(|one| one["digest"][algorithm].as_str());
            if says != Some(wanted.as_str()) {
                let says = says.unwrap_or("nobody knows").to_owned();
                return Err(Doubt::Source { what, says, wanted: wanted.to_string() });
            }
        }
    }
    Ok(statement)
}

/// Who signed it, as it says itself: a hint, no proof.
pub fn signer_of(envelope: &Value) -> Option<&str> {
    envelope["signatures"][0]["keyid"].as_str()
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
