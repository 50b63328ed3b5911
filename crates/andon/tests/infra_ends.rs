//! How runs of the infrastructure tool end before their time, on the real binary with the real terraform: stopped by people, ended by force,
//! killed, cut off from the server, not approved. Whatever the way, what was made is known and nothing stays locked.

#![allow(clippy::print_stdout, reason = "a test says what it measured")]
#![allow(clippy::unwrap_used, reason = "all of it is test code")]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use support::{HELLO, Repo, Server, of_type, terraform_is_there};

const LINE: &str = r#"
version: 1
pipeline: { jobs: { package: { run: "mkdir dist && cp app.py dist/", artifact: dist } } }
services: { web: { command: [python3, app.py, $PORT], health: / } }
environments:
  production:
    infrastructure: { terraform: infra/, look_every: 1h, stop_within: STOP, approve_within: APPROVE, variables: { place: "PLACE" } }
    PROTECTED
"#;

/// Something that is made at once, and something that is made when the test says so.
const CODE: &str = r#"
variable "place" { type = string }
resource "terraform_data" "first" {
  input = "one"
  provisioner "local-exec" { command = "echo first >> ${var.place}/made" }
}
resource "terraform_data" "slow" {
  depends_on       = [terraform_data.first]
  input            = var.place
  triggers_replace = fileexists("${var.place}/again") ? filesha256("${var.place}/again") : ""
  provisioner "local-exec" { command = "until test -e ${var.place}/go; do sleep 0.1; done; echo slow >> ${var.place}/made" }
}
"#;

struct House {
    server: Server,
    repo: Repo,
    place: PathBuf,
}

impl House {
    /// Given a project whose infrastructure waits for a file.
    fn new(stop: &str, approve: &str, protected: &str) -> House {
        let (server, repo) = Server::with_project(&[("app.py", HELLO), ("infra/main.tf", CODE)]);
        let place = server.room.path().join("place");
        std::fs::create_dir_all(&place).unwrap();
        let line = LINE.replace("PLACE", place.to_str().unwrap()).replace("PROTECTED", protected);
        repo.write("andon.yaml", &line.replace("STOP", stop).replace("APPROVE", approve));
        House { server, repo, place }
    }

    fn view(&self) -> Value {
        self.server.view("/infrastructure/production")
    }

    fn until(&self, what: &str, says: impl Fn(&Value) -> bool) -> Value {
        self.server.until(what, "/infrastructure/production", says)
    }

    /// When the second resource is being made: the tool's process.
    fn being_made(&self) -> u32 {
        self.until("the second resource is being made", |_| self.made() == ["first"] && self.waiting() > 0);
        let journal = self.server.journal();
        let started = of_type(&journal, "infra_started").pop().unwrap()["event"]["pid"].as_u64();
        u32::try_from(started.unwrap()).unwrap()
    }

    /// What was made, in order.
    fn made(&self) -> Vec<String> {
        let made = std::fs::read_to_string(self.place.join("made")).unwrap_or_default();
        made.lines().map(str::to_owned).collect()
    }

    /// Processes of the tool's rooms.
    fn at_work(&self) -> Vec<PathBuf> {
        let rooms = self.server.room.path().join("data/infrastructure/shop");
        let processes = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
        let ours =
            |path: &PathBuf| std::fs::read_link(path.join("cwd")).is_ok_and(|cwd| cwd.starts_with(&rooms));
        processes.filter(ours).collect()
    }

    fn waiting(&self) -> usize {
        let shell = |path: &PathBuf| {
            let command = std::fs::read(path.join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&command).starts_with("/bin/sh\0-c\0until")
        };
        self.at_work().into_iter().filter(shell).count()
    }

    fn rooms(&self) -> Vec<String> {
        let rooms = std::fs::read_dir(self.server.room.path().join("data/infrastructure/shop"));
        let names = rooms.into_iter().flatten().flatten().map(|entry| entry.file_name());
        names.map(|name| name.to_string_lossy().into_owned()).collect()
    }

