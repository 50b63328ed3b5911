//! Other machines as runners of jobs: the real binary with another data directory is their agent. They join, get jobs by their labels, are
//! killed, come back, leave; what a job leaves there is as if it had run here, and no change is blamed for a machine.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod support;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{Repo, Server, andon, of_type, pause};

/// Seconds that a runner may be silent in these tests.
const LEASE: u64 = 2;

fn wait_for(what: &str, mut seen: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !seen() {
        assert!(begun.elapsed() < Duration::from_secs(60), "never seen: {what}");
        pause();
    }
}

fn words(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

/// A server that lets runners in, with a project of these files; and where they dial.
fn shop(lease: u64, files: &[(&str, &str)]) -> (Server, Repo, String) {
    let (mut server, repo) = Server::with_project(files);
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    server.kill();
    server.set("ANDON_RUNNERS", &format!("127.0.0.1:{port}"));
    server.set("ANDON_RUNNER_LEASE", &format!("{lease}s"));
    server.start();
    (server, repo, format!("127.0.0.1:{port}"))
}

fn token(server: &Server, labels: &[&str]) -> String {
    let mut args = vec!["runner", "token"];
    labels.iter().for_each(|label| args.extend(["--label", label]));
    let out = server.cli(&args);
    let said = words(&out);
    assert!(out.status.success(), "{said}");
    let at = said.find("andon_runner_").unwrap_or_else(|| panic!("no token in: {said}"));
    said[at..].split_whitespace().next().unwrap().to_owned()
}

/// A machine.
struct Machine {
    data: PathBuf,
    agent: Option<Child>,
}

impl Machine {
    fn join(server: &Server, at: &str, name: &str, labels: &[&str]) -> Machine {
        let mut machine = Machine { data: server.room.path().join(name), agent: None };
        let token = token(server, &[]);
        let mut args = vec!["join", at, "--token", &token, "--name", name, "--slots", "2"];
        labels.iter().for_each(|label| args.extend(["--label", label]));
        machine.start(&args);
        machine.is_connected(server);
        machine
    }

    fn start(&mut self, words: &[&str]) {
        let log =
            std::fs::File::options().create(true).append(true).open(self.data.with_extension("log")).unwrap();
        let agent = Command::new(andon())
            .arg("runner")
            .args(words)
            .args(["--data", self.data.to_str().unwrap()])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        self.agent = Some(agent.unwrap());
    }

    fn name(&self) -> String {
        self.data.file_name().unwrap().to_str().unwrap().to_owned()
    }

    fn is_connected(&self, server: &Server) {
        wait_for(&format!("{} takes jobs: {}", self.name(), self.said()), || {
            row(server, &self.name()).is_some_and(|row| row["mark"] == "go")
        });
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.data.with_extension("log")).unwrap_or_default()
    }

    /// When its agent is killed; what it runs is not.
    fn kill_agent(&mut self) {
        let mut agent = self.agent.take().unwrap();
        agent.kill().unwrap();
        agent.wait().unwrap();
    }

    /// When the machine goes down: the agent, the shims and all they hold.
    fn goes_down(&mut self) {
        self.kill_agent();
        self.processes().iter().for_each(|pid| {
            let _ = Command::new("kill").args(["-9", pid]).stderr(Stdio::null()).status();
        });
    }

    /// Where changes of the shop have their home there.
    fn home(&self) -> PathBuf {
        self.data.join("jobs/shop/home")
    }

    fn rooms(&self) -> Vec<PathBuf> {
        let rooms = std::fs::read_dir(self.data.join("jobs/shop/attempts")).into_iter().flatten().flatten();
        rooms.map(|entry| entry.path()).collect()
    }

    /// All that runs there beside its agent.
    fn processes(&self) -> Vec<String> {
        let named = self.data.canonicalize().unwrap().join("jobs").to_string_lossy().into_owned();
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let told =
                ["cmdline", "environ"].map(|file| std::fs::read(entry.path().join(file)).unwrap_or_default());
            if told.iter().any(|bytes| String::from_utf8_lossy(bytes).contains(&named)) {
                found.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        found
    }
}

fn row(server: &Server, name: &str) -> Option<Value> {
    let (_, view) = server.get("/api/v1/runners");
    view["runners"].as_array()?.iter().find(|row| row["name"] == name).cloned()
}

fn log(server: &Server, run: &Value, job: &str) -> String {
    let (status, log) = server.get(&format!("/api/v1/shop/runs/{run}/jobs/{job}/log"));
    assert_eq!(status, 200, "{log}");
    log.as_str().map_or_else(|| log.to_string(), str::to_owned)
}

/// Names of the steps that were recorded, in order.
fn steps(journal: &[Value]) -> Vec<String> {
    of_type(journal, "step_finished")
        .iter()
        .map(|e| e["event"]["name"].as_str().unwrap().to_owned())
        .collect()
}

/// Whether anything below the directory holds this text.
fn holds(dir: &Path, text: &str) -> bool {
    let Ok(entries) = std::fs::read_dir(dir) else { return false };
    entries.flatten().any(|entry| {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => holds(&path, text),
            Ok(kind) if kind.is_file() => {
                String::from_utf8_lossy(&std::fs::read(&path).unwrap_or_default()).contains(text)
            }
            _ => false,
        }
    })
}

