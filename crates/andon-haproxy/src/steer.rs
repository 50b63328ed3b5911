//! From what is there to what should be: the commands that are missing. Pure; asked again until nothing is missing.
//!
//! The order keeps users on instances that answer: first the servers of a revision are filled, then the map leads
//! users there in one step, then what nobody is led to any more is drained and switched off.

use std::net::SocketAddr;

use andon_traffic::Route;

use crate::config::{MAP, SLOTS, backend};
use crate::seen::{Line, Seen, Server, State};

/// What cannot be done for a service, in words for people.
pub(crate) type Refusal = String;

/// A name as HAProxy may have it in a line: no separators of ours or its.
pub(crate) fn plain(name: &str) -> String {
    let fine = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
    name.chars().map(|c| if fine(c) { c } else { ':' }).collect()
}

/// The salt in a line. Where there is no release, users are counted by service.
pub(crate) fn salt(route: &Route) -> String {
    plain(route.candidate.as_ref().map_or(&route.service, |candidate| &candidate.salt))
}

/// The epoch in a line: never 0, which HAProxy's table says of users it has not seen; 32 bits, as wide as that is.
pub(crate) fn epoch(route: &Route) -> u64 {
    route.epoch % u64::from(u32::MAX - 1) + 1
}

/// The line that should stand in the map.
pub(crate) fn line(route: &Route, seen: &Seen) -> Line {
    let there = seen.lines.get(&route.service);
    let mut taken: Vec<String> = Vec::new();
    let mut place = |revision: &str, keep: Option<&str>| {
        let revision = plain(revision);
        let held = there.and_then(|line| line.slot_of(&revision)).map(str::to_owned);
        let used = |slot: &str| {
            there.is_some_and(|line| {
                line.stable.0 == slot || line.candidate.as_ref().is_some_and(|(other, _)| other == slot)
            })
        };
        let busy = |slot: &str| {
            seen.backends.get(&backend(&route.service, slot)).map_or(0, |backend| backend.under_way)
        };
        let free = || {
            let free = SLOTS.iter().filter(|slot| !used(slot) && Some(**slot) != keep);
            let mut free: Vec<&&str> = free.filter(|slot| !taken.iter().any(|t| t == **slot)).collect();
            free.sort_by_key(|slot| busy(slot));
            free.first().map_or(SLOTS[0].to_owned(), |slot| (**slot).to_owned())
        };
        let slot = held.unwrap_or_else(free);
        taken.push(slot.clone());
        (slot, revision)
    };
    let stable = place(&route.stable.0, None);
    let candidate =
        route.candidate.as_ref().map(|candidate| place(&candidate.revision.0, Some(stable.0.as_str())));
    Line {
        salt: salt(route),
        epoch: epoch(route),
        weight_bp: route.candidate.as_ref().map_or(0, |candidate| candidate.weight_bp),
        stable,
        candidate,
    }
}

/// Commands for one service. `door` answers for it while it has no instances: there requests wait until it is awake.
pub(crate) fn steer(route: &Route, seen: &Seen, door: Option<SocketAddr>) -> Result<Vec<String>, Refusal> {
    let service = &route.service;
    if SLOTS.iter().any(|slot| !seen.backends.contains_key(&backend(service, slot))) {
        return Err(format!(
            "HAProxy's configuration has no backends for {service}\nhint: `andon haproxy config` prints the one it needs; install it and reload HAProxy"
        ));
    }
    let line = line(route, seen);
    let mut commands = Vec::new();
    let stable: Vec<SocketAddr> = route.backends.get(&route.stable).cloned().unwrap_or_default();
    let stable = if stable.is_empty() || route.asleep { door.into_iter().collect() } else { stable };
    fill(service, &line.stable.0, &stable, seen, &mut commands)?;
    if let (Some((slot, _)), Some(candidate)) = (&line.candidate, &route.candidate) {
        let addrs = route.backends.get(&candidate.revision).map(Vec::as_slice).unwrap_or_default();
        fill(service, slot, addrs, seen, &mut commands)?;
    }
    match seen.lines.get(service) {
        Some(there) if *there == line => {}
        Some(_) => commands.push(format!("set map {MAP} {service} {}", line.write(service))),
        None => commands.push(format!("add map {MAP} {service} {}", line.write(service))),
    }
    for slot in SLOTS {
        let led_to = line.stable.0 == slot || line.candidate.as_ref().is_some_and(|(other, _)| other == slot);
        if !led_to {
            fill(service, slot, &[], seen, &mut commands)?;
        }
    }
    Ok(commands)
}

