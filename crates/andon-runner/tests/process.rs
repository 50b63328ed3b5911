//! Jobs as real processes. The executable is its own shim when it is called with `job-shim`, so it runs without the test harness: it lists
//! and runs its cases by name as the harness would, for test runners that ask for that.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]
#![allow(clippy::print_stdout, reason = "it speaks as a test runner does")]

mod support;

use std::future::{pending, ready};

use andon_model::Span;
use andon_runner::{End, News, Room, Service, Step};
use support::{Cases, House, Kind, alive, block_on, until};

const CASES: &Cases = &[
    ("output_is_kept_whole_and_the_status_is_the_commands_own", output),
    ("the_first_failing_command_ends_the_job", first_failure),
    ("steps_run_one_after_the_other_in_one_working_copy_and_the_record_says_where_each_begins", steps),
    ("the_first_red_step_ends_the_job", red_step),
    ("a_job_that_takes_too_long_is_stopped_with_everything_it_started", timeout),
    ("a_step_that_takes_too_long_ends_the_job", step_timeout),
    ("a_job_that_says_nothing_for_too_long_is_stopped_and_one_that_speaks_is_not", quiet),
    ("a_cancelled_job_leaves_nothing_behind_even_what_ignores_the_request", cancelled),
    ("a_job_that_is_asked_to_end_may_tidy_up_and_only_its_main_process_is_asked", tidies_up),
    ("a_job_that_is_asked_to_end_while_a_service_starts_does_not_wait_for_it", stopped_early),
    ("what_a_green_job_leaves_running_is_ended_too", leftovers),
    ("a_job_that_prints_without_end_is_stopped_and_memory_stays_flat", too_much),
    ("what_is_printed_to_the_error_output_by_its_name_is_kept", by_name),
    ("a_secret_is_in_no_form_in_the_log_and_the_job_has_it_whole", secret),
    ("an_attempt_goes_on_without_its_server_and_the_next_one_takes_it_up", adopted),
    ("an_attempt_that_ended_while_no_server_was_there_is_gathered_whole", ended_meanwhile),
    ("an_attempt_whose_shim_is_killed_ends_with_it_and_is_known_to_be_lost", lost),
    ("what_nobody_knows_is_swept_and_what_is_known_stays", swept),
];

fn main() {
    support::main(&[Kind::Bare, Kind::Confined], CASES);
}

fn output(house: &House) {
    let order = house.order("echo out; echo err >&2; echo $HOME-; exit 7");
    assert_eq!(house.run(&order, pending()), End::Exited(7));
    assert_eq!(house.log(&order), "out\nerr\n-\n");
}

fn first_failure(house: &House) {
    let order = house.order("false\necho not reached");
    assert_eq!(house.run(&order, pending()), End::Exited(1));
    assert_eq!(house.log(&order), "");
}

fn secret(house: &House) {
    let value = "p4ss/w0rd+with=signs";
    let mut order = house.order(
        "[ \"$TOKEN\" = \"$EXPECTED\" ] && echo whole; echo $TOKEN; printf %s \"$TOKEN\" | base64; printf 'x%s' \"$TOKEN\" | base64; printf %s \"$TOKEN\" | od -An -tx1 | tr -d ' \\n'; echo
         for c in p 4 s s / w 0 r d + w i t h = s i g n s; do printf %s $c; done; echo; echo the end",
    );
    order.env.extend([("TOKEN".to_owned(), value.to_owned()), ("EXPECTED".to_owned(), value.to_owned())]);
    order.secrets = vec![value.to_owned()];
    assert_eq!(house.run(&order, pending()), End::Exited(0));
    let log = house.log(&order);
    assert!(log.starts_with("whole\n[hidden]\n") && log.ends_with("[hidden]\nthe end\n"), "{log}");
    assert_eq!(log.matches("[hidden]").count(), 5, "{log}");
}

fn step(name: &str, script: &str) -> Step {
    Step {
        name: name.into(),
        script: script.into(),
        env: [("OWN".into(), name.into())].into(),
        timeout_ms: None,
        service: None,
    }
}

