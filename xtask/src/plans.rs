//! What planning and replaying cost, a part of `cargo xtask bench pipeline`: plans by an example of andon-pipeline in the release build,
//! replays through a whole server.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::figure::{Figure, quantile};
use crate::house::House;

/// Jobs that are replayed, and how often.
pub const CACHED: u32 = 100;
const TIMES: u32 = 11;

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

/// A run of jobs that were all green before with the same inputs: from the moment it is asked for to its verdict, both in the journal.
pub fn replays(binary: &Path) -> Result<Vec<Figure>, String> {
    let house = House::open(binary)?;
    let values: Vec<String> = (0..CACHED).map(|n| format!("v{n}")).collect();
    let yaml = format!(
        "version: 1\npipeline: {{ jobs: {{ m: {{ run: \"true\", reads: [\"a\"], matrix: {{ a: [{}] }} }} }} }}\n",
        values.join(", ")
    );
    house.landed(house.propose("Begin", &[("andon.yaml", &yaml), ("a", "1")])?)?;
    for n in 2..2 + TIMES {
        house.post("/api/v1/shop/runs", &json!({}))?;
        house.until(&format!("/runs/{n}"), |view| view["finished"] == true)?;
    }
    let (mut took, mut replayed) = (Vec::new(), 0);
    let journal = house.journal()?;
    let at = |kind: &str, run: u32| {
        let is = |event: &&Value| event["event"]["type"] == kind && event["event"]["run"] == run;
        journal
            .iter()
            .find(is)
            .and_then(|event| event["at"].as_i64())
            .ok_or(format!("{kind} of run-{run} is missing"))
    };
    for run in 2..2 + TIMES {
        took.push((at("run_finished", run)? - at("run_queued", run)?) as f64);
        replayed += journal
            .iter()
            .filter(|event| event["event"]["type"] == "job_replayed" && event["event"]["run"] == run)
            .count();
    }
    if replayed != (CACHED * TIMES) as usize {
        return Err(format!("{replayed} jobs of {} were replayed", CACHED * TIMES));
    }
    Ok(vec![Figure::lower(
        "100 replayed jobs, from the queue to the verdict, p50",
        quantile(&mut took, 0.5),
        "ms",
        Some(59.0),
    )])
}
