//! Connections of clients: accepting, TLS, which HTTP they speak, limits on heads and idleness, and ending without cutting anyone off.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use crate::proxy::{self, Peer};
use crate::router::Router;

/// What a connection of HTTP/2 begins with, and no other (RFC 9113 section 3.4).
const HTTP2: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// For a connection on which nothing is under way to say goodbye.
const GOODBYE: Duration = Duration::from_secs(5);
/// For a request that was sent when the server was told to end, on a connection that is kept.
const CROSSING: Duration = Duration::from_secs(1);
/// Streams that a client may open and take back before they were looked at; more ends its connection (CVE-2023-44487).
const TAKEN_BACK: usize = 50;

impl Router {
    /// Serves clients of this listener until `shutdown` resolves. Then no connection is accepted, idle ones close, and
    /// requests under way may end, for as long as the options allow.
    pub async fn serve(&self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        self.accept(listener, None, shutdown).await;
    }

    /// The same over TLS. What the configuration offers by ALPN is spoken: `h2`, else HTTP/1.1.
    pub async fn serve_tls(
        &self,
        listener: TcpListener,
        tls: Arc<ServerConfig>,
        shutdown: impl Future<Output = ()>,
    ) {
        self.accept(listener, Some(TlsAcceptor::from(tls)), shutdown).await;
    }

