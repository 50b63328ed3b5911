//! HAProxy as the data plane, in the terminal: its configuration, and whether it does what the journal says.

use std::path::PathBuf;

use andon_haproxy::Config;
use andon_line::view::TrafficView;
use andon_line::view::traffic::RouteRow;
use andon_traffic::{Protocol, RevisionName, Route, RouteTable};
use clap::{Args, Subcommand};

use super::read;
use crate::cli::Common;
use crate::client::{Client, Failure, status};
use crate::say::say;

/// `andon haproxy …`
#[derive(Debug, Subcommand)]
pub enum Haproxy {
    /// Print the configuration that HAProxy needs for the services there are now. Print it anew when a service or a host is added.
    Config(Wanted),
    /// Whether the data plane does what the journal says. Exit status 1 when it does not.
    Status,
}

/// Options of `andon haproxy config`.
#[derive(Debug, Args)]
pub struct Wanted {
    /// Where HAProxy's runtime socket is to be: what `andon serve --haproxy` is told.
    #[arg(long, default_value = "/run/haproxy.sock")]
    socket: PathBuf,
    /// Where HAProxy listens for users, as its `bind` has it.
    #[arg(long, default_value = ":80")]
    bind: String,
    /// Instances that one revision of a service can have.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1000))]
    servers: u16,
}

/// Does it.
pub fn haproxy(common: &Common, wanted: Haproxy) -> Result<(), Failure> {
    let client = Client::new(common.server.clone(), common.token.clone())?;
    let value = client.get("/api/v1/traffic")?;
    let view: TrafficView = read(value.clone())?;
    match wanted {
        Haproxy::Config(wanted) => print(&view, wanted),
        Haproxy::Status if common.json => {
            super::print_json(&value);
            Ok(())
        }
        Haproxy::Status => show(&view),
    }
}

fn print(view: &TrafficView, wanted: Wanted) -> Result<(), Failure> {
    let socket = wanted.socket.to_string_lossy();
    let odd = |text: &str| {
        text.is_empty() || text.chars().any(|c| c.is_whitespace() || c.is_control() || "#\"'\\".contains(c))
    };
    if odd(&socket) || odd(&wanted.bind) {
        let hint = "hint: give --socket a path and --bind an ADDRESS:PORT without spaces and quotes";
        return Err(format!("HAProxy's configuration cannot hold that\n{hint}").into());
    }
    let route = |row: &RouteRow| Route {
        protocol: if row.http2 { Protocol::Http2 } else { Protocol::Http1 },
        hosts: row.hosts.clone(),
        ..Route::to(&row.service, &[], RevisionName(row.stable.clone()), Vec::new())
    };
    let table = RouteTable { routes: view.routes.iter().map(route).collect() };
    let config = Config { socket: wanted.socket, bind: wanted.bind, servers: usize::from(wanted.servers) };
    say!("{}", andon_haproxy::config(&config, &table).trim_end());
    Ok(())
}

fn show(view: &TrafficView) -> Result<(), Failure> {
    match &view.behind {
        None => say!("● {} does what the journal says", view.plane),
        Some(why) => say!("■ {} is behind: {why}", view.plane),
    }
    for lack in &view.lacks {
        say!("  ○ {lack}");
    }
    for route in &view.routes {
        let to = route.candidate.as_ref().map_or(String::new(), |candidate| {
            format!(", {} % of users to {candidate}", f64::from(route.weight_bp) / 100.0)
        });
        say!("  {} → {}{to}", route.service, route.stable);
    }
    if view.behind.is_some() { Err(Failure { words: String::new(), status: status::NO }) } else { Ok(()) }
}
