//! Repository chores. `cargo xtask ranks` checks the walls of the house, `bench AREA` measures and keeps the figures, `fuzz` goes on fuzzing, `figures` says what the
//! repository weighs. Ships nothing.

#![allow(clippy::print_stdout, reason = "chores say what they found")]

mod alone;
mod bench;
mod containers;
mod data;
mod environments;
mod figure;
mod figures;
mod fuzz;
mod hello;
mod house;
mod line;
mod load;
mod logs;
mod order;
mod peers;
mod pipeline;
mod plans;
mod proxies;
mod pump;
mod ranks;
mod recovery;
mod release;
mod states;
mod traffic;
mod validation;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done =
        match args.first().map(String::as_str) {
            Some("ranks") => ranks::run(),
            Some("bench") => bench::run(args.get(1).map(String::as_str), args.get(2..).unwrap_or_default()),
            Some("figures") => figures::run(args.iter().any(|arg| arg == "--cold")),
            Some("fuzz") => fuzz::run(args.get(1..).unwrap_or_default()),
            Some("alone") => alone::run(args.get(1..).unwrap_or_default()),
            Some("echo") => pump::echo(args.get(1).map(String::as_str), args.get(2).map(String::as_str)),
            Some("pump") => pump::run(args.get(1).map(String::as_str), args.get(2).map(String::as_str)),
            Some("hello") => hello::run(args.get(1).map(String::as_str)),
            _ => Err("usage: cargo xtask ranks | bench line|pipeline|logs|order FILE.csv...|router|proxies|release|environments|docker|data|states|recovery|validation | figures [--cold] | fuzz SECONDS [TARGET…]"
                .to_owned()),
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
