//! Working copies: the directory that `git clone --shared --no-checkout` would make, written without it, since starting git takes longer
//! than writing five small files. After gitrepository-layout(5). Checks nothing out.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use andon_model::Oid;

/// Makes `into/.git` with this commit as its detached HEAD, the objects of `of`, and `of`'s branches as those of `origin`.
pub(crate) fn skeleton(of: &Path, commit: &Oid, into: &Path) -> io::Result<()> {
    let git = into.join(".git");
    for dir in ["objects/info", "objects/pack", "refs/heads", "refs/tags", "info"] {
        fs::create_dir_all(git.join(dir))?;
    }
    let of = of.canonicalize()?;
    let config = format!(
        "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n[remote \"origin\"]\n\turl = {}\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n",
        quoted(&of.to_string_lossy())
    );
    fs::write(git.join("config"), config)?;
    fs::write(git.join("objects/info/alternates"), format!("{}\n", of.join("objects").display()))?;
    let packed: String = branches(&of)?
        .into_iter()
        .map(|(name, commit)| format!("{commit} refs/remotes/origin/{name}\n"))
        .collect();
    if !packed.is_empty() {
        fs::write(git.join("packed-refs"), format!("# pack-refs with: sorted \n{packed}"))?;
    }
    fs::write(git.join("HEAD"), format!("{commit}\n"))
}

/// As git's configuration quotes a value.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

/// Branches of a repository by name, packed and loose ones.
fn branches(of: &Path) -> io::Result<BTreeMap<String, Oid>> {
    let mut found = BTreeMap::new();
    let packed = match fs::read_to_string(of.join("packed-refs")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        packed => packed?,
    };
    for line in packed.lines() {
        if let Some((commit, name)) = line.split_once(" refs/heads/")
            && let Ok(commit) = commit.parse()
        {
            found.insert(name.to_owned(), commit);
        }
    }
    loose(&of.join("refs/heads"), "", &mut found);
    Ok(found)
}

/// What cannot be read is on its way to be another: then it is as if it had not been there yet.
fn loose(dir: &Path, before: &str, found: &mut BTreeMap<String, Oid>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = format!("{before}{}", entry.file_name().to_string_lossy());
        let path = entry.path();
        if path.is_dir() {
            loose(&path, &format!("{name}/"), found);
        } else if let Some(commit) = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok())
        {
            found.insert(name, commit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loose_branches_go_before_packed_ones_and_locks_are_none() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = ("1".repeat(40), "2".repeat(40));
        fs::create_dir_all(dir.path().join("refs/heads/a")).unwrap();
        fs::write(
            dir.path().join("packed-refs"),
            format!("# x\n{one} refs/heads/main\n{one} refs/heads/a/b\n{one} refs/tags/t\n"),
        )
        .unwrap();
        fs::write(dir.path().join("refs/heads/a/b"), format!("{two}\n")).unwrap();
        fs::write(dir.path().join("refs/heads/main.lock"), "").unwrap();
        let found = branches(dir.path()).unwrap();
        let found: Vec<(&str, &str)> =
            found.iter().map(|(name, commit)| (name.as_str(), commit.as_str())).collect();
        assert_eq!(found, [("a/b", &*two), ("main", &*one)]);
        assert_eq!(quoted("a\"\\b"), r#""a\"\\b""#);
    }
}
