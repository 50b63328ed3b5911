//! What of the host a confined process needs to see, and what it never sees. Lists only; nothing is mounted here.

use std::path::PathBuf;

/// What the host's configuration keeps for itself.
pub const KEPT: [&str; 9] = [
    "/etc/shadow",
    "/etc/shadow-",
    "/etc/gshadow",
    "/etc/gshadow-",
    "/etc/ssh",
    "/etc/ssl/private",
    "/etc/sudoers",
    "/etc/sudoers.d",
    "/etc/andon",
];
/// What belongs to a tool beside the directory of its programs.
const BESIDE: [&str; 10] =
    ["bin", "lib", "lib64", "libexec", "include", "plugins", "shims", "versions", "version", "installs"];

/// What programs of the host need to run.
pub fn system() -> Vec<PathBuf> {
    ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/opt", "/nix"]
        .map(Into::into)
        .into()
}

/// Programs that lie outside of the system's directories, with the rest of their tool: version managers put them below a home.
/// Nothing else of a home is seen. What lies in `hide`, or around it, is left out.
pub fn tools(path: &str, hide: &[PathBuf]) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::env::split_paths(path).filter(|entry| entry.is_absolute()) {
        let hidden = |hide: &PathBuf| entry.starts_with(hide) || hide.starts_with(&entry);
        if entry.components().count() < 3 || hide.iter().any(hidden) || entry.starts_with("/proc") {
            continue;
        }
        let last = entry.file_name().unwrap_or_default();
        if (last == "bin" || last == "shims")
            && let Some(parent) = entry.parent()
        {
            all.extend(BESIDE.map(|name| parent.join(name)).into_iter().filter(|beside| beside.exists()));
        }
        all.push(entry);
    }
    all.sort();
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_home_only_the_tools_are_seen() {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        for name in [".tool/bin", ".tool/lib", ".tool/secrets", "bin"] {
            std::fs::create_dir_all(at(name)).unwrap();
        }
        let path = std::env::join_paths([at(".tool/bin"), at("bin")]).unwrap();
        let path = path.to_str().unwrap();
        assert_eq!(tools(path, &[]), [at(".tool/bin"), at(".tool/lib"), at("bin")]);
        assert_eq!(tools(path, &[home.path().to_owned()]), Vec::<PathBuf>::new());
    }
}
