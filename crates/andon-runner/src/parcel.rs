//! Parts of a working copy on their way to another one: what a job hands on, what it may begin with, what it may see. Knows no job.
//!
//! A parcel is a tar of paths relative to the working copy. The same content gives the same bytes, unless times are asked for.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use walkdir::WalkDir;

/// Packs what the patterns name: files, folders with all below, or `*` and `**`. Returns the patterns that named nothing. `times` keeps
/// when files were changed, for tools that go by it.
pub fn pack(workdir: &Path, patterns: &[String], times: bool, out: impl Write) -> io::Result<Vec<String>> {
    let root = workdir.canonicalize()?;
    let (found, missing) = named(&root, patterns)?;
    let mut tar = tar::Builder::new(out);
    for path in found {
        let name = path.strip_prefix(&root).map_err(io::Error::other)?.to_owned();
        add(&mut tar, &path, &name, times)?;
    }
    tar.into_inner()?.flush()?;
    Ok(missing)
}

/// Unpacks a parcel over a working copy. Nothing of it lands outside, whatever is in it.
pub fn unpack(parcel: impl Read, workdir: &Path) -> io::Result<()> {
    let mut tar = tar::Archive::new(parcel);
    tar.set_preserve_mtime(true);
    tar.set_overwrite(true);
    for entry in tar.entries()? {
        let mut entry = entry?;
        let kind = entry.header().entry_type();
        if !(kind.is_file() || kind.is_dir() || kind.is_symlink()) {
            return Err(bad(format!("{} is neither a file, a folder nor a link", entry.path()?.display())));
        }
        if !entry.unpack_in(workdir)? {
            return Err(bad(format!("{} leads out of the working copy", entry.path()?.display())));
        }
    }
    Ok(())
}

