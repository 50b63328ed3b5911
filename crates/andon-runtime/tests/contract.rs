//! What every runtime promises, on processes, on a host that joined, and on containers.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

mod joined;
mod station;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use andon_model::{EnvironmentName, Span};
use andon_runtime::{Exit, Observed, ProcessRuntime, Runtime, RuntimeError, Spec};
use station::{artifact, get, until};

const EXE: &str = env!("CARGO_BIN_EXE_andon-shim-test");

fn staging() -> EnvironmentName {
    "staging".parse().unwrap()
}

/// Each runtime that is there, and how a server that starts anew sees it.
fn each(test: &str, check: impl Fn(&dyn Runtime, &dyn Fn() -> Arc<dyn Runtime>)) {
    let room = tempfile::tempdir().unwrap();
    let process =
        || -> Arc<dyn Runtime> { Arc::new(ProcessRuntime::new(room.path().join("i"), EXE.into()).unwrap()) };
    run(process().as_ref(), &process, &check);
    let joined = joined::Joined::new(room.path());
    run(joined.runtime().as_ref(), &|| joined.anew(), &check);
    let shared = room.path().join("docker");
    if station::docker(test, &shared).is_some() {
        let docker = || -> Arc<dyn Runtime> { Arc::new(station::docker(test, &shared).unwrap()) };
        run(docker().as_ref(), &docker, &check);
    }
}

fn run(
    runtime: &dyn Runtime,
    anew: &dyn Fn() -> Arc<dyn Runtime>,
    check: &impl Fn(&dyn Runtime, &dyn Fn() -> Arc<dyn Runtime>),
) {
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(runtime, anew)));
    for seen in runtime.list().unwrap() {
        runtime.remove(&seen.id).unwrap();
    }
    runtime.clear(&staging()).unwrap();
    if let Err(panic) = done {
        std::panic::resume_unwind(panic);
    }
}

fn spec(runtime: &dyn Runtime, id: &str, words: &[&str]) -> (Spec, SocketAddr) {
    let used: BTreeSet<SocketAddr> = BTreeSet::new();
    let address = runtime.place(&staging(), &used, None).unwrap();
    let spec = Spec {
        address: Some(address.ip()).filter(|ip| !ip.is_loopback()),
        environment: Some(staging()),
        stop_within: Span::secs(2),
        artifact: Some(andon_model::Digest::of(&artifact())),
        labels: [("service".to_owned(), "web".to_owned())].into(),
        ..Spec::new(id, words, address.port())
    };
    (spec, address)
}

fn begin(runtime: &dyn Runtime, id: &str, words: &[&str]) -> SocketAddr {
    let (spec, address) = spec(runtime, id, words);
    runtime.prepare(&spec, &mut &artifact()[..]).unwrap();
    runtime.start(&spec).unwrap();
    address
}

fn see(runtime: &dyn Runtime, id: &str) -> Option<Observed> {
    runtime.list().unwrap().into_iter().find(|seen| seen.id == id)
}

const SERVE: [&str; 4] = ["./station", "serve", "$HOST", "$PORT"];

#[test]
fn an_instance_answers_where_it_was_placed_until_it_is_removed() {
    each("an instance answers", |runtime, _| {
        let address = begin(runtime, "i1", &SERVE);
        until("it answers", || get(address, "/").filter(|body| body == "hello"));
        let seen = see(runtime, "i1").unwrap();
        assert!(seen.alive && seen.exit.is_none() && seen.pid.is_some(), "{seen:?}");
        assert_eq!((seen.port, seen.labels["service"].as_str()), (address.port(), "web"));
        assert_eq!(get(address, "/env=PORT").unwrap(), address.port().to_string());
        runtime.remove("i1").unwrap();
        assert_eq!(see(runtime, "i1"), None);
        assert_eq!(get(address, "/"), None);
        runtime.remove("i1").unwrap();
    });
}

#[test]
fn two_places_are_never_the_same() {
    each("two places", |runtime, _| {
        let mut used = BTreeSet::new();
        for _ in 0..5 {
            assert!(used.insert(runtime.place(&staging(), &used, None).unwrap()));
        }
        // One that runs is not given again either, even if nobody says so.
        let address = begin(runtime, "i1", &SERVE);
        until("it answers", || get(address, "/"));
        assert_ne!(runtime.place(&staging(), &BTreeSet::new(), None).unwrap(), address);
    });
}

#[test]
fn done_again_is_nothing_and_a_server_that_starts_anew_finds_what_runs() {
    each("done again", |runtime, anew| {
        let address = begin(runtime, "i1", &SERVE);
        until("it answers", || get(address, "/"));
        let before = see(runtime, "i1").unwrap();
        let next = anew();
        assert_eq!(see(next.as_ref(), "i1").unwrap(), before);
        let (spec, _) = spec(next.as_ref(), "i1", &SERVE);
        let spec =
            Spec { address: Some(address.ip()).filter(|ip| !ip.is_loopback()), port: address.port(), ..spec };
        next.prepare(&spec, &mut &artifact()[..]).unwrap();
        next.start(&spec).unwrap();
        assert_eq!(see(next.as_ref(), "i1").unwrap().pid, before.pid);
    });
}

#[test]
fn how_it_ended_is_told_with_its_last_words() {
    each("how it ended", |runtime, _| {
        begin(runtime, "i1", &["./station", "exit", "7"]);
        let seen = until("it ended", || see(runtime, "i1").filter(|seen| !seen.alive));
        assert_eq!(seen.exit, Some(Exit::Code(7)));
        let words = runtime.logs("i1", 10).unwrap();
        assert!(words.contains("first\n") && words.contains("second\n"), "{words:?}");
        assert_eq!(runtime.logs("i1", 1).unwrap().lines().count(), 1);
    });
}

#[test]
fn what_cannot_be_started_says_why() {
    each("what cannot be started", |runtime, _| {
        let (spec, _) = spec(runtime, "i1", &["./none"]);
        assert!(matches!(runtime.start(&spec), Err(RuntimeError::NotPrepared(_))));
        runtime.prepare(&spec, &mut &artifact()[..]).unwrap();
        let error = runtime.start(&spec).unwrap_err();
        assert!(matches!(&error, RuntimeError::NotStarted { why, .. } if why.contains("none")), "{error}");
        assert!(see(runtime, "i1").is_none_or(|seen| !seen.alive));
        runtime.remove("i1").unwrap();
        for bad in ["", "../x", "a/b", ".x", "a b"] {
            let bad = Spec { instance: bad.into(), ..spec.clone() };
            assert!(matches!(runtime.prepare(&bad, &mut &b""[..]), Err(RuntimeError::BadId(_))), "{bad:?}");
        }
        assert!(matches!(runtime.stop("i9"), Err(RuntimeError::Unknown(_))));
    });
}

#[test]
fn what_will_not_end_is_killed_after_its_time() {
    each("what will not end", |runtime, _| {
        begin(runtime, "i1", &["./station", "wait"]);
        runtime.stop("i1").unwrap();
        let seen = see(runtime, "i1").unwrap();
        assert!(!seen.alive && seen.exit.is_some(), "{seen:?}");
    });
}

#[test]
fn an_untouched_instance_has_no_differences_and_no_strangers() {
    each("an untouched instance", |runtime, _| {
        let address = begin(runtime, "i1", &SERVE);
        until("it answers", || get(address, "/"));
        for _ in 0..20 {
            assert_eq!(runtime.differences("i1").unwrap(), []);
            assert_eq!(runtime.settings("i1").unwrap(), []);
            assert_eq!(runtime.foreign().unwrap(), []);
        }
    });
}
