//! Real input: a published crate and a published package for Node, each with its own tests, go through the line as their example says; what Andon counts
//! is what their own tools count.
//!
//! Needs the registries of crates and of npm. Without them a test says SKIPPED, and fails where CI=true.

#![allow(clippy::print_stdout, reason = "a test says what it measured")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod support;

use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use support::example::Example;
use support::{Server, of_type};

/// Whether this can be done here.
fn possible(test: &str, how: &str) -> bool {
    let done = Command::new("sh").args(["-c", how]).output().unwrap();
    if !done.status.success() {
        println!("SKIPPED: {test} ({})", String::from_utf8_lossy(&done.stderr).trim());
        assert_ne!(
            std::env::var("CI").as_deref(),
            Ok("true"),
            "in CI a component that is missing is a failure"
        );
    }
    done.status.success()
}

/// Follows the page; what the run of its change counted, and what the job's own tool printed.
fn through_the_line(name: &str) -> (Value, String) {
    let mut server = Server::fresh();
    server.patience = Duration::from_secs(240);
    let example = Example::open(&server, name);
    let [fetch, put] = example.blocks()[..] else { panic!("the page has other blocks") };
    example.run(fetch);
    let said = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| example.run(put)));
    let said = said.unwrap_or_else(|panic| {
        for job in ["unit", "package"] {
            let log = server.cli(&["run", "log", "1", job]);
            println!("{job}:\n{}", String::from_utf8_lossy(&log.stdout));
        }
        std::panic::resume_unwind(panic)
    });
    println!("{said}");
    let change = support::number(&said);
    assert_eq!(server.decided(change)["row"]["standing"], "landed");
    let journal = server.journal();
    let run = of_type(&journal, "run_finished")[0]["event"].clone();
    let artifact = &of_type(&journal, "artifact_built")[0]["event"];
    assert!(artifact["bytes"].as_u64().unwrap() > 1_000, "{artifact}");
    let log = server.cli(&["run", "log", "1", "unit"]);
    (run, String::from_utf8_lossy(&log.stdout).into_owned())
}

/// The number that stands before or behind these words.
fn beside(text: &str, before: &str, behind: &str) -> u64 {
    let plain: String =
        text.split('\u{1b}').map(|piece| piece.split_once('m').map_or(piece, |(_, rest)| rest)).collect();
    let text = if text.contains('\u{1b}') { plain } else { text.to_owned() };
    let at = text.find(before).unwrap_or_else(|| panic!("{before:?} is not in:\n{text}")) + before.len();
    let rest = &text[at..];
    let end = if behind.is_empty() { rest.len() } else { rest.find(behind).unwrap() };
    rest[..end].split_whitespace().find_map(|word| word.parse().ok()).unwrap()
}

#[test]
fn a_published_crate_goes_through_with_its_own_tests() {
    let test = "strsim through the line";
    if !possible(test, "cargo nextest --version && cargo info -q strsim@0.11.1") {
        return;
    }
    let (run, log) = through_the_line("rust");
    let own = beside(&log, "Summary [", " tests run").max(beside(&log, "] ", " tests run"));
    println!("strsim: {}; its tool counts {own}", run["tests"]);
    assert_eq!(run["tests"]["passed"].as_u64().unwrap(), own);
    assert!(own > 90, "{log}");
    assert_eq!(run["tests"]["failed"], 0);
}

#[test]
fn a_published_package_for_node_goes_through_with_its_own_tests() {
    let test = "minimist through the line";
    if !possible(test, "npm view minimist@1.2.8 name && node --version") {
        return;
    }
    let (run, log) = through_the_line("node");
    let (tests, pass) = (beside(&log, "# tests ", "\n"), beside(&log, "# pass ", "\n"));
    println!("minimist: {}; its tool counts {pass} of {tests}; coverage {}", run["tests"], run["coverage"]);
    assert_eq!(run["tests"]["passed"].as_u64().unwrap(), pass);
    assert!(tests == pass && tests > 100, "{log}");
    let coverage = &run["coverage"];
    assert!(coverage["covered"].as_u64().unwrap() > 100, "{run}");
}
