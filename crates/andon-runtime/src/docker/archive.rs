//! Image archives as `docker load` takes them: written from a release directory, or passed on where the artifact is an image already.
//! Files only; asks no engine.
//!
//! The form is that of `docker save` (github.com/moby/docker-image-spec, version 1.2): `manifest.json` names one configuration and the
//! layers below each other. What is written is the same, byte for byte, for the same files: no dates, no owners, in order.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Cursor, Read, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::Digest as _;
use tar::{EntryType, Header};

/// Where the artifact lies in an image of ours.
pub(super) const APP: &str = "/app";
/// Who runs it where the image below names nobody: no account of any system.
pub(super) const NOBODY: &str = "65532:65532";
/// The label that says which artifact an image of ours holds.
pub(super) const ARTIFACT: &str = "andon.artifact";
/// Where programs are looked for where the image below does not say.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The largest manifest or configuration that is read, in bytes.
pub(super) const LARGEST: u64 = 4 * 1024 * 1024;

/// What an image of ours is put on. Nothing of it is sent: the engine has its layers.
#[derive(Debug, Clone, Default)]
pub(super) struct Base {
    pub layers: Vec<String>,
    pub env: Vec<String>,
    pub user: String,
    pub architecture: Option<String>,
}

/// Writes an image: the files of `release` at [`APP`], on a base. `writes` are the paths below it that it may change.
/// Returns the digests of its layers, lowest first.
pub(super) fn write(
    release: &Path,
    base: &Base,
    artifact: &str,
    writes: &[String],
    out: &Path,
) -> io::Result<Vec<String>> {
    let layer = out.with_extension("layer");
    let digest = write_layer(release, writes, &layer)?;
    let mut layers = base.layers.clone();
    layers.push(digest);
    let mut env = base.env.clone();
    if !env.iter().any(|pair| pair.starts_with("PATH=")) {
        env.push(PATH.to_owned());
    }
    let user = if base.user.is_empty() { NOBODY } else { &base.user };
    let config = json!({
        "created": "1970-01-01T00:00:00Z",
        "architecture": base.architecture.as_deref().unwrap_or(architecture()),
        "os": "linux",
        "config": { "Env": env, "User": user, "WorkingDir": APP, "Labels": { ARTIFACT: artifact } },
        "rootfs": { "type": "layers", "diff_ids": layers },
    });
    // Layers of the base are named and not there: an engine that has them does not ask for their files.
    let mut files: Vec<String> = base.layers.iter().map(|layer| format!("{}.tar", hex(layer))).collect();
    files.push("layer.tar".to_owned());
    let manifest = json!([{ "Config": "config.json", "RepoTags": null, "Layers": files }]);
    let mut tar = tar::Builder::new(BufWriter::new(File::create(out)?));
    put(&mut tar, "config.json", &serde_json::to_vec(&config)?)?;
    put(&mut tar, "manifest.json", &serde_json::to_vec(&manifest)?)?;
    let mut header = header(EntryType::Regular, 0o644, layer.metadata()?.len());
    tar.append_data(&mut header, "layer.tar", File::open(&layer)?)?;
    tar.into_inner()?.flush()?;
    std::fs::remove_file(&layer)?;
    Ok(layers)
}

/// Gives an archive the one name under which it is to be loaded.
pub(super) fn tag(archive: &Path, name: &str) -> io::Result<PathBuf> {
    let tagged = archive.with_extension("tagged");
    let mut tar = tar::Builder::new(BufWriter::new(File::create(&tagged)?));
    let mut manifest = Value::Null;
    for entry in tar::Archive::new(BufReader::new(File::open(archive)?)).entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        match plain(&path).as_deref() {
            Some("manifest.json") => manifest = serde_json::from_reader((&mut entry).take(LARGEST))?,
            // They name the image a second time, under names that are not ours to move.
            Some("repositories" | "index.json" | "oci-layout") | None => {}
            Some(_) => {
                let mut header = entry.header().clone();
                match entry.link_name()? {
                    Some(target) => tar.append_link(&mut header, &path, target)?,
                    None => tar.append_data(&mut header, &path, &mut entry)?,
                }
            }
        }
    }
    let one = manifest.as_array_mut().and_then(|images| images.first_mut());
    let one = one.ok_or_else(|| io::Error::other("its manifest.json names no image"))?;
    one["RepoTags"] = json!([name]);
    let only = json!([one]);
    put(&mut tar, "manifest.json", &serde_json::to_vec(&only)?)?;
    tar.into_inner()?.flush()?;
    std::fs::remove_file(archive)?;
    Ok(tagged)
}