/// Two steps on a machine with the label; the second waits for a file in the home of changes there.
const WAITING: &str = r#"
version: 1
pipeline:
  jobs:
    unit:
      runs_on: [linux]
      steps:
        - { name: First, run: "echo first; touch $HOME/begun" }
        - { name: Second, run: "while [ ! -e $HOME/go ]; do sleep 0.02; done; echo second" }
"#;

/// When the first step is over on that machine, and recorded.
fn begun(server: &Server, machine: &Machine) {
    wait_for("the first step", || machine.home().join("begun").exists());
    wait_for("the first step is recorded", || !steps(&server.journal()).is_empty());
}

const BUILT_THERE: &str = r#"
version: 1
pipeline:
  jobs:
    build:
      runs_on: [gpu, linux]
      secrets: [SIGNING_KEY]
      services: { db: { run: "exec python3 -m http.server $DB_PORT --bind 127.0.0.1" } }
      cache: { key: [lock], paths: [deps/] }
      run: |
        git status --porcelain && git rev-parse HEAD
        python3 -c "import urllib.request, os; urllib.request.urlopen('http://127.0.0.1:' + os.environ['DB_PORT'])" && echo reached
        echo "key: $SIGNING_KEY"
        cat deps/made 2>/dev/null || echo "no cache"
        mkdir -p deps out && echo cached > deps/made
        echo "$ANDON_JOB in $PWD" > out/built
        chmod +x out/built
        printf '<testsuite name="s"><testcase name="one"/><testcase name="two"/></testsuite>' > report.xml
        printf 'SF:%s/app.py\nDA:1,1\nDA:2,0\nend_of_record\n' "$PWD" > cov.info
      reports: { tests: report.xml, coverage: cov.info }
      outputs: [out/]
      artifact: out
    use:
      takes: [build]
      run: test -x out/built && cat out/built
"#;

#[test]
fn a_job_runs_where_its_labels_are_and_what_it_leaves_there_is_as_if_it_had_run_here() {
    let (server, repo, at) = shop(30, &[("andon.yaml", BUILT_THERE), ("app.py", "a\nb\n"), ("lock", "1")]);
    let mut child = server.cli_with(&["secret", "set", "SIGNING_KEY", "--unlanded"], Stdio::piped());
    child.stdin.take().unwrap().write_all(b"s1gning-key-of-the-shop").unwrap();
    let set = child.wait_with_output().unwrap();
    assert!(set.status.success(), "{}", words(&set));
    let other = Machine::join(&server, &at, "plain", &["linux"]);
    let machine = Machine::join(&server, &at, "r1", &["linux", "gpu"]);
    let change = repo.propose("Build it there");
    let decided = server.decided(change);
    assert_eq!(decided["row"]["standing"], "landed", "{decided:#}\n{}", machine.said());
    let journal = server.journal();
    let assigned = of_type(&journal, "job_assigned");
    assert_eq!(assigned.len(), 1, "the other job runs on the server's own machine");
    assert_eq!(
        (&assigned[0]["event"]["runner"], &assigned[0]["event"]["job"]),
        (&json!("r1"), &json!("build"))
    );
    let run = of_type(&journal, "run_queued")[0]["event"]["run"].clone();
    let built = log(&server, &run, "build");
    assert!(built.contains("reached") && built.contains("no cache"), "{built}");
    assert!(!built.contains(" M ") && !built.contains("fatal"), "git finds its commit as it is: {built}");
    let used = log(&server, &run, "use");
    assert!(used.contains("build in ") && used.contains("/r1/jobs/shop/attempts/"), "{used}");
    let view = server.view(&format!("/runs/{run}"));
    let job = view["jobs"].as_array().unwrap().iter().find(|job| job["name"] == "build").unwrap().clone();
    assert_eq!((&job["runner"], &job["tests"]), (&json!("r1"), &json!([2, 0, 0])));
    assert!(
        !job["isolation"]["has"].as_array().unwrap().is_empty()
            || !job["isolation"]["lacks"].as_array().unwrap().is_empty()
    );
    assert_eq!(
        view["files"][0]["path"], "app.py",
        "a report names files by where they were: {}",
        view["files"]
    );
    assert_eq!(of_type(&journal, "artifact_built").len(), 1);
    wait_for("its room is gone", || machine.rooms().is_empty());
    assert!(other.rooms().is_empty());
    // What it cached there is there for the next one, and a change that does not edit andon.yaml gets the secret.
    repo.follow();
    repo.write("app.py", "a\nb\nc\n");
    let change = repo.propose("Once more");
    assert_eq!(server.decided(change)["row"]["standing"], "landed");
    let run = of_type(&server.journal(), "run_queued").last().unwrap()["event"]["run"].clone();
    let built = log(&server, &run, "build");
    assert!(built.contains("cached"), "{built}");
    assert!(built.contains("key: [hidden]") && !built.contains("s1gning-key"), "{built}");
    wait_for("its room is gone", || machine.rooms().is_empty());
    assert!(!holds(&machine.data, "s1gning-key"), "the secret is on its disk");
    assert!(words(&server.cli(&["run", "show", &run.to_string()])).contains("on the runner r1"));
}

