//! HAProxy behind the port: the suite that every plane passes, on the real one; and what is only true of it.
//!
//! Needs HAProxy; without it the tests say SKIPPED, and fail where CI=true.

#![allow(clippy::print_stdout, reason = "a test says what it skipped")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use andon_haproxy::{Config, HaProxy, config};
use andon_testkit::plane::{HOST, SERVICE, keeps_its_word};
use andon_traffic::{Candidate, Plane, RevisionName, Route, RouteTable};

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// HAProxy with the configuration for this service; none: it is not installed.
fn start(room: &Path, servers: usize) -> Option<(Running, SocketAddr)> {
    if !Command::new("haproxy").arg("-v").output().is_ok_and(|out| out.status.success()) {
        println!("SKIPPED: HAProxy behind the port (haproxy is not installed)");
        assert_ne!(
            std::env::var("CI").as_deref(),
            Ok("true"),
            "in CI a component that is missing is a failure"
        );
        return None;
    }
    let users = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let made = Config { socket: room.join("haproxy.sock"), bind: users.to_string(), servers };
    let table = RouteTable { routes: vec![Route::to(SERVICE, &[HOST], name("v1"), vec![])] };
    let file = room.join("haproxy.cfg");
    std::fs::write(&file, config(&made, &table)).unwrap();
    Some((again(room), users))
}

fn again(room: &Path) -> Running {
    let out = std::fs::File::create(room.join("haproxy.out")).unwrap();
    let mut command = Command::new("haproxy");
    command.args(["-db", "-f"]).arg(room.join("haproxy.cfg")).stdin(Stdio::null());
    Running(command.stderr(out.try_clone().unwrap()).stdout(out).spawn().unwrap())
}

fn name(text: &str) -> RevisionName {
    RevisionName(text.to_owned())
}

fn driven(room: &Path) -> Arc<HaProxy> {
    let plane = Arc::new(HaProxy::new(room.join("haproxy.sock"), None));
    let drives = Arc::clone(&plane);
    tokio::spawn(async move { drives.run().await });
    plane
}

async fn until(what: &str, seen: impl Fn() -> bool) {
    let within = async {
        while !seen() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), within)
        .await
        .unwrap_or_else(|_| panic!("never seen: {what}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn haproxy_keeps_the_word_of_a_plane() {
    let room = tempfile::tempdir().unwrap();
    let Some((_running, users)) = start(room.path(), 4) else { return };
    let plane = driven(room.path());
    tokio::task::spawn_blocking(move || keeps_its_word(&(plane as _), users)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_haproxy_that_is_gone_is_said_and_one_that_comes_back_is_told_everything() {
    let room = tempfile::tempdir().unwrap();
    let Some((running, _)) = start(room.path(), 4) else { return };
    let plane = driven(room.path());
    assert!(plane.behind().unwrap().contains("no table"));
    let mut route = Route::to(SERVICE, &[HOST], name("v1"), vec![([127, 0, 0, 1], 1001).into()]);
    route.candidate = Some(Candidate { revision: name("v2"), weight_bp: 700, salt: "shop R1".into() });
    route.backends.insert(name("v2"), vec![([127, 0, 0, 1], 1002).into()]);
    plane.set(&RouteTable { routes: vec![route] }).unwrap();
    until("it is in force", || plane.behind().is_none()).await;
    drop(running);
    until("it is missed", || plane.behind().is_some()).await;
    let said = plane.behind().unwrap();
    assert!(said.contains("hint: is HAProxy running"), "{said}");
    assert_eq!(plane.in_flight(SERVICE, &name("v1")), None, "nobody knows, so nothing may be taken away");
    let _running = again(room.path());
    until("it is told again", || plane.behind().is_none()).await;
    let signals = plane.signals();
    assert_eq!((signals[0].weight_bp, signals[0].salt.as_deref()), (700, Some("shop R1")));
    assert_eq!(plane.in_flight(SERVICE, &name("v1")), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_configuration_has_no_place_for_is_said_and_the_rest_is_done() {
    let room = tempfile::tempdir().unwrap();
    let Some((_running, _)) = start(room.path(), 1) else { return };
    let plane = driven(room.path());
    let other = Route::to("shop/production/api", &["api.example"], name("v1"), vec![]);
    let fits = Route::to(SERVICE, &[HOST], name("v1"), vec![([127, 0, 0, 1], 1001).into()]);
    plane.set(&RouteTable { routes: vec![other, fits] }).unwrap();
    until("it is seen", || plane.behind().is_some_and(|why| why.contains("no backends"))).await;
    let said = plane.behind().unwrap();
    assert!(said.contains("shop/production/api") && said.contains("andon haproxy config"), "{said}");
    assert_eq!(plane.signals().len(), 1, "the other service is served");
    let addrs = [1001, 1002].map(|port| ([127, 0, 0, 1], port).into());
    plane.set(&RouteTable { routes: vec![Route::to(SERVICE, &[HOST], name("v1"), addrs.to_vec())] }).unwrap();
    until("it is seen", || plane.behind().is_some_and(|why| why.contains("2 instances"))).await;
}
