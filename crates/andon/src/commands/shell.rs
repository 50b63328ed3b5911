//! `andon env shell`: a recorded shell inside an instance, and `andon env shells`: who opened which. With a terminal on both sides it is a
//! terminal; else a command with its output and its exit status.

use std::io::{IsTerminal, Read, Write};

use andon_api::shell;
use andon_line::view::ShellsView;
use andon_runtime::{NOT_OPENED, Said, Size, Terminal, Typed};
use clap::Args;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};

use super::Place;
use crate::client::{Failure, status};
use crate::say::say;

/// Bytes carried at once.
const CHUNK: usize = 16 * 1024;

/// `andon env shell …`.
#[derive(Debug, Args)]
pub struct Shell {
    /// The environment. It is tainted from now on, until it is rebuilt.
    name: String,
    /// Inside which instance; default: the oldest healthy one.
    instance: Option<String>,
    /// Why. Everybody reads it.
    #[arg(long)]
    reason: String,
    /// What to run; default: a shell to type in.
    #[arg(last = true)]
    command: Vec<String>,
}

/// `andon env shells …`.
#[derive(Debug, Args)]
pub struct Shells {
    /// Print the recording of this one (asciicast; `asciinema play` shows it).
    #[arg(long)]
    recording: Option<String>,
}

/// Lists them, or prints one.
pub fn shells(place: &Place, asked: Shells) -> Result<(), Failure> {
    if let Some(shell) = asked.recording {
        let path = format!("{}/shells/{shell}/recording", place.base);
        let mut text = place.client.lines(&path)?;
        std::io::copy(&mut text, &mut std::io::stdout().lock()).map_err(|error| error.to_string())?;
        return Ok(());
    }
    let words = |view: &ShellsView| {
        if view.rows.is_empty() {
            say!("● nobody opened a shell yet");
        }
        for row in &view.rows {
            let what = if row.command.is_empty() { "typed in" } else { &row.command };
            say!(
                "{} {} {} in {} by {}: {} ({what}), {}",
                row.mark.sign(),
                row.id,
                row.instance,
                row.environment,
                row.by,
                row.why,
                row.words
            );
        }
    };
    place.show("/shells", words).map(drop)
}

/// Opens one.
pub fn shell(place: &Place, asked: Shell) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let ended = runtime.block_on(open(place, asked));
    // A thread may still wait for the next key.
    runtime.shutdown_background();
    match ended? {
        0 => Ok(()),
        code => Err(Failure { words: String::new(), status: u8::try_from(code).unwrap_or(status::NO) }),
    }
}

/// A terminal that passes every key on; as it was when this is dropped.
struct Raw(Termios);

