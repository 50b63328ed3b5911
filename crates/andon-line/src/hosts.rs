//! What people and machines do with hosts: invite one, join, come back, empty it, let it leave. Moves nothing itself.

use std::net::SocketAddr;
use std::sync::Arc;

use andon_environment::hosts::{HERE, Places};
use andon_model::event::{Event, Role};
use andon_model::{Actor, Digest, HostName, Span};
use andon_runtime::Runtime;
use andon_runtime::remote::trust::Identity;
use andon_runtime::remote::{self, Admit, Entry, Refused};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::access::Caller;
use crate::intake::plain;
use crate::{Line, Project, Refusal};

/// How long an invitation lasts, unless it says; and at most.
pub(crate) const INVITED: Span = Span::secs(900);
pub(crate) const INVITED_MOST: Span = Span::secs(7 * 86_400);
/// More hosts than this are a mistake.
const MOST: usize = 500;

/// Where machines come in.
pub struct Door {
    pub(crate) identity: Identity,
    /// Host and port that they dial.
    pub server: String,
}

/// What a new machine is told.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Invitation {
    /// Where to go.
    pub server: String,
    /// What to bring.
    pub token: String,
    /// How long it is worth anything.
    pub lasts: Span,
}

impl Line {
    /// Opens the door to hosts; call it before the stations run, or hosts that joined count as lost.
    pub fn open_to_hosts(
        self: &Arc<Line>,
        listener: TcpListener,
        stop: CancellationToken,
    ) -> Result<(), Refusal> {
        let identity = Identity::open(&self.settings.data.join("hosts-door.json"))?;
        let server = dialled(&self.settings.url, listener.local_addr()?);
        let door = Door { identity: identity.clone(), server };
        if self.hosts_door.set(door).is_err() {
            return Err(Refusal::Broken("the door to hosts is open already".into()));
        }
        let line = Arc::clone(self);
        let admit: Admit = Arc::new(move |entry| {
            let line = Arc::clone(&line);
            Box::pin(async move { line.admit(entry).await })
        });
        tokio::spawn(Arc::clone(&self.fleet).serve(listener, identity, admit, stop));
        Ok(())
    }

    /// The secret with which one machine may join, once.
    pub async fn invite_host(&self, caller: &Caller, lasts: Option<Span>) -> Result<Invitation, Refusal> {
        caller.may(Role::Owner)?;
        let door = self.hosts_door.get().ok_or_else(|| {
            Refusal::Conflict(
                "this server lets no hosts in\nhint: start it with --hosts ADDRESS:PORT, where machines can dial it"
                    .into(),
            )
        })?;
        let lasts = lasts.unwrap_or(INVITED);
        if lasts < Span::secs(1) || lasts > INVITED_MOST {
            return Err(Refusal::Bad(format!("an invitation lasts 1s to {}", INVITED_MOST.compact())));
        }
        let secret = andon_kit::secret::fresh("");
        let token = Digest::of(secret.as_bytes());
        self.decide_server(caller.actor(), |_, now| {
            Ok((vec![Event::HostInvited { token, expires: now + lasts }], ()))
        })
        .await?;
        Ok(Invitation {
            server: door.server.clone(),
            token: door.identity.token(remote::PREFIX, &secret),
            lasts,
        })
    }

    /// Whether a machine may come in, and as which host.
    async fn admit(&self, entry: Entry) -> Result<HostName, Refused> {
        let (token, name, address, labels, credential) = match entry {
            Entry::Join { token, name, address, labels, credential } => {
                (Digest::of(token.as_bytes()), name, address, labels, credential)
            }
            Entry::Back { secret } => return self.comes_back(&Digest::of(secret.as_bytes())),
        };
        // Let in before, and gone before it heard so.
        if let Some(host) = self.hosts().holder(&credential) {
            return Ok(host.name.clone());
        }
        let labels = labels
            .into_iter()
            .map(|(key, value)| (plain(&key), plain(&value)))
            .collect::<std::collections::BTreeMap<_, _>>();
        let made = self.decide_server(Actor::line("hosts"), |_, now| {
            let hosts = self.hosts();
            if !hosts.invites(&token, now) {
                let why = "this token was used already, is too old, or is not of this server\nhint: `andon host token` prints a new one";
                return Err(Refusal::Conflict(why.into()));
            }
            if name.as_str() == HERE || hosts.joined.contains_key(&name) {
                let why = format!(
                    "there is a host called {name} already\nhint: give another --name, or let that one leave first: andon host leave {name}"
                );
                return Err(Refusal::Conflict(why));
            }
            if hosts.joined.len() >= MOST {
                return Err(Refusal::Conflict(format!("there are {MOST} hosts already")));
            }
            let joined = Event::HostJoined { host: name.clone(), address, labels, token, credential };
            Ok((vec![joined], ()))
        });
        made.await.map_err(|refusal| Refused::because(refusal.to_string()))?;
        Ok(name)
    }

