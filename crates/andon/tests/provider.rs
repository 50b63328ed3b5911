//! The Terraform provider, by the real terraform against the real server: created, planned empty, drifted by hand, seen, healed, imported,
//! destroyed; and what people read when something is wrong. The state lies in the server's own http backend.
//!
//! Without terraform the tests say SKIPPED, and fail where CI=true.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use support::{HELLO, Server, terraform_is_there};

const LINE: &str = r#"
version: 1
pipeline:
  jobs:
    package: { run: "mkdir dist && cp app.py dist/", artifact: dist }
services:
  web: { command: [python3, app.py, $PORT], health: / }
environments:
  production: { release: all-at-once }
"#;

const HEAD: &str = r#"
terraform {
  required_providers {
    andon = { source = "andon.dev/andon/andon" }
  }
  BACKEND
}
provider "andon" {
  project = "shop"
}
"#;

const TEAM: &str = r#"
variable "ttl" { default = "2h" }
variable "replicas" { default = 2 }
resource "andon_environment" "try" {
  name = "try"
  like = "production"
  ttl  = var.ttl
  wait = "80s"
}
resource "andon_scale" "web" {
  environment = andon_environment.try.name
  service     = "web"
  replicas    = var.replicas
}
resource "andon_flag" "cards" {
  key             = "new/cards"
  variants        = jsonencode({ on = true, off = false })
  default_variant = "off"
  targeting       = jsonencode({ if = [{ "==" = [{ var = "group" }, "staff"] }, "on", "off"] })
}
data "andon_environment" "try" { name = andon_scale.web.environment }
data "andon_service" "web" {
  environment = andon_scale.web.environment
  name        = andon_scale.web.service
}
data "andon_flag" "cards" { key = andon_flag.cards.key }
output "address" { value = data.andon_service.web.address }
output "same" { value = data.andon_environment.try.addresses["web"] == data.andon_service.web.address }
output "serving" { value = data.andon_environment.try.serving["web"] == data.andon_service.web.revision }
output "drift" { value = data.andon_environment.try.drift }
output "flag" { value = data.andon_flag.cards.state }
"#;

/// The directory of the provider, built as it is now.
fn provider() -> PathBuf {
    let built = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()))
        .args(["build", "--quiet", "-p", "terraform-provider-andon"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    Path::new(env!("CARGO_BIN_EXE_andon")).parent().unwrap().to_owned()
}

/// Somebody's own terraform.
struct Person<'a> {
    server: &'a Server,
    dir: PathBuf,
    token: String,
}

