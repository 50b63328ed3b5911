//! Jobs and the server's death, on the real binary: steps go on without it and are taken up again, each is run and recorded once, and what is
//! really gone is run again and never held against the change.
//!
//! `ANDON_KILLS` says how often the busy pipeline loses its server (default 10), `ANDON_SEED` repeats a run; with
//! `ANDON_KILL_FIGURES=FILE` what was counted is kept.

#![allow(clippy::print_stdout, reason = "a test says what it measured")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{Dice, Repo, Server, of_type, pass, pause};

/// Two steps; the second waits for a file in the home that the project's jobs share.
const WAITING: &str = r#"
version: 1
pipeline:
  jobs:
    unit:
      steps:
        - { name: First, run: "echo first; touch $HOME/begun" }
        - { name: Second, run: "while [ ! -e $HOME/go ]; do sleep 0.02; done; echo second" }
"#;

fn home(server: &Server) -> PathBuf {
    server.room.path().join("data/jobs/shop/home")
}

fn wait_for(what: &str, mut seen: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !seen() {
        assert!(begun.elapsed() < Duration::from_secs(60), "never seen: {what}");
        pause();
    }
}

fn begun(server: &Server) {
    wait_for("the first step", || home(server).join("begun").exists());
    server.until("the first step is recorded", "/journal", |journal| {
        journal
            .as_array()
            .is_some_and(|all| all.iter().any(|event| event["event"]["type"] == "step_finished"))
    });
}

#[test]
fn a_step_that_runs_when_the_server_dies_is_taken_up_and_runs_once() {
    let (mut server, repo) = Server::with_project(&[("andon.yaml", WAITING)]);
    let change = repo.propose("Wait");
    begun(&server);
    server.kill();
    server.start();
    std::fs::write(home(&server).join("go"), "").unwrap();
    assert_eq!(server.decided(change)["row"]["standing"], "landed");
    let journal = server.journal();
    assert!(of_type(&journal, "job_lost").is_empty());
    assert_eq!(of_type(&journal, "job_started").len(), 1);
    let steps: Vec<_> =
        of_type(&journal, "step_finished").iter().map(|e| e["event"]["name"].clone()).collect();
    assert_eq!(steps, ["First", "Second"]);
    let run = of_type(&journal, "run_queued")[0]["event"]["run"].clone();
    let (_, log) = server.get(&format!("/api/v1/shop/runs/{run}/jobs/unit/log"));
    assert_eq!(log.as_str().unwrap(), "first\nsecond\n");
    // Where each begins in the output is known.
    let at: Vec<_> =
        of_type(&journal, "step_finished").iter().map(|e| e["event"]["log_at"].clone()).collect();
    assert_eq!(at, [0, 6]);
}

#[test]
fn a_job_that_ended_while_no_server_was_there_is_gathered_with_what_it_made() {
    let yaml = WAITING
        .replace("    unit:\n", "    unit:\n      artifact: out\n")
        .replace("echo second", "mkdir out; echo 1 > out/one");
    let (mut server, repo) = Server::with_project(&[("andon.yaml", &yaml)]);
    let change = repo.propose("Wait");
    begun(&server);
    server.kill();
    std::fs::write(home(&server).join("go"), "").unwrap();
    let attempts = server.room.path().join("data/jobs/shop/attempts");
    wait_for("the outcome", || {
        let rooms = std::fs::read_dir(&attempts).into_iter().flatten().flatten();
        rooms.into_iter().any(|room| room.path().join("outcome.json").exists())
    });
    server.start();
    assert_eq!(server.decided(change)["row"]["standing"], "landed");
    let journal = server.journal();
    assert_eq!(of_type(&journal, "artifact_built").len(), 1);
    assert_eq!(of_type(&journal, "job_started").len(), 1);
    wait_for("the room is gone", || std::fs::read_dir(&attempts).unwrap().next().is_none());
}

