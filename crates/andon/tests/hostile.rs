//! Bad input at every door of the real server: files, pushes, reports, logs, artifacts, services, requests. Each gets a clear answer, nothing is
//! lost by it, and the line goes on.

#![allow(clippy::print_stdout, reason = "a test says what it measured")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::{Value, json};
use support::{HELLO, Server, number, of_type};

/// The smallest file that is right.
const GREEN: &str = "version: 1\npipeline: { jobs: { unit: { run: \"true\" } } }\n";

/// Then the line still carries a green change to trunk.
fn the_line_runs(server: &Server, repo: &support::Repo) {
    repo.try_follow();
    repo.write("andon.yaml", GREEN);
    repo.write("still", &format!("{:?}", std::time::Instant::now()));
    let change = repo.propose("The line still runs");
    assert_eq!(server.decided(change)["row"]["standing"], "landed");
}

/// A request as bytes: status and body. For what a well-behaved client would not send.
fn raw(server: &Server, request: &str) -> (u16, String) {
    let mut socket = TcpStream::connect(("127.0.0.1", server.http)).unwrap();
    socket.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
    // The server may answer and close before it has read everything.
    let _ = socket.write_all(request.as_bytes());
    let mut bytes = Vec::new();
    let _ = socket.read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    (status, text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}

fn request(server: &Server, method: &str, path: &str, headers: &str, body: &str) -> (u16, String) {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: andon\r\nconnection: close\r\nauthorization: Bearer {}\r\n",
        server.token
    );
    raw(server, &format!("{head}{headers}content-length: {}\r\n\r\n{body}", body.len()))
}

fn no_escapes(words: &str) {
    let shown: String =
        words.chars().filter(|c| c.is_control() && !matches!(c, '\n' | '\t' | '\r')).collect();
    assert!(shown.is_empty(), "control characters reach a terminal: {words:?}");
}

#[test]
fn whoever_hangs_up_in_the_middle_of_a_command_stops_nobody_else() {
    let (server, _repo) = Server::with_project(&[]);
    let mut dice = support::Dice::of_environment();
    for n in 0..300 {
        let head = format!(
            "POST /api/v1/shop/flags/f{n}/create HTTP/1.1\r\nhost: andon\r\nauthorization: Bearer {}",
            server.token
        );
        let mut socket = TcpStream::connect(("127.0.0.1", server.http)).unwrap();
        socket
            .write_all(
                format!("{head}\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{{}}")
                    .as_bytes(),
            )
            .unwrap();
        support::pass(dice.between(0, 5));
        // Gone, whatever the server was doing for it.
    }
    let (status, said) = server.post("/api/v1/shop/flags/after/create", &json!({}));
    assert_eq!(status, 200, "{said}");
    // What was begun was done whole: it is told as it is kept.
    let journal = server.journal();
    let told = server.view("/flags").to_string();
    for event in of_type(&journal, "flag_changed") {
        let flag = event["event"]["flag"].as_str().unwrap();
        assert!(told.contains(&format!("\"{flag}\"")), "{flag} is in the journal and not known");
    }
}

