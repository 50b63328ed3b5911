//! Instances that mean harm: each is contained. Where the host lacks the means, that is said and the test is skipped.
#![allow(clippy::unwrap_used, reason = "all of it is test code")]

mod support;

use andon_model::Limits;
use andon_runtime::sandbox::Controller;
use andon_runtime::{Exit, Runtime, Spec};
use rustix::process::{Signal, kill_process};
use support::{EXE, Host, exists, pid, shell, until};

/// Says that a test cannot be done here. In continuous integration that is a failure.
fn skipped(name: &str, why: &str) {
    eprintln!("SKIPPED: {name} ({why})");
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{name} was skipped: {why}");
}

/// A host with namespaces, or none and a word about it.
fn with_namespaces(name: &str) -> Option<Host> {
    let host = Host::new();
    match host.runtime.means().namespaces.clone() {
        Ok(_) => Some(host),
        Err(why) => {
            skipped(name, &why);
            None
        }
    }
}

/// Runs a script to its end and returns what it said.
fn say(host: &Host, spec: Spec) -> String {
    let id = spec.instance.clone();
    host.start(&spec).unwrap();
    until("it ended", || host.see(&id).exit.is_some());
    host.runtime.logs(&id, 100).unwrap()
}

#[test]
fn a_release_cannot_be_changed_from_inside_but_for_declared_places() {
    let Some(host) = with_namespaces("read-only release") else { return };
    let script = "echo x > app.txt && echo changed; echo x > new && echo added; rm app.txt && echo removed
        echo 1 > data/db/rows && echo wrote; echo 1 > $HOME/a && echo 2 > $TMPDIR/b && echo 3 > /tmp/c && echo own
        cat app.txt";
    let spec = Spec { writes: vec!["data/db".into()], ..shell("i1", script) };
    let said = say(&host, spec);
    for word in ["changed\n", "added\n", "removed\n"] {
        assert!(!said.contains(word), "{said}");
    }
    assert!(said.contains("wrote\nown\nhello\n"), "{said}");
    assert_eq!(host.runtime.differences("i1").unwrap(), [], "what was declared is no drift");
}

#[test]
fn neither_the_servers_data_nor_another_instance_is_seen() {
    let Some(host) = with_namespaces("hidden data") else { return };
    host.run("i2", "echo secret > $HOME/secret; echo $$ > $TMPDIR/up; exec sleep 1000");
    host.pid("i2", "up");
    let data = host.dir.path().canonicalize().unwrap();
    std::fs::write(data.join("journal.db"), "token").unwrap();
    let script = format!(
        "cat {0}/journal.db {0}/instances/i2/home/secret {0}/instances/i2/spec.json {0}/instances/i1/state.json
        cat /etc/shadow; ls {0}/instances {0}; grep -c . /etc/passwd",
        data.display()
    );
    let said = say(&host, shell("i1", &script));
    assert!(!said.contains("token") && !said.contains("secret\n") && !said.contains("root:"), "{said}");
    assert!(!said.lines().any(|line| line == "i2" || line == "journal.db"), "{said}");
    assert!(said.lines().any(|line| line == "i1"), "only its own directory is there: {said}");
}

#[test]
fn no_process_outside_can_be_seen_or_signalled() {
    let Some(host) = with_namespaces("own processes") else { return };
    let mut server = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    let script = format!(
        "kill -9 {0}; kill -9 -1; ls -d /proc/{0}; echo after; echo x > /proc/sys/kernel/core_pattern",
        server.id()
    );
    let said = say(&host, shell("i1", &script));
    assert!(exists(server.id()), "{said}");
    server.kill().unwrap();
    server.wait().unwrap();
    assert!(!said.contains(&format!("/proc/{}\n", server.id())), "{said}");
}

