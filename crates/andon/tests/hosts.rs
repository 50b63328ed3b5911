//! Other machines as hosts: network namespaces stand for them, the real binary is their agent. They join, get instances and traffic, are
//! killed, come back, leave; users notice nothing.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]
#![allow(clippy::print_stdout, reason = "a test says what it measured")]

mod support;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use andon_testkit::leaks::Traces;
use serde_json::Value;
use support::{Server, andon, pass, pause};

/// Says where it answers from.
const APP: &str = r#"
import sys, http.server
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    def do_GET(self):
        body = self.connection.getsockname()[0].encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args):
        pass
class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128
Server((sys.argv[1], int(sys.argv[2])), Handler).serve_forever()
"#;

const LINE: &str = r#"
version: 1
pipeline:
  jobs:
    package: { run: "mkdir dist && cp app.py dist/", artifact: dist }
services:
  web: { command: [python3, app.py, $HOST, $PORT], replicas: 4, health: / }
environments:
  production: { release: all-at-once }
"#;

const WEB: &str = "web.production.shop.localhost";

fn ip(args: &str) -> Output {
    Command::new("ip").args(args.split(' ')).output().unwrap()
}

/// Namespaces take root; where they cannot be made, the test says so.
fn may(test: &str) -> bool {
    let name = format!("anht{}", std::process::id());
    let made =
        Command::new("ip").args(["netns", "add", &name]).output().is_ok_and(|out| out.status.success());
    if made {
        ip(&format!("netns del {name}"));
    } else {
        println!("SKIPPED: {test} (network namespaces cannot be made here)");
        assert!(std::env::var("CI").is_err(), "they have to be possible here");
    }
    made
}

/// A machine with a cable to the server's.
struct Machine {
    name: String,
    space: String,
    cable: String,
    /// Where it reaches the server, and where it is reached.
    server: String,
    address: String,
    data: PathBuf,
    agent: Option<Child>,
}

impl Machine {
    fn new(server: &Server, name: &str) -> Machine {
        static NUMBERS: AtomicU32 = AtomicU32::new(0);
        let n = NUMBERS.fetch_add(1, Ordering::Relaxed);
        let pid = std::process::id();
        let (space, cable) = (format!("anh{pid}-{n}"), format!("ah{}{n}", pid % 1_000_000));
        let net = format!("10.{}.{}", 214 + n % 8, pid % 250);
        let (here, there) = (format!("{net}.{}", 4 * n + 1), format!("{net}.{}", 4 * n + 2));
        for line in [
            format!("netns add {space}"),
            format!("link add {cable} type veth peer name eth0 netns {space}"),
            format!("addr add {here}/30 dev {cable}"),
            format!("link set {cable} up"),
            format!("-n {space} addr add {there}/30 dev eth0"),
            format!("-n {space} link set eth0 up"),
            format!("-n {space} link set lo up"),
        ] {
            let out = ip(&line);
            assert!(out.status.success(), "ip {line}: {}", String::from_utf8_lossy(&out.stderr));
        }
        let data = server.room.path().join(name);
        Machine { name: name.to_owned(), space, cable, server: here, address: there, data, agent: None }
    }

    /// When its agent is started with these words.
    fn agent(&mut self, words: &[&str]) {
        let log = std::fs::File::options().create(true).append(true).open(self.log()).unwrap();
        let agent = Command::new("ip")
            .args(["netns", "exec", &self.space, &andon(), "host"])
            .args(words)
            .args(["--data", self.data.to_str().unwrap()])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        self.agent = Some(agent.unwrap());
    }

    fn log(&self) -> PathBuf {
        self.data.with_extension("log")
    }

    /// When it joins with a new token.
    fn join(&mut self, server: &Server, port: u16) {
        let token = token(server);
        let (at, name) = (format!("{}:{port}", self.server), self.name.clone());
        self.agent(&["join", &at, "--token", &token, "--name", &name, "--label", "zone=a"]);
    }

