//! Orders at a real ACME server: pebble, the one that Let's Encrypt tests with.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use andon_certificates::{Authority, Folder, OrderError};
use x509_parser::pem::parse_x509_pem;

struct Pebble {
    child: Child,
    dns: Child,
    authority: Authority,
    http: u16,
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
    /// None where it is not installed; in CI that is a failure.
    fn start() -> Option<Pebble> {
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
        let (port, manage, http, dns) = (free(), free(), free(), free());
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
        said.by_ref().map_while(Result::ok).find(|line| line.contains("ACME directory available"))?;
        std::thread::spawn(move || said.for_each(drop));
        // It speaks of its door before it opens it.
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            std::thread::yield_now();
        }
        let directory = format!("https://localhost:{port}/dir");
        let authority =
            Authority { directory, contact: Some("mailto:ops@shop.example".into()), root: Some(own) };
        Some(Pebble { child, dns: names, authority, http, _room: room })
    }

    /// Answers what is to be proven where pebble looks.
    fn answering(&self) -> Arc<Mutex<HashMap<String, String>>> {
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

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_ordered_for_the_host_and_the_account_is_used_again() {
    let Some(pebble) = Pebble::start() else { return };
    let room = tempfile::tempdir().unwrap();
    let folder = Folder::open(room.path()).unwrap();
    let answers = pebble.answering();
    for host in ["shop.example", "api.shop.example"] {
        let proves = answers.clone();
        let pair = pebble.authority.order(&folder, host, move |said| *proves.lock().unwrap() = said).await;
        let pair = pair.unwrap_or_else(|error| panic!("{error}"));
        folder.keep(host, &pair).unwrap();
        let (_, pem) = parse_x509_pem(pair.chain.as_bytes()).unwrap();
        let certificate = pem.parse_x509().unwrap();
        let names = certificate.subject_alternative_name().unwrap().unwrap();
        assert!(format!("{:?}", names.value.general_names).contains(host), "{names:?}");
        assert!(
            pair.chain.matches("BEGIN CERTIFICATE").count() >= 2,
            "the way to the authority is part of it"
        );
        assert!(answers.lock().unwrap().is_empty(), "what was proven is no longer said");
    }
    assert_eq!(folder.read().unwrap().len(), 2);
    let kept = std::fs::read_to_string(room.path().join("account.json")).unwrap();
    assert!(kept.contains(&pebble.authority.directory));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_does_not_lead_here_gets_none_and_the_words_say_what_to_do() {
    let Some(pebble) = Pebble::start() else { return };
    let room = tempfile::tempdir().unwrap();
    let folder = Folder::open(room.path()).unwrap();
    let _nobody_proves = pebble.answering();
    let error = pebble.authority.order(&folder, "shop.example", |_| ()).await.unwrap_err();
    assert!(matches!(error, OrderError::NotOurs(..)), "{error:?}");
    assert!(error.to_string().contains("hint: "));
}
