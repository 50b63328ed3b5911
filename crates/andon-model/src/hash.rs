//! Names made of hexadecimal digits: git objects and content digests. Checked when read, so they are safe in a path or an argument.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::Digest as _;

/// Why a text is not a hash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not {1}")]
pub struct NotAHash(String, &'static str);

fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// A git object id: 40 (SHA-1) or 64 (SHA-256) lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Oid(String);

impl Oid {
    /// All digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The seven digits that people read.
    pub fn short(&self) -> &str {
        &self.0[..7]
    }

    /// Whether this is git's "no object".
    pub fn is_zero(&self) -> bool {
        self.0.bytes().all(|b| b == b'0')
    }
}

impl FromStr for Oid {
    type Err = NotAHash;
    fn from_str(text: &str) -> Result<Oid, NotAHash> {
        match text.len() {
            40 | 64 if is_hex(text) => Ok(Oid(text.to_owned())),
            _ => Err(NotAHash(text.chars().take(70).collect(), "a git object id")),
        }
    }
}

/// The digest of some content: `sha256:` and 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

impl Digest {
    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(format!("sha256:{}", hex::encode(sha2::Sha256::digest(bytes))))
    }

    /// The digest of all that a reader gives; memory use does not depend on how much that is.
    pub fn of_all(mut bytes: impl std::io::Read) -> std::io::Result<Digest> {
        let (mut sum, mut chunk) = (sha2::Sha256::new(), vec![0; 128 * 1024]);
        loop {
            match bytes.read(&mut chunk) {
                Ok(0) => return Ok(Digest::from_sha256(sum.finalize().into())),
                Ok(read) => sum.update(&chunk[..read]),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// From a finished SHA-256.
    pub fn from_sha256(sum: [u8; 32]) -> Digest {
        Digest(format!("sha256:{}", hex::encode(sum)))
    }

    /// With its algorithm in front.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The 64 digits without the algorithm: a safe file name.
    pub fn hex(&self) -> &str {
        &self.0[7..]
    }

    /// What people read: `sha256:7be1f00d`.
    pub fn short(&self) -> &str {
        &self.0[..15]
    }
}

impl FromStr for Digest {
    type Err = NotAHash;
    fn from_str(text: &str) -> Result<Digest, NotAHash> {
        match text.strip_prefix("sha256:") {
            Some(digits) if digits.len() == 64 && is_hex(digits) => Ok(Digest(text.to_owned())),
            _ => Err(NotAHash(text.chars().take(80).collect(), "a digest like sha256:…")),
        }
    }
}

macro_rules! text_of {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl TryFrom<String> for $name {
            type Error = NotAHash;
            fn try_from(text: String) -> Result<Self, NotAHash> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(hash: $name) -> String {
                hash.0
            }
        }
    };
}
text_of!(Oid);
text_of!(Digest);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_full_lower_case_hashes_are_object_ids() {
        assert!("0".repeat(40).parse::<Oid>().unwrap().is_zero());
        for bad in ["", "HEAD", "--upload-pack=x", &"g".repeat(40), &"A".repeat(40), &"0".repeat(39)] {
            assert!(bad.parse::<Oid>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn a_digest_names_its_content() {
        assert_eq!(Digest::of(b"").short(), "sha256:e3b0c442");
    }
}