/// Takes everything out of a working copy that no pattern names; `.git` stays.
pub fn narrow(workdir: &Path, patterns: &[String]) -> io::Result<()> {
    let keep = globs(patterns)?;
    let git = workdir.join(".git");
    // Contents first, so that what became empty can go: nothing may be skipped by the walk itself then.
    for entry in WalkDir::new(workdir).min_depth(1).contents_first(true) {
        let entry = entry.map_err(io::Error::other)?;
        if entry.path().starts_with(&git) {
            continue;
        }
        let name = entry.path().strip_prefix(workdir).map_err(io::Error::other)?;
        if entry.file_type().is_dir() {
            // Only what has become empty goes.
            let _ = std::fs::remove_dir(entry.path());
        } else if !keep.is_match(name) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Takes out of a working copy what the patterns name.
pub fn clear(workdir: &Path, patterns: &[String]) -> io::Result<()> {
    let root = workdir.canonicalize()?;
    // What is in a folder comes behind it, and so goes before it.
    for path in named(&root, patterns)?.0.into_iter().rev() {
        if path.symlink_metadata()?.is_dir() {
            // Only what has become empty goes.
            let _ = std::fs::remove_dir(&path);
        } else {
            std::fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// All paths that the patterns name, sorted, folders before what is in them; and patterns that name nothing.
fn named(root: &Path, patterns: &[String]) -> io::Result<(Vec<PathBuf>, Vec<String>)> {
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for pattern in patterns {
        let before = found.len();
        let plain = pattern.trim_start_matches("./").trim_end_matches('/');
        super::gather::inside(Path::new(plain))?;
        let glob = globs(std::slice::from_ref(pattern))?;
        let literal = !plain.contains(['*', '?', '[', '{']);
        // A name without stars is gone to straight: a large folder beside it is not walked through.
        let top = if literal { root.join(plain) } else { root.to_owned() };
        if top.symlink_metadata().is_ok() && in_root(root, &top) {
            let walk = WalkDir::new(&top).sort_by_file_name().into_iter();
            for entry in walk.filter_entry(|entry| entry.file_name() != ".git") {
                let entry = entry.map_err(io::Error::other)?;
                let name = entry.path().strip_prefix(root).map_err(io::Error::other)?;
                if !name.as_os_str().is_empty() && (literal || glob.is_match(name)) {
                    found.push(entry.into_path());
                }
            }
        }
        if found.len() == before {
            missing.push(pattern.clone());
        }
    }
    found.sort();
    found.dedup();
    Ok((found, missing))
}

/// Whether the folder that a path lies in is really below the root: no link on the way leads out.
fn in_root(root: &Path, path: &Path) -> bool {
    path == root
        || path.parent().and_then(|parent| parent.canonicalize().ok()).is_some_and(|at| at.starts_with(root))
}

fn globs(patterns: &[String]) -> io::Result<GlobSet> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        let plain = pattern.trim_start_matches("./").trim_end_matches('/');
        for glob in [plain.to_owned(), format!("{plain}/**")] {
            set.add(GlobBuilder::new(&glob).literal_separator(true).build().map_err(io::Error::other)?);
        }
    }
    set.build().map_err(io::Error::other)
}

fn add(tar: &mut tar::Builder<impl Write>, path: &Path, name: &Path, times: bool) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let meta = path.symlink_metadata()?;
    let mut header = tar::Header::new_gnu();
    let changed = meta.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    header.set_mtime(changed.filter(|_| times).map_or(0, |at| at.as_secs()));
    header.set_uid(0);
    header.set_gid(0);
    if meta.is_symlink() {
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        tar.append_link(&mut header, name, std::fs::read_link(path)?)
    } else if meta.is_dir() {
        header.set_entry_type(tar::EntryType::Directory);
        header.set_size(0);
        header.set_mode(0o755);
        tar.append_data(&mut header, name, io::empty())
    } else if meta.is_file() {
        header.set_entry_type(tar::EntryType::Regular);
        header.set_size(meta.len());
        header.set_mode(if meta.permissions().mode() & 0o111 == 0 { 0o644 } else { 0o755 });
        tar.append_data(&mut header, name, File::open(path)?.take(meta.len()))
    } else {
        // A socket or a pipe is of a process that is gone.
        Ok(())
    }
}

fn bad(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn room(files: &[(&str, &str)]) -> tempfile::TempDir {
        let room = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = room.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        room
    }

    fn packed(from: &tempfile::TempDir, patterns: &[&str]) -> (Vec<u8>, Vec<String>) {
        let patterns: Vec<String> = patterns.iter().map(|p| (*p).to_owned()).collect();
        let mut bytes = Vec::new();
        let missing = pack(from.path(), &patterns, false, &mut bytes).unwrap();
        (bytes, missing)
    }

    #[test]
    fn what_is_packed_arrives_where_it_was() {
        let from = room(&[
            ("dist/a/b", "1"),
            ("dist/run", "2"),
            ("report.txt", "3"),
            ("src/x", "4"),
            (".git/y", "5"),
        ]);
        symlink("run", from.path().join("dist/link")).unwrap();
        let (bytes, missing) = packed(&from, &["dist/", "*.txt", "absent", "**/y"]);
        assert_eq!(missing, ["absent", "**/y"], "git's own folder is never handed on");
        let to = room(&[("report.txt", "old"), ("other", "o")]);
        unpack(&bytes[..], to.path()).unwrap();
        let text = |name: &str| std::fs::read_to_string(to.path().join(name)).ok();
        assert_eq!(text("dist/a/b").as_deref(), Some("1"));
        assert_eq!(text("dist/link").as_deref(), Some("2"));
        assert_eq!(
            (text("report.txt").as_deref(), text("other").as_deref(), text("src/x")),
            (Some("3"), Some("o"), None)
        );
        assert_eq!(packed(&from, &["*.txt", "dist"]).0, bytes, "the same content is the same parcel");
    }

    #[test]
    fn nothing_is_packed_from_outside_and_nothing_is_unpacked_there() {
        let outside = room(&[("secret", "s")]);
        let from = room(&[("a", "1")]);
        symlink(outside.path(), from.path().join("way")).unwrap();
        assert_eq!(packed(&from, &["way/secret"]).1, ["way/secret"]);
        assert!(pack(from.path(), &["../x".into()], false, Vec::new()).is_err());
        // A parcel made by somebody else: a link, then a file through it.
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        tar.append_link(&mut header, "out", outside.path()).unwrap();
        let mut header = tar::Header::new_gnu();
        header.set_size(1);
        header.set_mode(0o644);
        tar.append_data(&mut header, "out/new", &b"x"[..]).unwrap();
        let to = room(&[]);
        assert!(unpack(&tar.into_inner().unwrap()[..], to.path()).is_err());
        assert!(!outside.path().join("new").exists());
    }

    #[test]
    fn a_narrowed_copy_has_only_what_is_named() {
        let copy = room(&[
            ("src/a/b", "1"),
            ("src/c", "2"),
            ("Cargo.lock", "3"),
            ("docs/d", "4"),
            (".git/config", "5"),
        ]);
        narrow(copy.path(), &["src/a/**".into(), "*.lock".into()]).unwrap();
        let has = |name: &str| copy.path().join(name).exists();
        assert!(has("src/a/b") && has("Cargo.lock") && has(".git/config"));
        assert!(!has("src/c") && !has("docs"));
    }
}
