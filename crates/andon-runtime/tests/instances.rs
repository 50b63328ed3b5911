//! Real processes under real shims: they outlive the server, end wholly, and are told from strangers.
#![allow(clippy::unwrap_used, reason = "all of it is test code")]

mod support;

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use andon_model::Span;
use andon_runtime::{Exit, RuntimeError, Spec};
use rustix::process::{Signal, kill_process, kill_process_group};
use support::{EXE, Host, artifact, exists, pid, runtime, shell, until};

#[test]
fn an_instance_outlives_a_killed_server_and_the_next_one_adopts_it() {
    let host = Host::new();
    let spec =
        Spec { labels: BTreeMap::from([("service".into(), "web".into())]), ..shell("i1", "exec sleep 1000") };
    host.runtime.prepare("i1", &artifact()[..]).unwrap();
    let mut server = Command::new(EXE)
        .args([
            "serve",
            host.dir.path().join("instances").to_str().unwrap(),
            &serde_json::to_string(&spec).unwrap(),
        ])
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap();
    let mut said = [0; 8];
    server.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
    let before = host.see("i1");
    assert!(before.alive);
    // With everything in the server's own process group, as a terminal or a service manager would.
    kill_process_group(pid(server.id()), Signal::KILL).unwrap();
    server.wait().unwrap();

    let next = runtime(host.dir.path());
    let after = next.list().unwrap();
    assert_eq!(after, std::slice::from_ref(&before));
    assert!(exists(before.pid.unwrap()));
    assert_eq!(after[0].labels, spec.labels);
    next.start(&spec).unwrap();
    assert_eq!(next.list().unwrap()[0].pid, before.pid, "adopted means not started again");
    assert_eq!(next.foreign().unwrap(), []);
    next.stop("i1").unwrap();
    assert!(!exists(before.pid.unwrap()));
}

#[test]
fn starting_twice_starts_once() {
    let host = Host::new();
    let first = host.run("i1", "echo up; exec sleep 1000");
    let together: Vec<_> = std::thread::scope(|scope| {
        let starts: Vec<_> =
            (0..4).map(|_| scope.spawn(|| host.start(&shell("i1", "exec sleep 1000")))).collect();
        starts.into_iter().map(|start| start.join().unwrap().is_ok()).collect()
    });
    assert_eq!(together, [true; 4]);
    assert_eq!(host.see("i1").pid, first.pid);
}

#[test]
fn starts_at_the_same_time_start_one_process() {
    let host = Host::new();
    host.runtime.prepare("i1", &artifact()[..]).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| host.runtime.start(&shell("i1", "echo up; exec sleep 1000")).unwrap());
        }
    });
    until("it spoke", || !host.runtime.logs("i1", 10).unwrap().is_empty());
    assert_eq!(host.runtime.logs("i1", 10).unwrap(), "up\n");
}

#[test]
fn who_looks_while_instances_start_takes_none_for_lost() {
    let host = Host::new();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let looks: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut lost = Vec::new();
                    while !done.load(std::sync::atomic::Ordering::SeqCst) {
                        let all = host.runtime.list().unwrap();
                        lost.extend(all.into_iter().filter(|one| one.exit == Some(Exit::Unseen)));
                    }
                    lost
                })
            })
            .collect();
        for n in 0..40 {
            let id = format!("i{n}");
            host.run(&id, "exec sleep 1000");
            host.runtime.remove(&id).unwrap();
        }
        done.store(true, std::sync::atomic::Ordering::SeqCst);
        for look in looks {
            assert_eq!(look.join().unwrap(), []);
        }
    });
}

#[test]
fn stopping_asks_first_and_waits_for_an_orderly_end() {
    let host = Host::new();
    let script = "trap 'echo bye; exit 7' TERM; echo $$ > $TMPDIR/up; while :; do sleep 0.01; done";
    host.start(&Spec { stop_within: Span::secs(30), ..shell("i1", script) }).unwrap();
    host.pid("i1", "up");
    host.runtime.stop("i1").unwrap();
    let seen = host.see("i1");
    assert_eq!((seen.alive, seen.exit), (false, Some(Exit::Code(7))));
    assert_eq!(host.runtime.logs("i1", 1).unwrap(), "bye\n");
}