#[test]
fn a_job_that_no_runner_can_take_says_what_it_waits_for_until_one_joins() {
    let yaml = "version: 1\npipeline: { jobs: { unit: { runs_on: [gpu], run: 'echo done' } } }\n";
    let (server, repo, at) = shop(30, &[("andon.yaml", yaml)]);
    let _other = Machine::join(&server, &at, "plain", &["linux"]);
    let change = repo.propose("Wait");
    let waits = server
        .until("it says so", "/runs/1", |run| run["jobs"][0]["words"] == "waits for a runner with label gpu");
    assert_eq!(waits["jobs"][0]["mark"], "wait");
    let said = words(&server.cli(&["run", "show", "1"]));
    assert!(said.contains("waits for a runner with label gpu"), "{said}");
    // What its token says of it counts as well.
    let mut machine = Machine { data: server.room.path().join("r1"), agent: None };
    machine.start(&["join", &at, "--token", &token(&server, &["gpu"]), "--name", "r1"]);
    assert_eq!(server.decided(change)["row"]["standing"], "landed", "{}", machine.said());
    assert_eq!(row(&server, "r1").unwrap()["labels"], json!(["gpu"]));
}

#[test]
fn a_token_lets_one_machine_in_and_is_worth_nothing_after_that() {
    let (server, _, at) = shop(30, &[("andon.yaml", WAITING)]);
    let token = token(&server, &[]);
    let mut first = Machine { data: server.room.path().join("r1"), agent: None };
    first.start(&["join", &at, "--token", &token, "--name", "r1"]);
    first.is_connected(&server);
    let again = Command::new(andon())
        .args(["runner", "join", &at, "--token", &token, "--name", "r2", "--data"])
        .arg(server.room.path().join("r2"))
        .output()
        .unwrap();
    assert!(!again.status.success() && words(&again).contains("used already"), "{}", words(&again));
    let bad = token.replace(&token[13..45], &"0".repeat(32));
    let stranger = Command::new(andon())
        .args(["runner", "join", &at, "--token", &bad, "--name", "r3", "--data"])
        .arg(server.room.path().join("r3"))
        .output()
        .unwrap();
    assert!(
        !stranger.status.success() && words(&stranger).contains("another certificate"),
        "{}",
        words(&stranger)
    );
    let name = row(&server, "r2").or_else(|| row(&server, "r3"));
    assert_eq!(name, None);
    // A runner that leaves is none any more, and its agent ends.
    let left = server.cli(&["runner", "leave", "r1", "-m", "sold"]);
    assert!(left.status.success(), "{}", words(&left));
    let mut agent = first.agent.take().unwrap();
    assert!(agent.wait().unwrap().success(), "{}", first.said());
    wait_for("it is gone", || row(&server, "r1").is_none());
    assert!(!first.data.join("runner.json").exists());
}

