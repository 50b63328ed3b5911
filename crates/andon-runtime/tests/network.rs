//! Instances in a network of their environment: the same port for all, names for each other, no way to other environments.
#![allow(clippy::unwrap_used, reason = "all of it is test code")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use andon_model::EnvironmentName;
use andon_runtime::{Runtime, Said, ShellOrder, Spec};
use andon_testkit::leaks::Traces;
use support::{Host, shell, until};

/// Says its service's name to whoever connects, and asks others on request: `GET /NAME`.
const SERVER: &str = r#"
import http.server, os, socket, urllib.request
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/":
            text = os.environ["NAME"]
        else:
            try:
                text = urllib.request.urlopen("http:/" + self.path, timeout=2).read().decode()
            except Exception as error:
                text = "no answer: " + str(error)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(text.encode())
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("", int(os.environ["PORT"])), Answer).serve_forever()
"#;

fn environment(name: &str) -> EnvironmentName {
    name.parse().unwrap()
}

/// A host with networks, or none and a word about it.
fn with_network() -> Option<Host> {
    let host = Host::new();
    match &host.runtime.means().network {
        Ok(()) => Some(host),
        Err(why) => {
            eprintln!("SKIPPED: network of its own ({why})");
            assert!(std::env::var("CI").as_deref() != Ok("true"), "the test was skipped: {why}");
            None
        }
    }
}

fn serve(host: &Host, id: &str, place: &str, service: &str, used: &mut BTreeSet<SocketAddr>) -> SocketAddr {
    let at = host.runtime.place(&environment(place), used, Some(8080)).unwrap();
    used.insert(at);
    let spec = Spec {
        command: ["python3", "-c", SERVER].map(str::to_owned).into(),
        env: BTreeMap::from([("NAME".into(), format!("{service} in {place}"))]),
        labels: BTreeMap::from([("service".into(), service.into()), ("revision".into(), "r1".into())]),
        port: at.port(),
        address: Some(at.ip()),
        environment: Some(environment(place)),
        ..shell(id, "")
    };
    host.start(&spec).unwrap();
    until("it listens", || TcpStream::connect_timeout(&at, Duration::from_secs(1)).is_ok());
    at
}

fn get(at: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(at).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text.split_once("\r\n\r\n").unwrap().1.to_owned()
}

#[test]
fn services_of_an_environment_have_productions_port_and_find_each_other_by_name() {
    let Some(host) = with_network() else { return };
    let mut traces =
        Traces::of(host.dir.path()).named(&host.runtime.host_name()).named(&host.runtime.network_name());
    let mut used = BTreeSet::new();
    let shop = serve(&host, "i1", "staging", "shop", &mut used);
    let cart = serve(&host, "i2", "staging", "cart", &mut used);
    let other = serve(&host, "i3", "production", "shop", &mut used);
    traces.note();
    assert!(used.len() == 3 && used.iter().all(|at| at.port() == 8080), "{used:?}");
    assert_eq!(get(shop, "/"), "shop in staging");
    assert_eq!(get(shop, "/cart:8080/"), "cart in staging", "the first was started before the second");
    assert_eq!(get(cart, "/shop:8080/"), "shop in staging");
    assert_eq!(get(other, "/shop:8080/"), "shop in production");
    let across = get(other, &format!("/{}:8080/", cart.ip()));
    assert!(across.starts_with("no answer"), "one environment reaches another: {across}");
    for id in ["i1", "i2", "i3"] {
        host.runtime.remove(id).unwrap();
    }
    assert!(traces.left().iter().any(|line| line.starts_with("network namespace")), "{:?}", traces.left());
    host.runtime.clear(&environment("staging")).unwrap();
    host.runtime.clear(&environment("production")).unwrap();
    host.runtime.clear(&environment("production")).unwrap();
    assert_eq!(traces.left(), Vec::<String>::new());
}

#[test]
fn a_network_without_instances_is_gone_after_the_next_start_of_the_server() {
    let Some(host) = with_network() else { return };
    let traces = Traces::of(host.dir.path()).named(&host.runtime.network_name());
    let mut used = BTreeSet::new();
    let kept = serve(&host, "i1", "staging", "shop", &mut used);
    host.runtime.place(&environment("preview"), &used, Some(8080)).unwrap();
    assert_eq!(traces.left().iter().filter(|line| line.starts_with("network device")).count(), 2);
    let next = support::runtime(host.dir.path());
    next.means();
    assert_eq!(traces.left().iter().filter(|line| line.starts_with("network device")).count(), 1);
    assert_eq!(get(kept, "/"), "shop in staging", "what serves is left alone");
    next.remove("i1").unwrap();
    next.clear(&environment("staging")).unwrap();
    assert_eq!(traces.left(), Vec::<String>::new());
}

#[test]
fn a_shell_is_in_the_network_of_its_instance() {
    let Some(host) = with_network() else { return };
    serve(&host, "i1", "staging", "web", &mut BTreeSet::new());
    // The address that every host has for itself: only inside of the instance does its service answer there.
    let ask =
        "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:8080/').read().decode())";
    let command = ["python3", "-c", ask].map(str::to_owned).into();
    let name = format!("{}#1", host.dir.path().display());
    let mut shell = host.runtime.shell("i1", &ShellOrder { name, command, terminal: None }).unwrap();
    let (mut said, mut ended) = (Vec::new(), None);
    until("it ended", || {
        match shell.output.try_recv() {
            Ok(Said::Out(bytes) | Said::Err(bytes)) => said.extend(bytes),
            Ok(Said::Ended(code)) => ended = code,
            Err(_) => {}
        }
        ended.is_some()
    });
    let said = String::from_utf8_lossy(&said).into_owned();
    assert_eq!((said.as_str(), ended), ("web in staging\n", Some(0)));
    host.runtime.remove("i1").unwrap();
    host.runtime.clear(&environment("staging")).unwrap();
}
