//! Hosts, as the page and the terminal show them: which take instances, what is on each, and what one that is emptied waits for.

use std::collections::BTreeMap;

use andon_environment::hosts::{HERE, Leaving, Places, Standing};
use andon_environment::{Instance, rotation};
use andon_model::{HostName, RuntimeKind, Time};
use serde::{Deserialize, Serialize};

use super::{Fact, Mark, ago, count, fact};
use crate::{Line, Project};

/// The page.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostsView {
    /// The answer.
    pub heading: String,
    /// What it rests on.
    pub sentence: String,
    /// Numbers.
    pub facts: Vec<Fact>,
    /// The server's own first.
    pub hosts: Vec<HostRow>,
    /// Where machines dial this server; none: it lets none in.
    pub dial: Option<String>,
}

/// One host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostRow {
    /// Its name.
    pub name: String,
    /// Its state.
    pub mark: Mark,
    /// The same in words.
    pub words: String,
    /// Where its instances listen; none: the server's own.
    pub address: Option<String>,
    /// What its owner says of it.
    pub labels: BTreeMap<String, String>,
    /// Instances on it: `web in shop/production`, and how many.
    pub services: Vec<(String, usize)>,
    /// How many in all.
    pub instances: usize,
    /// What one that is emptied waits for, each with the reason.
    pub waits: Vec<String>,
    /// It is being emptied.
    pub leaving: bool,
    /// Since when it is a host; none: always.
    pub joined: Option<Time>,
}

/// As it stands.
pub fn hosts(line: &Line) -> HostsView {
    let (known, places, now) = (line.hosts().clone(), line.places(), line.now());
    let mut hosts = vec![row(line, &places, None, known.here.as_ref(), now)];
    for host in known.joined.values() {
        let mut made = row(line, &places, Some(&host.name), host.leaving.as_ref(), now);
        (made.mark, made.words) = match (&host.lost, places.standing(Some(&host.name))) {
            (Some((since, why)), _) => (
                Mark::Stop,
                format!("lost for {}: {why}; what ran there is made anew elsewhere", now.since(*since)),
            ),
            (None, _) if !line.fleet.reaches(&host.name) => {
                (Mark::Wait, "not connected; what runs there goes on".to_owned())
            }
            _ => (made.mark, made.words),
        };
        made.address = Some(host.address.to_string());
        made.labels = host.labels.clone();
        made.joined = Some(host.joined);
        hosts.push(made);
    }
    let taking = hosts.iter().filter(|host| host.mark == Mark::Go).count();
    let lost: Vec<&str> =
        hosts.iter().filter(|host| host.mark == Mark::Stop).map(|host| host.name.as_str()).collect();
    let heading = match (hosts.len(), &lost[..]) {
        (1, _) => "Everything runs on the server's own host".to_owned(),
        (_, []) if taking == 0 => "No host takes instances".to_owned(),
        (_, []) if taking == 1 => "1 host takes instances".to_owned(),
        (_, []) => format!("{taking} hosts take instances"),
        (_, [one]) => format!("{one} is lost"),
        (_, many) => format!("{} hosts are lost", many.len()),
    };
    let sentence = match line.hosts_dial() {
        Some(_) => {
            "A service is spread over the hosts that take instances. Whoever joins gets its share, whoever leaves is emptied first; no request fails by it."
        }
        None => "This server lets no other machine in: it was started without --hosts.",
    };
    HostsView {
        heading,
        sentence: sentence.into(),
        facts: vec![
            fact(taking.to_string(), "take instances"),
            fact(hosts.iter().map(|host| host.instances).sum::<usize>().to_string(), "instances"),
            Fact {
                mark: if lost.is_empty() { Mark::None } else { Mark::Stop },
                ..fact(lost.len().to_string(), "lost")
            },
        ],
        hosts,
        dial: line.hosts_dial().map(str::to_owned),
    }
}

fn row(
    line: &Line,
    places: &Places,
    host: Option<&HostName>,
    leaving: Option<&Leaving>,
    now: Time,
) -> HostRow {
    let (mut services, mut waits) = (BTreeMap::<String, usize>::new(), Vec::new());
    for project in line.projects() {
        let mut counted = BTreeMap::<(String, Option<String>), usize>::new();
        for (what, reason) in on(&project, places, host, leaving.is_some()) {
            *counted.entry((what, reason)).or_default() += 1;
        }
        for ((what, reason), many) in counted {
            if let Some(reason) = reason {
                waits.push(format!("{}: {reason}", count_of(&what, many)));
            }
            *services.entry(what).or_default() += many;
        }
    }
    let instances = services.values().sum();
    let (mark, words) = match leaving {
        None => (Mark::Go, "takes instances".to_owned()),
        Some(leaving) => {
            let (since, what) =
                (ago(now, leaving.since), if leaving.forget { "leaves" } else { "is emptied" });
            match instances {
                0 => (Mark::None, format!("is empty, takes nothing ({})", leaving.why)),
                n => (
                    Mark::Live,
                    format!("{what} since {since} ({}): {} to go", leaving.why, count(n, "instance")),
                ),
            }
        }
    };
    HostRow {
        name: host.map_or_else(|| HERE.to_owned(), ToString::to_string),
        mark,
        words,
        address: None,
        labels: BTreeMap::new(),
        services: services.into_iter().collect(),
        instances,
        waits,
        leaving: leaving.is_some(),
        joined: None,
    }
}

fn count_of(what: &str, many: usize) -> String {
    if many == 1 { what.to_owned() } else { format!("{many} of {what}") }
}

/// Instances of a project on a host: whose they are, and, where they are to go, what they wait for.
fn on(
    project: &Project,
    places: &Places,
    host: Option<&HostName>,
    leaving: bool,
) -> Vec<(String, Option<String>)> {
    let state = project.state();
    let estate = &state.estate;
    let reason = |instance: &Instance| {
        let deployment = estate.deployments.get(&instance.deployment)?;
        let service = deployment.service(&instance.service)?;
        if let Some(tie) = places.tie(service, deployment.runtime).filter(|_| host.is_none()) {
            return Some(format!("it stays: {tie}"));
        }
        let under_way =
            estate.deployments.values().find(|d| d.environment == instance.environment && d.under_way());
        match under_way {
            Some(deployment) if !rotation::may_move(estate, &instance.environment) => {
                Some(format!("waits until {} is through", deployment.id))
            }
            _ if places.takers(service, RuntimeKind::Process).is_empty() => {
                Some("waits for a host that takes it".into())
            }
            _ if instance.retired.is_some() => Some("answers its last requests".into()),
            _ => Some("moves as soon as another one is healthy elsewhere".into()),
        }
    };
    let lost = places.standing(host) == Standing::Lost;
    let there = estate.instances.values().filter(|i| i.host.as_ref() == host);
    there
        .map(|i| {
            let what = format!("{} in {}/{}", i.service, project.name, i.environment);
            (what, if leaving && !lost { reason(i) } else { None })
        })
        .collect()
}
