//! HAProxy moves the users: the same story through it as through our router, and it or Andon killed in the middle.
//!
//! Needs HAProxy; without it the tests say SKIPPED, and fail where CI=true.

#![allow(clippy::print_stdout, reason = "a test says what it measured")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod support;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use support::{Repo, Server, of_type};

const HOST: &str = "web.production.shop.localhost";

const APP: &str = r#"
import sys, http.server, os, random
VERSION = "v1"
FAILS = 0.0
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        hurts = self.path != "/" and random.random() < FAILS
        body = VERSION.encode()
        self.send_response(500 if hurts else 200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"#;

const LINE: &str = r#"
version: 1
pipeline: { jobs: { package: { run: "mkdir dist && cp app.py dist/", artifact: dist } } }
services: { web: { command: [python3, app.py, $PORT], replicas: 2, health: / } }
environments: { production: { release: careful } }
releases: { careful: { canary: [ { weight: 20, for: 4s }, { weight: 50, for: 4s } ] } }
"#;

fn haproxy_is_there(test: &str) -> bool {
    let there = Command::new("haproxy").arg("-v").output().is_ok_and(|out| out.status.success());
    if !there {
        println!("SKIPPED: {test} (haproxy is not installed)");
        assert_ne!(
            std::env::var("CI").as_deref(),
            Ok("true"),
            "in CI a component that is missing is a failure"
        );
    }
    there
}

/// A HAProxy with the configuration that Andon prints.
struct HaProxy {
    config: PathBuf,
    port: u16,
    child: Option<Child>,
}

impl HaProxy {
    fn socket(server: &Server) -> PathBuf {
        server.room.path().join("haproxy.sock")
    }

    /// Starts it with what the server prints now.
    fn start(server: &Server) -> HaProxy {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let bind = format!("127.0.0.1:{port}");
        let socket = HaProxy::socket(server);
        let args = ["haproxy", "config", "--bind", &bind, "--socket", socket.to_str().unwrap()];
        let printed = server.cli(&args);
        assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
        let config = server.room.path().join("haproxy.cfg");
        std::fs::write(&config, printed.stdout).unwrap();
        let mut it = HaProxy { config, port, child: None };
        it.again();
        it
    }

    fn again(&mut self) {
        let out = std::fs::File::create(self.config.with_extension("out")).unwrap();
        let mut command = Command::new("haproxy");
        command.args(["-db", "-f"]).arg(&self.config).stdin(Stdio::null());
        self.child = Some(command.stderr(out.try_clone().unwrap()).stdout(out).spawn().unwrap());
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for HaProxy {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Status and revision of an answer; the cookie is kept as a browser keeps it.
fn ask(port: u16, path: &str, cookie: &mut Option<String>) -> (u16, String) {
    let config = ureq::Agent::config_builder().http_status_as_error(false).max_redirects(0);
    let agent: ureq::Agent = config.timeout_global(Some(Duration::from_secs(10))).build().into();
    let request = agent.get(format!("http://127.0.0.1:{port}{path}")).header("host", HOST);
    let request = match cookie {
        Some(cookie) => request.header("cookie", &*cookie),
        None => request,
    };
    let Ok(mut answer) = request.call() else { return (0, String::new()) };
    let text = |name: &str| {
        answer.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
    };
    let (set, revision) = (text("set-cookie"), text("x-andon-revision"));
    if let Some(set) = set.split(';').next().filter(|set| !set.is_empty()) {
        *cookie = Some(set.to_owned());
    }
    let _ = answer.body_mut().read_to_string();
    (answer.status().as_u16(), revision)
}

/// Users who come, stay for three requests and go, until told to stop: how many were hurt.
fn come_and_go(port: u16, stop: &AtomicBool, seen: &Mutex<(u64, u64)>) {
    while !stop.load(Ordering::SeqCst) {
        let mut cookie = None;
        for _ in 0..3 {
            let (status, _) = ask(port, "/page", &mut cookie);
            let mut seen = seen.lock().unwrap();
            seen.0 += u64::from(status != 200);
            seen.1 += 1;
            drop(seen);
            support::pass(5);
        }
    }
}

fn edit(repo: &Repo, from: &str, to: &str) {
    let text = repo.read("app.py");
    assert!(text.contains(from), "{text}");
    repo.write("app.py", &text.replace(from, to));
}

/// How each release ended, and its weights.
fn decisions(server: &Server) -> Vec<(String, Vec<u64>)> {
    let journal = server.journal();
    let mut all: BTreeMap<String, (String, Vec<u64>)> = BTreeMap::new();
    for event in &journal {
        let (kind, of) = (event["event"]["type"].as_str().unwrap_or_default(), &event["event"]);
        let entry = |all: &mut BTreeMap<String, (String, Vec<u64>)>| {
            all.entry(of["release"].to_string()).or_default().clone()
        };
        match kind {
            "weight_changed" => {
                let mut of_it = entry(&mut all);
                of_it.1.push(of["basis_points"].as_u64().unwrap());
                all.insert(of["release"].to_string(), of_it);
            }
            "release_finished" => {
                let mut of_it = entry(&mut all);
                of_it.0 = of["how"].as_str().unwrap().to_owned();
                all.insert(of["release"].to_string(), of_it);
            }
            _ => {}
        }
    }
    all.into_values().collect()
}

/// A server with a first version that serves everybody, through HAProxy or not.
fn house(through_haproxy: bool, line: &str) -> (Server, Repo, Option<HaProxy>) {
    let mut server = Server::fresh();
    server.patience = Duration::from_secs(120);
    if through_haproxy {
        server.kill();
        server.set("ANDON_HAPROXY", HaProxy::socket(&server).to_str().unwrap());
        server.start();
    }
    assert_eq!(server.post("/api/v1/projects", &serde_json::json!({ "name": "shop" })).0, 200);
    let repo = Repo::new(&server, &[("app.py", APP), ("andon.yaml", line)]);
    let first = repo.propose("Begin");
    server.served(first);
    let haproxy = through_haproxy.then(|| {
        let behind = server.cli(&["haproxy", "status"]);
        let said = String::from_utf8_lossy(&behind.stdout).into_owned();
        assert!(!behind.status.success() && said.contains("hint: is HAProxy running"), "{said}");
        let haproxy = HaProxy::start(&server);
        in_force(&server);
        haproxy
    });
    (server, repo, haproxy)
}

fn in_force(server: &Server) {
    let begun = std::time::Instant::now();
    while !server.cli(&["haproxy", "status"]).status.success() {
        let said = server.cli(&["haproxy", "status"]);
        assert!(begun.elapsed() < server.patience, "{}", String::from_utf8_lossy(&said.stdout));
        support::pause();
    }
}

/// A good change, then one that hurts: what was decided.
fn story(through_haproxy: bool) -> Vec<(String, Vec<u64>)> {
    let (server, repo, haproxy) = house(through_haproxy, LINE);
    let port = haproxy.as_ref().map_or(server.router, |haproxy| haproxy.port);
    let (stop, seen) = (AtomicBool::new(false), Mutex::new((0, 0)));
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| come_and_go(port, &stop, &seen));
        }
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            repo.follow();
            edit(&repo, "VERSION = \"v1\"", "VERSION = \"v2\"");
            server.served(repo.propose("Say v2"));
            let (hurt, of) = std::mem::take(&mut *seen.lock().unwrap());
            println!("a good change: {hurt} of {of} requests failed");
            assert!(hurt == 0 && of > 100, "{hurt} of {of}");
            repo.follow();
            edit(&repo, "FAILS = 0.0", "FAILS = 0.6");
            assert_eq!(server.decided(repo.propose("Hurt"))["row"]["standing"], "landed");
            server.until("it is taken back", "/releases", |view| {
                view["rows"].as_array().unwrap().iter().any(|row| row["state"] == "taken_back")
            });
            let (hurt, of) = std::mem::take(&mut *seen.lock().unwrap());
            println!("a bad change: {hurt} of {of} requests failed until it was taken back");
            assert!(hurt > 0 && hurt * 3 < of, "{hurt} of {of}");
            let why = server.journal();
            println!("{}", of_type(&why, "release_finished").pop().unwrap()["event"]["why"]);
            support::pass(1500);
            std::mem::take(&mut *seen.lock().unwrap());
            support::pass(1500);
            let (hurt, of) = *seen.lock().unwrap();
            assert!(hurt == 0 && of > 20, "{hurt} of {of} after it was taken back");
        }));
        stop.store(true, Ordering::SeqCst);
        if let Err(panic) = done {
            std::panic::resume_unwind(panic);
        }
    });
    decisions(&server)
}

