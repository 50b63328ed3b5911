//! Unpacking an artifact without believing it: nothing is written outside, nothing points outside, nothing is endless.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use tar::{Archive, EntryType};

use crate::error::RuntimeError;

/// The most entries and bytes of an artifact.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Files, folders and links.
    pub entries: usize,
    /// Unpacked.
    pub bytes: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { entries: 200_000, bytes: 8 * 1024 * 1024 * 1024 }
    }
}

fn refuse<T>(path: &Path, why: impl Into<String>, hint: &'static str) -> Result<T, RuntimeError> {
    Err(RuntimeError::Artifact { path: path.display().to_string(), why: why.into(), hint })
}

fn broken(error: io::Error) -> RuntimeError {
    RuntimeError::Artifact {
        path: "the archive".into(),
        why: format!("is not a readable tar: {error}"),
        hint: "build the artifact again",
    }
}

/// Unpacks a tar into an empty directory. After an error the directory holds rubbish: remove it.
pub fn unpack(artifact: impl Read, into: &Path, limits: Limits) -> Result<(), RuntimeError> {
    let mut archive = Archive::new(artifact);
    let (mut count, mut bytes, mut links) = (0, 0, Vec::new());
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let name = entry.path().map_err(broken)?.into_owned();
        count += 1;
        if count > limits.entries {
            let why = format!("is one more than the {} entries allowed", limits.entries);
            return refuse(&name, why, "pack only what the service needs to run");
        }
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::XGlobalHeader) {
            continue;
        }
        let place = place(&name, into)?;
        let Some(place) = place else { continue };
        parents(&place, into, &name)?;
        match kind {
            EntryType::Directory => match fs::create_dir(&place) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && is_dir(&place) => {}
                made => made.map_err(RuntimeError::disk("create", &place))?,
            },
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let executable = entry.header().mode().map_err(broken)? & 0o111 != 0;
                let left = limits.bytes.saturating_sub(bytes);
                bytes += write(&mut entry, &place, executable, left, &name)?;
            }
            EntryType::Symlink => {
                let target = entry.link_name().map_err(broken)?.unwrap_or_default().into_owned();
                clear(&place)?;
                symlink(&target, &place).map_err(RuntimeError::disk("create", &place))?;
                links.push((name, place, target));
            }
            EntryType::Link => {
                let target = entry.link_name().map_err(broken)?.unwrap_or_default().into_owned();
                hard_link(&target, &place, into, &name)?;
            }
            kind => {
                let why = format!("is neither file, directory nor link ({kind:?})");
                return refuse(&name, why, "leave devices, sockets and pipes out of the artifact");
            }
        }
    }
    links.iter().try_for_each(|(name, place, target)| stays_inside(name, place, target, into))
}

/// Where an entry goes; none for the top itself.
fn place(name: &Path, into: &Path) -> Result<Option<PathBuf>, RuntimeError> {
    let mut place = into.to_owned();
    for part in name.components() {
        match part {
            Component::Normal(part) => place.push(part),
            Component::CurDir => {}
            _ => {
                return refuse(
                    name,
                    "leads out of the release",
                    "pack with paths relative to the top, without `..`",
                );
            }
        }
    }
    Ok((place != into).then_some(place))
}

fn is_dir(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|meta| meta.is_dir())
}

/// Makes the directories above a place. A link among them would let the entry be written anywhere.
fn parents(place: &Path, into: &Path, name: &Path) -> Result<(), RuntimeError> {
    let Some(above) = place.parent().and_then(|parent| parent.strip_prefix(into).ok()) else { return Ok(()) };
    let mut at = into.to_owned();
    for part in above {
        at.push(part);
        match fs::create_dir(&at) {
            Ok(()) => {}
            Err(_) if is_dir(&at) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return refuse(
                    name,
                    "lies below a link or a file",
                    "pack the files where they are, not through links",
                );
            }
            Err(error) => return Err(RuntimeError::disk("create", &at)(error)),
        }
    }
    Ok(())
}

/// A later entry of the same name wins, as tar has it.
fn clear(place: &Path) -> Result<(), RuntimeError> {
    match fs::remove_file(place) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(RuntimeError::disk("replace", place)(error))
        }
        _ => Ok(()),
    }
}

fn write(
    entry: &mut impl Read,
    place: &Path,
    executable: bool,
    left: u64,
    name: &Path,
) -> Result<u64, RuntimeError> {
    clear(place)?;
    let mode = if executable { 0o755 } else { 0o644 };
    let file: File = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(place)
        .map_err(RuntimeError::disk("create", place))?;
    let mut file = io::BufWriter::with_capacity(256 * 1024, file);
    let wrote = io::copy(&mut entry.take(left.saturating_add(1)), &mut file)
        .and_then(|wrote| io::Write::flush(&mut file).map(|()| wrote))
        .map_err(RuntimeError::disk("write", place))?;
    if wrote > left {
        return refuse(
            name,
            "makes the artifact larger than allowed",
            "pack only what the service needs to run",
        );
    }
    Ok(wrote)
}

/// A second name for a file of the same artifact.
fn hard_link(target: &Path, place: &Path, into: &Path, name: &Path) -> Result<(), RuntimeError> {
    let hint = "pack only links to files of the artifact";
    let Some(file) = self::place(target, into)? else {
        return refuse(name, "is a link to a directory", hint);
    };
    // The target's parents were made by this archive; still, none of them may have become a link.
    parents(&file, into, name)?;
    if !file.symlink_metadata().is_ok_and(|meta| meta.is_file()) {
        return refuse(name, format!("is a link to {target:?}, which is no file of the artifact"), hint);
    }
    if file == place {
        return Ok(());
    }
    clear(place)?;
    fs::hard_link(&file, place).map_err(RuntimeError::disk("create", place))
}

