//! What a job leaves behind: reports found by pattern, the artifact packed. Reads nothing outside the working copy.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};

use globset::GlobBuilder;
use walkdir::WalkDir;

/// Files of the working copy that match the pattern, in order of their paths. Links are not followed; `.git` is not looked into.
pub fn find(workdir: &Path, pattern: &str) -> io::Result<Vec<PathBuf>> {
    let pattern = pattern.trim_start_matches("./");
    inside(Path::new(pattern))?;
    let glob = GlobBuilder::new(pattern)
        .literal_separator(true)
        .build()
        .map_err(io::Error::other)?
        .compile_matcher();
    let walk = WalkDir::new(workdir).sort_by_file_name().into_iter();
    let walk = walk.filter_entry(|entry| entry.file_name() != ".git");
    let mut found = Vec::new();
    for entry in walk.filter_map(Result::ok).filter(|entry| entry.file_type().is_file()) {
        if entry.path().strip_prefix(workdir).is_ok_and(|path| glob.is_match(path)) {
            found.push(entry.into_path());
        }
    }
    Ok(found)
}

/// Packs a file, or all that a folder holds, as a tar with the same bytes for the same content: sorted, without times and owners.
pub fn pack(workdir: &Path, what: &str, out: impl Write) -> io::Result<()> {
    let relative = Path::new(what.trim_start_matches("./").trim_end_matches('/'));
    inside(relative)?;
    let root = workdir.canonicalize()?;
    let top = root.join(relative).canonicalize().map_err(|error| {
        io::Error::new(error.kind(), format!("the artifact {what:?} is not there after the job\nhint: `artifact` names a file or folder that `run` makes"))
    })?;
    if !top.starts_with(&root) {
        return Err(bad(format!("the artifact {what:?} leads out of the working copy")));
    }
    let mut tar = tar::Builder::new(out);
    if top.is_file() {
        add(&mut tar, &top, Path::new(top.file_name().unwrap_or_default()), &root)?;
    } else {
        let walk = WalkDir::new(&top).min_depth(1).sort_by_file_name().into_iter();
        for entry in walk.filter_entry(|entry| entry.file_name() != ".git") {
            let entry = entry.map_err(io::Error::other)?;
            let name = entry.path().strip_prefix(&top).map_err(io::Error::other)?.to_owned();
            add(&mut tar, entry.path(), &name, &top)?;
        }
    }
    tar.into_inner()?.flush()
}

fn add(tar: &mut tar::Builder<impl Write>, path: &Path, name: &Path, top: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let meta = path.symlink_metadata()?;
    let mut header = tar::Header::new_gnu();
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    if meta.is_symlink() {
        let target = std::fs::read_link(path)?;
        let lands = path.parent().unwrap_or(top).join(&target);
        if target.is_absolute() || !lexical(&lands).starts_with(top) {
            let what =
                format!("{} is a link to {}, outside of the artifact", name.display(), target.display());
            return Err(bad(format!(
                "{what}\nhint: copy what it points to (`cp -L`), so that the artifact is complete"
            )));
        }
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        tar.append_link(&mut header, name, target)
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
        Err(bad(format!("{} is neither a file nor a folder", name.display())))
    }
}

/// Refuses what would lead out of the working copy.
pub(crate) fn inside(path: &Path) -> io::Result<()> {
    let plain = path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if plain { Ok(()) } else { Err(bad(format!("{} leads out of the working copy", path.display()))) }
}

/// The path without `..`, by its text alone.
fn lexical(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(out.pop()),
            Component::CurDir => {}
            other => out.push(other),
        }
    }
    out
}

fn bad(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn reports_are_found_by_pattern_and_never_outside() {
        let room = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(room.path().join("out/deep")).unwrap();
        for file in ["out/a.xml", "out/b.xml", "out/deep/c.xml", "d.xml"] {
            std::fs::write(room.path().join(file), "x").unwrap();
        }
        assert_eq!(find(room.path(), "out/*.xml").unwrap().len(), 2);
        assert_eq!(find(room.path(), "**/*.xml").unwrap().len(), 4);
        assert_eq!(find(room.path(), "./d.xml").unwrap().len(), 1);
        assert!(find(room.path(), "../*").is_err());
        assert!(find(room.path(), "/etc/passwd").is_err());
    }

    #[test]
    fn the_same_content_packs_to_the_same_bytes_whatever_its_dates() {
        let packed = || {
            let room = tempfile::tempdir().unwrap();
            std::fs::create_dir(room.path().join("dist")).unwrap();
            std::fs::write(room.path().join("dist/b"), "2").unwrap();
            std::fs::write(room.path().join("dist/a"), "1").unwrap();
            symlink("a", room.path().join("dist/c")).unwrap();
            let mut bytes = Vec::new();
            pack(room.path(), "dist/", &mut bytes).unwrap();
            bytes
        };
        assert_eq!(packed(), packed());
    }

    #[test]
    fn an_artifact_holds_nothing_from_outside() {
        let room = tempfile::tempdir().unwrap();
        symlink("/etc", room.path().join("out")).unwrap();
        assert!(pack(room.path(), "out", Vec::new()).is_err());
        std::fs::create_dir(room.path().join("dist")).unwrap();
        symlink("../../x", room.path().join("dist/l")).unwrap();
        let error = pack(room.path(), "dist", Vec::new()).unwrap_err().to_string();
        assert!(error.contains("hint:"), "{error}");
        assert!(pack(room.path(), "../x", Vec::new()).is_err());
        assert!(pack(room.path(), "absent", Vec::new()).unwrap_err().to_string().contains("not there"));
    }
}
