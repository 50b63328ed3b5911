//! Instances come and go, servers are killed in the middle of it: nothing of them stays on the host.
#![allow(clippy::unwrap_used, reason = "all of it is test code")]

mod support;

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Duration;

use andon_model::Limits;
use andon_runtime::Spec;
use andon_testkit::leaks::Traces;
use support::{EXE, Host, artifact, runtime, shell, until};

/// Limits, so that every kind of group is made.
fn limited(id: &str) -> Spec {
    let limits = Limits { memory: Some(64 << 20), cpu_millis: Some(500), processes: Some(50) };
    Spec { limits, writes: vec!["data".into()], ..shell(id, "(setsid sleep 1000 &); exec sleep 1000") }
}

#[test]
fn a_hundred_instances_that_came_and_went_left_nothing() {
    let host = Host::new();
    let mut traces = Traces::of(host.dir.path()).named(&host.runtime.host_name());
    for cycle in 0..25 {
        std::thread::scope(|scope| {
            for n in 0..4 {
                let host = &host;
                scope.spawn(move || host.start(&limited(&format!("i{cycle}-{n}"))).unwrap());
            }
        });
        traces.note();
        assert!(!traces.left().is_empty(), "the check sees what runs");
        for n in 0..4 {
            host.runtime.remove(&format!("i{cycle}-{n}")).unwrap();
        }
    }
    assert!(host.runtime.means().namespaces.is_err() || traces.noted() >= 16, "{}", traces.noted());
    assert_eq!(traces.left(), Vec::<String>::new());
    assert_eq!(traces.files(2), ["instances"]);
}

#[test]
fn a_server_killed_while_instances_start_and_stop_leaves_nothing_that_the_next_does_not_clear() {
    let host = Host::new();
    let tar = host.dir.path().join("artifact.tar");
    std::fs::write(&tar, artifact()).unwrap();
    let root = host.dir.path().join("instances");
    let traces = Traces::of(host.dir.path()).named(&host.runtime.host_name());
    for kill in 0..15 {
        let spec = serde_json::to_string(&limited(&format!("k{kill}"))).unwrap();
        let mut server = Command::new(EXE)
            .args(["churn", root.to_str().unwrap(), &spec, tar.to_str().unwrap()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = [0; 8];
        server.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
        // Another point of starting and stopping each time.
        std::thread::park_timeout(Duration::from_millis(7 + 13 * kill));
        server.kill().unwrap();
        server.wait().unwrap();
        let next = runtime(host.dir.path());
        next.means();
        for n in 0..4 {
            let id = format!("k{kill}-{n}");
            until("it is removed", || next.remove(&id).is_ok());
        }
    }
    until("what was being started has seen that it is not wanted", || traces.left().is_empty());
    let mut left = traces.files(2);
    left.sort();
    assert_eq!(left, ["artifact.tar", "instances"]);
}