    async fn accept(
        &self,
        listener: TcpListener,
        tls: Option<TlsAcceptor>,
        shutdown: impl Future<Output = ()>,
    ) {
        let (ending, ended) = watch::channel(false);
        let mut connections = JoinSet::new();
        tokio::pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                Some(_) = connections.join_next() => {}
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => {
                        // Without it small answers wait for the client's acknowledgement.
                        if let Err(error) = stream.set_nodelay(true) {
                            tracing::debug!(%error, "a client was gone before its connection was set up");
                            continue;
                        }
                        connections.spawn(self.clone().connection(stream, peer, tls.clone(), ended.clone()));
                    }
                    Err(error) => {
                        // Out of descriptors, mostly: give those under way time to end.
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                },
            }
        }
        drop(listener);
        ending.send_replace(true);
        let drained = async { while connections.join_next().await.is_some() {} };
        if timeout(self.inner.options.drain_within, drained).await.is_err() {
            tracing::warn!(
                "connections were cut off: they took longer than {:?}",
                self.inner.options.drain_within
            );
        }
    }

    /// One connection, from its first byte on. Whoever says nothing is sent away as soon as whoever says half a head.
    async fn connection(
        self,
        stream: TcpStream,
        address: SocketAddr,
        tls: Option<TlsAcceptor>,
        ended: watch::Receiver<bool>,
    ) {
        let within = self.inner.options.head_within;
        match tls {
            None => {
                let peer = Peer { address, scheme: "http" };
                match timeout(within, Begun::read(stream)).await {
                    Ok(Ok((stream, true))) => self.http2(stream, peer, ended).await,
                    Ok(Ok((stream, false))) => self.http1(stream, peer, ended).await,
                    Ok(Err(error)) => tracing::trace!(%error, "a client left before it asked"),
                    Err(_) => tracing::trace!("a client never asked"),
                }
            }
            Some(acceptor) => {
                let peer = Peer { address, scheme: "https" };
                match timeout(within, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => {
                        self.http2(stream, peer, ended).await;
                    }
                    Ok(Ok(stream)) => self.http1(stream, peer, ended).await,
                    Ok(Err(error)) => tracing::trace!(%error, "a client and this server share no TLS"),
                    Err(_) => tracing::trace!("a client's handshake took too long"),
                }
            }
        }
    }

    async fn http1<S>(self, stream: S, peer: Peer, ended: watch::Receiver<bool>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let options = &self.inner.options;
        let leaving = Arc::new(AtomicBool::new(false));
        let service = service_fn(|request| {
            let (inner, leaving) = (self.inner.clone(), leaving.clone());
            async move {
                let mut answer = proxy::answer(inner, peer, request).await;
                if leaving.load(Ordering::Relaxed) && answer.status() != StatusCode::SWITCHING_PROTOCOLS {
                    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(answer)
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(options.head_within)
            .max_header_size(options.max_head)
            .half_close(false)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        tokio::pin!(connection);
        let early = tokio::select! {
            result = connection.as_mut() => Some(result),
            () = over(ended) => None,
        };
        if let Some(result) = early {
            return say(result);
        }
        // Closing at once would cross a request that is on its way: whoever asks soon is told with the answer.
        leaving.store(true, Ordering::Relaxed);
        if let Ok(result) = timeout(CROSSING, connection.as_mut()).await {
            return say(result);
        }
        connection.as_mut().graceful_shutdown();
        say(connection.await);
    }

    async fn http2<S>(self, stream: S, peer: Peer, ended: watch::Receiver<bool>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let options = &self.inner.options;
        let open = Arc::new(Open::default());
        let service = service_fn(|request| {
            let (inner, counted) = (self.inner.clone(), open.clone().one());
            async move {
                let answer = proxy::answer(inner, peer, request).await;
                drop(counted);
                Ok::<_, Infallible>(answer)
            }
        });
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(options.max_streams)
            .max_header_list_size(u32::try_from(options.max_head).unwrap_or(u32::MAX))
            .max_pending_accept_reset_streams(TAKEN_BACK)
            .max_local_error_reset_streams(TAKEN_BACK)
            .keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(20))
            .serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let waits = tokio::select! {
            result = connection.as_mut() => return say(result),
            () = over(ended) => options.drain_within,
            () = open.idle_for(options.idle_within) => GOODBYE,
        };
        connection.as_mut().graceful_shutdown();
        // Whoever does not read a goodbye is cut off.
        if let Ok(result) = timeout(waits, connection).await {
            say(result);
        }
    }
}

fn say(result: Result<(), hyper::Error>) {
    if let Err(error) = result {
        tracing::trace!(%error, "a client's connection ended early");
    }
}

/// Resolves when the server is told to end. The channel's own end means the same.
async fn over(mut ended: watch::Receiver<bool>) {
    let _ = ended.wait_for(|ended| *ended).await;
}

/// Requests open on one connection.
#[derive(Default)]
struct Open(AtomicUsize);

struct One(Arc<Open>);

impl Drop for One {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Open {
    fn one(self: Arc<Self>) -> One {
        // In the upper half all requests so far, in the lower those that are open.
        self.0.fetch_add((1 << 32) + 1, Ordering::Relaxed);
        One(self)
    }

    /// Resolves when for so long no request was open and none came.
    async fn idle_for(&self, span: Duration) {
        loop {
            let (before, until) = (self.0.load(Ordering::Relaxed), Instant::now() + span);
            tokio::time::sleep_until(until).await;
            let now = self.0.load(Ordering::Relaxed);
            if now == before && now & 0xffff_ffff == 0 {
                return;
            }
        }
    }
}

/// A connection whose first bytes were read to know what it speaks.
struct Begun {
    first: [u8; HTTP2.len()],
    /// Which of them are still to be given out.
    left: std::ops::Range<usize>,
    stream: TcpStream,
}

impl Begun {
    /// And whether it speaks HTTP/2.
    async fn read(mut stream: TcpStream) -> io::Result<(Begun, bool)> {
        let (mut first, mut read) = ([0; HTTP2.len()], 0);
        loop {
            let more = stream.read(&mut first[read..]).await?;
            read += more;
            let may_be = first[..read] == HTTP2[..read];
            if more == 0 || !may_be || read == first.len() {
                let http2 = may_be && read == first.len();
                return Ok((Begun { first, left: 0..read, stream }, http2));
            }
        }
    }
}

impl AsyncRead for Begun {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.left.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, into);
        }
        let take = self.left.len().min(into.remaining());
        let from = self.left.start;
        into.put_slice(&self.first[from..from + take]);
        self.left.start += take;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Begun {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
