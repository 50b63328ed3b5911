//! `cargo xtask fuzz SECONDS [TARGET…]`: runs fuzz targets one after the other, and keeps for how long each has run since it last broke.
//!
//! The builds are instrumented by flags of the stable compiler, so neither nightly nor cargo-fuzz is needed; libFuzzer comes with the crate `libfuzzer-sys`.
//! What a run learned stays in the target directory and is where the next one begins.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::figure::{Figure, keep, kept};
use crate::house::target;

/// Readers of reports, which the figures speak of, and the samples each begins with.
const READERS: [(&str, &[&str]); 13] = [
    (
        "junit",
        &[
            "jest.xml",
            "mocha.xml",
            "nextest.xml",
            "node-junit.xml",
            "phpunit.xml",
            "pytest.xml",
            "surefire.xml",
            "vitest.xml",
        ],
    ),
    ("trx", &[]),
    ("tap", &["bats.tap", "mocha.tap", "node.tap", "test-more.tap"]),
    ("gotest", &["go-test.json"]),
    ("libtest", &["libtest.json", "nextest.libtest-json", "nextest.libtest-json-plus"]),
    ("lcov", &["c8.lcov", "coverage-py.lcov", "gcov.lcov", "jest.lcov", "llvm-cov.lcov", "node.lcov"]),
    ("cobertura", &["c8-cobertura.xml", "coverage-py.xml", "phpunit-cobertura.xml"]),
    ("jacoco", &["jacoco.xml"]),
    ("clover", &["c8-clover.xml", "jest-clover.xml", "phpunit-clover.xml"]),
    ("gocover", &["go.cover"]),
    ("coverage_json", &["coverage-py.json", "llvm-cov.json", "simplecov.resultset.json"]),
    ("sarif", &["eslint.sarif"]),
    ("measured", &["hyperfine.json"]),
];
/// Seconds that each of them has to run without breaking.
const HOUR: f64 = 3600.0;
/// What instruments a build for libFuzzer: edges, comparisons and the lengths of what is compared. `cfg(fuzzing)` is what libfuzzer-sys looks for.
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 -Cdebug-assertions -Coverflow-checks --cfg fuzzing";

const NOTES: &str = "Seconds of fuzzing by libFuzzer in all runs so far, guided by coverage, with overflow checks and debug assertions, since the target last broke; each begins with reports \
    of real tools. A target asserts what has to hold of anything that is read: no panic, bounded memory, no path out of the working copy, never more covered or red than there is. Runs on other \
    targets are not kept here.";

/// Runs the targets; all readers of reports, where none is named.
pub fn run(words: &[String]) -> Result<(), String> {
    let usage = "usage: cargo xtask fuzz SECONDS [TARGET…]";
    let seconds: u32 = words.first().and_then(|word| word.parse().ok()).ok_or(usage)?;
    let named: Vec<&str> = words[1..].iter().map(String::as_str).collect();
    let chosen = if named.is_empty() { READERS.iter().map(|(name, _)| *name).collect() } else { named };
    let room = target().join("fuzz");
    build(&room, &chosen)?;
    let mut broken = Vec::new();
    for name in chosen {
        let whole = fuzz(&room, name, seconds)?;
        if !whole {
            broken.push(name);
        }
        if READERS.iter().any(|(reader, _)| *reader == name) {
            // Kept after each, since a run of all takes long.
            record(name, if whole { f64::from(seconds) } else { f64::NEG_INFINITY })?;
        }
    }
    match broken.as_slice() {
        [] => Ok(()),
        broken => Err(format!(
            "broken: {}\nhint: the input stands in {}",
            broken.join(", "),
            room.join("broken").display()
        )),
    }
}

fn build(room: &Path, targets: &[&str]) -> Result<(), String> {
    let mut command = Command::new("cargo");
    command.args([
        "build",
        "--release",
        "--quiet",
        "--target",
        "x86_64-unknown-linux-gnu",
        "--manifest-path",
    ]);
    command.arg(crate::root().join("fuzz/Cargo.toml")).env("RUSTFLAGS", FLAGS).env("CARGO_TARGET_DIR", room);
    for target in targets {
        command.args(["--bin", target]);
    }
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("the fuzz targets could not be built: {status}")),
        Err(error) => Err(format!("cargo: {error}")),
    }
}

/// Whether the target ran to its end.
fn fuzz(room: &Path, name: &str, seconds: u32) -> Result<bool, String> {
    let said = |what: &Path, error: std::io::Error| format!("{}: {error}", what.display());
    let (learned, seeds, broken) =
        (room.join("learned").join(name), room.join("seeds").join(name), room.join("broken"));
    for folder in [&learned, &seeds, &broken] {
        std::fs::create_dir_all(folder).map_err(|error| said(folder, error))?;
    }
    let samples = crate::root().join("crates/andon-validation/tests/data");
    for sample in READERS.iter().filter(|(reader, _)| *reader == name).flat_map(|(_, samples)| *samples) {
        std::fs::copy(samples.join(sample), seeds.join(sample))
            .map_err(|error| said(&samples.join(sample), error))?;
    }
    let log: PathBuf = room.join(format!("{name}.log"));
    let file = std::fs::File::create(&log).map_err(|error| said(&log, error))?;
    println!("{name}: {seconds} s");
    let status = Command::new(room.join("x86_64-unknown-linux-gnu/release").join(name))
        .args([
            format!("-max_total_time={seconds}"),
            format!("-artifact_prefix={}/{name}-", broken.display()),
        ])
        .args(["-timeout=10", "-rss_limit_mb=2048", "-max_len=65536", "-print_final_stats=1"])
        .args([&learned, &seeds])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(file)
        .status()
        .map_err(|error| format!("{name}: {error}"))?;
    Ok(status.success())
}

/// Adds seconds to what is kept; a target that broke begins again.
fn record(name: &str, seconds: f64) -> Result<(), String> {
    let known = kept("fuzz")?;
    let title = |name: &str| format!("{name}: seconds without a panic");
    let figures = READERS.iter().map(|(reader, _)| {
        let before =
            known.iter().find(|figure| figure.name == title(reader)).map_or(0.0, |figure| figure.value);
        let sum = if *reader == name { (before + seconds).max(0.0) } else { before };
        Figure::higher(title(reader), sum, "s", Some(HOUR))
    });
    keep("fuzz", figures.collect(), NOTES)
}
