//! Jobs that try to get out of their sandbox. As in `process`, the executable is its own shim and runs its cases by name; each runs once
//! confined by all that the host permits, and once where there are no namespaces and Landlock has to do.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]
#![allow(clippy::print_stdout, reason = "it speaks as a test runner does")]

mod support;

use std::future::pending;
use std::path::Path;

use andon_runner::End;
use andon_sandbox::Bounds;
use support::{Cases, House, Kind};

const CASES: &Cases = &[
    ("the_servers_data_and_other_attempts_cannot_be_read", data),
    ("nothing_outside_can_be_written", writing),
    ("the_server_and_its_neighbours_cannot_be_signalled", signals),
    ("no_process_can_be_traced_and_the_one_that_holds_it_cannot_be_read", tracing),
    ("no_rights_are_gained", rights),
    ("a_fork_bomb_ends_at_its_limit", fork_bomb),
    ("a_job_that_takes_more_memory_than_its_limit_is_named_so", memory),
    ("a_job_without_network_reaches_itself_and_nobody_else", network),
    ("what_it_may_write_it_can_write_and_tmp_is_its_own", allowed),
    ("groups_are_gone_with_their_attempt", groups),
];

fn main() {
    support::main(&[Kind::Confined, Kind::Landlocked], CASES);
}

/// Each line of the script is something that must not succeed; what does is printed.
fn none_succeeds(house: &House, tries: &[String]) {
    let script: String = tries
        .iter()
        .map(|line| {
            format!(
                "if ( {line} ) >/dev/null 2>&1; then echo 'SUCCEEDED: {}'; fi\n",
                line.replace('\'', "\"")
            )
        })
        .collect();
    let order = house.order(&script);
    let end = house.run(&order, pending());
    assert_eq!((end, house.log(&order).as_str()), (End::Exited(0), ""));
}

fn data(house: &House) {
    let journal = house.path().join("journal.db");
    std::fs::write(&journal, "everything").unwrap();
    let other = house.order("true");
    std::fs::write(other.workdir.join("secret"), "of another").unwrap();
    let (journal, secret) = (journal.display(), other.workdir.join("secret").display().to_string());
    none_succeeds(
        house,
        &[
            format!("cat {journal}"),
            format!("cat /proc/1/root{journal}"),
            // Its own is there, since it works in it.
            format!("test $(ls {} | wc -l) -gt 1", house.path().join("attempts").display()),
            format!("cat {secret}"),
            format!("ln {secret} stolen"),
            "cat ../state.json".into(),
            "cat ../steps.jsonl".into(),
            "cat /etc/shadow".into(),
        ],
    );
}

fn writing(house: &House) {
    let outside = tempfile::tempdir_in("/var/tmp").unwrap();
    let at = outside.path().display();
    none_succeeds(
        house,
        &[
            "touch /etc/andon-was-here".into(),
            "touch /usr/andon-was-here".into(),
            "echo 1 > /proc/sys/kernel/printk".into(),
            "touch ../outcome.json".into(),
            "mv ../steps.jsonl ../gone".into(),
            format!("mkdir -p {at} && touch {at}/x && test -e /proc/1/root{at}/x"),
            "mount -t tmpfs none /mnt".into(),
            "mknod disk b 8 0".into(),
        ],
    );
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
}

fn signals(house: &House) {
    let own = std::process::id();
    none_succeeds(house, &[format!("kill -0 {own}"), format!("kill -TERM {own}")]);
    // Whatever it is that this number means to the job, the job's shim is none of it: its attempt goes on.
    let order = house.order("kill -9 -1 || true; kill -9 1 || true");
    let end = house.run(&order, pending());
    assert!(matches!(end, End::Exited(0 | 137) | End::Broken(_)), "{end:?}");
    assert_eq!(house.left(&order), Vec::<String>::new());
}

fn tracing(house: &House) {
    // PTRACE_TRACEME is 0; the number of the call is that of x86-64 and of arm64.
    let call = if cfg!(target_arch = "x86_64") { 101 } else { 117 };
    none_succeeds(
        house,
        &[
            format!("perl -e \"exit(syscall({call}, 0, 0, 0, 0) == 0 ? 0 : 1)\""),
            "head -c 1 /proc/$PPID/environ".into(),
            "for pid in 1 $(cat /proc/$PPID/status | sed -n s/PPid:.//p); do head -c 1 /proc/$pid/mem && exit 0; done; false".into(),
            "echo x > /proc/1/mem".into(),
            format!("cat /proc/{}/environ", std::process::id()),
        ]
        .into_iter()
        // Its own parent is a shell of its own, which it may look into.
        .filter(|line: &String| !line.contains("$PPID/environ"))
        .collect::<Vec<_>>(),
    );
}

