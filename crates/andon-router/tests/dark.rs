//! Mirrored traffic: found differences, and users who notice nothing.

mod support;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use andon_router::{Mirror, Route};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response};
use support::{Backend, SERVICE, Served, get, name, one, until};

fn json(body: &'static str) -> Response<Full<Bytes>> {
    Response::builder()
        .header("content-type", "application/json")
        .body(Full::from(body))
        .expect("a valid answer")
}

fn mirroring(primary: &Backend, shadow: &Backend, all_methods: bool) -> Route {
    let mut route = one(primary.addr);
    route.backends.insert(name("b"), vec![shadow.addr]);
    route.mirror = Some(Mirror { revision: name("b"), percent_bp: 10_000, compare: true, all_methods });
    route
}

#[tokio::test]
async fn a_shadow_that_answers_otherwise_is_found_out() {
    let a = Backend::answering(|_| async { json(r#"{"price": 10, "name": "x"}"#) }).await;
    let marks: Arc<Mutex<Vec<bool>>> = Arc::default();
    let keep = marks.clone();
    let b = Backend::answering(move |request: Request<_>| {
        keep.lock().unwrap().push(request.headers().contains_key("x-andon-shadow"));
        let same = request.uri().path() == "/same";
        async move { json(if same { r#"{"name":"x","price":10}"# } else { r#"{"name":"x","price":12}"# }) }
    })
    .await;
    let served = Served::new().await;
    served.set(mirroring(&a, &b, false));
    let mut client = served.client().await;
    assert!(client.get("/same").await.body.contains("10"));
    assert!(client.get("/other?token=secret").await.body.contains("10"));
    assert_eq!(client.send(get("/write").method("POST"), "x").await.status, 200);
    until("both were compared", || served.router.differences(SERVICE).is_some_and(|d| d.compared == 2)).await;
    let found = served.router.differences(SERVICE).unwrap();
    assert_eq!((found.mirrored, found.different, found.dropped, found.failed), (2, 1, 0, 0));
    let field = &found.fields[0];
    assert_eq!((field.at.as_str(), field.count, field.noise), ("body /price", 1, false));
    let sample = &field.samples[0];
    assert_eq!((sample.method.as_str(), sample.path.as_str()), ("GET", "/other"));
    assert_eq!((sample.primary.as_str(), sample.shadow.as_str()), ("10", "12"));
    assert_eq!(*marks.lock().unwrap(), [true, true], "a copy says that it is one");
    assert_eq!(served.sum("b", |arm| arm.requests), 0, "a copy is nobody's request");
}

#[tokio::test]
async fn a_body_is_copied_when_writing_was_allowed_and_a_long_one_is_not() {
    let echo = |request: Request<hyper::body::Incoming>| async {
        Response::new(Full::new(request.into_body().collect().await.unwrap().to_bytes()))
    };
    let (a, b) = (Backend::answering(echo).await, Backend::answering(echo).await);
    let served = Served::new().await;
    served.set(mirroring(&a, &b, true));
    let mut client = served.client().await;
    assert_eq!(client.send(get("/").method("POST"), "hello").await.body, "hello");
    assert_eq!(client.send(get("/").method("POST"), vec![b'x'; 1_000_000]).await.body.len(), 1_000_000);
    let done = || served.router.differences(SERVICE).is_some_and(|d| d.compared + d.dropped == 2);
    until("both were seen", done).await;
    let found = served.router.differences(SERVICE).unwrap();
    assert_eq!((found.compared, found.different, found.dropped), (1, 0, 1), "{found:?}");
}

#[tokio::test]
async fn a_shadow_that_hangs_slows_nobody() {
    let a = Backend::saying("a").await;
    let b = Backend::speaking(|stream| async move {
        let _held = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let served = Served::new().await;
    served.set(mirroring(&a, &b, false));
    let mut client = served.client().await;
    let began = Instant::now();
    for _ in 0..200 {
        assert_eq!(client.get("/").await.status, 200);
    }
    // One wait for a shadow would take its 5 s.
    assert!(began.elapsed() < Duration::from_secs(3), "200 requests took {:?}", began.elapsed());
    until("copies beyond 64 are dropped", || {
        served.router.differences(SERVICE).is_some_and(|d| d.dropped > 100)
    })
    .await;
}

#[tokio::test]
async fn a_dead_shadow_is_only_counted() {
    let (a, b) = (Backend::saying("a").await, Backend::saying("b").await);
    let served = Served::new().await;
    served.set(mirroring(&a, &b, false));
    b.kill().await;
    assert_eq!(served.client().await.get("/").await.body, "a");
    until("the failure is counted", || served.router.differences(SERVICE).is_some_and(|d| d.failed == 1))
        .await;
    served.set(one(a.addr));
    assert!(served.router.differences(SERVICE).is_none());
}
