//! `cargo xtask bench validation`: how quickly reports of every format are read, and that bombs are refused.

use std::process::Command;

use crate::figure::{Figure, keep};

const NOTES: &str = "Reports of 110 MB as the tools write them, made in memory: most tests are green, one in a hundred is red with a trace; files of source have 200 lines. \
    From the first byte to the finished report with its totals, in one thread, in the time that it really had a core, the best of three. A bomb is given to the readers of tests, coverage and findings one after the \
    other; the best of three, by the clock on the wall. That counts equal the tools' own is a test (`andon-validation/tests/real.rs`).";

/// Measures and keeps.
pub fn run() -> Result<(), String> {
    let out = Command::new("cargo")
        .args(["run", "--release", "--quiet", "-p", "andon-validation", "--example", "figures"])
        .current_dir(crate::root())
        .output()
        .map_err(|error| error.to_string())?;
    if !out.status.success() {
        return Err(format!("the readers failed: {}", String::from_utf8_lossy(&out.stderr)));
    }
    let text = String::from_utf8_lossy(&out.stdout);
    let figures: Result<Vec<Figure>, _> =
        text.lines().filter(|line| line.starts_with('{')).map(serde_json::from_str).collect();
    keep("validation", figures.map_err(|error| error.to_string())?, NOTES)
}
