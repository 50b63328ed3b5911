//! An image with all its layers, for engines that take no archive without those that they have already (their store is not one of layers).

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use super::DockerRuntime;
use super::archive::{self, LARGEST};
use crate::error::RuntimeError;

impl DockerRuntime {
    /// Completes an archive of ours by the layers of its base, as the engine gives them out.
    pub(super) fn complete(&self, ours: &Path, base: &str) -> Result<PathBuf, RuntimeError> {
        let (below, out) = (ours.with_extension("base"), ours.with_extension("whole"));
        let (name, into) = (base.to_owned(), below.clone());
        self.engine.ask("give out an image", |docker| async move {
            let mut file = tokio::fs::File::create(into).await?;
            let mut parts = docker.export_image(&name);
            while let Some(part) = parts.next().await {
                file.write_all(&part?).await?;
            }
            Ok(file.flush().await?)
        })?;
        join(ours, &below, &out).map_err(RuntimeError::disk("write", &out))?;
        Ok(out)
    }
}

/// Our archive with the files of the layers below it.
fn join(ours: &Path, below: &Path, out: &Path) -> io::Result<()> {
    let mut manifest = manifest(ours)?;
    let own = manifest[0]["Layers"].as_array().and_then(|layers| layers.last()).cloned();
    let mut layers = self::manifest(below)?[0]["Layers"].as_array().cloned().unwrap_or_default();
    layers.extend(own);
    manifest[0]["Layers"] = Value::Array(layers);
    let mut tar = tar::Builder::new(BufWriter::new(File::create(out)?));
    for archive in [below, ours] {
        for entry in tar::Archive::new(BufReader::new(File::open(archive)?)).entries()? {
            let mut entry = entry?;
            let (mut header, path) = (entry.header().clone(), entry.path()?.into_owned());
            if archive::names_image(&path) {
                continue;
            }
            match entry.link_name()?.map(std::borrow::Cow::into_owned) {
                Some(target) => tar.append_link(&mut header, &path, target)?,
                None => tar.append_data(&mut header, &path, &mut entry)?,
            }
        }
    }
    archive::put(&mut tar, "manifest.json", &serde_json::to_vec(&json!(manifest))?)?;
    tar.into_inner()?.flush()
}

fn manifest(archive: &Path) -> io::Result<Value> {
    for entry in tar::Archive::new(BufReader::new(File::open(archive)?)).entries()? {
        let entry = entry?;
        if entry.path()?.as_os_str() == "manifest.json" {
            return Ok(serde_json::from_reader(entry.take(LARGEST))?);
        }
    }
    Err(io::Error::other("the archive holds no manifest.json"))
}
