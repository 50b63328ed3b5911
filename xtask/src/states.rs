//! `cargo xtask bench states`: how quickly the state backend keeps a large state, locked and sealed. Speaks as Terraform does.

use std::fmt::Write as _;
use std::time::Instant;

use serde_json::json;

use crate::figure::{Figure, keep, quantile};
use crate::house::{House, binary};

/// How often it is written and read.
const TIMES: u32 = 40;
/// Its size in bytes.
const SIZE: usize = 10_000_000;

const NOTES: &str = "The release binary and a state of 10 MB, written under its lock as Terraform does: from the request to the answer, after which the version \
    is sealed, on the disk and in the journal. Reading it is opening and sending it. The machine is shared with other work, so times are upper bounds.";

/// Measures and keeps.
pub fn run() -> Result<(), String> {
    let house = House::open(&binary()?)?;
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
    let figures = vec![
        Figure::lower("a state of 10 MB written: median", quantile(&mut written, 0.5), "ms", None),
        Figure::lower("a state of 10 MB written: p95", quantile(&mut written, 0.95), "ms", Some(100.0)),
        Figure::lower("a state of 10 MB read: p95", quantile(&mut read, 0.95), "ms", None),
        Figure::lower("memory of the server after it", house.memory()?, "MB", None),
    ];
    keep("states", figures, NOTES)
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