/// An artifact that is an image: the only file of the release, as `docker save` or an OCI tool wrote it.
pub(super) fn image_in(release: &Path) -> io::Result<Option<PathBuf>> {
    let mut files = walkdir::WalkDir::new(release).min_depth(1).into_iter().flatten();
    let (Some(only), None) = (files.next(), files.next()) else { return Ok(None) };
    if !only.file_type().is_file() {
        return Ok(None);
    }
    let names = |entries: tar::Entries<'_, BufReader<File>>| {
        let mut found = false;
        for entry in entries {
            let Ok(entry) = entry else { return false };
            let Ok(path) = entry.path() else { return false };
            found |= matches!(plain(&path).as_deref(), Some("manifest.json" | "oci-layout"));
        }
        found
    };
    let mut archive = tar::Archive::new(BufReader::new(File::open(only.path())?));
    Ok(archive.entries().is_ok_and(names).then(|| only.into_path()))
}

/// Copies an image archive in the form that every engine loads, and returns the digests of its layers, lowest first.
pub(super) fn pass_on(image: &Path, out: &Path) -> io::Result<Vec<String>> {
    let read = |name: &str| -> io::Result<Option<Value>> {
        for entry in tar::Archive::new(BufReader::new(File::open(image)?)).entries()? {
            let entry = entry?;
            if plain(&entry.path()?).as_deref() == Some(name) {
                return Ok(Some(serde_json::from_reader(entry.take(LARGEST))?));
            }
        }
        Ok(None)
    };
    let missing = |what: &str| io::Error::other(format!("it holds no {what}"));
    std::fs::copy(image, out)?;
    let manifest = match read("manifest.json")? {
        Some(manifest) => manifest,
        None => {
            let index = read("index.json")?.ok_or_else(|| missing("index.json"))?;
            let manifest = of_this_machine(&index)?;
            let manifest = read(&blob(&manifest)?)?.ok_or_else(|| missing("manifest"))?;
            let layers = manifest["layers"].as_array().ok_or_else(|| missing("layers"))?;
            let layers: Vec<String> =
                layers.iter().map(|layer| blob(&layer["digest"])).collect::<io::Result<_>>()?;
            let manifest = json!([{ "Config": blob(&manifest["config"]["digest"])?, "RepoTags": null, "Layers": layers }]);
            append(out, "manifest.json", &serde_json::to_vec(&manifest)?)?;
            manifest
        }
    };
    if manifest.as_array().is_none_or(|images| images.len() != 1) {
        return Err(io::Error::other("it holds several images, and which one is meant is not said"));
    }
    let config = manifest[0]["Config"].as_str().ok_or_else(|| missing("configuration"))?.to_owned();
    let config = read(&config)?.ok_or_else(|| missing("configuration"))?;
    let layers = config["rootfs"]["diff_ids"].as_array().ok_or_else(|| missing("layers"))?;
    Ok(layers.iter().filter_map(|layer| Some(layer.as_str()?.to_owned())).collect())
}

/// The manifest for this machine in an OCI index, or the only one.
fn of_this_machine(index: &Value) -> io::Result<Value> {
    let all = index["manifests"].as_array().cloned().unwrap_or_default();
    let fits = |one: &&Value| one["platform"]["architecture"].as_str() == Some(architecture());
    let found = all.iter().find(fits).or(all.first()).map(|one| one["digest"].clone());
    found.ok_or_else(|| io::Error::other("its index names no image"))
}

fn blob(digest: &Value) -> io::Result<String> {
    let hex = digest.as_str().and_then(|digest| digest.strip_prefix("sha256:")).unwrap_or_default();
    if hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(format!("blobs/sha256/{hex}"));
    }
    Err(io::Error::other("it names something by no SHA-256"))
}

