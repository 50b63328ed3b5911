//! Tokens by which jobs say who they are, read by an implementation that is not ours (PyJWT); on the real binary.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod support;

use std::process::{Command, Output};

use support::{Server, of_type};

const APP: &str = r#"
import http.server, sys
class Hello(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()
    def log_message(self, *of):
        pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Hello).serve_forever()
"#;

/// What a job is given it prints, and packs so that the test finds it.
const YAML: &str = r#"
version: 1
pipeline:
  jobs:
    package:
      identity: { audience: [sts.example] }
      timeout: 10m
      run: |
        echo "token: $ANDON_ID_TOKEN"
        echo "signature: ${ANDON_ID_TOKEN##*.}"
        mkdir dist && cp app.py dist/
        cat "$ANDON_ID_TOKEN_FILE" > dist/token
      artifact: dist
    none:
      run: test -z "$ANDON_ID_TOKEN"
    smoke:
      stage: environment
      identity: { audience: [sts.example] }
      run: |
        test "$(python3 -c 'import base64,json,os;p=os.environ["ANDON_ID_TOKEN"].split(".")[1];print(json.loads(base64.urlsafe_b64decode(p+"=="))["sub"])')" = project:shop:ref:main:environment:production:job:smoke
services: { web: { command: [python3, app.py, $PORT], health: / } }
environments: { production: { tests: [smoke] } }
"#;

/// As a relying party does it: the issuer's configuration, its keys, the claims; then what has to be refused.
const RELYING: &str = r#"
import json, sys, urllib.request
import jwt
issuer, token = sys.argv[1], open(sys.argv[2]).read()
about = json.load(urllib.request.urlopen(issuer + "/.well-known/openid-configuration"))
assert about["issuer"] == issuer, about
key = jwt.PyJWKClient(about["jwks_uri"]).get_signing_key_from_jwt(token)
how = dict(algorithms=about["id_token_signing_alg_values_supported"], issuer=issuer)
claims = jwt.decode(token, key, audience="sts.example", **how)
def refused(error, token=token, audience="sts.example", **other):
    try:
        jwt.decode(token, key, audience=audience, **{**how, **other})
    except error:
        return
    raise SystemExit("it was not refused: %s" % error)
refused(jwt.InvalidAudienceError, audience="other.example")
refused(jwt.InvalidIssuerError, issuer="http://other")
# As an hour later, when it is long over; that it would not be valid yet is another check.
refused(jwt.ExpiredSignatureError, leeway=-3600, options={"verify_nbf": False, "verify_iat": False})
head, body, signature = token.split(".")
refused(jwt.InvalidSignatureError, token=".".join([head, jwt.utils.base64url_encode(json.dumps({**claims, "sub": "x"}).encode()).decode(), signature]))
print(json.dumps(claims))
"#;

fn words(out: &Output) -> String {
    String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr)
}

#[test]
fn a_job_says_who_it_is_to_whoever_trusts_the_server_and_its_token_is_seen_nowhere() {
    let (server, repo) = Server::with_project(&[("andon.yaml", YAML), ("app.py", APP)]);
    let change = repo.propose("Begin");
    // The tests of production ask for theirs, as trunk: the deployment is red otherwise.
    server.served(change);
    let room = server.room.path().to_owned();
    let run = server.view(&format!("/changes/{change}"))["row"]["run"].as_u64().unwrap();
    let artifact = server.view(&format!("/runs/{run}"))["artifact"][0].as_str().unwrap().to_owned();
    let hex = artifact.trim_start_matches("sha256:");
    let tar = room.join("data/blobs").join(&hex[..2]).join(&hex[2..]);
    let out = Command::new("tar")
        .args(["xOf", &tar.display().to_string(), "--wildcards", "*token"])
        .output()
        .unwrap();
    let token = String::from_utf8(out.stdout).unwrap();
    assert_eq!(token.split('.').count(), 3, "{token}");
    // Its output hides it, and no event has it.
    let log = words(&server.cli(&["run", "log", &run.to_string(), "package"]));
    assert!(log.contains("token: [hidden]") && log.contains("signature: [hidden]"), "{log}");
    let journal = server.journal();
    let signature = token.rsplit('.').next().unwrap();
    assert!(!serde_json::to_string(&journal).unwrap().contains(signature));
    // A key that was replaced is published as long as what it signed may be valid.
    let kids = || {
        let (_, jwks) = server.get("/.well-known/jwks.json");
        jwks["keys"]
            .as_array()
            .unwrap()
            .iter()
            .map(|key| key["kid"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let before = kids();
    assert!(server.cli(&["identity", "rotate"]).status.success());
    let after = kids();
    assert_eq!((before.len(), after.len(), &before[0]), (1, 2, &after[0]));
    assert_eq!(of_type(&journal, "environment_tested").len(), 1);
    // Whoever trusts the server reads it, and refuses it for others, later, or changed.
    std::fs::write(room.join("token"), &token).unwrap();
    std::fs::write(room.join("relying.py"), RELYING).unwrap();
    let how =
        format!("python3 -m venv {0} && {0}/bin/pip install -q 'pyjwt[crypto]'", room.join("venv").display());
    if !Command::new("sh").args(["-c", &how]).status().unwrap().success() {
        println!("SKIPPED: what PyJWT says (it cannot be had)");
        assert_ne!(
            std::env::var("CI").as_deref(),
            Ok("true"),
            "in CI a component that is missing is a failure"
        );
        return;
    }
    let relying = Command::new(room.join("venv/bin/python"))
        .args(["relying.py", &server.url(), "token"])
        .current_dir(&room)
        .output()
        .unwrap();
    assert!(relying.status.success(), "{}", words(&relying));
    let claims: serde_json::Value = serde_json::from_slice(&relying.stdout).unwrap();
    // It was a change when it ran: it does not look like trunk.
    assert_eq!(claims["sub"], format!("project:shop:change:{change}:job:package"));
    assert_eq!((&claims["protected"], &claims["run"]), (&false.into(), &run.into()));
    assert!(
        claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap() <= 600,
        "no longer than the job"
    );
}
