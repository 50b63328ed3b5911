//! The output of jobs: kept packed, opened where it fails, searched, followed; on the real binary.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod support;

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use support::Server;

const YAML: &str = r#"
version: 1
pipeline:
  jobs:
    loud:
      steps:
        - { name: prepare, run: "echo '::group::Install'; echo one; echo '::endgroup::'; printf '\\033[32mgreen\\033[0m\\n'" }
        - { name: tests, run: "i=0; while [ $i -lt 30000 ]; do echo \"line $i is fine\"; i=$((i+1)); done; echo 'FAILED tests::late'; echo after; exit 1" }
    waits:
      run: echo begun; while [ ! -e "$HOME/go" ]; do sleep 0.05; done; echo done
"#;

fn page(server: &Server, path: &str) -> String {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let request = agent
        .get(format!("{}{path}", server.url()))
        .header("authorization", format!("Bearer {}", server.token));
    request.call().unwrap().body_mut().with_config().limit(8 << 20).read_to_string().unwrap()
}

#[test]
fn a_red_jobs_output_opens_where_it_fails_and_every_line_of_it_is_found() {
    let (server, repo) = Server::with_project(&[("andon.yaml", &YAML[..YAML.find("    waits:").unwrap()])]);
    server.decided(repo.propose("Be loud"));
    // Then its page begins just before the failing line, in small,
    let shown = page(&server, "/shop/runs/1/loud");
    assert!(
        shown.contains("Fails first at line") && shown.contains("<span>FAILED tests::late</span>"),
        "{shown}"
    );
    assert!(!shown.contains("line 29000 is fine") && shown.len() < 400_000);
    // Its beginning has what was grouped and coloured,
    let begin = page(&server, "/shop/runs/1/loud?at=0&line=1");
    assert!(begin.contains("<b>Install</b>") && begin.contains("<span class=\"c2\">green</span>"), "{begin}");
    assert!(begin.contains("<h3 class=\"step\">tests</h3>"));
    // Any line has an address, and what is looked for is found with its line.
    assert!(page(&server, "/shop/runs/1/loud?line=15000").contains("id=\"L15000\""));
    let found = page(&server, "/shop/runs/1/loud?find=line+12345+");
    assert!(found.contains("One line holds") && found.contains("?line=12350#L12350"), "{found}");
    // The terminal says the same.
    let out = server.cli(&["run", "log", "1", "loud", "--grep", "tests::late"]);
    assert_eq!(String::from_utf8_lossy(&out.stdout), "30005: FAILED tests::late\n");
    assert_eq!(server.cli(&["run", "log", "1", "loud", "--grep", "nowhere"]).status.code(), Some(1));
    let whole = server.cli(&["run", "log", "1", "loud"]);
    assert_eq!(String::from_utf8_lossy(&whole.stdout).lines().count(), 30_006);
    // What is kept of it is a part of what it was.
    let kept: u64 = walk(&server.room.path().join("data/blobs"));
    assert!(kept < whole.stdout.len() as u64 / 3, "{kept} of {}", whole.stdout.len());
}

fn walk(dir: &std::path::Path) -> u64 {
    let mut sum = 0;
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let meta = entry.metadata().unwrap();
        sum += if meta.is_dir() { walk(&entry.path()) } else { meta.len() };
    }
    sum
}

#[test]
fn a_growing_output_is_followed_to_its_end() {
    let waits = format!("version: 1\npipeline:\n  jobs:\n{}", &YAML[YAML.find("    waits:").unwrap()..]);
    let (server, repo) = Server::with_project(&[("andon.yaml", &waits)]);
    let change = repo.propose("Wait");
    server.until("it runs", "/runs/1", |run| run["jobs"][0]["mark"] == "live");
    // When somebody follows it while it runs,
    let mut child = server.cli_with(&["run", "log", "1", "waits", "--follow"], Stdio::null());
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "begun");
    let home = server.room.path().join("data/jobs/shop/home");
    std::fs::write(home.join("go"), "").unwrap();
    // Then they see its end, and that it is the end.
    assert_eq!(lines.next().unwrap().unwrap(), "done");
    assert!(lines.next().is_none());
    assert!(child.wait().unwrap().success());
    assert_eq!(server.decided(change)["row"]["standing"], "landed");
}
