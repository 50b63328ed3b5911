//! `cargo xtask bench states`: how quickly the state backend keeps a large state, locked and sealed, speaking as Terraform does; and what is left
//! when applies of the real one are killed.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use serde_json::{Value, json};

use crate::figure::{Figure, keep, quantile};
use crate::house::{House, binary, target};

/// How often it is written and read.
const TIMES: u32 = 40;
/// Its size in bytes.
const SIZE: usize = 10_000_000;
/// Applies that are killed.
const KILL_POINTS: u32 = 100;

const NOTES: &str = "The release binary and a state of 10 MB, written under its lock as Terraform does: from the request to the answer, after which the version \
    is sealed, on the disk and in the journal. Reading it is opening and sending it. \
    *Kills of an apply* are the test `infra_kill` of the crate andon: `kill -9` of the server, of terraform with its children, or of both; afterwards what \
    exists is held against what the state knows. The machine is shared with other work, so times are upper bounds.";

/// Measures and keeps.
pub fn run() -> Result<(), String> {
    let binary = binary()?;
    let house = House::open(&binary)?;
    let path = "/api/v1/shop/state/large";
    let lock = json!({
        "ID": "6f1a2d4e-0000-4000-8000-000000000001", "Operation": "OperationTypeApply", "Info": "",
        "Who": "bench@example.com", "Version": "1.11.4", "Created": "2026-01-01T00:00:00Z", "Path": "",
    });
    house.send("POST", &format!("{path}/lock"), lock.to_string())?;
    let id = lock["ID"].as_str().unwrap_or_default();
    let (mut written, mut read) = (Vec::new(), Vec::new());
    for serial in 1..=TIMES {
        let document = document(serial);
        let begun = Instant::now();
        house.send("POST", &format!("{path}?ID={id}"), document.clone())?;
        written.push(begun.elapsed().as_secs_f64() * 1000.0);
        let begun = Instant::now();
        let back = house.send("GET", path, String::new())?;
        read.push(begun.elapsed().as_secs_f64() * 1000.0);
        if back != document {
            return Err(format!("version {serial} did not come back as it was written"));
        }
    }
    let mut figures = vec![
        Figure::lower("a state of 10 MB written: median", quantile(&mut written, 0.5), "ms", None),
        Figure::lower("a state of 10 MB written: p95", quantile(&mut written, 0.95), "ms", Some(100.0)),
        Figure::lower("a state of 10 MB read: p95", quantile(&mut read, 0.95), "ms", None),
        Figure::lower("memory of the server after it", house.memory()?, "MB", None),
    ];
    figures.extend(kill_points(&binary)?);
    keep("states", figures, NOTES)
}

/// The server, terraform or both are killed while something is applied; the test proves that what exists is what the state knows.
fn kill_points(binary: &Path) -> Result<Vec<Figure>, String> {
    let file = target().join("kill-point-figures.json");
    let ran = Command::new("cargo")
        .args(["test", "--quiet", "-p", "andon", "--test", "infra_kill", "--", "--nocapture"])
        .env("ANDON_KILL_POINTS", KILL_POINTS.to_string())
        .env("ANDON_BIN", binary)
        .env("ANDON_KILL_POINT_FIGURES", &file)
        .current_dir(crate::root())
        .status()
        .map_err(|error| error.to_string())?;
    if !ran.success() {
        return Err("an apply that was killed left something: see above".into());
    }
    let text = std::fs::read_to_string(&file).map_err(|error| error.to_string())?;
    let said: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    let number = |key: &str| said[key].as_f64().unwrap_or(f64::NAN);
    Ok(vec![
        Figure::lower(
            format!("orphans after {KILL_POINTS} kills of an apply by terraform"),
            number("orphans"),
            "",
            Some(0.0),
        ),
        Figure::lower("of them: resources that had to be taken into the state", number("adopted"), "", None),
    ])
}

/// A state as Terraform writes it, with as many small resources as it takes.
fn document(serial: u32) -> String {
    let mut text = format!(
        "{{\"version\":4,\"terraform_version\":\"1.11.4\",\"serial\":{serial},\"lineage\":\"11111111-2222-3333-4444-555555555555\",\"outputs\":{{}},\"resources\":["
    );
    let mut n = 0;
    while text.len() < SIZE {
        let comma = if n == 0 { "" } else { "," };
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "{comma}{{\"mode\":\"managed\",\"type\":\"terraform_data\",\"name\":\"r{n}\",\"provider\":\"provider[\\\"terraform.io/builtin/terraform\\\"]\",\
             \"instances\":[{{\"schema_version\":0,\"attributes\":{{\"id\":\"{n:032x}\",\"input\":{{\"type\":\"string\",\"value\":\"{serial}-{n}\"}},\
             \"output\":{{\"type\":\"string\",\"value\":\"{serial}-{n}\"}},\"triggers_replace\":null}},\"sensitive_attributes\":[]}}]}}"
        );
        n += 1;
    }
    text.push_str("],\"check_results\":null}");
    text
}
