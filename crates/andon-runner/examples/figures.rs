//! Measures attempts without a server: `figures BINARY`, where the binary's `job-shim` is the shim. Prints a figure a line, as JSON, for
//! `cargo xtask bench pipeline`.
#![allow(clippy::print_stdout, reason = "it is asked for figures")]

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;

use andon_model::Span;
use andon_runner::{End, News, Order, Room, Runner, Step};
use andon_sandbox::{Bounds, Means};

type Done<T> = Result<T, Box<dyn Error>>;

/// Jobs that are timed, one after the other.
const JOBS: usize = 200;
/// Steps of a long job.
const STEPS: usize = 250;
/// Cancels.
const CANCELS: usize = 1000;
/// Cancels at the same time.
const AT_ONCE: usize = 4;
/// Between asking and killing, in milliseconds.
const GRACE: u64 = 20;

/// Ignores TERM, leaves its session, forks twice and lets go, and goes on forking.
const UNRULY: &str = "trap '' TERM; touch begun
(setsid sh -c 'trap \"\" TERM; sleep 1000' &)
(sh -c '(sh -c \"trap \\\"\\\" TERM; sleep 1000\" &)' &)
race() { (race &) ; sleep 0.05; }
race
while true; do (sleep 1000 &); sleep 0.01; done";

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Done<()> {
    let binary = std::env::args_os().nth(1).ok_or("usage: figures BINARY")?;
    let binary = PathBuf::from(binary).canonicalize()?;
    let room = tempfile::Builder::new().prefix("andon-figures-").tempdir_in("/var/tmp")?;
    let runner = |means: Option<Means>| {
        let runner =
            Runner::new(binary.clone(), room.path(), format!("andon-figures-{}", std::process::id()));
        match means {
            Some(means) => runner.with(means),
            None => runner,
        }
    };
    let all = runner(None).means().clone();
    let bare = Means { groups: all.groups.clone(), ..Means::none("it is measured without") };
    for (how, means) in [("bare", bare), ("sandboxed", all.clone())] {
        let runner = runner(Some(means));
        let mut took = Vec::new();
        for n in 0..JOBS {
            let order = order(room.path(), &format!("{how}-{n}"), "true", 1)?;
            let begun = Instant::now();
            expect(runner.run(&order, std::future::pending()).await, &End::Exited(0))?;
            took.push(begun.elapsed().as_secs_f64() * 1000.0);
            Room::at(&order.room).remove()?;
        }
        tell(
            &format!("a {how} job of one step, from its order to its recorded end: median of {JOBS}"),
            quantile(&mut took, 0.5),
            "ms",
            (how == "sandboxed").then_some(20.0),
            "lower",
        );
        tell(&format!("a {how} job of one step: p99"), quantile(&mut took, 0.99), "ms", None, "lower");
        let order = order(room.path(), &format!("{how}-long"), "true", STEPS)?;
        let begun = Instant::now();
        let mut running = runner.start(&order).await?;
        let mut seen = 0;
        let end = loop {
            match running.next().await {
                News::Steps(steps) => seen += steps.len(),
                News::Ended(end) => break end,
            }
        };
        expect(end, &End::Exited(0))?;
        if seen != STEPS {
            return Err(format!("{seen} of {STEPS} steps were recorded").into());
        }
        let each = begun.elapsed().as_secs_f64() * 1000.0 / STEPS as f64;
        tell(
            &format!("a {how} step with its durable record, in a job of {STEPS}"),
            each,
            "ms",
            (how == "bare").then_some(5.0),
            "lower",
        );
        Room::at(&order.room).remove()?;
    }
    cancels(&runner(Some(all)), room.path()).await
}

async fn cancels(runner: &Runner, room: &Path) -> Done<()> {
    let (mut took, mut survivors) = (Vec::new(), 0);
    for round in 0..CANCELS / AT_ONCE {
        let all = (0..AT_ONCE).map(|n| async move {
            let order =
                order(room, &format!("cancel-{round}-{n}"), UNRULY, 1).map_err(|error| error.to_string())?;
            let mut running = runner.start(&order).await?;
            while !order.workdir.join("begun").exists() {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
            // At another point of its forking each time.
            tokio::time::sleep(std::time::Duration::from_millis((round * 7 % 60) as u64)).await;
            let asked = Instant::now();
            running.stop();
            let end = loop {
                if let News::Ended(end) = running.next().await {
                    break end;
                }
            };
            let after = asked.elapsed().as_secs_f64() * 1000.0 - GRACE as f64;
            if end != End::Cancelled {
                return Err(format!("a cancelled job ended as {end:?}"));
            }
            let left = left(&order.room);
            Room::at(&order.room).remove().map_err(|error| error.to_string())?;
            Ok::<_, String>((after, left))
        });
        for done in futures_util::future::join_all(all).await {
            let (after, left) = done?;
            took.push(after);
            survivors += left;
        }
    }
    tell(
        &format!(
            "survivors of {CANCELS} cancels of a tree that ignores TERM, calls setsid, forks twice and goes on forking"
        ),
        survivors as f64,
        "",
        Some(0.0),
        "lower",
    );
    tell("a cancel, beyond its grace: median", quantile(&mut took, 0.5), "ms", Some(50.0), "lower");
    tell("a cancel, beyond its grace: p99", quantile(&mut took, 0.99), "ms", None, "lower");
    Ok(())
}

/// Processes that carry the mark of this room.
fn left(room: &Path) -> usize {
    let table = andon_sandbox::process::table().unwrap_or_default();
    let of_it = |process: andon_sandbox::Process| {
        process.variable("ANDON_ATTEMPT").is_some_and(|mark| Path::new(&mark) == room)
    };
    table.values().filter(|stat| !stat.zombie && of_it(stat.process)).count()
}

fn order(room: &Path, name: &str, script: &str, steps: usize) -> Done<Order> {
    let dir = room.join("attempts").join(name);
    std::fs::create_dir_all(dir.join("tree"))?;
    let step = |n| Step {
        name: format!("step {n}"),
        script: script.into(),
        env: BTreeMap::new(),
        timeout_ms: None,
        service: None,
    };
    Ok(Order {
        name: name.to_owned(),
        steps: (1..=steps).map(step).collect(),
        workdir: dir.join("tree"),
        log: dir.join("log"),
        room: dir,
        env: BTreeMap::from([("PATH".into(), std::env::var("PATH")?)]),
        timeout: Span::secs(600),
        quiet: None,
        grace: Span(GRACE),
        secrets: Vec::new(),
        log_limit: 1 << 30,
        limits: Bounds::default(),
        image: None,
        network: true,
        reads: Vec::new(),
        writes: Vec::new(),
    })
}

fn expect(end: End, wanted: &End) -> Done<()> {
    if &end == wanted { Ok(()) } else { Err(format!("a job ended as {end:?}").into()) }
}

fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * share).round() as usize]
}

fn tell(name: &str, value: f64, unit: &str, bar: Option<f64>, better: &str) {
    let value = (value * 100.0).round() / 100.0;
    let met = bar.map(|bar| if better == "lower" { value <= bar } else { value >= bar });
    println!(
        "{}",
        serde_json::json!({ "name": name, "value": value, "unit": unit, "bar": bar, "better": better, "met": met })
    );
}
