//! Images on the engine: one for each artifact (and what it is put on), loaded once, removed when no instance needs it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use bollard::models::ImageInspect;
use bollard::query_parameters::{ImportImageOptionsBuilder, RemoveImageOptionsBuilder};
use futures_util::StreamExt as _;
use sha2::Digest as _;

use super::archive::{self, Base};
use super::engine::or_absent;
use super::{DockerRuntime, lock};
use crate::error::RuntimeError;
use crate::manifest;
use crate::spec::{self, Spec};
use crate::unpack::{Limits, unpack};

/// Changes when images of ours are written in another way: old ones are not taken for new ones.
const FORM: &str = "1";

impl DockerRuntime {
    /// The name of the image that this spec runs on.
    pub(super) fn image_name(&self, spec: &Spec, base: Option<&ImageInspect>) -> String {
        let mut sum = sha2::Sha256::new();
        let below = base.and_then(|base| base.id.as_deref()).unwrap_or_default();
        let writes: BTreeSet<PathBuf> = spec.writes.iter().map(|path| archive::clean(path)).collect();
        sum.update(format!("{FORM}\n{below}\n{writes:?}"));
        let shape = hex::encode(sum.finalize());
        let artifact = spec.artifact.as_ref().map_or(spec.instance.as_str(), |artifact| artifact.hex());
        format!("{}:{artifact}-{}", self.repository(), &shape[..12])
    }

    /// Every image of this project is named so.
    pub(super) fn repository(&self) -> String {
        format!("andon/{}/{}", self.server, self.project)
    }

    /// The image below, as it lies on the engine.
    pub(super) fn base(&self, spec: &Spec) -> Result<Option<ImageInspect>, RuntimeError> {
        let Some(name) = spec.image.clone() else { return Ok(None) };
        // It becomes a part of an address of the engine's interface.
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:@".contains(&byte);
        if name.is_empty() || name.len() > 255 || name.contains("..") || !name.bytes().all(plain) {
            return Err(RuntimeError::NoImage(name.chars().take(100).collect()));
        }
        self.inspect_image(&name)?.map(Some).ok_or(RuntimeError::NoImage(name))
    }

    pub(super) fn inspect_image(&self, name: &str) -> Result<Option<ImageInspect>, RuntimeError> {
        let name = name.to_owned();
        let found = self
            .engine
            .try_ask("look at an image", |docker| async move { docker.inspect_image(&name).await })?;
        Ok(or_absent(found)?)
    }

    /// Loads the artifact as an image, unless it is there.
    pub(super) fn load(&self, spec: &Spec, artifact: &mut dyn Read) -> Result<(), RuntimeError> {
        let base = self.base(spec)?;
        let name = self.image_name(spec, base.as_ref());
        self.need(&spec.instance, &name);
        let turn = lock(&self.loading);
        if self.inspect_image(&name)?.is_some() {
            return Ok(());
        }
        let room = self.room.join(format!("new-{}", spec.instance));
        remove_dir(&room)?;
        let loaded = self.load_in(&room, spec, base, &name, artifact);
        // Rubbish is removed at the next start, if it cannot be now.
        let _ = fs::remove_dir_all(&room);
        drop(turn);
        loaded
    }

    fn load_in(
        &self,
        room: &Path,
        spec: &Spec,
        base: Option<ImageInspect>,
        name: &str,
        artifact: &mut dyn Read,
    ) -> Result<(), RuntimeError> {
        let (release, out) = (room.join("release"), room.join("image"));
        fs::create_dir_all(&release).map_err(RuntimeError::disk("create", &release))?;
        unpack(artifact, &release, Limits::default())?;
        let own = archive::image_in(&release).map_err(RuntimeError::disk("read", &release))?;
        let layers = match &own {
            Some(image) => archive::pass_on(image, &out).map_err(|error| RuntimeError::Artifact {
                path: image.file_name().unwrap_or_default().to_string_lossy().into_owned(),
                why: format!("is no image that can be loaded: {error}"),
                hint: "write it by `docker save NAME -o FILE`, with one image in it",
            })?,
            None => {
                let digest = spec.artifact.as_ref().map_or("", |digest| digest.as_str());
                let written = archive::write(&release, &below(base), digest, &spec.writes, &out);
                let known = manifest::tree_digest(&release).map_err(RuntimeError::disk("read", &release))?;
                let path = self.manifest_path(name);
                spec::write(&path, &known).map_err(RuntimeError::disk("write", path))?;
                written.map_err(RuntimeError::disk("write", &out))?
            }
        };
        let tagged = archive::tag(&out, name).map_err(RuntimeError::disk("write", &out))?;
        match (self.send(tagged.clone()), &spec.image) {
            (Err(RuntimeError::Engine { why, .. }), Some(base)) if own.is_none() => {
                tracing::info!(
                    why,
                    "the engine takes no image without the layers that it has: it gets all of them"
                );
                self.send(self.complete(&tagged, base)?)?;
            }
            (sent, _) => sent?,
        }
        let found = self.inspect_image(name)?;
        let got = found.and_then(|image| image.root_fs).and_then(|root| root.layers).unwrap_or_default();
        if got != layers {
            let why = format!("layers {got:?} came of {layers:?}");
            return Err(RuntimeError::Engine { what: "load the artifact as it is", why });
        }
        Ok(())
    }

