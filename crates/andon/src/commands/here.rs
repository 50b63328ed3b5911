//! The repository that a command stands in: its commit, what differs from it, its files as they stand. Runs nothing but git.

use std::path::{Path, PathBuf};
use std::process::Command;

use andon_model::Oid;

use crate::client::Failure;

/// The repository that this command stands in.
pub struct Here {
    /// Its files.
    pub root: PathBuf,
    /// Git's own folder.
    pub objects: PathBuf,
    /// What is checked out.
    pub commit: Oid,
    /// Its tree.
    pub tree: Oid,
}

impl Here {
    /// From the folder that the command was given in.
    pub fn find() -> Result<Here, Failure> {
        let at = Path::new(".");
        let root = git(at, &["rev-parse", "--show-toplevel"])
            .map_err(|error| format!("{error}\nhint: go into the repository"))?;
        let root = PathBuf::from(root.trim());
        let oid = |what: &str| -> Result<Oid, Failure> {
            let text = git(&root, &["rev-parse", "--verify", what])
                .map_err(|_| "nothing is committed here yet\nhint: git add -A && git commit".to_owned())?;
            Ok(text.trim().parse().map_err(|error: andon_model::hash::NotAHash| error.to_string())?)
        };
        let (commit, tree) = (oid("HEAD")?, oid("HEAD^{tree}")?);
        let objects = git(&root, &["rev-parse", "--path-format=absolute", "--git-common-dir"])?;
        Ok(Here { objects: PathBuf::from(objects.trim()), root, commit, tree })
    }

    /// What the folder is called.
    pub fn name(&self) -> String {
        self.root.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
    }

    /// Files that differ from another commit.
    pub fn changed(&self, since: &str, dirty: bool) -> Result<Vec<String>, Failure> {
        let spec = format!("{since}^{{commit}}");
        let from = git(&self.root, &["rev-parse", "--verify", "--quiet", "--end-of-options", &spec])
            .map_err(|_| format!("{since:?} is no commit that is known here\nhint: git fetch andon"))?;
        let mut args = vec!["diff", "--name-only", "-z", "--no-renames", from.trim()];
        if !dirty {
            args.push(self.commit.as_str());
        }
        let mut paths = names(&git(&self.root, &args)?);
        if dirty {
            paths.extend(names(&git(&self.root, &["ls-files", "-z", "--others", "--exclude-standard"])?));
        }
        Ok(paths)
    }

    /// Puts files as they stand here over a working copy.
    pub fn overlay(&self, tree: &Path) -> Result<(), String> {
        let listed = git(&self.root, &["ls-files", "-z", "--cached", "--others", "--exclude-standard"])?;
        for name in names(&listed) {
            let (from, to) = (self.root.join(&name), tree.join(&name));
            let Ok(meta) = from.symlink_metadata() else {
                let _ = std::fs::remove_file(&to);
                continue;
            };
            let copy = || {
                std::fs::create_dir_all(to.parent().unwrap_or(tree))?;
                let _ = std::fs::remove_file(&to);
                if meta.is_symlink() {
                    return std::os::unix::fs::symlink(std::fs::read_link(&from)?, &to);
                }
                // A submodule is a folder: it has files of its own, which git lists nowhere here.
                if meta.is_file() { std::fs::copy(&from, &to).map(drop) } else { Ok(()) }
            };
            copy().map_err(|error| format!("{name}: {error}"))?;
        }
        Ok(())
    }
}

fn names(listed: &str) -> Vec<String> {
    listed.split('\0').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// What git says.
pub fn git(at: &Path, args: &[&str]) -> Result<String, String> {
    let out =
        Command::new("git").args(args).current_dir(at).output().map_err(|error| format!("git: {error}"))?;
    match out.status.success() {
        true => Ok(String::from_utf8_lossy(&out.stdout).into_owned()),
        false => Err(format!("git {}: {}", args[0], String::from_utf8_lossy(&out.stderr).trim())),
    }
}
