//! A program that instances run in the tests of all runtimes: static, so that an empty image is enough for it.

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "all of it is test code")]

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use andon_runtime::DockerRuntime;

/// What instances are told to do: by their first argument, and by requests.
const PROGRAM: &str = r#"
use std::io::{Read, Write};
fn main() {
    let words: Vec<String> = std::env::args().collect();
    match words[1].as_str() {
        "exit" => { println!("first"); eprintln!("second"); std::process::exit(words[2].parse().unwrap()) }
        "wait" => loop { std::thread::sleep(std::time::Duration::from_secs(1)) },
        "write" => { std::fs::write(&words[2], "by hand").unwrap(); return }
        "eat" => { let mut all = Vec::new(); loop { all.push(vec![1_u8; 1 << 20]) } }
        _ => {}
    }
    let listener = std::net::TcpListener::bind(format!("{}:{}", words[2], words[3])).unwrap();
    println!("listens");
    for mut stream in listener.incoming().flatten() {
        let mut request = [0; 1024];
        let length = stream.read(&mut request).unwrap_or(0);
        let text = String::from_utf8_lossy(&request[..length]).into_owned();
        let path = text.split(' ').nth(1).unwrap_or("/").to_owned();
        let body = match path.split_once('=') {
            Some(("/write", file)) => format!("{:?}", std::fs::write(file, "written").map_err(|e| e.kind())),
            Some(("/read", file)) => std::fs::read_to_string(file).unwrap_or_else(|e| e.to_string()),
            Some(("/env", name)) => std::env::var(name).unwrap_or_default(),
            _ => "hello".to_owned(),
        };
        let _ = write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
    }
}
"#;

/// The program, built once.
pub fn program() -> PathBuf {
    static BUILT: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    BUILT.get_or_init(build).clone()
}

fn build() -> PathBuf {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hash = DefaultHasher::new();
    PROGRAM.hash(&mut hash);
    let room = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let built = room.join(format!("station-{:x}", hash.finish()));
    if built.exists() {
        return built;
    }
    // Beside, then in one step: several tests may be first.
    let beside = tempfile::tempdir_in(&room).unwrap();
    let source = beside.path().join("station.rs");
    std::fs::write(&source, PROGRAM).unwrap();
    let said = Command::new("rustc").arg("-vV").output().unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    let host = said.lines().find_map(|line| line.strip_prefix("host: ")).unwrap().to_owned();
    let made = Command::new("rustc")
        .args(["--edition", "2021", "-O", "-C", "target-feature=+crt-static", "--target", &host])
        .arg(&source)
        .arg("-o")
        .arg(beside.path().join("station"))
        .status()
        .unwrap();
    assert!(made.success());
    std::fs::rename(beside.path().join("station"), &built).unwrap();
    built
}

/// An artifact: the program, a file beside it, and a folder.
pub fn artifact() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    tar.append_path_with_name(program(), "station").unwrap();
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(4);
    tar.append_data(&mut header, "lib/text", &b"text"[..]).unwrap();
    tar.into_inner().unwrap()
}

/// Containers of a server of one's own; none where there is no engine, which is said, and fails where CI=true.
pub fn docker(test: &str, room: &std::path::Path) -> Option<DockerRuntime> {
    let runtime = DockerRuntime::new(room, "shop").unwrap();
    match runtime.about() {
        Ok(_) => Some(runtime),
        Err(error) => {
            println!("SKIPPED: {test} ({error})");
            let ci = std::env::var("CI");
            assert_ne!(ci.as_deref(), Ok("true"), "in CI a component that is missing is a failure");
            None
        }
    }
}

/// Looks again and again, until it is so.
#[allow(clippy::disallowed_methods, reason = "a look at another process every 10 ms, until it is so")]
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "never seen: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The body of an answer.
pub fn get(address: std::net::SocketAddr, path: &str) -> Option<String> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
    // In one piece: the program reads once.
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
}
