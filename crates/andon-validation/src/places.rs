//! Paths as reports write them become the repository's own. Reads no disk: what files there are is told.

use std::collections::{HashMap, HashSet};

/// Longest path that is believed, in bytes.
const LONGEST: usize = 4096;

/// Where the job ran and which files are there.
#[derive(Debug, Clone, Default)]
pub struct Places {
    root: String,
    files: HashSet<String>,
    by_name: HashMap<String, Vec<String>>,
}

impl Places {
    /// Only the folder that the job ran in is known: paths inside it become relative to it.
    pub fn at(working_copy: &str) -> Places {
        Places { root: working_copy.trim().replace('\\', "/"), ..Places::default() }
    }

    /// The files of the repository are known too, relative to it, with `/`: then a path below a package (`com/acme/Foo.java`), a module
    /// (`example.org/shop/cart.go`) or another machine's folder (`/app/src/cart.py`) is found as well.
    pub fn with_files(working_copy: &str, files: impl IntoIterator<Item = String>) -> Places {
        let mut made = Places::at(working_copy);
        for file in files {
            let name = file.rsplit('/').next().unwrap_or(&file).to_owned();
            made.by_name.entry(name).or_default().push(file.clone());
            made.files.insert(file);
        }
        made
    }

    /// The folder that the job ran in.
    pub(crate) fn root(&self) -> &str {
        &self.root
    }

    /// The path as the repository knows it; none when it lies outside of it.
    pub fn find(&self, path: &str) -> Option<String> {
        let normal = normal_path(path, &self.root);
        if self.files.is_empty() || normal.as_ref().is_some_and(|path| self.files.contains(path)) {
            return normal;
        }
        match normal {
            Some(normal) => Some(self.below(&normal).or_else(|| self.end_of(&normal, 1)).unwrap_or(normal)),
            // Of a path outside, one name alone proves nothing: every repository has a `main.c`.
            None => self.end_of(&path.trim().replace('\\', "/"), 2),
        }
    }

    /// The only file whose path ends with this one.
    fn below(&self, path: &str) -> Option<String> {
        let name = path.rsplit('/').next()?;
        let ends = |file: &&String| file.strip_suffix(path).is_some_and(|before| before.ends_with('/'));
        let mut found = self.by_name.get(name)?.iter().filter(ends);
        let first = found.next()?;
        found.next().is_none().then(|| first.clone())
    }

    /// The file that is the longest end of this path, of at least so many names.
    fn end_of(&self, path: &str, least: usize) -> Option<String> {
        let name = path.rsplit('/').next()?;
        if path.len() > LONGEST
            || path.split('/').any(|part| part == "..")
            || !self.by_name.contains_key(name)
        {
            return None;
        }
        let mut rest = path.trim_start_matches('/');
        while rest.split('/').count() >= least {
            if self.files.contains(rest) {
                return Some(rest.to_owned());
            }
            rest = rest.split_once('/')?.1;
        }
        None
    }
}

/// A path of a report as the repository knows it; none when it lies outside of the working copy.
pub(crate) fn normal_path(path: &str, working_copy: &str) -> Option<String> {
    let path = path.trim().replace('\\', "/");
    let root = working_copy.trim().replace('\\', "/");
    let root = root.trim_end_matches('/');
    let path = path.strip_prefix("file://").unwrap_or(&path);
    let inside = path.strip_prefix(root).filter(|rest| !root.is_empty() && rest.starts_with('/'));
    let path = inside.map_or(path, |rest| rest.trim_start_matches('/'));
    if path.starts_with('/') || path.chars().nth(1) == Some(':') {
        return None;
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    let odd = path.len() > LONGEST || path.contains(|c: char| c.is_control());
    (!parts.is_empty() && !odd).then(|| parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_the_repositorys_own_or_are_refused() {
        let normal = |path| normal_path(path, "/build/7/");
        assert_eq!(normal("/build/7/src/a.py").as_deref(), Some("src/a.py"));
        assert_eq!(normal("file:///build/7/src/a.py").as_deref(), Some("src/a.py"));
        assert_eq!(normal("./src/x/../a.py").as_deref(), Some("src/a.py"));
        assert_eq!(normal("src\\a.py").as_deref(), Some("src/a.py"));
        for outside in
            ["/build/77/a.py", "/usr/lib/x.py", "../a.py", "a/../../b", "C:\\x\\a.py", "", ".", "a\u{1b}b"]
        {
            assert_eq!(normal(outside), None, "{outside}");
        }
    }

    #[test]
    fn packages_modules_and_other_machines_folders_are_found_among_the_files() {
        let files = [
            "src/main/java/com/acme/Foo.java",
            "cart/cart.go",
            "main.go",
            "src/x.py",
            "a/t/U.java",
            "b/t/U.java",
        ];
        let places = Places::with_files("/w", files.map(str::to_owned));
        for (path, found) in [
            ("com/acme/Foo.java", "src/main/java/com/acme/Foo.java"),
            ("example.org/shop/cart/cart.go", "cart/cart.go"),
            ("example.org/shop/main.go", "main.go"),
            ("/app/src/x.py", "src/x.py"),
            ("/w/src/x.py", "src/x.py"),
            ("gen/made.py", "gen/made.py"),
            // Two files could be meant: it is not guessed.
            ("t/U.java", "t/U.java"),
        ] {
            assert_eq!(places.find(path).as_deref(), Some(found), "{path}");
        }
        for outside in ["/usr/lib/go/main.go", "/x/../src/x.py", "../../main.go"] {
            assert_eq!(places.find(outside), None, "{outside}");
        }
    }
}