#[test]
fn calls_that_change_the_host_are_refused() {
    let host = Host::new();
    if let Err(why) = &host.runtime.means().filter {
        return skipped("filter of system calls", why);
    }
    let python = r#"
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
calls = {"mount": 165, "ptrace": 101, "unshare": 272, "bpf": 321, "keyctl": 250, "kexec_load": 246, "init_module": 175,
         "reboot": 169, "setns": 308, "perf_event_open": 298, "pivot_root": 155}
for name, number in calls.items():
    done = libc.syscall(number, 0, 0, 0, 0, 0)
    print(name, done, ctypes.get_errno())
print("caps", [line.split()[1] for line in open("/proc/self/status") if line.startswith(("CapEff", "CapBnd", "CapPrm"))])
print("nnp", [line.split()[1] for line in open("/proc/self/status") if line.startswith("NoNewPrivs")])
"#;
    if !cfg!(target_arch = "x86_64") {
        return skipped("filter of system calls", "its numbers are those of another processor");
    }
    let said =
        say(&host, Spec { command: ["python3", "-c", python].map(str::to_owned).into(), ..shell("i1", "") });
    let calls: Vec<&str> =
        said.lines().filter(|line| line.contains(" -1 ") || line.contains(" 0 ")).collect();
    assert_eq!(calls.len(), 11, "{said}");
    assert!(calls.iter().all(|line| line.ends_with(" -1 1")), "{said}");
    assert!(said.contains("caps ['0000000000000000', '0000000000000000', '0000000000000000']"), "{said}");
    assert!(said.contains("nnp ['1']"), "{said}");
}

#[test]
fn without_namespaces_landlock_still_keeps_an_instance_to_its_own_files() {
    let host = Host::without_namespaces();
    if let Err(why) = &host.runtime.means().landlock {
        return skipped("Landlock", why);
    }
    let data = host.dir.path().canonicalize().unwrap();
    std::fs::write(data.join("journal.db"), "token").unwrap();
    let mut server = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    let script = format!(
        "cat {0}/journal.db {0}/instances/i1/spec.json; echo x > {0}/new; echo x > app.txt; echo x > /proc/sys/kernel/core_pattern
        kill -9 {1} && echo killed; echo 1 > $HOME/a && echo 2 > $TMPDIR/b && echo 3 > data/c && echo own; cat app.txt",
        data.display(),
        server.id()
    );
    let said = say(&host, Spec { writes: vec!["data".into()], ..shell("i1", &script) });
    let lives = exists(server.id());
    server.kill().unwrap();
    server.wait().unwrap();
    assert!(lives && !said.contains("killed\n"), "{said}");
    assert!(!said.contains("token") && !said.contains("stop_within"), "{said}");
    assert!(said.contains("own\nhello\n"), "{said}");
    assert!(!data.join("new").exists());
    assert_eq!(host.runtime.differences("i1").unwrap(), []);
}

#[test]
fn who_eats_memory_is_killed_and_told_so() {
    let host = Host::new();
    if !host.runtime.means().groups.has(Controller::Memory) {
        return skipped("memory limit", &host.runtime.means().groups.lacks[&Controller::Memory]);
    }
    let limits = Limits { memory: Some(32 * 1024 * 1024), ..Limits::default() };
    let eater = ["python3", "-c", "b = []\nwhile True: b.append(bytearray(1 << 20))"].map(str::to_owned);
    host.start(&Spec { limits, command: eater.into(), ..shell("i1", "") }).unwrap();
    until("it ended", || host.see("i1").exit.is_some());
    let exit = host.see("i1").exit.unwrap();
    assert_eq!(exit, Exit::OutOfMemory(limits.memory));
    assert_eq!(exit.to_string(), "was killed: it used more memory than its limit of 32 MiB");
}

