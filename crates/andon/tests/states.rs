//! The state backend as its users meet it: the real `terraform` against the real server, and many writers at once.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

mod support;

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use support::{Server, terraform_is_there};

/// A resource that takes as long as one says, and one that does not.
const SLOW: &str = r#"
terraform {
  backend "http" {}
}
variable "seconds" { default = "0" }
resource "terraform_data" "first" { input = "one" }
resource "terraform_data" "slow" {
  depends_on = [terraform_data.first]
  provisioner "local-exec" { command = "sleep ${var.seconds}" }
}
output "first" { value = terraform_data.first.output }
"#;

/// Somebody's own terraform, in a folder of their own.
struct Person {
    dir: PathBuf,
    address: String,
    token: String,
}

impl Person {
    fn new(server: &Server, name: &str, state: &str, token: &str) -> Person {
        let dir = server.room.path().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("main.tf"), SLOW).unwrap();
        let address = format!("{}/api/v1/shop/state/{state}", server.url());
        Person { dir, address, token: token.to_owned() }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("terraform");
        command.args(args).current_dir(&self.dir).stdin(Stdio::null());
        let env = [
            ("TF_HTTP_ADDRESS", self.address.as_str()),
            ("TF_HTTP_LOCK_ADDRESS", &self.address),
            ("TF_HTTP_UNLOCK_ADDRESS", &self.address),
            ("TF_HTTP_USERNAME", "anybody"),
            ("TF_HTTP_PASSWORD", &self.token),
            ("TF_HTTP_RETRY_MAX", "0"),
            ("CHECKPOINT_DISABLE", "1"),
            ("TF_IN_AUTOMATION", "1"),
            ("TF_INPUT", "0"),
        ];
        command.envs(env);
        command
    }

    fn run(&self, args: &[&str]) -> (bool, String) {
        let out: Output = self.command(args).output().unwrap();
        let words = [out.stdout, out.stderr].concat();
        (out.status.success(), String::from_utf8_lossy(&words).into_owned())
    }

    /// When it works.
    fn ok(&self, args: &[&str]) -> String {
        let (ok, words) = self.run(args);
        assert!(ok, "terraform {args:?}: {words}");
        words
    }
}

fn versions(server: &Server, environment: &str) -> Vec<Value> {
    let view = server.view(&format!("/infrastructure/{environment}"));
    view["states"][0]["versions"].as_array().cloned().unwrap_or_default()
}

#[test]
fn terraform_keeps_its_state_here_and_goes_back_to_an_old_one() {
    if !terraform_is_there("the state of the real terraform") {
        return;
    }
    let (server, _repo) = Server::with_project(&[]);
    let ann = Person::new(&server, "ann", "staging", &server.token);
    ann.ok(&["init", "-no-color"]);
    ann.ok(&["plan", "-no-color", "-out=plan.bin"]);
    ann.ok(&["apply", "-no-color", "plan.bin"]);
    let first = versions(&server, "staging");
    assert!(!first.is_empty() && first[0]["by"] == "owner", "{first:?}");
    let text = ann.ok(&["state", "pull"]);
    assert!(text.contains("terraform_data"), "{text}");
    let on_disk =
        Command::new("grep").args(["-rl", "terraform_data"]).arg(server.room.path().join("data")).output();
    assert!(on_disk.unwrap().stdout.is_empty(), "a state lies in clear in the data directory");

    ann.ok(&["destroy", "-no-color", "-auto-approve"]);
    let emptied = versions(&server, "staging");
    assert!(emptied.len() > first.len());
    let back = first[0]["number"].as_u64().unwrap();
    let out = server.cli(&["infra", "restore", "staging", "--version", &back.to_string()]);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let now = versions(&server, "staging");
    assert_eq!(now[0]["restored_from"], back);
    assert!(now[0]["serial"].as_u64() > emptied[0]["serial"].as_u64());
    let plan = ann.ok(&["plan", "-no-color"]);
    assert!(plan.contains("No changes"), "the restored state is not what terraform works with: {plan}");
    let listed = server.cli(&["infra", "state", "staging"]);
    let words = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(words.contains("● staging is free") && words.contains("again)"), "{words}");
}

