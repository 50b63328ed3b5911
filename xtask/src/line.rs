//! `cargo xtask bench line`: how quick the line is, how small its server, and what killing it costs.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::figure::{Figure, keep, quantile};
use crate::house::{House, binary, pause, target};

/// Pushes whose first output is timed.
const PUSHES: u32 = 30;
/// Starts that are timed.
const STARTS: u32 = 20;
/// Power cuts.
const KILLS: u32 = 200;

const YAML: &str = "version: 1\npipeline: { jobs: { unit: { run: \"date +%s%N\" } } }\n";

const NOTES: &str = "The release binary, one server with one project, nothing else on it. *Push to first output*: from the moment at which the push is \
    recorded (just before it is acknowledged to the pusher) to the moment that the first command of the first job prints, on one idle \
    runner; one push at a time. It holds the speculative merge, the queueing, a working copy and the start of the job's processes. *Memory* is \
    VmRSS. *Ready* is from the start of the process to its words that it is ready. *Power cuts* are the test `kill` of the crate andon: \
    `kill -9` at a random moment 20 to 1500 ms after it is ready, under a load of pushes, flags and cords; the test then proves that nothing was lost or \
    done twice. The machine is shared with other work, so times are upper bounds.";

/// Measures and keeps.
pub fn run() -> Result<(), String> {
    let binary = binary()?;
    let mut figures = Vec::new();
    let size = std::fs::metadata(&binary).map_err(|error| error.to_string())?.len();
    let mut house = House::open(&binary)?;
    house.landed(house.propose("Begin", &[("andon.yaml", YAML)])?)?;
    pause(2000);
    let fresh = house.memory()?;
    let mut took = Vec::new();
    for n in 1..=PUSHES {
        house.landed(house.propose(&format!("Change {n}"), &[("n", &n.to_string())])?)?;
        // So that nothing of the last one is still being tidied.
        pause(150);
    }
    let journal = house.journal()?;
    for push in journal.iter().filter(|event| event["event"]["type"] == "change_pushed").skip(1) {
        took.push(first_output(&house, &journal, push)?);
    }
    figures.push(Figure::lower(
        format!("push to first output, {} pushes: median", took.len()),
        quantile(&mut took, 0.5),
        "ms",
        None,
    ));
    figures.push(Figure::lower("push to first output: p95", quantile(&mut took, 0.95), "ms", Some(250.0)));
    pause(2000);
    figures.push(Figure::lower("memory of an idle server with a project", fresh, "MB", Some(60.0)));
    figures.push(Figure::lower(
        format!("memory, idle again after {PUSHES} landings"),
        house.memory()?,
        "MB",
        Some(60.0),
    ));
    let mut ready = Vec::new();
    for _ in 0..STARTS {
        house.kill();
        ready.push(house.start(&binary)?.0.as_secs_f64() * 1000.0);
    }
    figures.push(Figure::lower(
        format!("start to ready, {STARTS} starts: median"),
        quantile(&mut ready, 0.5),
        "ms",
        None,
    ));
    figures.push(Figure::lower("start to ready: most", quantile(&mut ready, 1.0), "ms", Some(300.0)));
    figures.push(Figure::lower("size of the one binary", size as f64 / 1_000_000.0, "MB", Some(40.0)));
    drop(house);
    // Kept already: the power cuts take minutes.
    keep("line", figures.clone(), NOTES)?;
    figures.extend(kills(&binary)?);
    keep("line", figures, NOTES)
}

/// Milliseconds from the record of a push to what its job printed first.
fn first_output(house: &House, journal: &[Value], push: &Value) -> Result<f64, String> {
    let of = |event: &&Value| event["event"]["purpose"]["gate"]["change"] == push["event"]["change"];
    let queued = journal
        .iter()
        .filter(|event| event["event"]["type"] == "run_queued")
        .find(of)
        .ok_or("a push without a run")?;
    let log = house.text(&format!("/api/v1/shop/runs/{}/jobs/unit/log", queued["event"]["run"]))?;
    let printed: f64 = log.trim().parse().map_err(|_| format!("the log is {log:?}"))?;
    Ok(printed / 1e6 - push["at"].as_f64().ok_or("a push without a time")?)
}

fn kills(binary: &Path) -> Result<Vec<Figure>, String> {
    let file = target().join("kill-figures.json");
    let ran = Command::new("cargo")
        .args(["test", "--quiet", "-p", "andon", "--test", "kill", "--", "--nocapture"])
        .env("ANDON_KILLS", KILLS.to_string())
        .env("ANDON_BIN", binary)
        .env("ANDON_KILL_FIGURES", &file)
        .current_dir(crate::root())
        .status()
        .map_err(|error| error.to_string())?;
    if !ran.success() {
        return Err("the power cuts lost or repeated something: see above".into());
    }
    let text = std::fs::read_to_string(&file).map_err(|error| error.to_string())?;
    let said: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    let number = |key: &str| said[key].as_f64().unwrap_or(f64::NAN);
    Ok(vec![
        Figure::lower(
            format!("acknowledged facts lost or done twice in {KILLS} power cuts"),
            0.0,
            "",
            Some(0.0),
        ),
        Figure::lower("ready again after a power cut: median", number("ready_p50_ms"), "ms", None),
        Figure::lower("ready again after a power cut: p95", number("ready_p95_ms"), "ms", None),
        Figure::lower("ready again after a power cut: most", number("ready_max_ms"), "ms", Some(2000.0)),
    ])
}
