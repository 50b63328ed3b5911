//! What is carried from environment to environment beside the artifact, so that each gets the same change. Names things; reads none.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Digest, Oid};

/// Taken down once, when the artifact is built. Two changes are the same where artifact and pins are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pins {
    /// Folders of the repository that make infrastructure or move data, each with its git tree.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub folders: BTreeMap<String, Oid>,
    /// Of every environment's services in their whole shape. None: taken down by a version that did not pin it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<Digest>,
}

impl Pins {
    /// One name for artifact and pins together.
    pub fn manifest(&self, artifact: &Digest) -> Digest {
        let mut text = format!("artifact {artifact}\n");
        for (folder, tree) in &self.folders {
            text.push_str(&format!("folder {tree} {folder}\n"));
        }
        if let Some(configuration) = &self.configuration {
            text.push_str(&format!("configuration {configuration}\n"));
        }
        Digest::of(text.as_bytes())
    }

    /// What differs from other pins, as people say it.
    pub fn differences(&self, other: &Pins) -> Vec<String> {
        let mut found = Vec::new();
        if self.configuration != other.configuration {
            found.push("the configuration of its services".to_owned());
        }
        let names =
            self.folders.keys().chain(other.folders.keys().filter(|f| !self.folders.contains_key(*f)));
        let differs = names.filter(|folder| self.folders.get(*folder) != other.folders.get(*folder));
        found.extend(differs.map(|folder| format!("the folder {folder}")));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pins(tree: Option<char>, configuration: &str) -> Pins {
        let tree = tree.map(|c| ("infra".to_owned(), c.to_string().repeat(40).parse().unwrap()));
        Pins {
            folders: tree.into_iter().collect(),
            configuration: Some(Digest::of(configuration.as_bytes())),
        }
    }

    #[test]
    fn the_manifest_changes_with_every_part() {
        let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
        let same = pins(Some('a'), "x");
        assert_eq!(same.manifest(&one), same.clone().manifest(&one));
        for other in [pins(Some('b'), "x"), pins(None, "x"), pins(Some('a'), "y"), Pins::default()] {
            assert_ne!(same.manifest(&one), other.manifest(&one));
            assert!(!same.differences(&other).is_empty());
        }
        assert_ne!(same.manifest(&one), same.manifest(&two));
        assert!(same.differences(&same.clone()).is_empty());
    }
}
