//! What this host permits, found by doing it once for nothing, and the words for what it does not.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use crate::{Controller, ENTERED, Groups, Plan, system};

/// What separates something from its neighbours and from the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Isolation {
    /// In force, as people say it: `memory limit`, `network of its own`.
    pub has: Vec<String>,
    /// Not in force, each with the reason.
    pub lacks: Vec<(String, String)>,
}

/// What works here. Each error is the reason why it does not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Means {
    /// Mounts, processes, shared memory and name of its own; true: by way of a user namespace, as we are not root.
    pub namespaces: Result<bool, String>,
    /// Landlock.
    pub landlock: Result<(), String>,
    /// The filter of system calls.
    pub filter: Result<(), String>,
    /// Private networks; tried by whoever makes them.
    pub network: Result<(), String>,
    /// Control groups, which carry their own reasons.
    pub groups: Groups,
}

impl Means {
    /// Nothing at all, for this reason.
    pub fn none(why: &str) -> Means {
        let lack = || why.to_owned();
        let mut groups = Groups::default();
        groups.lacks = [Controller::Memory, Controller::Cpu, Controller::Pids]
            .map(|controller| (controller, lack()))
            .into();
        Means {
            namespaces: Err(lack()),
            landlock: Err(lack()),
            filter: Err(lack()),
            network: Err(lack()),
            groups,
        }
    }

    /// In the words of people. Of networks says who connects them.
    pub fn isolation(&self) -> Isolation {
        let mut all = Isolation::default();
        let mut say = |what: &str, lack: Option<&String>| match lack {
            None => all.has.push(what.to_owned()),
            Some(why) => all.lacks.push((what.to_owned(), why.clone())),
        };
        let spaces = self.namespaces.as_ref().err();
        say("files of its own, its release read-only", spaces);
        say("processes of its own", spaces);
        say("Landlock", self.landlock.as_ref().err());
        say("filter of system calls", self.filter.as_ref().err());
        for (controller, what) in [
            (Controller::Memory, "memory limit"),
            (Controller::Cpu, "processor limit"),
            (Controller::Pids, "limit of processes"),
        ] {
            say(what, self.groups.lacks.get(&controller));
        }
        all
    }

    /// Tries everything. `rehearse` starts a process that reads a plan as JSON from its input, enters it and says `entered`, or why
    /// it cannot. `empty` is an empty directory; groups are called `name`.
    pub fn find(rehearse: impl Fn() -> Command, empty: &Path, name: &str) -> Means {
        let nothing = Plan { root: empty.to_owned(), ..Plan::default() };
        let tried = |plan: &Plan| rehearsed(rehearse(), plan);
        let spaces = |own_user| Plan { namespaces: true, own_user, read: system(), ..nothing.clone() };
        let namespaces = match rustix::process::geteuid().is_root() {
            // Root of a container may lack the rights and still be allowed a user namespace.
            true => tried(&spaces(false))
                .map(|()| false)
                .or_else(|why| tried(&spaces(true)).map(|()| true).map_err(|_| why)),
            false => tried(&spaces(true)).map(|()| true),
        };
        Means {
            namespaces,
            landlock: tried(&Plan { landlock: true, ..nothing.clone() }),
            filter: tried(&Plan { filter: true, ..nothing.clone() }),
            network: Err("nobody tried".into()),
            groups: Groups::find(name),
        }
    }
}

fn rehearsed(mut command: Command, plan: &Plan) -> Result<(), String> {
    let words = |error: std::io::Error| format!("it could not be tried: {error}");
    let order = serde_json::to_string(plan).map_err(|error| error.to_string())?;
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().map_err(words)?;
    if let Some(mut input) = child.stdin.take() {
        // One that does not read says so by its answer.
        let _ = input.write_all(order.as_bytes());
    }
    let said = child.wait_with_output().map_err(words)?;
    match String::from_utf8_lossy(&said.stdout).trim() {
        ENTERED => Ok(()),
        "" => Err("it could not be tried".into()),
        why => Err(why.lines().next().unwrap_or_default().chars().take(200).collect()),
    }
}
