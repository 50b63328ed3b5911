//! Environments over their life: what a person asks of them, and how they hold against each other. Told in given, when, then.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

mod support;

use serde_json::Value;
use support::{HELLO, LINE, Server};

fn said(out: &std::process::Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

fn healthy(view: &Value) -> usize {
    let instances = view["services"][0]["instances"].as_array().cloned().unwrap_or_default();
    instances.iter().filter(|instance| instance["mark"] == "go").count()
}

#[test]
fn a_change_is_shown_in_an_environment_of_its_own_that_did_not_land() {
    // Given a change that is packaged and then red, and therefore cannot land
    let strict = "    package: { run: \"mkdir dist && cp app.py dist/\", artifact: dist }
    taste: { needs: [package], run: \"! grep -q v2 app.py\" }";
    let line =
        LINE.replace("    package: { run: \"mkdir dist && cp app.py dist/\", artifact: dist }", strict);
    assert_ne!(line, LINE);
    let (server, repo) = Server::with_project(&[("andon.yaml", &line), ("app.py", HELLO)]);
    server.served(repo.propose("Begin"));
    repo.follow();
    repo.write("app.py", &HELLO.replace("\"v1\"", "\"v2\""));
    let change = repo.propose("A new greeting");
    server.decided(change);
    // When somebody asks for an environment that shows it
    let out = server.cli(&["env", "create", "--change", &change.to_string(), "--ttl", "2h", "--wait"]);
    assert!(out.status.success(), "{}", said(&out));
    // Then it serves there, production serves what it did, and the environment ends with the change
    let name = format!("change-{change}");
    assert!(server.visit(&format!("web.{name}.shop.localhost"), "/").1.starts_with("v2"));
    assert!(server.visit("web.production.shop.localhost", "/").1.starts_with("v1"));
    assert_eq!(server.cli(&["change", "abandon", &change.to_string()]).status.code(), Some(0));
    server.until("it is gone", "/environments", |view| !view["rows"].to_string().contains(&name));
}

#[test]
fn instances_follow_what_a_person_says_and_then_code_again() {
    let (server, repo) = Server::with_project(&[("andon.yaml", LINE), ("app.py", HELLO)]);
    server.served(repo.propose("Begin"));
    let before = healthy(&server.view("/environments/production"));
    let scale = |to: &str| server.cli(&["env", "scale", "production", "web", to]);
    assert!(scale("4").status.success());
    server.until("four run", "/environments/production", |view| healthy(view) == 4);
    assert!(said(&scale("0")).contains("1 to 64"));
    // What a person said is a difference from staging, on show with its number.
    let out = server.cli(&["env", "diff", "staging", "production"]);
    assert!(said(&out).contains("shape web replicas: staging 1 | production 4"), "{}", said(&out));
    assert!(scale("as-code").status.success());
    server.until("as code says", "/environments/production", |view| healthy(view) == before);
    assert!(server.visit("web.production.shop.localhost", "/").1.starts_with("v1"));
}

#[test]
fn what_differs_between_two_environments_is_told_and_what_may_differ_has_a_reason() {
    // Given a staging that is smaller than production
    let (server, repo) = Server::with_project(&[("andon.yaml", LINE), ("app.py", HELLO)]);
    server.served(repo.propose("Begin"));
    // When the two are held against each other, then the difference is told
    let out = server.cli(&["env", "diff", "staging", "production"]);
    assert_eq!(out.status.code(), Some(1), "{}", said(&out));
    assert!(said(&out).contains("shape web replicas: staging 1 | production 2"), "{}", said(&out));
    // When the team says why it may be, then nothing is left unexplained
    let allowed =
        "replicas: 1, differs: [{ what: shape web replicas, why: it costs half, until: 2999-01-31 }]";
    repo.follow();
    repo.write("andon.yaml", &LINE.replace("replicas: 1", allowed));
    server.decided(repo.propose("Say why"));
    server.until("they are alike but for that", "/environments/staging/diff/production", |view| {
        view["percent"] == 100
            && view["rows"][0]["allowed"].as_str().is_some_and(|a| a.contains("it costs half"))
    });
    // When a flag is opened in one of them only, then that is told as well
    let flags = r#"{ "flags": { "gifts": { "state": "ENABLED", "variants": { "on": true, "off": false }, "defaultVariant": "off",
        "targeting": { "if": [{ "==": [{ "var": "environment" }, "staging"] }, "on", null] } } } }"#;
    let file = server.room.path().join("flags.json");
    std::fs::write(&file, flags).unwrap();
    assert!(server.cli(&["flag", "import", file.to_str().unwrap()]).status.success());
    let out = server.cli(&["env", "diff", "staging", "production"]);
    assert!(said(&out).contains("flags gifts: staging on | production off"), "{}", said(&out));
    // And an environment that is not there is named
    let out = server.cli(&["env", "diff", "staging", "nowhere"]);
    assert!(said(&out).contains("no environment nowhere"), "{}", said(&out));
}

#[test]
fn a_held_environment_takes_nothing_new_until_it_is_let_go() {
    let (server, repo) = Server::with_project(&[("andon.yaml", LINE), ("app.py", HELLO)]);
    server.served(repo.propose("Begin"));
    repo.follow();
    assert!(server.cli(&["env", "hold", "production", "--why", "fair on Friday"]).status.success());
    repo.write("app.py", &HELLO.replace("\"v1\"", "\"v2\""));
    server.decided(repo.propose("Second"));
    server.until("staging has it", "/environments/staging", |_| {
        server.visit("web.staging.shop.localhost", "/").1.starts_with("v2")
    });
    let view = server.view("/environments/production");
    assert!(view["notes"][0].as_str().unwrap().contains("fair on Friday"), "{view}");
    assert!(server.visit("web.production.shop.localhost", "/").1.starts_with("v1"));
    assert!(server.cli(&["env", "unhold", "production"]).status.success());
    server.until("production has it", "/environments/production", |_| {
        server.visit("web.production.shop.localhost", "/").1.starts_with("v2")
    });
}

#[test]
fn an_environment_that_nobody_uses_sleeps_and_the_first_request_wakes_it() {
    let sleepy = LINE.replace("staging: { like: production", "staging: { like: production, sleep_after: 2s");
    let (server, repo) = Server::with_project(&[("andon.yaml", &sleepy), ("app.py", HELLO)]);
    server.served(repo.propose("Begin"));
    server.until("staging sleeps", "/environments/staging", |view| {
        view["row"]["instances"] == 0
            && view["services"][0]["instances"].as_array().is_some_and(Vec::is_empty)
    });
    let (status, body) = server.visit("web.staging.shop.localhost", "/");
    assert_eq!((status, body.starts_with("v1")), (200, true), "the first request waited and was answered");
    assert!(healthy(&server.view("/environments/staging")) >= 1);
}

#[test]
fn production_is_not_deployed_to_before_staging_had_the_same() {
    let manual = LINE.replace("staging: { like: production", "staging: { like: production, deploy: manual");
    let (server, repo) = Server::with_project(&[("andon.yaml", &manual), ("app.py", HELLO)]);
    server.decided(repo.propose("Begin"));
    server.until("production is there", "/environments", |view| {
        view["rows"].as_array().map_or(0, Vec::len) == 2
    });
    let out = server.cli(&["env", "deploy", "production"]);
    assert!(said(&out).contains("staging has not released"), "{}", said(&out));
    assert!(server.cli(&["env", "deploy", "staging"]).status.success());
    server.until("it went through", "/environments/production", |_| {
        server.visit("web.production.shop.localhost", "/").1.starts_with("v1")
    });
}
