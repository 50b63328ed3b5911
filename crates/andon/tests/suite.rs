//! What is remembered of tests: their order where they run, flakes with their proof, quarantine; on the real binary.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod support;

use serde_json::{Value, json};
use support::{Server, of_type};

/// Three tests whose results stand in a file of the repository; the job prints their order and reports them.
const YAML: &str = r#"
version: 1
pipeline:
  jobs:
    unit:
      run: |
        cut -d' ' -f1 results | andon tests order --why > order || exit 9
        cat order
        { echo '<testsuite>'
          while read name how; do
            case "$how" in
              red) echo "<testcase classname=\"shop\" name=\"$name\" time=\"0.2\"><failure message=\"no\"/></testcase>" ;;
              *) echo "<testcase classname=\"shop\" name=\"$name\" time=\"0.$how\"/>" ;;
            esac
          done < results
          echo '</testsuite>'; } > unit.xml
        ! grep -q red results
      reports: { junit: unit.xml }
"#;

fn results(one: &str, two: &str, three: &str) -> String {
    format!("shop.one {one}\nshop.two {two}\nshop.three {three}\n")
}

/// The report names tests without their class in front.
fn yaml() -> String {
    YAML.replace("name=\\\"$name\\\"", "name=\\\"${name#shop.}\\\"")
}

/// The order that the newest run of a change printed.
fn order_of(server: &Server, view: &Value) -> Vec<String> {
    let run = view["runs"][0]["number"].as_u64().unwrap();
    let said = server.cli(&["run", "log", &run.to_string(), "unit"]);
    let log = String::from_utf8_lossy(&said.stdout).into_owned();
    log.lines().filter(|line| line.starts_with("shop.")).map(str::to_owned).collect()
}

#[test]
fn what_failed_is_run_first_the_next_time_and_says_why() {
    let (server, repo) =
        Server::with_project(&[("andon.yaml", &yaml()), ("results", &results("5", "1", "3"))]);
    // Given a first change: nobody saw any of its tests.
    let first = server.decided(repo.propose("Begin"));
    assert_eq!(first["row"]["standing"], "landed", "{first}");
    assert!(order_of(&server, &first).iter().all(|line| line.contains("nobody saw it run yet")));
    // When a change breaks one of them,
    repo.write("results", &results("5", "1", "red"));
    let red = repo.propose("Break three");
    assert_eq!(server.decided(red)["row"]["words"], "shop::three failed: no");
    // Then the next run begins with it, and goes on with the quickest.
    repo.write("results", &results("5", "2", "3"));
    repo.git(&["add", "-A"]);
    repo.git(&["commit", "-q", "--amend", "-m", "Break three"]);
    assert!(repo.push().0);
    server
        .until("it is tested again", &format!("/changes/{red}"), |view| view["row"]["standing"] != "refused");
    let landed = server.decided(red);
    let order = order_of(&server, &landed);
    assert!(order[0].starts_with("shop.three\tfailed in the last run"), "{order:?}");
    assert!(order[1].starts_with("shop.two\tdid not fail in"), "{order:?}");
    assert!(order[2].starts_with("shop.one\t"), "{order:?}");
}

#[test]
fn red_and_green_on_one_tree_is_shown_with_its_runs() {
    let flaky = yaml().replace("! grep -q red results", "if [ -e \"$HOME/seen\" ]; then true; else touch \"$HOME/seen\"; exit 1; fi").replace(
        "done < results",
        "done < results; [ -e \"$HOME/seen\" ] || echo '<testcase classname=\"shop\" name=\"shaky\"><failure message=\"at times\"/></testcase>'; [ ! -e \"$HOME/seen\" ] || echo '<testcase classname=\"shop\" name=\"shaky\"/>'",
    ).replace("reports:", "retries: 1\n      reports:");
    let (server, repo) =
        Server::with_project(&[("andon.yaml", &flaky), ("results", &results("5", "1", "3"))]);
    // When a test is red in the first attempt and green in the second,
    let view = server.decided(repo.propose("Begin"));
    assert_eq!(view["row"]["standing"], "landed", "{view}");
    // Then it is called flaky, with the run that proves it,
    let tests =
        server.until("the proof is in", "/tests", |tests| tests["flaky"].as_array().unwrap().len() == 1);
    assert_eq!(tests["flaky"][0]["name"], "shop::shaky");
    assert_eq!(tests["flaky"][0]["run"], view["runs"][0]["number"]);
    // And the attempt that was red is still there.
    let ends = of_type(&server.journal(), "job_finished").len();
    assert_eq!(ends, 2, "both attempts are kept");
    assert_eq!(tests["heading"], "One test is flaky");
}

