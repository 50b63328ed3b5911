//! Infrastructure as code, end to end on the real binary with the real terraform: created before its services, drifted by hand, seen, healed,
//! rebuilt, guarded, destroyed; and a server that is killed in the middle of it.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

mod support;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use support::{HELLO, Repo, Server, of_type, terraform_is_there};

const LINE: &str = r#"
version: 1
pipeline:
  jobs:
    package: { run: "mkdir dist && cp app.py dist/", artifact: dist }
services:
  web:
    command: [python3, app.py, $PORT]
    health: /
    env: { SHELF: "${infrastructure.shelf}" }
environments:
  production:
    infrastructure: { terraform: infra/, look_every: 1s, variables: { place: "PLACE", seconds: "SECONDS" } }
    PROTECTED
"#;

/// A file stands for a thing in a cloud: its content is what reality looks like.
const CODE: &str = r#"
variable "place" { type = string }
variable "seconds" { type = string }
locals { file = "${var.place}/shelf" }
resource "terraform_data" "shelf" {
  triggers_replace = fileexists(local.file) ? filesha256(local.file) : "missing"
  input            = local.file
  provisioner "local-exec" { command = "sleep ${var.seconds}; printf oak > ${self.input}; echo made >> ${self.input}.log" }
}
resource "terraform_data" "floor" {
  input = local.file
  provisioner "local-exec" {
    when    = destroy
    command = "rm -f ${self.input}"
  }
}
output "shelf" { value = terraform_data.shelf.input }
"#;

/// Given a project with infrastructure, and a place where its things are.
fn given(protected: &str, seconds: &str) -> (Server, Repo, PathBuf) {
    let (server, repo) = Server::with_project(&[("app.py", HELLO), ("infra/main.tf", CODE)]);
    let place = server.room.path().join("place");
    std::fs::create_dir_all(&place).unwrap();
    let line = LINE.replace("PLACE", place.to_str().unwrap()).replace("SECONDS", seconds);
    repo.write("andon.yaml", &line.replace("PROTECTED", protected));
    (server, repo, place)
}

fn shelf(place: &Path) -> Option<String> {
    std::fs::read_to_string(place.join("shelf")).ok()
}

/// Nothing waits or runs, and reality is as the code says.
fn settled(server: &Server) -> Value {
    let idle = |view: &Value| {
        let runs = view["runs"].as_array().unwrap();
        !runs.is_empty() && runs.iter().all(|run| run["place"].is_null())
    };
    server.until("no run is open", "/infrastructure/production", idle)
}

fn events(server: &Server, kind: &str) -> usize {
    of_type(&server.journal(), kind).len()
}

#[test]
fn infrastructure_is_made_before_services_start_and_healed_when_somebody_changes_it_by_hand() {
    if !terraform_is_there("infrastructure from creation to destruction") {
        return;
    }
    let (server, repo, place) = given("", "0");
    let change = repo.propose("first");
    server.served(change);
    assert_eq!(shelf(&place).as_deref(), Some("oak"));
    let journal = server.journal();
    let seq = |kind: &str| of_type(&journal, kind)[0]["seq"].as_u64().unwrap();
    assert!(
        seq("infra_finished") < seq("instance_planned"),
        "an instance was planned before its infrastructure"
    );
    let view = settled(&server);
    assert!(view["outputs"][0][1].as_str().unwrap().contains("/shelf"), "{view}");
    // The code says that what is found at planning time is part of the resource: it settles by the second apply.
    server.until("reality equals code", "/environments/production", |view| {
        view["drifts"].as_array().is_some_and(Vec::is_empty)
    });

    // When somebody changes it by hand, then it is seen and made again.
    let healed = events(&server, "drift_healed");
    std::fs::write(place.join("shelf"), "plastic").unwrap();
    server.until("the file is oak again", "/infrastructure/production", |_| {
        shelf(&place).as_deref() == Some("oak")
    });
    let seen = server.journal();
    let drift = of_type(&seen, "drift_seen");
    assert!(
        drift.iter().any(|d| d["event"]["drift"]["what"].as_str().unwrap().contains("terraform_data.shelf")),
        "{drift:?}"
    );
    server.until("the drift is told healed", "/environments/production", |view| {
        view["drifts"].as_array().is_some_and(Vec::is_empty) && events(&server, "drift_healed") > healed
    });

    // When it is rebuilt, then it is gone in between, and back.
    let out = server.cli(&["env", "rebuild", "production", "--wait"]);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(shelf(&place).as_deref(), Some("oak"));
    let actions: Vec<Value> =
        of_type(&server.journal(), "infra_queued").iter().map(|e| e["event"]["action"].clone()).collect();
    assert!(actions.contains(&json!("destroy")), "{actions:?}");

    // When an environment like it ends, then what was made for it ends as well.
    let plan = server.cli(&["infra", "plan", "production"]);
    let words = String::from_utf8_lossy(&plan.stdout).into_owned();
    assert!(plan.status.success() && words.contains("nothing was changed"), "{words}");
}

