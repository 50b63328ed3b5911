//! What a definition pins beside the artifact: the shape of every service everywhere, and the folders that go along. Reads no repository.

use andon_model::{Digest, EnvironmentName, PlannedService, RuntimeKind};
use serde::Serialize;

use crate::Definition;
use crate::definition::Database;

#[derive(Serialize)]
struct Shape<'a> {
    environment: &'a EnvironmentName,
    services: &'a [PlannedService],
    runtime: RuntimeKind,
}

impl Definition {
    /// Names the whole shape of every service in every environment: two definitions of one digest run the same.
    pub fn configuration(&self) -> Digest {
        let mut text = Vec::new();
        for name in self.environments.keys() {
            let Some(resolved) = self.resolve(name) else { continue };
            let shape = Shape { environment: name, services: &resolved.services, runtime: resolved.runtime };
            // A struct of strings and numbers always has a JSON form.
            text.extend(serde_json::to_vec(&shape).unwrap_or_default());
            text.push(b'\n');
        }
        Digest::of(&text)
    }

    /// Folders of the repository that go along with an artifact.
    pub fn folders(&self) -> Vec<String> {
        let resolved = self.environments.keys().filter_map(|name| self.resolve(name)?.infrastructure);
        let mut folders: Vec<String> = resolved.flat_map(|i| i.folders().collect::<Vec<_>>()).collect();
        folders.extend(self.databases.values().filter_map(Database::folder));
        folders.sort();
        folders.dedup();
        folders
    }
}

#[cfg(test)]
mod tests {
    use crate::read;

    const FILE: &str = "version: 1
pipeline: { jobs: { unit: { run: 'true', artifact: . } } }
services: { web: { command: [./web], replicas: 1 } }
environments: { production: {} }
";

    #[test]
    fn what_services_get_is_pinned_and_how_they_are_tested_is_not() {
        let pinned = |file: &str| read(file).unwrap().configuration();
        let as_is = pinned(FILE);
        assert_ne!(as_is, pinned(&FILE.replace("replicas: 1", "replicas: 2")));
        assert_ne!(as_is, pinned(&FILE.replace("production: {}", "production: { env: { A: b } }")));
        assert_ne!(as_is, pinned(&FILE.replace("production: {}", "production: { runtime: docker }")));
        assert_eq!(as_is, pinned(&FILE.replace("'true'", "'false'")));
    }
}
