//! What an agent remembers in its directory: its server, its name, its secret. Readable by its owner alone.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use andon_model::HostName;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::spec;

const FILE: &str = "host.json";

/// The file.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Kept {
    /// Where agents come in: host and port.
    pub server: String,
    /// Of its certificate.
    pub fingerprint: String,
    /// What this host is called.
    pub name: HostName,
    /// Where its instances listen.
    pub address: IpAddr,
    /// What its owner says of it.
    pub labels: BTreeMap<String, String>,
    /// By which it is known.
    pub secret: String,
    /// The token it comes with, until it was let in.
    pub token: Option<String>,
}

/// An agent's directory. One agent at a time has it.
pub(super) struct Room {
    pub dir: PathBuf,
    _lock: File,
}

impl Room {
    /// Makes it where it is missing.
    pub fn open(dir: &Path) -> Result<Room, String> {
        use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
        let words = |error: std::io::Error| format!("{}: {error}", dir.display());
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(words)?;
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700)).map_err(words)?;
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

    /// What is remembered, if anything is.
    pub fn read(&self) -> Result<Option<Kept>, String> {
        let file = self.dir.join(FILE);
        spec::read(&file).map_err(|error| format!("{}: {error}", file.display()))
    }

    /// Remembers it.
    pub fn keep(&self, kept: &Kept) -> Result<(), String> {
        let file = self.dir.join(FILE);
        spec::write(&file, kept).map_err(|error| format!("{}: {error}", file.display()))
    }

    /// Remembers nothing any more.
    pub fn forget(&self) -> Result<(), String> {
        let file = self.dir.join(FILE);
        match std::fs::remove_file(&file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(format!("{}: {error}", file.display()))
            }
            _ => Ok(()),
        }
    }
}
