//! A server of one's own for a test: the real binary on free ports with an empty data directory, a repository beside it, and the words
//! that end-to-end tests are written in. Holds no assertions about the product itself.

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::print_stdout, reason = "a test says what it measured")]
#![allow(clippy::unwrap_used, reason = "a harness that cannot go on stops the test")]

pub mod example;

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How long anything that should happen may take: far beyond what it takes, so that only what never happens fails.
const PATIENCE: Duration = Duration::from_secs(90);

/// The binary under test; `ANDON_BIN` puts another in its place, as figures do with the release build.
pub fn andon() -> String {
    std::env::var("ANDON_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_andon").to_owned())
}

/// A server with its data.
pub struct Server {
    pub room: tempfile::TempDir,
    pub http: u16,
    pub router: u16,
    pub token: String,
    /// From the start of the process to its words that it is ready, the last time.
    pub ready_in: Duration,
    /// How long anything that should happen may take.
    pub patience: Duration,
    child: Option<Child>,
    once: Option<String>,
    agent: ureq::Agent,
    env: Vec<(String, String)>,
}

/// Speaks with the server from a thread of its own; the server may go and come meanwhile.
#[derive(Clone)]
pub struct Hand {
    url: String,
    token: String,
    agent: ureq::Agent,
}

impl Hand {
    /// Reads; as [`Hand::post`].
    pub fn get(&self, path: &str) -> (u16, Value) {
        let request = self.agent.get(format!("{}{path}", self.url));
        read(request.header("authorization", format!("Bearer {}", self.token)).call())
    }

    /// Status and answer; status 0 when the server could not be spoken to or went away.
    pub fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let request = self.agent.post(format!("{}{path}", self.url));
        read(request.header("authorization", format!("Bearer {}", self.token)).send_json(body))
    }
}

/// A service that says its version, for tests about the line and not about services.
pub const HELLO: &str = r#"
import sys, http.server, os
VERSION = "v1"
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = (VERSION + " " + os.environ.get("ANDON_INSTANCE", "")).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"#;

/// Two environments and a quick canary for [`HELLO`].
pub const LINE: &str = r#"
version: 1
pipeline:
  jobs:
    package: { run: "mkdir dist && cp app.py dist/", artifact: dist }
services:
  web: { command: [python3, app.py, $PORT], replicas: 2, health: / }
environments:
  staging: { like: production, replicas: 1, release: all-at-once }
  production: { release: careful }
releases:
  careful: { canary: [ { weight: 50, for: 1s } ] }
"#;

