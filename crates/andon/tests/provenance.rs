//! What the server vouches for: made once, verified by others, and looked at before every deployment; on the real binary.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use support::{Repo, Server, of_type};

const APP: &str = r#"
import http.server, sys
class Hello(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-length", "3")
        self.end_headers()
        self.wfile.write(b"one")
    def log_message(self, *of):
        pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Hello).serve_forever()
"#;

const YAML: &str = r#"
version: 1
pipeline:
  jobs:
    unit:
      run: |
        echo '<testsuite><testcase classname="shop" name="adds"/><testcase classname="shop" name="removes"/></testsuite>' > unit.xml
      reports: { tests: unit.xml }
    package:
      run: mkdir dist && cp app.py dist/
      artifact: dist
services: { web: { command: [python3, app.py, $PORT], health: / } }
environments: { staging: { deploy: on-green }, production: { deploy: on-green } }
"#;

/// Verifies each envelope of a bundle with openssl alone: the bytes that are signed are put together here, as the DSSE protocol says.
const OPENSSL: &str = r#"
import base64, json, subprocess, sys
for line in open(sys.argv[1]):
    envelope = json.loads(line)
    kind, payload = envelope["payloadType"].encode(), base64.b64decode(envelope["payload"])
    open("signed", "wb").write(b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload))
    open("signature", "wb").write(base64.b64decode(envelope["signatures"][0]["sig"]))
    subprocess.run(["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", sys.argv[2], "-rawin", "-in", "signed",
                    "-sigfile", "signature"], check=True)
    print(json.loads(payload)["predicateType"])
"#;

fn words(out: &Output) -> String {
    String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr)
}

/// Waits until the artifact of the change's newest run is vouched for: the run, and what is said.
fn vouched(server: &Server, change: u32) -> (u64, Value) {
    let run = server.view(&format!("/changes/{change}"))["row"]["run"].as_u64().unwrap();
    let both = |view: &Value| view["attestations"].as_array().is_some_and(|all| all.len() == 2);
    (run, server.until("both are said", &format!("/runs/{run}/attestations"), both))
}

fn blob(server: &Server, digest: &str) -> PathBuf {
    let hex = digest.trim_start_matches("sha256:");
    server.room.path().join("data/blobs").join(&hex[..2]).join(&hex[2..])
}

/// Puts other bytes where these are, and gives back what was there.
fn tamper(file: &Path, change: impl FnOnce(Vec<u8>) -> Vec<u8>) -> Vec<u8> {
    let was = std::fs::read(file).unwrap();
    let is = change(was.clone());
    assert_ne!(was, is);
    std::fs::write(file, is).unwrap();
    was
}

#[test]
fn what_a_run_built_is_vouched_for_once_and_others_can_tell_without_the_server() {
    let (mut server, repo) = Server::with_project(&[("andon.yaml", YAML), ("app.py", APP)]);
    let change = repo.propose("Begin");
    server.served(change);
    let (run, view) = vouched(&server, change);
    assert_eq!(view["found"], "good", "{view}");
    let room = server.room.path().to_owned();
    let at = |name: &str| room.join(name).display().to_string();
    let shown = server.cli(&["provenance", "show", &run.to_string(), "--bundle", &at("bundle")]);
    assert!(shown.status.success(), "{}", words(&shown));
    let by_digest = server.cli(&["provenance", "show", view["artifact"].as_str().unwrap(), "--json"]);
    assert!(by_digest.status.success() && words(&by_digest).contains("test_result"), "{}", words(&by_digest));
    let key = server.cli(&["provenance", "keys"]);
    std::fs::write(room.join("key.pem"), &key.stdout).unwrap();
    std::fs::copy(blob(&server, view["artifact"].as_str().unwrap()), room.join("shop.tar")).unwrap();
    // What is said: where it comes from, by what was recorded, and what its tests said.
    let journal = server.journal();
    let statement = |what: usize| -> Value {
        let payload = view["attestations"][what]["envelope"]["payload"].as_str().unwrap();
        let out =
            Command::new("sh").args(["-c", "printf %s \"$1\" | base64 -d", "sh", payload]).output().unwrap();
        serde_json::from_slice(&out.stdout).unwrap()
    };
    let (provenance, tests) = (statement(0), statement(1));
    let landed = of_type(&journal, "landed")[0]["event"].clone();
    let resolved = &provenance["predicate"]["buildDefinition"]["resolvedDependencies"];
    assert_eq!(provenance["predicateType"], "https://slsa.dev/provenance/v1");
    assert_eq!(resolved[0]["digest"]["gitCommit"], landed["commit"]);
    assert_eq!(resolved[1]["digest"]["gitTree"], landed["landed_tree"]);
    assert_eq!(provenance["predicate"]["buildDefinition"]["externalParameters"]["job"], "package");
    let about = &provenance["predicate"]["runDetails"];
    assert!(about["builder"]["id"].as_str().unwrap().starts_with("urn:andon:builder:"));
    assert!(
        about["metadata"]["startedOn"].as_str().unwrap() < about["metadata"]["finishedOn"].as_str().unwrap()
    );
    assert_eq!(tests["predicate"]["result"], "PASSED");
    assert_eq!(tests["predicate"]["passedTests"], json!(["unit: shop::adds", "unit: shop::removes"]));
    // An implementation that is not ours verifies both.
    std::fs::write(room.join("verify.py"), OPENSSL).unwrap();
    let openssl =
        Command::new("python3").args(["verify.py", "bundle", "key.pem"]).current_dir(&room).output().unwrap();
    assert!(openssl.status.success(), "{}", words(&openssl));
    assert_eq!(words(&openssl).matches("https://").count(), 2, "{}", words(&openssl));
    // So does ours, without a server; and says no to other bytes, another key, another builder.
    server.kill();
    let verify = |file: &str, key: &str, more: &[&str]| {
        let (file, bundle, key) = (at(file), at("bundle"), at(key));
        let args = ["provenance", "verify", &file, "--bundle", &bundle, "--key", &key];
        let args: Vec<&str> = args.into_iter().chain(more.iter().copied()).collect();
        let out = server.cli(&args);
        (out.status.code().unwrap(), words(&out))
    };
    let builder = about["builder"]["id"].as_str().unwrap();
    let (status, said) = verify("shop.tar", "key.pem", &["--builder", builder]);
    assert!(status == 0 && said.contains("its tests: PASSED"), "{said}");
    let (status, said) = verify("shop.tar", "key.pem", &["--builder", "urn:somebody"]);
    assert!(status == 1 && said.contains("not by this server"), "{said}");
    std::fs::write(room.join("other.tar"), "other").unwrap();
    let (status, said) = verify("other.tar", "key.pem", &[]);
    assert!(status == 1 && said.contains("not about this artifact"), "{said}");
    let other = "openssl genpkey -algorithm ed25519 | openssl pkey -pubout -out other.pem";
    assert!(Command::new("sh").current_dir(&room).args(["-c", other]).status().unwrap().success());
    let (status, said) = verify("shop.tar", "other.pem", &[]);
    assert!(status == 1 && said.contains("signature"), "{said}");
    // A server that comes back says nothing twice, and a new key leaves what was signed as it is.
    server.start();
    assert_eq!(of_type(&server.journal(), "attested").len(), 2);
    assert!(server.cli(&["provenance", "rotate"]).status.success());
    assert_eq!(server.view(&format!("/runs/{run}/attestations"))["found"], "good");
    let keys = words(&server.cli(&["provenance", "keys"]));
    assert_eq!(keys.matches("BEGIN PUBLIC KEY").count(), 2, "{keys}");
}

