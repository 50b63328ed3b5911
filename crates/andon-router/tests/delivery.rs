//! What reaches a backend and what comes back: headers, failures, retries, draining, tunnels.

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use andon_router::{Options, Route};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response};
use support::{Backend, SERVICE, Served, get, name, one, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;

#[tokio::test]
async fn an_unknown_host_is_told_so_in_words() {
    let served = Served::new().await;
    let answer = served.client().await.get("/").await;
    assert_eq!(answer.status, 404);
    assert!(answer.body.contains("shop.example") && answer.body.contains("hint: "), "{}", answer.body);
}

#[tokio::test]
async fn hosts_match_without_case_and_port() {
    let a = Backend::saying("a").await;
    let served = Served::new().await;
    served.set(one(a.addr));
    let request = Request::get("/").header("host", "SHOP.example:8080");
    assert_eq!(served.client().await.send(request, "").await.status, 200);
}

#[tokio::test]
async fn a_service_without_instances_says_when_to_come_back() {
    let served = Served::new().await;
    served.set(Route::to(SERVICE, &["shop.example"], name("a"), vec![]));
    let answer = served.client().await.get("/").await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, "1"));
    assert!(answer.body.contains("hint: "));
    assert_eq!(served.sum("a", |arm| arm.errors), 1);
}

#[tokio::test]
async fn the_backend_learns_who_asked_and_nothing_of_the_hop() {
    let seen: Arc<Mutex<Option<hyper::HeaderMap>>> = Arc::default();
    let keep = seen.clone();
    let a = Backend::answering(move |request| {
        *keep.lock().unwrap() = Some(request.headers().clone());
        async {
            Response::builder()
                .header("connection", "x-internal")
                .header("x-internal", "1")
                .header("keep-alive", "timeout=5")
                .header("x-kept", "1")
                .body(Full::from("ok"))
                .unwrap()
        }
    })
    .await;
    let served = Served::new().await;
    served.set(one(a.addr));
    let request = get("/x?y=1")
        .header("connection", "x-hop")
        .header("x-hop", "1")
        .header("te", "trailers")
        .header("x-forwarded-for", "198.51.100.1")
        .header("x-forwarded-host", "evil")
        .header("x-andon-shadow", "1");
    let answer = served.client().await.send(request, "").await;
    let seen = seen.lock().unwrap().take().unwrap();
    for gone in ["connection", "x-hop", "te", "x-andon-shadow"] {
        assert!(!seen.contains_key(gone), "{gone} went through");
    }
    assert_eq!(seen["host"], "shop.example");
    assert_eq!(seen["x-forwarded-for"], "198.51.100.1, 127.0.0.1");
    assert_eq!(seen["x-forwarded-host"], "shop.example");
    assert_eq!(seen["x-forwarded-proto"], "http");
    assert_eq!(answer.revision(), "a");
    assert_eq!(
        (answer.header("x-internal"), answer.header("keep-alive"), answer.header("x-kept")),
        ("", "", "1")
    );
}