/// Asked of the finished tree, since only there links lead where they will lead.
fn stays_inside(name: &Path, place: &Path, target: &Path, into: &Path) -> Result<(), RuntimeError> {
    let hint = "pack the file itself, or link to a file of the artifact by a relative path";
    if place.symlink_metadata().is_ok_and(|meta| !meta.is_symlink()) {
        return Ok(()); // replaced by a later entry
    }
    let into = into.canonicalize().map_err(RuntimeError::disk("read", into))?;
    match place.canonicalize() {
        _ if target.is_absolute() => refuse(name, format!("links to {target:?}, an absolute path"), hint),
        Ok(real) if real.starts_with(&into) => Ok(()),
        Ok(_) => refuse(name, format!("links to {target:?}, outside of the release"), hint),
        Err(error) => refuse(name, format!("links to {target:?}, which leads nowhere: {error}"), hint),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tar::{Builder, Header};

    struct Tar(Builder<Vec<u8>>);
    impl Tar {
        fn new() -> Tar {
            Tar(Builder::new(Vec::new()))
        }
        /// Written raw, since the builder would refuse what a hostile archive holds.
        fn entry(mut self, kind: EntryType, name: &str, link: &str, body: &[u8]) -> Tar {
            let mut header = Header::new_ustar();
            header.set_entry_type(kind);
            header.set_size(body.len() as u64);
            header.set_mode(0o4755);
            header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
            header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
            header.set_cksum();
            self.0.append(&header, body).unwrap();
            self
        }
        fn file(self, name: &str, body: &str) -> Tar {
            self.entry(EntryType::Regular, name, "", body.as_bytes())
        }
        fn link(self, name: &str, target: &str) -> Tar {
            self.entry(EntryType::Symlink, name, target, b"")
        }
        fn unpack(self, limits: Limits) -> (tempfile::TempDir, Result<(), String>) {
            let dir = tempfile::tempdir().unwrap();
            let into = dir.path().join("release");
            fs::create_dir(&into).unwrap();
            let bytes = self.0.into_inner().unwrap();
            let done = unpack(&bytes[..], &into, limits).map_err(|error| error.to_string());
            (dir, done)
        }
        fn refused(self, because: &str) {
            let (dir, done) = self.unpack(Limits::default());
            let why = done.unwrap_err();
            assert!(why.contains(because) && why.contains("hint: "), "{why}");
            let outside: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
            assert_eq!(outside, ["release"], "something was written outside");
        }
    }

    #[test]
    fn an_honest_artifact_is_unpacked_with_its_links_and_exec_bits() {
        let tar = Tar::new()
            .entry(EntryType::Directory, "./", "", b"")
            .file("./bin/serve", "#!/bin/sh\n")
            .link("./current", "bin/serve")
            .entry(EntryType::Link, "./copy", "./bin/serve", b"")
            .file("./bin/serve2", "old")
            .file("./bin/serve2", "new");
        let (dir, done) = tar.unpack(Limits::default());
        done.unwrap();
        let read = |name: &str| fs::read_to_string(dir.path().join("release").join(name)).unwrap();
        assert_eq!(
            (read("current"), read("copy"), read("bin/serve2")),
            (read("bin/serve"), read("bin/serve"), "new".into())
        );
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(dir.path().join("release/bin/serve")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777 & !0o022, 0o755, "executable, and no set-user-id");
    }

    #[test]
    fn nothing_is_written_outside() {
        Tar::new().file("../evil", "x").refused("leads out");
        Tar::new().file("a/../../evil", "x").refused("leads out");
        Tar::new().file("/tmp/evil", "x").refused("leads out");
        Tar::new().link("up", "..").file("up/evil", "x").refused("below a link");
        Tar::new().file("file", "x").file("file/evil", "x").refused("below a link or a file");
    }

    #[test]
    fn nothing_points_outside() {
        Tar::new().link("passwd", "/etc/passwd").refused("absolute");
        Tar::new().link("up", "../..").refused("outside");
        Tar::new().link("a/b", "../../x").refused("nowhere");
        // Each link alone looks harmless; the second leads out through the first.
        Tar::new()
            .file("p/q/r/f", "x")
            .link("p/q/r/top", "../../..")
            .link("out", "p/q/r/top/..")
            .refused("outside");
        Tar::new().link("a", "b").link("b", "a").refused("nowhere");
        Tar::new().entry(EntryType::Link, "hard", "/etc/passwd", b"").refused("leads out");
        Tar::new().link("up", "../..").entry(EntryType::Link, "hard", "up/x", b"").refused("below a link");
    }

    #[test]
    fn nothing_but_files_directories_and_links() {
        Tar::new().entry(EntryType::Char, "null", "", b"").refused("neither file");
        Tar::new().entry(EntryType::Fifo, "pipe", "", b"").refused("neither file");
    }

    #[test]
    fn nothing_is_endless() {
        let limits = Limits { entries: 2, bytes: 10 };
        let many = (0..3).fold(Tar::new(), |tar, n| tar.file(&format!("f{n}"), ""));
        assert!(many.unpack(limits).1.unwrap_err().contains("entries allowed"));
        let large = Tar::new().file("a", "123456").file("b", "123456");
        assert!(large.unpack(limits).1.unwrap_err().contains("larger than allowed"));
        let dir = tempfile::tempdir().unwrap();
        let noise = unpack(&[b'x'; 2000][..], dir.path(), limits).unwrap_err().to_string();
        assert!(noise.contains("not a readable tar"), "{noise}");
    }
}
