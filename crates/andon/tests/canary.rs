//! Secrets that can be recognised, planted wherever Andon meets secrets: given to Terraform and Ansible, made by them, printed by careless code, in
//! addresses of databases. Then everything that Andon keeps or tells is searched for them.
//!
//! Needs terraform, ansible-core and PostgreSQL; without them it says SKIPPED, and fails where CI=true.

#![allow(clippy::print_stdout, reason = "a test says what it searched")]
#![allow(clippy::unwrap_used, reason = "all of it is test code")]

mod support;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use andon_testkit::postgres::Cluster;
use serde_json::{Value, json};
use support::{HELLO, Repo, Server, of_type, terraform_is_there};

const LINE: &str = r#"
version: 1
pipeline: { jobs: { package: { run: "mkdir dist && cp app.py dist/", artifact: dist } } }
databases: { main: { migrations: db } }
services: { web: { command: [python3, app.py, $PORT], health: /, databases: [main] } }
environments:
  production:
    protected: { approvals: 1 }
    infrastructure:
      terraform: infra
      look_every: 2s
      variables: { place: "PLACE" }
      ansible: { folder: setup, connection: local, hosts: { web: { web1: {} } }, secrets: [word], look_every: 3s }
"#;

/// Careless on purpose: what it is given it also prints.
const CODE: &str = r#"
variable "place" { type = string }
variable "once" {
  type      = string
  ephemeral = true
}
variable "kept" {
  type      = string
  sensitive = true
}
variable "plain" { type = string }
resource "terraform_data" "kept" {
  input            = var.kept
  triggers_replace = fileexists("${var.place}/again") ? filesha256("${var.place}/again") : ""
  provisioner "local-exec" { command = "echo ${var.once}" }
  provisioner "local-exec" { command = "echo the token is $CLOUD_TOKEN; test ! -e ${var.place}/fail" }
}
resource "terraform_data" "plain" { input = var.plain }
output "kept" {
  value     = var.kept
  sensitive = true
}
"#;

const PLAY: &str = "- hosts: web
  gather_facts: false
  tasks:
    - { name: Say it, ansible.builtin.debug: { msg: 'the word is {{ word }}' } }
    - { name: Write it, ansible.builtin.copy: { dest: 'PLACE/word', content: '{{ word }}', mode: '0600' } }
";

/// What is planted, by the place where it comes from.
struct Canaries(BTreeMap<&'static str, String>);

impl Canaries {
    fn hatch(&mut self, name: &'static str) -> String {
        let canary = format!("canary-{name}-{:x}", self.0.len() as u64 * 0x9e37_79b9 + 0x1b7f_2c3d);
        self.0.insert(name, canary.clone());
        canary
    }

    /// Which of them stand in this, in clear or as JSON, a page or base64 have them.
    fn in_text(&self, bytes: &[u8]) -> Vec<&'static str> {
        let stands = |canary: &str| {
            let encoded = json!(canary).to_string();
            let found =
                |word: &[u8]| !word.is_empty() && bytes.windows(word.len()).any(|window| window == word);
            found(canary.as_bytes()) || found(encoded.trim_matches('"').as_bytes())
        };
        self.0.iter().filter(|(_, canary)| stands(canary)).map(|(name, _)| *name).collect()
    }
}

/// Every file below this, that is no file of the test itself: the door through which an instance gets its environment is for it alone.
fn search_files(dir: &Path, canaries: &Canaries, found: &mut Vec<String>, searched: &mut u64) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        if kind.is_dir() {
            search_files(&path, canaries, found, searched);
            continue;
        }
        if !kind.is_file() {
            continue;
        }
        let Ok(bytes) = std::fs::read(&path) else { continue };
        *searched += 1;
        let mut stands = canaries.in_text(&bytes);
        if path.ends_with("spec.json") {
            let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{}", path.display());
            stands.retain(|name| *name != "database");
        }
        if !stands.is_empty() {
            found.push(format!("{}: {stands:?}", path.display()));
        }
    }
}

fn person(server: &Server, roles: &[&str]) -> String {
    server.token_with(roles)
}

