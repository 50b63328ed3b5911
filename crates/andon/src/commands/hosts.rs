//! Hosts in the terminal: invite one, be one, empty one. The agent runs here in the foreground; what it runs outlives it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use andon_line::hosts::Invitation;
use andon_line::view::HostsView;
use andon_model::{HostName, Span};
use andon_runtime::remote::{self, Joining};
use clap::{Args, Subcommand};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::read;
use crate::cli::Common;
use crate::client::{Client, Failure};
use crate::say::say;

/// `andon host …`
#[derive(Debug, Subcommand)]
pub enum Host {
    /// Hosts, what runs on each, and what one that is emptied waits for.
    List,
    /// Print the command with which one machine may join, once.
    Token {
        /// How long it is good; default: 15m.
        #[arg(long)]
        lasts: Option<Span>,
    },
    /// Be a host: join with the token of `andon host token` and run instances here until told to stop. They outlive this process.
    Join(Join),
    /// Be the host again that joined before with this directory.
    Run {
        /// The directory it joined with.
        #[arg(long, default_value = "andon-host")]
        data: PathBuf,
    },
    /// Empty a host; it stays one. The server's own is called `here`.
    Drain(Which),
    /// Let a host take instances again.
    Resume {
        /// Its name.
        host: HostName,
    },
    /// Empty a host and let it go.
    Leave(Which),
}

/// Options of `andon host join`; the token is given by `--token`.
#[derive(Debug, Args)]
pub struct Join {
    /// Where the server lets hosts in, as HOST:PORT.
    at: String,
    /// What it is to be called; default: as the machine is.
    #[arg(long)]
    name: Option<HostName>,
    /// The address on which its instances listen; default: the one it reaches the server from.
    #[arg(long)]
    address: Option<IpAddr>,
    /// Where its instances and its secret are kept.
    #[arg(long, default_value = "andon-host")]
    data: PathBuf,
    /// Something to know it by: zone=a. May be given again.
    #[arg(long = "label", value_parser = label)]
    labels: Vec<(String, String)>,
}

/// A host and a reason.
#[derive(Debug, Args)]
pub struct Which {
    /// Its name.
    host: HostName,
    /// The reason.
    #[arg(long, short, default_value = "")]
    message: String,
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("a label is written KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// Does it.
pub fn host(common: &Common, host: Host) -> Result<(), Failure> {
    match host {
        Host::Join(options) => return join(common, options),
        Host::Run { data } => {
            return attend(async move |exe, stop| remote::run(&data, exe, stop, told).await);
        }
        _ => {}
    }
    let client = Client::new(common.server.clone(), common.token.clone())?;
    let command = |name: &HostName, command: &str, why: &str, words: &str| {
        let answer = client.post(&format!("/api/v1/hosts/{name}/{command}"), &json!({ "why": why }))?;
        match common.json {
            true => super::print_json(&answer),
            false => say!("● {words}"),
        }
        Ok(())
    };
    match host {
        Host::List => list(&client, common.json),
        Host::Token { lasts } => {
            let answer = client.post("/api/v1/hosts", &json!({ "lasts": lasts }))?;
            let Invitation { server, token, lasts } = read(answer.clone())?;
            if common.json {
                super::print_json(&answer);
                return Ok(());
            }
            say!(
                "● good once, for {}; on the new machine, with the same andon and as root:",
                lasts.compact()
            );
            say!("andon host join {server} \\\n  --token {token}");
            Ok(())
        }
        Host::Drain(which) => {
            let words = format!("{} is emptied; `andon host list` shows how far it is", which.host);
            command(&which.host, "drain", &which.message, &words)
        }
        Host::Resume { host } => command(&host, "resume", "", &format!("{host} takes instances again")),
        Host::Leave(which) => {
            let words =
                format!("{} leaves when it is empty; `andon host list` shows how far it is", which.host);
            command(&which.host, "leave", &which.message, &words)
        }
        Host::Join(_) | Host::Run { .. } => Ok(()),
    }
}

fn list(client: &Client, as_json: bool) -> Result<(), Failure> {
    let value = client.get("/api/v1/hosts")?;
    let view: HostsView = read(value.clone())?;
    if as_json {
        super::print_json(&value);
        return Ok(());
    }
    say!("{}", view.heading);
    for host in &view.hosts {
        let address = host.address.as_ref().map(|address| format!(" ({address})")).unwrap_or_default();
        say!("{} {}{address}: {}", host.mark.sign(), host.name, host.words);
        for (service, many) in &host.services {
            say!("    {many} × {service}");
        }
        for waits in &host.waits {
            say!("  ▲ {waits}");
        }
    }
    if view.dial.is_none() {
        say!("hint: `andon serve --hosts ADDRESS:PORT` lets other machines in");
    }
    Ok(())
}

fn join(common: &Common, options: Join) -> Result<(), Failure> {
    let name = match options.name {
        Some(name) => name,
        None => named()?,
    };
    let joining = Joining {
        server: options.at,
        token: common.token.clone().unwrap_or_default(),
        name,
        address: options.address,
        labels: options.labels.into_iter().collect::<BTreeMap<_, _>>(),
    };
    attend(async move |exe, stop| remote::join(&options.data, exe, joining, stop, told).await)
}

/// The machine's own name, in the letters that a name may have.
pub(super) fn named<N: std::str::FromStr>() -> Result<N, Failure> {
    let text = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let letter = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let made: String = text.trim().chars().map(letter).take(40).collect();
    let name = made.trim_matches('-').parse::<N>();
    name.map_err(|_| {
        Failure::from("this machine has no name that can be taken over\nhint: give one with --name")
    })
}

pub(super) fn told(words: String) {
    say!("● {words}");
}

/// Runs the agent until it ends or is told to stop.
pub(super) fn attend<F>(life: impl FnOnce(PathBuf, CancellationToken) -> F) -> Result<(), Failure>
where
    F: Future<Output = Result<(), String>>,
{
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("ANDON_LOG").unwrap_or_else(|_| "info".into()),
        )
        .with_writer(std::io::stderr)
        .init();
    let exe = std::env::current_exe().map_err(|error| error.to_string())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let stop = CancellationToken::new();
    let done: Result<(), String> = runtime.map_err(|error| error.to_string())?.block_on(async {
        let heard = stop.clone();
        let words = |error: std::io::Error| error.to_string();
        let mut term = signal(SignalKind::terminate()).map_err(words)?;
        let mut int = signal(SignalKind::interrupt()).map_err(words)?;
        tokio::spawn(async move {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
            heard.cancel();
        });
        life(exe, stop).await
    });
    Ok(done?)
}