fn steps(house: &House) {
    let mut order = house.order("");
    order.steps = vec![
        step("make", "echo 1 > made; echo $OWN"),
        step("use", "cat made; echo $OWN"),
        step("last", "exit 4"),
    ];
    let (ended, seen) = house.follow(&order);
    assert_eq!(ended, End::Exited(4));
    assert_eq!(house.log(&order), "make\n1\nuse\n");
    let short: Vec<_> = seen.iter().map(|s| (s.step, s.name.as_str(), s.end.clone(), s.log_at)).collect();
    let want =
        [(1, "make", End::Exited(0), 0), (2, "use", End::Exited(0), 5), (3, "last", End::Exited(4), 11)];
    assert_eq!(short, want);
}

fn red_step(house: &House) {
    let mut order = house.order("");
    order.steps = vec![step("red", "exit 3"), step("never", "echo never")];
    let (ended, seen) = house.follow(&order);
    assert_eq!((ended, seen.len()), (End::Exited(3), 1));
    assert_eq!(house.log(&order), "");
}

fn timeout(house: &House) {
    let mut order = house.order(
        "setsid sh -c 'trap \"\" TERM; echo $$ > deep; sleep 100' & while [ ! -s deep ]; do :; done; sleep 100",
    );
    order.timeout = Span(1500);
    assert_eq!(house.run(&order, pending()), End::TimedOut(1500));
    assert_eq!(house.left(&order), Vec::<String>::new());
}

fn step_timeout(house: &House) {
    let mut order = house.order("");
    order.steps =
        vec![Step { timeout_ms: Some(300), ..step("slow", "sleep 100") }, step("never", "echo never")];
    let (ended, seen) = house.follow(&order);
    assert_eq!((ended, seen.len()), (End::TimedOut(300), 1));
    assert_eq!(house.log(&order), "");
}

fn quiet(house: &House) {
    let mut order = house.order("for n in 1 2 3 4 5 6 7 8; do echo $n; sleep 0.2; done");
    order.quiet = Some(Span(1000));
    assert_eq!(house.run(&order, pending()), End::Exited(0));
    let mut silent = house.order("echo once; sleep 100");
    silent.quiet = Some(Span(400));
    assert_eq!(house.run(&silent, pending()), End::Quiet(400));
}

fn cancelled(house: &House) {
    let order = house.order("trap '' TERM; (setsid sleep 100 &) ; touch begun; while true; do sleep 1; done");
    let begun = until(order.workdir.join("begun"));
    assert_eq!(house.run(&order, begun), End::Cancelled);
    assert_eq!(house.left(&order), Vec::<String>::new());
    let early = house.order("sleep 100");
    assert_eq!(house.run(&early, ready(())), End::Cancelled);
}

fn tidies_up(house: &House) {
    let mut order = house.order(
        "trap 'echo tidy; exit 0' TERM; (trap 'echo asked too' TERM; while true; do sleep 0.1; done) & touch begun; while true; do sleep 0.1; done",
    );
    order.grace = Span::secs(20);
    let begun = until(order.workdir.join("begun"));
    assert_eq!(house.run(&order, begun), End::Cancelled);
    assert_eq!(house.log(&order), "tidy\n");
}

fn stopped_early(house: &House) {
    let mut order = house.order("trap 'echo tidy; exit 0' TERM; touch begun; while true; do sleep 0.1; done");
    order.steps[0].service = Some(Service { variable: "NEVER_PORT".into(), port: None, within_ms: 60_000 });
    order.grace = Span::secs(20);
    let begun = until(order.workdir.join("begun"));
    assert_eq!(house.run(&order, begun), End::Cancelled);
    let log = house.log(&order);
    assert!(log.starts_with("tidy\n"), "{log}");
    assert_eq!(house.left(&order), Vec::<String>::new());
}

fn leftovers(house: &House) {
    let order = house.order("setsid sleep 100 & exit 0");
    assert_eq!(house.run(&order, pending()), End::Exited(0));
    assert_eq!(house.left(&order), Vec::<String>::new());
}

fn too_much(house: &House) {
    let mut order = house.order("while true; do printf '%065536d' 1; done");
    order.log_limit = 4 << 20;
    assert_eq!(house.run(&order, pending()), End::TooMuchOutput(4 << 20));
}