/// A port that nobody uses at this moment, outside of the range from which outgoing connections get theirs: while a server is down between
/// kill and start, nobody may happen to be given its port.
fn free_port() -> u16 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    loop {
        let port = 10_000 + (RandomState::new().build_hasher().finish() % 10_000) as u16;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

impl Server {
    /// Given a fresh server whose owner is logged in.
    pub fn fresh() -> Server {
        let room = tempfile::tempdir().unwrap();
        let config = ureq::Agent::config_builder().http_status_as_error(false).max_redirects(0).build();
        let (http, router) = (free_port(), free_port());
        let mut server = Server {
            room,
            http,
            router,
            token: String::new(),
            ready_in: Duration::ZERO,
            patience: PATIENCE,
            child: None,
            once: None,
            agent: config.into(),
            env: Vec::new(),
        };
        server.start();
        let once = server.once.clone().unwrap();
        let entered = server.post_as("", "/api/v1/enter", &json!({ "once": once }));
        let session = entered.1["token"].as_str().unwrap().to_owned();
        let issued =
            server.post_as(&session, "/api/v1/tokens", &json!({ "name": "test", "roles": ["owner"] }));
        server.token = issued.1["token"].as_str().unwrap().to_owned();
        server
    }

    /// Given also a project and a repository with these files, and its remote.
    pub fn with_project(files: &[(&str, &str)]) -> (Server, Repo) {
        let server = Server::fresh();
        let made = server.post("/api/v1/projects", &json!({ "name": "shop" }));
        assert_eq!(made.0, 200, "{}", made.1);
        let repo = Repo::new(&server, files);
        (server, repo)
    }

    /// Starts the binary on the same data and ports; returns when it says that it is ready.
    pub fn start(&mut self) {
        self.begin(false);
    }

    fn begin(&mut self, take_over: bool) {
        let begun = Instant::now();
        let mut child = Command::new(andon())
            .args([
                "serve",
                "--listen",
                &format!("127.0.0.1:{}", self.http),
                "--router",
                &format!("127.0.0.1:{}", self.router),
                "--data",
            ])
            .arg(self.room.path().join("data"))
            .args(take_over.then_some("--take-over"))
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(
                std::fs::File::options()
                    .create(true)
                    .append(true)
                    .open(self.room.path().join("stderr"))
                    .unwrap(),
            )
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = lines.next().and_then(Result::ok).unwrap_or_default();
        if !ready.contains("is ready") {
            let _ = child.wait();
            panic!(
                "the server did not start: {}",
                std::fs::read_to_string(self.room.path().join("stderr")).unwrap_or_default()
            );
        }
        self.ready_in = begun.elapsed();
        let rest: Vec<String> = lines.by_ref().take(2).map_while(Result::ok).collect();
        self.once =
            rest.iter().find_map(|line| line.split_once("once=").map(|(_, once)| once.trim().to_owned()));
        self.child = Some(child);
    }

    /// When another process takes over from the one that runs, which then ends by itself.
    pub fn take_over(&mut self) {
        let mut before = self.child.take().unwrap();
        self.begin(true);
        assert!(before.wait().unwrap().success(), "{}", self.stderr());
    }

    /// From its next start on the server has this variable in its environment.
    pub fn set(&mut self, name: &str, value: &str) {
        self.env.push((name.to_owned(), value.to_owned()));
    }

    /// When the power goes out.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// When the machine burns: the server, everything that runs and the data are gone.
    pub fn lose_everything(&mut self) {
        self.end_all();
        std::fs::remove_dir_all(self.room.path().join("data")).unwrap();
    }

    /// Services outlive their server on purpose: a test takes its own down, also those that were just being started.
    fn end_all(&mut self) {
        self.kill();
        // Asked first: a shim that is killed cannot take away the groups it made.
        below(self.room.path()).for_each(|pid| {
            let _ = Command::new("kill").args(["-15", &pid]).stderr(Stdio::null()).status();
        });
        let asked = Instant::now();
        while below(self.room.path()).next().is_some() && asked.elapsed() < Duration::from_secs(5) {
            pause();
        }
        for _ in 0..3 {
            below(self.room.path()).for_each(|pid| {
                let _ = Command::new("kill").args(["-9", &pid]).stderr(Stdio::null()).status();
            });
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// What the server said on its error output.
    pub fn stderr(&self) -> String {
        std::fs::read_to_string(self.room.path().join("stderr")).unwrap_or_default()
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.http)
    }

    /// For a thread that goes on while the server is killed and started.
    pub fn hand(&self) -> Hand {
        Hand { url: self.url(), token: self.token.clone(), agent: self.agent.clone() }
    }

    pub fn get(&self, path: &str) -> (u16, Value) {
        let answer = self
            .agent
            .get(format!("{}{path}", self.url()))
            .header("authorization", format!("Bearer {}", self.token))
            .call();
        read(answer)
    }

    /// Reads a view of the project.
    pub fn view(&self, path: &str) -> Value {
        let (status, value) = self.get(&format!("/api/v1/shop{path}"));
        assert_eq!(status, 200, "{path}: {value}");
        value
    }

    pub fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.post_as(&self.token, path, body)
    }

    pub fn post_as(&self, token: &str, path: &str, body: &Value) -> (u16, Value) {
        let request = self.agent.post(format!("{}{path}", self.url()));
        let request = if token.is_empty() {
            request
        } else {
            request.header("authorization", format!("Bearer {token}"))
        };
        read(request.send_json(body))
    }

    /// What a user gets who keeps their cookies, on a connection of their own: the status of each answer, and what the newest cookie is.
    pub fn user(&self, host: &str, path: &str, cookie: &mut Option<String>) -> u16 {
        let agent: ureq::Agent =
            ureq::Agent::config_builder().http_status_as_error(false).max_redirects(0).build().into();
        let request = agent.get(format!("http://127.0.0.1:{}{path}", self.router)).header("host", host);
        let request = match cookie {
            Some(cookie) => request.header("cookie", &*cookie),
            None => request,
        };
        let Ok(mut answer) = request.call() else { return 0 };
        let set = answer.headers().get("set-cookie").and_then(|value| value.to_str().ok());
        if let Some(set) = set {
            *cookie = Some(set.split(';').next().unwrap_or_default().to_owned());
        }
        let _ = answer.body_mut().read_to_string();
        answer.status().as_u16()
    }

    /// A user's request to a service, through the router: status and body.
    pub fn visit(&self, host: &str, path: &str) -> (u16, String) {
        let request = self.agent.get(format!("http://127.0.0.1:{}{path}", self.router)).header("host", host);
        match request.call() {
            Ok(mut answer) => {
                (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap_or_default())
            }
            Err(error) => (0, error.to_string()),
        }
    }

    /// A token with these roles.
    pub fn token_with(&self, roles: &[&str]) -> String {
        let name = format!("user-{}", roles.join("-"));
        let set = self.post("/api/v1/users", &json!({ "name": name, "roles": roles }));
        assert_eq!(set.0, 200, "{}", set.1);
        let issued = self.post("/api/v1/tokens", &json!({ "user": name, "name": "t", "roles": roles }));
        issued.1["token"].as_str().unwrap_or_else(|| panic!("{}", issued.1)).to_owned()
    }

    /// Waits until the view says so, looking again and again.
    pub fn until(&self, what: &str, path: &str, says: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let (status, value) = self.get(&format!("/api/v1/shop{path}"));
            if status == 200 && says(&value) {
                return value;
            }
            assert!(
                begun.elapsed() < self.patience,
                "never seen: {what}\nlast: {value:#}\n{}",
                self.stderr()
            );
            pause();
        }
    }

    /// When the change is decided: landed, refused or abandoned.
    pub fn decided(&self, change: u32) -> Value {
        let decided = |view: &Value| {
            matches!(view["row"]["standing"].as_str(), Some("landed" | "refused" | "abandoned"))
        };
        self.until(&format!("#{change} is decided"), &format!("/changes/{change}"), decided)
    }

    /// When every user of production has the change.
    pub fn served(&self, change: u32) -> Value {
        let served = |view: &Value| {
            let refused = view["row"]["standing"] == "refused";
            assert!(!refused, "#{change} was refused: {}", view["row"]["words"]);
            let places = view["places"].as_array().cloned().unwrap_or_default();
            places.iter().any(|place| place[0] == "production" && place[1] == "go")
        };
        self.until(&format!("#{change} serves in production"), &format!("/changes/{change}"), served)
    }

    /// All events of the project.
    pub fn journal(&self) -> Vec<Value> {
        let mut all: Vec<Value> = Vec::new();
        loop {
            let after = all.last().map_or(0, |event| event["seq"].as_u64().unwrap());
            let (_, page) = self.get(&format!("/api/v1/shop/journal?after={after}"));
            let page = page.as_array().cloned().unwrap_or_default();
            if page.is_empty() {
                return all;
            }
            all.extend(page);
        }
    }

    /// The command line, logged in.
    pub fn cli(&self, args: &[&str]) -> Output {
        self.cli_in(self.room.path(), args)
    }

    /// The command line in a directory.
    pub fn cli_in(&self, dir: &Path, args: &[&str]) -> Output {
        self.cli_command(dir, args).output().unwrap()
    }

    /// The command line, begun: whoever waits for it reads all it says.
    pub fn cli_begun(&self, args: &[&str]) -> Child {
        self.cli_with(args, Stdio::null())
    }

    /// The same with something to read.
    pub fn cli_with(&self, args: &[&str], stdin: Stdio) -> Child {
        let mut command = self.cli_command(self.room.path(), args);
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    fn cli_command(&self, dir: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(andon());
        command
            .args(args)
            .env("ANDON_SERVER", self.url())
            .env("ANDON_TOKEN", &self.token)
            .env("ANDON_PROJECT", "shop");
        command.env("XDG_CONFIG_HOME", self.room.path().join("config")).current_dir(dir);
        command
    }
}

/// What a server made on the container engine.
pub struct Containers {
    name: PathBuf,
}

impl Containers {
    pub fn of(server: &Server) -> Containers {
        Containers { name: server.room.path().join("data/docker/server") }
    }

    /// The label of everything of this server.
    pub fn label(&self) -> String {
        format!("label=andon.server={}", std::fs::read_to_string(&self.name).unwrap())
    }

    /// Lines that `docker` prints; none where it fails.
    pub fn lines(args: &[&str]) -> Vec<String> {
        let out = Command::new("docker").args(args).output().unwrap();
        String::from_utf8_lossy(&out.stdout).lines().map(str::to_owned).collect()
    }

    /// Everything of this server that is on the engine: kind and name.
    pub fn left(&self) -> Vec<(&'static str, String)> {
        let label = self.label();
        let name = label.rsplit('=').next().unwrap().to_owned();
        let of = |kind, args: &[&str]| Containers::lines(args).into_iter().map(move |line| (kind, line));
        let images = of("image", &["images", "--format", "{{.Repository}}:{{.Tag}}"]);
        of("container", &["ps", "-aq", "--no-trunc", "--filter", &label])
            .chain(of("network", &["network", "ls", "-q", "--filter", &label]))
            .chain(images.filter(|(_, image)| image.contains(&name)))
            .collect()
    }
}

/// Polling another process: the only way to see it from outside.
#[allow(
    clippy::disallowed_methods,
    reason = "a look at another process every 20 ms, until what is waited for is seen"
)]
pub fn pause() {
    std::thread::sleep(Duration::from_millis(20));
}