#[test]
fn in_a_protected_environment_nothing_ends_before_people_approved_it_by_name() {
    if !terraform_is_there("the guard over a real plan") {
        return;
    }
    let (server, repo, place) = given("protected: { approvals: 1 }", "0");
    server.served(repo.propose("first"));
    settled(&server);
    std::fs::write(place.join("shelf"), "plastic").unwrap();
    let waits = |view: &Value| {
        view["runs"]
            .as_array()
            .unwrap()
            .iter()
            .any(|run| run["mark"] == "wait" && run["guarded"] != json!([]))
    };
    let view = server.until("a plan waits for approval", "/infrastructure/production", waits);
    let run = view["runs"][0]["run"].as_str().unwrap().to_owned();
    assert!(
        view["runs"][0]["guarded"][0].as_str().unwrap().contains("replace terraform_data.shelf"),
        "{view}"
    );
    assert_eq!(shelf(&place).as_deref(), Some("plastic"), "it was applied without approval");
    let wrong = server.cli(&["infra", "approve", &run, "--environment", "staging"]);
    assert!(!wrong.status.success());
    let right =
        server.cli(&["infra", "approve", &run, "--environment", "production", "--why", "a shelf is cheap"]);
    assert!(right.status.success(), "{}", String::from_utf8_lossy(&right.stderr));
    server
        .until("it is oak again", "/infrastructure/production", |_| shelf(&place).as_deref() == Some("oak"));
}

#[test]
fn code_that_cannot_be_applied_gives_the_deployment_up_with_the_tools_first_error() {
    if !terraform_is_there("a failing apply") {
        return;
    }
    let (server, repo, _) = given("", "0");
    repo.write(
        "infra/broken.tf",
        "resource \"terraform_data\" \"b\" {\n provisioner \"local-exec\" { command = \"exit 3\" }\n}\n",
    );
    repo.propose("broken");
    let failed = |view: &Value| view["runs"].as_array().unwrap().iter().any(|run| run["mark"] == "stop");
    server.until("the run failed", "/infrastructure/production", failed);
    let given_up = |view: &Value| {
        view.to_string().contains("its infrastructure could not be applied: local-exec provisioner error")
    };
    server.until("the deployment was given up", "/environments/production", given_up);
    assert_eq!(events(&server, "instance_planned"), 0);
}

#[test]
fn a_server_that_is_killed_in_the_middle_of_an_apply_leaves_nothing_that_nobody_knows() {
    if !terraform_is_there("kill in the middle of an apply") {
        return;
    }
    let (mut server, repo, place) = given("", "2");
    let change = repo.propose("first");
    server.until("it is being applied", "/infrastructure/production", |view| {
        view["runs"][0]["words"].as_str().is_some_and(|words| words.starts_with("is being applied"))
    });
    server.kill();
    server.start();
    server.served(change);
    assert_eq!(shelf(&place).as_deref(), Some("oak"));
    let view = settled(&server);
    assert!(view["states"][0]["lock"].is_null(), "a lock stayed: {view}");
    let rooms = std::fs::read_dir(server.room.path().join("data/infrastructure/shop")).unwrap();
    let left: Vec<_> = rooms
        .flatten()
        .map(|room| room.file_name())
        .filter(|n| n.to_string_lossy().starts_with('T'))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}