#[test]
fn terraform_may_lock_by_post_and_unlock_by_delete_as_with_other_forges() {
    if !terraform_is_there("locks by POST and DELETE") {
        return;
    }
    let (server, _repo) = Server::with_project(&[]);
    let ann = Person::new(&server, "ann", "staging", &server.token);
    let run = |args: &[&str]| {
        let mut command = ann.command(args);
        let lock = format!("{}/lock", ann.address);
        command.env("TF_HTTP_LOCK_ADDRESS", &lock).env("TF_HTTP_UNLOCK_ADDRESS", &lock);
        let out = command.env("TF_HTTP_LOCK_METHOD", "POST").env("TF_HTTP_UNLOCK_METHOD", "DELETE").output();
        let out = out.unwrap();
        (out.status.success(), String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned())
    };
    let (ok, words) = run(&["init", "-no-color"]);
    assert!(ok, "{words}");
    let (ok, words) = run(&["apply", "-no-color", "-auto-approve"]);
    assert!(ok, "{words}");
    let journal = server.journal();
    let of = |kind: &str| journal.iter().filter(|event| event["event"]["type"] == kind).count();
    assert_eq!((of("state_locked"), of("state_unlocked")), (1, 1));
    assert!(server.view("/infrastructure/staging")["states"][0]["lock"].is_null());
    // Who comes by the other way meets the same lock.
    assert!(server.cli(&["infra", "lock", "staging", "--why", "moving house"]).status.success());
    let (ok, words) = run(&["plan", "-no-color"]);
    assert!(!ok && words.replace('\n', " ").contains("moving house"), "{words}");
}

#[test]
fn whoever_meets_a_lock_reads_in_terraforms_own_words_who_holds_it() {
    if !terraform_is_there("a lock conflict of the real terraform") {
        return;
    }
    let (server, _repo) = Server::with_project(&[]);
    let bob_token = server.token_with(&["deployer"]);
    let (ann, bob) = (
        Person::new(&server, "ann", "staging", &server.token),
        Person::new(&server, "bob", "staging", &bob_token),
    );
    ann.ok(&["init", "-no-color"]);
    bob.ok(&["init", "-no-color"]);
    let mut working = ann
        .command(&["apply", "-no-color", "-auto-approve", "-var=seconds=120"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let held = |view: &Value| view["states"][0]["lock"].is_string();
    server.until("the state is locked", "/infrastructure/staging", held);

    let (ok, words) = bob.run(&["plan", "-no-color"]);
    let words = words.replace(['\n', '│'], " ").split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(!ok && words.contains("owner at ") && words.contains("apply of staging"), "{words}");
    let (ok, words) = bob.run(&["force-unlock", "-no-color", "-force", "whatever"]);
    assert!(!ok, "one who is no owner took the lock away: {words}");

    // Power goes out at ann's: nothing was stored, the lock stays until somebody says so.
    working.kill().unwrap();
    working.wait().unwrap();
    kill_sleeps(&server);
    assert!(bob.run(&["plan", "-no-color"]).1.contains("lock"));
    ann.ok(&["force-unlock", "-no-color", "-force", "whatever"]);
    bob.ok(&["apply", "-no-color", "-auto-approve"]);
    let forced =
        |event: &&Value| event["event"]["type"] == "state_unlocked" && event["event"]["forced"] == true;
    assert_eq!(server.journal().iter().filter(forced).count(), 1, "it was not kept who forced the lock");

    let out = server.cli(&["infra", "lock", "staging", "--why", "moving the database"]);
    assert!(out.status.success());
    let (ok, words) = bob.run(&["plan", "-no-color"]);
    assert!(!ok && words.replace('\n', " ").contains("maintenance"), "{words}");
    assert!(server.cli(&["infra", "unlock", "staging"]).status.success());
    bob.ok(&["plan", "-no-color"]);
}

/// Provisioners at work in this test's folder.
fn sleeping(server: &Server) -> Vec<String> {
    let room = server.room.path().join("ann");
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let ours = processes.filter(|entry| {
        let cwd = std::fs::read_link(entry.path().join("cwd")).unwrap_or_default();
        let name = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        cwd.starts_with(&room) && name.trim() == "sleep"
    });
    ours.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// What a killed terraform left behind in this test's folder.
fn kill_sleeps(server: &Server) {
    for pid in sleeping(server) {
        let _ = Command::new("kill").args(["-9", &pid]).status();
    }
}

#[test]
fn a_state_that_could_not_be_stored_is_pushed_when_the_server_is_back() {
    if !terraform_is_there("errored.tfstate of the real terraform") {
        return;
    }
    let (mut server, _repo) = Server::with_project(&[]);
    let ann = Person::new(&server, "ann", "staging", &server.token);
    ann.ok(&["init", "-no-color"]);
    let working = ann
        .command(&["apply", "-no-color", "-auto-approve", "-var=seconds=3"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It holds the lock a moment before it has read the state: only what already works has something to save.
    server.until("the resource is being made", "/infrastructure/staging", |_| !sleeping(&server).is_empty());
    server.kill();
    let out = working.wait_with_output().unwrap();
    assert!(!out.status.success());
    assert!(ann.dir.join("errored.tfstate").exists(), "{}", String::from_utf8_lossy(&out.stderr));
    server.start();
    ann.ok(&["force-unlock", "-no-color", "-force", "whatever"]);
    ann.ok(&["state", "push", "errored.tfstate"]);
    let plan = ann.ok(&["plan", "-no-color", "-var=seconds=3"]);
    assert!(plan.contains("No changes"), "{plan}");
}

/// One state of many, written by one after the other.
fn write_often(url: &str, token: &str, state: &str, times: u64) -> Result<(), String> {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let address = format!("{url}/api/v1/shop/state/{state}");
    let bearer = format!("Bearer {token}");
    for serial in 1..=times {
        let id = format!("{state}-{serial}");
        let lock =
            json!({ "ID": id, "Operation": "OperationTypeApply", "Who": "test@load", "Version": "1.11.4" });
        let locked = agent.post(format!("{address}/lock")).header("authorization", &bearer).send_json(&lock);
        expect(locked, 200)?;
        let other = json!({ "ID": "other" });
        let refused =
            agent.post(format!("{address}/lock")).header("authorization", &bearer).send_json(&other);
        expect(refused, 423)?;
        let document = json!({ "version": 4, "serial": serial, "lineage": state, "resources": [] });
        for _ in 0..2 {
            // Twice: a client whose answer was lost says the same again.
            let stored = agent
                .post(format!("{address}?ID={id}"))
                .header("authorization", &bearer)
                .send_json(&document);
            expect(stored, 200)?;
        }
        let unnamed = agent.post(&address).header("authorization", &bearer).send_json(&document);
        expect(unnamed, 409)?;
        let freed = agent
            .delete(format!("{address}/lock"))
            .header("authorization", &bearer)
            .force_send_body()
            .send_json(&lock);
        expect(freed, 200)?;
    }
    Ok(())
}

fn expect(answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>, status: u16) -> Result<(), String> {
    let mut answer = answer.map_err(|error| error.to_string())?;
    let got = answer.status().as_u16();
    let words = answer.body_mut().read_to_string().unwrap_or_default();
    if got == status { Ok(()) } else { Err(format!("{got} instead of {status}: {words}")) }
}

#[test]
fn of_200_states_that_are_written_at_once_no_update_is_lost() {
    const STATES: usize = 200;
    const TIMES: u64 = 2;
    let (server, _repo) = Server::with_project(&[]);
    let (url, token) = (server.url(), server.token.clone());
    let next = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    if n >= STATES {
                        return;
                    }
                    write_often(&url, &token, &format!("load/l{n}"), TIMES).unwrap();
                }
            });
        }
    });
    let view = server.view("/infrastructure/load");
    let states = view["states"].as_array().unwrap();
    assert_eq!(states.len(), STATES);
    for state in states {
        let serials: Vec<u64> =
            state["versions"].as_array().unwrap().iter().map(|v| v["serial"].as_u64().unwrap()).collect();
        assert_eq!(serials, (1..=TIMES).rev().collect::<Vec<_>>(), "{}", state["name"]);
        assert!(state["lock"].is_null(), "{state}");
    }
}

