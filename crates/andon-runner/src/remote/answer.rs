//! What an agent answers: every question of the server is about one attempt on this machine. Dials nobody.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use andon_dial::{Body, one};
use bytes::Bytes;
use futures_util::TryStreamExt;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;
use tokio_util::io::{StreamReader, SyncIoBridge};

use super::crew::{Pieces, Trouble, receive_room};
use super::held::Machine;
use super::wire::{ASK_BYTES, Ask, Begin, Take, Which};
use crate::parcel;

/// Pieces of a parcel on their way.
const PIECES: usize = 8;
/// Of zstd: quick.
const LEVEL: i32 = 1;

type Answer = Response<Body>;

/// Answers one question.
pub(super) async fn answer(request: Request<Incoming>, machine: Arc<Machine>) -> Result<Answer, Infallible> {
    if request.method() != Method::POST {
        return Ok(said(StatusCode::METHOD_NOT_ALLOWED, "questions are posted"));
    }
    let verb = request.uri().path().to_owned();
    let body = request.into_body().into_data_stream().map_err(io::Error::other);
    let mut body = StreamReader::new(Box::pin(body));
    let answered = match verb.as_str() {
        "/begin" => begin(&machine, body).await,
        "/follow" => follow(&machine, &mut body).await,
        "/take" => take(&machine, &mut body).await,
        "/stop" => stop(&machine, &mut body).await,
        "/drop" => match hear::<Which>(&mut body).await {
            Ok(which) => machine.let_go(&which).await.map(|()| done()),
            Err(trouble) => Err(trouble),
        },
        "/list" => json(&machine.list()),
        "/leave" => machine.clear().await.map(|()| done()).map_err(Trouble::Said),
        _ => Err(Trouble::Said("the question is not understood; is the server of the same version?".into())),
    };
    Ok(answered.unwrap_or_else(|trouble| match trouble {
        Trouble::Gone(why) => said(StatusCode::NOT_FOUND, &why),
        Trouble::Silent(why) | Trouble::Said(why) => said(StatusCode::CONFLICT, &why),
    }))
}

async fn begin(
    machine: &Arc<Machine>,
    mut body: impl tokio::io::AsyncBufRead + Unpin + Send + 'static,
) -> Result<Answer, Trouble> {
    let Begin { which, work } = hear(&mut body).await?;
    if !which.is_sound() {
        return Err(Trouble::Said("that is no name of an attempt".into()));
    }
    let body = SyncIoBridge::new(body);
    machine.begin(which, work, move |room| receive_room(body, room)).await.map(|()| done())
}

async fn follow(
    machine: &Arc<Machine>,
    body: &mut (impl tokio::io::AsyncBufRead + Unpin),
) -> Result<Answer, Trouble> {
    let ask: Ask = hear(body).await?;
    let held = machine.find(&ask.which)?;
    let (progress, bytes) = held.progress(&ask).await?;
    let mut line = serde_json::to_vec(&progress).map_err(|error| Trouble::Said(error.to_string()))?;
    line.push(b'\n');
    line.extend(bytes);
    Ok(Response::new(one(line)))
}

async fn stop(
    machine: &Arc<Machine>,
    body: &mut (impl tokio::io::AsyncBufRead + Unpin),
) -> Result<Answer, Trouble> {
    let which: Which = hear(body).await?;
    machine.find(&which)?.stop.cancel();
    Ok(done())
}

async fn take(
    machine: &Arc<Machine>,
    body: &mut (impl tokio::io::AsyncBufRead + Unpin),
) -> Result<Answer, Trouble> {
    let Take { which, patterns } = hear(body).await?;
    let tree = machine.find(&which)?.room.dir().join("tree");
    let (pieces, rest) = mpsc::channel::<io::Result<Bytes>>(PIECES);
    tokio::task::spawn_blocking(move || {
        let out = Pieces { pieces: pieces.clone(), pending: Vec::new() };
        let packed = zstd::Encoder::new(out, LEVEL).and_then(|mut out| {
            // What is not there is found missing by whoever asked.
            parcel::pack(&tree, &patterns, true, &mut out)?;
            io::Write::flush(&mut out.finish()?)
        });
        if let Err(error) = packed {
            // Whoever asked hears that it is not whole.
            let _ = pieces.blocking_send(Err(error));
        }
    });
    let stream = futures_util::stream::unfold(rest, |mut rest| async {
        let piece = rest.recv().await?;
        Some((piece.map(Frame::data), rest))
    });
    Ok(Response::new(StreamBody::new(stream).boxed_unsync()))
}

/// The first line of a question.
async fn hear<T: DeserializeOwned>(body: &mut (impl tokio::io::AsyncBufRead + Unpin)) -> Result<T, Trouble> {
    let mut line = Vec::new();
    let read = limited(body).read_until(b'\n', &mut line).await;
    let heard = read.ok().and_then(|_| serde_json::from_slice(&line).ok());
    heard.ok_or_else(|| {
        Trouble::Said("the question is not understood; is the server of the same version?".into())
    })
}

fn limited<R: AsyncRead + Unpin>(body: &mut R) -> tokio::io::Take<&mut R> {
    body.take(ASK_BYTES)
}

fn json(value: &impl Serialize) -> Result<Answer, Trouble> {
    let text = serde_json::to_vec(value).map_err(|error| Trouble::Said(error.to_string()))?;
    Ok(Response::new(one(text)))
}

fn done() -> Answer {
    Response::new(one("{}\n"))
}

fn said(status: StatusCode, why: &str) -> Answer {
    let mut answer = Response::new(one(why.as_bytes().to_vec()));
    *answer.status_mut() = status;
    answer
}
