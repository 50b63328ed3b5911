//! Runners in the terminal: invite one, be one, give one no more jobs. The agent runs here in the foreground; what it runs outlives it.

use std::path::PathBuf;

use andon_line::hosts::Invitation;
use andon_line::view::RunnersView;
use andon_model::{LabelName, RunnerName, Span};
use andon_runner::remote::{self, Joining};
use clap::{Args, Subcommand};
use serde_json::json;

use super::hosts::{attend, named, told};
use super::read;
use crate::cli::Common;
use crate::client::{Client, Failure};
use crate::say::say;

/// `andon runner …`
#[derive(Debug, Subcommand)]
pub enum Runner {
    /// Runners, their labels, and the jobs that each has.
    List,
    /// Print the command with which one machine may join, once.
    Token {
        /// How long it is good; default: 15m.
        #[arg(long)]
        lasts: Option<Span>,
        /// A label that it gets whatever it says itself: gpu. May be given again.
        #[arg(long = "label")]
        labels: Vec<LabelName>,
    },
    /// Be a runner: join with the token of `andon runner token` and run jobs here until told to stop. They outlive this process.
    Join(Join),
    /// Be the runner again that joined before with this directory.
    Run {
        #[command(flatten)]
        own: Own,
    },
    /// Give a runner no more jobs; it stays one.
    Drain(Which),
    /// Give a runner jobs again.
    Resume {
        /// Its name.
        runner: RunnerName,
    },
    /// Give a runner no more jobs and let it go when its last one is over.
    Leave(Which),
}

/// What is this machine's own business.
#[derive(Debug, Args)]
pub struct Own {
    /// Where its jobs and its secret are kept.
    #[arg(long, default_value = "andon-runner")]
    data: PathBuf,
    /// Let jobs that say `docker: true` reach the container engine: whoever can push then can do what this agent's user can.
    #[arg(long, env = "ANDON_DOCKER_IN_JOBS")]
    docker_in_jobs: bool,
}

/// Options of `andon runner join`; the token is given by `--token`.
#[derive(Debug, Args)]
pub struct Join {
    /// Where the server lets runners in, as HOST:PORT.
    at: String,
    /// What it is to be called; default: as the machine is.
    #[arg(long)]
    name: Option<RunnerName>,
    /// What jobs may ask for with `runs_on`: linux. May be given again.
    #[arg(long = "label")]
    labels: Vec<LabelName>,
    /// Jobs at once; default: one per core.
    #[arg(long)]
    slots: Option<u32>,
    #[command(flatten)]
    own: Own,
}

/// A runner and a reason.
#[derive(Debug, Args)]
pub struct Which {
    /// Its name.
    runner: RunnerName,
    /// The reason.
    #[arg(long, short, default_value = "")]
    message: String,
}

/// Does it.
pub fn runner(common: &Common, runner: Runner) -> Result<(), Failure> {
    match runner {
        Runner::Join(options) => return join(common, options),
        Runner::Run { own } => {
            return attend(async move |exe, stop| {
                remote::run(&own.data, exe, own.docker_in_jobs, stop, told).await
            });
        }
        _ => {}
    }
    let client = Client::new(common.server.clone(), common.token.clone())?;
    let command = |name: &RunnerName, command: &str, why: &str, words: &str| {
        let answer = client.post(&format!("/api/v1/runners/{name}/{command}"), &json!({ "why": why }))?;
        match common.json {
            true => super::print_json(&answer),
            false => say!("● {words}"),
        }
        Ok(())
    };
    match runner {
        Runner::List => list(&client, common.json),
        Runner::Token { lasts, labels } => {
            let answer = client.post("/api/v1/runners", &json!({ "lasts": lasts, "labels": labels }))?;
            let Invitation { server, token, lasts } = read(answer.clone())?;
            if common.json {
                super::print_json(&answer);
                return Ok(());
            }
            say!("● good once, for {}; on the new machine, with the same andon:", lasts.compact());
            say!("andon runner join {server} \\\n  --token {token}");
            Ok(())
        }
        Runner::Drain(which) => {
            let words = format!("{} gets no more jobs; `andon runner list` shows what it has", which.runner);
            command(&which.runner, "drain", &which.message, &words)
        }
        Runner::Resume { runner } => command(&runner, "resume", "", &format!("{runner} gets jobs again")),
        Runner::Leave(which) => {
            let words = format!("{} leaves when its last job is over", which.runner);
            command(&which.runner, "leave", &which.message, &words)
        }
        Runner::Join(_) | Runner::Run { .. } => Ok(()),
    }
}

fn list(client: &Client, as_json: bool) -> Result<(), Failure> {
    let value = client.get("/api/v1/runners")?;
    let view: RunnersView = read(value.clone())?;
    if as_json {
        super::print_json(&value);
        return Ok(());
    }
    say!("{}", view.heading);
    for runner in &view.runners {
        let labels =
            if runner.labels.is_empty() { String::new() } else { format!(" [{}]", runner.labels.join(", ")) };
        say!("{} {}{labels}: {}", runner.mark.sign(), runner.name, runner.words);
        for job in &runner.jobs {
            say!("    {job}");
        }
    }
    if view.dial.is_none() {
        say!("hint: `andon serve --runners ADDRESS:PORT` lets other machines in");
    }
    Ok(())
}

fn join(common: &Common, options: Join) -> Result<(), Failure> {
    let name = match options.name {
        Some(name) => name,
        None => named()?,
    };
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let joining = Joining {
        server: options.at,
        token: common.token.clone().unwrap_or_default(),
        name,
        labels: options.labels,
        slots: options.slots.unwrap_or_else(|| u32::try_from(cores).unwrap_or(2)),
    };
    let Own { data, docker_in_jobs } = options.own;
    attend(async move |exe, stop| remote::join(&data, exe, docker_in_jobs, joining, stop, told).await)
}