fn read(answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> (u16, Value) {
    match answer {
        Ok(mut answer) => {
            let status = answer.status().as_u16();
            let mut text = String::new();
            let _ = answer.body_mut().as_reader().take(64 << 20).read_to_string(&mut text);
            (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
        }
        Err(error) => (0, Value::String(error.to_string())),
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end_all();
        let used =
            std::fs::read_dir(self.room.path().join("data/docker/shop")).into_iter().flatten().flatten();
        if used.count() > 0 {
            for (kind, name) in Containers::of(self).left() {
                let args = match kind {
                    "container" => ["container", "rm", "-fv", &name].to_vec(),
                    "network" => ["network", "rm", &name].to_vec(),
                    _ => ["image", "rm", "-f", &name].to_vec(),
                };
                Containers::lines(&args);
            }
        }
        if std::thread::panicking() {
            eprintln!("── the server's error output ──\n{}", self.stderr());
        }
    }
}

/// Processes that work in this directory, or were told of it.
fn below(room: &Path) -> impl Iterator<Item = String> {
    let named = room.to_string_lossy().into_owned();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.filter_map(move |entry| {
        let pid =
            entry.file_name().to_str().filter(|name| name.bytes().all(|b| b.is_ascii_digit()))?.to_owned();
        let of_us = || {
            let cwd = std::fs::read_link(entry.path().join("cwd")).unwrap_or_default();
            let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            cwd.starts_with(&named) || String::from_utf8_lossy(&command).contains(&named)
        };
        (pid != std::process::id().to_string() && of_us()).then_some(pid)
    })
}

/// A developer's clone.
pub struct Repo {
    pub dir: PathBuf,
    remote: String,
}

impl Repo {
    pub fn new(server: &Server, files: &[(&str, &str)]) -> Repo {
        let dir = server.room.path().join("repo");
        std::fs::create_dir_all(&dir).unwrap();
        let remote = format!("http://dev:{}@127.0.0.1:{}/shop.git", server.token, server.http);
        let repo = Repo { dir, remote };
        repo.git(&["init", "-q", "-b", "main"]);
        for (name, text) in files {
            repo.write(name, text);
        }
        repo
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.dir.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.join(name)).unwrap()
    }

    pub fn git(&self, args: &[&str]) -> Output {
        let out = self.try_git(args);
        assert!(out.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&out.stderr));
        out
    }

    pub fn try_git(&self, args: &[&str]) -> Output {
        let mut command = Command::new("git");
        command.current_dir(&self.dir).args(args);
        command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_TERMINAL_PROMPT", "0");
        for who in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{who}_NAME"), "Ann").env(format!("GIT_{who}_EMAIL"), "ann@example.com");
        }
        command.output().unwrap()
    }

    /// When everything is committed under this message.
    pub fn commit(&self, message: &str) {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "--allow-empty", "-m", message]);
    }

    /// When HEAD is pushed for trunk: success, and what the pusher's terminal shows.
    pub fn push(&self) -> (bool, String) {
        self.push_as(&["HEAD:refs/for/main"])
    }

    pub fn push_as(&self, refs: &[&str]) -> (bool, String) {
        let mut args = vec!["push", &self.remote];
        args.extend(refs);
        let out = self.try_git(&args);
        (out.status.success(), String::from_utf8_lossy(&out.stderr).into_owned())
    }

    /// When a change is made and pushed: its number.
    pub fn propose(&self, message: &str) -> u32 {
        self.commit(message);
        let (ok, words) = self.push();
        assert!(ok, "{words}");
        number(&words)
    }

    /// When the clone follows trunk, if the server can be reached.
    pub fn try_follow(&self) -> bool {
        let fetched = self.try_git(&["fetch", "-q", &self.remote, "main"]).status.success();
        if fetched {
            self.git(&["reset", "-q", "--hard", "FETCH_HEAD"]);
        }
        fetched
    }

    /// When the clone follows trunk.
    pub fn follow(&self) {
        self.git(&["fetch", "-q", &self.remote, "main"]);
        self.git(&["reset", "-q", "--hard", "FETCH_HEAD"]);
    }
}

