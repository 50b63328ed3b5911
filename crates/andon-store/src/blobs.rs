//! Bulk by content: logs, artifacts, reports, each a file named by the digest of its bytes. Knows no meaning of what it keeps.
//!
//! A blob is written beside its place, flushed, then renamed: a reader sees all of it or nothing, also after a crash.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use andon_model::Digest;
use sha2::Digest as _;

/// Bytes copied at once.
const CHUNK: usize = 128 * 1024;

/// A folder of blobs. All methods block: call them from a blocking task when the blob may be large.
#[derive(Debug, Clone)]
pub struct Blobs {
    root: PathBuf,
}

impl Blobs {
    /// Opens or creates the folder.
    pub fn open(root: &Path) -> io::Result<Blobs> {
        std::fs::create_dir_all(root)?;
        Ok(Blobs { root: root.to_owned() })
    }

    /// Where a blob lies, whether it is there or not.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        let (folder, name) = digest.hex().split_at(2);
        self.root.join(folder).join(name)
    }

    /// Keeps everything that the reader gives; returns its digest and length. Memory use does not depend on the length.
    pub fn put(&self, mut bytes: impl Read) -> io::Result<(Digest, u64)> {
        let mut file = tempfile::NamedTempFile::new_in(&self.root)?;
        let mut sum = sha2::Sha256::new();
        let mut length = 0;
        let mut chunk = vec![0; CHUNK];
        loop {
            let read = match bytes.read(&mut chunk) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            sum.update(&chunk[..read]);
            file.write_all(&chunk[..read])?;
            length += read as u64;
        }
        let digest = Digest::from_sha256(sum.finalize().into());
        let place = self.path(&digest);
        if !place.exists() {
            let folder = place.parent().unwrap_or(&self.root);
            std::fs::create_dir_all(folder)?;
            file.as_file().sync_all()?;
            file.persist(&place).map_err(|error| error.error)?;
            // Its name too must outlive the power: an event that speaks of it may be recorded next.
            File::open(folder)?.sync_all()?;
            File::open(&self.root)?.sync_all()?;
        }
        Ok((digest, length))
    }

    /// Opens a blob.
    pub fn get(&self, digest: &Digest) -> io::Result<File> {
        File::open(self.path(digest))
    }

    /// A whole blob, if it is not larger than `most` bytes.
    pub fn read(&self, digest: &Digest, most: u64) -> io::Result<Vec<u8>> {
        let file = self.get(digest)?;
        if file.metadata()?.len() > most {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {most} bytes")));
        }
        let mut bytes = Vec::new();
        file.take(most).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_is_named_by_its_content_and_kept_once() {
        let room = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(room.path()).unwrap();
        let (first, length) = blobs.put(&b"hello"[..]).unwrap();
        let (second, _) = blobs.put(&b"hello"[..]).unwrap();
        assert_eq!((first.clone(), length), (second, 5));
        assert_eq!(first, Digest::of(b"hello"));
        assert_eq!(blobs.read(&first, 5).unwrap(), b"hello");
        assert!(blobs.read(&first, 4).is_err());
    }
}
