//! What is spoken on either side: HTTP/2 in the clear and over TLS, gRPC, and who may ask for a revision.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

mod support;

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use andon_router::tls::{Certificates, Pair};
use andon_router::{Arm, By, Forced, Options, Protocol, Route};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::http2::SendRequest;
use hyper::{HeaderMap, Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use support::{Backend, Client, SERVICE, Served, get, name, one, two, until};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

async fn http2<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(stream: S) -> SendRequest<Full<Bytes>> {
    let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

fn ask(path: &str) -> hyper::http::request::Builder {
    Request::get(format!("http://shop.example{path}"))
}

/// A gRPC server in small: it answers a call with one message and says in the trailers what became of it.
async fn grpc(status: &'static str) -> Backend {
    Backend::speaking(move |stream| async move {
        let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| async move {
            assert_eq!(
                (request.version(), request.headers()["te"].to_str().unwrap()),
                (Version::HTTP_2, "trailers")
            );
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", status.parse().unwrap());
            let frames = [Frame::data(Bytes::from_static(b"\0\0\0\0\0")), Frame::trailers(trailers)];
            let body = StreamBody::new(futures_util::stream::iter(frames.map(Ok::<_, Infallible>)));
            let response = Response::builder().header("content-type", "application/grpc");
            Ok::<_, Infallible>(response.body(body).unwrap())
        });
        let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let _ = builder.serve_connection(TokioIo::new(stream), service).await;
    })
    .await
}

#[tokio::test]
async fn clients_of_http2_and_of_http1_share_a_port_and_a_service() {
    let seen: Arc<Mutex<Vec<HeaderMap>>> = Arc::default();
    let keep = seen.clone();
    let a = Backend::answering(move |request| {
        keep.lock().unwrap().push(request.headers().clone());
        async { Response::new(Full::from("a")) }
    })
    .await;
    let served = Served::new().await;
    served.set(one(a.addr));
    let mut sender = http2(TcpStream::connect(served.addr).await.unwrap()).await;
    let request = ask("/").header("cookie", "a=1").header("cookie", "b=2").body(Full::default()).unwrap();
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.version()), (200, Version::HTTP_2));
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "a");
    assert_eq!(served.client().await.get("/").await.status, 200);
    let seen = seen.lock().unwrap();
    assert_eq!(
        (seen[0]["host"].to_str().unwrap(), seen[0]["cookie"].to_str().unwrap()),
        ("shop.example", "a=1; b=2")
    );
    assert_eq!(served.sum("a", |arm| arm.requests), 2);
}

#[tokio::test]
async fn a_hundred_requests_of_http2_at_once_share_one_connection_to_their_instance() {
    let connections = Arc::new(Mutex::new(0));
    let count = connections.clone();
    let a = Backend::speaking(move |stream| {
        *count.lock().unwrap() += 1;
        async move {
            let service = hyper::service::service_fn(|_| async {
                Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("a")))
            });
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        }
    })
    .await;
    let served = Served::new().await;
    served.set(Route { protocol: Protocol::Http2, ..one(a.addr) });
    assert_eq!(served.client().await.get("/").await.body, "a");
    let sender = http2(TcpStream::connect(served.addr).await.unwrap()).await;
    let all = (0..100).map(|_| {
        let mut sender = sender.clone();
        async move { sender.send_request(ask("/").body(Full::default()).unwrap()).await.unwrap().status() }
    });
    assert!(futures_util::future::join_all(all).await.iter().all(|status| status == &200));
    assert_eq!(*connections.lock().unwrap(), 1);
}

#[tokio::test]
async fn a_call_of_grpc_that_fails_in_its_trailers_is_an_error_though_http_says_200() {
    for (status, errors) in [("0", 0), ("5", 0), ("13", 1)] {
        let a = grpc(status).await;
        let served = Served::new().await;
        served.set(Route { protocol: Protocol::Http2, ..one(a.addr) });
        let mut sender = http2(TcpStream::connect(served.addr).await.unwrap()).await;
        let request =
            ask("/shop.Cart/Add").header("te", "trailers").header("content-type", "application/grpc");
        let answer = sender.send_request(request.body(Full::default()).unwrap()).await.unwrap();
        assert_eq!(answer.status(), 200);
        let whole = answer.into_body().collect().await.unwrap();
        assert_eq!(whole.trailers().unwrap()["grpc-status"], status);
        assert_eq!(served.sum("a", |arm| arm.errors), errors, "status {status}");
        assert_eq!(served.sum("a", |arm| arm.reached_errors[0]), errors);
    }
}

#[tokio::test]
async fn where_nothing_can_answer_a_caller_of_grpc_is_told_so_in_its_own_words() {
    let served = Served::new().await;
    served
        .set(Route { protocol: Protocol::Http2, ..Route::to(SERVICE, &["shop.example"], name("a"), vec![]) });
    let mut sender = http2(TcpStream::connect(served.addr).await.unwrap()).await;
    let request = ask("/shop.Cart/Add").header("content-type", "application/grpc");
    let answer = sender.send_request(request.body(Full::default()).unwrap()).await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers()["grpc-status"].to_str().unwrap()), (200, "14"));
    assert!(answer.headers()["grpc-message"].to_str().unwrap().starts_with("The service cannot answer"));
}

