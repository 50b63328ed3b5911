//! The machine's end: dials its server, says who it is, and answers until it is told to stop. What it runs is its own business.

use std::convert::Infallible;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use serde::Serialize;
use serde::de::IgnoredAny;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_util::sync::CancellationToken;

use crate::greeting::{Greeting, hear, say};
use crate::trust::Pinned;
use crate::{ALIVE_EVERY, ALIVE_WITHIN, GREETING, WINDOW};

/// First pause before the server is dialled again; doubles up to the longest.
const AGAIN: Duration = Duration::from_millis(100);
const AGAIN_MOST: Duration = Duration::from_secs(2);

/// The words for one kind of machine.
#[derive(Debug, Clone, Copy)]
pub struct Words {
    /// `host`
    pub what: &'static str,
    /// The command that prints a token: `andon host token`.
    pub token: &'static str,
    /// What opens the door: `andon serve --hosts`.
    pub door: &'static str,
}

/// A machine of a server elsewhere.
pub trait Member: Send + Sync {
    /// How its people call it.
    const WORDS: Words;
    /// What it says first.
    type Hello: Serialize + Send + Sync;
    /// What it answers with.
    type Answer: Body<Data = bytes::Bytes, Error: std::error::Error + Send + Sync> + Send + 'static;

    /// Where it dials: host and port.
    fn server(&self) -> String;
    /// Of the certificate that it believes.
    fn fingerprint(&self) -> String;
    /// It was never let in so far.
    fn is_new(&self) -> bool;
    /// Its first words.
    fn hello(&self) -> Self::Hello;
    /// It was let in; what it is in the words of people.
    fn admitted(&self) -> Result<String, String>;
    /// Answers a question.
    fn answer(
        &self,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<Self::Answer>, Infallible>> + Send + 'static;
    /// The server let it go: nothing of it runs here any more.
    fn left(&self) -> bool;
    /// Ends and removes all that runs for the server.
    fn clear(&self) -> impl Future<Output = Result<(), String>> + Send;
    /// Remembers nothing any more.
    fn forget(&self) -> Result<(), String>;
}

/// Why a connection was not made or ended.
enum Trouble {
    /// It is tried again.
    Passing(String),
    /// The server said no.
    Refused { why: String, left: bool },
    /// Somebody else answered.
    Stranger(String),
}

impl Trouble {
    fn say(&self, server: &str, words: Words) -> String {
        match self {
            Trouble::Passing(why) => format!("{server} is not reached: {why}"),
            Trouble::Refused { why, .. } => why.clone(),
            Trouble::Stranger(shown) => format!(
                "{server} shows another certificate than the one this {} was told of (it shows {})\nhint: check the address; if the server's data was made anew, get a new token with `{}`",
                words.what,
                shown.get(..16).unwrap_or_default(),
                words.token
            ),
        }
    }
}

/// Where a server listens that was not reached, for people.
pub fn unreached(server: &str, why: &str, words: Words) -> String {
    format!("{server} is not reached: {why}\nhint: it is where `{}` listens, as HOST:PORT", words.door)
}

/// Dials and answers until it is told to stop or is not wanted any more. `said` hears what people want to know.
pub async fn attend<M: Member>(
    member: &M,
    stop: CancellationToken,
    said: impl Fn(String),
) -> Result<(), String> {
    let (words, server) = (M::WORDS, member.server());
    let (mut pause, mut told) = (AGAIN, false);
    loop {
        let dialled = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            dialled = dial(member) => dialled,
        };
        let trouble = match dialled {
            Ok(stream) => {
                said(member.admitted()?);
                (pause, told) = (AGAIN, false);
                let why = converse(member, stream, &stop).await;
                if stop.is_cancelled() {
                    return Ok(());
                }
                if member.left() {
                    member.forget()?;
                    said(format!("this {} has left: nothing of it runs here any more", words.what));
                    return Ok(());
                }
                Trouble::Passing(why)
            }
            Err(Trouble::Refused { left: true, why }) => {
                member.clear().await?;
                member.forget()?;
                said(format!("{why}: nothing of it runs here any more"));
                return Ok(());
            }
            Err(trouble) => {
                // Nobody waits for a machine that was never let in.
                let never = member.is_new();
                if never || matches!(trouble, Trouble::Refused { .. }) {
                    let refused = trouble.say(&server, words);
                    if !never {
                        return Err(refused);
                    }
                    member.forget()?;
                    return Err(match trouble {
                        Trouble::Passing(why) => unreached(&server, &why, words),
                        _ => refused,
                    });
                }
                trouble
            }
        };
        if !std::mem::replace(&mut told, true) {
            said(format!(
                "{}; it is dialled again and again, what runs here goes on",
                trouble.say(&server, words)
            ));
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(pause + jitter(pause)) => {}
        }
        pause = (pause * 2).min(AGAIN_MOST);
    }
}

/// Up to half of it more, so that machines that lost one server do not all come back at one moment.
fn jitter(pause: Duration) -> Duration {
    let dice = RandomState::new().build_hasher().finish() % 512;
    pause * dice as u32 / 1024
}

async fn dial<M: Member>(member: &M) -> Result<TlsStream<TcpStream>, Trouble> {
    match tokio::time::timeout(GREETING, greet(member)).await {
        Ok(greeted) => greeted,
        Err(_) => Err(Trouble::Passing("no answer in time".into())),
    }
}

async fn greet<M: Member>(member: &M) -> Result<TlsStream<TcpStream>, Trouble> {
    let passing = |error: std::io::Error| Trouble::Passing(error.to_string());
    let stream = TcpStream::connect(member.server()).await.map_err(passing)?;
    stream.set_nodelay(true).map_err(passing)?;
    let pinned = Pinned::new(&member.fingerprint());
    let name = ServerName::try_from("andon").map_err(|error| Trouble::Passing(error.to_string()))?;
    let stream = pinned.connector().map_err(passing)?.connect(name, stream).await;
    let mut stream = stream.map_err(|error| match pinned.stranger() {
        Some(shown) => Trouble::Stranger(shown),
        None => passing(error),
    })?;
    say(&mut stream, &member.hello()).await.map_err(passing)?;
    match hear::<Greeting<IgnoredAny>>(&mut stream).await.map_err(passing)? {
        Greeting::Welcome(_) => Ok(stream),
        Greeting::Refused(refused) => Err(Trouble::Refused { why: refused.why, left: refused.left }),
    }
}

/// Answers on this connection until it ends; says why it did.
async fn converse<M: Member>(member: &M, stream: TlsStream<TcpStream>, stop: &CancellationToken) -> String {
    let service = service_fn(|request| member.answer(request));
    let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(ALIVE_EVERY)
        .keep_alive_timeout(ALIVE_WITHIN)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        ended = connection => ended.err().map_or_else(|| "the connection was closed".into(), |e| e.to_string()),
        () = stop.cancelled() => "told to stop".into(),
    }
}

/// A secret that nobody can guess, in hexadecimal.
pub fn fresh() -> Result<String, String> {
    let mut bits = [0_u8; 32];
    getrandom::fill(&mut bits).map_err(|error| format!("the system gives no random bytes: {error}"))?;
    Ok(hex::encode(bits))
}