#[test]
fn what_is_really_gone_is_run_again_and_the_change_is_not_blamed() {
    let (mut server, repo) = Server::with_project(&[("andon.yaml", WAITING)]);
    let change = repo.propose("Wait");
    begun(&server);
    server.kill();
    // As when the machine goes down: the shim dies with all it holds.
    let rooms = server.room.path().join("data/jobs/shop/attempts");
    let room = std::fs::read_dir(rooms).unwrap().next().unwrap().unwrap().path();
    let state: Value = serde_json::from_slice(&std::fs::read(room.join("state.json")).unwrap()).unwrap();
    let shim = state["shim"]["pid"].to_string();
    assert!(std::process::Command::new("kill").args(["-9", &shim]).status().unwrap().success());
    std::fs::write(home(&server).join("go"), "").unwrap();
    server.start();
    assert_eq!(server.decided(change)["row"]["standing"], "landed");
    let journal = server.journal();
    assert_eq!(of_type(&journal, "job_lost").len(), 1);
    assert_eq!(of_type(&journal, "job_started").len(), 2);
    // The first step ran in both attempts, and is recorded for each.
    assert_eq!(of_type(&journal, "step_finished").len(), 3);
}

#[test]
fn a_job_that_nobody_needs_any_more_ends_with_its_tree() {
    let yaml = WAITING.replace("touch $HOME/begun", "(trap '' TERM; setsid sleep 1000 &); touch $HOME/begun");
    let (server, repo) = Server::with_project(&[("andon.yaml", &yaml)]);
    let change = repo.propose("Wait");
    begun(&server);
    assert!(!left(&server).is_empty());
    let (status, said) =
        server.post(&format!("/api/v1/shop/changes/{change}/abandon"), &json!({ "why": "enough" }));
    assert_eq!(status, 200, "{said}");
    wait_for("nothing is left", || left(&server).is_empty());
}

#[test]
fn the_run_says_what_separated_each_attempt_and_names_what_a_limit_did() {
    let yaml = "
version: 1
pipeline:
  jobs:
    unit:
      run: exec perl -e '$x = \"x\" x (512 << 20); print length $x'
      limits: { memory: 64MiB }
      network: false
";
    let (server, repo) = Server::with_project(&[("andon.yaml", yaml)]);
    let decided = server.decided(repo.propose("Eat"));
    let journal = server.journal();
    let started = &of_type(&journal, "job_started")[0]["event"]["isolation"];
    let has: Vec<&str> = started["has"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    let lacks: Vec<&str> =
        started["lacks"].as_array().unwrap().iter().filter_map(|lack| lack[0].as_str()).collect();
    for what in ["files of its own", "Landlock", "memory limit", "no network"] {
        assert!(has.contains(&what) || lacks.contains(&what), "{what}: {started}");
    }
    if has.contains(&"memory limit") {
        let words = decided["row"]["words"].as_str().unwrap();
        assert!(words.contains("more memory than its limit of 64 MiB"), "{words}");
    }
}

#[test]
fn what_a_change_leaves_in_its_home_is_there_for_the_next_one_and_not_for_trunk() {
    let yaml = "version: 1\npipeline: { jobs: { unit: { run: 'cat $HOME/left || true; echo by $ANDON_RUN >> $HOME/left' } } }\n";
    let (server, repo) = Server::with_project(&[("andon.yaml", yaml)]);
    assert_eq!(server.decided(repo.propose("One"))["row"]["standing"], "landed");
    repo.follow();
    repo.write("two", "2");
    assert_eq!(server.decided(repo.propose("Two"))["row"]["standing"], "landed");
    let (status, said) = server.post("/api/v1/shop/runs", &json!({}));
    assert_eq!(status, 200, "{said}");
    let ran = || of_type(&server.journal(), "run_finished").len();
    wait_for("trunk is tested", || ran() == 3);
    let logs: Vec<String> = of_type(&server.journal(), "run_finished")
        .iter()
        .map(|event| {
            let (_, log) = server.get(&format!("/api/v1/shop/runs/{}/jobs/unit/log", event["event"]["run"]));
            log.as_str().unwrap_or_default().to_owned()
        })
        .collect();
    assert!(logs[1].contains("by run-"), "a change finds what another one cached: {logs:?}");
    assert!(!logs[2].contains("by run-"), "trunk begins with what a change left: {logs:?}");
}

/// Everything below the rooms of attempts.
fn left(server: &Server) -> Vec<String> {
    let rooms = server.room.path().join("data/jobs/shop/attempts").canonicalize().unwrap_or_default();
    let rooms = rooms.to_string_lossy().into_owned();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let told =
            ["cmdline", "environ"].map(|file| std::fs::read(entry.path().join(file)).unwrap_or_default());
        if told.iter().any(|bytes| String::from_utf8_lossy(bytes).contains(&rooms)) {
            found.push(String::from_utf8_lossy(&told[0]).replace('\0', " "));
        }
    }
    found
}