impl<'a> Person<'a> {
    /// With the provider by `dev_overrides`, and the state in a file.
    fn developing(server: &'a Server, code: &str) -> Person<'a> {
        let person = Person::new(server, "", code);
        let rc = format!(
            "provider_installation {{\n dev_overrides {{ \"andon.dev/andon/andon\" = {:?} }}\n}}\n",
            provider()
        );
        std::fs::write(person.dir.join("rc"), rc).unwrap();
        person
    }

    /// With the provider in a mirror of files, and the state on the server.
    fn mirrored(server: &'a Server, code: &str) -> Person<'a> {
        let person = Person::new(server, "backend \"http\" {}", code);
        let mirror = person.dir.join("mirror");
        let place = mirror.join("andon.dev/andon/andon/0.1.0/linux_amd64");
        std::fs::create_dir_all(&place).unwrap();
        std::fs::copy(
            provider().join("terraform-provider-andon"),
            place.join("terraform-provider-andon_v0.1.0"),
        )
        .unwrap();
        let rc = format!("provider_installation {{\n filesystem_mirror {{ path = {mirror:?} }}\n}}\n");
        std::fs::write(person.dir.join("rc"), rc).unwrap();
        person.ok(&["init"]);
        person
    }

    fn new(server: &'a Server, backend: &str, code: &str) -> Person<'a> {
        let dir = server.room.path().join("team");
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("main.tf"), HEAD.replace("BACKEND", backend) + code).unwrap();
        Person { server, dir, token: server.token.clone() }
    }

    fn run(&self, args: &[&str]) -> Output {
        let state = format!("{}/api/v1/shop/state/production/team", self.server.url());
        let mut command = Command::new("terraform");
        command.args(args).current_dir(&self.dir).stdin(Stdio::null());
        command.env("TF_CLI_CONFIG_FILE", self.dir.join("rc")).env("CHECKPOINT_DISABLE", "1");
        command.env("TF_IN_AUTOMATION", "1").env("TF_INPUT", "0").env("TF_CLI_ARGS", "-no-color");
        for name in ["TF_HTTP_ADDRESS", "TF_HTTP_LOCK_ADDRESS", "TF_HTTP_UNLOCK_ADDRESS"] {
            command.env(name, &state);
        }
        command.env("TF_HTTP_USERNAME", "anybody").env("TF_HTTP_PASSWORD", &self.server.token);
        command.env("ANDON_SERVER", self.server.url()).env("ANDON_TOKEN", &self.token);
        command.output().unwrap()
    }

    fn ok(&self, args: &[&str]) -> String {
        let out = self.run(args);
        assert!(out.status.success(), "terraform {args:?}: {}", words(&out));
        words(&out)
    }

    /// What a failing command says, in one line: terraform breaks lines where it likes.
    fn fails(&self, args: &[&str]) -> String {
        let out = self.run(args);
        assert!(!out.status.success(), "terraform {args:?} succeeded: {}", words(&out));
        let words = words(&out);
        assert!(!words.contains("panicked") && !words.contains("crashed"), "{words}");
        words.replace(['│', '╷', '╵'], " ").split_whitespace().collect::<Vec<_>>().join(" ")
    }

    fn apply(&self) {
        self.ok(&["apply", "-auto-approve"]);
    }

    /// Nothing is left to do.
    fn settled(&self) {
        let out = self.run(&["plan", "-detailed-exitcode"]);
        assert_eq!(out.status.code(), Some(0), "{}", words(&out));
    }

    /// The plan as Terraform writes it down.
    fn plan(&self, args: &[&str]) -> Value {
        self.ok(&[&["plan", "-out=plan"], args].concat());
        serde_json::from_str(&self.ok(&["show", "-json", "plan"])).unwrap()
    }
}

fn words(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

/// Addresses and what becomes of them, in one list of a plan.
fn actions(plan: &Value, list: &str) -> Vec<(String, String)> {
    let of = |change: &Value| {
        let actions = change["change"]["actions"].as_array().unwrap();
        let actions: Vec<&str> = actions.iter().filter_map(Value::as_str).collect();
        (change["address"].as_str().unwrap().to_owned(), actions.join(" "))
    };
    let mut all: Vec<_> = plan[list].as_array().into_iter().flatten().map(of).collect();
    all.retain(|(address, actions)| actions != "no-op" && !address.starts_with("data."));
    all.sort();
    all
}

fn pair(address: &str, action: &str) -> (String, String) {
    (address.into(), action.into())
}

#[test]
fn what_is_written_is_made_drift_by_hand_is_seen_and_healed_and_destroy_leaves_nothing() {
    if !terraform_is_there("the life of resources of the provider") {
        return;
    }
    let (server, repo) = Server::with_project(&[("app.py", HELLO), ("andon.yaml", LINE)]);
    server.served(repo.propose("first"));
    let person = Person::mirrored(&server, TEAM);

    // What only the server knows is open in the plan; what follows from the code is not.
    let plan = person.plan(&[]);
    let of = |address: &str| {
        let changes = plan["resource_changes"].as_array().unwrap();
        changes.iter().find(|c| c["address"] == address).unwrap()["change"].clone()
    };
    assert_eq!(of("andon_environment.try")["after_unknown"], json!({ "expires": true }));
    assert_eq!(of("andon_scale.web")["after"]["id"], "try/web");
    person.ok(&["apply", "plan"]);
    person.settled();
    let output: Value = serde_json::from_str(&person.ok(&["output", "-json"])).unwrap();
    let host = format!("http://web.try.shop.localhost:{}", server.router);
    assert_eq!(output["address"]["value"], json!(host));
    assert_eq!((&output["same"]["value"], &output["serving"]["value"]), (&json!(true), &json!(true)));
    assert_eq!((&output["drift"]["value"], &output["flag"]["value"]), (&json!(0), &json!("targeted")));
    let view = server.view("/environments/try");
    assert_eq!(view["scaled"], json!([["web", 2]]));
    assert_eq!(server.visit("web.try.shop.localhost", "/").0, 200);

    // Its life is longer, its service larger: changed in place.
    let more = ["-var=ttl=5h", "-var=replicas=3"];
    let plan = person.plan(&more);
    assert_eq!(
        actions(&plan, "resource_changes"),
        [pair("andon_environment.try", "update"), pair("andon_scale.web", "update")]
    );
    person.ok(&["apply", "plan"]);
    let later = server.view("/environments/try");
    assert!(later["row"]["expires"].as_i64() > view["row"]["expires"].as_i64().map(|end| end + 3_600_000));
    assert_eq!(later["scaled"], json!([["web", 3]]));
    person.apply();

    // Hands reach in: a flag is switched for everybody, the environment is ended.
    assert_eq!(server.post("/api/v1/shop/flags/new%2Fcards/on", &json!({})).0, 200);
    assert_eq!(server.post("/api/v1/shop/environments/try/destroy", &json!({ "why": "by hand" })).0, 200);
    let row = |view: &Value| view["rows"].as_array().unwrap().iter().any(|row| row["name"] == "try");
    server.until("it is gone", "/environments", |view| !row(view));
    let plan = person.plan(&[]);
    assert_eq!(
        actions(&plan, "resource_drift"),
        [
            pair("andon_environment.try", "delete"),
            pair("andon_flag.cards", "update"),
            pair("andon_scale.web", "delete")
        ]
    );
    person.ok(&["apply", "plan"]);
    person.settled();

    // A flag that somebody killed is not brought back by code.
    assert_eq!(server.post("/api/v1/shop/flags/new%2Fcards/kill", &json!({ "why": "it burns" })).0, 200);
    let said = person.fails(&["apply", "-auto-approve"]);
    assert!(said.contains("was killed") && said.contains("hint: `andon flag restore new/cards`"), "{said}");
    assert_eq!(server.view("/flags")["rows"][0]["state"], "killed");
    assert_eq!(server.post("/api/v1/shop/flags/new%2Fcards/restore", &json!({})).0, 200);

    // Forgotten, and taken over again.
    for (address, id) in
        [("andon_environment.try", "try"), ("andon_scale.web", "try/web"), ("andon_flag.cards", "new/cards")]
    {
        person.ok(&["state", "rm", address]);
        person.ok(&["import", address, id]);
    }
    let said = person.fails(&["import", "andon_flag.cards", "nobody"]);
    assert!(said.contains("There is no andon_flag \"nobody\" hint: import takes what is there"), "{said}");
    person.apply();
    person.settled();

    person.ok(&["destroy", "-auto-approve"]);
    assert!(!row(&server.view("/environments")));
    assert_eq!(server.view("/flags")["rows"], json!([]));
}

#[test]
fn what_is_wrong_is_said_with_a_hint_and_without_the_token() {
    if !terraform_is_there("diagnostics of the provider") {
        return;
    }
    let (mut server, _) = Server::with_project(&[]);
    let code = "resource \"andon_flag\" \"a\" {\n key = \"a\"\n variants = jsonencode({ on = true })\n}\n";
    let other = "resource \"andon_environment\" \"b\" {\n name = \"b\"\n}\n";
    Person::developing(&server, code).apply();
    {
        let mut person = Person::developing(&server, code);
        // Who may not is told so.
        person.token = server.token_with(&["viewer"]);
        let said = person.fails(&["destroy", "-auto-approve"]);
        assert!(said.contains("releaser"), "{said}");
        person.token = "no-token-of-this-server".into();
        let said = person.fails(&["plan"]);
        assert!(said.contains("hint:") && !said.contains(&person.token), "{said}");
        person.token = String::new();
        let said = person.fails(&["plan"]);
        assert!(said.contains("no `token`") && said.contains("ANDON_TOKEN"), "{said}");
    }
    // What the server refuses comes as it says it: there is no andon.yaml.
    let said = Person::developing(&server, other).fails(&["apply", "-auto-approve"]);
    assert!(said.contains("no andon.yaml") && said.contains("hint: land one first"), "{said}");
    // Found wrong before the server is asked.
    let wrong = other.replace("\"b\"\n}", "\"b\"\n ttl = \"soon\"\n}");
    let said = Person::developing(&server, &wrong).fails(&["validate"]);
    assert!(said.contains("is not a length of time") && said.contains("ttl = \"soon\""), "{said}");
    // Another's flag is not overwritten.
    assert_eq!(server.post("/api/v1/shop/flags/a/create", &json!({})).0, 200);
    let said = Person::developing(&server, code).fails(&["apply", "-auto-approve"]);
    assert!(said.contains("there already") && said.contains("terraform import"), "{said}");
    // What is not known before apply is no mistake.
    let open = "resource \"terraform_data\" \"t\" {}\nresource \"andon_flag\" \"a\" {\n key = \"a\"\n variants = jsonencode({ on = terraform_data.t.id })\n}\n";
    let plan = Person::developing(&server, open).ok(&["plan"]);
    assert!(plan.contains("(known after apply)"), "{plan}");
    server.kill();
    let source = "data \"andon_flag\" \"a\" { key = \"a\" }\n";
    let said = Person::developing(&server, source).fails(&["plan"]);
    assert!(said.contains("does not answer") && said.contains("hint: is `andon serve` running"), "{said}");
}

/// Blocks of commands of a page, in order.
fn commands(page: &str) -> Vec<&str> {
    let blocks = page.split("```sh\n").skip(1);
    blocks.filter_map(|block| block.split_once("```")).map(|(commands, _)| commands).collect()
}

#[test]
fn the_example_goes_as_its_readme_says() {
    if !terraform_is_there("the example of terraform") {
        return;
    }
    let server = Server::fresh();
    let bin = provider();
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").canonicalize().unwrap();
    let room = server.room.path().to_owned();
    std::os::unix::fs::symlink(&examples, room.join("examples")).unwrap();
    let page = std::fs::read_to_string(examples.join("terraform/README.md")).unwrap();
    let [serve, put, look, team, reach_in] = commands(&page)[..] else {
        panic!("the page has other blocks:\n{page}")
    };
    assert_eq!(serve.trim(), "andon serve");
    let run = |commands: &str| {
        // The server of a test listens elsewhere.
        let commands = commands.replace(":7080/", &format!(":{}/", server.router));
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        let dir = if room.join("shop").exists() { room.join("shop") } else { room.clone() };
        let mut shell = Command::new("sh");
        shell.args(["-ec", &commands]).current_dir(dir).env("PATH", path).env("CHECKPOINT_DISABLE", "1");
        shell.env("ANDON_SERVER", server.url()).env("ANDON_TOKEN", &server.token);
        let state = format!("{}/api/v1/shop/state/production/team", server.url());
        for name in ["TF_HTTP_ADDRESS", "TF_HTTP_LOCK_ADDRESS", "TF_HTTP_UNLOCK_ADDRESS"] {
            shell.env(name, &state);
        }
        shell.env("TF_HTTP_USERNAME", "andon").env("TF_HTTP_PASSWORD", &server.token);
        shell.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_TERMINAL_PROMPT", "0");
        for who in ["AUTHOR", "COMMITTER"] {
            shell.env(format!("GIT_{who}_NAME"), "Ann").env(format!("GIT_{who}_EMAIL"), "ann@example.com");
        }
        let out = shell.output().unwrap();
        assert!(out.status.success(), "{commands}{}{}", words(&out), server.stderr());
        words(&out)
    };
    let said = run(put);
    server.served(support::number(&said));
    let said = run(look);
    assert!(said.ends_with("made from code\n"), "{said}");
    run(team);
    assert_eq!(server.visit("web.try.shop.localhost", "/"), (200, "made from code\n".into()));
    let said = run(reach_in);
    assert!(said.contains("1 to change") && said.contains("Resources: 3 destroyed"), "{said}");
}