fn by_name(house: &House) {
    let order = house.order("echo one > /dev/stderr; echo two > /dev/stdout; echo three > /proc/self/fd/2");
    assert_eq!(house.run(&order, pending()), End::Exited(0));
    assert_eq!(house.log(&order), "one\ntwo\nthree\n");
}

fn adopted(house: &House) {
    let mut order = house.order("");
    order.steps = vec![
        step("first", "echo first; touch begun"),
        step("second", "while [ ! -e go ]; do sleep 0.05; done; echo second"),
    ];
    let room = Room::at(&order.room);
    block_on(async {
        drop(house.runner().start(&order).await.unwrap());
        until(order.workdir.join("begun")).await;
        // As after a restart: nothing is known but the room.
        let mut running = house.runner().adopt(&room).await.unwrap().unwrap();
        let first = running.next().await;
        assert!(matches!(&first, News::Steps(steps) if steps[0].name == "first"), "{first:?}");
        std::fs::write(order.workdir.join("go"), "").unwrap();
        let second = running.next().await;
        assert!(matches!(&second, News::Steps(steps) if steps[0].name == "second"), "{second:?}");
        let ended = running.next().await;
        assert!(matches!(ended, News::Ended(End::Exited(0))), "{ended:?}");
    });
    assert_eq!(house.log(&order), "first\nsecond\n");
    // And one that is adopted can be stopped.
    let order = house.order("touch begun; sleep 100");
    block_on(async {
        drop(house.runner().start(&order).await.unwrap());
        until(order.workdir.join("begun")).await;
        let mut running = house.runner().adopt(&Room::at(&order.room)).await.unwrap().unwrap();
        running.stop();
        let mut last = running.next().await;
        while let News::Steps(_) = last {
            last = running.next().await;
        }
        assert!(matches!(last, News::Ended(End::Cancelled)), "{last:?}");
    });
    assert_eq!(house.left(&order), Vec::<String>::new());
}

fn ended_meanwhile(house: &House) {
    let mut order = house.order("");
    order.steps = vec![step("a", "echo a"), step("b", "exit 9")];
    block_on(async {
        drop(house.runner().start(&order).await.unwrap());
        until(order.room.join("outcome.json")).await;
        let mut running = house.runner().adopt(&Room::at(&order.room)).await.unwrap().unwrap();
        let steps = running.next().await;
        assert!(matches!(&steps, News::Steps(steps) if steps.len() == 2), "{steps:?}");
        let ended = running.next().await;
        assert!(matches!(ended, News::Ended(End::Exited(9))), "{ended:?}");
    });
}

fn lost(house: &House) {
    let order = house.order("setsid sleep 100 & touch begun; sleep 100");
    block_on(async {
        let mut running = house.runner().start(&order).await.unwrap();
        until(order.workdir.join("begun")).await;
        support::kill_shim(&order.room);
        let ended = running.next().await;
        assert!(matches!(&ended, News::Ended(End::Broken(why)) if why.contains("gone")), "{ended:?}");
        assert_eq!(house.left(&order), Vec::<String>::new());
        assert!(house.runner().adopt(&Room::at(&order.room)).await.unwrap().is_none());
    });
}

fn swept(house: &House) {
    let (one, other) = (house.order("touch begun; sleep 100"), house.order("touch begun; sleep 100"));
    block_on(async {
        let runner = house.runner();
        drop(runner.start(&one).await.unwrap());
        drop(runner.start(&other).await.unwrap());
        until(one.workdir.join("begun")).await;
        until(other.workdir.join("begun")).await;
        let kept = one.room.file_name().unwrap().to_str().unwrap().to_owned();
        runner.sweep(one.room.parent().unwrap(), |name| name == kept).unwrap();
    });
    assert!(one.room.exists() && !house.left(&one).is_empty());
    assert!(!other.room.exists());
    assert_eq!(house.left(&other), Vec::<String>::new());
    house.runner().end(&Room::at(&one.room)).unwrap();
    assert!(!alive(&one.room));
}