/// The name of the room of the attempt that an event is about.
fn room_of(event: &Value) -> String {
    let event = &event["event"];
    format!("run-{}-{}-{}", event["run"], event["job"].as_str().unwrap(), event["attempt"])
}

/// Rooms of attempts whose shim lives and has said who it is.
fn under_way(server: &Server) -> Vec<String> {
    let rooms = std::fs::read_dir(server.room.path().join("data/jobs/shop/attempts"));
    let alive = |room: std::fs::DirEntry| {
        let state: Value =
            serde_json::from_slice(&std::fs::read(room.path().join("state.json")).ok()?).ok()?;
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", state["shim"]["pid"])).ok()?;
        let name = room.file_name().to_str()?.to_owned();
        (!stat.contains(") Z ")).then_some(name)
    };
    rooms.into_iter().flatten().flatten().filter_map(alive).collect()
}

/// Four jobs side by side, of five steps each, each of which leaves a line where the project's jobs have their home.
fn busy() -> String {
    let step = |n: u32| {
        format!(
            "        - {{ name: Step {n}, run: 'echo \"$(basename $ANDON_ATTEMPT) {n}\" >> $HOME/ran; echo said {n}; sleep 0.0{}' }}\n",
            n * 3 % 10
        )
    };
    let steps: String = (1..=5).map(step).collect();
    let jobs: String = (1..=4).map(|n| format!("    job-{n}:\n      steps:\n{steps}")).collect();
    format!("version: 1\npipeline:\n  jobs:\n{jobs}")
}

#[test]
fn however_often_a_busy_pipeline_loses_its_server_no_run_is_lost_and_no_step_runs_or_is_recorded_twice() {
    let kills: u32 = std::env::var("ANDON_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(10);
    let mut dice = Dice::of_environment();
    let (mut server, repo) = Server::with_project(&[("andon.yaml", &busy())]);
    assert_eq!(server.decided(repo.propose("Begin"))["row"]["standing"], "landed");
    let stop = AtomicBool::new(false);
    let (mut with_steps, mut alive) = (0, BTreeSet::new());
    let mut taken = Vec::new();
    std::thread::scope(|scope| {
        let pusher = scope.spawn(|| push_on(&repo, &stop));
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..kills {
                pass(dice.between(10, 600));
                server.kill();
                let now = under_way(&server);
                with_steps += usize::from(!now.is_empty());
                alive.extend(now);
                server.start();
            }
        }));
        stop.store(true, Ordering::SeqCst);
        taken = pusher.join().unwrap();
        if let Err(panic) = done {
            std::panic::resume_unwind(panic);
        }
    });
    server.until("nothing waits", "/queue", |queue| queue["open"].as_array().is_some_and(Vec::is_empty));
    let journal = server.journal();
    let lost = told_once(&journal, &taken);
    let finished: BTreeSet<String> = of_type(&journal, "job_finished").into_iter().map(room_of).collect();
    let adopted = alive.intersection(&finished).count();
    // What held its lock when its server died is never lost.
    let given_up: Vec<String> = of_type(&journal, "job_lost").into_iter().map(room_of).collect();
    assert!(!given_up.iter().any(|room| alive.contains(room)), "{given_up:?} of {alive:?}");
    ran_once(&server, &journal);
    wait_for("nothing is left", || left(&server).is_empty());
    let rooms = server.room.path().join("data/jobs/shop/attempts");
    wait_for("no room is left", || std::fs::read_dir(&rooms).unwrap().next().is_none());
    let steps = of_type(&journal, "step_finished").len();
    println!(
        "{kills} kills, {with_steps} of them with steps under way; {} pushes, {steps} steps, {adopted} attempts outlived a server, {lost} lost before they began",
        taken.len()
    );
    if let Ok(file) = std::env::var("ANDON_KILL_FIGURES") {
        let figures = json!({ "kills": kills, "live": with_steps, "pushes": taken.len(), "steps": steps, "adopted": adopted, "lost": lost });
        std::fs::write(file, figures.to_string()).unwrap();
    }
}