/// Adds a file to an archive: written anew, since archives end with a mark.
fn append(archive: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let more = archive.with_extension("more");
    let mut tar = tar::Builder::new(BufWriter::new(File::create(&more)?));
    put(&mut tar, name, bytes)?;
    for entry in tar::Archive::new(BufReader::new(File::open(archive)?)).entries()? {
        let mut entry = entry?;
        let (mut header, path) = (entry.header().clone(), entry.path()?.into_owned());
        match entry.link_name()?.map(std::borrow::Cow::into_owned) {
            Some(target) => tar.append_link(&mut header, &path, target)?,
            None => tar.append_data(&mut header, &path, &mut entry)?,
        }
    }
    tar.into_inner()?.flush()?;
    std::fs::rename(more, archive)
}

fn write_layer(release: &Path, writes: &[String], out: &Path) -> io::Result<String> {
    let app = Path::new(APP.trim_start_matches('/'));
    let file = Hashed { inner: BufWriter::new(File::create(out)?), sum: sha2::Sha256::new() };
    let mut tar = tar::Builder::new(file);
    tar.append_data(&mut header(EntryType::Directory, 0o755, 0), app, io::empty())?;
    let writable = |name: &Path| writes.iter().any(|path| name.starts_with(clean(path)));
    let mut made = std::collections::BTreeSet::new();
    for entry in walkdir::WalkDir::new(release).min_depth(1).sort_by_file_name() {
        let entry = entry.map_err(io::Error::other)?;
        let name = entry.path().strip_prefix(release).map_err(io::Error::other)?;
        let all = if writable(name) { 0o222 } else { 0 };
        let meta = entry.path().symlink_metadata()?;
        if meta.is_symlink() {
            let target = std::fs::read_link(entry.path())?;
            tar.append_link(&mut header(EntryType::Symlink, 0o777, 0), app.join(name), target)?;
        } else if meta.is_dir() {
            made.insert(name.to_owned());
            let mut header = header(EntryType::Directory, 0o755 | all, 0);
            tar.append_data(&mut header, app.join(name), io::empty())?;
        } else {
            use std::os::unix::fs::PermissionsExt;
            let executable = if meta.permissions().mode() & 0o111 != 0 { 0o111 } else { 0 };
            let mut header = header(EntryType::Regular, 0o644 | executable | all, meta.len());
            tar.append_data(&mut header, app.join(name), File::open(entry.path())?)?;
        }
    }
    let mut missing: Vec<PathBuf> = writes.iter().map(|path| clean(path)).collect();
    missing.sort();
    for path in missing.into_iter().filter(|path| !made.contains(path)) {
        if release.join(&path).exists() {
            continue;
        }
        tar.append_data(&mut header(EntryType::Directory, 0o777, 0), app.join(path), io::empty())?;
    }
    let mut file = tar.into_inner()?;
    file.flush()?;
    Ok(format!("sha256:{}", hex::encode(file.sum.finalize())))
}

/// A path below the release, without the parts that mean nothing or lead out.
pub(super) fn clean(path: &str) -> PathBuf {
    let normal = |part: &std::path::Component<'_>| matches!(part, std::path::Component::Normal(_));
    Path::new(path).components().filter(normal).collect()
}

/// Files of an archive that name what it holds.
pub(super) fn names_image(path: &Path) -> bool {
    matches!(plain(path).as_deref(), Some("manifest.json" | "repositories" | "index.json" | "oci-layout"))
}

fn plain(path: &Path) -> Option<String> {
    Some(clean(path.to_str()?).to_str()?.to_owned())
}