/// Pages and answers about everything here, as this person gets them.
fn search_doors(server: &Server, token: &str, canaries: &Canaries, found: &mut Vec<String>) -> usize {
    let runs = server.view("/infrastructure/production")["runs"].as_array().unwrap().clone();
    let mut paths: Vec<String> = [
        "",
        "/queue",
        "/environments",
        "/environments/production",
        "/environments/production/infrastructure",
        "/releases",
        "/flags",
        "/andons",
        "/flow",
        "/changes/1",
        "/runs/1",
    ]
    .iter()
    .map(|path| format!("/shop{path}"))
    .collect();
    let api = [
        "/wall",
        "/queue",
        "/environments",
        "/environments/production",
        "/infrastructure/production",
        "/releases",
        "/flags",
        "/andons",
        "/flow",
        "/changes/1",
        "/runs/1",
        "/data",
        "/journal?after=0",
        "/environments/production/logs",
    ];
    paths.extend(api.iter().map(|path| format!("/api/v1/shop{path}")));
    for run in &runs {
        let run = run["run"].as_str().unwrap();
        paths.extend([
            format!("/api/v1/shop/infrastructure-runs/{run}"),
            format!("/api/v1/shop/infrastructure-runs/{run}/log"),
        ]);
    }
    let mut answered = 0;
    for path in paths {
        let agent: ureq::Agent =
            ureq::Agent::config_builder().http_status_as_error(false).max_redirects(0).build().into();
        let request =
            agent.get(format!("{}{path}", server.url())).header("authorization", format!("Bearer {token}"));
        let mut answer = request.call().unwrap();
        answered += usize::from(answer.status().is_success());
        let text = answer.body_mut().with_config().limit(64 << 20).read_to_vec().unwrap();
        let stands = canaries.in_text(&text);
        if !stands.is_empty() {
            found.push(format!("{path}: {stands:?}"));
        }
    }
    answered
}