    fn comes_back(&self, credential: &Digest) -> Result<HostName, Refused> {
        let hosts = self.hosts();
        match (hosts.holder(credential), hosts.left_with(credential)) {
            (Some(host), _) => Ok(host.name.clone()),
            (None, Some(name)) => Err(Refused { why: format!("{name} has left this server"), left: true }),
            (None, None) => Err(Refused::because(
                "this server knows no host with this secret\nhint: its data may have been made anew; join again with a token of `andon host token` and another --data",
            )),
        }
    }

    /// Empties a host; `forget`: it is none any more once it is empty.
    pub async fn empty_host(
        &self,
        caller: &Caller,
        host: HostName,
        forget: bool,
        why: &str,
    ) -> Result<(), Refusal> {
        caller.may(Role::Owner)?;
        if forget && host.as_str() == HERE {
            return Err(Refusal::Bad(
                "the server's own host cannot leave\nhint: `andon host drain here` empties it".into(),
            ));
        }
        let why = match plain(why) {
            empty if empty.trim().is_empty() => "a person asked for it".to_owned(),
            why => why,
        };
        self.decide_server(caller.actor(), |_, _| {
            self.known(&host)?;
            Ok((vec![Event::HostLeaving { host, forget, why }], ()))
        })
        .await
    }

    /// A host takes instances again.
    pub async fn keep_host(&self, caller: &Caller, host: HostName) -> Result<(), Refusal> {
        caller.may(Role::Owner)?;
        self.decide_server(caller.actor(), |_, _| {
            self.known(&host)?;
            Ok((vec![Event::HostStays { host }], ()))
        })
        .await
    }

    fn known(&self, host: &HostName) -> Result<(), Refusal> {
        if host.as_str() == HERE || self.hosts().joined.contains_key(host) {
            return Ok(());
        }
        Err(Refusal::Unknown(format!(
            "there is no host {host}\nhint: `andon host list` shows those there are"
        )))
    }

    /// Where instances may run at this moment.
    pub fn places(&self) -> Places {
        let mut places = self.hosts().places(|host| self.fleet.reaches(host));
        // Where no host can come, as in a drill, everything runs here or nowhere.
        places.here_leaves &= self.hosts_door.get().is_some();
        places.data_is_here = self.settings.postgres.as_ref().is_some_and(|address| address.is_here());
        places
    }

    /// What runs instances of a project, each with its host; and the hosts that are not reached.
    #[allow(clippy::type_complexity, reason = "a pair of two lists, named in its comment")]
    pub(crate) fn runtimes(
        &self,
        project: &Project,
    ) -> (Vec<(Option<HostName>, Arc<dyn Runtime>)>, Vec<HostName>) {
        let mut runtimes: Vec<(Option<HostName>, Arc<dyn Runtime>)> =
            project.runtimes_in_use().into_iter().map(|runtime| (None, runtime)).collect();
        let names: Vec<HostName> = self.hosts().joined.keys().cloned().collect();
        let (reached, silent): (Vec<_>, Vec<_>) =
            names.into_iter().partition(|host| self.fleet.reaches(host));
        for host in reached {
            let runtime = self.fleet.runtime(&host, &project.name);
            runtimes.push((Some(host), runtime));
        }
        (runtimes, silent)
    }

    /// Where machines dial this server; none: it lets none in.
    pub fn hosts_dial(&self) -> Option<&str> {
        self.hosts_door.get().map(|door| door.server.as_str())
    }
}

/// What a machine dials: the address that is listened on, or, where that is all of them, the name in the server's own URL.
pub(crate) fn dialled(url: &str, listens: SocketAddr) -> String {
    if !listens.ip().is_unspecified() {
        return listens.to_string();
    }
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let host = rest.split('/').next().unwrap_or_default();
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    format!("{name}:{}", listens.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_dials_the_address_that_is_listened_on_or_the_name_of_the_server() {
        let all = SocketAddr::from(([0, 0, 0, 0], 7090));
        assert_eq!(dialled("https://andon.example/", all), "andon.example:7090");
        assert_eq!(dialled("http://127.0.0.1:7070", all), "127.0.0.1:7090");
        assert_eq!(dialled("http://[::1]:7070", all), "[::1]:7090");
        assert_eq!(dialled("http://x:1", SocketAddr::from(([10, 0, 0, 1], 7090))), "10.0.0.1:7090");
    }
}
