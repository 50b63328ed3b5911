//! Changes of releases and ends of instances are told as they happen, and nothing else is.
#![allow(clippy::unwrap_used, reason = "all of it is test code")]

mod support;

use std::collections::BTreeSet;

use andon_runtime::{ProcessRuntime, Runtime, Spec};
use rustix::process::{Signal, kill_process};
use support::{Host, pid, runtime, shell, until};

fn touched(runtime: &ProcessRuntime) -> BTreeSet<String> {
    Runtime::touched(runtime).expect("this host tells of changes")
}

#[test]
fn a_changed_release_is_told_once_and_the_others_are_not() {
    let host = Host::new();
    for id in ["i1", "i2"] {
        host.run(id, "exec sleep 1000");
    }
    let all = BTreeSet::from(["i1".to_owned(), "i2".to_owned()]);
    assert_eq!(touched(&host.runtime), all, "nobody was listening before");
    assert_eq!(touched(&host.runtime), BTreeSet::new());
    let mut changes = Runtime::watch(&host.runtime).unwrap();
    let release = host.path("i1", "release");
    let tampering: [(&str, &dyn Fn()); 6] = [
        ("content", &|| std::fs::write(release.join("app.txt"), "patched\n").unwrap()),
        ("rights", &|| {
            use std::os::unix::fs::PermissionsExt;
            let rights = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(release.join("app.txt"), rights).unwrap();
        }),
        ("name", &|| std::fs::rename(release.join("app.txt"), release.join("app.old")).unwrap()),
        ("new directory", &|| std::fs::create_dir_all(release.join("new/deep")).unwrap()),
        ("file in it", &|| std::fs::write(release.join("new/deep/file"), "").unwrap()),
        ("removal", &|| std::fs::remove_file(release.join("bin/echo-env")).unwrap()),
    ];
    for (what, tamper) in tampering {
        changes.mark_unchanged();
        tamper();
        let mut seen = BTreeSet::new();
        until(what, || {
            seen.extend(touched(&host.runtime));
            !seen.is_empty()
        });
        assert_eq!(seen, BTreeSet::from(["i1".to_owned()]), "{what}");
        until("who waits is woken", || changes.has_changed().unwrap());
    }
    assert!(!host.runtime.differences("i1").unwrap().is_empty());
    assert_eq!(host.runtime.differences("i2").unwrap(), []);
}

#[test]
fn what_an_instance_writes_to_its_own_places_is_no_drift_in_ten_thousand_looks() {
    let host = Host::new();
    let script = "while :; do echo x > $HOME/a; echo x > $TMPDIR/b; echo x > data/rows; mkdir -p data/deep; rm -rf data/deep; echo line; done";
    host.start(&Spec { writes: vec!["data".into()], ..shell("i1", script) }).unwrap();
    until("it writes", || host.path("i1", "release/data/rows").exists());
    assert_eq!(touched(&host.runtime), BTreeSet::from(["i1".to_owned()]));
    for look in 0..10_000 {
        assert_eq!(host.runtime.differences("i1").unwrap(), [], "look {look}");
        assert_eq!(touched(&host.runtime), BTreeSet::new(), "look {look}");
    }
    assert!(host.see("i1").alive);
}

#[test]
fn an_end_is_told_whoever_is_killed() {
    let host = Host::new();
    for (id, of_shim) in [("i1", false), ("i2", true)] {
        let seen = host.run(id, "exec sleep 1000");
        let state: serde_json::Value =
            serde_json::from_slice(&std::fs::read(host.path(id, "state.json")).unwrap()).unwrap();
        let mut changes = Runtime::watch(&host.runtime).unwrap();
        changes.mark_unchanged();
        let shim = u32::try_from(state["shim"]["pid"].as_u64().unwrap()).unwrap();
        kill_process(pid(if of_shim { shim } else { seen.pid.unwrap() }), Signal::KILL).unwrap();
        until("its end is told", || changes.has_changed().unwrap());
        until("it is seen", || !host.see(id).alive);
    }
}

#[test]
fn what_an_earlier_server_started_is_looked_at_once_and_then_watched() {
    let host = Host::new();
    host.run("i1", "exec sleep 1000");
    let next = runtime(host.dir.path());
    assert_eq!(touched(&next), BTreeSet::from(["i1".to_owned()]));
    assert_eq!(touched(&next), BTreeSet::new());
    std::fs::write(host.path("i1", "release/extra"), "").unwrap();
    until("the change is told", || touched(&next).contains("i1"));
    next.remove("i1").unwrap();
    assert_eq!(touched(&next), BTreeSet::new(), "of what is removed nothing is told");
}
