//! Whether an instance answers, and where it may listen.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The longest status line that is read.
const LINE: usize = 512;

/// Whether it answers: with 2xx to a GET of this path, or, without one, by taking a connection. The error is a clause
/// to put after the instance's name.
pub async fn health(addr: SocketAddr, path: Option<&str>, within: Duration) -> Result<(), String> {
    match tokio::time::timeout(within, ask(addr, path)).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("did not answer within {within:?}")),
    }
}

async fn ask(addr: SocketAddr, path: Option<&str>) -> Result<(), String> {
    let mut stream =
        TcpStream::connect(addr).await.map_err(|error| format!("takes no connection on {addr}: {error}"))?;
    let Some(path) = path else { return Ok(()) };
    if !path.starts_with('/') || path.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        return Err(format!("has a health path that is none: {path:?}"));
    }
    let request =
        format!("GET {path} HTTP/1.1\r\nhost: {addr}\r\nuser-agent: andon\r\nconnection: close\r\n\r\n");
    let broken = |error: io::Error| format!("broke the connection on {path}: {error}");
    stream.write_all(request.as_bytes()).await.map_err(broken)?;
    let mut line = Vec::with_capacity(LINE);
    while !line.contains(&b'\n') && line.len() < LINE {
        if stream.read_buf(&mut line).await.map_err(broken)? == 0 {
            break;
        }
    }
    let line = String::from_utf8_lossy(&line);
    let status = line
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.get(2..5))
        .and_then(|code| code.parse::<u16>().ok());
    match status {
        Some(200..300) => Ok(()),
        Some(status) => Err(format!("answered {status} on {path}")),
        None => Err(format!("answered no HTTP on {path}")),
    }
}

/// Ports below the system's own range that are tried before one of its own is taken.
const TRIES: u16 = 256;
/// How far below the system's own range ports are looked for.
const BELOW: u16 = 12_000;

/// A port that nobody listens on and that is not in `used`. It lies below the range from which the system gives ports to outgoing
/// connections, where it can: a service may start much later, and until then any connection could be given a port of that range.
pub fn free_port(used: &BTreeSet<u16>) -> io::Result<u16> {
    free_port_at(Ipv4Addr::LOCALHOST.into(), used)
}

/// The same on one address of the host.
pub fn free_port_at(address: IpAddr, used: &BTreeSet<u16>) -> io::Result<u16> {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let own = range.split_whitespace().next().and_then(|low| low.parse::<u16>().ok()).unwrap_or(32_768);
    let (low, count) = (own.saturating_sub(BELOW).max(1024), own.saturating_sub(1024).min(BELOW));
    // From a place of its own for each call: two servers on one host would else try the same ports at the same moment.
    let start = RandomState::new().build_hasher().finish();
    for offset in 0..u64::from(TRIES.min(count)) {
        let port = low + (start.wrapping_add(offset) % u64::from(count)) as u16;
        if !used.contains(&port) && TcpListener::bind((address, port)).is_ok() {
            return Ok(port);
        }
    }
    given(address, used)
}

/// As the operating system gives it.
fn given(address: IpAddr, used: &BTreeSet<u16>) -> io::Result<u16> {
    // Those refused are held until one is found, or the same would come again.
    let mut held = Vec::new();
    while held.len() <= used.len() {
        let listener = TcpListener::bind((address, 0))?;
        let port = listener.local_addr()?.port();
        if !used.contains(&port) {
            return Ok(port);
        }
        held.push(listener);
    }
    Err(io::Error::new(io::ErrorKind::AddrNotAvailable, "every port that the system offers is in use"))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn answering(text: &'static str) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 1024];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(text.as_bytes()).await;
                if text.is_empty() {
                    std::future::pending::<()>().await;
                }
            }
        });
        addr
    }

    #[tokio::test]
    async fn only_2xx_in_time_is_healthy() {
        let second = Duration::from_secs(1);
        let ok = answering("HTTP/1.1 204 No Content\r\n\r\n").await;
        assert_eq!(health(ok, Some("/healthz"), second).await, Ok(()));
        let sick = answering("HTTP/1.1 503 Busy\r\n\r\n").await;
        assert_eq!(health(sick, Some("/healthz"), second).await, Err("answered 503 on /healthz".into()));
        assert_eq!(health(sick, None, second).await, Ok(()));
        let noise = answering("hello\n").await;
        assert_eq!(health(noise, Some("/"), second).await, Err("answered no HTTP on /".into()));
        let silent = answering("").await;
        let waited = health(silent, Some("/"), Duration::from_millis(20)).await;
        assert_eq!(waited, Err("did not answer within 20ms".into()));
        let split = health(ok, Some("/\r\nx: y"), second).await;
        assert!(split.unwrap_err().contains("path that is none"));
        let nobody = SocketAddr::from(([127, 0, 0, 1], free_port(&BTreeSet::new()).unwrap()));
        assert!(health(nobody, None, second).await.unwrap_err().contains("takes no connection"));
    }

    #[test]
    fn a_used_port_is_not_given_again() {
        let mut used = BTreeSet::new();
        for _ in 0..50 {
            assert!(used.insert(free_port(&used).unwrap()));
        }
    }
}
