//! Tiny backends on real sockets, a client, and a router between them.
#![allow(dead_code, clippy::unwrap_used, reason = "each test file uses its part, and all of it is test code")]

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use andon_router::{Candidate, Options, RevisionName, Route, RouteTable, Router};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub const SERVICE: &str = "shop/production/web";

pub fn name(text: &str) -> RevisionName {
    RevisionName(text.to_owned())
}

/// A backend that answers as told, until it is killed with all its connections.
pub struct Backend {
    pub addr: SocketAddr,
    task: JoinHandle<()>,
    connections: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl Backend {
    pub async fn answering<F, Fut>(answer: F) -> Backend
    where
        F: Fn(Request<Incoming>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Response<Full<Bytes>>> + Send + 'static,
    {
        Backend::speaking(move |stream| {
            let answer = answer.clone();
            async move {
                let service = hyper::service::service_fn(move |request| {
                    let answer = answer(request);
                    async move { Ok::<_, Infallible>(answer.await) }
                });
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            }
        })
        .await
    }

    /// One that always says the same.
    pub async fn saying(text: &'static str) -> Backend {
        Backend::answering(move |_| async move { Response::new(Full::from(text)) }).await
    }

    /// One that handles raw connections.
    pub async fn speaking<F, Fut>(speak: F) -> Backend
    where
        F: Fn(TcpStream) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let connections: Arc<Mutex<Vec<JoinHandle<()>>>> = Arc::default();
        let all = connections.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                all.lock().unwrap().push(tokio::spawn(speak(stream)));
            }
        });
        Backend { addr, task, connections }
    }

    pub async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
        let connections = std::mem::take(&mut *self.connections.lock().unwrap());
        for connection in connections {
            connection.abort();
            let _ = connection.await;
        }
    }
}

/// A router that serves on a port of its own.
pub struct Served {
    pub router: Router,
    pub addr: SocketAddr,
    pub stop: Option<oneshot::Sender<()>>,
    pub task: JoinHandle<()>,
}

impl Served {
    pub async fn new() -> Served {
        Served::with(Options::default()).await
    }

    pub async fn with(options: Options) -> Served {
        let router = Router::with(options);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = router.clone();
        let task = tokio::spawn(async move {
            let stopped = async {
                let _ = stopped.await;
            };
            serving.serve(listener, stopped).await;
        });
        Served { router, addr, stop: Some(stop), task }
    }

    /// Puts one route into force.
    pub fn set(&self, route: Route) {
        self.router.set(RouteTable { routes: vec![route] }).unwrap();
    }

    pub async fn client(&self) -> Client {
        Client::to(self.addr).await
    }

    /// The counts of one arm, summed over epochs.
    pub fn sum(&self, revision: &str, of: impl Fn(&andon_router::ArmSignals) -> u64) -> u64 {
        let signals = self.router.signals();
        signals.iter().flat_map(|s| &s.arms).filter(|arm| arm.revision.0 == revision).map(of).sum()
    }
}

/// Stable `a`, candidate `b` at a weight, subjects by the header `x-user-id`.
pub fn two(a: SocketAddr, b: SocketAddr, weight_bp: u16, epoch: u64) -> Route {
    Route {
        candidate: Some(Candidate { revision: name("b"), weight_bp, salt: "R1".into() }),
        backends: HashMap::from([(name("a"), vec![a]), (name("b"), vec![b])]),
        subject_header: Some("x-user-id".into()),
        epoch,
        ..Route::to(SERVICE, &["shop.example"], name("a"), vec![])
    }
}

pub fn one(a: SocketAddr) -> Route {
    Route::to(SERVICE, &["shop.example"], name("a"), vec![a])
}

/// One keep-alive connection.
pub struct Client {
    sender: hyper::client::conn::http1::SendRequest<Full<Bytes>>,
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: hyper::HeaderMap,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
    pub fn revision(&self) -> &str {
        self.header("x-andon-revision")
    }
}

impl Client {
    pub async fn to(addr: SocketAddr) -> Client {
        let stream = TcpStream::connect(addr).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Client { sender }
    }

    pub async fn send(&mut self, request: hyper::http::request::Builder, body: impl Into<Bytes>) -> Answer {
        self.try_send(request, body).await.unwrap()
    }

    pub async fn try_send(
        &mut self,
        request: hyper::http::request::Builder,
        body: impl Into<Bytes>,
    ) -> Result<Answer, hyper::Error> {
        self.sender.ready().await?;
        let response = self.sender.send_request(request.body(Full::new(body.into())).unwrap()).await?;
        let (head, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        let body = String::from_utf8_lossy(&body).into_owned();
        Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
    }

    pub async fn get(&mut self, path: &str) -> Answer {
        self.send(get(path), "").await
    }

    pub async fn get_as(&mut self, user: &str) -> Answer {
        self.send(get("/").header("x-user-id", user), "").await
    }
}

pub fn get(path: &str) -> hyper::http::request::Builder {
    Request::get(path).header("host", "shop.example")
}

/// Waits until something is so, yielding to the tasks that make it so. Fails after 10 s.
pub async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let all = async {
        while !so() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), all)
        .await
        .unwrap_or_else(|_| panic!("never: {what}"));
}
