//! What a job sees of its host, from its order and from what the host permits. Sets nothing up.
//!
//! A job reads the system and the tools on its PATH, writes its working copy, its temporary files and what its order names, and sees nothing
//! of the server's data beside these. docs/adr/0026 says why.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use andon_model::event::JobIsolation;
use andon_sandbox::{Bounds, Controller, KEPT, Means, Plan, system, tools};

use crate::order::Order;
use crate::room::Room;

/// Of the host beside the system: what tools ask about processors and packages.
const ALSO: [&str; 2] = ["/sys/devices/system", "/var/lib/dpkg"];
/// Tools that look for themselves by a variable, and where they are below a home when it is not set.
const HOMES: [(&str, Option<&str>); 5] = [
    ("RUSTUP_HOME", Some(".rustup")),
    ("VOLTA_HOME", Some(".volta")),
    ("ASDF_DATA_DIR", Some(".asdf")),
    ("JAVA_HOME", None),
    ("GOROOT", None),
];

/// Of a machine's own environment, what jobs need to find programs and networks.
const OF_MACHINE: [&str; 8] =
    ["PATH", "LANG", "LC_ALL", "USER", "SSL_CERT_FILE", "http_proxy", "https_proxy", "no_proxy"];

/// What every job on this machine has in its environment to find programs and networks, without a home. `variable` reads the machine's own.
pub fn machine_env(variable: impl Fn(&str) -> Option<String>) -> BTreeMap<String, String> {
    let machine = OF_MACHINE.iter().filter_map(|key| Some(((*key).to_owned(), variable(key)?)));
    let mut env: BTreeMap<String, String> = machine.collect();
    env.extend(tool_homes(variable));
    if rustix::process::geteuid().is_root() {
        // Without its capabilities root cannot give files away, which tar would try.
        env.insert("TAR_OPTIONS".into(), "--no-same-owner".into());
    }
    env
}

/// Variables of the machine's own environment that its jobs need to find its tools; the home of a job is another one.
fn tool_homes(variable: impl Fn(&str) -> Option<String>) -> BTreeMap<String, String> {
    let home = variable("HOME").map(PathBuf::from);
    let found = |(name, below): &(&str, Option<&str>)| {
        let usual = || Some(home.as_ref()?.join((*below)?).to_str()?.to_owned());
        let at = variable(name).or_else(usual).filter(|at| Path::new(at).is_dir())?;
        Some(((*name).to_owned(), at))
    };
    HOMES.iter().filter_map(found).collect()
}

/// The plan for one attempt. The error is why it cannot be kept to.
pub(crate) fn plan(order: &Order, means: &Means, hide: &[PathBuf]) -> Result<Plan, String> {
    if !order.network
        && let Err(why) = &means.namespaces
    {
        return Err(format!(
            "this host cannot keep a job from the network: {why}\nhint: take `network: false` out, or let the server have namespaces"
        ));
    }
    let variable = |name: &str| order.env.get(name).map(String::as_str);
    let mut read = system();
    read.extend(ALSO.map(PathBuf::from));
    read.extend(tools(variable("PATH").unwrap_or_default(), hide));
    read.extend(HOMES.iter().filter_map(|(name, _)| variable(name)).map(PathBuf::from));
    read.extend(variable("SSL_CERT_FILE").map(PathBuf::from));
    // Where names are looked up may lie outside of /etc.
    read.extend(Path::new("/etc/resolv.conf").canonicalize());
    read.extend(order.reads.iter().cloned());
    let room = Room::at(&order.room);
    let mut write = vec![order.workdir.clone(), room.tmp()];
    write.extend(order.writes.iter().cloned());
    let Bounds { memory, processes, .. } = order.limits;
    let groups = &means.groups;
    Ok(Plan {
        namespaces: means.namespaces.is_ok(),
        own_user: means.namespaces == Ok(true),
        own_network: !order.network,
        // One that everybody can look up.
        hostname: "localhost".into(),
        root: room.root(),
        read,
        hide: KEPT.map(PathBuf::from).into_iter().chain(hide.iter().cloned()).collect(),
        write,
        temporary: Some(room.tmp()),
        terminals: true,
        hosts: None,
        landlock: means.landlock.is_ok(),
        filter: means.filter.is_ok(),
        memory_each: memory.filter(|_| !groups.has(Controller::Memory)),
        processes: processes.filter(|_| !groups.has(Controller::Pids)).map(u64::from),
    })
}

/// The same for one in a container, which the engine confines.
pub(crate) fn isolation_in(image: &str, limits: &Bounds, network: bool) -> JobIsolation {
    let declared = [
        (limits.memory.is_some(), "memory limit"),
        (limits.cpu_millis.is_some(), "processor limit"),
        (limits.processes.is_some(), "limit of processes"),
        (!network, "no network"),
    ];
    let declared = declared.into_iter().filter(|(declared, _)| *declared).map(|(_, what)| what.to_owned());
    JobIsolation {
        has: [format!("a container of {image}")].into_iter().chain(declared).collect(),
        lacks: Vec::new(),
    }
}

/// What separates an attempt from everything else, in the words of people.
pub(crate) fn isolation(means: &Means, limits: &Bounds, network: bool) -> JobIsolation {
    let mut all = JobIsolation::default();
    let mut say = |what: &str, lack: Option<&String>| match lack {
        None => all.has.push(what.to_owned()),
        Some(why) => all.lacks.push((what.to_owned(), why.clone())),
    };
    let spaces = means.namespaces.as_ref().err();
    say("files of its own", spaces);
    say("processes of its own", spaces);
    say("Landlock", means.landlock.as_ref().err());
    say("filter of system calls", means.filter.as_ref().err());
    let declared = [
        (limits.memory.is_some(), Controller::Memory, "memory limit"),
        (limits.cpu_millis.is_some(), Controller::Cpu, "processor limit"),
        (limits.processes.is_some(), Controller::Pids, "limit of processes"),
    ];
    for (_, controller, what) in declared.into_iter().filter(|(declared, ..)| *declared) {
        say(what, means.groups.lacks.get(&controller));
    }
    if !network {
        say("no network", spaces);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_are_found_by_their_variable_or_where_they_usually_are() {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name).to_str().unwrap().to_owned();
        std::fs::create_dir_all(at(".rustup")).unwrap();
        std::fs::create_dir_all(at("java")).unwrap();
        let variable = |name: &str| match name {
            "HOME" => Some(at("")),
            "JAVA_HOME" => Some(at("java")),
            "GOROOT" => Some(at("nowhere")),
            _ => None,
        };
        let found = tool_homes(variable);
        assert_eq!(found.keys().collect::<Vec<_>>(), ["JAVA_HOME", "RUSTUP_HOME"]);
    }

    #[test]
    fn what_is_not_declared_is_not_lacking() {
        let none = Means::none("no");
        let free = isolation(&none, &Bounds::default(), true);
        assert!(free.has.is_empty() && free.lacks.iter().all(|(what, _)| !what.contains("limit")));
        let bound = isolation(&none, &Bounds { memory: Some(1), ..Bounds::default() }, false);
        let lacks: Vec<&str> = bound.lacks.iter().map(|(what, _)| what.as_str()).collect();
        assert!(lacks.contains(&"memory limit") && lacks.contains(&"no network"), "{lacks:?}");
    }
}
