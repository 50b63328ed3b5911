//! The cheapest load and the cheapest service there can be, so that what stands between them is measured: requests and answers are ready-made bytes. For benches
//! of proxies only: answers have to say their length.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Bytes of an answer's body.
const BODY: usize = 200;
/// Users that requests belong to.
pub const USERS: u64 = 5_000;
/// An answer that takes longer has failed.
const TOO_LONG: Duration = Duration::from_secs(10);

/// `xtask echo PORT WORD`: answers every head with this word and dots. Serves until it is killed. The word `hang` answers nothing.
pub fn echo(port: Option<&str>, word: Option<&str>) -> Result<(), String> {
    let usage = "usage: cargo xtask echo PORT WORD";
    let port: u16 = port.and_then(|port| port.parse().ok()).ok_or(usage)?;
    let word = word.ok_or(usage)?;
    let answer = (word != "hang").then(|| {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {BODY}\r\n\r\n");
        Arc::new(format!("{head}{word:.<BODY$}").into_bytes())
    });
    single()?.block_on(async move {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await;
        let listener = listener.map_err(|error| error.to_string())?;
        loop {
            let Ok((mut stream, _)) = listener.accept().await else { continue };
            let (answer, _) = (answer.clone(), stream.set_nodelay(true));
            tokio::spawn(async move {
                let (mut buffer, mut filled) = ([0; 16 * 1024], 0);
                while let Ok(read @ 1..) = stream.read(&mut buffer[filled..]).await {
                    filled += read;
                    if !buffer[..filled].ends_with(b"\r\n\r\n") && filled < buffer.len() {
                        continue;
                    }
                    filled = 0;
                    let Some(answer) = &answer else { continue };
                    if stream.write_all(answer).await.is_err() {
                        return;
                    }
                }
            });
        }
    })
}

/// `xtask pump PORT SECONDS`: as many requests as 64 connections bring about, for a look at what the proxy there does.
pub fn run(port: Option<&str>, seconds: Option<&str>) -> Result<(), String> {
    let number = |text: Option<&str>| text.and_then(|text| text.parse::<u16>().ok());
    let (Some(port), Some(seconds)) = (number(port), number(seconds)) else {
        return Err("usage: cargo xtask pump PORT SECONDS".into());
    };
    let (proxy, span) = (SocketAddr::from(([127, 0, 0, 1], port)), Duration::from_secs(seconds.into()));
    let (good, bad) = single()?.block_on(closed(proxy, crate::alone::HOST, 64, span));
    println!("{good} answers, {bad} failures");
    Ok(())
}

/// A runtime on one thread.
pub fn single() -> Result<tokio::runtime::Runtime, String> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())
}

/// A request of this user.
pub fn request(host: &str, user: u64) -> Vec<u8> {
    format!("GET /items/7?q=1 HTTP/1.1\r\nhost: {host}\r\nuser-agent: pump\r\naccept: */*\r\ncookie: andon-subject={user:032x}\r\n\r\n")
        .into_bytes()
}

/// The length of the answer that begins here, once its head is there; whether it is 200, and where its body begins.
fn whole(bytes: &[u8]) -> Option<(usize, usize, bool)> {
    let head = bytes.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
    let mut length = 0;
    for line in bytes[..head].split(|byte| *byte == b'\n') {
        if line.len() > 15 && line[..15].eq_ignore_ascii_case(b"content-length:") {
            length = std::str::from_utf8(&line[15..]).ok()?.trim().parse().ok()?;
        }
    }
    Some((head + length, head, bytes.starts_with(b"HTTP/1.1 200")))
}

/// Requests in a closed loop over so many connections for so long: answers that were 200, and others (with broken connections).
pub async fn closed(proxy: SocketAddr, host: &str, connections: u64, span: Duration) -> (u64, u64) {
    let (good, bad) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let until = Instant::now() + span;
    let mut all = tokio::task::JoinSet::new();
    for first in 0..connections {
        let (good, bad, host) = (good.clone(), bad.clone(), host.to_owned());
        all.spawn(async move {
            let Ok(mut stream) = tokio::net::TcpStream::connect(proxy).await else {
                bad.fetch_add(1, Ordering::Relaxed);
                return;
            };
            let _ = stream.set_nodelay(true);
            let (mut user, mut buffer) = (first, [0; 4096]);
            while Instant::now() < until {
                user = (user + connections) % USERS;
                let fine =
                    ask(&mut stream, &request(&host, user), &mut buffer).await.is_some_and(|fine| fine.0);
                if !fine {
                    bad.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                good.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    while all.join_next().await.is_some() {}
    (good.load(Ordering::Relaxed), bad.load(Ordering::Relaxed))
}

/// Whether the answer is 200, and the first byte of its body.
pub async fn ask(
    stream: &mut tokio::net::TcpStream,
    request: &[u8],
    buffer: &mut [u8; 4096],
) -> Option<(bool, u8)> {
    stream.write_all(request).await.ok()?;
    let mut filled = 0;
    loop {
        match stream.read(&mut buffer[filled..]).await {
            Ok(read @ 1..) => filled += read,
            _ => return None,
        }
        if let Some((length, head, fine)) = whole(&buffer[..filled])
            && filled >= length
        {
            return Some((fine, buffer[head]));
        }
    }
}

/// Requests in an open loop: each leaves when it is due, and its time counts from then. Milliseconds of each answer, and how many failed.
pub fn open(
    proxy: SocketAddr,
    host: &str,
    per_second: u64,
    connections: u64,
    span: Duration,
) -> (Vec<f64>, u64) {
    let begun = Instant::now() + Duration::from_millis(100);
    let failed = Arc::new(AtomicU64::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let senders: Vec<_> = (0..connections)
        .map(|first| {
            let (host, failed, stop) = (host.to_owned(), failed.clone(), stop.clone());
            std::thread::spawn(move || {
                let mut took = Vec::new();
                let Ok(mut stream) = TcpStream::connect(proxy) else {
                    failed.fetch_add(1, Ordering::Relaxed);
                    return took;
                };
                let _ = (stream.set_nodelay(true), stream.set_read_timeout(Some(TOO_LONG)));
                let mut number = first;
                loop {
                    let due = begun + Duration::from_nanos(number * 1_000_000_000 / per_second);
                    if due > begun + span || stop.load(Ordering::Relaxed) {
                        return took;
                    }
                    sleep_until(due);
                    if !ask_now(&mut stream, &request(&host, number % USERS)) {
                        failed.fetch_add(1, Ordering::Relaxed);
                        match TcpStream::connect(proxy) {
                            Ok(again) => stream = again,
                            Err(_) => return took,
                        }
                    }
                    took.push(due.elapsed().as_secs_f64() * 1000.0);
                    number += connections;
                }
            })
        })
        .collect();
    let took = senders.into_iter().flat_map(|sender| sender.join().unwrap_or_default()).collect();
    (took, failed.load(Ordering::Relaxed))
}

#[allow(clippy::disallowed_methods, reason = "requests leave when they are due")]
fn sleep_until(due: Instant) {
    std::thread::sleep(due.saturating_duration_since(Instant::now()));
}

fn ask_now(stream: &mut TcpStream, request: &[u8]) -> bool {
    if stream.write_all(request).is_err() {
        return false;
    }
    let (mut buffer, mut filled) = ([0; 4096], 0);
    loop {
        match stream.read(&mut buffer[filled..]) {
            Ok(read @ 1..) => filled += read,
            _ => return false,
        }
        if let Some((length, _, fine)) = whole(&buffer[..filled])
            && filled >= length
        {
            return fine;
        }
    }
}
