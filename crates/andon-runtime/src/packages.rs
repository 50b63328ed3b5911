//! Records of package managers, read as files: nothing of the image or the host is run. After `dpkg-query(1)` and the control files of
//! deb-control(5), and after <https://wiki.alpinelinux.org/wiki/Apk_spec>. RPM keeps a binary database, which is only named.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use andon_model::Packages;

/// Where records lie below the root of a file system, and which reader understands them; the first that is there counts.
pub(crate) const RECORDS: [(&str, Kind); 7] = [
    ("/var/lib/dpkg/status", Kind::Dpkg),
    // Images without a shell have one file for each package.
    ("/var/lib/dpkg/status.d", Kind::Dpkg),
    ("/lib/apk/db/installed", Kind::Apk),
    ("/usr/lib/apk/db/installed", Kind::Apk),
    ("/var/lib/rpm/rpmdb.sqlite", Kind::Rpm),
    ("/usr/lib/sysimage/rpm/rpmdb.sqlite", Kind::Rpm),
    ("/var/lib/rpm/Packages", Kind::Rpm),
];
/// The most that is read of records, in bytes, and of one of their fields, in characters.
pub(crate) const LARGEST: u64 = 32 << 20;
const FIELD: usize = 120;

/// Who wrote the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Dpkg,
    Apk,
    Rpm,
}

/// Packages of one or several records of this kind.
pub(crate) fn read(kind: Kind, records: &[String]) -> Packages {
    let mut found = Packages::default();
    match kind {
        Kind::Dpkg => {
            found.kind = "dpkg".into();
            records.iter().flat_map(|text| paragraphs(text)).for_each(|p| dpkg(&p, &mut found.versions));
        }
        Kind::Apk => {
            found.kind = "apk".into();
            records.iter().flat_map(|text| paragraphs(text)).for_each(|p| apk(&p, &mut found.versions));
        }
        Kind::Rpm => found.kind = "rpm, whose database is not read".into(),
    }
    found
}

/// Fields by name, as `Name: value`; lines that go on are left out.
fn paragraphs(text: &str) -> impl Iterator<Item = BTreeMap<&str, &str>> {
    text.split("\n\n").map(|paragraph| {
        let fields = paragraph.lines().filter(|line| !line.starts_with([' ', '\t']));
        fields.filter_map(|line| line.split_once(':')).map(|(name, value)| (name, value.trim())).collect()
    })
}

/// A word of somebody else's file, fit for a page and a line of its own.
fn word(text: &str) -> String {
    let plain = |c: &char| !c.is_control() && !c.is_whitespace();
    text.chars().filter(plain).take(FIELD).collect()
}

fn dpkg(fields: &BTreeMap<&str, &str>, into: &mut BTreeMap<String, String>) {
    let (Some(name), Some(version)) = (fields.get("Package"), fields.get("Version")) else { return };
    // Records of images without a shell have no status; removed packages leave theirs.
    if fields.get("Status").is_some_and(|status| !status.ends_with(" installed")) {
        return;
    }
    let arch = fields.get("Architecture").filter(|_| fields.get("Multi-Arch") == Some(&"same"));
    let name = arch.map_or_else(|| word(name), |arch| word(&format!("{name}:{arch}")));
    into.insert(name, word(version));
}

fn apk(fields: &BTreeMap<&str, &str>, into: &mut BTreeMap<String, String>) {
    if let (Some(name), Some(version)) = (fields.get("P"), fields.get("V")) {
        into.insert(word(name), word(version));
    }
}

/// The records below this root, if there are some.
pub(crate) fn of_root(root: &Path) -> io::Result<Packages> {
    for (path, kind) in RECORDS {
        let at = root.join(path.trim_start_matches('/'));
        let text = |path: &Path| -> io::Result<String> {
            let mut bytes = Vec::new();
            std::fs::File::open(path)?.take(LARGEST).read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        match std::fs::metadata(&at) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
            Ok(_) if kind == Kind::Rpm => return Ok(read(kind, &[])),
            Ok(meta) if meta.is_dir() => {
                let mut files: Vec<_> = std::fs::read_dir(&at)?.flatten().map(|entry| entry.path()).collect();
                files.sort();
                let records = files.iter().map(|path| text(path)).collect::<io::Result<Vec<_>>>()?;
                return Ok(read(kind, &records));
            }
            Ok(_) => return Ok(read(kind, &[text(&at)?])),
        }
    }
    Ok(Packages::default())
}

