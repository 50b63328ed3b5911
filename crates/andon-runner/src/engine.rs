//! The container engine for jobs that ask for it: where its socket is, and that it may be spoken to. Speaks with no engine.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use crate::order::Order;

/// Gives an attempt the engine's socket, where its machine's owner allows it; a job that may not is told so in its output, with `hint`.
pub fn give(order: &mut Order, allowed: bool, hint: &str) -> io::Result<()> {
    let said = std::env::var("DOCKER_HOST").ok();
    let socket =
        said.as_deref().and_then(|host| host.strip_prefix("unix://")).unwrap_or("/var/run/docker.sock");
    let why = match Path::new(socket).canonicalize() {
        Ok(socket) if allowed => {
            order.env.insert("DOCKER_HOST".into(), format!("unix://{}", socket.display()));
            order.writes.push(socket);
            return Ok(());
        }
        Ok(_) => format!("jobs do not reach the container engine here; hint: {hint}"),
        Err(_) => "this machine has no container engine".to_owned(),
    };
    let mut file = File::options().create(true).append(true).open(&order.log)?;
    writeln!(file, "andon: {why}")
}
