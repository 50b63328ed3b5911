//! Where agents come in: TLS, the greeting, and then a connection on which the server asks. Who may come in is said by others.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use andon_model::HostName;
use futures_util::future::BoxFuture;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::fleet::Fleet;
use super::trust::Identity;
use super::wire::{Entry, Greeting, Hello, Refused, VERSION, hear, say};
use super::{ALIVE_EVERY, ALIVE_WITHIN, GREETING, WINDOW};

/// Machines that are being greeted at once; who comes when so many are, comes again.
const AT_ONCE: usize = 64;
/// After the system had no connection to give.
const PAUSE: Duration = Duration::from_millis(100);

/// Says who may come in, and records it.
pub type Admit = Arc<dyn Fn(Entry) -> BoxFuture<'static, Result<HostName, Refused>> + Send + Sync>;

impl Fleet {
    /// Lets agents in until `stop`.
    pub async fn serve(
        self: Arc<Fleet>,
        listener: TcpListener,
        identity: Identity,
        admit: Admit,
        stop: CancellationToken,
    ) {
        let greeting = Arc::new(Semaphore::new(AT_ONCE));
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let (stream, from) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a host's connection could not be taken");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let Ok(turn) = Arc::clone(&greeting).try_acquire_owned() else { continue };
            let (fleet, identity, admit, stop) =
                (Arc::clone(&self), identity.clone(), Arc::clone(&admit), stop.clone());
            tokio::spawn(async move {
                let greeted = tokio::time::timeout(GREETING, greet(stream, &identity, &admit)).await;
                drop(turn);
                let (host, hello, stream) = match greeted {
                    Ok(Ok(Some(greeted))) => greeted,
                    Ok(Ok(None)) => return,
                    Ok(Err(error)) => return tracing::debug!(%from, %error, "what knocked is no host"),
                    Err(_) => return tracing::debug!(%from, "what knocked said too little"),
                };
                if let Err(error) = fleet.hold(&host, hello, stream, stop).await {
                    tracing::info!(%host, %error, "the connection to a host ended");
                }
            });
        }
    }

    /// Asks on this connection for as long as it lasts.
    async fn hold(
        &self,
        host: &HostName,
        hello: Hello,
        stream: Stream,
        stop: CancellationToken,
    ) -> Result<(), hyper::Error> {
        let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(ALIVE_EVERY)
            .keep_alive_timeout(ALIVE_WITHIN)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .handshake(TokioIo::new(stream))
            .await?;
        let (number, end) = self.connect(host, sender, hello.isolation);
        tracing::info!(%host, "a host is connected");
        let ended = tokio::select! {
            ended = connection => ended,
            () = end.cancelled() => Ok(()),
            () = stop.cancelled() => Ok(()),
        };
        self.disconnect(host, number);
        ended
    }
}

type Stream = tokio_rustls::server::TlsStream<TcpStream>;

async fn greet(
    stream: TcpStream,
    identity: &Identity,
    admit: &Admit,
) -> io::Result<Option<(HostName, Hello, Stream)>> {
    stream.set_nodelay(true)?;
    let mut stream = identity.acceptor.accept(stream).await?;
    let hello: Hello = hear(&mut stream).await?;
    let admitted = match hello.version {
        VERSION => match hello.entry.flaw() {
            None => admit(hello.entry.clone()).await,
            Some(flaw) => Err(Refused::because(flaw)),
        },
        other => Err(Refused::because(format!(
            "its agent speaks version {other} and this server {VERSION}\nhint: use the same version of andon on both"
        ))),
    };
    match admitted {
        Ok(host) => {
            say(&mut stream, &Greeting::Welcome(host.clone())).await?;
            Ok(Some((host, hello, stream)))
        }
        Err(refused) => {
            say(&mut stream, &Greeting::Refused(refused)).await?;
            // Its end is waited for, or the words may be lost with the connection.
            let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut [0]).await;
            Ok(None)
        }
    }
}
