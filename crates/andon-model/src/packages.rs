//! Packages of an operating system as an instance sees them: names with versions, and the text under which they are kept.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Digest;

/// Packages by name, and whose records tell of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packages {
    /// `dpkg`, `apk`; empty: there are no records, as in an image that holds nothing but the artifact.
    pub kind: String,
    /// Version by name; where a package is there for several architectures, each has its own name.
    pub versions: BTreeMap<String, String>,
}

impl Packages {
    /// A line for the kind and one for each package. The same packages always make the same text.
    pub fn text(&self) -> String {
        let lines = self.versions.iter().map(|(name, version)| format!("{name} {version}\n"));
        format!("{}\n{}", self.kind, lines.collect::<String>())
    }

    /// What a text was made of; lines that mean nothing are left out.
    pub fn read(text: &str) -> Packages {
        let mut lines = text.lines();
        let kind = lines.next().unwrap_or_default().to_owned();
        let pairs = lines.filter_map(|line| line.split_once(' '));
        Packages {
            kind,
            versions: pairs.map(|(name, version)| (name.to_owned(), version.to_owned())).collect(),
        }
    }

    /// The digest of the text.
    pub fn digest(&self) -> Digest {
        Digest::of(self.text().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_read_back_from_their_text() {
        let versions = [("libc6:amd64", "2.36-9"), ("zlib1g", "1:1.2.13")];
        let versions = versions.map(|(n, v)| (n.to_owned(), v.to_owned())).into();
        for packages in [Packages { kind: "dpkg".into(), versions }, Packages::default()] {
            assert_eq!(Packages::read(&packages.text()), packages);
        }
    }
}
