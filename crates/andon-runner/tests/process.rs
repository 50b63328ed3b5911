//! Jobs as real processes. The executable is its own shim when it is called with `shim`, so it runs without the test harness: it lists
//! and runs its cases by name as the harness would, for test runners that ask for that.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]
#![allow(clippy::print_stdout, reason = "it speaks as a test runner does")]

use std::collections::BTreeMap;
use std::future::{pending, ready};
use std::path::{Path, PathBuf};

use andon_model::Span;
use andon_runner::{End, Order, Runner};

/// A case by its name.
type Case = (&'static str, fn(&Path));

const CASES: [Case; 6] = [
    ("output_is_kept_whole_and_the_status_is_the_commands_own", output),
    ("the_first_failing_command_ends_the_job", first_failure),
    ("a_job_that_takes_too_long_is_stopped_with_everything_it_started", timeout),
    ("a_cancelled_job_leaves_nothing_behind_even_what_ignores_the_request", cancelled),
    ("what_a_green_job_leaves_running_is_ended_too", leftovers),
    ("a_job_that_prints_without_end_is_stopped_and_memory_stays_flat", too_much),
];

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|arg| arg == "shim") {
        std::process::exit(andon_runner::shim::main());
    }
    if args.iter().any(|arg| arg == "--list") {
        let ignored = args.iter().any(|arg| arg == "--ignored");
        for (name, _) in CASES.iter().filter(|_| !ignored) {
            println!("{name}: test");
        }
        return;
    }
    let wanted = |name: &str| args.iter().all(|arg| arg.starts_with('-') || name.contains(arg.as_str()));
    for (name, case) in CASES.iter().filter(|(name, _)| wanted(name)) {
        let room = tempfile::tempdir().unwrap();
        case(room.path());
        println!("test {name} ... ok");
    }
}

fn order(room: &Path, script: &str) -> Order {
    Order {
        script: script.into(),
        workdir: room.to_owned(),
        env: BTreeMap::from([("PATH".into(), std::env::var("PATH").unwrap())]),
        timeout: Span::secs(60),
        grace: Span(200),
        log: room.join("log"),
        log_limit: 1 << 30,
    }
}

fn run(order: &Order, cancel: impl Future<Output = ()>) -> End {
    let runner = Runner { shim: vec![std::env::current_exe().unwrap(), PathBuf::from("shim")] };
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(runner.run(order, cancel))
}

fn alive(room: &Path, file: &str) -> bool {
    let pid = std::fs::read_to_string(room.join(file)).unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

fn output(room: &Path) {
    let order = order(room, "echo out; echo err >&2; echo $HOME-; exit 7");
    assert_eq!(run(&order, pending()), End::Exited(7));
    assert_eq!(std::fs::read_to_string(&order.log).unwrap(), "out\nerr\n-\n");
}

fn first_failure(room: &Path) {
    let order = order(room, "false\necho not reached");
    assert_eq!(run(&order, pending()), End::Exited(1));
    assert_eq!(std::fs::read_to_string(&order.log).unwrap(), "");
}

fn timeout(room: &Path) {
    let mut order = order(
        room,
        "setsid sh -c 'trap \"\" TERM; echo $$ > deep; sleep 100' & while [ ! -s deep ]; do :; done; sleep 100",
    );
    order.timeout = Span(700);
    assert_eq!(run(&order, pending()), End::TimedOut);
    assert!(!alive(room, "deep"));
}

fn cancelled(room: &Path) {
    let order = order(
        room,
        "trap '' TERM; echo $$ > main; (setsid sleep 100 & echo $! > deep) ; while true; do sleep 1; done",
    );
    let deep = room.join("deep");
    let begun = async move {
        while !deep.exists() {
            tokio::task::yield_now().await;
        }
    };
    assert_eq!(run(&order, begun), End::Cancelled);
    assert!(!alive(room, "main") && !alive(room, "deep"));
    let early = self::order(room, "sleep 100");
    assert_eq!(run(&early, ready(())), End::Cancelled);
}

fn leftovers(room: &Path) {
    let order = order(room, "setsid sleep 100 & echo $! > deep; exit 0");
    assert_eq!(run(&order, pending()), End::Exited(0));
    assert!(!alive(room, "deep"));
}

fn too_much(room: &Path) {
    let mut order = order(room, "while true; do printf '%065536d' 1; done");
    order.log_limit = 4 << 20;
    assert_eq!(run(&order, pending()), End::TooMuchOutput);
}
