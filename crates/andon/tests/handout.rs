//! Tests handed out to jobs while they run, on the real binary with real runners: each test once, also when the server is killed in the middle and when an
//! attempt breaks.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]
#![allow(clippy::print_stdout, reason = "a test that cannot be made says so")]

mod support;

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;
use support::{Server, of_type};

/// Two jobs share the tests of one folder; each stops at a gate before its second piece, until the test opens it.
const YAML: &str = r#"
version: 1
pipeline:
  jobs:
    unit:
      matrix: { shard: ["0", "1"] }
      run: |
        LIST > all
        n=0
        while :; do
          andon tests next --total 2 < all > own
          [ -s own ] || break
          n=$((n+1))
          cat own
          RUN
          touch "$HOME/begun"
          while [ ! -e "$HOME/open" ]; do sleep 0.05; done
        done
      reports: { tests: "unit-*" }
"#;

fn yaml(list: &str, run: &str) -> String {
    YAML.replace("LIST", list).replace("RUN", run)
}

fn missing(what: &str, how: &str) -> bool {
    let there = Command::new("sh").args(["-c", how]).output().is_ok_and(|out| out.status.success());
    if !there {
        println!("SKIPPED: tests of {what} handed out ({what} cannot be had)");
        assert_ne!(
            std::env::var("CI").as_deref(),
            Ok("true"),
            "in CI a component that is missing is a failure"
        );
    }
    !there
}

/// Who had which place of the list.
fn handed(journal: &[Value]) -> BTreeMap<u64, Vec<String>> {
    let mut had: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for event in of_type(journal, "tests_handed") {
        let event = &event["event"];
        let who = format!("{} {}", event["job"].as_str().unwrap(), event["attempt"]);
        for place in event["from"].as_u64().unwrap()..event["to"].as_u64().unwrap() {
            had.entry(place).or_default().push(who.clone());
        }
    }
    had
}

/// When a change is tested and the server is killed while both jobs run, every test is run and reported once.
fn through_a_kill(files: &[(&str, &str)], tests: u64) {
    let (mut server, repo) = Server::with_project(files);
    let home = server.room.path().join("data/jobs/shop/home");
    let change = repo.propose("Begin");
    server.until("a first piece is run", "/queue", |_| home.join("begun").exists());
    // When the server is killed while jobs hold pieces, and ask for more before another is there,
    server.kill();
    std::fs::write(home.join("open"), "").unwrap();
    support::pass(400);
    server.start();
    // Then the jobs go on, and the change lands.
    let view = server.decided(change);
    assert_eq!(view["row"]["standing"], "landed", "{view}");
    let journal = server.journal();
    let had = handed(&journal);
    assert_eq!(had.len() as u64, tests, "{had:?}");
    assert!(had.values().all(|who| who.len() == 1), "{had:?}");
    let run = &of_type(&journal, "run_finished")[0]["event"];
    assert_eq!(run["tests"]["passed"], tests, "{run}");
    assert_eq!(of_type(&journal, "handout_opened").len(), 1);
    assert!(of_type(&journal, "tests_handed").len() > 3, "pieces get smaller");
}

#[test]
fn nodes_tests_are_handed_out_once_though_the_server_is_killed() {
    if missing("node", "node --version") {
        return;
    }
    let yaml = yaml(
        "ls test/*.test.js",
        "node --test --test-reporter=tap --test-reporter-destination=unit-$n.tap $(cat own)",
    );
    let test = "require('node:test').test('it goes', () => {});\n";
    let names: Vec<String> = (0..12).map(|n| format!("test/{n}.test.js")).collect();
    let files: Vec<(&str, &str)> =
        names.iter().map(|name| (name.as_str(), test)).chain([("andon.yaml", yaml.as_str())]).collect();
    through_a_kill(&files, 12);
}

#[test]
fn pytests_tests_are_handed_out_once_though_the_server_is_killed() {
    if missing("pytest", "python3 -m pip download -q --no-deps -d \"$(mktemp -d)\" pytest") {
        return;
    }
    let yaml = yaml("$TMPDIR/venv/bin/pytest --collect-only -q | grep ::", "$TMPDIR/venv/bin/pytest -q --junitxml=unit-$n.xml @own")
        .replace("        $TMPDIR/venv/bin/pytest --coll", "        python3 -m venv $TMPDIR/venv && $TMPDIR/venv/bin/pip install -q pytest\n        $TMPDIR/venv/bin/pytest --coll");
    let test = "def test_a():\n    pass\n\n\ndef test_b():\n    pass\n";
    let files = [
        ("tests/test_one.py", test),
        ("tests/test_two.py", test),
        ("tests/test_three.py", test),
        ("andon.yaml", &yaml),
    ];
    through_a_kill(&files, 6);
}

#[test]
fn what_a_red_attempt_had_is_given_to_the_next_one_and_what_nobody_took_is_not_green() {
    // The first attempt takes one piece and fails; the second takes all there is.
    let again = r#"
version: 1
pipeline:
  jobs:
    unit:
      run: |
        printf 'a\nb\nc\nd\n' > all
        n=0
        while :; do
          andon tests next --total 1 < all > own
          [ -s own ] || break
          n=$((n+1))
          { echo '<testsuite>'; while read name; do echo "<testcase name=\"$name\"/>"; done < own; echo '</testsuite>'; } > unit-$n.xml
          [ -e "$HOME/failed" ] || { touch "$HOME/failed"; exit 1; }
        done
      retries: 1
      reports: { tests: "unit-*.xml" }
"#;
    let (server, repo) = Server::with_project(&[("andon.yaml", again)]);
    let view = server.decided(repo.propose("Begin"));
    assert_eq!(view["row"]["standing"], "landed", "{view}");
    let journal = server.journal();
    let had = handed(&journal);
    assert_eq!(had.len(), 4);
    assert!(had.values().all(|who| who.last().unwrap() == "unit 2"), "{had:?}");
    assert_eq!(of_type(&journal, "run_finished")[0]["event"]["tests"]["passed"], 4);
    // A job that stops asking too early keeps the run from being green.
    repo.follow();
    repo.write(
        "andon.yaml",
        &again.replace("[ -e \"$HOME/failed\" ] || { touch \"$HOME/failed\"; exit 1; }", "break"),
    );
    let lazy = server.decided(repo.propose("Ask once"));
    assert_eq!(lazy["row"]["standing"], "refused", "{lazy}");
    let words = lazy["row"]["words"].as_str().unwrap();
    assert!(words.contains("of the tests that jobs share (tests) were given to none of them"), "{words}");
}

#[test]
fn only_a_job_that_runs_may_ask() {
    let (server, _) = Server::with_project(&[(
        "andon.yaml",
        "version: 1\npipeline:\n  jobs:\n    unit: { run: 'true' }\n",
    )]);
    let names = format!("sha256:{}", "0".repeat(64));
    let body = serde_json::json!({ "name": "tests", "ask": "x", "shards": 2, "names": names });
    let (status, answer) = server.post("/api/v1/shop/tests/next", &body);
    assert_eq!(status, 409, "{answer}");
    assert!(answer["hint"].as_str().unwrap().contains("andon tests next"), "{answer}");
    for token in ["job_shop.1.1.abc.unit", "job_shop", "job_.1.1.x.unit", "job_shop.x.y.z.unit"] {
        assert_eq!(server.post_as(token, "/api/v1/shop/tests/next", &body).0, 401, "{token}");
    }
}
