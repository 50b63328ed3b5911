//! The line from push to users, on the real binary with the real git.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod support;

use serde_json::json;
use support::{HELLO, LINE, Server, of_type};

#[test]
fn a_green_change_lands_and_reaches_every_user_by_itself() {
    let (server, repo) = Server::with_project(&[("andon.yaml", LINE), ("app.py", HELLO)]);
    let first = repo.propose("Say hello");
    server.served(first);
    assert!(server.visit("web.production.shop.localhost", "/").1.starts_with("v1"));
    repo.write("app.py", &HELLO.replace("\"v1\"", "\"v2\""));
    let second = repo.propose("Say it differently");
    let view = server.served(second);
    assert!(server.visit("web.production.shop.localhost", "/").1.starts_with("v2"));
    // Then what landed is what was tested, and the proof says so.
    assert_eq!(view["proof"]["tested_tree"], view["proof"]["landed_tree"]);
    // And one digest went through both environments.
    let journal = server.journal();
    let digests: Vec<_> =
        of_type(&journal, "deployment_started").iter().map(|e| e["event"]["artifact"].clone()).collect();
    assert_eq!(digests.len(), 4, "{digests:?}");
    assert_eq!(digests[2], digests[3]);
}

#[test]
fn a_red_change_is_refused_with_its_test_and_trunk_stays() {
    let yaml = "
version: 1
pipeline:
  jobs:
    unit:
      run: |
        echo '<testsuite><testcase classname=\"shop\" name=\"adds\"><failure message=\"3 is not 4\"/></testcase></testsuite>' > unit.xml
        exit 1
      reports: { junit: unit.xml }
";
    let (server, repo) = Server::with_project(&[(
        "andon.yaml",
        "version: 1\npipeline: { jobs: { unit: { run: \"true\" } } }\n",
    )]);
    let first = repo.propose("Begin");
    let before = server.decided(first)["frame"]["commit"].clone();
    repo.write("andon.yaml", yaml);
    let red = server.decided(repo.propose("Break it"));
    assert_eq!(red["row"]["standing"], "refused");
    assert_eq!(red["row"]["words"], "shop::adds failed: 3 is not 4");
    assert_eq!(red["frame"]["commit"], before);
}

#[test]
fn a_second_push_of_the_same_change_is_a_patch_set_and_stops_the_old_run() {
    let slow =
        "version: 1\npipeline: { jobs: { unit: { run: \"while [ ! -e go ]; do sleep 0.05; done\" } } }\n";
    let (server, repo) = Server::with_project(&[("andon.yaml", slow)]);
    let change = repo.propose("Take long");
    server
        .until("the run started", &format!("/changes/{change}"), |view| view["row"]["standing"] == "testing");
    repo.write("go", "");
    repo.git(&["add", "-A"]);
    repo.git(&["commit", "-q", "--amend", "-m", "Take long"]);
    let (ok, words) = repo.push();
    assert!(ok && words.contains("patch set 2"), "{words}");
    assert_eq!(support::number(&words), change);
    let view = server.decided(change);
    assert_eq!(view["row"]["standing"], "landed");
    assert!(view["runs"][1]["words"].as_str().unwrap().contains("superseded"), "{view}");
}

#[test]
fn trunk_moves_only_by_landing() {
    let (server, repo) = Server::with_project(&[("andon.yaml", LINE), ("app.py", HELLO)]);
    repo.commit("Sneak in");
    for refs in [
        "HEAD:refs/heads/main",
        "HEAD:refs/heads/other",
        "HEAD:refs/tags/v1",
        "HEAD:refs/for/other",
        "HEAD:refs/andon/tested/x",
    ] {
        let (ok, words) = repo.push_as(&[refs]);
        assert!(!ok && (words.contains("hint") || words.contains("hidden")), "{refs}: {words}");
    }
    assert!(server.view("/queue")["open"].as_array().unwrap().is_empty());
    assert!(!server.room.path().join("data/git/shop.git/refs/heads/main").exists());
}

#[test]
fn while_the_cord_is_red_only_what_names_the_andon_lands() {
    let green = "version: 1\npipeline: { jobs: { unit: { run: \"true\" } } }\n";
    let (server, repo) = Server::with_project(&[("andon.yaml", green)]);
    server.decided(repo.propose("Begin"));
    let pulled = server.post("/api/v1/shop/andons", &json!({ "why": "checkout looks odd" }));
    assert_eq!(pulled.1["andon"], "A1");
    repo.follow();
    repo.write("a", "innocent");
    let innocent = repo.propose("Innocent");
    let waiting = server.view(&format!("/changes/{innocent}"));
    assert!(waiting["row"]["words"].as_str().unwrap().contains("A1"), "{waiting}");
    repo.follow();
    repo.write("b", "fix");
    let fix = repo.propose("Mend the checkout\n\nFixes-Andon: A1");
    assert_eq!(server.decided(fix)["row"]["standing"], "landed");
    assert_eq!(server.view(&format!("/changes/{innocent}"))["row"]["standing"], "waiting");
    let released = server.post("/api/v1/shop/andons/1/release", &json!({ "why": "seen to work" }));
    assert_eq!(released.0, 200, "{}", released.1);
    assert_eq!(server.decided(innocent)["row"]["standing"], "landed");
}

