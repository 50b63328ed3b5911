//! Real input: a published Flask service with its own tests, as its authors packed it, goes down the whole line: tested, packed with its
//! dependencies, deployed to two environments, released by canary under load, and taken back when a change hurts its users.
//!
//! Needs PyPI. Without it the test says SKIPPED, and fails where CI=true.

#![allow(clippy::print_stdout, reason = "a test says what it measured")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod support;

use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use support::{Repo, Server, of_type};

/// The newest release whose source distribution builds with Python 3.11.
const HTTPBIN: &str = "httpbin==0.10.2";
const HOST: &str = "web.production.shop.localhost";

/// Users who come, stay for three requests and go.
#[derive(Default)]
struct Users {
    stop: AtomicBool,
    asked: AtomicU64,
    hurt: AtomicU64,
    words: Mutex<Vec<u16>>,
}

impl Users {
    fn come_and_go(&self, server: &Server) {
        while !self.stop.load(Ordering::SeqCst) {
            let mut cookie = None;
            for path in ["/status/200", "/get", "/status/200"] {
                let status = server.user(HOST, path, &mut cookie);
                // People think between two clicks; the jobs beside them need the machine too.
                support::pass(10);
                self.asked.fetch_add(1, Ordering::SeqCst);
                if status != 200 {
                    self.hurt.fetch_add(1, Ordering::SeqCst);
                    self.words.lock().unwrap().push(status);
                }
            }
        }
    }

    /// How many were hurt of how many asked since last time.
    fn since(&self) -> (u64, u64) {
        (self.hurt.swap(0, Ordering::SeqCst), self.asked.swap(0, Ordering::SeqCst))
    }
}

/// The source distribution, unpacked into the repository. False: it cannot be had.
fn fetch(server: &Server, repo: &Repo) -> bool {
    let room = server.room.path().join("pypi");
    std::fs::create_dir(&room).unwrap();
    let pip = ["-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", "--dest", "."];
    let got = Command::new("python3").args(pip).arg(HTTPBIN).current_dir(&room).output().unwrap();
    if !got.status.success() {
        eprintln!("{}", String::from_utf8_lossy(&got.stderr));
        return false;
    }
    let file = std::fs::read_dir(&room).unwrap().flatten().next().unwrap().path();
    let unpacked = Command::new("tar")
        .args(["--strip-components=1", "--no-same-owner", "-xzf"])
        .arg(file)
        .arg("-C")
        .arg(&repo.dir)
        .status()
        .unwrap();
    unpacked.success()
}

/// Replaces a text that must be there.
fn edit(repo: &Repo, file: &str, from: &str, to: &str) {
    let text = std::fs::read_to_string(repo.dir.join(file)).unwrap();
    assert!(text.contains(from), "{from:?} is not in {file}:\n{text}");
    repo.write(file, &text.replacen(from, to, 1));
}

/// The file without the tests that mention something.
fn without_tests(text: &str, of: &str) -> String {
    let mut parts = text.split("\n    def test_");
    let head = parts.next().unwrap().to_owned();
    parts.filter(|test| !test.contains(of)).fold(head, |text, test| text + "\n    def test_" + test)
}

#[test]
fn httpbin_goes_down_the_line() {
    down_the_line("httpbin down the line", None);
}

/// On an image that holds the Python of this machine and nothing else: no registry is asked.
#[test]
fn httpbin_goes_down_the_line_in_containers() {
    let test = "httpbin down the line in containers";
    let image = format!("andon-test-python:{}", std::process::id());
    let maker = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tools/python-image");
    let made = Command::new(maker).arg(&image).output().unwrap();
    if !made.status.success() {
        return skipped(test, String::from_utf8_lossy(&made.stderr).trim());
    }
    println!("{}", String::from_utf8_lossy(&made.stdout).trim());
    let done = std::panic::catch_unwind(|| down_the_line(test, Some(&image)));
    let _ = Command::new("docker").args(["rmi", "-f", &image]).output();
    if let Err(panic) = done {
        std::panic::resume_unwind(panic);
    }
}

fn skipped(test: &str, why: &str) {
    println!("SKIPPED: {test} ({why})");
    assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "in CI a component that is missing is a failure");
}

