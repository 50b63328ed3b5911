//! `cargo xtask bench release [RUNS [PART…]]`: the immune system by simulation (RUNS healthy releases, 10,000 by default),
//! and the compatibility mode against R. With parts, only those are measured anew; the others are taken as they were
//! measured last. Decides nothing itself.

use std::process::Command;

use crate::figure::{Figure, keep};

/// Random cases against R.
const CASES: &str = "10000";

const NOTES: &str = "By simulation of whole releases with the very code that decides: users with unequal numbers of requests, a look each second. The \
    numbers do not depend on the machine. The rules of others see the same requests; their figures stand beside ours in `release.json`, and the points where they win \
    or lose are counted below. Compatibility with Kayenta is measured against R's `wilcox.test`.";

/// What the simulation is made of.
const PARTS: [&str; 4] = ["alarms", "found", "proven", "peers"];

/// Measures all of it.
pub fn run(more: &[String]) -> Result<(), String> {
    let (runs, parts) = more.split_first().map_or(("10000", more), |(runs, parts)| (runs.as_str(), parts));
    let known = parts.iter().all(|part| part == "r" || PARTS.contains(&part.as_str()));
    if runs.parse::<u64>().is_err() || !known {
        return Err("usage: cargo xtask bench release [RUNS [alarms|found|proven|peers|r]…]".to_owned());
    }
    let room = crate::house::target().join("release-figures");
    std::fs::create_dir_all(&room).map_err(|error| format!("{}: {error}", room.display()))?;
    let mut figures = Vec::new();
    for part in PARTS.iter().chain(&["r"]) {
        let file = room.join(format!("{part}.jsonl"));
        if parts.is_empty() || parts.iter().any(|asked| asked == part) {
            let lines = if *part == "r" { like_r()? } else { simulated(runs, part)? };
            std::fs::write(&file, lines).map_err(|error| format!("{}: {error}", file.display()))?;
        }
        let lines = std::fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        for line in lines.lines().filter(|line| line.starts_with('{')) {
            let figure: Figure = serde_json::from_str(line).map_err(|error| error.to_string())?;
            figures.push(figure);
        }
    }
    keep("release", figures, NOTES)
}

fn simulated(runs: &str, part: &str) -> Result<String, String> {
    let out = Command::new("cargo")
        .args([
            "run",
            "--release",
            "--quiet",
            "-p",
            "andon-release",
            "--example",
            "figures",
            "--",
            runs,
            part,
        ])
        .current_dir(crate::root())
        .output()
        .map_err(|error| error.to_string())?;
    if !out.status.success() {
        return Err(format!("the simulation failed: {}", String::from_utf8_lossy(&out.stderr)));
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// Nothing where R is missing: a figure is written down only if it was measured.
fn like_r() -> Result<String, String> {
    if Command::new("Rscript").arg("--version").output().is_err() {
        println!("SKIPPED: Rscript is missing, so that nothing is compared with R");
        return Ok(String::new());
    }
    let file = crate::house::target().join("release-cases.json");
    let status = Command::new("cargo")
        .args(["test", "--release", "--quiet", "-p", "andon-release", "--test", "kayenta", "random_cases"])
        .env("ANDON_CASES", CASES)
        .env("ANDON_CASES_FIGURES", &file)
        .current_dir(crate::root())
        .status()
        .map_err(|error| error.to_string())?;
    let text = std::fs::read(&file)
        .map_err(|error| format!("{} (the test ended with {status}): {error}", file.display()))?;
    let found: serde_json::Value = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    let number = |name: &str| found[name].as_f64().ok_or_else(|| format!("{}: no {name}", file.display()));
    let mut furthest = Figure::lower(
        format!("{CASES} random cases: an end of the interval or the estimate is away from R's by at most"),
        number("furthest")?,
        "",
        Some(1e-4),
    );
    furthest.value = number("furthest")?;
    let classes = Figure::lower(
        format!("{CASES} random cases: another class than from R's interval"),
        number("classes")?,
        "cases",
        Some(0.0),
    );
    let line = |figure: &Figure| serde_json::to_string(figure).map_err(|error| error.to_string());
    Ok(format!("{}\n{}\n", line(&furthest)?, line(&classes)?))
}
