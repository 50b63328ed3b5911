//! Andon upgrades itself while users ask: each server takes over from the one before, and nobody is refused, cut off or told anything but an answer.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]
#![allow(clippy::print_stdout, reason = "a test says what it measured")]

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use support::{HELLO, Server};

const LINE: &str = r#"
version: 1
pipeline: { jobs: { package: { run: "mkdir dist && cp app.py dist/", artifact: dist } } }
services: { web: { command: [python3, app.py, $PORT], health: / } }
environments: { production: {} }
"#;
const HOST: &str = "web.production.shop.localhost";
const UPGRADES: u32 = 20;

/// One request on a kept connection; whether it may be kept further. No second try: what fails has failed.
fn ask(stream: &mut BufReader<TcpStream>) -> std::io::Result<bool> {
    stream.get_mut().write_all(format!("GET / HTTP/1.1\r\nhost: {HOST}\r\n\r\n").as_bytes())?;
    let (mut line, mut length, mut keep, mut first) = (String::new(), 0, true, true);
    loop {
        line.clear();
        if stream.read_line(&mut line)? == 0 {
            return Err(std::io::Error::other("the connection ended without an answer"));
        }
        let lower = line.trim().to_lowercase();
        if std::mem::take(&mut first) && !lower.starts_with("http/1.1 200") {
            return Err(std::io::Error::other(lower));
        }
        if let Some(text) = lower.strip_prefix("content-length:") {
            length = text.trim().parse().unwrap();
        }
        keep &= lower != "connection: close";
        if lower.is_empty() {
            break;
        }
    }
    stream.read_exact(&mut vec![0; length])?;
    Ok(keep)
}

#[test]
fn twenty_upgrades_under_load_refuse_and_lose_nobody() {
    let (mut server, repo) = Server::with_project(&[("app.py", HELLO), ("andon.yaml", LINE)]);
    let first = repo.propose("Begin");
    server.served(first);
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let users: Vec<_> = (0..8)
        .map(|_| {
            let (stop, answered, router) = (stop.clone(), answered.clone(), server.router);
            std::thread::spawn(move || {
                let mut stream = None;
                while !stop.load(Ordering::Relaxed) {
                    let kept = stream.take().unwrap_or_else(|| {
                        BufReader::new(TcpStream::connect(("127.0.0.1", router)).expect("nobody is refused"))
                    });
                    let mut kept = kept;
                    if ask(&mut kept).expect("every request is answered") {
                        stream = Some(kept);
                    }
                    answered.fetch_add(1, Ordering::Relaxed);
                    support::pause();
                }
            })
        })
        .collect();
    for _ in 0..UPGRADES {
        server.take_over();
    }
    stop.store(true, Ordering::Relaxed);
    for user in users {
        user.join().unwrap();
    }
    println!("{} requests were answered during {UPGRADES} upgrades", answered.load(Ordering::Relaxed));
    assert!(answered.load(Ordering::Relaxed) > u64::from(UPGRADES) * 10);
    // It is a whole server still: what is proposed now lands and serves.
    repo.follow();
    let second = repo.propose("Another");
    server.served(second);
}
