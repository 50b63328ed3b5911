//! A real ACME server to order certificates at: pebble, the one that Let's Encrypt tests with, with a name server that leads every name to this machine.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a harness that cannot go on stops the test")]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

/// A running one, ended when dropped.
pub struct Pebble {
    child: Child,
    dns: Child,
    /// The address of its directory.
    pub directory: String,
    /// The root that its own door is known by.
    pub root: PathBuf,
    http: u16,
    manage: u16,
    _room: tempfile::TempDir,
}

impl Drop for Pebble {
    fn drop(&mut self) {
        for child in [&mut self.child, &mut self.dns] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn free() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Pebble {
    /// One that looks at hosts on this port of this machine. None where it is not installed; in CI that is a failure.
    pub fn looking_at(http: Option<u16>) -> Option<Pebble> {
        if Command::new("pebble").arg("-h").output().is_err() {
            assert!(std::env::var_os("CI").is_none(), "pebble is missing");
            println!("SKIPPED: pebble is missing");
            return None;
        }
        let room = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = room.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (own, key) =
            (file("own.pem", &made.cert.pem()), file("own.key", &made.signing_key.serialize_pem()));
        let (port, manage, http, dns) = (free(), free(), http.unwrap_or_else(free), free());
        let config = serde_json::json!({ "pebble": {
            "listenAddress": format!("127.0.0.1:{port}"), "managementListenAddress": format!("127.0.0.1:{manage}"),
            "certificate": own, "privateKey": key, "httpPort": http, "tlsPort": free(),
            "ocspResponderURL": "", "externalAccountBindingRequired": false,
        }});
        let config = file("config.json", &config.to_string());
        let names = Command::new("pebble-challtestsrv")
            .args(["-defaultIPv4", "127.0.0.1", "-defaultIPv6", "", "-dns01", &format!("127.0.0.1:{dns}")])
            .args([
                "-http01",
                "",
                "-https01",
                "",
                "-tlsalpn01",
                "",
                "-management",
                &format!("127.0.0.1:{}", free()),
            ])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut child = Command::new("pebble")
            .args([
                "-config".as_ref(),
                config.as_os_str(),
                "-dnsserver".as_ref(),
                format!("127.0.0.1:{dns}").as_ref(),
            ])
            // It would else wait up to 15 s before it looks, and refuse a twentieth of all nonces.
            .env("PEBBLE_VA_NOSLEEP", "1")
            .env("PEBBLE_WFE_NONCEREJECT", "20")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
        said.by_ref()
            .map_while(Result::ok)
            .find(|line| line.contains("ACME directory available"))
            .expect("pebble says where its directory is");
        std::thread::spawn(move || said.for_each(drop));
        // It speaks of its door before it opens it.
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            std::thread::yield_now();
        }
        let directory = format!("https://localhost:{port}/dir");
        Some(Pebble { child, dns: names, directory, root: own, http, manage, _room: room })
    }

    /// Where it shows the root of the certificates that it gives.
    pub fn roots(&self) -> String {
        format!("https://localhost:{}/roots/0", self.manage)
    }

    /// Answers what is to be proven where it looks.
    pub fn answering(&self) -> Arc<Mutex<HashMap<String, String>>> {
        let answers: Arc<Mutex<HashMap<String, String>>> = Arc::default();
        let (known, listener) = (answers.clone(), TcpListener::bind(("127.0.0.1", self.http)).unwrap());
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let mut line = String::new();
                let _ = BufReader::new(&stream).read_line(&mut line);
                let path = line.split(' ').nth(1).unwrap_or_default();
                let token = path.strip_prefix("/.well-known/acme-challenge/").unwrap_or_default();
                let said = known.lock().unwrap().get(token).cloned().unwrap_or_default();
                let _ = write!(
                    stream,
                    "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{said}",
                    said.len()
                );
            }
        });
        answers
    }
}
