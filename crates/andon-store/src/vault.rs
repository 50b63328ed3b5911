//! What is kept in confidence: sealed with a key of this data directory, which is made once. Knows no meaning of what it seals.
//!
//! The key is an age identity (X25519), readable by the server's account alone. Whoever has the data directory without the key has nothing;
//! `age --decrypt -i DATA/key` opens a sealed blob without Andon. Secrets that can be computed again ([`Vault::derive`]) need no place.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use age::secrecy::ExposeSecret;
use age::x25519::Identity;
use sha2::{Digest as _, Sha256};

/// Seals and opens.
#[derive(Clone)]
pub struct Vault {
    identity: Identity,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Vault")
    }
}

fn unreadable(file: &Path, why: &str) -> io::Error {
    let words = format!(
        "{}: {why}\nhint: bring it back from a backup; what was sealed with it cannot be read without",
        file.display()
    );
    io::Error::new(io::ErrorKind::InvalidData, words)
}

impl Vault {
    /// Opens the key in this file; makes one where there is none. A key that cannot be read is an error: a new one would open nothing.
    pub fn open(file: &Path) -> io::Result<Vault> {
        match fs::read_to_string(file) {
            Ok(text) => {
                let line = text.lines().find(|line| !line.starts_with('#')).unwrap_or_default();
                let identity = line.trim().parse().map_err(|why| unreadable(file, why))?;
                Ok(Vault { identity })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vault::make(file),
            Err(error) => Err(error),
        }
    }

    /// Written beside its place, flushed, then renamed: half a key never exists.
    fn make(file: &Path) -> io::Result<Vault> {
        let identity = Identity::generate();
        let beside = file.with_extension("new");
        let mut out = File::options().create(true).truncate(true).write(true).mode(0o600).open(&beside)?;
        writeln!(out, "# The key of this data directory: keep a copy apart from its backups.")?;
        writeln!(out, "{}", identity.to_string().expose_secret())?;
        out.sync_all()?;
        fs::rename(&beside, file)?;
        if let Some(folder) = file.parent() {
            File::open(folder)?.sync_all()?;
        }
        Ok(Vault { identity })
    }

    /// The bytes so that only this key opens them.
    pub fn seal(&self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let recipient = self.identity.to_public();
        let encryptor =
            age::Encryptor::with_recipients(std::iter::once(&recipient as _)).map_err(io::Error::other)?;
        let mut sealed = Vec::with_capacity(bytes.len() + 1024);
        let mut out = encryptor.wrap_output(&mut sealed)?;
        out.write_all(bytes)?;
        out.finish()?;
        Ok(sealed)
    }

    /// What was sealed. Fails when it was sealed by another key or changed since.
    pub fn open_sealed(&self, sealed: &[u8]) -> io::Result<Vec<u8>> {
        let wrong = |error: age::DecryptError| io::Error::new(io::ErrorKind::InvalidData, error.to_string());
        let decryptor = age::Decryptor::new(sealed).map_err(wrong)?;
        let mut reader = decryptor.decrypt(std::iter::once(&self.identity as _)).map_err(wrong)?;
        let mut bytes = Vec::with_capacity(sealed.len());
        reader.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// A secret that only this key's holder can compute, the same each time for the same label, in 64 hexadecimal digits.
    /// Hashed twice, so that none can be made from another by appending to its label.
    pub fn derive(&self, label: &str) -> String {
        let key = self.identity.to_string();
        let hash = |parts: [&[u8]; 3]| {
            let mut sum = Sha256::new();
            parts.iter().for_each(|part| sum.update(part));
            <[u8; 32]>::from(sum.finalize())
        };
        let inner = hash([b"andon inner ", key.expose_secret().as_bytes(), label.as_bytes()]);
        let outer = hash([b"andon outer ", key.expose_secret().as_bytes(), &inner]);
        outer.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_shows_nothing_and_opens_with_its_own_key_only() {
        let room = tempfile::tempdir().unwrap();
        let vault = Vault::open(&room.path().join("key")).unwrap();
        let sealed = vault.seal(b"the canary sings").unwrap();
        assert!(!sealed.windows(6).any(|window| window == b"canary"));
        let again = Vault::open(&room.path().join("key")).unwrap();
        assert_eq!(again.open_sealed(&sealed).unwrap(), b"the canary sings");
        assert_eq!(again.derive("a"), vault.derive("a"));
        let other = Vault::open(&room.path().join("other")).unwrap();
        assert!(other.open_sealed(&sealed).is_err());
        assert_ne!(other.derive("a"), vault.derive("a"));
    }

    #[test]
    fn a_byte_that_was_changed_is_noticed() {
        let room = tempfile::tempdir().unwrap();
        let vault = Vault::open(&room.path().join("key")).unwrap();
        let mut sealed = vault.seal(b"state").unwrap();
        *sealed.last_mut().unwrap() ^= 1;
        assert!(vault.open_sealed(&sealed).is_err());
    }

    #[test]
    fn the_key_belongs_to_the_server_alone_and_is_never_replaced() {
        use std::os::unix::fs::PermissionsExt;
        let room = tempfile::tempdir().unwrap();
        let file = room.path().join("key");
        Vault::open(&file).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&file, "damaged").unwrap();
        let error = Vault::open(&file).unwrap_err().to_string();
        assert!(error.contains("hint: ") && !error.contains("damaged"), "{error}");
    }
}
