//! `cargo xtask bench recovery`: how long a whole system takes to come back, in a drill and after a real loss. Loses only its own.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Instant;

use serde_json::Value;

use crate::environments::{create, healthy, yaml};
use crate::figure::{Figure, keep, quantile};
use crate::house::{House, binary};

/// Changes that went all the way before the loss.
const CHANGES: usize = 10;
/// Environments beside production, with three services each.
const ENVIRONMENTS: usize = 10;
/// Drills.
const DRILLS: usize = 5;

const NOTES: &str = "The release binary, process runtime: production and ten environments with three services each, after ten changes. A *drill* makes all of it \
    again from a backup beside what runs, and takes it down. The *loss* is real: server and instances killed, data removed; then `andon restore` and `andon serve`. \
    *Back* is when every instance that there was is healthy again, counted from the start of `andon restore`. The machine is shared with other work, so \
    times are upper bounds.";

/// Measures and keeps.
pub fn run() -> Result<(), String> {
    let binary = binary()?;
    let mut house = House::open(&binary)?;
    let program = std::env::current_exe().map_err(|error| error.to_string())?.display().to_string();
    let text = yaml(&program);
    for n in 1..=CHANGES {
        let version = format!("v{n}");
        house.served(house.propose(&version, &[("andon.yaml", &text), ("version", &version)])?)?;
    }
    let names: Vec<String> = (0..ENVIRONMENTS).map(|n| format!("try-{n}")).collect();
    for name in &names {
        create(&house, name)?;
    }

    let andon = |house: &House, args: &[&str]| -> Result<Vec<u8>, String> {
        let mut command = Command::new(&binary);
        command.args(args).env("ANDON_SERVER", format!("http://127.0.0.1:{}", house.http));
        command.env("ANDON_TOKEN", house.token()).env("ANDON_PROJECT", "shop").current_dir(&house.room);
        let out = command.output().map_err(|error| error.to_string())?;
        match out.status.success() {
            true => Ok(out.stdout),
            false => Err(format!("andon {args:?}: {}", String::from_utf8_lossy(&out.stderr))),
        }
    };
    let (mut opened, mut served) = (Vec::new(), Vec::new());
    for _ in 0..DRILLS {
        let begun = Instant::now();
        let said: Value = serde_json::from_slice(&andon(&house, &["drill", "--json"])?)
            .map_err(|error| error.to_string())?;
        served.push(begun.elapsed().as_secs_f64());
        if said["instances"] != 3 * (ENVIRONMENTS + 1) {
            return Err(format!("not all of it came back: {said}"));
        }
        let span: andon_model::Span =
            serde_json::from_value(said["opened"].clone()).map_err(|error| format!("{error} in {said}"))?;
        opened.push(span.duration().as_secs_f64());
    }

    let file = house.room.join("away.tar").display().to_string();
    andon(&house, &["backup", "--to", &file])?;
    let key = house.room.join("key").display().to_string();
    std::fs::copy(house.room.join("data/key"), &key).map_err(|error| error.to_string())?;
    let facts = |house: &House| -> Result<BTreeSet<String>, String> {
        Ok(house.journal()?.iter().map(Value::to_string).collect())
    };
    let before = facts(&house)?;
    house.lose()?;
    let begun = Instant::now();
    let data = house.room.join("data").display().to_string();
    andon(&house, &["restore", &file, "--data", &data, "--key", &key])?;
    house.start(&binary)?;
    let ready = begun.elapsed().as_secs_f64();
    for name in names.iter().map(String::as_str).chain(["production"]) {
        house.until(&format!("/environments/{name}"), |view| healthy(view).len() == 3)?;
    }
    let back = begun.elapsed().as_secs_f64();
    let after = facts(&house)?;
    let lost = before.difference(&after).count();
    let figures = vec![
        Figure::lower("drill: server open again, most", quantile(&mut opened, 1.0), "s", Some(60.0)),
        Figure::lower(
            "drill: whole, with taking it down, most",
            quantile(&mut served, 1.0),
            "s",
            Some(300.0),
        ),
        Figure::lower("loss: server ready", ready, "s", Some(60.0)),
        Figure::lower(format!("loss: {} instances back", 3 * (ENVIRONMENTS + 1)), back, "s", Some(300.0)),
        Figure::lower("facts lost that were backed up", lost as f64, "", Some(0.0)),
    ];
    keep("recovery", figures, NOTES)
}
