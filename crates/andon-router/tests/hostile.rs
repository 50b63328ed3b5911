//! Clients and instances that mean harm: requests and answers that two parsers could read in two ways, floods of headers, resets and continuations, sockets that
//! are slow on purpose. Nothing ambiguous goes on, and whoever behaves is served as before.
#![allow(clippy::unwrap_used, reason = "all of it is test code")]

mod support;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use andon_router::Options;
use support::{Backend, Served, one};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Far beyond what anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// A backend that keeps what it receives, byte for byte, and answers every head.
async fn recording() -> (Backend, Arc<Mutex<Vec<u8>>>) {
    let received: Arc<Mutex<Vec<u8>>> = Arc::default();
    let keep = received.clone();
    let backend = Backend::speaking(move |mut stream| {
        let keep = keep.clone();
        async move {
            let mut buffer = [0; 16 * 1024];
            while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                keep.lock().unwrap().extend(&buffer[..read]);
                let heads = buffer[..read].windows(4).filter(|end| end == b"\r\n\r\n").count();
                for _ in 0..heads {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
                }
            }
        }
    })
    .await;
    (backend, received)
}

/// Sends bytes as they are, and reads until the router closes or says nothing for a while.
async fn raw(router: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(router).await.unwrap();
    // The router may close before it has read everything.
    let _ = stream.write_all(bytes).await;
    let mut said = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(Ok(read @ 1..)) =
        tokio::time::timeout(Duration::from_millis(700), stream.read(&mut buffer)).await
    {
        said.extend(&buffer[..read]);
    }
    String::from_utf8_lossy(&said).into_owned()
}

#[tokio::test]
async fn a_request_that_can_be_read_in_two_ways_is_refused_and_nothing_of_it_goes_on() {
    let (backend, received) = recording().await;
    let served = Served::new().await;
    served.set(one(backend.addr));
    let hidden = "GET /smuggled HTTP/1.1\r\nhost: shop.example\r\n\r\n";
    let chunks = format!("0\r\n\r\n{hidden}");
    let post = |version: &str, lines: &str, body: &str| {
        format!("POST / {version}\r\nhost: shop.example\r\n{lines}\r\n\r\n{body}")
    };
    let long = format!("content-length: {}", chunks.len());
    for (what, request) in [
        ("CL.CL", post("HTTP/1.1", "content-length: 0\r\ncontent-length: 5", hidden)),
        ("CL list", post("HTTP/1.1", "content-length: 0, 5", hidden)),
        ("CL +", post("HTTP/1.1", "content-length: +0", hidden)),
        ("CL hex", post("HTTP/1.1", "content-length: 0x0", hidden)),
        ("TE.TE", post("HTTP/1.1", "transfer-encoding: chunked\r\ntransfer-encoding: identity", &chunks)),
        ("TE odd", post("HTTP/1.1", "transfer-encoding: xchunked", &chunks)),
        ("TE with CL, odd", post("HTTP/1.1", &format!("{long}\r\ntransfer-encoding: xchunked"), &chunks)),
        ("TE last is not chunked", post("HTTP/1.1", "transfer-encoding: chunked, gzip", &chunks)),
        (
            "TE with a space before the colon",
            post("HTTP/1.1", &format!("{long}\r\ntransfer-encoding : chunked"), &chunks),
        ),
        ("TE folded", post("HTTP/1.1", &format!("{long}\r\nx: y\r\n transfer-encoding: chunked"), &chunks)),
        ("HTTP/1.0 with TE", post("HTTP/1.0", "transfer-encoding: chunked", &chunks)),
        (
            "a bare CR in a header",
            post("HTTP/1.1", "x: a\rtransfer-encoding: chunked\r\ncontent-length: 0", hidden),
        ),
        (
            "a size of a chunk that is none",
            post("HTTP/1.1", "transfer-encoding: chunked", &format!("0x0\r\n\r\n{hidden}")),
        ),
        (
            "a size of a chunk beyond all",
            post("HTTP/1.1", "transfer-encoding: chunked", &format!("10000000000000000\r\n\r\n{hidden}")),
        ),
        ("a NUL in a header", post("HTTP/1.1", "x: a\0b\r\ncontent-length: 0", hidden)),
        ("two hosts", format!("GET / HTTP/1.1\r\nhost: shop.example\r\nhost: other\r\n\r\n{hidden}")),
    ] {
        received.lock().unwrap().clear();
        let said = raw(served.addr, request.as_bytes()).await;
        let went_on = String::from_utf8_lossy(&received.lock().unwrap().clone()).into_owned();
        assert!(!went_on.contains("/smuggled"), "{what}: {went_on}\n{said}");
        assert!(!said.contains(" 200 OK"), "{what}: {said}\n{went_on}");
        // What is refused at its head says so; what turns out bad later may just end.
        assert!(
            said.is_empty() || said.starts_with("HTTP/1.1 4") || said.starts_with("HTTP/1.1 5"),
            "{what}: {said}"
        );
    }
}