#[test]
fn what_ignores_the_request_is_killed_with_all_it_started() {
    let host = Host::new();
    // A child in a session of its own whose parent is gone: neither the group nor the parent leads to it.
    let script = "trap '' TERM
        (setsid sh -c 'trap \"\" TERM; echo $$ > $TMPDIR/hidden; sleep 1000; sleep 1000' &)
        echo $$ > $TMPDIR/main; sleep 1000; sleep 1000";
    host.run("i1", script);
    let (main, hidden) = (host.pid("i1", "main"), host.pid("i1", "hidden"));
    assert!(exists(main) && exists(hidden));
    host.runtime.stop("i1").unwrap();
    assert!(!exists(main) && !exists(hidden));
    assert_eq!(host.see("i1").exit, Some(Exit::Signal(9)));
    assert_eq!(host.runtime.foreign().unwrap(), []);
}

#[test]
fn a_killed_command_is_seen_as_such_and_leaves_nothing() {
    let host = Host::new();
    let seen =
        host.run("i1", "(sleep 1000 & echo $! > $TMPDIR/child); echo $$ > $TMPDIR/main; sleep 1000; true");
    let child = host.pid("i1", "child");
    host.pid("i1", "main");
    kill_process(pid(seen.pid.unwrap()), Signal::KILL).unwrap();
    until("the end was written down", || !host.see("i1").alive);
    assert_eq!(host.see("i1").exit, Some(Exit::Signal(9)));
    until("its child is gone", || !exists(child));
}

#[test]
fn a_command_that_ends_by_itself_leaves_its_status_and_last_words() {
    let host = Host::new();
    host.run("i1", "echo out; echo err >&2; exit 3");
    until("the end was written down", || host.see("i1").exit.is_some());
    assert_eq!(host.see("i1").exit, Some(Exit::Code(3)));
    assert_eq!(host.runtime.logs("i1", 10).unwrap(), "out\nerr\n");
    assert_eq!(host.runtime.logs("i1", 1).unwrap(), "err\n");
}

#[test]
fn a_killed_shim_is_noticed_and_its_command_does_not_keep_the_port() {
    // Where processes have a namespace of their own, the kernel ends it with the shim.
    let host = Host::bare();
    let seen = host.run("i1", "echo $$ > $TMPDIR/up; sleep 1000; true");
    let up = host.pid("i1", "up");
    let state: serde_json::Value =
        serde_json::from_slice(&std::fs::read(host.path("i1", "state.json")).unwrap()).unwrap();
    let shim = u32::try_from(state["shim"]["pid"].as_u64().unwrap()).unwrap();
    kill_process(pid(shim), Signal::KILL).unwrap();
    until("the lock is free", || !host.see("i1").alive);
    assert_eq!(host.see("i1").exit, Some(Exit::Unseen));
    let foreign = host.runtime.foreign().unwrap();
    assert!(foreign.iter().any(|stray| stray.process.pid == up && stray.instance == "i1"), "{foreign:?}");
    host.runtime.start(&shell("i1", "exec sleep 1000")).unwrap();
    assert!(!exists(up));
    assert_ne!(host.see("i1").pid, seen.pid);
}

#[test]
fn a_command_that_cannot_run_says_why() {
    let host = Host::new();
    let why = host.start(&Spec::new("i1", &["./nothing"], 1)).unwrap_err().to_string();
    assert!(why.contains("\"./nothing\"") && why.contains("No such file") && why.contains("hint: "), "{why}");
    assert!(matches!(host.see("i1").exit, Some(Exit::NotStarted(_))));
    let out = Spec { workdir: "../..".into(), ..Spec::new("i2", &["true"], 1) };
    assert!(host.start(&out).unwrap_err().to_string().contains("leads out"));
    assert!(matches!(host.runtime.start(&Spec::new("i3", &["true"], 1)), Err(RuntimeError::NotPrepared(_))));
    for bad in ["", "..", ".x", "a/b", "a b"] {
        assert!(matches!(host.runtime.stop(bad), Err(RuntimeError::BadId(_))), "{bad:?}");
    }
}

