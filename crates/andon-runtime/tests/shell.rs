//! Shells inside of instances, in sandboxes of every degree: what they see, how they end, and that nothing of them stays.
#![allow(clippy::unwrap_used, reason = "all of it is test code")]

mod support;

use std::time::{Duration, Instant};

use andon_runtime::{ProcessRuntime, Runtime, RuntimeError, Said, Shell, ShellOrder, Size, Terminal, Typed};
use support::{Host, runtime, until};
use tokio::sync::mpsc::error::TryRecvError;

/// Every degree of isolation that there is; each name says what is lacking.
fn hosts() -> [(&'static str, Host); 4] {
    let users = || {
        let dir = tempfile::tempdir().unwrap();
        let mut means = runtime(dir.path()).means().clone();
        means.namespaces = means.namespaces.map(|_| true);
        means.network = Err("the test forbids it".into());
        Host { runtime: runtime(dir.path()).with(means), dir }
    };
    [
        ("nothing", Host::new()),
        ("root", users()),
        ("namespaces", Host::without_namespaces()),
        ("everything", Host::bare()),
    ]
}

fn order(host: &Host, command: &[&str], terminal: bool) -> ShellOrder {
    let size = Size { columns: 100, rows: 40 };
    ShellOrder {
        name: format!("{}#{}", host.dir.path().display(), command.join(" ").len()),
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        terminal: terminal.then(|| Terminal { kind: "vt100".into(), size }),
    }
}

/// What it says next, within the patience of a test.
fn next(shell: &mut Shell, so_far: &[u8]) -> Said {
    let began = Instant::now();
    loop {
        match shell.output.try_recv() {
            Ok(said) => return said,
            Err(TryRecvError::Empty) => {}
            Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(so_far)),
        }
        let said = String::from_utf8_lossy(so_far);
        assert!(began.elapsed() < Duration::from_secs(15), "nothing came after {said:?}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// Everything it says until it ends, and its status.
fn heard(shell: &mut Shell) -> (String, Option<i32>) {
    let mut all = Vec::new();
    loop {
        match next(shell, &all) {
            Said::Out(bytes) | Said::Err(bytes) => all.extend(bytes),
            Said::Ended(code) => return (String::from_utf8_lossy(&all).into_owned(), code),
        }
    }
}

/// What it says until this was said.
fn hear(shell: &mut Shell, what: &str) -> String {
    let mut all = Vec::new();
    while !String::from_utf8_lossy(&all).contains(what) {
        match next(shell, &all) {
            Said::Out(bytes) | Said::Err(bytes) => all.extend(bytes),
            ended => panic!("{ended:?} after {:?}", String::from_utf8_lossy(&all)),
        }
    }
    String::from_utf8_lossy(&all).into_owned()
}

fn say(shell: &Shell, text: &str) {
    shell.input.blocking_send(Typed::Bytes(text.as_bytes().to_vec())).unwrap();
}

/// Processes of shells of this host.
fn left(host: &Host) -> Vec<String> {
    let mark = format!("ANDON_SHELL={}#", host.dir.path().display());
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let marked = |pid: &String| {
        let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        String::from_utf8_lossy(&environ).contains(&mark)
    };
    all.filter_map(|entry| entry.file_name().into_string().ok()).filter(marked).collect()
}

fn open(runtime: &ProcessRuntime, order: &ShellOrder) -> Shell {
    Runtime::shell(runtime, "i1", order).unwrap()
}

#[test]
fn a_command_runs_where_the_instance_does_and_its_status_is_told() {
    for (lacks, host) in hosts() {
        host.run("i1", "sleep 1000");
        let script = "pwd; cat app.txt; echo oops >&2; grep -E 'CapEff|NoNewPrivs' /proc/self/status; \
                      echo told=$ANDON_INSTANCE=; exit 7";
        let mut shell = open(&host.runtime, &order(&host, &["sh", "-c", script], false));
        let (said, code) = heard(&mut shell);
        assert_eq!(code, Some(7), "without {lacks}: {said}");
        for part in ["/i1/release\n", "hello\n", "oops\n", "CapEff:\t0000000000000000", "NoNewPrivs:\t1"] {
            assert!(said.contains(part), "without {lacks}: {part:?} is not in {said}");
        }
        let told = format!("told={}", host.path("i1", "").display()).trim_end_matches('/').to_owned() + "=";
        assert!(said.contains(&told), "without {lacks}: {told} is not in {said}");
        let spaces = host.runtime.means().namespaces.is_ok();
        if spaces {
            let mut shell =
                open(&host.runtime, &order(&host, &["sh", "-c", "ls -d /proc/[0-9]*; ls /home"], false));
            let (said, _) = heard(&mut shell);
            assert!(said.lines().count() < 12, "it sees the instance's processes and no others: {said}");
        }
        until("nothing is left", || left(&host).is_empty());
        assert!(host.see("i1").alive, "without {lacks}: the instance goes on");
    }
}

#[test]
fn input_is_read_to_its_end_and_what_is_not_there_is_told() {
    let host = Host::new();
    host.run("i1", "sleep 1000");
    let mut shell = open(&host.runtime, &order(&host, &["cat"], false));
    let text = "0123456789".repeat(30_000);
    let (input, whole) = (shell.input.clone(), text.clone());
    let typing = std::thread::spawn(move || {
        for piece in whole.as_bytes().chunks(8_000) {
            input.blocking_send(Typed::Bytes(piece.to_vec())).unwrap();
        }
        input.blocking_send(Typed::End).unwrap();
    });
    assert!(heard(&mut shell) == (text, Some(0)), "what went in came out");
    typing.join().unwrap();
    let mut shell = open(&host.runtime, &order(&host, &["no-such-program"], false));
    let (said, code) = heard(&mut shell);
    assert!(said.contains("no-such-program") && code == Some(127), "{said} {code:?}");
}

#[test]
fn a_terminal_has_its_size_and_its_keys_and_a_shell_of_its_own() {
    for (lacks, host) in hosts() {
        host.run("i1", "sleep 1000");
        let mut shell = open(&host.runtime, &order(&host, &[], true));
        say(&shell, "stty size; echo $TERM$((1+1))\n");
        let said = hear(&mut shell, "vt1002");
        assert!(said.contains("40 100"), "without {lacks}: {said}");
        shell.input.blocking_send(Typed::Size(Size { columns: 77, rows: 22 })).unwrap();
        say(&shell, "stty size\n");
        hear(&mut shell, "22 77");
        // A key that interrupts reaches what runs in front, and not the shell.
        say(&shell, "sh -c 'echo sleeps$((2+2)); exec sleep 1000'\n");
        hear(&mut shell, "sleeps4");
        say(&shell, "\u{3}");
        say(&shell, "echo awake$((3+3))\n");
        hear(&mut shell, "awake6");
        say(&shell, "exit 3\n");
        assert_eq!(heard(&mut shell).1, Some(3), "without {lacks}");
        until("nothing is left", || left(&host).is_empty());
    }
}

#[test]
fn whoever_lets_go_ends_everything_that_was_started() {
    for (lacks, host) in hosts() {
        host.run("i1", "sleep 1000");
        for terminal in [true, false] {
            let script = "trap '' HUP TERM INT; (setsid sleep 1000 </dev/null >/dev/null 2>&1 &); \
                          sh -c 'trap \"\" HUP; sleep 1000' & echo started$((1+1)); sleep 1000";
            let mut shell = open(&host.runtime, &order(&host, &["sh", "-c", script], terminal));
            hear(&mut shell, "started2");
            until("all of it runs", || left(&host).len() >= 3);
            assert_eq!(host.runtime.foreign().unwrap(), [], "an open shell is no stranger");
            drop(shell);
            until("nothing is left", || left(&host).is_empty());
            assert!(host.see("i1").alive, "without {lacks}: the instance goes on");
        }
    }
}

#[test]
fn a_shell_ends_with_its_instance_and_what_does_not_run_has_none() {
    let host = Host::new();
    host.run("i1", "sleep 1000");
    let mut shell = open(&host.runtime, &order(&host, &["sleep", "1000"], false));
    host.runtime.remove("i1").unwrap();
    assert_ne!(heard(&mut shell).1, Some(0));
    until("nothing is left", || left(&host).is_empty());
    let refused = Runtime::shell(&host.runtime, "i1", &order(&host, &["true"], false));
    assert!(matches!(refused, Err(RuntimeError::NoShell { .. })), "{refused:?}");
}

#[test]
fn what_a_killed_keeper_leaves_is_a_stranger() {
    let host = Host::new();
    host.run("i1", "sleep 1000");
    // The process that holds all of a shell is killed from within: what it started is left to the instance.
    let script = "sleep 1000 & kill -9 $PPID; sleep 1000";
    let mut shell = open(&host.runtime, &order(&host, &["sh", "-c", script], false));
    heard(&mut shell);
    until("nothing is left", || left(&host).is_empty());
}
