//! `cargo xtask bench order FILE.csv...`: how good the order of tests is on recorded histories, and how long it takes. The histories are not part of
//! the repository: any that others publish will do.

use std::process::Command;

use serde_json::Value;

use crate::figure::{Figure, keep};
use crate::house::binary;

const NOTES: &str = "By `andon tests evaluate`, which says the definitions: APFDc is the share of failures found over the share of time, NAPFD that of a run that has half the time. Ties \
    are broken by chance, ten times. The parameters are fixed in `andon-validation/src/order/history.rs`; they were chosen on two histories of the Dune project, so those two are what they can reach and not what they will. Beside \
    each stand rules that anybody can have. *Handed out* is what the last of 2 to 32 shards needs when tests are given out while shards ask, as a multiple of the least possible, in the later half of the history; *dealt* is the same \
    fixed beforehand. Times of ordering are those that one thread had a core, and depend on the machine.";

/// What is asked of a history, in percent, by a part of its name.
const BARS: [(&str, f64); 2] = [("dune-debian", 92.5), ("dune-ubuntu", 99.0)];
/// Red cycles whose first failure is known early, in percent.
const EARLY: f64 = 80.0;
/// The last shard's end, as a multiple of the least possible.
const LAST: f64 = 1.05;

/// Measures and keeps.
pub fn run(files: &[String]) -> Result<(), String> {
    if files.is_empty() {
        return Err("usage: cargo xtask bench order FILE.csv...\nhint: each line a test, its cycle, duration and verdict; the first line names the columns".into());
    }
    let out = Command::new(binary()?)
        .args(["tests", "evaluate", "--json"])
        .args(files)
        .output()
        .map_err(|error| error.to_string())?;
    if !out.status.success() {
        return Err(String::from_utf8_lossy(&out.stderr).into_owned());
    }
    let all: Value = serde_json::from_slice(&out.stdout).map_err(|error| error.to_string())?;
    let mut figures = Vec::new();
    for (name, history) in all.as_object().into_iter().flatten() {
        let bar = BARS.iter().find(|(part, _)| name.contains(part)).map(|(_, bar)| *bar);
        for (measure, title, bar) in [
            ("apfdc", "APFDc", bar),
            ("apfd", "APFD", None),
            ("napfd", "NAPFD in half the time", None),
            ("early", "red cycles whose first failure is known within 25 % of their time", Some(EARLY)),
        ] {
            let of = |rule: &str| history["rules"][rule][measure].as_f64().unwrap_or_default() * 100.0;
            let mut figure = Figure::higher(format!("{name}: {title}"), of("andon"), "%", bar);
            for rule in ["last failed", "shortest first", "random"] {
                figure.peers.insert(rule.to_owned(), (of(rule) * 100.0).round() / 100.0);
            }
            figures.push(figure);
        }
        for shards in ["2", "4", "8", "16", "32"] {
            let row = &history["makespan"][shards];
            let value = |way: &str| row[way].as_f64().unwrap_or_default();
            let mut figure = Figure::lower(
                format!("{name}: {shards} shards, handed out"),
                value("handed_out"),
                "×",
                Some(LAST),
            );
            figure.met = Some(value("handed_out") <= LAST);
            figure.peers.insert("dealt".to_owned(), (value("dealt") * 100.0).round() / 100.0);
            figures.push(figure);
        }
    }
    let out = Command::new("cargo")
        .args(["run", "--release", "--quiet", "-p", "andon-validation", "--example", "order"])
        .current_dir(crate::root())
        .output()
        .map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&out.stdout);
    for line in text.lines().filter(|line| line.starts_with('{')) {
        let read: Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
        let name = read["name"].as_str().unwrap_or_default();
        figures.push(Figure::lower(
            name,
            read["value"].as_f64().unwrap_or_default(),
            "ms",
            read["bar"].as_f64(),
        ));
    }
    keep("order", figures, NOTES)
}
