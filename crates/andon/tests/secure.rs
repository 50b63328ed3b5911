//! Users over TLS: a certificate is ordered by itself at a real authority, shown to who asks for its host, and HTTP/2 is spoken.
//!
//! Needs pebble and curl; without them it says SKIPPED, and fails where CI=true.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

mod support;

use std::net::TcpListener;
use std::process::Command;

use andon_testkit::pebble::Pebble;
use support::{HELLO, Repo, Server};

const LINE: &str = r#"
version: 1
pipeline: { jobs: { package: { run: "mkdir dist && cp app.py dist/", artifact: dist } } }
services: { web: { command: [python3, app.py, $PORT], health: /, hosts: [shop.example] } }
environments: { production: { release: all-at-once } }
"#;

fn free() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn a_host_of_production_has_a_certificate_by_itself_and_keeps_it_over_a_restart() {
    let mut server = Server::fresh();
    let Some(pebble) = Pebble::looking_at(Some(server.router)) else { return };
    let port = free();
    server.set("ANDON_TLS", &format!("127.0.0.1:{port}"));
    server.set("ANDON_ACME", &pebble.directory);
    server.set("ANDON_ACME_ROOT", pebble.root.to_str().unwrap());
    server.set("ANDON_ACME_CONTACT", "mailto:ops@shop.example");
    server.set("ANDON_ACCESS_LOG", server.room.path().join("access.log").to_str().unwrap());
    server.kill();
    server.start();
    assert_eq!(server.post("/api/v1/projects", &serde_json::json!({ "name": "shop" })).0, 200);
    let repo = Repo::new(&server, &[("andon.yaml", LINE), ("app.py", HELLO)]);
    server.served(repo.propose("Begin"));

    let root = server.room.path().join("root.pem");
    let curl =
        |args: &[&str]| Command::new("curl").args(["-sS", "--max-time", "10"]).args(args).output().unwrap();
    let roots = curl(&["--cacert", pebble.root.to_str().unwrap(), &pebble.roots()]);
    std::fs::write(&root, &roots.stdout).unwrap();
    let visit = |host: &str| {
        let leads = format!("{host}:{port}:127.0.0.1");
        let out = curl(&[
            "--cacert",
            root.to_str().unwrap(),
            "--resolve",
            &leads,
            "-w",
            " %{http_version}",
            &format!("https://{host}:{port}/"),
        ]);
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    let seen = |says: &str| {
        let begun = std::time::Instant::now();
        loop {
            let said = visit("shop.example");
            if said.starts_with(says) {
                return said;
            }
            assert!(begun.elapsed() < server.patience, "never {says}: {said:?} {}", server.stderr());
            support::pause();
        }
    };
    // Then who believes the authority is let in, and speaks HTTP/2.
    assert!(seen("v1").ends_with(" 2"), "{}", visit("shop.example"));
    assert!(!visit("other.example").starts_with("v1"), "nobody is shown a certificate of somebody else");
    let log = server.room.path().join("access.log");
    support_until(|| std::fs::read_to_string(&log).is_ok_and(|text| text.contains("shop.example")));

    // And the certificate outlives the server, without another order.
    drop(pebble);
    server.kill();
    server.start();
    let begun = std::time::Instant::now();
    while !visit("shop.example").starts_with("v1") {
        assert!(begun.elapsed() < server.patience, "{}", server.stderr());
        support::pause();
    }
}

fn support_until(so: impl Fn() -> bool) {
    let begun = std::time::Instant::now();
    while !so() {
        assert!(begun.elapsed().as_secs() < 60, "never written");
        support::pause();
    }
}