#[test]
fn a_test_in_quarantine_runs_and_reports_and_stops_nothing_until_its_end() {
    let (server, repo) =
        Server::with_project(&[("andon.yaml", &yaml()), ("results", &results("5", "1", "3"))]);
    server.decided(repo.propose("Begin"));
    // Given a quarantine with an owner, a reason and an end; without them there is none.
    let ask = |why: &str, lasts: &str, owner: Option<&str>| {
        let body = json!({ "test": "shop::three", "why": why, "lasts": lasts, "owner": owner });
        let (status, answer) = server.post("/api/v1/shop/tests/quarantine", &body);
        (status, answer.to_string())
    };
    for (why, lasts, owner, says) in [
        ("", "7d", None, "reason"),
        ("it sleeps", "31d", None, "30 days"),
        ("it sleeps", "7d", Some("nobody"), "no account"),
    ] {
        let (status, answer) = ask(why, lasts, owner);
        assert!(status == 400 && answer.contains(says) && answer.contains("hint"), "{status} {answer}");
    }
    assert_eq!(ask("it sleeps", "7d", None).0, 200);
    // When that test fails, the change lands all the same, and its run says what it let be.
    repo.write("results", &results("5", "2", "red"));
    let view = server.decided(repo.propose("Make two slower"));
    assert_eq!(view["row"]["standing"], "landed", "{view}");
    let run = server.view(&format!("/runs/{}", view["runs"][0]["number"]));
    assert!(
        run["warnings"][0].as_str().unwrap().starts_with("shop::three is red and in quarantine until"),
        "{run}"
    );
    // When another one fails too, it does not.
    repo.write("results", &results("red", "2", "red"));
    let view = server.decided(repo.propose("Break one"));
    assert_eq!(view["row"]["words"], "shop::one failed: no");
    // When it is over, the test counts again.
    assert_eq!(server.post("/api/v1/shop/tests/quarantine/end", &json!({ "test": "shop::three" })).0, 200);
    repo.follow();
    repo.write("results", &results("6", "2", "red"));
    let view = server.decided(repo.propose("Make one slower"));
    assert_eq!(view["row"]["words"], "shop::three failed: no");
}

/// A quick stage, and a slow one that waits until the test lets it go on.
const LANES: &str = "version: 1
pipeline:
  jobs:
    lint: { stage: quick, run: 'printf \"1..1\\nok 1 - tidy\\n\" > lint.tap', reports: { tests: lint.tap } }
    whole:
      stage: slow
      run: 'printf \"1..3\\nok 1 - adds\\nnot ok 2 - takes away\\n\" > whole.tap; until test -e go-on; do sleep 0.05; done; echo \"ok 3 - ends\" >> whole.tap; exit 1'
      reports: { tests: whole.tap }
";

#[test]
fn a_red_test_is_told_while_its_job_runs_and_a_quick_stage_has_its_verdict_before_the_slow_one() {
    // Given a job that has reported a red test and goes on running, behind a stage that is over,
    let (server, repo) = Server::with_project(&[("andon.yaml", LANES)]);
    let change = repo.propose("Begin");
    let told = |view: &Value| view["jobs"][1]["red_test"].is_array();
    let run = server.until("the red test is told", "/runs/1", told);
    // Then the run names it before it is over,
    assert_eq!(run["finished"], false, "{run:#}");
    assert_eq!(run["jobs"][1]["red_test"][0], "takes away");
    assert_eq!(run["jobs"][1]["mark"], "live", "{run:#}");
    // And says of each stage what is known,
    let stages: Vec<&str> =
        run["stages"].as_array().unwrap().iter().map(|stage| stage["words"].as_str().unwrap()).collect();
    assert!(stages[0].starts_with("green after "), "{stages:?}");
    assert_eq!(stages[1], "red already: whole");
    let said = server.cli(&["run", "show", "1"]);
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains("stage slow: red already: whole") && said.contains("takes away"), "{said}");
    // And when it is over, it is told no second time.
    let tree = server.room.path().join("data/jobs/shop/attempts/run-1-whole-1/tree");
    std::fs::write(tree.join("go-on"), "").unwrap();
    let words = server.decided(change)["row"]["words"].clone();
    assert!(words.as_str().unwrap().starts_with("takes away failed"), "{words}");
    assert_eq!(of_type(&server.journal(), "test_red").len(), 1);
}
