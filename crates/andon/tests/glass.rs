//! Broken glass: shells into instances, what they leave on record, and how a tainted environment holds promotion until it is rebuilt.
//! And parity that a promotion asks for. Told in given, when, then.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "all of it is test code")]

mod support;

use std::io::{Read, Write};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{HELLO, LINE, Repo, Server, andon, of_type, pause};

/// A value that no recording may hold.
const CANARY: &str = "canary-secret-4711";

fn said(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

/// The command line with its three ends in our hands.
fn begin(server: &Server, args: &[&str]) -> Child {
    Command::new(andon())
        .args(args)
        .env("ANDON_SERVER", server.url())
        .env("ANDON_TOKEN", &server.token)
        .env("ANDON_PROJECT", "shop")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Types this and waits for the end.
fn with_input(server: &Server, args: &[&str], input: &str) -> Output {
    let mut child = begin(server, args);
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// Reads what it says until this is in it.
fn hear(child: &mut Child, what: &str) {
    let out = child.stdout.as_mut().unwrap();
    let mut all = Vec::new();
    while !String::from_utf8_lossy(&all).contains(what) {
        let mut byte = [0];
        assert_eq!(out.read(&mut byte).unwrap(), 1, "it ended after {:?}", String::from_utf8_lossy(&all));
        all.push(byte[0]);
    }
}

fn until(what: &str, so: impl Fn() -> bool) {
    let began = Instant::now();
    while !so() {
        assert!(began.elapsed() < Duration::from_secs(30), "never: {what}");
        pause();
    }
}

/// Processes that carry this in their environment: of a shell, or of what it started.
fn marked(mark: &str) -> Vec<String> {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let of_it = |pid: &String| {
        let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        String::from_utf8_lossy(&environ).contains(mark)
    };
    all.filter_map(|entry| entry.file_name().into_string().ok()).filter(of_it).collect()
}

/// What the environment's page says is out of the ordinary.
fn notes(server: &Server, environment: &str) -> String {
    server.view(&format!("/environments/{environment}"))["notes"].to_string()
}

fn second(server: &Server, repo: &Repo) -> u32 {
    repo.follow();
    repo.write("app.py", &HELLO.replace("\"v1\"", "\"v2\""));
    let change = repo.propose("Second");
    server.decided(change);
    change
}

fn serves(server: &Server, environment: &str, version: &str) -> bool {
    server.visit(&format!("web.{environment}.shop.localhost"), "/").1.starts_with(version)
}

#[test]
fn a_shell_is_recorded_and_nothing_goes_into_its_environment_until_it_is_rebuilt() {
    // Given a production that knows a secret
    let line = LINE.replace("health: / }", &format!("health: /, env: {{ TOKEN: {CANARY} }} }}"));
    let (server, repo) = Server::with_project(&[("andon.yaml", &line), ("app.py", HELLO)]);
    server.served(repo.propose("Begin"));
    // When an owner runs a command inside an instance
    let script = "read typed; echo heard $typed; echo $TOKEN; echo oops >&2; exit 5";
    let args = ["env", "shell", "production", "--reason", "the queue hangs", "--", "sh", "-c", script];
    let out = with_input(&server, &args, "typed words\n");
    // Then output, errors and status come back
    assert_eq!(out.status.code(), Some(5), "{}", said(&out));
    assert_eq!(String::from_utf8_lossy(&out.stdout), format!("heard typed words\n{CANARY}\n"));
    assert_eq!(String::from_utf8_lossy(&out.stderr), "oops\n");
    // And who, why and where is on record, before what was typed and shown, without the secret
    let journal = server.journal();
    let opened = of_type(&journal, "shell_opened")[0];
    assert_eq!(
        (&opened["event"]["why"], &opened["by"]["user"]),
        (&json!("the queue hangs"), &json!("owner"))
    );
    let tainted = of_type(&journal, "environment_tainted")[0]["seq"].as_u64().unwrap();
    assert!(tainted < opened["seq"].as_u64().unwrap());
    let list = said(&server.cli(&["env", "shells"]));
    assert!(
        list.contains("S1") && list.contains("by owner: the queue hangs") && list.contains("status 5"),
        "{list}"
    );
    let cast = String::from_utf8(server.cli(&["env", "shells", "--recording", "S1"]).stdout).unwrap();
    let lines: Vec<Value> = cast.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["version"], 2, "{cast}");
    let all = |code: &str| -> String {
        lines[1..].iter().filter(|line| line[1] == code).map(|line| line[2].as_str().unwrap()).collect()
    };
    assert_eq!(all("i"), "typed words\n");
    assert!(all("o").contains("heard typed words\n[hidden]\n") && all("o").contains("oops\n"), "{cast}");
    assert!(!cast.contains(CANARY));
    // And the environment says so, on its page and on the wall
    assert!(notes(&server, "production").contains("tainted by owner: the queue hangs"));
    assert!(server.view("/wall").to_string().contains("tainted by owner: the queue hangs; rebuild it"));
    let page = server.get("/shop/environments/production").1.to_string();
    assert!(page.contains("Shells that people opened") && page.contains("/shells/S1/recording"), "{page}");
    assert!(server.get("/shop").1.to_string().contains("tainted by owner: the queue hangs"));
    // When a change comes, then it goes as far as staging
    let change = second(&server, &repo);
    until("staging has it", || serves(&server, "staging", "v2"));
    let view = server.until("production waits for a rebuild", &format!("/changes/{change}"), |view| {
        view["places"].to_string().contains("waits: production is tainted by owner: the queue hangs")
    });
    assert!(!view["places"].to_string().contains("not there yet"), "{view}");
    let out = server.cli(&["env", "deploy", "production"]);
    assert!(
        said(&out).contains("production is tainted") && said(&out).contains("andon env rebuild production"),
        "{}",
        said(&out)
    );
    assert!(serves(&server, "production", "v1"));
    // When it is rebuilt, then it is clean, and the change comes
    assert!(server.cli(&["env", "rebuild", "production"]).status.success());
    server.served(change);
    assert!(serves(&server, "production", "v2"));
    assert!(!notes(&server, "production").contains("ainted"));
}

#[test]
fn nothing_is_promoted_from_an_environment_that_somebody_had_a_hand_in() {
    let manual = LINE
        .replace("staging: { ", "staging: { deploy: on-green, ")
        .replace("production: { release: careful", "production: { deploy: manual, release: careful");
    assert_ne!(manual, LINE);
    let (server, repo) = Server::with_project(&[("andon.yaml", &manual), ("app.py", HELLO)]);
    server.decided(repo.propose("Begin"));
    until("staging has it", || serves(&server, "staging", "v1"));
    server.until("staging released it", "/environments/staging", |view| view["row"]["mark"] == "go");
    // Given a hand in staging, after it released the change
    let out = server.cli(&["env", "shell", "staging", "--reason", "looking around", "--", "true"]);
    assert!(out.status.success(), "{}", said(&out));
    // Then the change does not come from there
    let out = server.cli(&["env", "deploy", "production"]);
    assert!(said(&out).contains("staging is tainted by owner: looking around"), "{}", said(&out));
    // Until it is rebuilt
    assert!(server.cli(&["env", "rebuild", "staging", "--wait"]).status.success());
    server.until("staging released it again", "/environments/staging", |view| view["row"]["mark"] == "go");
    let out = server.cli(&["env", "deploy", "production"]);
    assert!(out.status.success(), "{}", said(&out));
    until("production has it", || serves(&server, "production", "v1"));
}

#[test]
fn only_owners_with_a_reason_open_a_shell_and_only_in_what_runs() {
    let (server, repo) = Server::with_project(&[("andon.yaml", LINE), ("app.py", HELLO)]);
    server.served(repo.propose("Begin"));
    let ask = |token: &str, args: &[&str]| {
        let mut command = Command::new(andon());
        command.args(["env", "shell"]).args(args).env("ANDON_SERVER", server.url());
        command.env("ANDON_TOKEN", token).env("ANDON_PROJECT", "shop").stdin(Stdio::null());
        let out = command.output().unwrap();
        assert!(!out.status.success());
        said(&out)
    };
    let member = server.token_with(&["developer", "deployer", "releaser"]);
    let words = ask(&member, &["production", "--reason", "curious", "--", "true"]);
    assert!(words.contains("needs the role owner"), "{words}");
    for (args, what) in [
        (&["production", "--reason", "  ", "--", "true"][..], "say why"),
        (&["production", "i999", "--reason", "x", "--", "true"], "i999 does not run in production"),
        (&["nowhere", "--reason", "x", "--", "true"], "no environment nowhere"),
        (&["production", "--reason", "x", "--", "no-such-program"], "no-such-program"),
    ] {
        let words = ask(&server.token, args);
        assert!(words.contains(what), "{args:?}: {words}");
    }
    let plain = server.post("/api/v1/shop/environments/production/shell", &json!({ "why": "x" }));
    assert_eq!(plain.0, 426, "{}", plain.1);
    let journal = server.journal();
    let all: Vec<_> = journal.iter().map(|event| event["event"]["type"].as_str().unwrap()).collect();
    assert_eq!(of_type(&journal, "shell_opened").len(), 1, "only the last one came so far: {all:?}");
    // What was recorded is for owners, too.
    let (status, _) = Hand::of(&server, &member).get("/api/v1/shop/shells/S1/recording");
    assert_eq!(status, 403);
}

/// Asks as somebody else.
struct Hand(String, String);

impl Hand {
    fn of(server: &Server, token: &str) -> Hand {
        Hand(server.url(), token.to_owned())
    }
    fn get(&self, path: &str) -> (u16, String) {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let request =
            agent.get(format!("{}{path}", self.0)).header("authorization", format!("Bearer {}", self.1));
        let mut answer = request.call().unwrap();
        (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap_or_default())
    }
}

#[test]
fn a_shell_ends_with_whoever_had_it_open_and_with_its_server_and_the_taint_stays() {
    let (mut server, repo) = Server::with_project(&[("andon.yaml", LINE), ("app.py", HELLO)]);
    server.served(repo.propose("Begin"));
    let script = "(setsid sleep 1001 >/dev/null 2>&1 </dev/null &); echo open$((1+1)); read line; echo read $line; sleep 1001";
    let args = ["env", "shell", "production", "--reason", "it hangs", "--", "sh", "-c", script];
    let mark = |n: u32| format!("/shop/S{n}\0");
    // When the person's terminal is closed in the middle of it
    let mut first = begin(&server, &args);
    hear(&mut first, "open2");
    assert!(marked(&mark(1)).len() >= 2, "it runs: {:?}", marked(&mark(1)));
    first.kill().unwrap();
    first.wait().unwrap();
    // Then everything that it started ends, and that is on record
    until("nothing of it runs", || marked(&mark(1)).is_empty());
    server.until("it is told", "/shells", |view| view["rows"][0]["words"].to_string().contains("went away"));
    // When the server is killed in the middle of another one
    let mut next = begin(&server, &args);
    hear(&mut next, "open2");
    next.stdin.as_mut().unwrap().write_all(b"half a thought\n").unwrap();
    hear(&mut next, "read half a thought");
    server.kill();
    // Then no process of it is left, while there is no server
    until("nothing of it runs", || marked(&mark(2)).is_empty());
    let gone = next.wait_with_output().unwrap();
    assert!(!gone.status.success(), "{}", said(&gone));
    // And the next one has the record and the taint
    server.start();
    server.until("its end is told", "/shells", |view| {
        view["rows"][0]["words"].to_string().contains("server was killed")
            && view["rows"][0]["recorded"] == true
    });
    let cast = said(&server.cli(&["env", "shells", "--recording", "S2"]));
    assert!(cast.contains("half a thought"), "{cast}");
    assert!(notes(&server, "production").contains("tainted by owner: it hangs"));
    assert!(serves(&server, "production", "v1"), "users noticed nothing");
    let drift = of_type(&server.journal(), "drift_seen").len();
    assert_eq!(drift, 0, "a shell is no stranger");
}

#[test]
fn a_person_types_in_a_terminal_of_their_own() {
    if Command::new("script").arg("--version").output().is_err() {
        println!("SKIPPED: a_person_types_in_a_terminal_of_their_own (script is not installed)");
        assert!(std::env::var("CI").is_err(), "script has to be installed here");
        return;
    }
    let (server, repo) = Server::with_project(&[("andon.yaml", LINE), ("app.py", HELLO)]);
    server.served(repo.propose("Begin"));
    let command = format!("stty rows 33 cols 111; {} env shell production --reason 'by hand'", andon());
    let mut child = Command::new("script")
        .args(["-qefc", &command, "/dev/null"])
        .env("ANDON_SERVER", server.url())
        .env("ANDON_TOKEN", &server.token)
        .env("ANDON_PROJECT", "shop")
        .env("TERM", "xterm")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    hear(&mut child, "is tainted until it is rebuilt");
    let input = child.stdin.as_mut().unwrap();
    input.write_all(b"stty size; echo $TERM-$((40+2)); pwd\n").unwrap();
    hear(&mut child, "xterm-42");
    child.stdin.as_mut().unwrap().write_all(b"exit 3\n").unwrap();
    let out = child.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(3), "{}", said(&out));
    let cast = said(&server.cli(&["env", "shells", "--recording", "S1"]));
    assert!(cast.contains("33 111") && cast.contains("\"width\":111"), "{cast}");
    assert!(cast.contains("stty size"), "what was typed is in it: {cast}");
}

#[test]
fn a_change_waits_in_front_of_a_production_that_it_would_not_make_enough_like_staging() {
    // Given a production that asks to be like staging, and is to run twice as often
    let strict = LINE
        .replace("production: { release: careful", "production: { parity: { least: 100 }, release: careful");
    assert_ne!(strict, LINE);
    let (server, repo) = Server::with_project(&[("andon.yaml", &strict), ("app.py", HELLO)]);
    let first = repo.propose("Begin");
    server.decided(first);
    // Then the change goes as far as staging, and says what it waits for
    server.until("it waits", &format!("/changes/{first}"), |view| {
        let places = view["places"].to_string();
        places.contains("waits: staging and production would be")
            && places.contains("shape web replicas (1 against 2)")
    });
    assert!(notes(&server, "production").contains("100 % are asked for"), "{}", notes(&server, "production"));
    let out = server.cli(&["env", "deploy", "production"]);
    assert!(
        said(&out).contains("100 % are asked for")
            && said(&out).contains("andon env diff staging production"),
        "{}",
        said(&out)
    );
    assert_eq!(server.visit("web.production.shop.localhost", "/").0, 404, "nothing serves there");
    // When the team says why it may differ, then it comes
    repo.follow();
    let allowed =
        "replicas: 1, differs: [{ what: shape web replicas, why: it costs half, until: 2999-01-31 }]";
    repo.write("andon.yaml", &strict.replace("replicas: 1", allowed));
    server.served(repo.propose("Say why"));
    assert!(serves(&server, "production", "v1"));
    // And both see the packages of this host, which are the same.
    let seen = |environment: &str| {
        let journal = server.journal();
        let of_it = |event: &&&Value| event["event"]["environment"] == environment;
        of_type(&journal, "packages_seen").iter().find(of_it).map(|event| event["event"].clone())
    };
    until("their packages are known", || seen("staging").is_some() && seen("production").is_some());
    let (staging, production) = (seen("staging").unwrap(), seen("production").unwrap());
    assert_eq!(staging["packages"], production["packages"], "{staging} {production}");
    if std::path::Path::new("/var/lib/dpkg/status").exists() {
        assert!(staging["kind"] == "dpkg" && staging["count"].as_u64() > Some(10), "{staging}");
    }
    assert!(!server.view("/environments/staging/diff/production")["rows"].to_string().contains("packages"));
}

#[test]
fn what_means_nothing_on_the_wire_ends_the_shell_and_nothing_else() {
    let (server, repo) = Server::with_project(&[("andon.yaml", LINE), ("app.py", HELLO)]);
    server.served(repo.propose("Begin"));
    let order = json!({ "why": "to see", "command": ["sleep", "1000"] }).to_string();
    for (place, garbage) in
        [&[9, 0, 0, 0, 0][..], &[0, 255, 255, 255, 255], &[2, 0, 0, 0, 1, 7]].iter().enumerate()
    {
        let mut wire = std::net::TcpStream::connect(("127.0.0.1", server.http)).unwrap();
        wire.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let head = format!(
            "POST /api/v1/shop/environments/production/shell HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {}\r\n\
             connection: upgrade\r\nupgrade: andon-shell\r\ncontent-length: {}\r\n\r\n{order}",
            server.token,
            order.len()
        );
        wire.write_all(head.as_bytes()).unwrap();
        let mut answer = [0; 12];
        wire.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 101");
        wire.write_all(garbage).unwrap();
        // The server lets go; a connection that is reset has ended as well.
        let _ = wire.read_to_end(&mut Vec::new());
        server.until("it is over", "/shells", |view| {
            let rows = view["rows"].as_array().unwrap();
            rows.len() == place + 1 && rows[0]["words"].to_string().contains("went away")
        });
        until("nothing of it runs", || marked(&format!("/shop/S{}\0", place + 1)).is_empty());
    }
    assert!(serves(&server, "production", "v1"));
}
