//! The one binary. Decides which of its lives it leads: hook of a push, shim of a job or an instance, or the command line.

mod cli;
mod client;
mod commands;
mod demo;
mod router;
mod say;
mod serve;
mod upgrade;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let called = args.next().unwrap_or_default();
    // git runs hooks by their file name: the hook is a link to this binary.
    if std::path::Path::new(&called).file_name().is_some_and(|name| name == "proc-receive") {
        return exit(andon_git::hook::main());
    }
    // Shims start before anything else: no runtime, no command line.
    let first = args.next().unwrap_or_default();
    if first == "job-shim" {
        return exit(andon_runner::shim::main(std::path::Path::new(&args.next().unwrap_or_default())));
    }
    if first == "shim" {
        return exit(andon_runtime::shim_main(std::path::Path::new(&args.next().unwrap_or_default())));
    }
    cli::run()
}

fn exit(status: i32) -> ExitCode {
    ExitCode::from(u8::try_from(status).unwrap_or(1))
}