#[test]
fn planted_secrets_are_in_nothing_that_is_kept_or_told() {
    let title = "secrets that can be recognised";
    if !terraform_is_there(title) {
        return;
    }
    if !Command::new("ansible-playbook").arg("--version").output().is_ok_and(|out| out.status.success()) {
        println!("SKIPPED: {title} (ansible-playbook is not installed)");
        assert_ne!(
            std::env::var("CI").as_deref(),
            Ok("true"),
            "in CI a component that is missing is a failure"
        );
        return;
    }
    let Some(cluster) = Cluster::start() else { return };
    let mut canaries = Canaries(BTreeMap::new());
    let mut server = Server::fresh();
    server.patience = std::time::Duration::from_secs(240);
    let place = server.room.path().join("place");
    std::fs::create_dir_all(&place).unwrap();
    server.kill();
    let admin = canaries.hatch("admin");
    server
        .set("ANDON_POSTGRES", &cluster.url("postgres").replace("postgres@", &format!("postgres:{admin}@")));
    for (name, canary) in [
        ("TF_VAR_once", "ephemeral"),
        ("TF_VAR_kept", "sensitive"),
        ("TF_VAR_plain", "careless"),
        ("CLOUD_TOKEN", "token"),
        ("word", "ansible"),
    ] {
        let value = canaries.hatch(canary);
        server.set(&format!("ANDON_INFRA_{name}"), &value);
    }
    server.start();
    assert_eq!(server.post("/api/v1/projects", &json!({ "name": "shop" })).0, 200);
    let at = place.to_str().unwrap();
    let repo = Repo::new(
        &server,
        &[
            ("app.py", HELLO),
            ("andon.yaml", &LINE.replace("PLACE", at)),
            ("infra/main.tf", CODE),
            ("setup/site.yml", &PLAY.replace("PLACE", at)),
            ("db/1.expand.sql", "CREATE TABLE t (id int)"),
        ],
    );
    let change = repo.propose("Plant secrets");
    server.until(
        "the play waits for people: nobody can check what it says",
        "/infrastructure/production",
        |view| {
            approve_what_waits(&server, view);
            view["runs"].as_array().unwrap().iter().filter(|run| run["mark"] == "go").count() >= 2
        },
    );
    server.served(change);
    assert_eq!(
        std::fs::read_to_string(place.join("word")).unwrap(),
        canaries.0["ansible"],
        "the secret arrived"
    );
    let spec = spec_of_web(&server);
    let password = spec["env"]["DATABASE_URL"].as_str().unwrap().split(['@', ':']).nth(2).unwrap().to_owned();
    assert!(password.len() > 8, "{password}");
    canaries.0.insert("database", password);

    // Drift, a plan that people look at, and a run that fails with everything it knows on its lips.
    std::fs::write(place.join("word"), "by hand").unwrap();
    server.until("a difference is seen", "/environments/production", |_| {
        !of_type(&server.journal(), "drift_seen").is_empty()
    });
    std::fs::write(place.join("fail"), "").unwrap();
    std::fs::write(place.join("again"), "again").unwrap();
    let failed = |view: &Value| {
        approve_what_waits(&server, view);
        view["runs"].as_array().unwrap().iter().any(|run| run["mark"] == "stop")
    };
    assert!(server.cli(&["infra", "apply", "production"]).status.success());
    let view = server.until("a run fails", "/infrastructure/production", failed);
    let why =
        view["runs"].as_array().unwrap().iter().find(|run| run["mark"] == "stop").unwrap()["words"].clone();
    assert!(why.as_str().unwrap().contains("local-exec"), "{why}");
    std::fs::remove_file(place.join("fail")).unwrap();

    // What the code printed was heard, and is kept without its secrets.
    let heard = server.cli(&["infra", "log", "T1"]);
    let heard = String::from_utf8_lossy(&heard.stdout).into_owned();
    assert!(heard.contains("the token is (sensitive)"), "{heard}");

    let mut found = Vec::new();
    let backup = server.cli(&["backup"]);
    assert!(backup.status.success(), "{}", String::from_utf8_lossy(&backup.stderr));
    for roles in [vec!["viewer"], vec!["deployer"], vec!["owner"]] {
        let answered = search_doors(&server, &person(&server, &roles), &canaries, &mut found);
        assert!(answered >= 20, "only {answered} doors answered {roles:?}");
    }
    // The tool's own door, for those who may deploy: the one place where a state is told in clear.
    let (status, state) = server.get("/api/v1/shop/state/production");
    let told = canaries.in_text(state.to_string().as_bytes());
    assert!(status == 200 && told.contains(&"sensitive") && !told.contains(&"ephemeral"), "{told:?}");
    let viewer = person(&server, &["viewer"]);
    let refused: u16 = {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let request = agent.get(format!("{}/api/v1/shop/state/production", server.url()));
        request.header("authorization", format!("Bearer {viewer}")).call().unwrap().status().as_u16()
    };
    assert_eq!(refused, 403);
    if !canaries.in_text(server.stderr().as_bytes()).is_empty() {
        found.push(format!("the server's own log: {:?}", canaries.in_text(server.stderr().as_bytes())));
    }
    // At rest, while nothing is being made: a tool at work has its own things in a room for its account alone.
    server.kill();
    let data = server.room.path().join("data");
    let mut searched = 0;
    let rooms = data.join("infrastructure/shop");
    for room in std::fs::read_dir(&rooms).into_iter().flatten().flatten() {
        assert_eq!(room.metadata().unwrap().permissions().mode() & 0o777, 0o700, "{}", room.path().display());
        std::fs::remove_dir_all(room.path()).unwrap();
    }
    search_files(&data, &canaries, &mut found, &mut searched);
    println!("{searched} files and every page and answer were searched for {} secrets", canaries.0.len());
    assert!(searched > 30, "only {searched} files were searched");
    assert!(found.is_empty(), "{found:#?}");
}

/// The environment of what serves, as its shim was told it.
fn spec_of_web(server: &Server) -> Value {
    let dir = server.room.path().join("data/instances/shop");
    let mut specs = std::fs::read_dir(dir).unwrap().flatten().map(|entry| entry.path().join("spec.json"));
    let spec = specs.find_map(|path| std::fs::read(path).ok()).unwrap();
    serde_json::from_slice(&spec).unwrap()
}

fn approve_what_waits(server: &Server, view: &Value) {
    for run in view["runs"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|run| run["mark"] == "wait" && run["guarded"] != json!([]))
    {
        let path = format!("/api/v1/shop/infrastructure-runs/{}/approve", run["run"].as_str().unwrap());
        // It may have been approved by the look before.
        server.post(&path, &json!({ "environment": "production", "why": "a test" }));
    }
}
