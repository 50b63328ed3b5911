//! `cargo xtask figures [--cold]`: what the repository weighs: packages, binary, and with `--cold` the time of a release build from nothing.

use std::process::Command;
use std::time::Instant;

use crate::house::target;

/// Prints them.
pub fn run(cold: bool) -> Result<(), String> {
    let lock = std::fs::read_to_string(crate::root().join("Cargo.lock"))
        .map_err(|error| format!("Cargo.lock: {error}"))?;
    let lock: toml::Table = lock.parse().map_err(|error| format!("Cargo.lock: {error}"))?;
    let packages = lock.get("package").and_then(toml::Value::as_array).map_or(0, Vec::len);
    println!("locked packages: {packages}");
    match std::fs::metadata(target().join("release/andon")) {
        Ok(binary) => println!("release binary: {:.1} MB", binary.len() as f64 / 1_000_000.0),
        Err(_) => println!("release binary: not built yet (cargo build --release -p andon)"),
    }
    if cold {
        let room = target().join("cold");
        let _ = std::fs::remove_dir_all(&room);
        let begun = Instant::now();
        let built = Command::new("cargo")
            .args(["build", "--release", "--quiet", "-p", "andon", "--target-dir"])
            .arg(&room)
            .current_dir(crate::root())
            .status()
            .map_err(|error| error.to_string())?;
        let took = begun.elapsed().as_secs();
        let _ = std::fs::remove_dir_all(&room);
        if !built.success() {
            return Err(format!("the release build ended with {built}"));
        }
        println!("cold release build: {took} s");
    }
    Ok(())
}