#[test]
fn who_forks_without_end_reaches_a_limit_and_is_ended_whole() {
    let host = Host::new();
    if !host.runtime.means().groups.has(Controller::Pids) {
        return skipped("limit of processes", &host.runtime.means().groups.lacks[&Controller::Pids]);
    }
    let limits = Limits { processes: Some(40), ..Limits::default() };
    // Each child has a session of its own, ignores the request to end, and forks again.
    let bomb = "import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print('up', flush=True)
while True:
    try:
        if os.fork() == 0:
            os.setsid()
    except OSError:
        print('full', flush=True)
        time.sleep(1000)";
    let command = ["python3", "-c", bomb].map(str::to_owned).into();
    host.start(&Spec { limits, command, ..shell("i1", "") }).unwrap();
    until("it reached its limit", || host.runtime.logs("i1", 100).unwrap().contains("full"));
    host.runtime.stop("i1").unwrap();
    assert!(!host.see("i1").alive);
    assert_eq!(host.runtime.foreign().unwrap(), []);
    let left = std::process::Command::new("pgrep")
        .args(["-f", "signal.signal(signal.SIGTERM, signal.SIG_IGN)"])
        .output();
    assert!(left.unwrap().stdout.is_empty());
}

#[test]
fn a_killed_shim_takes_everything_with_it() {
    let Some(host) = with_namespaces("end with the shim") else { return };
    host.run("i1", "(setsid sh -c 'trap \"\" TERM; echo $$ > $TMPDIR/hidden; sleep 1000; sleep 1000' &); sleep 1000; true");
    let hidden = host.pid("i1", "hidden");
    let state: serde_json::Value =
        serde_json::from_slice(&std::fs::read(host.path("i1", "state.json")).unwrap()).unwrap();
    kill_process(pid(u32::try_from(state["shim"]["pid"].as_u64().unwrap()).unwrap()), Signal::KILL).unwrap();
    until("all of it is gone", || !exists(hidden));
    until("the lock is free", || !host.see("i1").alive);
    assert_eq!(host.see("i1").exit, Some(Exit::Unseen));
    host.runtime.remove("i1").unwrap();
}

#[test]
fn ordinary_programs_run_inside() {
    let Some(host) = with_namespaces("ordinary programs") else { return };
    let programs: [(&str, &[&str], &str); 4] = [
        (
            "python3",
            &[
                "-c",
                "import ssl, threading, subprocess as s; print(s.run(['echo','ok'],capture_output=True).stdout)",
            ],
            "ok",
        ),
        ("node", &["-e", "require('dns').lookup('localhost', () => console.log('ok'))"], "ok"),
        ("java", &["-version"], "ersion"),
        ("git", &["version"], "git version"),
    ];
    for (n, (program, arguments, want)) in programs.into_iter().enumerate() {
        let path = std::env::var_os("PATH").unwrap();
        if !std::env::split_paths(&path).any(|dir| dir.join(program).exists()) {
            skipped(program, "it is not installed");
            continue;
        }
        let mut command = vec![program.to_owned()];
        command.extend(arguments.iter().map(|word| (*word).to_owned()));
        let said = say(&host, Spec { command, ..shell(&format!("i{n}"), "") });
        assert!(said.contains(want), "{program}: {said}");
    }
    // Our own binary by its absolute path, which lies outside of the system's directories.
    let said = say(&host, Spec { command: vec![EXE.into(), "nothing".into()], ..shell("own", "") });
    assert_eq!(host.see("own").exit, Some(Exit::Code(64)), "{said}");
}

#[test]
fn what_a_host_lacks_is_said_with_its_reason() {
    let (host, bare) = (Host::new(), Host::bare());
    let name: andon_model::EnvironmentName = "staging".parse().unwrap();
    let lacks = bare.runtime.isolation(&name).lacks;
    assert!(lacks.contains(&("memory limit".into(), "the test forbids it".into())), "{lacks:?}");
    let all = |host: &Host| {
        let isolation = host.runtime.isolation(&name);
        let mut all = isolation.has;
        all.extend(isolation.lacks.into_iter().map(|(what, _)| what));
        all.sort();
        all
    };
    assert_eq!(all(&host), all(&bare), "each means is in force or lacking");
    bare.run("i1", "exec sleep 1000");
    assert!(bare.see("i1").alive);
}