#[test]
fn a_failed_environment_test_stops_the_line_and_a_proven_fix_starts_it() {
    let line = LINE.replace("release: all-at-once }", "release: all-at-once, tests: [smoke] }").replace("cp app.py dist/", "cp app.py broken* dist/ || true").replace(
        "services:",
        "    smoke: { stage: environment, run: \"test ! -e broken && python3 -c 'import os,urllib.request as r; r.urlopen(os.environ[\\\"ANDON_URL\\\"])'\" }\nservices:",
    );
    let (server, repo) = Server::with_project(&[("andon.yaml", &line), ("app.py", HELLO)]);
    server.served(repo.propose("Begin"));
    repo.follow();
    repo.write("broken", "");
    let bad = repo.propose("Break staging");
    let stopped = server.until("the cord was pulled", "/andons", |view| view["rows"][0]["open"] == true);
    assert!(stopped["rows"][0]["why"].as_str().unwrap().contains("staging"), "{stopped}");
    let room = server.view("/andons/1");
    assert_eq!(room["suspects"][0][0], bad);
    repo.follow();
    repo.git(&["rm", "-q", "broken"]);
    repo.propose("Mend staging\n\nFixes-Andon: A1");
    server.until("the line runs by evidence", "/andons", |view| view["rows"][0]["open"] == false);
    assert!(server.visit("web.production.shop.localhost", "/").1.starts_with("v1"));
}

#[test]
fn drift_is_seen_and_healed_by_replacement() {
    let (server, repo) = Server::with_project(&[("andon.yaml", LINE), ("app.py", HELLO)]);
    server.served(repo.propose("Begin"));
    let staging = server.view("/environments/staging");
    let instance = staging["services"][0]["instances"][0]["id"].as_str().unwrap().to_owned();
    let file = server.room.path().join(format!("data/instances/shop/{instance}/release/app.py"));
    std::fs::write(&file, "raise SystemExit('tampered')").unwrap();
    server.until("the drift", "/environments/staging", |view| {
        view["timeline"].to_string().contains("differs from its code")
    });
    server.until("the replacement", "/environments/staging", |view| {
        let instances = view["services"][0]["instances"].as_array().unwrap();
        view["drifts"].as_array().unwrap().is_empty()
            && instances.iter().any(|i| i["mark"] == "go" && i["id"] != instance.as_str())
    });
    assert!(server.visit("web.staging.shop.localhost", "/").1.starts_with("v1"));
}

#[test]
fn an_environment_is_made_like_production_and_ends() {
    let (server, repo) = Server::with_project(&[("andon.yaml", LINE), ("app.py", HELLO)]);
    server.served(repo.propose("Begin"));
    let out = server.cli(&["env", "create", "try-it", "--like", "production", "--ttl", "1h", "--wait"]);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(server.visit("web.try-it.shop.localhost", "/").1.starts_with("v1"));
    assert!(server.cli(&["env", "destroy", "try-it"]).status.success());
    server.until("it is gone", "/environments", |view| !view["rows"].to_string().contains("try-it"));
    assert_eq!(server.visit("web.try-it.shop.localhost", "/").0, 404);
    // A declared one is not destroyed by hand.
    let out = server.cli(&["env", "destroy", "production"]);
    assert!(String::from_utf8_lossy(&out.stderr).contains("declared in andon.yaml"));
}

#[test]
fn users_go_back_when_a_person_says_so() {
    let (server, repo) = Server::with_project(&[("andon.yaml", LINE), ("app.py", HELLO)]);
    server.served(repo.propose("Begin"));
    repo.follow();
    repo.write("app.py", &HELLO.replace("\"v1\"", "\"v2\""));
    server.served(repo.propose("Second"));
    let out = server.cli(&["release", "rollback", "production"]);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(server.visit("web.production.shop.localhost", "/").1.starts_with("v1"));
}

#[test]
fn an_environment_is_rebuilt_while_the_line_is_stopped() {
    let (server, repo) = Server::with_project(&[("andon.yaml", LINE), ("app.py", HELLO)]);
    server.served(repo.propose("Begin"));
    assert_eq!(server.post("/api/v1/shop/andons", &json!({ "why": "to be sure" })).0, 200);
    let out = server.cli(&["env", "rebuild", "staging", "--wait"]);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(server.visit("web.staging.shop.localhost", "/").1.starts_with("v1"));
}
