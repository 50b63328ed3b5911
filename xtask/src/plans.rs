//! What planning costs, a part of `cargo xtask bench pipeline`: measured by an example of andon-pipeline in the release build.

use std::process::Command;

use crate::figure::Figure;

/// The figures. They need no server and take a few seconds.
pub fn figures() -> Result<Vec<Figure>, String> {
    let out = Command::new("cargo")
        .args(["run", "--release", "--quiet", "-p", "andon-pipeline", "--example", "figures"])
        .current_dir(crate::root())
        .output()
        .map_err(|error| error.to_string())?;
    if !out.status.success() {
        return Err(format!("plans could not be measured: {}", String::from_utf8_lossy(&out.stderr)));
    }
    let text = String::from_utf8_lossy(&out.stdout);
    text.lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).map_err(|error| error.to_string()))
        .collect()
}