/// RFC 9112 section 6.3 lets chunks win over a length, if the length goes no further and the connection ends.
#[tokio::test]
async fn a_length_beside_chunks_goes_no_further_and_ends_the_connection() {
    let (backend, received) = recording().await;
    let served = Served::new().await;
    served.set(one(backend.addr));
    let hidden = "GET /smuggled HTTP/1.1\r\nhost: shop.example\r\n\r\n";
    for lines in [
        "content-length: 55\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 4",
    ] {
        received.lock().unwrap().clear();
        let request = format!("POST / HTTP/1.1\r\nhost: shop.example\r\n{lines}\r\n\r\n0\r\n\r\n{hidden}");
        let said = raw(served.addr, request.as_bytes()).await;
        let went_on = String::from_utf8_lossy(&received.lock().unwrap().clone()).to_lowercase();
        assert!(went_on.contains("transfer-encoding: chunked"), "{went_on}");
        assert!(!went_on.contains("content-length") && !went_on.contains("/smuggled"), "{went_on}");
        assert!(said.matches("HTTP/1.1 ").count() <= 2 && !said.contains("404"), "{said}");
    }
}

#[tokio::test]
async fn an_upgrade_that_the_instance_does_not_make_opens_no_tunnel() {
    let (backend, received) = recording().await;
    let served = Served::new().await;
    served.set(one(backend.addr));
    // With a body nothing is switched; without, what follows is a request of its own and goes through the same rules.
    let request = "POST /chat HTTP/1.1\r\nhost: shop.example\r\nconnection: upgrade\r\nupgrade: websocket\r\ncontent-length: 3\r\n\r\nabcGET /x HTTP/1.1\r\nhost: nobody.example\r\n\r\n";
    let said = raw(served.addr, request.as_bytes()).await;
    let went_on = String::from_utf8_lossy(&received.lock().unwrap().clone()).into_owned();
    assert!(!went_on.contains("upgrade: websocket") && !went_on.contains("GET /x"), "{went_on}");
    assert!(said.contains("404"), "{said}");
}

#[tokio::test]
async fn a_flood_of_headers_is_cut_off() {
    let backend = Backend::saying("hello").await;
    let served = Served::new().await;
    served.set(one(backend.addr));
    let many: String = (0..500).map(|n| format!("x-{n}: y\r\n")).collect();
    let large = format!("x: {}\r\n", "y".repeat(100_000));
    for lines in [many, large] {
        let said =
            raw(served.addr, format!("GET / HTTP/1.1\r\nhost: shop.example\r\n{lines}\r\n").as_bytes()).await;
        assert!(said.starts_with("HTTP/1.1 431"), "{said}");
    }
    assert_eq!(served.client().await.get("/").await.status, 200);
}

/// A frame of HTTP/2 (RFC 9113 section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// GET / of our host in HPACK: three fields of the static table, and the authority as a literal.
fn head() -> Vec<u8> {
    let mut head = vec![0x82, 0x86, 0x84, 0x01, 12];
    head.extend(b"shop.example");
    head
}

async fn http2(router: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(router).await.unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    stream.write_all(&frame(4, 0, 0, &[])).await.unwrap();
    stream
}

/// Writes frames until the router has closed the connection; gives how many bytes it took.
async fn flood(stream: TcpStream, most: usize, mut next: impl FnMut() -> Vec<u8>) -> usize {
    let (mut reads, mut writes) = stream.into_split();
    let reading = tokio::spawn(async move {
        let mut sink = [0; 16 * 1024];
        while let Ok(1..) = reads.read(&mut sink).await {}
    });
    let mut sent = 0;
    while sent < most && !reading.is_finished() {
        let frames = next();
        sent += frames.len();
        if !matches!(tokio::time::timeout(PATIENCE, writes.write_all(&frames)).await, Ok(Ok(()))) {
            break;
        }
        tokio::task::yield_now().await;
    }
    sent
}

#[tokio::test]
async fn streams_that_are_opened_and_reset_over_and_over_end_their_connection() {
    let backend = Backend::saying("hello").await;
    let served = Served::new().await;
    served.set(one(backend.addr));
    let mut id = 1;
    let sent = flood(http2(served.addr).await, 64 << 20, || {
        let mut frames = Vec::new();
        for _ in 0..100 {
            frames.extend(frame(1, 5, id, &head()));
            frames.extend(frame(3, 0, id, &8_u32.to_be_bytes()));
            id += 2;
        }
        frames
    })
    .await;
    assert!(sent < 8 << 20, "{sent} bytes of resets were taken");
    assert_eq!(served.client().await.get("/").await.status, 200);
}