/// Commands for what stands in the map and belongs to no service any more.
pub(crate) fn forget(service: &str, seen: &Seen) -> Vec<String> {
    let mut commands = vec![format!("del map {MAP} {service}")];
    for slot in SLOTS {
        // A backend that is not there has no servers to switch off.
        let _ = fill(service, slot, &[], seen, &mut commands);
    }
    commands
}

/// Makes these addresses, and no others, the servers of a slot.
fn fill(
    service: &str,
    slot: &str,
    addrs: &[SocketAddr],
    seen: &Seen,
    commands: &mut Vec<String>,
) -> Result<(), Refusal> {
    let name = backend(service, slot);
    let servers = seen.backends.get(&name).map(|backend| backend.servers.as_slice()).unwrap_or_default();
    let mut set = |server: &Server, what: &str| {
        commands.push(format!("set server {name}/{} {what}", server.name));
    };
    let mut kept: Vec<&Server> = Vec::new();
    let mut missing: Vec<SocketAddr> = Vec::new();
    for addr in addrs {
        match servers.iter().find(|server| server.addr == Some(*addr)) {
            Some(server) => kept.push(server),
            None => missing.push(*addr),
        }
    }
    kept.iter().filter(|server| server.state != State::Ready).for_each(|server| set(server, "state ready"));
    let mut rest: Vec<&Server> =
        servers.iter().filter(|server| !kept.iter().any(|kept| kept.name == server.name)).collect();
    // What is off and empty is taken first, what serves last.
    rest.sort_by_key(|server| (server.state != State::Maint, server.under_way));
    let mut rest = rest.into_iter();
    for addr in missing {
        let Some(server) = rest.next() else {
            return Err(format!(
                "{service} has {} instances and HAProxy's configuration places for {}\nhint: print it with `andon haproxy config --servers {}` and reload HAProxy",
                addrs.len(),
                servers.len(),
                addrs.len().next_power_of_two() * 2,
            ));
        };
        set(server, &format!("addr {} port {}", addr.ip(), addr.port()));
        set(server, "state ready");
    }
    for server in rest {
        match (server.state, server.under_way) {
            (State::Maint, _) => {}
            (_, 0) => set(server, "state maint"),
            (State::Ready, _) => set(server, "state drain"),
            (State::Drain, _) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seen::Backend;
    use andon_traffic::{Candidate, RevisionName};

    const S: &str = "shop/production/web";

    fn addr(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    /// HAProxy in small: does what it is told.
    #[derive(Default)]
    struct Model(Seen);

    impl Model {
        fn fresh(places: usize) -> Model {
            let mut seen = Seen::default();
            for slot in SLOTS {
                let server = |n| Server {
                    name: format!("s{n}"),
                    addr: Some(addr(1)),
                    state: State::Maint,
                    under_way: 0,
                };
                let servers = (1..=places).map(server).collect();
                seen.backends.insert(backend(S, slot), Backend { servers, ..Backend::default() });
            }
            Model(seen)
        }

        fn told(&mut self, command: &str) {
            let words: Vec<&str> = command.split_whitespace().collect();
            if let [_, "map", _, service, ..] = words.as_slice() {
                let known = self.0.lines.contains_key(*service);
                assert_eq!(words[0] == "add", !known, "HAProxy refuses or doubles {command}");
                let said = format!("0x1 {service} {}", words[4]);
                self.0.lines.extend(crate::seen::lines(&said));
                return;
            }
            let (name, server) = words[2].split_once('/').unwrap();
            let backend = self.0.backends.get_mut(name).unwrap();
            let server = backend.servers.iter_mut().find(|s| s.name == server).unwrap();
            match words[3..] {
                ["addr", ip, "port", port] => server.addr = format!("{ip}:{port}").parse().ok(),
                ["state", "ready"] => server.state = State::Ready,
                ["state", "drain"] => server.state = State::Drain,
                ["state", "maint"] => server.state = State::Maint,
                _ => panic!("{command}"),
            }
        }

        fn steer(&mut self, route: &Route) -> usize {
            let commands = steer(route, &self.0, None).unwrap();
            commands.iter().for_each(|command| self.told(command));
            assert!(steer(route, &self.0, None).unwrap().is_empty(), "nothing is left to say");
            commands.len()
        }

        fn ready(&self, slot: &str) -> Vec<SocketAddr> {
            let servers = &self.0.backends[&backend(S, slot)].servers;
            servers.iter().filter(|s| s.state == State::Ready).filter_map(|s| s.addr).collect()
        }
    }

    fn revision(name: &str) -> RevisionName {
        RevisionName(name.to_owned())
    }

    fn canary(weight_bp: u16, epoch: u64) -> Route {
        let mut route = Route::to(S, &["web"], revision("v1"), vec![addr(101), addr(102)]);
        route.candidate = Some(Candidate { revision: revision("v2"), weight_bp, salt: "shop R1".into() });
        route.backends.insert(revision("v2"), vec![addr(201)]);
        route.epoch = epoch;
        route
    }

    #[test]
    fn a_release_keeps_each_revision_where_it_is_from_the_first_user_to_the_last() {
        let mut model = Model::fresh(4);
        model.steer(&Route::to(S, &["web"], revision("v1"), vec![addr(101), addr(102)]));
        assert_eq!(model.ready("a"), [addr(101), addr(102)]);
        for (weight, epoch) in [(500, 2), (5000, 3), (10_000, 4)] {
            model.steer(&canary(weight, epoch));
            assert_eq!(model.0.lines[S].weight_bp, weight);
            assert_eq!((model.ready("a").len(), model.ready("b")), (2, vec![addr(201)]));
        }
        model.steer(&Route::to(S, &["web"], revision("v2"), vec![addr(201)]));
        assert_eq!(model.0.lines[S].stable, ("b".to_owned(), "v2".to_owned()), "no user changed servers");
        assert!(model.ready("a").is_empty());
    }

    #[test]
    fn what_has_requests_under_way_is_drained_and_only_then_switched_off() {
        let mut model = Model::fresh(2);
        model.steer(&canary(10_000, 1));
        model.0.backends.get_mut(&backend(S, "a")).unwrap().servers[0].under_way = 3;
        let after = Route::to(S, &["web"], revision("v2"), vec![addr(201)]);
        model.steer(&after);
        let states = |model: &Model| -> Vec<State> {
            model.0.backends[&backend(S, "a")].servers.iter().map(|server| server.state).collect()
        };
        assert_eq!(states(&model), [State::Drain, State::Maint]);
        model.0.backends.get_mut(&backend(S, "a")).unwrap().servers[0].under_way = 0;
        model.steer(&after);
        assert_eq!(states(&model), [State::Maint, State::Maint]);
    }

    #[test]
    fn a_haproxy_that_forgot_everything_is_told_all_of_it_again() {
        let mut model = Model::fresh(4);
        let first = model.steer(&canary(500, 2));
        model.0 = Model::fresh(4).0;
        assert_eq!(model.steer(&canary(500, 2)), first);
        assert_eq!(model.0.lines[S].weight_bp, 500);
    }

    #[test]
    fn too_few_places_and_unknown_services_are_said_with_what_to_do() {
        let model = Model::fresh(1);
        let refused = steer(&canary(500, 2), &model.0, None).unwrap_err();
        assert!(refused.contains("2 instances") && refused.contains("hint: "), "{refused}");
        let refused = steer(&canary(500, 2), &Seen::default(), None).unwrap_err();
        assert!(refused.contains("no backends") && refused.contains("hint: "), "{refused}");
    }

    #[test]
    fn while_nothing_runs_requests_wait_at_the_door() {
        let route = Route { asleep: true, ..Route::to(S, &["web"], revision("v1"), vec![]) };
        let commands = steer(&route, &Model::fresh(1).0, Some(addr(7080))).unwrap();
        assert!(commands[0].ends_with("addr 127.0.0.1 port 7080"), "{commands:?}");
    }
}