#[test]
fn a_canary_through_haproxy_is_decided_as_one_through_our_router() {
    if !haproxy_is_there("a canary through HAProxy") {
        return;
    }
    let (ours, theirs) = (story(false), story(true));
    println!("{theirs:?}");
    let how = |all: &[(String, Vec<u64>)]| all.iter().map(|(how, _)| how.clone()).collect::<Vec<_>>();
    assert_eq!(how(&ours), how(&theirs));
    assert_eq!(how(&theirs), ["released", "released", "taken_back"]);
    assert_eq!(theirs[1].1, ours[1].1, "the same steps");
    assert!(theirs[1].1.ends_with(&[2000, 5000, 10_000]), "{theirs:?}");
    assert_eq!(theirs[2].1.last(), Some(&0), "{theirs:?}");
}

const SLOW: &str = r#"canary: [ { weight: 50, for: 1h }, { weight: 80, for: 1h } ]"#;

#[test]
fn users_keep_their_revision_when_haproxy_or_andon_is_killed() {
    if !haproxy_is_there("HAProxy killed") {
        return;
    }
    let line = LINE.replace("canary: [ { weight: 20, for: 4s }, { weight: 50, for: 4s } ]", SLOW);
    let (mut server, repo, haproxy) = house(true, &line);
    let mut haproxy = haproxy.unwrap();
    let port = haproxy.port;
    repo.follow();
    edit(&repo, "VERSION = \"v1\"", "VERSION = \"v2\"");
    repo.propose("Say v2");
    server.until("half of the users are moved", "/releases", |view| {
        view["rows"].as_array().unwrap().iter().any(|row| row["weight_bp"] == 5000)
    });
    in_force(&server);
    let mut users: Vec<(Option<String>, String)> = (0..60)
        .map(|_| {
            let mut cookie = None;
            let (status, revision) = ask(port, "/", &mut cookie);
            assert_eq!(status, 200);
            (cookie, revision)
        })
        .collect();
    let mut revisions: Vec<String> = users.iter().map(|(_, revision)| revision.clone()).collect();
    revisions.sort();
    revisions.dedup();
    assert_eq!(revisions.len(), 2, "{revisions:?}");
    let flips = |users: &mut Vec<(Option<String>, String)>| {
        let same = |(cookie, revision): &mut (Option<String>, String)| {
            let answer = ask(port, "/", cookie);
            (answer != (200, revision.clone())).then_some((answer, revision.clone()))
        };
        users.iter_mut().filter_map(same).collect::<Vec<_>>()
    };
    assert_eq!(flips(&mut users), []);

    // Its memory is lost: told again from the journal.
    haproxy.kill();
    server.until("Andon says that it is gone", "/releases/2", |view| {
        view["sentence"].as_str().unwrap().contains("HAProxy is behind")
    });
    haproxy.again();
    in_force(&server);
    assert_eq!(flips(&mut users), [], "after HAProxy was killed");

    // Andon gone: nobody notices. Back: nothing is done anew.
    server.kill();
    assert_eq!(flips(&mut users), [], "while Andon is away");
    server.start();
    in_force(&server);
    assert_eq!(flips(&mut users), [], "after Andon was killed");

    // On the ramp nobody goes back.
    assert!(server.cli(&["release", "promote", "R2"]).status.success());
    server.until("more users are moved", "/releases", |view| {
        view["rows"].as_array().unwrap().iter().any(|row| row["weight_bp"] == 8000)
    });
    in_force(&server);
    let old = {
        let journal = server.journal();
        of_type(&journal, "release_started").pop().unwrap()["event"]["from"].as_str().unwrap().to_owned()
    };
    let moved = flips(&mut users);
    assert!(!moved.is_empty() && moved.iter().all(|(_, was)| *was == old), "{moved:?}");

    // Instances of the old revision go once nobody is under way to them.
    assert!(server.cli(&["release", "promote", "R2"]).status.success());
    server.until("all users are moved", "/releases", |view| {
        view["rows"].as_array().unwrap().iter().any(|row| row["state"] == "released" && row["id"] == "R2")
    });
    in_force(&server);
    users.iter_mut().for_each(|(cookie, _)| {
        let (status, revision) = ask(port, "/", cookie);
        assert!(status == 200 && revision != old, "{status} {revision}");
    });
}
