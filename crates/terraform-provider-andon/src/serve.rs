//! How Terraform is spoken with: one line on the output, then gRPC over TLS on a socket in a directory that only this user can open. Knows
//! bytes and method names; what they mean is told by [`crate::provider`].
//!
//! Sources: docs/plugin-protocol of hashicorp/terraform; docs/internals.md of hashicorp/go-plugin (the handshake line); gRPC over HTTP/2.
//! Terraform takes the certificate of the line as the only one it trusts. It is not asked for its own: whoever can open the socket is
//! this user, and could as well start the provider.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use crate::provider::Provider;

/// A request is no larger, in bytes: Terraform's own limit of what it takes.
const LARGEST: usize = 256 << 20;
/// How long answers that are on their way may take at the end.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What gRPC calls a failure: its number, its words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status(pub u8, pub String);

impl Status {
    /// There is no such method.
    pub const UNIMPLEMENTED: u8 = 12;
    /// A message that cannot be read.
    pub const INVALID: u8 = 3;
    /// Our own mistake.
    pub const INTERNAL: u8 = 13;
}

/// Serves until Terraform says that it is done or is gone.
///
/// # Errors
/// When there can be no socket or no certificate.
pub async fn serve() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let dir = match std::env::var_os("PLUGIN_UNIX_SOCKET_DIR").filter(|dir| !dir.is_empty()) {
        Some(dir) => tempfile::tempdir_in(dir)?,
        None => tempfile::tempdir()?,
    };
    let path = dir.path().join("plugin");
    let listener = UnixListener::bind(&path)?;
    // Without a certificate of its own Terraform speaks in the clear: so do debuggers.
    let tls = std::env::var_os("PLUGIN_CLIENT_CERT").is_some_and(|cert| !cert.is_empty());
    let (acceptor, certificate) =
        if tls { certified().map(|(a, c)| (Some(a), c))? } else { (None, String::new()) };
    let mut out = std::io::stdout().lock();
    writeln!(out, "1|6|unix|{}|grpc|{certificate}", path.display())?;
    out.flush()?;
    drop(out);

    let provider = Arc::new(Provider::default());
    let parent = rustix::process::getppid();
    let (end, mut ended) = watch::channel(false);
    let end = Arc::new(end);
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => accepted?.0,
            _ = ended.wait_for(|ended| *ended) => break,
            () = orphaned(parent) => break,
        };
        let (provider, end, acceptor) = (provider.clone(), end.clone(), acceptor.clone());
        connections.spawn(async move {
            match acceptor {
                // A connection that fails its greeting is the other side's trouble.
                Some(acceptor) => {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        converse(stream, provider, end).await;
                    }
                }
                None => converse(stream, provider, end).await,
            }
        });
    }
    let _ =
        tokio::time::timeout(LAST_WORDS, async { while connections.join_next().await.is_some() {} }).await;
    Ok(())
}

/// Terraform ended without a word: we are somebody else's child now. Its input says nothing, for it is often closed from the start.
async fn orphaned(parent: Option<rustix::process::Pid>) {
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    while rustix::process::getppid() == parent {
        tick.tick().await;
    }
}

/// A certificate for this process alone, and its text for the line.
fn certified() -> Result<(TlsAcceptor, String), Box<dyn std::error::Error + Send + Sync>> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let certificate = made.cert.der().clone();
    let text = base64::engine::general_purpose::STANDARD_NO_PAD.encode(&certificate);
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let mut config =
        ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok((TlsAcceptor::from(Arc::new(config)), text))
}

async fn converse<S>(stream: S, provider: Arc<Provider>, end: Arc<watch::Sender<bool>>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let mut ended = end.subscribe();
    let service = service_fn(move |request| answer(request, provider.clone(), end.clone()));
    let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = ended.wait_for(|ended| *ended) => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

type Body = http_body_util::combinators::BoxBody<Bytes, std::convert::Infallible>;

async fn answer(
    request: Request<Incoming>,
    provider: Arc<Provider>,
    end: Arc<watch::Sender<bool>>,
) -> Result<Response<Body>, std::convert::Infallible> {
    let path = request.uri().path().to_owned();
    let said = match Limited::new(request.into_body(), LARGEST).collect().await {
        Err(error) => Err(Status(Status::INVALID, error.to_string())),
        Ok(body) => match (path.as_str(), message(&body.to_bytes())) {
            (_, Err(status)) => Err(status),
            ("/plugin.GRPCController/Shutdown", Ok(_)) => {
                end.send_replace(true);
                Ok(Vec::new())
            }
            ("/grpc.health.v1.Health/Check", Ok(_)) => Ok(vec![0x08, 0x01]),
            (path, Ok(message)) => match path.strip_prefix("/tfplugin6.Provider/") {
                Some(method) => {
                    let method = method.to_owned();
                    // Resources ask the server and wait: on a thread that may.
                    tokio::task::spawn_blocking(move || provider.call(&method, &message))
                        .await
                        .unwrap_or_else(|_| {
                            Err(Status(Status::INTERNAL, "this is a mistake of the provider".into()))
                        })
                }
                None => Err(Status(Status::UNIMPLEMENTED, "there is no such service".into())),
            },
        },
    };
    let mut trailers = HeaderMap::new();
    let body = match said {
        Ok(message) => {
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            framed(&message)
        }
        Err(Status(number, words)) => {
            trailers.insert("grpc-status", HeaderValue::from(u16::from(number)));
            let words: String = words.chars().filter(|c| (' '..='~').contains(c) && *c != '%').collect();
            if let Ok(words) = HeaderValue::from_str(&words) {
                trailers.insert("grpc-message", words);
            }
            Bytes::new()
        }
    };
    let body = Full::new(body).with_trailers(async { Some(Ok(trailers)) }).boxed();
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    Ok(response)
}

/// The one message of a body: a byte that says whether it is compressed, its length in four bytes, itself.
fn message(body: &[u8]) -> Result<Vec<u8>, Status> {
    let invalid = |why: &str| Status(Status::INVALID, why.to_owned());
    let [compressed, a, b, c, d, rest @ ..] = body else { return Err(invalid("the message has no head")) };
    if *compressed != 0 {
        return Err(Status(Status::UNIMPLEMENTED, "compressed messages are not read".into()));
    }
    if rest.len() != u32::from_be_bytes([*a, *b, *c, *d]) as usize {
        return Err(invalid("the message is not as long as it says"));
    }
    Ok(rest.to_vec())
}

fn framed(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(message.len() + 5);
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.put_slice(message);
    framed.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_holds_exactly_what_it_says() {
        assert_eq!(message(&framed(b"abc")), Ok(b"abc".to_vec()));
        assert_eq!(message(&framed(b"")), Ok(Vec::new()));
        for broken in [&b""[..], b"\0\0\0\0", b"\0\0\0\0\x02a", b"\0\0\0\0\0a", b"\x01\0\0\0\x01a"] {
            assert!(message(broken).is_err(), "{broken:?}");
        }
    }
}
