//! What planning costs: a definition of many jobs read and unfolded, and the look at a run of ten thousand that every wake takes. Prints one
//! JSON object a line: name, value, unit, bar, better, met.
//!
//! `cargo run --release -p andon-pipeline --example figures`
#![allow(clippy::print_stdout, reason = "this program's product is its output")]

use std::fmt::Write as _;
use std::time::Instant;

use andon_model::event::{Event, PlannedJob, Purpose, Recorded};
use andon_model::{Actor, Oid, RunId, Time};
use andon_pipeline::{Places, Plan, Runs, plan};

/// Jobs of the large run.
const JOBS: usize = 10_000;
/// Looks of which the slowest in twenty is told.
const LOOKS: usize = 40;

fn main() -> Result<(), String> {
    let runs = large()?;
    let looks = (0..LOOKS).map(|_| millis(|| plan(&runs, &Places::here(4), Time(1)).len())).collect();
    let written = many();
    let definition = andon_pipeline::read(&written).map_err(|problems| format!("{problems:?}"))?;
    let reads =
        (0..LOOKS).map(|_| millis(|| andon_pipeline::read(&written).map_or(0, |d| d.pipeline.jobs.len())));
    let reads = reads.collect();
    let names = (0..LOOKS).map(|_| millis(|| Plan::of(&definition).hash().hex().len())).collect();
    figure("a run of 10,000 jobs looked at, p95", p95(looks), Some(100.0));
    figure("andon.yaml whose matrices make 4,096 jobs read and unfolded, p95", p95(reads), None);
    figure("its plan written and named, p95", p95(names), None);
    Ok(())
}

fn figure(name: &str, value: f64, bar: Option<f64>) {
    let value = (value * 100.0).round() / 100.0;
    let met = bar.map(|bar| value <= bar);
    let line = serde_json::json!({ "name": name, "value": value, "unit": "ms", "bar": bar, "better": "lower", "met": met });
    println!("{line}");
}

fn p95(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() - 1) * 95 / 100]
}

fn millis(work: impl FnOnce() -> usize) -> f64 {
    let begun = Instant::now();
    std::hint::black_box(work());
    begun.elapsed().as_secs_f64() * 1000.0
}

/// A run of four stages whose jobs each need two of those before them.
fn large() -> Result<Runs, String> {
    let name =
        |n: usize| format!("job-{n}").parse().map_err(|error: andon_model::name::NotAName| error.to_string());
    let mut jobs = Vec::with_capacity(JOBS);
    for n in 0..JOBS {
        let mut job = PlannedJob::new(name(n)?, format!("stage-{}", n * 4 / JOBS));
        for before in [n.checked_sub(1), n.checked_sub(7)].into_iter().flatten().filter(|_| n % 100 != 0) {
            job.needs.push(name(before)?);
        }
        jobs.push(job);
    }
    let oid: Oid = "a".repeat(40).parse().map_err(|error: andon_model::hash::NotAHash| error.to_string())?;
    let event = Event::RunQueued {
        run: RunId(1),
        purpose: Purpose::Trunk,
        commit: oid.clone(),
        tree: oid,
        parent: None,
        jobs,
        plan: None,
        again: None,
    };
    let mut runs = Runs::default();
    runs.evolve(&Recorded { seq: 1, at: Time(0), by: Actor::line("bench"), project: None, event });
    Ok(runs)
}

/// A file whose sixteen matrices make 256 jobs each.
fn many() -> String {
    let values: Vec<String> = (0..16).map(|n| format!("v{n}")).collect();
    let values = values.join(", ");
    let mut text = "version: 1\npipeline:\n  jobs:\n".to_owned();
    for n in 0..16 {
        // Writing into a string does not fail.
        let _ = writeln!(
            text,
            "    m{n}: {{ run: make, matrix: {{ a: [{values}], b: [{values}] }}, env: {{ X: $MATRIX_A }} }}"
        );
    }
    text
}