#[test]
fn a_body_that_was_changed_on_its_way_or_is_no_state_is_refused() {
    let (server, _repo) = Server::with_project(&[]);
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let address = format!("{}/api/v1/shop/state/staging", server.url());
    let post = |body: &str, md5: Option<&str>| {
        let mut request = agent.post(&address).header("authorization", format!("Bearer {}", server.token));
        if let Some(md5) = md5 {
            request = request.header("content-md5", md5);
        }
        request.send(body).unwrap().status().as_u16()
    };
    let state = r#"{"version":4,"serial":1,"lineage":"l"}"#;
    assert_eq!(
        post(state, Some("1B2M2Y8AsgTpgAmY7PhCfg==")),
        400,
        "the digest of nothing was taken for this body's"
    );
    for bad in [
        "",
        "{",
        "[]",
        r#"{"version":3,"serial":1,"lineage":"l"}"#,
        r#"{"version":4,"serial":-1,"lineage":"l"}"#,
    ] {
        assert_eq!(post(bad, None), 400, "{bad}");
    }
    assert_eq!(post(state, None), 200);
    assert_eq!(post(&state.replace("\"l\"", "\"other\""), None), 409, "another lineage was taken");
    assert_eq!(post(&state.replace(":1,", ":0,"), None), 409, "an older serial was taken");
}
