//! Secrets of a project, from the command line to jobs and services and nowhere else; on the real binary.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod support;

use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};
use support::{Server, of_type};

/// It answers with a digest of what it was given, so that a test can tell without the value being seen.
const APP: &str = r#"
import hashlib, http.server, os, sys
class Hello(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        said = hashlib.sha256(os.environ.get("API_KEY", "").encode()).hexdigest().encode()
        self.send_response(200)
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)
    def log_message(self, *of):
        pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Hello).serve_forever()
"#;

/// Careless on purpose: what a job is given it prints, in many ways.
const YAML: &str = r#"
version: 1
pipeline:
  jobs:
    package:
      run: mkdir dist && cp app.py dist/
      artifact: dist
      env: { N: "1" }
    careless:
      secrets: [OPEN_TOKEN, CLOSED_TOKEN]
      run: |
        echo "open: $OPEN_TOKEN, closed: ${CLOSED_TOKEN:-none}"
        printf %s "$OPEN_TOKEN" | base64
        printf %s "$OPEN_TOKEN" | od -An -tx1 | tr -d ' \n'; echo
    smoke:
      stage: environment
      secrets: [API_KEY]
      run: |
        echo "the key is $API_KEY"
        test "$(python3 -c 'import os,urllib.request;print(urllib.request.urlopen(os.environ["ANDON_URL"]).read().decode())')" = "$(printf %s "$API_KEY" | sha256sum | cut -d' ' -f1)"
services: { web: { command: [python3, app.py, $PORT], health: /, secrets: [API_KEY] } }
environments: { production: { tests: [smoke] } }
"#;

const OPEN: &str = "open-tok3n/with+signs";
const CLOSED: &str = "closed-tok3n-7Zq";
const KEY: &str = "k3y of the api, with spaces";

fn set(server: &Server, name: &str, value: &str, more: &[&str]) -> (bool, String) {
    let mut args = vec!["secret", "set", name];
    args.extend(more);
    let mut child = server.cli_with(&args, Stdio::piped());
    child.stdin.take().unwrap().write_all(format!("{value}\n").as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    (
        out.status.success(),
        String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr),
    )
}

fn files_with(dir: &Path, values: &[&str], found: &mut Vec<String>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() && !path.is_symlink() {
            // What runs has what it was given: its own directory is its own.
            if path.file_name().is_some_and(|name| name == "instances") {
                continue;
            }
            files_with(&path, values, found);
        } else if let Ok(bytes) = std::fs::read(&path) {
            let text = String::from_utf8_lossy(&bytes);
            let holds = |value: &&&str| text.contains(**value);
            found.extend(values.iter().filter(holds).map(|value| format!("{}: {value}", path.display())));
        }
    }
}

#[test]
fn a_secret_reaches_what_may_have_it_and_nothing_else() {
    let (server, repo) = Server::with_project(&[("andon.yaml", YAML), ("app.py", APP)]);
    // Given three secrets: one that whoever pushes may use, one for trunk, one for production.
    assert!(set(&server, "OPEN_TOKEN", OPEN, &["--unlanded"]).0);
    assert!(set(&server, "CLOSED_TOKEN", CLOSED, &[]).0);
    let (ok, words) = set(&server, "API_KEY", KEY, &[]);
    assert!(ok, "{words}");
    // A first change brings andon.yaml: it decides itself what is done with what it gets, so it gets nothing.
    let first = repo.propose("Begin");
    server.served(first);
    let log = |change: u32| {
        let run = server.view(&format!("/changes/{change}"))["runs"][0]["number"].as_u64().unwrap();
        let out = server.cli(&["run", "log", &run.to_string(), "careless"]);
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    let said = log(first);
    assert!(
        said.contains("OPEN_TOKEN is not given to a change that edits andon.yaml")
            && said.contains("open: ,"),
        "{said}"
    );
    // When a change follows that does not, it gets what it may have, and its log shows none of it.
    repo.write("README", "more");
    let second = repo.propose("Say more");
    server.served(second);
    let said = log(second);
    assert!(said.contains("CLOSED_TOKEN is not given to changes that have not landed"), "{said}");
    assert!(said.contains("open: [hidden], closed: none\n[hidden]\n[hidden]\n"), "{said}");
    // Production's service and the tests of it have the key: the test compares them.
    let tested =
        of_type(&server.journal(), "environment_tested").iter().filter(|e| e["event"]["ok"] == true).count();
    assert_eq!(tested, 1, "the second change left the artifact as it was");
    let digest = server.visit("web.production.shop.localhost", "/").1;
    assert_eq!(digest, sha256(KEY));
    // Then nothing that is kept or told has any of them, in any form that was printed.
    let forms = [OPEN, CLOSED, KEY, "b3Blbi10b2szbi93aXRoK3NpZ25z", "6f70656e2d746f6b336e"];
    let mut found = Vec::new();
    files_with(&server.room.path().join("data"), &forms, &mut found);
    for path in ["/secrets", "/journal?after=0", "/runs/1", "/runs/2", "/environments/production"] {
        let text = server.view(path).to_string();
        found.extend(forms.iter().filter(|form| text.contains(**form)).map(|form| format!("{path}: {form}")));
    }
    assert!(found.is_empty(), "{found:#?}");
}

fn sha256(text: &str) -> String {
    let out = std::process::Command::new("sh")
        .args(["-c", "printf %s \"$1\" | sha256sum", "sh", text])
        .output()
        .unwrap();
    String::from_utf8_lossy(&out.stdout)[..64].to_owned()
}

#[test]
fn a_secret_is_listed_without_its_value_bound_to_its_environment_and_gone_when_it_is_removed() {
    let (server, repo) = Server::with_project(&[("andon.yaml", YAML), ("app.py", APP)]);
    // What is no secret is refused, with what to do.
    for (name, value, says) in [
        ("API_KEY", "short", "8 characters"),
        ("path", KEY, "capital letters"),
        ("LD_PRELOAD", KEY, "already"),
    ] {
        let (ok, words) = set(&server, name, value, &[]);
        assert!(!ok && words.contains(says), "{name}: {words}");
    }
    let (ok, words) = set(&server, "API_KEY", KEY, &["--environment", "nowhere"]);
    assert!(!ok && words.contains("no environment nowhere"), "{words}");
    // A service whose secret is not there does not start, and says why.
    let first = repo.propose("Begin");
    let view = server.until("the deployment was given up", "/environments/production", |view| {
        view.to_string().contains("API_KEY is not set")
    });
    assert!(view.to_string().contains("andon secret set API_KEY"), "{view}");
    assert_eq!(server.decided(first)["row"]["standing"], "landed");
    assert!(set(&server, "API_KEY", KEY, &["--environment", "production"]).0);
    let list = server.view("/secrets");
    assert_eq!(list["rows"][0]["says"], "for production only");
    assert!(list["rows"][0].get("value").is_none());
    // Only owners set and remove; others do not even see the names without a role for it.
    let viewer = server.token_with(&["viewer"]);
    assert_eq!(server.post_as(&viewer, "/api/v1/shop/secrets/API_KEY", &json!({ "value": KEY })).0, 403);
    let developer = server.token_with(&["developer"]);
    assert_eq!(server.post_as(&developer, "/api/v1/shop/secrets/API_KEY", &json!({ "value": KEY })).0, 403);
    assert!(server.cli(&["secret", "remove", "API_KEY"]).status.success());
    assert_eq!(server.view("/secrets")["rows"], Value::Array(vec![]));
}