    /// When its agent is killed; what it runs is not.
    fn kill_agent(&mut self) {
        let mut agent = self.agent.take().unwrap();
        agent.kill().unwrap();
        agent.wait().unwrap();
    }

    /// Everything that runs on it.
    fn processes(&self) -> Vec<String> {
        let out = ip(&format!("netns pids {}", self.space));
        String::from_utf8_lossy(&out.stdout).lines().map(str::to_owned).collect()
    }

    /// When its agent is started again with what it remembers.
    fn come_back(&mut self) {
        self.agent(&["run"]);
    }

    /// What it runs, without its agent: the shims and what they started.
    fn instances(&self) -> Vec<String> {
        let agent = self.agent.as_ref().map(|agent| agent.id().to_string());
        let mut all = self.processes();
        all.retain(|pid| Some(pid) != agent.as_ref());
        all.sort();
        all
    }

    /// When its cable is pulled, and put in again.
    fn cut(&self) {
        ip(&format!("link set {} down", self.cable));
    }
    fn mend(&self) {
        ip(&format!("link set {} up", self.cable));
    }

    /// When its power goes out.
    fn burn(&mut self) {
        self.cut();
        self.kill_agent();
        for _ in 0..3 {
            for pid in self.processes() {
                let _ = Command::new("kill").args(["-9", &pid]).stderr(Stdio::null()).status();
            }
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("── {} ──\n{}", self.name, std::fs::read_to_string(self.log()).unwrap_or_default());
        }
        if self.agent.is_some() {
            self.kill_agent();
        }
        for pid in self.processes() {
            let _ = Command::new("kill").args(["-9", &pid]).stderr(Stdio::null()).status();
        }
        ip(&format!("link del {}", self.cable));
        ip(&format!("netns del {}", self.space));
    }
}

fn words(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

/// A new token, as a person reads it from the terminal.
fn token(server: &Server) -> String {
    let out = server.cli(&["host", "token"]);
    let said = words(&out);
    assert!(out.status.success(), "{said}");
    let at = said.find("andon_host_").unwrap_or_else(|| panic!("no token in: {said}"));
    said[at..].split_whitespace().next().unwrap().to_owned()
}

/// A shop with four instances that lets hosts in on this port.
fn shop() -> (Server, u16) {
    let (mut server, repo) = Server::with_project(&[("app.py", APP), ("andon.yaml", LINE)]);
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    server.kill();
    server.set("ANDON_HOSTS", &format!("0.0.0.0:{port}"));
    server.start();
    let change = repo.propose("Open the shop");
    server.served(change);
    (server, port)
}

fn hosts(server: &Server) -> Value {
    let out = server.cli(&["host", "list", "--json"]);
    assert!(out.status.success(), "{}", words(&out));
    serde_json::from_slice(&out.stdout).unwrap()
}

/// Instances that each host has.
fn spread(server: &Server) -> BTreeMap<String, u64> {
    let view = hosts(server);
    let rows = view["hosts"].as_array().unwrap().iter();
    rows.map(|row| (row["name"].as_str().unwrap().to_owned(), row["instances"].as_u64().unwrap())).collect()
}

/// Healthy instances in production, by host.
fn healthy(server: &Server) -> BTreeMap<String, usize> {
    let view = server.view("/environments/production");
    let mut found = BTreeMap::new();
    for row in view["services"][0]["instances"].as_array().unwrap() {
        if row["mark"] == "go" {
            *found.entry(row["host"].as_str().unwrap_or("here").to_owned()).or_default() += 1;
        }
    }
    found
}

fn until(server: &Server, what: &str, mut so: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < server.patience, "never: {what}\n{}\n{:#}", server.stderr(), hosts(server));
        pause();
    }
    begun.elapsed()
}