#[tokio::test]
async fn a_head_that_goes_on_in_continuations_without_end_ends_its_connection() {
    let backend = Backend::saying("hello").await;
    let served = Served::new().await;
    served.set(one(backend.addr));
    let mut stream = http2(served.addr).await;
    stream.write_all(&frame(1, 1, 1, &head())).await.unwrap();
    // A literal that is never indexed, with a name and a value of one byte each.
    let more = [0x10, 1, b'x', 1, b'y'].repeat(200);
    let sent = flood(stream, 64 << 20, || frame(9, 0, 1, &more)).await;
    assert!(sent < 4 << 20, "{sent} bytes of continuations were taken");
    assert_eq!(served.client().await.get("/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_slow_sockets_are_closed_in_time_and_cost_others_nothing() {
    let backend = Backend::saying("hello").await;
    let within = Duration::from_secs(3);
    let served = Served::with(Options { head_within: within, ..Options::default() }).await;
    served.set(one(backend.addr));
    let mut client = served.client().await;
    let begun = Instant::now();
    let mut slow = tokio::task::JoinSet::new();
    for number in 0..1_000 {
        // One after the other: a queue of connections that overflows is the kernel's business.
        let mut stream = TcpStream::connect(served.addr).await.unwrap();
        slow.spawn(async move {
            // Half of them say nothing at all, half of them a byte at a time.
            let half = b"GET / HTTP/1.1\r\nx-slow: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy";
            let talks = number % 2 == 0;
            let mut said = 0;
            let mut sink = [0; 1024];
            loop {
                let pause = tokio::time::sleep(Duration::from_millis(500));
                tokio::select! {
                    read = stream.read(&mut sink) => if !matches!(read, Ok(1..)) { return },
                    () = pause => if talks && said < half.len() {
                        if stream.write_all(&half[said..=said]).await.is_err() { return }
                        said += 1;
                    }
                }
            }
        });
    }
    let mut slowest = Duration::ZERO;
    while !slow.is_empty() {
        let asked = Instant::now();
        assert_eq!(client.get("/").await.status, 200);
        slowest = slowest.max(asked.elapsed());
        while slow.try_join_next().is_some() {}
        assert!(begun.elapsed() < PATIENCE, "{} slow sockets are still open", slow.len());
        tokio::task::yield_now().await;
    }
    assert!(begun.elapsed() >= within, "they were closed before their time was over");
    assert!(slowest < Duration::from_secs(2), "somebody else waited {slowest:?}");
}

/// A backend that says just these bytes to each request.
async fn saying_bytes(bytes: &'static [u8]) -> Backend {
    Backend::speaking(move |mut stream| async move {
        let mut buffer = [0; 16 * 1024];
        while let Ok(1..) = stream.read(&mut buffer).await {
            if stream.write_all(bytes).await.is_err() {
                return;
            }
        }
    })
    .await
}

#[tokio::test]
async fn an_instance_that_answers_twice_gives_nobody_anothers_answer() {
    let twice =
        b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngoodHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil";
    let backend = saying_bytes(twice).await;
    let served = Served::new().await;
    served.set(one(backend.addr));
    for _ in 0..20 {
        let answer = served.client().await.get("/").await;
        assert_ne!(answer.body, "evil");
    }
}

#[tokio::test]
async fn an_answer_that_can_be_read_in_two_ways_never_looks_whole_and_its_connection_is_not_used_again() {
    for (what, bytes) in [
        (
            "CL and TE",
            &b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nevil"[..],
        ),
        ("two CL", b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\ncontent-length: 9\r\n\r\ngoodevil!"),
        (
            "a bad size of a chunk",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n-4\r\ngood\r\n0\r\n\r\n",
        ),
        (
            "a chunk longer than it says",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\ngoodevil\r\n0\r\n\r\n",
        ),
        ("no head at all", b"good evil\r\n\r\n"),
        ("a CR in a header", b"HTTP/1.1 200 OK\r\nx: a\rb\r\ncontent-length: 4\r\n\r\ngood"),
    ] {
        let backend = saying_bytes(bytes).await;
        let served = Served::new().await;
        served.set(one(backend.addr));
        let answer = served.client().await.try_send(support::get("/"), "").await;
        if let Ok(answer) = &answer {
            assert!(answer.status == 502, "{what}: {answer:?}");
        }
        assert_eq!(served.sum("a", |arm| arm.errors), 1, "{what}: {answer:?}");
    }
}