#[test]
fn the_environment_is_its_own_and_nothing_of_the_server() {
    let host = Host::new();
    let env = BTreeMap::from([("COLOUR".to_owned(), "green".to_owned())]);
    host.start(&Spec { env, ..Spec::new("i1", &["bin/echo-env", "$PORT"], 4321) }).unwrap();
    until("it ended", || host.see("i1").exit.is_some());
    let said = host.runtime.logs("i1", 100).unwrap();
    let mut names: Vec<&str> =
        said.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
    names.retain(|name| !matches!(*name, "PWD" | "SHLVL" | "_" | "OLDPWD"));
    names.sort_unstable();
    assert_eq!(names, ["ANDON_INSTANCE", "COLOUR", "HOME", "LANG", "PATH", "PORT", "TMPDIR"]);
    assert!(said.contains("PORT=4321\n") && said.contains("COLOUR=green\n"), "{said}");
}

#[test]
fn a_stranger_in_a_release_is_found_and_killed_but_nobody_elses_number() {
    let host = Host::new();
    host.run("i1", "exec sleep 1000");
    assert_eq!(host.runtime.foreign().unwrap(), []);
    let mut stranger =
        Command::new("sleep").arg("1000").current_dir(host.path("i1", "release")).spawn().unwrap();
    let mut found = host.runtime.foreign().unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    until("it executes its command", || {
        found = host.runtime.foreign().unwrap();
        found[0].command.starts_with("sleep")
    });
    assert_eq!((found[0].process.pid, found[0].instance.as_str()), (stranger.id(), "i1"));
    assert_eq!(found[0].command, "sleep 1000");
    let mut earlier = found[0].process;
    earlier.start -= 1;
    assert!(!host.runtime.kill_foreign(earlier).unwrap());
    assert!(host.runtime.kill_foreign(found[0].process).unwrap());
    stranger.wait().unwrap();
    assert_eq!(host.runtime.foreign().unwrap(), []);
    assert!(host.see("i1").alive);
}

#[test]
fn a_busy_instance_is_never_taken_for_a_stranger() {
    let host = Host::new();
    host.run("i1", "while :; do (sleep 0.001 & (setsid sleep 0.001 &)) ; /bin/true; done");
    for _ in 0..300 {
        assert_eq!(host.runtime.foreign().unwrap(), []);
    }
}

#[test]
fn a_changed_file_is_found() {
    let host = Host::new();
    host.run("i1", "exec sleep 1000");
    assert_eq!(host.runtime.differences("i1").unwrap(), []);
    std::fs::write(host.path("i1", "release/app.txt"), "patched\n").unwrap();
    std::fs::write(host.path("i1", "release/extra"), "").unwrap();
    let found: Vec<String> = host.runtime.differences("i1").unwrap().into_iter().map(|d| d.path).collect();
    assert_eq!(found, ["app.txt", "extra"]);
}

#[test]
fn a_bad_artifact_leaves_nothing() {
    let host = Host::new();
    assert!(host.runtime.prepare("i1", &b"not a tar at all"[..]).is_err());
    let left: Vec<_> = std::fs::read_dir(host.dir.path().join("instances")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn removing_leaves_nothing_and_may_be_repeated() {
    let host = Host::new();
    let seen = host.run("i1", "exec sleep 1000");
    host.runtime.remove("i1").unwrap();
    assert!(!exists(seen.pid.unwrap()));
    assert!(!host.path("i1", "").exists());
    assert_eq!(host.runtime.list().unwrap(), []);
    host.runtime.remove("i1").unwrap();
}

#[test]
fn a_talkative_instance_fills_no_disk_and_loses_no_last_line() {
    let host = Host::new();
    let script = "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done";
    host.start(&Spec { log_bytes: 50_000, ..shell("i1", script) }).unwrap();
    until("it ended", || host.see("i1").exit.is_some());
    let sizes: Vec<u64> = ["log", "log.1", "log.2"]
        .iter()
        .map(|name| std::fs::metadata(host.path("i1", name)).unwrap().len())
        .collect();
    assert!(sizes.iter().all(|size| *size <= 66_000), "{sizes:?}");
    assert!(!host.path("i1", "log.3").exists());
    assert_eq!(host.runtime.logs("i1", 1).unwrap(), "line 19999\n");
}
