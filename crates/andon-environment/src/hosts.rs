//! The machines that instances run on, as the server's own stream tells of them, and where a service may run. Speaks with none of them.
//!
//! The server's own machine is a host as well: it is called [`HERE`], is always reached and never left for good.

use std::collections::BTreeMap;
use std::net::IpAddr;

use andon_model::event::{Event, PlannedService, Recorded};
use andon_model::{Digest, HostName, RuntimeKind, Time};
use serde::Serialize;

/// What the server's own machine is called.
pub const HERE: &str = "here";

/// A host is being emptied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Leaving {
    /// Since when.
    pub since: Time,
    /// It is no host any more once it is empty.
    pub forget: bool,
    /// The reason.
    pub why: String,
}

/// A machine that joined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Host {
    /// Its name.
    pub name: HostName,
    /// Where its instances listen.
    pub address: IpAddr,
    /// What its owner says of it.
    pub labels: BTreeMap<String, String>,
    /// Since when it is one.
    pub joined: Time,
    /// The digest of its secret.
    #[serde(skip)]
    pub credential: Digest,
    /// It is being emptied.
    pub leaving: Option<Leaving>,
    /// Since when nobody reaches it, and why.
    pub lost: Option<(Time, String)>,
}

/// All hosts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Hosts {
    /// The server's own machine is being emptied.
    pub here: Option<Leaving>,
    /// Those that joined.
    pub joined: BTreeMap<HostName, Host>,
    invited: BTreeMap<Digest, Time>,
    left: BTreeMap<Digest, HostName>,
}

impl Hosts {
    /// Takes in what happened.
    pub fn evolve(&mut self, recorded: &Recorded) {
        let at = recorded.at;
        match &recorded.event {
            Event::HostInvited { token, expires } => {
                self.invited.retain(|_, end| *end > at);
                self.invited.insert(token.clone(), *expires);
            }
            Event::HostJoined { host, address, labels, token, credential } => {
                self.invited.remove(token);
                let made = Host {
                    name: host.clone(),
                    address: *address,
                    labels: labels.clone(),
                    joined: at,
                    credential: credential.clone(),
                    leaving: None,
                    lost: None,
                };
                self.joined.insert(host.clone(), made);
            }
            Event::HostLeaving { host, forget, why } => {
                if let Some(leaving) = self.leaving(host) {
                    let since = leaving.as_ref().map_or(at, |before| before.since);
                    *leaving = Some(Leaving { since, forget: *forget, why: why.clone() });
                }
            }
            Event::HostStays { host } => {
                if let Some(leaving) = self.leaving(host) {
                    *leaving = None;
                }
            }
            Event::HostLost { host, why } => {
                if let Some(found) = self.joined.get_mut(host) {
                    found.lost = Some((at, why.clone()));
                }
            }
            Event::HostBack { host } => {
                if let Some(found) = self.joined.get_mut(host) {
                    found.lost = None;
                }
            }
            Event::HostLeft { host, .. } => {
                if let Some(gone) = self.joined.remove(host) {
                    self.left.insert(gone.credential, gone.name);
                }
            }
            _ => {}
        }
    }

    fn leaving(&mut self, host: &HostName) -> Option<&mut Option<Leaving>> {
        match host.as_str() {
            HERE => Some(&mut self.here),
            _ => self.joined.get_mut(host).map(|host| &mut host.leaving),
        }
    }

    /// Whether a machine that comes with this may join.
    pub fn invites(&self, token: &Digest, now: Time) -> bool {
        self.invited.get(token).is_some_and(|end| now < *end)
    }

    /// The host that comes back with this.
    pub fn holder(&self, credential: &Digest) -> Option<&Host> {
        self.joined.values().find(|host| &host.credential == credential)
    }

    /// The host that this belonged to before it left.
    pub fn left_with(&self, credential: &Digest) -> Option<&HostName> {
        self.left.get(credential)
    }

    /// Where instances may run at this moment.
    pub fn places(&self, reached: impl Fn(&HostName) -> bool) -> Places {
        let standing = |host: &Host| match host {
            host if host.lost.is_some() => Standing::Lost,
            host if host.leaving.is_some() => Standing::Leaving,
            host if reached(&host.name) => Standing::Takes,
            _ => Standing::Away,
        };
        Places {
            here_leaves: self.here.is_some(),
            joined: self.joined.values().map(|host| (host.name.clone(), standing(host))).collect(),
            data_is_here: false,
        }
    }
}

/// What a host is to those who decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It takes instances.
    Takes,
    /// Nobody reaches it at this moment: it takes nothing, and what it has counts.
    Away,
    /// It is being emptied.
    Leaving,
    /// What it had is gone.
    Lost,
}

/// The hosts of one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Places {
    /// The server's own is being emptied.
    pub here_leaves: bool,
    /// All others.
    pub joined: BTreeMap<HostName, Standing>,
    /// Databases can be reached from the server's own host only.
    pub data_is_here: bool,
}

impl Places {
    /// What this host is; none: the server's own. One that nobody knows any more is lost.
    pub fn standing(&self, host: Option<&HostName>) -> Standing {
        match host {
            None if self.here_leaves => Standing::Leaving,
            None => Standing::Takes,
            Some(host) => self.joined.get(host).copied().unwrap_or(Standing::Lost),
        }
    }