impl Raw {
    fn enter() -> std::io::Result<Raw> {
        let before = tcgetattr(std::io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(std::io::stdin(), OptionalActions::Flush, &raw)?;
        Ok(Raw(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // The terminal may be gone.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Drain, &self.0);
    }
}

fn size() -> Option<Size> {
    let found = tcgetwinsize(std::io::stdout()).ok()?;
    Some(Size { columns: found.ws_col, rows: found.ws_row })
}

async fn open(place: &Place, asked: Shell) -> Result<i32, Failure> {
    let interactive = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let kind = std::env::var("TERM").unwrap_or_else(|_| "dumb".into());
    let terminal = size().filter(|_| interactive).map(|size| Terminal { kind, size });
    let order = json!({
        "instance": asked.instance, "why": asked.reason, "command": asked.command, "terminal": terminal,
    });
    let path = format!("{}/environments/{}/shell", place.base, asked.name);
    let (connection, opened) = connect(place, &path, &order).await?;
    if interactive {
        eprintln!("○ {opened}: recorded; {} is tainted until it is rebuilt", asked.name);
    }
    let raw = match terminal {
        Some(_) => Some(Raw::enter().map_err(|error| format!("the terminal cannot be used: {error}"))?),
        None => None,
    };
    let carried = carry(connection, raw.is_some()).await;
    drop(raw);
    let code = carried.map_err(|error| format!("the connection broke: {error}"))?;
    if interactive {
        eprintln!("● {opened} is closed. Make it clean again: andon env rebuild {}", asked.name);
    }
    code.ok_or_else(|| "nobody saw how it ended".into())
}

/// Asks for the upgrade; a refusal is told in the server's words.
async fn connect(
    place: &Place,
    path: &str,
    order: &serde_json::Value,
) -> Result<(TokioIo<hyper::upgrade::Upgraded>, String), Failure> {
    let login = &place.client.login;
    let unreachable = |error: &dyn std::fmt::Display| Failure {
        words: format!("{} cannot be reached: {error}\nhint: is `andon serve` running?", login.server),
        status: status::UNREACHABLE,
    };
    let host = login.server.strip_prefix("http://").map(|rest| rest.split('/').next().unwrap_or(rest));
    let host = host.ok_or("a shell needs the server's own address\nhint: --server http://HOST:PORT")?;
    let at = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    let stream = TcpStream::connect(&at).await.map_err(|error| unreachable(&error))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| unreachable(&e))?;
    tokio::spawn(connection.with_upgrades());
    let request = http::Request::post(path)
        .header("host", host)
        .header("authorization", format!("Bearer {}", login.token))
        .header("content-type", "application/json")
        .header("connection", "upgrade")
        .header("upgrade", shell::NAME)
        .body(Full::new(bytes::Bytes::from(order.to_string())))
        .map_err(|error| error.to_string())?;
    let answer = sender.send_request(request).await.map_err(|error| unreachable(&error))?;
    if answer.status() != http::StatusCode::SWITCHING_PROTOCOLS {
        let status = answer.status();
        let body = answer.into_body().collect().await.map_err(|error| unreachable(&error))?.to_bytes();
        let value: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        let error = value["error"].as_str().map_or(format!("the server answered {status}"), str::to_owned);
        let hint = value["hint"].as_str().map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
        return Err(format!("{error}{hint}").into());
    }
    let said = |name: &str| {
        answer.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
    };
    let opened = format!("{} inside {}", said("andon-shell"), said("andon-instance"));
    let upgraded = hyper::upgrade::on(answer).await.map_err(|error| unreachable(&error))?;
    Ok((TokioIo::new(upgraded), opened))
}

/// What is typed, read by a thread of its own: a key is waited for as long as it takes.
fn keys() -> tokio::sync::mpsc::Receiver<Vec<u8>> {
    let (tell, keys) = tokio::sync::mpsc::channel(16);
    std::thread::spawn(move || {
        let mut chunk = vec![0; CHUNK];
        // An input that cannot be read has ended.
        while let Ok(read @ 1..) = std::io::stdin().lock().read(&mut chunk) {
            if tell.blocking_send(chunk[..read].to_vec()).is_err() {
                return;
            }
        }
    });
    keys
}

/// Carries until it ended; its status.
async fn carry(
    connection: TokioIo<hyper::upgrade::Upgraded>,
    terminal: bool,
) -> std::io::Result<Option<i32>> {
    let (mut from, mut to) = tokio::io::split(connection);
    let typing = async {
        let mut input = keys();
        let mut resized = signal(SignalKind::window_change())?;
        let mut open = true;
        loop {
            tokio::select! {
                read = input.recv(), if open => match read {
                    Some(bytes) => shell::send_typed(&mut to, &Typed::Bytes(bytes)).await?,
                    None => {
                        open = false;
                        shell::send_typed(&mut to, &Typed::End).await?;
                    }
                },
                _ = resized.recv(), if terminal => if let Some(size) = size() {
                    shell::send_typed(&mut to, &Typed::Size(size)).await?;
                },
                // Nothing more is typed: the output alone says when it is over.
                else => return std::future::pending::<std::io::Result<()>>().await,
            }
        }
    };
    let showing = async {
        let (mut out, mut err) = (std::io::stdout(), std::io::stderr());
        while let Some(said) = shell::said(&mut from).await? {
            match said {
                Said::Out(bytes) => out.write_all(&bytes).and_then(|()| out.flush())?,
                Said::Err(bytes) => err.write_all(&bytes)?,
                Said::Ended(code) => return Ok(code),
            }
        }
        Err(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "the server went away"))
    };
    let mut showing = std::pin::pin!(showing);
    tokio::select! {
        shown = &mut showing => shown,
        // What was typed cannot be sent any more; what was said is still shown.
        typed = typing => match showing.await {
            Ok(code) => Ok(code.or(Some(NOT_OPENED))),
            Err(error) => Err(typed.err().unwrap_or(error)),
        },
    }
}