/// The change number in what a pusher reads.
pub fn number(words: &str) -> u32 {
    let at = words.find("/changes/").unwrap_or_else(|| panic!("no change in: {words}"));
    words[at + 9..].chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
}

/// Numbers for a test that is run again with the same seed. The generator is SplitMix64.
pub struct Dice(u64);

impl Dice {
    /// From `ANDON_SEED`, else from the moment; says which, so that a failure can be repeated.
    pub fn of_environment() -> Dice {
        let given = std::env::var("ANDON_SEED").ok().and_then(|seed| seed.parse().ok());
        let moment = || std::fs::metadata("/proc/self").and_then(|meta| meta.modified()).unwrap();
        let fresh = || {
            moment().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64
                ^ u64::from(std::process::id())
        };
        let seed = given.unwrap_or_else(fresh);
        println!("ANDON_SEED={seed}");
        Dice(seed)
    }

    /// From a known number.
    pub fn of(seed: u64) -> Dice {
        Dice(seed)
    }

    /// At least `from`, less than `to`.
    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        from + (mixed ^ (mixed >> 31)) % (to - from)
    }
}

/// Lets this much time pass: what happens at a moment that nobody chose.
#[allow(
    clippy::disallowed_methods,
    reason = "the length of the wait is what is tested, not an order of events"
)]
pub fn pass(millis: u64) {
    std::thread::sleep(Duration::from_millis(millis));
}

/// Events of one type.
pub fn of_type<'a>(journal: &'a [Value], kind: &str) -> Vec<&'a Value> {
    journal.iter().filter(|event| event["event"]["type"] == kind).collect()
}

/// Where there is no terraform, the test says so; where everything has to be there, it fails.
pub fn terraform_is_there(test: &str) -> bool {
    let there = Command::new("terraform").arg("version").output().is_ok_and(|out| out.status.success());
    if !there {
        eprintln!("SKIPPED: {test} (terraform is not installed)");
        assert!(std::env::var("CI").is_err(), "terraform has to be installed here");
    }
    there
}