    /// Nobody works, nothing is locked, nothing lies about.
    fn clean(&self) {
        self.until("nothing is locked and nothing lies about", |view| {
            let free = view["states"].as_array().unwrap().iter().all(|state| state["lock"].is_null());
            free && self.at_work().is_empty() && self.rooms().is_empty()
        });
    }

    /// What the state knows: types and names.
    fn known(&self) -> String {
        self.server.get("/api/v1/shop/state/production").1["resources"].to_string()
    }

    fn ok(&self, args: &[&str]) -> String {
        let out = self.server.cli(args);
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    fn ended(&self, run: &str) -> Value {
        let view = self.until(&format!("{run} is over"), |view| {
            view["runs"].as_array().unwrap().iter().any(|one| one["run"] == run && one["place"].is_null())
        });
        view["runs"].as_array().unwrap().iter().find(|one| one["run"] == run).unwrap().clone()
    }
}

fn signal(signal: &str, pid: u32) {
    assert!(Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
}

#[test]
fn a_run_that_is_stopped_saves_what_it_did_and_frees_its_lock() {
    if !terraform_is_there("a stopped apply") {
        return;
    }
    let house = House::new("60s", "24h", "");
    house.repo.propose("first");
    house.being_made();
    // Somebody looks on, in words and as the tool says it.
    let looks = [vec!["infra", "log", "production", "-f"], vec!["infra", "log", "T1", "--follow", "--json"]];
    let looks = looks.map(|args| house.server.cli_begun(&args));
    let words = house.ok(&["infra", "stop", "production", "--wait"]);
    assert!(words.contains("stopped by owner; the tool saved what it had done"), "{words}");
    let [seen, read] = looks.map(|look| {
        let out = look.wait_with_output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    });
    assert!(
        seen.contains("\nterraform_data.slow: Creating...") && seen.contains("nterrupt received"),
        "{seen}"
    );
    let values: Vec<Value> = read.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let made = values.iter().filter(|value| value["type"] == "apply_complete").count();
    assert_eq!(made, 1, "{read}");
    house.clean();
    assert!(house.known().contains("\"first\""), "{}", house.known());
    let forced = of_type(&house.server.journal(), "infra_stopping").len();
    assert_eq!(forced, 1, "it was asked once and not forced");
    let unlocked =
        of_type(&house.server.journal(), "state_unlocked").into_iter().any(|e| e["event"]["forced"] == true);
    assert!(!unlocked, "the tool itself gave its lock back");
    let again = house.server.cli(&["infra", "stop", "production"]);
    assert!(!again.status.success());
    // What was made before is not made again.
    std::fs::write(house.place.join("go"), "").unwrap();
    house.ok(&["infra", "apply", "production", "--wait"]);
    assert_eq!(house.made(), ["first", "slow"]);
}

#[test]
fn a_tool_that_does_not_end_in_time_is_ended_by_force_and_what_it_made_is_still_known() {
    if !terraform_is_there("an apply ended by force") {
        return;
    }
    let house = House::new("2s", "24h", "");
    house.repo.propose("first");
    let tool = house.being_made();
    // It hears nothing any more.
    signal("-STOP", tool);
    house.ok(&["infra", "stop", "T1"]);
    let run = house.ended("T1");
    assert!(run["words"].as_str().unwrap().contains("was ended by force"), "{run}");
    house.clean();
    // The tool had saved nothing: the first resource was taken into the state, of the second nobody can know.
    let adopted = house.server.journal();
    let adopted = of_type(&adopted, "infra_adopted");
    assert!(adopted.len() == 1 && adopted[0]["event"]["address"] == "terraform_data.first", "{adopted:?}");
    assert!(house.known().contains("\"first\""), "{}", house.known());
    let view = house.view();
    assert_eq!(view["lost"][0]["address"], "terraform_data.slow", "{view}");
    let shown = house.ok(&["infra", "show", "production"]);
    assert!(shown.contains("■ in no state: terraform_data.slow, perhaps made by T1"), "{shown}");
    house.ok(&["infra", "forget", "production", "terraform_data.slow", "--why", "it was not"]);
    assert_eq!(house.view()["lost"], json!([]));
    std::fs::write(house.place.join("go"), "").unwrap();
    house.ok(&["infra", "apply", "production", "--wait"]);
    assert_eq!(house.made(), ["first", "slow"]);
}

#[test]
fn a_run_that_was_being_stopped_when_the_power_went_out_is_not_applied_by_the_next_server() {
    if !terraform_is_there("a stop that outlives the server") {
        return;
    }
    let mut house = House::new("60s", "24h", "");
    house.repo.propose("first");
    house.being_made();
    house.ok(&["infra", "stop", "T1"]);
    house.server.kill();
    std::fs::write(house.place.join("go"), "").unwrap();
    house.server.start();
    let run = house.ended("T1");
    assert!(run["words"].as_str().unwrap().starts_with("stopped by owner"), "{run}");
    house.clean();
    assert!(house.known().contains("\"first\""), "{}", house.known());
    assert_eq!(of_type(&house.server.journal(), "infra_applying").len(), 1, "it was applied after all");
}

#[test]
fn a_tool_that_is_killed_leaves_no_lock() {
    if !terraform_is_there("a killed tool") {
        return;
    }
    let house = House::new("60s", "24h", "");
    house.repo.propose("first");
    let tool = house.being_made();
    assert!(house.view()["states"][0]["lock"].is_string());
    let begun = std::time::Instant::now();
    signal("-KILL", tool);
    house.until("the lock is free", |view| view["states"][0]["lock"].is_null());
    println!("the lock of a killed tool was free after {:?}", begun.elapsed());
    let run = house.ended("T1");
    assert_eq!(run["mark"], "stop", "{run}");
    std::fs::write(house.place.join("go"), "").unwrap();
    house.ok(&["infra", "apply", "production", "--wait"]);
    assert_eq!(house.made().iter().filter(|made| *made == "first").count(), 1, "it was made twice");
}

#[test]
fn a_state_that_the_tool_could_not_store_is_found_and_stored() {
    if !terraform_is_there("errored.tfstate of a run") {
        return;
    }
    let mut house = House::new("60s", "24h", "");
    let change = house.repo.propose("first");
    house.being_made();
    house.server.kill();
    std::fs::write(house.place.join("go"), "").unwrap();
    // The tool outlives the server, and nobody takes its state.
    let errored = house.server.room.path().join("data/infrastructure/shop/T1/tree/infra/errored.tfstate");
    until_gone(&house);
    assert!(errored.exists());
    house.server.start();
    house.server.served(change);
    assert_eq!(house.made(), ["first", "slow"], "something was made twice");
    let view = house.view();
    let versions = view["states"][0]["versions"].as_array().unwrap().clone();
    assert!(versions.iter().any(|version| version["recovered"] == "T1"), "{versions:?}");
    let listed = house.ok(&["infra", "state", "production"]);
    assert!(listed.contains("found after T1, which could not store it"), "{listed}");
    house.clean();
}

fn until_gone(house: &House) {
    let begun = std::time::Instant::now();
    while !house.at_work().is_empty() {
        assert!(begun.elapsed() < house.server.patience, "the tool never ended");
        support::pause();
    }
}

#[test]
fn rooms_that_a_crash_left_go_with_their_secrets_at_the_next_start() {
    let (mut server, _repo) = Server::with_project(&[]);
    server.kill();
    let rooms = server.room.path().join("data/infrastructure/shop");
    let left = ["check-production", "look-production", "T7"];
    for room in left {
        std::fs::create_dir_all(rooms.join(room)).unwrap();
        std::fs::write(rooms.join(room).join("variables.json"), "{\"password\":\"hush\"}").unwrap();
    }
    std::fs::create_dir_all(rooms.join("of-somebody-else")).unwrap();
    server.start();
    server.until("they are gone", "/wall", |_| left.iter().all(|room| !rooms.join(room).exists()));
    assert!(rooms.join("of-somebody-else").exists(), "what is not ours was removed");
}

/// Somebody who may deploy, by their token.
fn person(server: &Server, name: &str) -> String {
    let set = server.post("/api/v1/users", &json!({ "name": name, "roles": ["deployer"] }));
    assert_eq!(set.0, 200, "{}", set.1);
    let issued = server.post("/api/v1/tokens", &json!({ "user": name, "name": "t", "roles": ["deployer"] }));
    issued.1["token"].as_str().unwrap().to_owned()
}

fn waits(view: &Value) -> bool {
    view["runs"][0]["mark"] == "wait" && view["runs"][0]["guarded"] != json!([])
}

fn replace_something(place: &Path) {
    std::fs::write(place.join("again"), "again").unwrap();
}

#[test]
fn what_ends_in_a_protected_environment_takes_two_people_by_name_and_a_young_backup() {
    if !terraform_is_there("two people approve") {
        return;
    }
    let protected = "protected: { approvals: 2, approvers: [bob, eve, owner], backup_within: 15m }";
    let house = House::new("60s", "24h", protected);
    std::fs::write(house.place.join("go"), "").unwrap();
    let [bob, eve, zoe] = ["bob", "eve", "zoe"].map(|name| person(&house.server, name));
    house.server.served(house.repo.propose("first"));
    replace_something(&house.place);
    // The owner asks for it, and is none of those who approve it.
    house.ok(&["infra", "apply", "production"]);
    let view = house.until("it waits for people", waits);
    let run = view["runs"][0]["run"].as_str().unwrap().to_owned();
    assert!(view["runs"][0]["words"].as_str().unwrap().contains("waits for 2 approvals"), "{view}");
    let path = format!("/api/v1/shop/infrastructure-runs/{run}/approve");
    let approve = |token: &str, name: &str| {
        house.server.post_as(token, &path, &json!({ "environment": name, "why": "it may go" }))
    };
    let said = |answer: (u16, Value), words: &str| {
        assert!(answer.0 == 409 && answer.1.to_string().contains(words), "{answer:?} says not: {words}");
    };
    said(approve(&house.server.token, "production"), "wrote this change or asked for it");
    said(approve(&zoe, "production"), "ask one of bob, eve");
    said(approve(&bob, "staging"), "type the environment's name");
    let one = approve(&bob, "production");
    assert_eq!((one.0, &one.1["missing"]), (200, &json!(1)), "{}", one.1);
    said(approve(&bob, "production"), "has approved already");
    said(approve(&eve, "production"), "last backup is none at all");
    assert_eq!(house.made().len(), 2, "it was applied without the second person");
    house.ok(&["backup"]);
    let two = approve(&eve, "production");
    assert_eq!((two.0, &two.1["missing"]), (200, &json!(0)), "{}", two.1);
    house.until("it was made anew", |_| house.made() == ["first", "slow", "slow"]);
    let run = house.ended(&run);
    assert!(run["mark"] == "go" && run["approvals"] == json!(["bob", "eve"]), "{run}");
    // An environment that was asked for is made to end: nobody has to approve it.
    house.ok(&["env", "create", "try", "--like", "production"]);
    let made =
        |view: &Value| view["runs"].as_array().is_some_and(|runs| runs.iter().any(|run| run["mark"] == "go"));
    house.server.until("it has its own", "/infrastructure/try", made);
    house.ok(&["env", "destroy", "try"]);
    house.server.until("its own is gone", "/infrastructure/try", |view| {
        view["runs"].as_array().unwrap().iter().any(|run| run["action"] == "destroy" && run["mark"] == "go")
    });
}

#[test]
fn a_plan_that_nobody_approves_expires_in_words_and_leaves_nothing() {
    if !terraform_is_there("a plan that expires") {
        return;
    }
    let house = House::new("60s", "2s", "protected: { approvals: 1 }");
    std::fs::write(house.place.join("go"), "").unwrap();
    house.server.served(house.repo.propose("first"));
    replace_something(&house.place);
    house.ok(&["infra", "apply", "production"]);
    let run = house.ended("T2");
    let words = run["words"].as_str().unwrap();
    assert!(run["mark"] == "stop" && words.contains("nobody approved its plan within 2.0 s"), "{run}");
    house.clean();
    assert_eq!(house.made(), ["first", "slow"]);
}
