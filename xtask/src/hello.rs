//! A service that answers with its version and does nothing else, so that a bench of the router measures the router: `xtask hello PORT`.

use std::convert::Infallible;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

/// Serves until it is killed. The version is the first line of the file `version` beside it.
pub fn run(port: Option<&str>) -> Result<(), String> {
    let port: u16 = port.and_then(|port| port.parse().ok()).ok_or("usage: cargo xtask hello PORT")?;
    let version = std::fs::read_to_string("version").unwrap_or_default();
    let version = Bytes::from(version.lines().next().unwrap_or_default().to_owned());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    runtime.block_on(async move {
        let listener =
            tokio::net::TcpListener::bind(("0.0.0.0", port)).await.map_err(|error| error.to_string())?;
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            let version = version.clone();
            tokio::spawn(async move {
                let answer = service_fn(move |_| {
                    let version = version.clone();
                    async move { Ok::<_, Infallible>(hyper::Response::new(Full::new(version))) }
                });
                // A connection that breaks is the other side's business.
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), answer)
                    .await;
            });
        }
    })
}