/// The packages below one root, read again only when their records were written since.
#[derive(Default)]
pub(crate) struct Known(Mutex<Option<(Stamp, Packages)>>);

/// Which records, when they were written last, and how long they are.
type Stamp = Option<(&'static str, SystemTime, u64)>;

impl Known {
    pub(crate) fn of_root(&self, root: &Path) -> io::Result<Packages> {
        let stamp = RECORDS.iter().find_map(|(path, _)| {
            let meta = std::fs::metadata(root.join(path.trim_start_matches('/'))).ok()?;
            Some((*path, meta.modified().ok()?, meta.len()))
        });
        // Held while they are read: many instances ask at the same time, and once is enough.
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, found)) = known.as_ref()
            && *at == stamp
        {
            return Ok(found.clone());
        }
        let found = of_root(root)?;
        *known = Some((stamp, found.clone()));
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(kind: Kind, text: &str) -> Vec<(String, String)> {
        read(kind, &[text.to_owned()]).versions.into_iter().collect()
    }

    fn pairs(all: &[(&str, &str)]) -> Vec<(String, String)> {
        all.iter().map(|(name, version)| ((*name).to_owned(), (*version).to_owned())).collect()
    }

    #[test]
    fn records_that_were_written_since_are_read_again() {
        let root = tempfile::tempdir().unwrap();
        let (known, dir) = (Known::default(), root.path().join("var/lib/dpkg"));
        assert_eq!(known.of_root(root.path()).unwrap(), Packages::default());
        std::fs::create_dir_all(&dir).unwrap();
        for (text, many) in [
            ("", 0),
            ("Package: a\nVersion: 1\n", 1),
            ("Package: a\nVersion: 1\n\nPackage: b\nVersion: 2\n", 2),
        ] {
            std::fs::write(dir.join("status"), text).unwrap();
            assert_eq!(known.of_root(root.path()).unwrap().versions.len(), many);
            assert_eq!(known.of_root(root.path()).unwrap().versions.len(), many);
        }
    }

    #[test]
    fn what_dpkg_has_installed_is_read_and_what_it_removed_is_not() {
        let text = "Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nMulti-Arch: same\nVersion: 2.36-9+deb12u4\nDescription: GNU C\n Version: 9\n\n\
                    Package: old\nStatus: deinstall ok config-files\nVersion: 1\n\n\
                    Package: tzdata\nStatus: install ok installed\nArchitecture: all\nMulti-Arch: foreign\nVersion: 2024a\n";
        assert_eq!(found(Kind::Dpkg, text), pairs(&[("libc6:amd64", "2.36-9+deb12u4"), ("tzdata", "2024a")]));
        let without = "Package: base-files\nVersion: 12.4\nArchitecture: amd64\n";
        assert_eq!(found(Kind::Dpkg, without), pairs(&[("base-files", "12.4")]));
    }

    #[test]
    fn what_apk_has_installed_is_read() {
        let text = "C:Q1abc\nP:musl\nV:1.2.4-r2\nA:x86_64\nT:the C library\n\nP:busybox\nV:1.36.1-r5\n";
        assert_eq!(found(Kind::Apk, text), pairs(&[("busybox", "1.36.1-r5"), ("musl", "1.2.4-r2")]));
    }

    #[test]
    fn records_of_strangers_make_whole_words() {
        let text = format!("Package: a\u{1b}[31m b\nVersion: {}\n\nVersion: 2\n\n:::\n", "9".repeat(1000));
        let all = found(Kind::Dpkg, &text);
        assert_eq!(all.len(), 1);
        assert_eq!((all[0].0.as_str(), all[0].1.len()), ("a[31mb", FIELD));
    }

    #[test]
    fn a_root_has_the_packages_of_the_records_that_lie_in_it() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(of_root(dir.path()).unwrap(), Packages::default());
        let status = dir.path().join("var/lib/dpkg/status.d");
        std::fs::create_dir_all(&status).unwrap();
        for name in ["base", "tzdata"] {
            std::fs::write(status.join(name), format!("Package: {name}\nVersion: 1\n")).unwrap();
        }
        let found = of_root(dir.path()).unwrap();
        assert_eq!((found.kind.as_str(), found.versions.len()), ("dpkg", 2));
        let rpm = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(rpm.path().join("var/lib/rpm")).unwrap();
        std::fs::write(rpm.path().join("var/lib/rpm/rpmdb.sqlite"), "x").unwrap();
        assert!(of_root(rpm.path()).unwrap().kind.contains("not read"));
    }
}
