//! Connections of clients: accepting, limits on heads, and ending without cutting anyone off.

use std::convert::Infallible;
use std::future::Future;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::proxy;
use crate::router::Router;

impl Router {
    /// Serves clients of this listener until `shutdown` resolves. Then no connection is accepted, idle ones close, and
    /// requests under way may end, for as long as the options allow.
    pub async fn serve(&self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
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
                        connections.spawn(self.clone().connection(stream, peer, ended.clone()));
                    }
                    Err(error) => {
                        // Out of descriptors, mostly: give those under way time to end.
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    }
                },
            }
        }
        drop(listener);
        ending.send_replace(true);
        let drained = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(self.inner.options.drain_within, drained).await.is_err() {
            tracing::warn!(
                "connections were cut off: they took longer than {:?}",
                self.inner.options.drain_within
            );
        }
    }

    async fn connection(
        self,
        stream: tokio::net::TcpStream,
        peer: std::net::SocketAddr,
        mut ended: watch::Receiver<bool>,
    ) {
        let options = &self.inner.options;
        let service = service_fn(|request| {
            let inner = self.inner.clone();
            async move { Ok::<_, Infallible>(proxy::answer(inner, peer, request).await) }
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
            // The channel's own end means the same.
            _ = async { ended.wait_for(|ended| *ended).await.is_ok() } => None,
        };
        let result = match early {
            Some(result) => result,
            None => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = result {
            tracing::trace!(%error, "a client's connection ended early");
        }
    }
}
