//! The server's station for hosts: sees which are lost and which come back, and lets those go that are empty. Moves no instance: the
//! upkeep of each environment does.

use std::sync::Arc;
use std::time::Duration;

use andon_environment::hosts::Host;
use andon_model::HostName;
use andon_model::event::{Actor, Event};
use tokio_util::sync::CancellationToken;

use crate::{Line, Refusal};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);
/// Without a connection for so long, a host counts as lost.
const LOST: Duration = Duration::from_secs(10);
/// The station's name in the journal.
const HOSTS: &str = "hosts";

pub(super) async fn run(line: Arc<Line>, stop: CancellationToken) {
    loop {
        if let Err(error) = step(&line).await {
            tracing::error!(%error, "hosts could not be looked after, it is tried again");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

async fn step(line: &Arc<Line>) -> Result<(), Refusal> {
    let hosts: Vec<Host> = line.hosts().joined.values().cloned().collect();
    for host in hosts {
        let (name, silent) = (host.name.clone(), line.fleet.silent_for(&host.name));
        match (silent, &host.lost) {
            (None, Some(_)) => tell(line, Event::HostBack { host: name.clone() }).await?,
            (Some(silent), None) if silent >= LOST => {
                let why = match line.hosts_dial() {
                    Some(_) => format!("no connection for {} s", silent.as_secs()),
                    None => "the server was started without --hosts".into(),
                };
                tell(line, Event::HostLost { host: name.clone(), why }).await?;
            }
            _ => {}
        }
        if host.leaving.as_ref().is_some_and(|leaving| leaving.forget) && is_empty(line, &name) {
            let_go(line, &host, silent.is_none()).await?;
        }
    }
    Ok(())
}

fn is_empty(line: &Line, host: &HostName) -> bool {
    let on_it = |i: &andon_environment::Instance| i.host.as_ref() == Some(host);
    line.projects().iter().all(|project| !project.state().estate.instances.values().any(on_it))
}

/// Everything of it is ended before it is forgotten. One that is lost hears of it if it ever comes back.
async fn let_go(line: &Arc<Line>, host: &Host, reached: bool) -> Result<(), Refusal> {
    let name = host.name.clone();
    if reached {
        let (fleet, at) = (Arc::clone(&line.fleet), name.clone());
        let dismissed = tokio::task::spawn_blocking(move || fleet.dismiss(&at)).await;
        let dismissed = dismissed.map_err(|error| Refusal::Broken(error.to_string()))?;
        if let Err(error) = dismissed {
            tracing::warn!(host = %name, %error, "it could not be let go yet");
            return Ok(());
        }
    } else if host.lost.is_none() {
        return Ok(());
    }
    let why = host.leaving.as_ref().map(|leaving| leaving.why.clone()).unwrap_or_default();
    tell(line, Event::HostLeft { host: name.clone(), why }).await?;
    line.fleet.forget(&name);
    Ok(())
}

async fn tell(line: &Line, event: Event) -> Result<(), Refusal> {
    line.decide_server(Actor::line(HOSTS), |_, _| Ok((vec![event], ()))).await
}
