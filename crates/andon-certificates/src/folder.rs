//! A folder of certificates: `HOST.crt` with all that leads to its authority and `HOST.key`, as PEM; `_.example.com` stands for `*.example.com`. Orders none.

use std::collections::HashMap;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use x509_parser::pem::parse_x509_pem;

use crate::Seconds;

/// A certificate and its key, both as PEM.
#[derive(Clone)]
pub struct Pair {
    /// The certificate first.
    pub chain: String,
    /// Its key.
    pub key: String,
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pair").field("ends", &self.span()).finish_non_exhaustive()
    }
}

impl Pair {
    /// From when to when it is valid; none where it cannot be read.
    pub fn span(&self) -> Option<(Seconds, Seconds)> {
        let (_, pem) = parse_x509_pem(self.chain.as_bytes()).ok()?;
        let certificate = pem.parse_x509().ok()?;
        let validity = certificate.validity();
        Some((validity.not_before.timestamp(), validity.not_after.timestamp()))
    }
}

/// Where certificates lie.
#[derive(Debug, Clone)]
pub struct Folder(PathBuf);

impl Folder {
    /// Makes it where it is missing; nobody else may look into it.
    pub fn open(path: &Path) -> io::Result<Folder> {
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        Ok(Folder(path.to_owned()))
    }

    /// All whole pairs in it, by host.
    pub fn read(&self) -> io::Result<HashMap<String, Pair>> {
        let mut pairs = HashMap::new();
        for entry in std::fs::read_dir(&self.0)? {
            let path = entry?.path();
            let (Some(stem), Some("crt")) = (
                path.file_stem().and_then(|stem| stem.to_str()),
                path.extension().and_then(|end| end.to_str()),
            ) else {
                continue;
            };
            let key = path.with_file_name(format!("{stem}.key"));
            let (Ok(chain), Ok(key)) = (std::fs::read_to_string(&path), std::fs::read_to_string(&key)) else {
                continue;
            };
            let host = stem.strip_prefix("_.").map_or_else(|| stem.to_owned(), |rest| format!("*.{rest}"));
            pairs.insert(host, Pair { chain, key });
        }
        Ok(pairs)
    }

    /// Keeps a pair: the key first, each whole or not at all. The name is checked by who orders: [`crate::can_be_ordered`].
    pub fn keep(&self, host: &str, pair: &Pair) -> io::Result<()> {
        self.write(&format!("{host}.key"), pair.key.as_bytes())?;
        self.write(&format!("{host}.crt"), pair.chain.as_bytes())
    }

    pub(crate) fn account(&self) -> PathBuf {
        self.0.join("account.json")
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let (path, beside) = (self.0.join(name), self.0.join(format!(".{name}.new")));
        let mut file =
            std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&beside, &path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(host: &str) -> Pair {
        let made = rcgen::generate_simple_self_signed([host.to_owned()]).unwrap();
        Pair { chain: made.cert.pem(), key: made.signing_key.serialize_pem() }
    }

    #[test]
    fn what_is_kept_is_read_again_and_nobody_else_may_read_it() {
        use std::os::unix::fs::PermissionsExt;
        let room = tempfile::tempdir().unwrap();
        let folder = Folder::open(&room.path().join("certificates")).unwrap();
        folder.keep("shop.example", &pair("shop.example")).unwrap();
        folder.keep("_.shop.example", &pair("*.shop.example")).unwrap();
        folder.write("lonely.crt", b"no key beside it").unwrap();
        let read = folder.read().unwrap();
        let mut hosts: Vec<_> = read.keys().map(String::as_str).collect();
        hosts.sort_unstable();
        assert_eq!(hosts, ["*.shop.example", "shop.example"]);
        let (begins, ends) = read["shop.example"].span().unwrap();
        assert!(begins < ends);
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder.0), mode(&folder.0.join("shop.example.key"))), (0o700, 0o600));
        assert!(!format!("{read:?}").contains("PRIVATE"));
    }
}