    fn send(&self, archive: PathBuf) -> Result<(), RuntimeError> {
        self.engine.ask("load an image", |docker| async move {
            let file = tokio::fs::File::open(&archive).await?;
            let body = tokio_util::io::ReaderStream::with_capacity(file, 256 * 1024);
            let options = ImportImageOptionsBuilder::new().quiet(true).build();
            let mut answers = docker.import_image_stream(options, body, None);
            while let Some(answer) = answers.next().await {
                if let Some(error) = answer?.error_detail.and_then(|detail| detail.message) {
                    return Err(bollard::errors::Error::DockerStreamError { error });
                }
            }
            Ok(())
        })
    }

    /// What an image of ours was written from.
    pub(super) fn manifest_path(&self, image: &str) -> PathBuf {
        let tag = image.rsplit(':').next().unwrap_or(image);
        self.room.join(format!("{tag}.json"))
    }

    /// From now on an instance needs this image.
    fn need(&self, instance: &str, image: &str) {
        let mut needed = lock(&self.needed);
        needed.insert(instance.to_owned(), image.to_owned());
    }

    /// It is gone: so are images that nobody needs any more.
    pub(super) fn no_need(&self, instance: &str) -> Result<(), RuntimeError> {
        let _turn = lock(&self.loading);
        lock(&self.needed).remove(instance);
        let used: BTreeSet<String> = self.containers()?.into_iter().filter_map(|found| found.image).collect();
        let needed: BTreeMap<String, String> = lock(&self.needed).clone();
        for name in self.images()? {
            if used.contains(&name) || needed.values().any(|image| *image == name) {
                continue;
            }
            let (gone, options) = (name.clone(), RemoveImageOptionsBuilder::new().build());
            let removed = self.engine.try_ask("remove an image", |docker| async move {
                docker.remove_image(&gone, Some(options), None).await
            })?;
            match removed {
                // Somebody else's container runs on it.
                Err(failure) if failure.status == Some(409) => continue,
                removed => or_absent(removed)?,
            };
            let path = self.manifest_path(&name);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(RuntimeError::disk("remove", path)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn images(&self) -> Result<Vec<String>, RuntimeError> {
        let filters =
            std::collections::HashMap::from([("reference", vec![format!("{}:*", self.repository())])]);
        let options = bollard::query_parameters::ListImagesOptionsBuilder::new().filters(&filters).build();
        let found = self
            .engine
            .ask("list images", |docker| async move { docker.list_images(Some(options)).await })?;
        let ours = format!("{}:", self.repository());
        // Podman names what came from nowhere by where it is.
        let plain = |tag: String| tag.strip_prefix("localhost/").map(str::to_owned).unwrap_or(tag);
        let tags = found.into_iter().flat_map(|image| image.repo_tags).map(plain);
        Ok(tags.filter(|tag| tag.starts_with(&ours)).collect())
    }
}

fn below(base: Option<ImageInspect>) -> Base {
    let Some(base) = base else { return Base::default() };
    let config = base.config.unwrap_or_default();
    Base {
        layers: base.root_fs.and_then(|root| root.layers).unwrap_or_default(),
        env: config.env.unwrap_or_default(),
        user: config.user.unwrap_or_default(),
        architecture: base.architecture,
    }
}

/// What a killed server left there is gone.
fn remove_dir(dir: &Path) -> Result<(), RuntimeError> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(RuntimeError::disk("remove", dir)(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docker::engine::Engine;

    #[test]
    fn an_engine_that_takes_only_whole_images_gets_one() {
        let room = tempfile::tempdir().unwrap();
        let runtime = DockerRuntime::with(Engine::of_host(), room.path(), "shop").unwrap();
        if let Err(error) = runtime.about() {
            assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "in CI a missing component is a failure");
            return println!("SKIPPED: whole images ({error})");
        }
        let release = room.path().join("release");
        fs::create_dir(&release).unwrap();
        fs::write(release.join("one"), "1").unwrap();
        let load = |base: Option<ImageInspect>, name: &str, whole: Option<&str>| {
            let out = room.path().join(format!("image-{}", whole.is_some()));
            let layers = archive::write(&release, &below(base), "", &[], &out).unwrap();
            let tagged = archive::tag(&out, name).unwrap();
            let archive = whole.map_or(tagged.clone(), |base| runtime.complete(&tagged, base).unwrap());
            runtime.send(archive).unwrap();
            let found = runtime.inspect_image(name).unwrap().unwrap();
            assert_eq!(found.root_fs.clone().unwrap().layers.unwrap(), layers);
            found
        };
        let (first, second) = (format!("{}:a", runtime.repository()), format!("{}:b", runtime.repository()));
        let base = load(None, &first, None);
        let on_it = load(Some(base), &second, Some(&first));
        assert_eq!(on_it.root_fs.unwrap().layers.unwrap().len(), 2);
        runtime.no_need("").unwrap();
        assert!(runtime.images().unwrap().is_empty());
    }
}