/// Users that never rest.
struct Users {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    wrong: Arc<Mutex<Vec<String>>>,
    from: Arc<Mutex<BTreeMap<String, usize>>>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Users {
    fn come(router: u16) -> Users {
        let mut users = Users {
            stop: Arc::default(),
            asked: Arc::default(),
            wrong: Arc::default(),
            from: Arc::default(),
            threads: Vec::new(),
        };
        for _ in 0..4 {
            let (stop, asked) = (Arc::clone(&users.stop), Arc::clone(&users.asked));
            let (wrong, from) = (Arc::clone(&users.wrong), Arc::clone(&users.from));
            users.threads.push(std::thread::spawn(move || {
                let config =
                    ureq::Agent::config_builder().http_status_as_error(false).max_redirects(0).build();
                let agent: ureq::Agent = config.into();
                while !stop.load(Ordering::SeqCst) {
                    let answer = agent.get(format!("http://127.0.0.1:{router}/")).header("host", WEB).call();
                    asked.fetch_add(1, Ordering::SeqCst);
                    match answer {
                        Ok(mut answer) if answer.status() == 200 => {
                            let body = answer.body_mut().read_to_string().unwrap_or_default();
                            *from.lock().unwrap().entry(body).or_default() += 1;
                        }
                        Ok(mut answer) => {
                            let body = answer.body_mut().read_to_string().unwrap_or_default();
                            wrong.lock().unwrap().push(format!("{} {body}", answer.status()));
                        }
                        Err(error) => wrong.lock().unwrap().push(error.to_string()),
                    }
                    pass(4);
                }
            }));
        }
        users
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// Answers that came from this address.
    fn from(&self, address: &str) -> usize {
        self.from.lock().unwrap().get(address).copied().unwrap_or(0)
    }

    fn go(mut self) -> (usize, Vec<String>) {
        self.stop.store(true, Ordering::SeqCst);
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
        (self.asked(), self.wrong.lock().unwrap().clone())
    }
}

#[test]
fn a_host_that_joins_takes_its_share_and_one_that_leaves_is_emptied_and_no_request_fails() {
    if !may("a_host_that_joins_takes_its_share_and_one_that_leaves_is_emptied_and_no_request_fails") {
        return;
    }
    let (server, port) = shop();
    let users = Users::come(server.router);
    let mut one = Machine::new(&server, "one");
    let begun = Instant::now();
    one.join(&server, port);
    until(&server, "the new host answers users", || users.from(&one.address) > 0);
    println!("traffic on a host {:?} after its agent was started", begun.elapsed());
    until(&server, "each has its share", || {
        healthy(&server) == [("here".into(), 2), ("one".into(), 2)].into()
    });
    println!("evenly spread {:?} after its agent was started", begun.elapsed());

    // The server's own host is one like the others.
    let out = server.cli(&["host", "drain", "here", "-m", "a new disk"]);
    assert!(out.status.success(), "{}", words(&out));
    until(&server, "the server's own host is empty", || {
        spread(&server) == [("here".into(), 0), ("one".into(), 4)].into()
    });
    assert!(server.cli(&["host", "resume", "here"]).status.success());
    until(&server, "it has its share again", || {
        healthy(&server) == [("here".into(), 2), ("one".into(), 2)].into()
    });

    let mut traces = Traces::of(&one.data);
    traces.note();
    assert!(!traces.left().is_empty(), "the check sees what runs");
    let leaving = Instant::now();
    let out = server.cli(&["host", "leave", "one", "-m", "it was lent"]);
    assert!(out.status.success(), "{}", words(&out));
    until(&server, "the host has left", || spread(&server) == [("here".into(), 4)].into());
    println!("left after {:?}", leaving.elapsed());
    let ended = one.agent.take().unwrap().wait().unwrap();
    assert!(ended.success(), "the agent of a host that left has nothing more to do");
    until(&server, "nothing of it is left", || traces.left().is_empty() && one.processes().is_empty());
    assert!(!one.data.join("host.json").exists() && !one.data.join("instances").exists());
    until(&server, "ten thousand requests", || users.asked() >= 10_000);
    let (asked, wrong) = users.go();
    println!("{asked} requests, {} failed", wrong.len());
    assert!(wrong.is_empty(), "{} of {asked}: {:?}", wrong.len(), &wrong[..wrong.len().min(5)]);
}

#[test]
fn instances_outlive_agent_and_server_and_what_is_lost_with_its_host_is_made_anew_elsewhere() {
    if !may("instances_outlive_agent_and_server_and_what_is_lost_with_its_host_is_made_anew_elsewhere") {
        return;
    }
    let (mut server, port) = shop();
    let (mut one, mut two) = (Machine::new(&server, "one"), Machine::new(&server, "two"));
    one.join(&server, port);
    two.join(&server, port);
    let thirds = || [("here".to_owned(), 2), ("one".to_owned(), 1), ("two".to_owned(), 1)].into();
    until(&server, "each has its share", || healthy(&server) == thirds());
    until(&server, "what moved is gone", || spread(&server).values().sum::<u64>() == 4);

    let (on_one, on_two) = (one.instances(), two.instances());
    assert!(!on_one.is_empty() && !on_two.is_empty());
    one.kill_agent();
    let mark = |server: &Server, name: &str| {
        let view = hosts(server);
        let row = view["hosts"].as_array().unwrap().iter().find(|row| row["name"] == name).cloned();
        row.map_or(String::new(), |row| row["mark"].as_str().unwrap().to_owned())
    };
    until(&server, "the agent is missed", || mark(&server, "one") == "wait");
    assert_eq!(one.instances(), on_one, "what it ran goes on");
    one.come_back();
    until(&server, "the host is back", || mark(&server, "one") == "go");
    server.kill();
    assert_eq!((one.instances(), two.instances()), (on_one.clone(), on_two.clone()));
    server.start();
    until(&server, "both are back", || mark(&server, "one") == "go" && mark(&server, "two") == "go");
    until(&server, "all are seen as they are", || healthy(&server) == thirds());
    assert_eq!((one.instances(), two.instances()), (on_one, on_two.clone()), "they were adopted");
    let journal = server.journal();
    let retired = support::of_type(&journal, "instance_retired").len();

    two.cut();
    let cut = Instant::now();
    let halves: BTreeMap<String, usize> = [("here".to_owned(), 2), ("one".to_owned(), 2)].into();
    until(&server, "what was on the lost host stands elsewhere", || healthy(&server) == halves);
    println!("made anew elsewhere {:?} after the cable was cut", cut.elapsed());
    assert_eq!(mark(&server, "two"), "stop");
    server.until("the difference is healed", "/environments/production", |view| view["row"]["drifts"] == 0);
    let journal = server.journal();
    let drifts = support::of_type(&journal, "drift_seen");
    assert_eq!(drifts.len(), 1, "{drifts:?}");
    assert_eq!(drifts[0]["event"]["drift"]["what"], "instances on two");
    assert_eq!(support::of_type(&journal, "instance_retired").len(), retired + 1, "nothing else was touched");
    assert!(support::of_type(&journal, "cord_pulled").is_empty(), "a lost host stops nobody's line");
    assert_eq!(two.instances(), on_two, "nobody could tell it");

    two.mend();
    until(&server, "what it still ran is swept", || !two.instances().iter().any(|pid| on_two.contains(pid)));
    until(&server, "it has its share again", || {
        let now = healthy(&server);
        now.get("two") == Some(&1) && now.values().sum::<usize>() == 4
    });

    two.burn();
    until(&server, "what burned stands elsewhere", || {
        let now = healthy(&server);
        !now.contains_key("two") && now.values().sum::<usize>() == 4
    });
    let out = server.cli(&["host", "leave", "two"]);
    assert!(out.status.success(), "{}", words(&out));
    until(&server, "it is no host any more", || !spread(&server).contains_key("two"));
    // Its disk was saved: what comes up with it is told that it left, and clears itself.
    two.mend();
    two.come_back();
    let ended = two.agent.take().unwrap().wait().unwrap();
    assert!(ended.success() && !two.data.join("host.json").exists() && !two.data.join("instances").exists());
}

#[test]
fn a_machine_that_may_not_join_is_told_why() {
    let mut server = Server::fresh();
    assert!(words(&server.cli(&["host", "token"])).contains("--hosts"));
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    server.kill();
    server.set("ANDON_HOSTS", &format!("127.0.0.1:{port}"));
    server.start();
    let at = format!("127.0.0.1:{port}");
    let room = server.room.path().to_owned();
    let join = |at: &str, token: &str, name: &str, data: &str| {
        let mut command = Command::new(andon());
        command.args([
            "host",
            "join",
            at,
            "--token",
            token,
            "--name",
            name,
            "--address",
            "127.0.0.2",
            "--data",
        ]);
        command.arg(room.join(data));
        command
    };
    let refused = |at: &str, token: &str, name: &str, data: &str, says: &str| {
        let out = join(at, token, name, data).output().unwrap();
        let said = words(&out);
        assert!(!out.status.success() && said.contains(says) && said.contains("hint:"), "{says}: {said}");
        assert!(!room.join(data).join("host.json").exists(), "nothing of it is remembered");
    };

    let good = token(&server);
    refused(&at, "andon_x", "n1", "n1", "not a token for a host");
    let (head, secret) = good.rsplit_once('_').unwrap();
    refused(
        &at,
        &format!("{head}_{}", "0".repeat(32)),
        "n1",
        "n1",
        "used already, is too old, or is not of this server",
    );
    let stranger = format!("andon_host_{}_{secret}", "0".repeat(64));
    refused(&at, &stranger, "n1", "n1", "another certificate");
    refused("127.0.0.1:1", &good, "n1", "n1", "is not reached");
    refused(&at, &good, "here", "n1", "there is a host called here already");

    let mut agent = join(&at, &good, "n1", "n1").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    until(&server, "it joined", || spread(&server).contains_key("n1"));
    refused(&at, &good, "n2", "n2", "used already");
    refused(&at, &token(&server), "n1", "n2", "there is a host called n1 already");
    let out = join(&at, &token(&server), "n1", "n1").output().unwrap();
    assert!(words(&out).contains("another agent uses"), "{}", words(&out));

    // Whoever knocks with noise, or says nothing, keeps nobody else out.
    use std::io::Write;
    let quiet: Vec<_> = (0..20).map(|_| std::net::TcpStream::connect(&at).unwrap()).collect();
    for noise in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 4096], b"\x16\x03\x01\x02\x00\x01"] {
        let mut stream = std::net::TcpStream::connect(&at).unwrap();
        let _ = stream.write_all(noise);
    }
    let mut other =
        join(&at, &token(&server), "n2", "n2").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    until(&server, "it joined", || spread(&server).contains_key("n2"));
    drop(quiet);

    for may_not in [server.token_with(&["deployer"]), server.token_with(&["viewer"])] {
        for path in ["/api/v1/hosts", "/api/v1/hosts/n1/drain"] {
            let body = if path.ends_with("drain") {
                serde_json::json!({ "why": "" })
            } else {
                serde_json::json!({})
            };
            assert_eq!(server.post_as(&may_not, path, &body).0, 403);
        }
    }
    assert!(words(&server.cli(&["host", "drain", "n9"])).contains("there is no host n9"));
    assert!(words(&server.cli(&["host", "leave", "here"])).contains("cannot leave"));
    let data = std::fs::read_to_string(room.join("n1/host.json")).unwrap();
    let secret = serde_json::from_str::<Value>(&data).unwrap()["secret"].as_str().unwrap().to_owned();
    let journal = std::fs::read(room.join("data/journal.db")).unwrap();
    assert!(!String::from_utf8_lossy(&journal).contains(&secret), "only digests are recorded");
    for agent in [&mut agent, &mut other] {
        agent.kill().unwrap();
        agent.wait().unwrap();
    }
}