#[test]
fn a_file_with_mistakes_is_refused_with_its_place_and_a_hint() {
    let (server, repo) = Server::with_project(&[("andon.yaml", GREEN)]);
    server.decided(repo.propose("Begin"));
    let levels: String = (1..12)
        .map(|n| format!("  l{n}: &l{n} [*l{0},*l{0},*l{0},*l{0},*l{0},*l{0},*l{0},*l{0},*l{0}]\n", n - 1))
        .collect();
    let bomb = format!("version: 1\npipeline:\n  l0: &l0 [lol,lol,lol]\n{levels}");
    let files = [
        ("version: 1\npipeline: {\n", true),
        ("version: 1\npipelines: {}\n", true),
        ("version: 1\npipeline: { jobs: { unit: { run: 'true', shell: bash } } }\n", true),
        ("version: 1\npipeline: { jobs: { unit: { run: [1, 2] } } }\n", true),
        ("version: 1\npipeline: { jobs: { 'a/../b': { run: 'true' } } }\n", true),
        ("version: 1\npipeline: { jobs: { unit: { run: 'true', timeout: -5 } } }\n", true),
        ("\u{1b}[31m: \u{7}\n", true),
        ("", false),
        (bomb.as_str(), true),
    ];
    for (text, with_place) in files {
        repo.try_follow();
        repo.write("andon.yaml", text);
        let checked = server.cli(&["check", repo.dir.join("andon.yaml").to_str().unwrap()]);
        let said =
            String::from_utf8_lossy(&checked.stderr).into_owned() + &String::from_utf8_lossy(&checked.stdout);
        assert!(!checked.status.success(), "{text:?} is taken");
        assert!(said.contains("hint: "), "{text:?}: {said}");
        no_escapes(&said);
        if with_place {
            let place = said.split("andon.yaml:").nth(1).unwrap_or_else(|| panic!("{text:?}: {said}"));
            assert!(place.starts_with(|c: char| ('1'..='9').contains(&c)), "{text:?}: {said}");
        }
        let change = repo.propose("A file with a mistake");
        let view = server.decided(change);
        assert_eq!(view["row"]["standing"], "refused", "{text:?}");
        assert!(view.to_string().contains("hint: "), "{text:?}: {}", view["row"]["words"]);
        no_escapes(view["row"]["words"].as_str().unwrap());
    }
    the_line_runs(&server, &repo);
}

