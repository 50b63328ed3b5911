//! Backup, restore and the disaster drill on the real binary. Told in given, when, then.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

mod support;

use serde_json::Value;
use support::{HELLO, LINE, Server};

fn said(out: &std::process::Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

#[test]
fn everything_comes_back_from_a_backup_on_an_empty_machine() {
    // Given a line that serves, with a flag, and a backup brought elsewhere
    let (mut server, repo) = Server::with_project(&[("andon.yaml", LINE), ("app.py", HELLO)]);
    server.served(repo.propose("Begin"));
    assert!(server.cli(&["flag", "create", "gifts"]).status.success());
    let away = tempfile::tempdir().unwrap();
    let file = away.path().join("shop.tar");
    let out = server.cli(&["backup", "--to", file.to_str().unwrap()]);
    assert!(out.status.success(), "{}", said(&out));
    let before = server.journal().len();
    let key = away.path().join("key");
    std::fs::copy(server.room.path().join("data/key"), &key).unwrap();
    // When the machine is lost: the server, its data and everything that ran
    server.lose_everything();
    let data = server.room.path().join("data");
    let out = server.cli(&[
        "restore",
        file.to_str().unwrap(),
        "--data",
        data.to_str().unwrap(),
        "--key",
        key.to_str().unwrap(),
    ]);
    assert!(out.status.success(), "{}", said(&out));
    server.start();
    // Then production serves what it served, the journal is whole, and the line goes on
    server.until("production is back", "/environments/production", |view| view["row"]["instances"] == 2);
    assert!(server.visit("web.production.shop.localhost", "/").1.starts_with("v1"));
    assert!(server.journal().len() > before, "nothing is lost of {before} events");
    assert!(server.get("/api/v1/shop/flags").1.to_string().contains("gifts"));
    repo.follow();
    repo.write("app.py", &HELLO.replace("\"v1\"", "\"v2\""));
    server.served(repo.propose("After the loss"));
    assert!(server.visit("web.production.shop.localhost", "/").1.starts_with("v2"));
}

#[test]
fn a_drill_makes_everything_again_beside_what_runs_and_leaves_nothing() {
    let (server, repo) = Server::with_project(&[("andon.yaml", LINE), ("app.py", HELLO)]);
    server.served(repo.propose("Begin"));
    let out = server.cli(&["drill", "--json"]);
    assert!(out.status.success(), "{}", said(&out));
    let drill: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!((&drill["environments"], &drill["instances"]), (&2.into(), &3.into()), "{drill}");
    assert!(drill["served"].as_str().is_some(), "{drill}");
    assert!(server.visit("web.production.shop.localhost", "/").1.starts_with("v1"), "users notice nothing");
    let left: Vec<_> = std::fs::read_dir(server.room.path().join("data/drills")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    let processes = std::process::Command::new("pgrep").args(["-f", "data/drills/"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&processes.stdout), "", "processes of the drill live on");
    let out = server.cli(&["recovery"]);
    assert!(out.status.success() && said(&out).contains("went well"), "{}", said(&out));
}

#[test]
fn a_damaged_backup_is_refused_and_nothing_is_made_of_it() {
    let (server, repo) = Server::with_project(&[("andon.yaml", LINE), ("app.py", HELLO)]);
    server.served(repo.propose("Begin"));
    let away = tempfile::tempdir().unwrap();
    let (good, bad) = (away.path().join("good.tar"), away.path().join("bad.tar"));
    assert!(server.cli(&["backup", "--to", good.to_str().unwrap()]).status.success());
    let whole = std::fs::read(&good).unwrap();
    let out = server.cli(&["restore", good.to_str().unwrap(), "--check"]);
    assert!(out.status.success(), "{}", said(&out));
    let into = away.path().join("new");
    let mut flipped = whole.clone();
    // Somewhere in the last blob.
    let last = flipped.iter().rposition(|byte| *byte != 0).unwrap();
    flipped[last] ^= 1;
    for (bytes, what) in
        [(&whole[..whole.len() / 2], "half"), (&flipped[..], "a bit"), (&b"no tar"[..], "text")]
    {
        std::fs::write(&bad, bytes).unwrap();
        let out = server.cli(&["restore", bad.to_str().unwrap(), "--data", into.to_str().unwrap()]);
        assert!(!out.status.success() && said(&out).contains("hint:"), "{what}: {}", said(&out));
        assert!(!into.exists(), "{what}: something was made of it");
    }
    // A directory that is in use is not touched.
    let data = server.room.path().join("data");
    let out = server.cli(&["restore", good.to_str().unwrap(), "--data", data.to_str().unwrap()]);
    assert!(said(&out).contains("is not empty"), "{}", said(&out));
}