fn down_the_line(test: &str, image: Option<&str>) {
    let mut server = Server::fresh();
    server.patience = Duration::from_secs(180);
    let repo = Repo::new(&server, &[]);
    if !fetch(&server, &repo) {
        return skipped(test, "PyPI cannot be reached");
    }
    // The file that is proposed is taken as it is, but for the pace of the canary: minutes become seconds.
    let init = server.cli_in(&repo.dir, &["init"]);
    let said = String::from_utf8_lossy(&init.stdout);
    assert!(
        init.status.success() && said.contains("wrote andon.yaml"),
        "{said}{}",
        String::from_utf8_lossy(&init.stderr)
    );
    println!("{said}");
    assert_eq!(
        repo.read("andon.yaml"),
        include_str!("../../../examples/httpbin/andon.yaml"),
        "the example is what is proposed"
    );
    edit(
        &repo,
        "andon.yaml",
        "[ { weight: 5, for: 1m }, { weight: 25, for: 2m }, { weight: 50, for: 2m } ]",
        "[ { weight: 20, for: 4s }, { weight: 50, for: 4s } ]",
    );
    if let Some(image) = image {
        edit(
            &repo,
            "andon.yaml",
            "    command: [\"python3\"",
            &format!("    image: {image}\n    command: [\"python3\""),
        );
        edit(&repo, "andon.yaml", "  production: {", "  production: { runtime: docker,");
    }
    let first = repo.propose("Put httpbin on the line");
    server.served(first);
    let journal = server.journal();
    let run = &of_type(&journal, "run_finished")[0]["event"];
    println!("first run: {} tests, coverage {}", run["tests"], run["coverage"]);
    assert!(run["tests"]["passed"].as_u64().unwrap() > 60, "{run}");
    assert!(run["coverage"]["covered"].as_u64().unwrap() > 300, "{run}");
    assert!(of_type(&journal, "drift_seen").is_empty(), "{:#?}", of_type(&journal, "drift_seen"));
    let healthy = of_type(&journal, "instance_healthy").len();
    assert_eq!(healthy, 3, "one in staging, two in production");
    let digests: Vec<_> =
        of_type(&journal, "deployment_started").iter().map(|e| e["event"]["artifact"].clone()).collect();
    assert!(digests.len() == 2 && digests[0] == digests[1], "{digests:?}");

    let users = Users::default();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| users.come_and_go(&server));
        }
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| story(&server, &repo, &users)));
        users.stop.store(true, Ordering::SeqCst);
        if let Err(panic) = done {
            std::panic::resume_unwind(panic);
        }
    });
}

fn story(server: &Server, repo: &Repo, users: &Users) {
    // A good change moves by canary, and nobody notices.
    repo.follow();
    let answer = "        return status_code(code)\n";
    let marked = "        answer = status_code(code)\n        answer.headers[\"x-line\"] = \"second\"\n        return answer\n";
    edit(repo, "httpbin/core.py", answer, marked);
    let second = repo.propose("Mark the answers of /status");
    server.served(second);
    let journal = server.journal();
    let weights: Vec<u64> = of_type(&journal, "weight_changed")
        .iter()
        .map(|e| e["event"]["basis_points"].as_u64().unwrap())
        .collect();
    let (hurt, asked) = users.since();
    println!("a good change: {hurt} of {asked} requests failed; weights {weights:?}");
    assert!(weights.ends_with(&[2000, 5000, 10000]), "{weights:?}");
    assert_eq!(hurt, 0, "{:?}", users.words.lock().unwrap());

    // A change that takes its test away does not even land: the limits on coverage see it.
    repo.follow();
    let lucky = "        if random.random() < 0.5:\n            raise RuntimeError(\"out of luck\")\n        answer = status_code(code)\n";
    edit(repo, "httpbin/core.py", "        answer = status_code(code)\n", lucky);
    let tests = std::fs::read_to_string(repo.dir.join("tests/test_httpbin.py")).unwrap();
    repo.write("tests/test_httpbin.py", &without_tests(&tests, "/status/"));
    let naked = server.decided(repo.propose("Try one's luck, without tests"));
    println!("without its test: {}", naked["row"]["words"]);
    assert_eq!(naked["row"]["standing"], "refused");
    assert!(
        naked["row"]["words"].as_str().unwrap().contains("added lines ran in tests"),
        "{}",
        naked["row"]["words"]
    );

    // One that hurts only where users are passes every test, and is taken back.
    repo.follow();
    let hidden = "        answer = status_code(code)\n        random.random() < 0.5 and os.environ.get(\"ANDON_ENVIRONMENT\") == \"production\" and 1 / 0\n";
    edit(repo, "httpbin/core.py", "        answer = status_code(code)\n", hidden);
    users.since();
    let third = repo.propose("Try one's luck where nobody looks");
    assert_eq!(server.decided(third)["row"]["standing"], "landed");
    let taken = |view: &serde_json::Value| {
        view["rows"].as_array().is_some_and(|rows| rows.iter().any(|row| row["open"] == true))
    };
    server.until("the release is taken back and the line stopped", "/andons", taken);
    let (hurt, asked) = users.since();
    println!("a bad change: {hurt} of {asked} requests failed until it was taken back");
    assert!(hurt > 0 && hurt * 4 < asked, "{hurt} of {asked}");
    let journal = server.journal();
    let ended = of_type(&journal, "release_finished").pop().unwrap()["event"].clone();
    assert_eq!(ended["how"], "taken_back", "{ended}");
    println!("the immune system: {}", ended["why"]);
    // From then on nobody is hurt.
    support::pass(300);
    users.since();
    support::pass(2000);
    let (hurt, asked) = users.since();
    assert!(hurt == 0 && asked > 20, "{hurt} of {asked} after it was taken back");
}