#[tokio::test]
async fn bodies_stream_through_unchanged_whatever_the_method() {
    let a = Backend::answering(|request: Request<hyper::body::Incoming>| async {
        let length = request.headers().get("content-length").cloned();
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let mut response = Response::new(Full::new(body));
        response.headers_mut().insert("x-length", length.unwrap_or("chunked".parse().unwrap()));
        response
    })
    .await;
    let served = Served::new().await;
    served.set(one(a.addr));
    let mut client = served.client().await;
    for method in ["POST", "PUT", "GET", "DELETE"] {
        let body = Bytes::from(vec![b'x'; 1_000_000]);
        let answer = client.send(get("/").method(method), body.clone()).await;
        assert_eq!((answer.body.len(), answer.header("x-length")), (1_000_000, "1000000"), "{method}");
    }
    let mut raw = TcpStream::connect(served.addr).await.unwrap();
    raw.write_all(
        b"GET / HTTP/1.1\r\nhost: shop.example\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n",
    )
    .await
    .unwrap();
    raw.write_all(b"5\r\nhello\r\n0\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    raw.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("x-length: chunked") && answer.ends_with("hello"), "{answer}");
    assert_eq!(served.sum("a", |arm| arm.bytes_in), 4_000_005);
}

#[tokio::test]
async fn a_request_with_two_lengths_smuggles_nothing() {
    let paths: Arc<Mutex<Vec<String>>> = Arc::default();
    let keep = paths.clone();
    let a = Backend::answering(move |request: Request<hyper::body::Incoming>| {
        keep.lock().unwrap().push(request.uri().path().to_owned());
        async {
            let _ = request.into_body().collect().await;
            Response::new(Full::from("ok"))
        }
    })
    .await;
    let served = Served::new().await;
    served.set(one(a.addr));
    let smuggled = "GET /smuggled HTTP/1.1\r\nhost: shop.example\r\n\r\n";
    let chunked = "transfer-encoding: chunked\r\n";
    let length = format!("content-length: {}\r\n", 5 + smuggled.len());
    for lengths in [format!("{chunked}{length}"), format!("{length}{chunked}")] {
        let mut raw = TcpStream::connect(served.addr).await.unwrap();
        let head = format!("POST /front HTTP/1.1\r\nhost: shop.example\r\n{lengths}\r\n");
        raw.write_all(format!("{head}0\r\n\r\n{smuggled}").as_bytes()).await.unwrap();
        let mut answer = String::new();
        // The connection is closed after one answer: what follows is read by nobody.
        raw.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
    }
    assert_eq!(*paths.lock().unwrap(), ["/front", "/front"]);
    let refused = [
        "content-length: 3\r\ncontent-length: 4\r\n",
        "content-length: +3\r\n",
        "transfer-encoding: chunked, identity\r\n",
        "transfer-encoding: xchunked\r\n",
    ];
    for lengths in refused {
        let mut raw = TcpStream::connect(served.addr).await.unwrap();
        raw.write_all(format!("POST /front HTTP/1.1\r\nhost: shop.example\r\n{lengths}\r\nabc").as_bytes())
            .await
            .unwrap();
        let mut answer = String::new();
        raw.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 400"), "{lengths:?} got {answer}");
    }
    assert_eq!(paths.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn a_head_without_end_is_refused() {
    let served = Served::with(Options { max_head: 8 * 1024, ..Options::default() }).await;
    let answer = served.client().await.send(get("/").header("x-long", "x".repeat(20_000)), "").await;
    assert_eq!(answer.status, 431);
}

#[tokio::test]
async fn when_an_instance_dies_its_users_are_served_by_the_other() {
    let (first, second) = (Backend::saying("a").await, Backend::saying("a").await);
    let served = Served::new().await;
    let mut route = one(first.addr);
    route.backends.insert(name("a"), vec![first.addr, second.addr]);
    served.set(route);
    let mut client = served.client().await;
    for _ in 0..10 {
        assert_eq!(client.get("/").await.status, 200);
    }
    first.kill().await;
    for _ in 0..50 {
        assert_eq!(client.get("/").await.status, 200);
    }
    assert!(served.sum("a", |arm| arm.connect_failures) <= 3, "a dead instance is left alone");
    second.kill().await;
    let answer = client.get("/").await;
    assert_eq!(answer.status, 502);
    assert!(answer.body.contains("hint: "), "{}", answer.body);
}

#[tokio::test]
async fn a_connection_that_dies_before_it_answers_is_no_ones_trouble() {
    // Answers once on each connection, then closes it under the next request.
    let a = Backend::speaking(|mut stream| async move {
        let mut head = [0; 4096];
        let _ = stream.read(&mut head).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        let _ = stream.read(&mut head).await;
    })
    .await;
    let served = Served::new().await;
    served.set(one(a.addr));
    let mut client = served.client().await;
    for _ in 0..10 {
        assert_eq!(client.get("/").await.status, 200);
    }
    assert!(served.sum("a", |arm| arm.retries) > 0);
    assert_eq!(served.sum("a", |arm| arm.errors), 0);
}

#[tokio::test]
async fn a_backend_that_says_nothing_is_given_up() {
    let a = Backend::speaking(|stream| async move {
        let _held = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let served =
        Served::with(Options { answer_within: Duration::from_millis(50), ..Options::default() }).await;
    served.set(one(a.addr));
    let answer = served.client().await.get("/").await;
    assert_eq!(answer.status, 504);
    assert_eq!((served.sum("a", |arm| arm.timeouts), served.sum("a", |arm| arm.errors)), (1, 1));
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_an_error_of_the_revision() {
    let a = Backend::speaking(|mut stream| async move {
        let mut head = [0; 4096];
        let _ = stream.read(&mut head).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nok").await;
    })
    .await;
    let served = Served::new().await;
    served.set(one(a.addr));
    assert!(served.client().await.try_send(get("/"), "").await.is_err());
    let signals = served.router.signals();
    assert_eq!((signals[0].arms[0].errors, signals[0].arms[0].reached_errors[0]), (1, 1));
    assert_eq!(served.router.in_flight(SERVICE, &name("a")), 0);
}

#[tokio::test]
async fn a_revision_that_left_the_table_finishes_what_it_began() {
    let gate = Arc::new(Notify::new());
    let opened = gate.clone();
    let a = Backend::answering(move |_| {
        let opened = opened.clone();
        async move {
            opened.notified().await;
            Response::new(Full::from("a"))
        }
    })
    .await;
    let b = Backend::saying("b").await;
    let served = Served::new().await;
    served.set(one(a.addr));
    let mut client = served.client().await;
    let slow = tokio::spawn(async move { client.get("/").await });
    until("the request reached a", || served.router.in_flight(SERVICE, &name("a")) == 1).await;

    served.set(Route::to(SERVICE, &["shop.example"], name("b"), vec![b.addr]));
    assert_eq!(served.client().await.get("/").await.body, "b");
    let a_name = name("a");
    let drained = served.router.drained(SERVICE, &a_name);
    tokio::pin!(drained);
    tokio::select! {
        biased;
        () = &mut drained => panic!("drained with a request under way"),
        () = std::future::ready(()) => {}
    }
    gate.notify_one();
    drained.await;
    assert_eq!(slow.await.unwrap().body, "a");
    // What never was, or is long gone, is drained too.
    served.router.drained(SERVICE, &name("z")).await;
}

#[tokio::test]
async fn idle_connections_to_a_revision_that_left_are_closed() {
    let closed = Arc::new(AtomicBool::new(false));
    let mark = closed.clone();
    let a = Backend::speaking(move |mut stream| {
        let mark = mark.clone();
        async move {
            let mut head = [0; 4096];
            let _ = stream.read(&mut head).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
            assert_eq!(stream.read(&mut head).await.unwrap(), 0, "nothing more was asked");
            mark.store(true, Ordering::SeqCst);
        }
    })
    .await;
    let b = Backend::saying("b").await;
    let served = Served::new().await;
    served.set(one(a.addr));
    assert_eq!(served.client().await.get("/").await.body, "ok");
    served.set(Route::to(SERVICE, &["shop.example"], name("b"), vec![b.addr]));
    until("the connection is closed", || closed.load(Ordering::SeqCst)).await;
}

#[tokio::test]
async fn a_client_that_goes_away_is_counted_and_holds_nothing() {
    let a = Backend::speaking(|stream| async move {
        let _held = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let served = Served::new().await;
    served.set(one(a.addr));
    let mut raw = TcpStream::connect(served.addr).await.unwrap();
    raw.write_all(b"GET / HTTP/1.1\r\nhost: shop.example\r\n\r\n").await.unwrap();
    until("it is under way", || served.router.in_flight(SERVICE, &name("a")) == 1).await;
    drop(raw);
    served.router.drained(SERVICE, &name("a")).await;
    assert_eq!((served.sum("a", |arm| arm.abandoned), served.sum("a", |arm| arm.requests)), (1, 0));
}

#[tokio::test]
async fn a_web_socket_passes_and_holds_its_revision_until_it_closes() {
    let a = Backend::speaking(|mut stream| async move {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        assert!(head.contains("upgrade: websocket") && head.contains("connection: upgrade"), "{head}");
        let switch = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
        stream.write_all(switch).await.unwrap();
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
    })
    .await;
    let served = Served::new().await;
    served.set(one(a.addr));
    let mut raw = TcpStream::connect(served.addr).await.unwrap();
    let ask =
        b"GET /live HTTP/1.1\r\nhost: shop.example\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n";
    raw.write_all(ask).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(raw.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    assert!(head.starts_with("http/1.1 101") && head.contains("upgrade: websocket"), "{head}");
    for word in ["hello", "again"] {
        raw.write_all(word.as_bytes()).await.unwrap();
        let mut echo = [0; 5];
        raw.read_exact(&mut echo).await.unwrap();
        assert_eq!(&echo, word.as_bytes());
    }
    assert_eq!(served.router.in_flight(SERVICE, &name("a")), 1);
    drop(raw);
    served.router.drained(SERVICE, &name("a")).await;
}

#[tokio::test]
async fn a_router_told_to_end_lets_requests_end_first() {
    let gate = Arc::new(Notify::new());
    let opened = gate.clone();
    let a = Backend::answering(move |_| {
        let opened = opened.clone();
        async move {
            opened.notified().await;
            Response::new(Full::from("a"))
        }
    })
    .await;
    let mut served = Served::new().await;
    served.set(one(a.addr));
    let mut client = served.client().await;
    let slow = tokio::spawn(async move { client.get("/").await });
    until("the request reached a", || served.router.in_flight(SERVICE, &name("a")) == 1).await;
    served.stop.take().unwrap().send(()).unwrap();
    while TcpStream::connect(served.addr).await.is_ok() {
        tokio::task::yield_now().await;
    }
    gate.notify_one();
    assert_eq!(slow.await.unwrap().body, "a");
    served.task.await.unwrap();
}

#[tokio::test]
async fn a_full_router_refuses_politely() {
    let a = Backend::speaking(|stream| async move {
        let _held = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let served = Served::with(Options { max_in_flight: 1, ..Options::default() }).await;
    served.set(one(a.addr));
    let mut client = served.client().await;
    let _first = tokio::spawn(async move { client.try_send(get("/"), "").await.is_ok() });
    until("the first is under way", || served.router.in_flight(SERVICE, &name("a")) == 1).await;
    let answer = served.client().await.get("/").await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, "1"));
}

#[tokio::test]
async fn a_request_for_a_sleeping_service_wakes_it_and_is_answered_when_it_runs() {
    let a = Backend::answering(|_| async { Response::new(Full::from("awake")) }).await;
    let served = Served::new().await;
    served.set(Route { asleep: true, ..Route::to(SERVICE, &["shop.example"], name("a"), vec![]) });
    assert_eq!(served.router.idle(SERVICE), None);
    let mut client = served.client().await;
    let waiting = tokio::spawn(async move { client.get("/").await });
    served.router.asked().await;
    assert_eq!(served.router.asked_for(), [SERVICE.to_owned()].into());
    assert!(served.router.asked_for().is_empty(), "each asks once");
    // A table that changes nothing for it leaves it waiting, and asking.
    served.set(Route { asleep: true, ..Route::to(SERVICE, &["shop.example"], name("a"), vec![]) });
    served.router.asked().await;
    served.set(one(a.addr));
    assert_eq!(waiting.await.unwrap().body, "awake");
    assert!(served.router.idle(SERVICE).is_some());
}

#[tokio::test]
async fn whoever_waits_for_a_sleeper_counts_against_the_routers_limit() {
    let served = Served::with(Options { max_in_flight: 1, ..Options::default() }).await;
    served.set(Route { asleep: true, ..Route::to(SERVICE, &["shop.example"], name("a"), vec![]) });
    let mut client = served.client().await;
    let waiting = tokio::spawn(async move { client.try_send(get("/"), "").await.is_ok() });
    served.router.asked().await;
    assert_eq!(served.client().await.get("/").await.status, 503);
    waiting.abort();
}
