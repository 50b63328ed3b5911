//! The command line: what can be said, and the exit status of each outcome. What a command does is in `commands`.

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::client::Failure;
use crate::{commands, demo, router, serve};

/// Continuous delivery in one binary: test what will land, land what is green, release it watched, take it back when it hurts.
#[derive(Debug, Parser)]
#[command(name = "andon", version, about, propagate_version = true, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// Options of every command that asks the server.
#[derive(Debug, Clone, Args)]
pub struct Common {
    /// The server; default: the one last logged in to.
    #[arg(long, global = true, env = "ANDON_SERVER")]
    pub server: Option<String>,
    /// A token instead of the kept login.
    #[arg(long, global = true, env = "ANDON_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// The project; default: that of the git remote `andon` of this folder, or the only one there is.
    #[arg(long, short, global = true, env = "ANDON_PROJECT")]
    pub project: Option<String>,
    /// Print the answer as JSON.
    #[arg(long, global = true)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server.
    Serve(serve::Serve),
    /// Send users to services as a server elsewhere says, and go on with it while that server is away.
    Router(router::Apart),
    /// See everything at work on a small shop: two minutes, nothing to set up.
    Demo(demo::Demo),
    #[command(flatten)]
    Ask(commands::Ask),
}

/// Reads the command line and does what it says.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Command::Serve(options) => serve::run(options).map_err(Failure::from),
        Command::Router(options) => router::run(&cli.common, options),
        Command::Demo(options) => demo::run(&cli.common, options),
        Command::Ask(ask) => commands::run(&cli.common, ask),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.words.is_empty() {
                eprintln!("■ {}", failure.words);
            }
            ExitCode::from(failure.status)
        }
    }
}
