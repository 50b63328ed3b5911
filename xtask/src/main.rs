//! Repository chores: `cargo xtask ranks` checks the walls of the house. Ships nothing.

#![allow(clippy::print_stdout, reason = "chores say what they found")]

mod ranks;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match args.first().map(String::as_str) {
        Some("ranks") => ranks::run(),
        _ => Err("usage: cargo xtask ranks".to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(words) => {
            eprintln!("■ {words}");
            ExitCode::FAILURE
        }
    }
}

/// The repository's root.
fn root() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(Default::default, ToOwned::to_owned)
}