#[test]
fn pushed_names_reach_neither_a_command_line_nor_a_terminal_unchecked() {
    let (server, repo) = Server::with_project(&[("andon.yaml", GREEN)]);
    server.decided(repo.propose("Begin"));
    repo.follow();
    repo.write("a", "a");
    repo.commit("Sneak in");
    for name in [
        "--upload-pack=x",
        "refs/for/main/../x",
        "refs/for/../../heads/main",
        "refs/for/main\n",
        "refs/for/<b>main</b>",
        "refs/for/main\u{1b}[31m",
        "refs/for/$(touch pwned)",
        "refs/heads/main",
        "refs/for/",
    ] {
        let (ok, words) = repo.push_as(&[&format!("HEAD:{name}")]);
        assert!(!ok, "{name:?} was taken: {words}");
        no_escapes(&words);
    }
    assert!(server.view("/queue")["open"].as_array().unwrap().is_empty());
    // A title and a topic from a terminal that wants to paint.
    repo.write("b", "b");
    repo.commit("Red \u{1b}[31malert\u{7} <script>alert(1)</script>");
    let (ok, words) = repo.push_as(&["-o", "topic=a\u{1b}[2Jb\u{7}", "HEAD:refs/for/main"]);
    assert!(ok, "{words}");
    no_escapes(&words);
    let view = server.decided(number(&words));
    assert_eq!(view["row"]["standing"], "landed");
    let text = view.to_string();
    assert!(!text.contains("\\u001b") && !text.contains('\u{1b}'), "{text}");
    // Too many refs, too many options.
    let refs: Vec<String> = (0..120).map(|n| format!("HEAD:refs/for/x{n}")).collect();
    let (ok, words) = repo.push_as(&refs.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(!ok && words.contains("100"), "{words}");
    the_line_runs(&server, &repo);
}

#[test]
fn what_tests_are_called_and_say_is_shown_without_its_terminal_codes() {
    let yaml = r#"
version: 1
pipeline:
  jobs:
    unit:
      run: |
        printf '<testsuite><testcase classname="<b>" name="&lt;img src=x onerror=alert(1)&gt; \033[31mred\033[0m"><failure message="\033[2Jgone &amp; away"/></testcase></testsuite>' | tr -d '<' > /dev/null
        printf '<testsuite><testcase classname="&lt;b&gt;" name="&lt;img src=x&gt; &#27;[31mred \033[1mraw"><failure message="\033[2Jgone &amp; away"/></testcase></testsuite>' > unit.xml
        exit 1
      reports: { junit: unit.xml }
"#;
    let (server, repo) = Server::with_project(&[("andon.yaml", yaml)]);
    let change = repo.propose("Paint");
    let view = server.decided(change);
    assert_eq!(view["row"]["standing"], "refused");
    let words = view["row"]["words"].as_str().unwrap();
    no_escapes(words);
    let run = view["runs"][0]["run"].as_u64().or_else(|| view["runs"][0]["id"].as_u64()).unwrap_or(1);
    let whole = server.view(&format!("/runs/{run}"));
    assert!(!whole.to_string().contains("\\u001b"), "{whole:#}");
    let waited = server.cli(&["change", "show", &change.to_string()]);
    no_escapes(&String::from_utf8_lossy(&waited.stdout));
    repo.try_follow();
    the_line_runs(&server, &repo);
}

#[test]
fn reports_that_are_huge_or_torn_are_read_or_refused_and_named() {
    let yaml = r#"
version: 1
pipeline:
  jobs:
    unit:
      run: |
        python3 - <<'END'
        case = '<testcase classname="shop.basket" name="adds %07d" time="0.001"><system-out>' + 'x' * 900 + '</system-out></testcase>'
        with open('unit.xml', 'w') as out:
            out.write('<testsuites><testsuite name="big">')
            for n in range(105_000):
                out.write(case % n)
            out.write('</testsuite></testsuites>')
        END
        test $(stat -c %s unit.xml) -gt 100000000
      reports: { junit: unit.xml }
"#;
    let (server, repo) = Server::with_project(&[("andon.yaml", yaml)]);
    let view = server.decided(repo.propose("A hundred megabytes of tests"));
    assert_eq!(view["row"]["standing"], "landed", "{view:#}");
    let tests = server.journal();
    assert_eq!(of_type(&tests, "run_finished")[0]["event"]["tests"]["passed"], 105_000);
    for (report, script) in [
        ("coverage: cov.lcov", r"head -c 100000 /dev/urandom > cov.lcov"),
        ("junit: unit.xml", r"head -c 100000 /dev/urandom > unit.xml"),
        ("junit: unit.xml", "true"),
        ("junit: unit.xml", "ln -s /etc/passwd unit.xml"),
        ("junit: unit.xml", "mkfifo unit.xml"),
    ] {
        repo.try_follow();
        repo.write("andon.yaml", &format!("version: 1\npipeline:\n  jobs:\n    unit:\n      run: |\n        {script}\n      reports: {{ {report} }}\n"));
        let view = server.decided(repo.propose(&format!("Torn: {script}")));
        assert_eq!(view["row"]["standing"], "refused", "{script}");
        let words = view["row"]["words"].as_str().unwrap();
        assert!(words.contains("unit.xml") || words.contains("cov.lcov"), "{script}: {words}");
        no_escapes(words);
    }
    // Of a torn report what is whole counts, the exit status of its job decides, and the run says that it is torn.
    for (report, script, says) in [
        (
            "coverage: cov.lcov",
            r"printf 'TN:\nSF:src/shop.py\nDA:1,1\nDA:2,' > cov.lcov",
            "ends in the middle of a file",
        ),
        ("junit: unit.xml", r#"printf '<testsuite><testcase name="a"/><testcase name=' > unit.xml"#, "end"),
    ] {
        repo.try_follow();
        let yaml = format!(
            "version: 1\npipeline:\n  jobs:\n    unit:\n      run: |\n        {script}\n      reports: {{ {report} }}\n"
        );
        repo.write("andon.yaml", &yaml);
        let view = server.decided(repo.propose("Torn"));
        let run = of_type(&server.journal(), "run_finished").last().unwrap()["event"]["run"].clone();
        let run = server.view(&format!("/runs/{run}"));
        let warned = run["warnings"].to_string();
        assert!(warned.contains(says), "{script}: {warned}\n{view:#}\n{run:#}");
    }
    the_line_runs(&server, &repo);
}

/// Bytes of memory that the server holds, from the kernel: (now, most ever).
fn memory(server: &Server) -> (u64, u64) {
    let text = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let field = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    };
    (field("VmRSS:"), field("VmHWM:"))
}

#[test]
fn a_job_that_prints_without_end_of_line_costs_disk_and_no_memory() {
    let megabytes: u64 = std::env::var("ANDON_LOG_MB").ok().and_then(|mb| mb.parse().ok()).unwrap_or(256);
    let yaml = format!(
        "version: 1\npipeline: {{ jobs: {{ unit: {{ run: \"head -c {megabytes}M /dev/zero | tr '\\\\0' x\" }} }} }}\n"
    );
    let (server, repo) = Server::with_project(&[("andon.yaml", GREEN)]);
    server.decided(repo.propose("Begin"));
    repo.follow();
    repo.write("andon.yaml", &yaml);
    let (before, _) = memory(&server);
    let view = server.decided(repo.propose("Talk"));
    assert_eq!(view["row"]["standing"], "landed", "{view:#}");
    // The whole log is kept, and can be read without the server holding it.
    let request = format!(
        "GET /api/v1/shop/runs/2/jobs/unit/log HTTP/1.1\r\nhost: andon\r\nconnection: close\r\nauthorization: Bearer {}\r\n\r\n",
        server.token
    );
    let mut socket = TcpStream::connect(("127.0.0.1", server.http)).unwrap();
    socket.write_all(request.as_bytes()).unwrap();
    let (mut chunk, mut x) = (vec![0; 1 << 16], 0);
    loop {
        match socket.read(&mut chunk).unwrap() {
            0 => break,
            n => x += chunk[..n].iter().filter(|byte| **byte == b'x').count() as u64,
        }
    }
    assert!((megabytes << 20..(megabytes << 20) + 200).contains(&x), "{x} of {}", megabytes << 20);
    // Nor does a page or view of the run.
    let run = server.view("/runs/2");
    assert!(run.to_string().len() < 4 << 20);
    let (after, most) = memory(&server);
    println!(
        "{megabytes} MB of log: memory {} MB before, {} MB after, {} MB at most",
        before >> 20,
        after >> 20,
        most >> 20
    );
    assert!(most < before + (48 << 20), "{} MB at most, {} MB before", most >> 20, before >> 20);
    the_line_runs(&server, &repo);
}

#[test]
fn an_artifact_that_leads_outside_is_refused_by_name() {
    let (server, repo) = Server::with_project(&[("andon.yaml", GREEN)]);
    server.decided(repo.propose("Begin"));
    for (make, artifact, says) in [
        ("mkdir dist && ln -s ../../x dist/l", "dist", "outside of the artifact"),
        ("mkdir dist && ln -s /etc dist/l", "dist", "outside of the artifact"),
        ("ln -s /etc dist", "dist", "leads out of the working copy"),
        ("true", "dist", "not there"),
        ("mkdir dist && mkfifo dist/p", "dist", "neither a file nor a folder"),
    ] {
        repo.try_follow();
        repo.write(
            "andon.yaml",
            &format!(
                "version: 1\npipeline: {{ jobs: {{ package: {{ run: '{make}', artifact: {artifact} }} }} }}\n"
            ),
        );
        let view = server.decided(repo.propose(&format!("Lead outside: {make}")));
        assert_eq!(view["row"]["standing"], "refused", "{make}");
        assert!(view["row"]["words"].as_str().unwrap().contains(says), "{make}: {}", view["row"]["words"]);
    }
    let journal = server.journal();
    assert!(of_type(&journal, "artifact_built").is_empty());
    the_line_runs(&server, &repo);
}

#[test]
fn a_service_that_does_not_come_up_stops_the_line_and_moves_nobody() {
    let line = |command: &str| {
        format!(
            "version: 1
pipeline: {{ jobs: {{ package: {{ run: 'mkdir dist && cp app.py dist/', artifact: dist }} }} }}
services: {{ web: {{ command: {command}, replicas: 1, health: /, start_within: 3s }} }}
environments: {{ production: {{ release: all-at-once }} }}
"
        )
    };
    let (server, repo) =
        Server::with_project(&[("andon.yaml", &line("[python3, app.py, $PORT]")), ("app.py", HELLO)]);
    server.served(repo.propose("Begin"));
    for (round, (command, app, says)) in [
        ("[no-such-program]", HELLO.to_owned(), "no-such-program"),
        (
            "[python3, app.py, $PORT]",
            "raise SystemExit('the cellar is flooded')\n".to_owned(),
            "the cellar is flooded",
        ),
        (
            "[python3, app.py, $PORT]",
            HELLO.replace("send_response(200)", "send_response(500)").replace("v1", "v9"),
            "500",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        repo.follow();
        repo.write("andon.yaml", &line(command));
        repo.write("app.py", &format!("{app}# {round}\n"));
        let andon = round + 1;
        let words = format!("Round {round}");
        repo.propose(&if round == 0 { words } else { format!("{words}\n\nFixes-Andon: A{round}") });
        let stopped = server.until("the cord is pulled", "/andons", |view| {
            view["rows"].as_array().is_some_and(|rows| rows.len() == andon)
        });
        let why = stopped["rows"].to_string();
        assert!(why.contains(says), "{says}: {stopped:#}");
        let (status, body) = server.visit("web.production.shop.localhost", "/");
        assert!(status == 200 && body.starts_with("v1"), "{says}: users moved: {status} {body}");
        let released =
            server.post(&format!("/api/v1/shop/andons/{andon}/release"), &json!({ "why": "next round" }));
        assert_eq!(released.0, 200, "{}", released.1);
    }
    repo.follow();
    repo.write("andon.yaml", &line("[python3, app.py, $PORT]"));
    repo.write("app.py", &HELLO.replace("v1", "v2"));
    server.served(repo.propose("Mended"));
    assert!(server.visit("web.production.shop.localhost", "/").1.starts_with("v2"));
}

#[test]
fn requests_that_make_no_sense_get_an_error_and_a_shape() {
    let (server, repo) = Server::with_project(&[("andon.yaml", GREEN)]);
    server.decided(repo.propose("Begin"));
    let shaped = |what: &str, expected: &[u16], (status, body): (u16, String)| {
        assert!(expected.contains(&status), "{what}: {status} {body}");
        let value: Value =
            serde_json::from_str(&body).unwrap_or_else(|_| panic!("{what}: {status} and not JSON: {body:?}"));
        assert!(value["error"].as_str().is_some_and(|error| !error.is_empty()), "{what}: {body}");
        assert!(value.get("hint").is_some(), "{what}: {body}");
        no_escapes(value["error"].as_str().unwrap());
    };
    let kind = "content-type: application/json\r\n";
    let post = |path: &str, body: &str| request(&server, "POST", path, kind, body);
    let flag = "/api/v1/shop/flags/f/create";
    shaped("5 MB", &[413], post(flag, &format!("{{\"why\":\"{}\"}}", "x".repeat(5 << 20))));
    shaped("torn JSON", &[400], post(flag, "{\"why\":"));
    shaped("no JSON", &[400], post(flag, "why=not"));
    shaped("wrong type", &[400, 422], post(flag, "{\"why\": 5}"));
    shaped("unknown field", &[400, 422], post(flag, "{\"because\": \"x\"}"));
    shaped("deep JSON", &[400, 422], post(flag, &"[".repeat(100_000)));
    shaped(
        "a form instead",
        &[400, 415],
        request(&server, "POST", flag, "content-type: application/x-www-form-urlencoded\r\n", "why=x"),
    );
    shaped("no kind at all", &[400, 415], request(&server, "POST", flag, "", "{}"));
    shaped("wrong method", &[405], request(&server, "DELETE", flag, "", ""));
    shaped("a query that is none", &[400], request(&server, "GET", "/api/v1/shop/journal?after=x", "", ""));
    shaped("a body that is no text", &[400], post("/api/v1/shop/flags.json", "{\"flags\": {\"a\": 7}}"));
    shaped("a name with a line end", &[400, 404, 422], post("/api/v1/projects", "{\"name\": \"a\\nb\"}"));
    shaped("a name that climbs", &[400, 422], post("/api/v1/projects", "{\"name\": \"../../x\"}"));
    shaped(
        "a trunk that is an option",
        &[400, 422],
        post("/api/v1/projects", "{\"name\": \"x\", \"trunk\": \"--upload-pack=x\"}"),
    );
    shaped("a share beyond all", &[400, 409], post("/api/v1/shop/flags/f/ramp", "{\"percent\": 1e308}"));
    shaped(
        "a life beyond all",
        &[400, 404, 422],
        post(
            "/api/v1/shop/environments",
            "{\"name\":\"x\",\"like\":\"production\",\"ttl\":\"99999999999999999999d\"}",
        ),
    );
    let (status, _) =
        request(&server, "GET", "/api/v1/me", &format!("x-long: {}\r\n", "x".repeat(1 << 20)), "");
    assert!([400, 431, 0].contains(&status), "a header of a megabyte: {status}");
    let (status, _) = request(&server, "GET", &format!("/api/v1/{}", "x".repeat(1 << 20)), "", "");
    assert!([400, 414, 431, 404, 0].contains(&status), "a path of a megabyte: {status}");
    assert_eq!(raw(&server, "\u{16}\u{3}\u{1}nonsense\r\n\r\n").0, 400);
    for path in [
        "/api/v1/..%2f..%2fetc/queue",
        "/api/v1/shop/changes/..%2f1",
        "/api/v1/shop/runs/..%2f1",
        "/api/v1/shop/runs/1/jobs/..%2f..%2f..%2fjournal.db/log",
        "/api/v1/shop/runs/1/jobs/%2e%2e/log",
        "/api/v1/shop/artifacts/..%2f..%2fjournal.db",
        "/api/v1/shop/artifacts/sha256:..%2f..%2fjournal.db",
        "/api/v1/shop/environments/..%2f..%2fx",
        "/api/v1/shop/instances/..%2f..%2fi1/log",
        "/api/v1/shop/instances/%00/log",
        "/api/v1/shop/releases/..%2f1",
        "/api/v1/shop/andons/..%2f1",
        "/..%2f..%2fetc.git/info/refs?service=git-upload-pack",
        "/shop.git/info/refs?service=git-shell",
        "/api/v1/shop/changes/18446744073709551616",
        "/api/v1/shop/changes/-1",
        "/api/v1/shop/changes/%F0%9F%A6%80",
        "/api/v1/shop/changes/%ff",
        "/../../etc/passwd",
    ] {
        shaped(path, &[400, 403, 404], request(&server, "GET", path, "", ""));
    }
    // OFREP has a shape of its own: errorCode.
    for (body, key) in
        [("{\"context\":", "f"), ("[]", "f"), ("", "f"), ("{\"context\": 5}", "f"), ("{}", "%00")]
    {
        let (status, said) = post(&format!("/shop/ofrep/v1/evaluate/flags/{key}"), body);
        let value: Value = serde_json::from_str(&said).unwrap_or_default();
        assert!([400, 404].contains(&status) && value["errorCode"].is_string(), "{body:?}: {status} {said}");
    }
    // Somebody else's role.
    let viewer = server.token_with(&["viewer"]);
    let (status, said) = server.post_as(&viewer, flag, &json!({}));
    assert_eq!(status, 403, "{said}");
    assert!(said["error"].as_str().unwrap().contains("releaser"), "{said}");
    assert!(of_type(&server.journal(), "flag_changed").is_empty());
    the_line_runs(&server, &repo);
    assert!(!server.stderr().contains("panicked"), "{}", server.stderr());
}
