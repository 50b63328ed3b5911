//! Our router behind the port: the suite that every plane passes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::sync::Arc;

use andon_router::Router;
use andon_testkit::plane::keeps_its_word;
use tokio::net::TcpListener;

#[tokio::test(flavor = "multi_thread")]
async fn our_router_keeps_the_word_of_a_plane() {
    let router = Router::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let users = listener.local_addr().unwrap();
    let served = router.clone();
    let serving = tokio::spawn(async move { served.serve(listener, std::future::pending::<()>()).await });
    tokio::task::spawn_blocking(move || keeps_its_word(&(Arc::new(router) as _), users)).await.unwrap();
    serving.abort();
}