/// Changes, as quick as the server takes them. The heads that it took.
fn push_on(repo: &Repo, stop: &AtomicBool) -> Vec<String> {
    let mut taken = Vec::new();
    let mut n = 0;
    while !stop.load(Ordering::SeqCst) {
        n += 1;
        if !repo.try_follow() {
            repo.git(&["reset", "-q", "--hard", "HEAD"]);
        }
        repo.write(&format!("parts/{n}"), &n.to_string());
        repo.commit(&format!("Part {n}"));
        if repo.push().0 {
            let head = repo.git(&["rev-parse", "HEAD"]).stdout;
            taken.push(String::from_utf8(head).unwrap().trim().to_owned());
        }
        pass(150);
    }
    taken
}

/// By the journal: every push decided, every run ended, every attempt ended once, every step of a green attempt recorded once and in order.
/// Returns how many attempts were lost.
fn told_once(journal: &[Value], taken: &[String]) -> usize {
    let changes: BTreeMap<&str, &Value> = of_type(journal, "change_pushed")
        .iter()
        .map(|event| (event["event"]["head"].as_str().unwrap(), &event["event"]["change"]))
        .collect();
    let decided: Vec<&Value> = ["landed", "change_refused", "change_abandoned"]
        .iter()
        .flat_map(|kind| of_type(journal, kind))
        .map(|event| &event["event"]["change"])
        .collect();
    for head in taken {
        let change =
            changes.get(head.as_str()).unwrap_or_else(|| panic!("{head} was acknowledged and is lost"));
        assert!(decided.contains(change), "change {change} was never decided");
    }
    for refused in of_type(journal, "change_refused") {
        assert_eq!(
            refused["event"]["why"], "trunk has it already",
            "every change of this load is green: {refused}"
        );
    }
    let ended: BTreeSet<String> =
        of_type(journal, "run_finished").iter().map(|event| event["event"]["run"].to_string()).collect();
    for run in of_type(journal, "run_queued") {
        assert!(ended.contains(&run["event"]["run"].to_string()), "a run is stuck: {run}");
    }
    let mut ends = BTreeSet::new();
    for end in of_type(journal, "job_finished").into_iter().chain(of_type(journal, "job_lost")) {
        assert!(ends.insert(room_of(end)), "an attempt ended twice: {end}");
    }
    let mut steps: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for step in of_type(journal, "step_finished") {
        steps.entry(room_of(step)).or_default().push(step["event"]["step"].as_u64().unwrap());
    }
    for (attempt, steps) in &steps {
        let want: Vec<u64> = (1..=steps.len() as u64).collect();
        assert_eq!(steps, &want, "{attempt}");
    }
    for green in
        of_type(journal, "job_finished").into_iter().filter(|event| event["event"]["ended"] == "passed")
    {
        assert_eq!(steps.get(&room_of(green)).map(Vec::len), Some(5), "{green}");
    }
    of_type(journal, "job_lost").len()
}

/// By what the steps themselves left: none ran twice in one attempt, and each that is recorded ran.
fn ran_once(server: &Server, journal: &[Value]) {
    let text = std::fs::read_to_string(home(server).join("ran")).unwrap();
    let mut seen = BTreeSet::new();
    for line in text.lines() {
        assert!(seen.insert(line.to_owned()), "ran twice: {line}");
    }
    for step in
        of_type(journal, "step_finished").into_iter().filter(|event| event["event"]["ended"] == "passed")
    {
        let event = &step["event"];
        let line = format!(
            "run-{}-{}-{} {}",
            event["run"],
            event["job"].as_str().unwrap(),
            event["attempt"],
            event["step"]
        );
        assert!(seen.contains(&line), "recorded, and never run: {line}");
    }
}