fn rights(house: &House) {
    none_succeeds(
        house,
        &[
            "unshare -U true".into(),
            "unshare -m true".into(),
            "chroot / true".into(),
            "cp /bin/sh own && chmod u+s own && ./own -c \"grep -q \\\"CapEff:.*[1-9a-f]\\\" /proc/self/status\"".into(),
            "grep -q \"NoNewPrivs:.*0\" /proc/self/status".into(),
            "grep -q \"CapBnd:.*[1-9a-f]\" /proc/self/status && test $(id -u) = 0".into(),
        ],
    );
}

fn fork_bomb(house: &House) {
    let mut order = house.order("bomb() { bomb | bomb & }; bomb; sleep 2; echo still here");
    order.limits = Bounds { processes: Some(64), ..Bounds::default() };
    // What comes of it is its own affair, but it comes to an end, and nothing is left.
    let end = house.run(&order, pending());
    assert!(matches!(end, End::Exited(_)), "{end:?}");
    assert_eq!(house.left(&order), Vec::<String>::new());
}

fn memory(house: &House) {
    if !house.can_limit("memory") {
        return;
    }
    let mut order = house.order("exec perl -e '$x = \"x\" x (512 << 20); print length $x'");
    order.limits = Bounds { memory: Some(64 << 20), ..Bounds::default() };
    assert_eq!(house.run(&order, pending()), End::OutOfMemory(Some(64 << 20)));
}

fn network(house: &House) {
    let door = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = door.local_addr().unwrap().port();
    let reach = |port: u16| {
        format!("perl -MIO::Socket::INET -e 'exit(IO::Socket::INET->new(\"127.0.0.1:{port}\") ? 0 : 1)'")
    };
    let open = house.order(&reach(port));
    assert_eq!(house.run(&open, pending()), End::Exited(0));
    let mut closed = house.order(&format!(
        "! {} && perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(Listen => 1, LocalAddr => \"127.0.0.1:0\") or exit 1; \
         exit(IO::Socket::INET->new(\"127.0.0.1:\" . $s->sockport) ? 0 : 2)'",
        reach(port)
    ));
    closed.network = false;
    let end = house.run(&closed, pending());
    match house.means().namespaces {
        Ok(_) => assert_eq!(end, End::Exited(0), "{}", house.log(&closed)),
        // What cannot be kept is not begun.
        Err(_) => assert!(matches!(&end, End::Broken(why) if why.contains("hint:")), "{end:?}"),
    }
}

fn allowed(house: &House) {
    let kept = house.path().join("home");
    std::fs::create_dir_all(&kept).unwrap();
    let mut order = house.order("touch here && touch $TMPDIR/there && echo kept > $HOME/cache && ls /tmp && perl -e 'open(my $t, \"+<\", \"/dev/ptmx\") or exit 1' && perl -MSocket -MSys::Hostname -e 'exit(gethostbyname(hostname()) ? 0 : 1)'");
    order.env.insert("HOME".into(), kept.display().to_string());
    order.env.insert("TMPDIR".into(), order.room.join("tmp").display().to_string());
    order.writes = vec![kept.clone()];
    let end = house.run(&order, pending());
    match house.means().namespaces {
        Ok(_) => assert_eq!((end, house.log(&order).as_str()), (End::Exited(0), "there\n")),
        Err(_) => assert!(matches!(end, End::Exited(_)), "{end:?}"),
    }
    assert_eq!(std::fs::read_to_string(kept.join("cache")).unwrap(), "kept\n");
    assert!(order.workdir.join("here").exists());
}

fn groups(house: &House) {
    let mut order = house.order("true");
    order.limits = Bounds { memory: Some(64 << 20), cpu_millis: Some(500), processes: Some(20) };
    assert_eq!(house.run(&order, pending()), End::Exited(0));
    assert!(house.means().groups.names().is_empty(), "{:?}", house.means().groups.names());
    assert!(Path::new("/sys/fs/cgroup").exists());
}
