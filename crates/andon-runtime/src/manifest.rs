//! What a release directory holds, and how it differs from what was unpacked. Looking again costs one `stat` a file.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::Digest as _;

/// A file is remembered only if its last change is older than this when it is read: a change within one tick of the
/// file system's clock would not be seen.
const SETTLED_NS: i128 = 2_000_000_000;

/// Every entry but directories, by its path from the top.
pub type Manifest = BTreeMap<String, Entry>;

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// A file.
    File {
        /// Of its bytes, in hexadecimal.
        sha256: String,
        /// Whether it may be executed.
        executable: bool,
    },
    /// A symbolic link, and where it points.
    Link(String),
    /// A socket, a pipe, a device.
    Other,
}

impl std::fmt::Display for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Entry::File { sha256, executable } => {
                let executable = if *executable { ", executable" } else { "" };
                write!(f, "sha256:{}{executable}", &sha256[..sha256.len().min(12)])
            }
            Entry::Link(target) => write!(f, "link to {target}"),
            Entry::Other => f.write_str("neither file nor link"),
        }
    }
}

/// One entry that is not as unpacked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// From the top of the release.
    pub path: String,
    /// As unpacked; `absent` if it was not.
    pub before: String,
    /// As found; `absent` if it is gone.
    pub after: String,
}

/// What a file's description must keep for its content to be believed unread.
#[derive(PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: i128,
    changed: i128,
}

/// Looks at trees, and remembers what it read.
#[derive(Default)]
pub struct Inspector {
    read: HashMap<PathBuf, (Stamp, String)>,
}

/// What is there, read in full.
pub fn tree_digest(dir: &Path) -> io::Result<Manifest> {
    Inspector::default().tree(dir)
}

impl Inspector {
    /// What differs. Byte code that Python adds beside its sources does not count.
    pub fn compare(&mut self, manifest: &Manifest, dir: &Path) -> io::Result<Vec<Difference>> {
        let found = self.tree(dir)?;
        let say = |entry: Option<&Entry>| entry.map_or("absent".to_owned(), Entry::to_string);
        let known = manifest.iter().filter(|(path, entry)| found.get(*path) != Some(entry));
        let known = known.map(|(path, entry)| (path, Some(entry), found.get(path)));
        let added = found.iter().filter(|(path, _)| !manifest.contains_key(*path) && !is_byte_code(path));
        let added = added.map(|(path, entry)| (path, None, Some(entry)));
        let mut all: Vec<Difference> = known
            .chain(added)
            .map(|(path, before, after)| Difference {
                path: path.clone(),
                before: say(before),
                after: say(after),
            })
            .collect();
        all.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(all)
    }

    /// Forgets a tree that is gone.
    pub fn forget(&mut self, dir: &Path) {
        self.read.retain(|path, _| !path.starts_with(dir));
    }

    /// What is there.
    pub fn tree(&mut self, dir: &Path) -> io::Result<Manifest> {
        let mut tree = Manifest::new();
        for found in walkdir::WalkDir::new(dir).min_depth(1) {
            let found = match found {
                Ok(found) => found,
                // Gone while we looked: the next look will not find it either.
                Err(error) if error.io_error().is_some_and(|e| e.kind() == io::ErrorKind::NotFound) => {
                    if error.depth() == 0 {
                        return Err(error.into());
                    }
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            if found.file_type().is_dir() {
                continue;
            }
            let name = found.path().strip_prefix(dir).unwrap_or(found.path()).to_string_lossy().into_owned();
            match self.entry(found.path()) {
                Ok(entry) => tree.insert(name, entry),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(error),
            };
        }
        Ok(tree)
    }

    fn entry(&mut self, path: &Path) -> io::Result<Entry> {
        let meta = path.symlink_metadata()?;
        if meta.is_symlink() {
            return Ok(Entry::Link(std::fs::read_link(path)?.to_string_lossy().into_owned()));
        }
        if !meta.is_file() {
            return Ok(Entry::Other);
        }
        let nanos = |secs: i64, nanos: i64| i128::from(secs) * 1_000_000_000 + i128::from(nanos);
        let stamp = Stamp {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified: nanos(meta.mtime(), meta.mtime_nsec()),
            changed: nanos(meta.ctime(), meta.ctime_nsec()),
        };
        let executable = meta.permissions().mode() & 0o111 != 0;
        if let Some((before, sha256)) = self.read.get(path)
            && *before == stamp
        {
            return Ok(Entry::File { sha256: sha256.clone(), executable });
        }
        let mut sum = sha2::Sha256::new();
        io::copy(&mut File::open(path)?, &mut HashWriter(&mut sum))?;
        let sha256 = hex::encode(sum.finalize());
        if wall_clock_ns() - stamp.changed > SETTLED_NS {
            self.read.insert(path.to_owned(), (stamp, sha256.clone()));
        }
        Ok(Entry::File { sha256, executable })
    }
}

/// The clock that file systems stamp with.
#[allow(
    clippy::disallowed_methods,
    reason = "compared with stamps of the file system, which uses this very clock"
)]
fn wall_clock_ns() -> i128 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i128::try_from(since.as_nanos()).unwrap_or(0)
}