#[test]
fn a_machine_that_goes_down_is_broken_infrastructure_and_its_job_runs_elsewhere() {
    let (server, repo, at) = shop(LEASE, &[("andon.yaml", WAITING)]);
    let mut first = Machine::join(&server, &at, "r1", &["linux"]);
    let change = repo.propose("Wait");
    begun(&server, &first);
    let second = Machine::join(&server, &at, "r2", &["linux"]);
    std::fs::create_dir_all(second.home()).unwrap();
    std::fs::write(second.home().join("go"), "").unwrap();
    first.goes_down();
    let decided = server.decided(change);
    assert_eq!(decided["row"]["standing"], "landed", "{decided:#}");
    let journal = server.journal();
    let ends = of_type(&journal, "job_finished");
    assert_eq!(ends.len(), 2);
    let why = ends[0]["event"]["ended"].to_string();
    assert!(why.contains("broken") && why.contains("r1 was not reached"), "{why}");
    let runners: Vec<&Value> =
        of_type(&journal, "job_assigned").into_iter().map(|event| &event["event"]["runner"]).collect();
    assert_eq!(runners, [&json!("r1"), &json!("r2")]);
    let numbers: Vec<u64> = of_type(&journal, "job_assigned")
        .iter()
        .map(|event| event["event"]["number"].as_u64().unwrap())
        .collect();
    assert!(numbers[0] < numbers[1], "{numbers:?}");
}

#[test]
fn what_a_runner_does_beyond_its_lease_is_refused_and_ended_when_it_is_back() {
    let (server, repo, at) = shop(LEASE, &[("andon.yaml", WAITING)]);
    let mut first = Machine::join(&server, &at, "r1", &["linux"]);
    let change = repo.propose("Wait");
    begun(&server, &first);
    let second = Machine::join(&server, &at, "r2", &["linux"]);
    first.kill_agent();
    // The lease is over, and the job begun elsewhere, while the first one still runs.
    begun(&server, &second);
    assert!(!first.processes().is_empty());
    std::fs::write(first.home().join("go"), "").unwrap();
    wait_for("it ends there", || first.rooms().iter().any(|room| room.join("outcome.json").exists()));
    first.start(&["run"]);
    wait_for("what came of it is let go", || first.rooms().is_empty());
    assert!(of_type(&server.journal(), "landed").is_empty(), "a stale result decides nothing");
    std::fs::write(second.home().join("go"), "").unwrap();
    assert_eq!(server.decided(change)["row"]["standing"], "landed");
    let journal = server.journal();
    assert_eq!(steps(&journal), ["First", "First", "Second"]);
    assert_eq!(of_type(&journal, "job_finished").len(), 2);
}

#[test]
fn a_runner_that_is_back_within_its_lease_goes_on_where_it_was() {
    let (server, repo, at) = shop(60, &[("andon.yaml", WAITING)]);
    let mut machine = Machine::join(&server, &at, "r1", &["linux"]);
    let change = repo.propose("Wait");
    begun(&server, &machine);
    machine.kill_agent();
    // It ends while nobody is connected.
    std::fs::write(machine.home().join("go"), "").unwrap();
    wait_for("the outcome", || machine.rooms().iter().any(|room| room.join("outcome.json").exists()));
    machine.start(&["run"]);
    assert_eq!(server.decided(change)["row"]["standing"], "landed", "{}", machine.said());
    let journal = server.journal();
    assert_eq!(of_type(&journal, "job_started").len(), 1);
    assert_eq!(steps(&journal), ["First", "Second"]);
    assert_eq!(log(&server, &json!(1), "unit"), "first\nsecond\n");
}

#[test]
fn a_step_that_runs_on_a_runner_when_the_server_dies_is_taken_up_and_recorded_once() {
    let (mut server, repo, at) = shop(30, &[("andon.yaml", WAITING)]);
    let machine = Machine::join(&server, &at, "r1", &["linux"]);
    let change = repo.propose("Wait");
    begun(&server, &machine);
    server.kill();
    server.start();
    std::fs::write(machine.home().join("go"), "").unwrap();
    assert_eq!(server.decided(change)["row"]["standing"], "landed", "{}", machine.said());
    let journal = server.journal();
    assert_eq!(of_type(&journal, "job_started").len(), 1);
    assert!(of_type(&journal, "job_lost").is_empty());
    assert_eq!(steps(&journal), ["First", "Second"]);
    assert_eq!(log(&server, &json!(1), "unit"), "first\nsecond\n");
    wait_for("its room is gone", || machine.rooms().is_empty());
}

#[test]
fn a_job_that_nobody_needs_any_more_ends_on_its_runner_with_its_tree() {
    let yaml = WAITING.replace("touch $HOME/begun", "(trap '' TERM; setsid sleep 1000 &); touch $HOME/begun");
    let (server, repo, at) = shop(30, &[("andon.yaml", &yaml)]);
    let machine = Machine::join(&server, &at, "r1", &["linux"]);
    let change = repo.propose("Wait");
    begun(&server, &machine);
    assert!(!machine.processes().is_empty());
    let (status, said) =
        server.post(&format!("/api/v1/shop/changes/{change}/abandon"), &json!({ "why": "enough" }));
    assert_eq!(status, 200, "{said}");
    wait_for("nothing is left", || machine.processes().is_empty() && machine.rooms().is_empty());
}
