//! A host at the end of a connection: what is sent to it arrives whole or not at all, and noise at its door moves nothing.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

mod joined;
mod station;

use std::io::{self, Read};

use andon_dial::greeting::Greeting;
use andon_runtime::remote::trust::Identity;
use andon_runtime::remote::wire::Hello;
use andon_runtime::remote::{self, Joining};
use andon_runtime::{RuntimeError, Spec};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use joined::Joined;
use station::{artifact, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

const EXE: &str = env!("CARGO_BIN_EXE_andon-shim-test");

/// An artifact that ends where it must not.
struct Torn<'a>(&'a [u8]);

impl Read for Torn<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match Read::read(&mut self.0, into) {
            Ok(0) => Err(io::Error::other("the disk is gone")),
            read => read,
        }
    }
}

#[test]
fn an_artifact_that_breaks_off_leaves_nothing_half_made() {
    let room = tempfile::tempdir().unwrap();
    let joined = Joined::new(room.path());
    let (runtime, whole) = (joined.runtime(), artifact());
    let spec = Spec::new("i1", &["./station", "exit", "0"], 4000);
    for cut in [0, 100, whole.len() / 2, whole.len() - 1] {
        let error = runtime.prepare(&spec, &mut Torn(&whole[..cut])).unwrap_err();
        assert!(error.to_string().contains("the disk is gone"), "{error}");
        let there = || std::fs::read_dir(joined.data.join("instances/shop")).map_or(0, |dir| dir.count());
        until("what was begun is removed", || (there() == 0).then_some(()));
    }
    assert!(matches!(runtime.start(&spec), Err(RuntimeError::NotPrepared(_))));
    runtime.prepare(&spec, &mut &whole[..]).unwrap();
    runtime.prepare(&spec, &mut &whole[..]).unwrap();
    runtime.start(&spec).unwrap();
    runtime.remove("i1").unwrap();
}

#[test]
fn a_host_that_is_not_connected_says_so_and_what_was_touched_meanwhile_is_looked_at_when_it_is_back() {
    let room = tempfile::tempdir().unwrap();
    let joined = Joined::new(room.path());
    let runtime = joined.runtime();
    assert_eq!(runtime.touched(), None, "at first everything is looked at");
    assert_eq!(runtime.touched(), Some(Default::default()));
    let mut changes = runtime.watch().unwrap();
    joined.ends();
    let error = runtime.list().unwrap_err();
    assert!(matches!(&error, RuntimeError::Silent { host, .. } if host == "n1"), "{error}");
    assert!(error.to_string().contains("hint:"));
    assert_eq!(runtime.touched(), None);
    changes.mark_unchanged();
    let runtime = joined.anew();
    assert_eq!(runtime.touched(), None);
    until("whoever listens hears that it is back", || changes.has_changed().unwrap().then_some(()));
    assert_eq!(runtime.list().unwrap(), []);
}

#[test]
fn a_host_that_leaves_ends_everything_that_it_ran() {
    let room = tempfile::tempdir().unwrap();
    let joined = Joined::new(room.path());
    let runtime = joined.runtime();
    let spec = Spec::new("i1", &["./station", "wait"], 4000);
    runtime.prepare(&spec, &mut &artifact()[..]).unwrap();
    runtime.start(&Spec { stop_within: andon_model::Span::secs(1), ..spec }).unwrap();
    let pid = runtime.list().unwrap()[0].pid.unwrap();
    joined.fleet.dismiss(&joined.host).unwrap();
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    assert!(!joined.data.join("instances").exists());
    joined.fleet.forget(&joined.host);
    until("it remembers nothing", || (!joined.data.join("host.json").exists()).then_some(()));
}

#[test]
fn noise_from_the_other_end_moves_nothing_and_ends_nobody() {
    let room = tempfile::tempdir().unwrap();
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    tokio.block_on(async {
        let identity = Identity::open(&room.path().join("door.json")).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let joining = Joining {
            server: listener.local_addr().unwrap().to_string(),
            token: identity.token(remote::PREFIX, &"0".repeat(32)),
            name: "n1".parse().unwrap(),
            address: Some([127, 0, 0, 1].into()),
            labels: Default::default(),
        };
        let (data, stop) = (room.path().join("host"), CancellationToken::new());
        let heard = stop.clone();
        let agent =
            tokio::spawn(async move { remote::join(&data, EXE.into(), joining, heard, |_| ()).await });
        // A server that talks nonsense after the greeting.
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = identity.acceptor.accept(stream).await.unwrap();
        let length = stream.read_u32().await.unwrap();
        let mut hello = vec![0; length as usize];
        stream.read_exact(&mut hello).await.unwrap();
        let hello: Hello = serde_json::from_slice(&hello).unwrap();
        assert!(hello.isolation.lacks.iter().any(|(what, _)| what == "network of its own"), "{hello:?}");
        let welcome = serde_json::to_vec(&Greeting::Welcome("n1")).unwrap();
        stream.write_u32(welcome.len() as u32).await.unwrap();
        stream.write_all(&welcome).await.unwrap();
        stream.flush().await.unwrap();
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        let connection = tokio::spawn(connection);
        let ask = async |method: &str, path: &str, body: Vec<u8>| {
            let request = hyper::Request::builder()
                .method(method)
                .uri(format!("http://host{path}"))
                .body(Full::new(Bytes::from(body)))
                .unwrap();
            let answer = sender.clone().send_request(request).await.unwrap();
            (answer.status().as_u16(), answer.into_body().collect().await.unwrap().to_bytes())
        };
        let list = serde_json::to_vec("list").unwrap();
        for (method, path, body, status) in [
            ("GET", "/shop", vec![], 405),
            ("POST", "/", list.clone(), 404),
            ("POST", "/../../etc", list.clone(), 404),
            ("POST", "/Shop", list.clone(), 404),
            ("POST", "/shop", vec![], 400),
            ("POST", "/shop", b"{\"format\":\"disk\"}".to_vec(), 400),
            ("POST", "/shop", vec![0xff; 100_000], 400),
            ("POST", "/shop", [b"\"".to_vec(), vec![b'a'; 5 << 20]].concat(), 400),
            ("POST", "/shop", list.clone(), 200),
        ] {
            assert_eq!(ask(method, path, body).await.0, status, "{method} {path}");
        }
        for id in ["../../x", "", ".", "a/b"] {
            let remove = serde_json::to_vec(&remote::wire::Ask::Remove(id.into())).unwrap();
            let (status, words) = ask("POST", "/shop", remove).await;
            let words = String::from_utf8_lossy(&words).into_owned();
            assert!(status == 200 && words.contains("bad_id"), "{id:?}: {words}");
        }
        assert_eq!(&ask("POST", "/shop", list).await.1[..], b"{\"Ok\":[]}");
        stop.cancel();
        agent.await.unwrap().unwrap();
        connection.abort();
    });
}