struct HashWriter<'a>(&'a mut sha2::Sha256);
impl io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn is_byte_code(path: &str) -> bool {
    path.ends_with(".pyc") || path.split('/').any(|part| part == "__pycache__")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn tree() -> (tempfile::TempDir, Manifest) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("lib")).unwrap();
        fs::write(dir.path().join("lib/app.py"), "a").unwrap();
        fs::write(dir.path().join("run"), "b").unwrap();
        std::os::unix::fs::symlink("run", dir.path().join("go")).unwrap();
        let manifest = tree_digest(dir.path()).unwrap();
        (dir, manifest)
    }

    fn words(found: Vec<Difference>) -> Vec<String> {
        found.into_iter().map(|d| format!("{}: {} -> {}", d.path, d.before, d.after)).collect()
    }

    #[test]
    fn an_untouched_tree_has_no_differences() {
        let (dir, manifest) = tree();
        let mut inspector = Inspector::default();
        assert_eq!(inspector.compare(&manifest, dir.path()).unwrap(), []);
        assert_eq!(inspector.compare(&manifest, dir.path()).unwrap(), []);
    }

    #[test]
    fn every_kind_of_tampering_is_named() {
        let (dir, manifest) = tree();
        let at = |name: &str| dir.path().join(name);
        let mut inspector = Inspector::default();
        inspector.compare(&manifest, dir.path()).unwrap();
        // Same size, and the time of modification set back: the content tells.
        let old = fs::metadata(at("lib/app.py")).unwrap().modified().unwrap();
        fs::write(at("lib/app.py"), "X").unwrap();
        File::options().write(true).open(at("lib/app.py")).unwrap().set_modified(old).unwrap();
        fs::set_permissions(at("run"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::remove_file(at("go")).unwrap();
        fs::write(at("lib/new.txt"), "").unwrap();
        fs::create_dir(at("lib/__pycache__")).unwrap();
        fs::write(at("lib/__pycache__/app.pyc"), "").unwrap();
        let found = words(inspector.compare(&manifest, dir.path()).unwrap());
        assert_eq!(
            found,
            [
                "go: link to run -> absent",
                "lib/app.py: sha256:ca978112ca1b -> sha256:4b68ab3847fe",
                "lib/new.txt: absent -> sha256:e3b0c44298fc",
                "run: sha256:3e23e8160039 -> sha256:3e23e8160039, executable",
            ]
        );
    }

    #[test]
    fn python_byte_code_that_was_packed_is_watched() {
        let (dir, _) = tree();
        fs::write(dir.path().join("lib/packed.pyc"), "1").unwrap();
        let manifest = tree_digest(dir.path()).unwrap();
        fs::write(dir.path().join("lib/packed.pyc"), "2").unwrap();
        assert_eq!(Inspector::default().compare(&manifest, dir.path()).unwrap().len(), 1);
    }

    #[test]
    fn a_tree_that_is_gone_is_an_error_and_not_a_difference() {
        let (dir, manifest) = tree();
        assert!(Inspector::default().compare(&manifest, &dir.path().join("none")).is_err());
    }
}