    /// The same for an instance of this service: one that can run nowhere else does not leave the server's own host.
    pub fn standing_for(
        &self,
        service: &PlannedService,
        runtime: RuntimeKind,
        host: Option<&HostName>,
    ) -> Standing {
        match (host, self.tie(service, runtime)) {
            (None, Some(_)) => Standing::Takes,
            _ => self.standing(host),
        }
    }

    /// Hosts that take instances of this service.
    pub fn takers(&self, service: &PlannedService, runtime: RuntimeKind) -> Vec<Option<HostName>> {
        if self.tie(service, runtime).is_some() {
            return vec![None];
        }
        let others = self.joined.iter().filter(|(_, standing)| **standing == Standing::Takes);
        let here = (!self.here_leaves).then_some(None);
        here.into_iter().chain(others.map(|(name, _)| Some(name.clone()))).collect()
    }

    /// Why instances of this service run on the server's own host only.
    pub fn tie(&self, service: &PlannedService, runtime: RuntimeKind) -> Option<&'static str> {
        if runtime != RuntimeKind::Process {
            return Some("containers run on the server's own host only");
        }
        if service.port.is_some() {
            return Some("it names a `port`, and its environment's network is on the server's own host");
        }
        (self.data_is_here && !service.databases.is_empty())
            .then_some("its databases listen on the server's own host only")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use andon_model::Actor;

    fn told(events: Vec<Event>) -> Hosts {
        let mut hosts = Hosts::default();
        for (n, event) in events.into_iter().enumerate() {
            let (seq, at) = (n as u64, Time(n as i64));
            hosts.evolve(&Recorded { seq, at, by: Actor::line("t"), project: None, event });
        }
        hosts
    }

    fn name(text: &str) -> HostName {
        text.parse().unwrap()
    }

    fn joined(host: &str) -> Event {
        Event::HostJoined {
            host: name(host),
            address: [10, 0, 0, 2].into(),
            labels: BTreeMap::new(),
            token: Digest::of(b"token"),
            credential: Digest::of(host.as_bytes()),
        }
    }

    #[test]
    fn a_token_lets_one_machine_in_and_only_in_its_time() {
        let (token, invited) =
            (Digest::of(b"token"), || Event::HostInvited { token: Digest::of(b"token"), expires: Time(10) });
        let hosts = told(vec![invited()]);
        assert!(hosts.invites(&token, Time(9)) && !hosts.invites(&token, Time(10)));
        assert!(!hosts.invites(&Digest::of(b"other"), Time(0)));
        let hosts = told(vec![invited(), joined("n1")]);
        assert!(!hosts.invites(&token, Time(2)), "it was used");
        assert_eq!(hosts.holder(&Digest::of(b"n1")).map(|host| host.name.as_str()), Some("n1"));
    }

    #[test]
    fn a_host_that_left_is_known_by_its_secret_and_is_none_any_more() {
        let left = Event::HostLeft { host: name("n1"), why: "sold".into() };
        let hosts = told(vec![joined("n1"), left]);
        assert!(hosts.holder(&Digest::of(b"n1")).is_none());
        assert_eq!(hosts.left_with(&Digest::of(b"n1")), Some(&name("n1")));
        assert_eq!(hosts.places(|_| true).standing(Some(&name("n1"))), Standing::Lost);
    }

    #[test]
    fn whoever_leaves_is_lost_or_is_not_reached_takes_nothing() {
        let places =
            |more: Vec<Event>, reached: bool| told([vec![joined("n1")], more].concat()).places(|_| reached);
        let web = PlannedService::new("web".parse().unwrap(), &["x"]);
        let takers = |places: Places| places.takers(&web, RuntimeKind::Process).len();
        let leaving = |host| Event::HostLeaving { host: name(host), forget: false, why: "disk".into() };
        assert_eq!(takers(places(vec![], true)), 2);
        assert_eq!(takers(places(vec![], false)), 1);
        assert_eq!(takers(places(vec![leaving("n1")], true)), 1);
        assert_eq!(takers(places(vec![leaving("n1"), leaving("here")], true)), 0);
        assert_eq!(takers(places(vec![leaving("n1"), Event::HostStays { host: name("n1") }], true)), 2);
        let lost = || Event::HostLost { host: name("n1"), why: "silent".into() };
        assert_eq!(takers(places(vec![lost()], true)), 1);
        assert_eq!(takers(places(vec![lost(), Event::HostBack { host: name("n1") }], true)), 2);
    }

    #[test]
    fn what_needs_the_servers_own_host_stays_there_even_when_that_is_emptied() {
        let places = Places { here_leaves: true, data_is_here: true, ..Places::default() };
        let web = || PlannedService::new("web".parse().unwrap(), &["x"]);
        let port = PlannedService { port: Some(80), ..web() };
        let data = PlannedService { databases: vec!["main".parse().unwrap()], ..web() };
        for (service, runtime) in
            [(port, RuntimeKind::Process), (data, RuntimeKind::Process), (web(), RuntimeKind::Docker)]
        {
            assert_eq!(places.takers(&service, runtime), [None]);
            assert_eq!(places.standing_for(&service, runtime, None), Standing::Takes);
        }
        assert_eq!(places.standing_for(&web(), RuntimeKind::Process, None), Standing::Leaving);
    }
}