#[tokio::test]
async fn whoever_asks_for_a_revision_gets_it_and_is_no_witness() {
    let (a, b) = (Backend::saying("a").await, Backend::saying("b").await);
    let served = Served::new().await;
    let by = |by, name: &str| Forced { by, name: name.into(), value: "yes".into(), to: Arm::Candidate };
    let forced = vec![by(By::Header, "x-try"), by(By::Cookie, "try")];
    served.set(Route { forced: forced.clone(), ..two(a.addr, b.addr, 0, 1) });
    let mut client = served.client().await;
    assert_eq!(client.send(get("/").header("x-try", "yes"), "").await.body, "b");
    assert_eq!(client.send(get("/").header("cookie", "c=1; try=yes"), "").await.body, "b");
    assert_eq!(client.send(get("/").header("x-try", "no"), "").await.body, "a");
    assert_eq!((served.sum("b", |arm| arm.requests), served.sum("a", |arm| arm.requests)), (0, 1));
    served.set(Route { forced, ..one(a.addr) });
    assert_eq!(
        client.send(get("/").header("x-try", "yes"), "").await.body,
        "a",
        "nothing is left to ask for"
    );
}

#[tokio::test]
async fn answers_name_their_request_and_the_log_says_one_line_of_each() {
    let room = tempfile::tempdir().unwrap();
    let file = room.path().join("access.log");
    let access = andon_router::AccessLog::open(&file).unwrap();
    let a = Backend::saying("a").await;
    let served = Served::with(Options { access: Some(access), ..Options::default() }).await;
    served.set(one(a.addr));
    let answer =
        served.client().await.send(get("/cart?token=secret").header("x-request-id", "r-7"), "").await;
    assert_eq!(answer.header("x-request-id"), "r-7");
    until("the line is written", || std::fs::read_to_string(&file).is_ok_and(|text| text.ends_with('\n')))
        .await;
    let text = std::fs::read_to_string(&file).unwrap();
    let line: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (line["path"].as_str(), line["status"].as_u64(), line["request"].as_str()),
        (Some("/cart"), Some(200), Some("r-7"))
    );
    assert!(!text.contains("secret"), "queries hold secrets");
}

#[tokio::test]
async fn over_tls_a_client_gets_the_certificate_of_its_host_and_speaks_what_both_know() {
    let made = rcgen::generate_simple_self_signed(["shop.example".to_owned()]).unwrap();
    let pair = Pair { chain: made.cert.pem(), key: made.signing_key.serialize_pem() };
    let certificates = Certificates::default();
    let seen: Arc<Mutex<Option<String>>> = Arc::default();
    let keep = seen.clone();
    let a = Backend::answering(move |request| {
        *keep.lock().unwrap() = Some(request.headers()["x-forwarded-proto"].to_str().unwrap().to_owned());
        async { Response::new(Full::from("a")) }
    })
    .await;
    let served = Served::new().await;
    served.set(one(a.addr));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (router, config) = (served.router.clone(), certificates.config());
    tokio::spawn(async move { router.serve_tls(listener, config, std::future::pending()).await });
    // Certificates may come after the first connection.
    certificates.show(&HashMap::from([("shop.example".to_owned(), pair.clone())])).unwrap();

    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(pair.chain.as_bytes()).unwrap()).unwrap();
    let connect = async |host: &'static str, alpn: &[&[u8]]| {
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let mut config = builder
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let stream = TcpStream::connect(addr).await.unwrap();
        TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(host).unwrap(), stream).await
    };
    let stream = connect("shop.example", &[b"h2", b"http/1.1"]).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let answer = http2(stream).await.send_request(ask("/").body(Full::default()).unwrap()).await.unwrap();
    assert_eq!(answer.version(), Version::HTTP_2);
    assert_eq!(seen.lock().unwrap().take().as_deref(), Some("https"));
    let stream = connect("shop.example", &[b"http/1.1"]).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    assert_eq!(
        sender.send_request(get("/").body(Full::<Bytes>::default()).unwrap()).await.unwrap().status(),
        200
    );
    assert!(connect("other.example", &[]).await.is_err());
}

#[tokio::test]
async fn an_authority_of_certificates_finds_its_answer_whatever_the_host() {
    let served = Served::new().await;
    served.router.prove(HashMap::from([("token-1".to_owned(), "token-1.print".to_owned())]));
    let mut client = served.client().await;
    assert_eq!(client.get("/.well-known/acme-challenge/token-1").await.body.trim(), "token-1.print");
    assert_eq!(client.get("/.well-known/acme-challenge/token-2").await.status, 404);
}

#[tokio::test]
async fn whoever_says_nothing_or_half_a_head_is_sent_away() {
    let a = Backend::saying("a").await;
    let served =
        Served::with(Options { head_within: Duration::from_millis(200), ..Options::default() }).await;
    served.set(one(a.addr));
    for begin in ["", "P", "PR", "GET / HTTP/1.1\r\nhost: shop.ex", "PRI * HTTP/2.0\r\n"] {
        let mut stream = TcpStream::connect(served.addr).await.unwrap();
        stream.write_all(begin.as_bytes()).await.unwrap();
        let closed = tokio::time::timeout(Duration::from_secs(40), stream.read_to_end(&mut Vec::new())).await;
        assert!(closed.is_ok(), "{begin:?} kept its connection");
    }
    assert_eq!(served.client().await.get("/").await.status, 200);
}

#[tokio::test]
async fn a_connection_of_http2_on_which_nothing_happens_is_closed_in_good_order() {
    let a = Backend::saying("a").await;
    let served =
        Served::with(Options { idle_within: Duration::from_millis(100), ..Options::default() }).await;
    served.set(one(a.addr));
    let mut sender = http2(TcpStream::connect(served.addr).await.unwrap()).await;
    assert_eq!(sender.send_request(ask("/").body(Full::default()).unwrap()).await.unwrap().status(), 200);
    until("it is closed", || sender.is_closed()).await;
    assert_eq!(Client::to(served.addr).await.get("/").await.status, 200);
}