/// Production waits while staging takes the change; then production is let go.
fn held(server: &Server, repo: &Repo, text: &str) -> (u32, Value) {
    let hold = |why: Value| server.post("/api/v1/shop/environments/production/hold", &json!({ "why": why }));
    assert_eq!(hold(json!("for the test")).0, 200);
    repo.write("app.py", &APP.replace("b\"one\"", text));
    let change = repo.propose(text);
    server.until("staging has it", &format!("/changes/{change}"), |view| {
        view["places"]
            .as_array()
            .into_iter()
            .flatten()
            .any(|place| place[0] == "staging" && place[2].as_str().unwrap().contains("everyone has it"))
    });
    (change, vouched(server, change).1)
}

#[test]
fn an_artifact_or_an_attestation_that_somebody_had_a_hand_in_is_not_deployed_and_the_line_stops() {
    let (server, repo) = Server::with_project(&[("andon.yaml", YAML), ("app.py", APP)]);
    let first = repo.propose("Begin");
    server.served(first);
    let released = |andon: &str| {
        assert_eq!(
            server.post(&format!("/api/v1/shop/andons/{andon}/release"), &json!({ "why": "mended" })).0,
            200
        );
    };
    let let_go = || server.post("/api/v1/shop/environments/production/hold", &json!({ "why": null }));
    // Somebody changes what was built, on the disk.
    let (second, view) = held(&server, &repo, "b\"two\"");
    let artifact = blob(&server, view["artifact"].as_str().unwrap());
    let was = tamper(&artifact, |mut bytes| {
        let at = bytes.windows(5).position(|window| window == b"\"two\"").unwrap();
        bytes[at + 1] = b'T';
        bytes
    });
    let said = server.view(&format!("/runs/{}/attestations", view["run"]));
    assert!(said["found"].as_str().unwrap().contains("not those that were built"), "{said}");
    let_go();
    let refused = |change: u32, says: &str| {
        let view =
            server.until("it was refused", &format!("/changes/{change}"), |view| {
                view["places"].as_array().into_iter().flatten().any(|place| {
                    place[0] == "production" && place[2].as_str().unwrap().contains("is refused")
                })
            });
        assert!(view["places"].to_string().contains(says), "{}", view["places"]);
        server.until("the line stopped", "/andons", |andons| andons.to_string().contains("is refused"));
        assert_eq!(server.visit("web.production.shop.localhost", "/"), (200, "one".to_owned()));
    };
    refused(second, "not those that were built");
    // A person who asks for it is told the same.
    let (status, said) = server.post("/api/v1/shop/environments/staging/deploy", &json!({}));
    assert!(status == 409 && said.to_string().contains("not those that were built"), "{said}");
    std::fs::write(&artifact, was).unwrap();
    released("1");
    // Somebody changes what is said of it: another tree, by whoever has no key.
    let (third, view) = held(&server, &repo, "b\"six\"");
    let envelope = blob(&server, view["attestations"][0]["digest"].as_str().unwrap());
    tamper(&envelope, |bytes| {
        let mut envelope: Value = serde_json::from_slice(&bytes).unwrap();
        let payload = envelope["payload"].as_str().unwrap().to_owned();
        envelope["payload"] = json!(payload.replacen(&payload[40..44], "AAAA", 1));
        serde_json::to_vec(&envelope).unwrap()
    });
    let_go();
    refused(third, "signature of its attestation is not good");
}