fn hex(digest: &str) -> &str {
    digest.strip_prefix("sha256:").unwrap_or(digest)
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

pub(super) fn put(tar: &mut tar::Builder<impl Write>, name: &str, bytes: &[u8]) -> io::Result<()> {
    let mut header = header(EntryType::Regular, 0o644, bytes.len() as u64);
    tar.append_data(&mut header, name, Cursor::new(bytes))
}

/// As images call it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

struct Hashed<W> {
    inner: W,
    sum: sha2::Sha256,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.sum.update(&bytes[..written]);
        Ok(written)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn release() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("lib")).unwrap();
        fs::write(dir.path().join("lib/b"), "b").unwrap();
        fs::write(dir.path().join("serve"), "#!").unwrap();
        fs::set_permissions(dir.path().join("serve"), fs::Permissions::from_mode(0o700)).unwrap();
        dir
    }

    fn bytes(release: &Path, writes: &[&str]) -> (Vec<u8>, Vec<String>) {
        let room = tempfile::tempdir().unwrap();
        let out = room.path().join("image");
        let writes: Vec<String> = writes.iter().map(|path| (*path).to_owned()).collect();
        let layers = write(release, &Base::default(), "sha256:ab", &writes, &out).unwrap();
        (fs::read(out).unwrap(), layers)
    }

    #[test]
    fn the_same_files_make_the_same_image_whoever_wrote_them_and_when() {
        let (one, other) = (release(), release());
        let later = fs::File::options().write(true).open(other.path().join("lib/b")).unwrap();
        later.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(9)).unwrap();
        assert_eq!(bytes(one.path(), &["data"]), bytes(other.path(), &["data"]));
        fs::write(other.path().join("lib/b"), "c").unwrap();
        assert_ne!(bytes(one.path(), &[]).1, bytes(other.path(), &[]).1);
    }

    #[test]
    fn what_may_be_written_is_open_to_whoever_runs_it_and_nothing_else_is() {
        let dir = release();
        let room = tempfile::tempdir().unwrap();
        let layer = room.path().join("layer");
        write_layer(dir.path(), &["lib/".into(), "./data".into(), "../out".into()], &layer).unwrap();
        let mut archive = tar::Archive::new(File::open(&layer).unwrap());
        let found: Vec<(String, u32)> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                (entry.path().unwrap().display().to_string(), entry.header().mode().unwrap())
            })
            .collect();
        let said = |name: &str, mode| (name.to_owned(), mode);
        let want = [
            said("app", 0o755),
            said("app/lib", 0o777),
            said("app/lib/b", 0o666),
            said("app/serve", 0o755),
            said("app/data", 0o777),
            said("app/out", 0o777),
        ];
        assert_eq!(found, want);
    }

    #[test]
    fn an_image_is_known_as_one_and_passed_on_with_our_name_alone() {
        let room = tempfile::tempdir().unwrap();
        let (image, _) = bytes(release().path(), &[]);
        let artifact = room.path().join("artifact");
        fs::create_dir(&artifact).unwrap();
        fs::write(artifact.join("image.tar"), image).unwrap();
        let found = image_in(&artifact).unwrap().unwrap();
        let out = room.path().join("out");
        let layers = pass_on(&found, &out).unwrap();
        assert_eq!(layers.len(), 1);
        let tagged = tag(&out, "andon/x:1").unwrap();
        let mut names = Vec::new();
        for entry in tar::Archive::new(File::open(tagged).unwrap()).entries().unwrap() {
            let entry = entry.unwrap();
            let name = entry.path().unwrap().display().to_string();
            if name == "manifest.json" {
                let manifest: Value = serde_json::from_reader(entry).unwrap();
                assert_eq!(manifest[0]["RepoTags"], json!(["andon/x:1"]));
            }
            names.push(name);
        }
        names.sort();
        assert_eq!(names, ["config.json", "layer.tar", "manifest.json"]);
        // A program alone is none, nor is a folder.
        fs::write(artifact.join("image.tar"), "#!/bin/sh\n").unwrap();
        assert_eq!(image_in(&artifact).unwrap(), None);
        assert_eq!(image_in(release().path()).unwrap(), None);
    }

    #[test]
    fn a_layout_of_the_open_container_initiative_is_an_image_too() {
        let room = tempfile::tempdir().unwrap();
        let digest = |byte: &str| format!("sha256:{}", byte.repeat(32));
        let layout = room.path().join("layout.tar");
        let mut tar = tar::Builder::new(File::create(&layout).unwrap());
        let manifests = json!([{ "digest": digest("0a") }]);
        let manifest =
            json!({ "config": { "digest": digest("0b") }, "layers": [{ "digest": digest("0c") }] });
        let config = json!({ "rootfs": { "diff_ids": [digest("0d")] } });
        for (name, value) in [
            ("oci-layout".to_owned(), json!({})),
            ("index.json".to_owned(), json!({ "manifests": manifests })),
            (format!("blobs/sha256/{}", "0a".repeat(32)), manifest),
            (format!("blobs/sha256/{}", "0b".repeat(32)), config),
        ] {
            put(&mut tar, &name, value.to_string().as_bytes()).unwrap();
        }
        tar.into_inner().unwrap();
        let out = room.path().join("out");
        assert_eq!(pass_on(&layout, &out).unwrap(), [digest("0d")]);
        tag(&out, "andon/x:1").unwrap();
    }
}
