//! `cargo xtask bench AREA`: measures one area and keeps its figures.

use std::process::Command;

use crate::figure::{Figure, keep};
use crate::{
    containers, data, environments, line, logs, order, pipeline, proxies, recovery, states, traffic,
    validation,
};

const RELEASE_NOTES: &str = "By simulation of whole releases with the very code that decides: users with unequal numbers of requests, a look each second. The \
    numbers do not depend on the machine.";

/// Measures the area.
pub fn run(area: Option<&str>, more: &[String]) -> Result<(), String> {
    match area {
        Some("line") => line::run(),
        Some("pipeline") => pipeline::run(),
        Some("logs") => logs::run(),
        Some("order") => order::run(more),
        Some("environments") => environments::run(),
        Some("docker") => containers::run(),
        Some("data") => data::run(),
        Some("recovery") => recovery::run(),
        Some("states") => states::run(),
        Some("router") => traffic::run(),
        Some("proxies") => proxies::run(),
        Some("release") => release(),
        Some("validation") => validation::run(),
        _ => Err("usage: cargo xtask bench line|pipeline|logs|order FILE.csv...|router|proxies|release|environments|docker|data|states|recovery|validation"
            .to_owned()),
    }
}

fn release() -> Result<(), String> {
    let out = Command::new("cargo")
        .args(["run", "--release", "--quiet", "-p", "andon-release", "--example", "figures"])
        .current_dir(crate::root())
        .output()
        .map_err(|error| error.to_string())?;
    if !out.status.success() {
        return Err(format!("the simulation failed: {}", String::from_utf8_lossy(&out.stderr)));
    }
    let text = String::from_utf8_lossy(&out.stdout);
    let figures: Result<Vec<Figure>, _> =
        text.lines().filter(|line| line.starts_with('{')).map(serde_json::from_str).collect();
    keep("release", figures.map_err(|error| error.to_string())?, RELEASE_NOTES)
}
