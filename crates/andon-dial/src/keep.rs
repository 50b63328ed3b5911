//! The directory of a machine that joined: one agent at a time has it, and what it remembers is readable by its owner alone.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// An agent's directory.
#[derive(Debug)]
pub struct Room {
    /// Where it lies.
    pub dir: PathBuf,
    _lock: File,
}

impl Room {
    /// Makes it where it is missing.
    pub fn open(dir: &Path) -> Result<Room, String> {
        use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
        let words = |error: std::io::Error| format!("{}: {error}", dir.display());
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(words)?;
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).map_err(words)?;
        let dir = dir.canonicalize().map_err(words)?;
        let lock = File::options().create(true).truncate(false).write(true).open(dir.join("lock"));
        let lock = lock.map_err(words)?;
        // A process that a killed agent was just starting holds its lock until it executes: for so long it is tried again.
        let begun = std::time::Instant::now();
        while flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            if begun.elapsed().as_secs() >= 1 {
                return Err(format!(
                    "another agent uses {}\nhint: stop it, or give this one another --data",
                    dir.display()
                ));
            }
            std::thread::park_timeout(std::time::Duration::from_millis(5));
        }
        Ok(Room { dir, _lock: lock })
    }

    /// What is remembered under this name, if anything is.
    pub fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, String> {
        let file = self.dir.join(name);
        read(&file).map_err(|error| format!("{}: {error}", file.display()))
    }

    /// Remembers it.
    pub fn keep<T: Serialize>(&self, name: &str, kept: &T) -> Result<(), String> {
        let file = self.dir.join(name);
        write(&file, kept).map_err(|error| format!("{}: {error}", file.display()))
    }

    /// Remembers nothing under this name any more.
    pub fn forget(&self, name: &str) -> Result<(), String> {
        let file = self.dir.join(name);
        match fs::remove_file(&file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(format!("{}: {error}", file.display()))
            }
            _ => Ok(()),
        }
    }
}

/// What a file keeps; none: it is not there.
pub(crate) fn read<T: DeserializeOwned>(file: &Path) -> io::Result<Option<T>> {
    match fs::read(file) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Wholly or not at all, also if the power goes out, and only for its owner. There is one writer.
pub(crate) fn write(file: &Path, kept: &impl Serialize) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let beside = file.with_extension("new");
    let mut options = File::options();
    let mut made = options.write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    made.write_all(&serde_json::to_vec(kept)?)?;
    made.sync_all()?;
    fs::rename(&beside, file)
}
