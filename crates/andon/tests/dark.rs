//! A dark launch on the real binary: what differs is named field by field, what always differs is noise, and what was counted outlives the server.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod support;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::Value;
use support::Server;

const HOST: &str = "web.production.shop.localhost";

const APP: &str = r#"
import sys, http.server, json, time
PRICE = 10
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        goods = [{"name": "tea", "price": PRICE}, {"name": "cup", "price": PRICE}]
        body = json.dumps({"items": goods, "made_at": time.time_ns(), "who": {"session_token": "s3cr3t"}}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
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
services: { web: { command: [python3, app.py, $PORT], health: / } }
environments: { production: { release: all-at-once } }
releases: { shadow: { dark: { mirror: 100, for: 15s, max_different: 1% } } }
"#;

/// Users who ask until told to stop; a request that fails is counted.
fn ask(router: u16, stop: &AtomicBool, failed: &AtomicU64) {
    let config = ureq::Agent::config_builder().http_status_as_error(false);
    let agent: ureq::Agent = config.build().into();
    while !stop.load(Ordering::SeqCst) {
        let answer = agent.get(format!("http://127.0.0.1:{router}/goods")).header("host", HOST).call();
        let fine = answer
            .is_ok_and(|mut answer| answer.status() == 200 && answer.body_mut().read_to_string().is_ok());
        failed.fetch_add(u64::from(!fine), Ordering::SeqCst);
        support::pass(10);
    }
}

fn field<'a>(view: &'a Value, at: &str) -> Option<&'a Value> {
    view["differences"].as_array()?.iter().find(|field| field["at"] == at)
}

/// How many answers were compared.
fn compared(view: &Value) -> u64 {
    let labels = view["facts"].as_array().into_iter().flatten().filter_map(|fact| fact["label"].as_str());
    let of = labels.filter(|label| label.contains("mirrored answers differ"));
    of.flat_map(|label| label.split_whitespace().filter_map(|word| word.parse().ok())).next().unwrap_or(0)
}

#[test]
fn a_dark_launch_names_the_one_field_that_differs_and_learns_the_one_that_always_does() {
    let (server, repo) = Server::with_project(&[("app.py", APP), ("andon.yaml", LINE)]);
    server.served(repo.propose("Sell"));
    let router = server.router;
    let (stop, failed) = (AtomicBool::new(false), AtomicU64::new(0));
    let stop_asking = |stop: &AtomicBool| stop.store(true, Ordering::SeqCst);

    // The new revision says another price, and nothing else.
    repo.follow();
    repo.write("andon.yaml", &LINE.replace("release: all-at-once", "release: shadow"));
    repo.write("app.py", &APP.replace("PRICE = 10", "PRICE = 12"));
    let dearer = repo.propose("Raise the price");
    assert_eq!(server.decided(dearer)["row"]["standing"], "landed");
    let view = std::thread::scope(|scope| {
        scope.spawn(|| ask(router, &stop, &failed));
        let view = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            server.until("it is taken back", "/releases/2", |view| view["row"]["state"] == "taken_back")
        }));
        stop_asking(&stop);
        view.unwrap()
    });
    assert_eq!(failed.load(Ordering::SeqCst), 0, "users notice nothing");
    let counted: Vec<&str> = view["differences"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|field| field["noise"] == false)
        .map(|field| field["at"].as_str().unwrap())
        .collect();
    assert_eq!(counted, ["body /items/*/price"], "{:#}", view["differences"]);
    let noise = field(&view, "body /made_at").unwrap();
    assert_eq!(noise["noise"], true, "{noise}");
    let price = field(&view, "body /items/*/price").unwrap();
    let sample = &price["samples"][0];
    assert_eq!(
        (sample["request"].as_str(), sample["stable"].as_str(), sample["canary"].as_str()),
        (Some("GET /goods"), Some("10"), Some("12"))
    );
    let why = server.cli(&["release", "why", "R2"]);
    let said = String::from_utf8_lossy(&why.stdout).into_owned();
    assert!(said.contains("body /items/*/price") && said.contains("10 became 12"), "{said}");
    assert!(said.contains("body /made_at") && said.contains("noise"), "{said}");
}

#[test]
fn what_always_differs_ends_no_dark_launch_and_its_counts_outlive_the_server() {
    let (mut server, repo) = Server::with_project(&[("app.py", APP), ("andon.yaml", LINE)]);
    server.served(repo.propose("Sell"));
    repo.follow();
    repo.write("andon.yaml", &LINE.replace("release: all-at-once", "release: shadow"));
    repo.write("app.py", &format!("# The same in another dress.{APP}"));
    assert_eq!(server.decided(repo.propose("Dress up"))["row"]["standing"], "landed");
    server.until("copies are made", "/releases/2", |view| {
        assert_eq!(server.visit(HOST, "/goods").0, 200);
        compared(view) > 50
    });
    // What was put aside is what counts: the last seconds may be lost.
    support::pass(6_000);
    server.kill();
    server.start();
    server.until("it is remembered", "/releases/2", |view| compared(view) > 50);
    let view = server.until("it ends by time", "/releases/2", |view| view["row"]["state"] != "under_way");
    assert_eq!(view["row"]["state"], "dark_ended", "{view:#}");
    assert!(field(&view, "body /made_at").unwrap()["noise"] == true, "{view:#}");
    assert!(view["facts"].as_array().unwrap().iter().any(|fact| fact.to_string().contains("noise")));
}
