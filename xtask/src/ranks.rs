//! The walls of the house: which crate may use which, and that every file says what it owns. The table stands in ARCHITECTURE.md.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Ranks by crate. A crate may use crates of a lower rank only; those of one rank never see each other.
const RANKS: [(&str, u32); 28] = [
    ("andon-model", 0),
    ("andon-kit", 0),
    ("andon-sandbox", 0),
    ("andon-dial", 0),
    ("andon-gate", 1),
    ("andon-pipeline", 1),
    ("andon-validation", 1),
    ("andon-environment", 1),
    ("andon-release", 1),
    ("andon-flags", 1),
    ("andon-cord", 1),
    ("andon-flow", 1),
    ("andon-attest", 1),
    ("andon-traffic", 1),
    ("andon-store", 2),
    ("andon-git", 2),
    ("andon-data", 2),
    ("andon-provision", 2),
    ("andon-runner", 2),
    ("andon-runtime", 2),
    ("andon-router", 2),
    ("andon-haproxy", 2),
    ("andon-certificates", 2),
    ("andon-line", 3),
    ("andon-api", 4),
    ("andon-web", 4),
    ("andon", 5),
    ("terraform-provider-andon", 5),
];

/// Crates that hold decisions: they use no runtime, no sockets, no files.
const PURE: u32 = 1;
/// Of rank 0, and no decisions: they touch the machine.
const MECHANISM: [&str; 3] = ["andon-kit", "andon-sandbox", "andon-dial"];
/// What a pure crate never depends on.
const IMPURE: [&str; 7] = ["tokio", "hyper", "axum", "sqlx", "ureq", "rustix", "tracing"];

/// Checks all of it; the error names every breach.
pub fn run() -> Result<(), String> {
    let breaches = breaches(&crate::root())?;
    if breaches.is_empty() {
        println!("● {} crates keep to their ranks", RANKS.len());
        return Ok(());
    }
    Err(breaches.join("\n■ "))
}

fn breaches(root: &Path) -> Result<Vec<String>, String> {
    let ranks: BTreeMap<&str, u32> = RANKS.into_iter().collect();
    let mut found = Vec::new();
    let crates = std::fs::read_dir(root.join("crates")).map_err(|error| error.to_string())?;
    for folder in crates.flatten().map(|entry| entry.path()) {
        let text = std::fs::read_to_string(folder.join("Cargo.toml"))
            .map_err(|error| format!("{}: {error}", folder.display()))?;
        let manifest: toml::Table = text.parse().map_err(|error| format!("{}: {error}", folder.display()))?;
        let name = manifest["package"]["name"].as_str().unwrap_or_default().to_owned();
        if folder.file_name().and_then(|n| n.to_str()) != Some(&name) {
            found.push(format!("{name} lies in a folder of another name"));
        }
        found.extend(unheaded(&folder.join("src")));
        if name == "andon-testkit" {
            continue;
        }
        let Some(rank) = ranks.get(name.as_str()) else {
            found.push(format!(
                "{name} has no rank\nhint: give it one in xtask/src/ranks.rs and in ARCHITECTURE.md"
            ));
            continue;
        };
        for dependency in
            manifest.get("dependencies").and_then(|d| d.as_table()).into_iter().flat_map(toml::Table::keys)
        {
            match ranks.get(dependency.as_str()) {
                Some(other) if other >= rank => {
                    found.push(format!("{name} (rank {rank}) uses {dependency} (rank {other})"))
                }
                None if dependency == "andon-testkit" => found.push(format!("{name} ships the testkit")),
                None if *rank <= PURE
                    && !MECHANISM.contains(&name.as_str())
                    && IMPURE.contains(&dependency.as_str()) =>
                {
                    found.push(format!("{name} decides, so it must not use {dependency}"));
                }
                _ => {}
            }
        }
    }
    Ok(found)
}

/// Files that do not open by saying what they own.
fn unheaded(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                folders.push(path);
            } else if is_unheaded(&path) {
                found.push(format!(
                    "{} does not open with `//!`: what it owns and what it leaves out",
                    path.display()
                ));
            }
        }
    }
    found
}

fn is_unheaded(path: &PathBuf) -> bool {
    path.extension().is_some_and(|e| e == "rs")
        && !std::fs::read_to_string(path).unwrap_or_default().starts_with("//!")
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_crate_keeps_to_its_rank_and_every_file_says_what_it_owns() {
        assert_eq!(super::breaches(&crate::root()).unwrap(), Vec::<String>::new());
    }
}
