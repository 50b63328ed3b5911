//! Packages of a container, read out of its files by the engine: nothing inside is run.

use std::io::Read;

use andon_model::Packages;
use bollard::query_parameters::DownloadFromContainerOptionsBuilder;
use futures_util::StreamExt as _;

use super::engine::or_absent;
use super::{DockerRuntime, lock};
use crate::error::RuntimeError;
use crate::packages::{Kind, LARGEST, RECORDS, read};

/// Images remembered; more are read again.
const REMEMBERED: usize = 64;

impl DockerRuntime {
    pub(super) fn packages_of(&self, id: &str) -> Result<Packages, RuntimeError> {
        let Some(found) = self.inspect(id)? else { return Err(RuntimeError::Unknown(id.to_owned())) };
        let image = found.image.unwrap_or_default();
        if let Some(known) = lock(&self.packages).get(&image) {
            return Ok(known.clone());
        }
        let packages = self.read_packages(id)?;
        let mut known = lock(&self.packages);
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(image, packages.clone());
        Ok(packages)
    }

    fn read_packages(&self, id: &str) -> Result<Packages, RuntimeError> {
        for (path, kind) in RECORDS {
            let name = self.name(id)?;
            let options = DownloadFromContainerOptionsBuilder::new().path(path).build();
            let most = usize::try_from(LARGEST).unwrap_or(usize::MAX);
            let archive = self.engine.try_ask("read packages", move |docker| async move {
                let mut parts = docker.download_from_container(&name, Some(options));
                let mut bytes = Vec::new();
                while let Some(part) = parts.next().await {
                    bytes.extend_from_slice(&part?);
                    // Of a database that is not read it is enough that it is there.
                    if kind == Kind::Rpm || bytes.len() > most {
                        break;
                    }
                }
                Ok(bytes)
            })?;
            if let Some(archive) = or_absent(archive)? {
                return Ok(read(kind, &texts(&archive)));
            }
        }
        Ok(Packages::default())
    }
}

/// The files of an archive, in the order of their names. What was cut off is left out.
fn texts(archive: &[u8]) -> Vec<String> {
    let mut files = Vec::new();
    let mut archive = tar::Archive::new(archive);
    for entry in archive.entries().into_iter().flatten().map_while(Result::ok) {
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let name = entry.path().map(|path| path.into_owned()).unwrap_or_default();
        let mut bytes = Vec::new();
        if entry.take(LARGEST).read_to_end(&mut bytes).is_ok() {
            files.push((name, String::from_utf8_lossy(&bytes).into_owned()));
        }
    }
    files.sort();
    files.into_iter().map(|(_, text)| text).collect()
}
