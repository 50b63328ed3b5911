//! Where machines come in: TLS, the greeting, and then a connection on which the server asks. Who may come in is said by others.

use std::fmt::Display;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::greeting::{Greeting, Refused, hear, say};
use crate::peer::Peer;
use crate::trust::Identity;
use crate::{ALIVE_EVERY, ALIVE_WITHIN, GREETING, WINDOW};

/// Machines that are being greeted at once; who comes when so many are, comes again.
const AT_ONCE: usize = 64;
/// After the system had no connection to give.
const PAUSE: Duration = Duration::from_millis(100);

/// Stands at a door.
pub trait Porter: Send + Sync + 'static {
    /// What a machine says first.
    type Hello: DeserializeOwned + Send;
    /// Which machine it is.
    type Guest: Serialize + Display + Clone + Send + Sync;

    /// Whether it may come in, and as whom; recorded before it is said.
    fn admit(&self, hello: &Self::Hello) -> impl Future<Output = Result<Self::Guest, Refused>> + Send;

    /// It was let in: what its connection is for.
    fn peer(&self, guest: &Self::Guest, hello: Self::Hello) -> Arc<Peer>;
}

/// Lets machines in until `stop`.
pub async fn serve<P: Porter>(
    porter: Arc<P>,
    listener: TcpListener,
    identity: Identity,
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
                tracing::warn!(%error, "a machine's connection could not be taken");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Ok(turn) = Arc::clone(&greeting).try_acquire_owned() else { continue };
        let (porter, identity, stop) = (Arc::clone(&porter), identity.clone(), stop.clone());
        tokio::spawn(async move {
            let greeted = tokio::time::timeout(GREETING, greet(stream, &identity, &*porter)).await;
            drop(turn);
            let (guest, hello, stream) = match greeted {
                Ok(Ok(Some(greeted))) => greeted,
                Ok(Ok(None)) => return,
                Ok(Err(error)) => return tracing::debug!(%from, %error, "what knocked is none of ours"),
                Err(_) => return tracing::debug!(%from, "what knocked said too little"),
            };
            if let Err(error) = hold(&*porter, &guest, hello, stream, stop).await {
                tracing::info!(%guest, %error, "the connection to a machine ended");
            }
        });
    }
}

/// Asks on this connection for as long as it lasts.
async fn hold<P: Porter>(
    porter: &P,
    guest: &P::Guest,
    hello: P::Hello,
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
    let peer = porter.peer(guest, hello);
    let (number, end) = peer.connect(sender);
    tracing::info!(%guest, "a machine is connected");
    let ended = tokio::select! {
        ended = connection => ended,
        () = end.cancelled() => Ok(()),
        () = stop.cancelled() => Ok(()),
    };
    peer.disconnect(number);
    ended
}

type Stream = tokio_rustls::server::TlsStream<TcpStream>;

async fn greet<P: Porter>(
    stream: TcpStream,
    identity: &Identity,
    porter: &P,
) -> io::Result<Option<(P::Guest, P::Hello, Stream)>> {
    stream.set_nodelay(true)?;
    let mut stream = identity.acceptor.accept(stream).await?;
    let hello: P::Hello = hear(&mut stream).await?;
    match porter.admit(&hello).await {
        Ok(guest) => {
            say(&mut stream, &Greeting::Welcome(guest.clone())).await?;
            Ok(Some((guest, hello, stream)))
        }
        Err(refused) => {
            say(&mut stream, &Greeting::<P::Guest>::Refused(refused)).await?;
            // Its end is waited for, or the words may be lost with the connection.
            let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut [0]).await;
            Ok(None)
        }
    }
}
