//! Opens a shell inside an instance, from the server's side: starts the process that enters it (`join`), carries bytes to and fro, and
//! proves that nothing of it is left.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::pty::OpenptFlags;
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, Command};

use super::join::{JOIN, OUTSIDE, SHELL};
use super::proc::{self, Process};
use super::shim::{PATH, STAGE};
use super::{ProcessRuntime, lock, read};
use crate::docker::reactor;
use crate::error::RuntimeError;
use crate::shell::{Said, Shell, ShellOrder, Size, Typed, ends};
use crate::spec::{self, State};

/// What a shell gets to end by itself once whoever typed in it is gone.
const GRACE: Duration = Duration::from_secs(5);
/// How long nothing may be said by what has ended.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// Bytes carried at once.
const CHUNK: usize = 16 * 1024;
/// How often what will not die is killed again.
const KILLS: u32 = 200;
const KILL_PAUSE: Duration = Duration::from_millis(10);
/// What a terminal takes for the end of the input.
const END_OF_INPUT: u8 = 4;

/// Shells that are open, by the names of their orders, with the process that entered.
pub(super) type Shells = Arc<Mutex<BTreeSet<(String, Process)>>>;

impl ProcessRuntime {
    /// Opens a shell inside an instance that runs.
    pub(super) fn open_shell(&self, id: &str, order: &ShellOrder) -> Result<Shell, RuntimeError> {
        let dir = self.dir(id)?;
        let failed = |why: String| RuntimeError::NoShell { id: id.to_owned(), why };
        let words = |what: &'static str| move |error: std::io::Error| failed(format!("{what}: {error}"));
        let state: Option<State> = read(&dir.join(spec::STATE))?;
        let runs = state.is_some_and(|state| state.exit.is_none() && state.main.is_some());
        if !runs || !self.held(&dir)? {
            return Err(failed("it does not run".into()));
        }
        let text = serde_json::to_string(order).map_err(|error| failed(error.to_string()))?;
        let mut command = Command::new(&self.exe);
        command.arg("shim").arg(&dir).env_clear().current_dir("/");
        command.env("PATH", std::env::var_os("PATH").unwrap_or_else(|| PATH.into()));
        command.env(STAGE, OUTSIDE).env(JOIN, text);
        let master = match &order.terminal {
            None => {
                command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
                None
            }
            Some(terminal) => {
                let (master, slave) = pair().map_err(words("it gets no terminal"))?;
                resize(&master, terminal.size).map_err(words("it gets no terminal"))?;
                let copy = || slave.try_clone().map(Stdio::from).map_err(words("it gets no terminal"));
                command.stdin(copy()?).stdout(copy()?).stderr(copy()?);
                Some(master)
            }
        };
        let _within = reactor().enter();
        // Held over the start: whoever looks for strangers sees the process and its entry, or neither.
        let child = {
            let mut open = lock(&self.shells);
            let child = command.spawn().map_err(words("it cannot be entered"))?;
            let process = child.id().and_then(|pid| Process::of(pid).ok());
            let process = process.ok_or_else(|| failed("what enters it ended at once".into()))?;
            open.insert((order.name.clone(), process));
            (child, process)
        };
        drop(command);
        let (shell, inner) = ends();
        let entry = (order.name.clone(), child.1);
        let shells = Arc::clone(&self.shells);
        reactor().spawn(async move {
            let code = match master {
                Some(master) => terminal(master, child.0, inner.typed, &inner.said).await,
                None => pipes(child.0, inner.typed, &inner.said).await,
            };
            let name = entry.0.clone();
            let swept = tokio::task::spawn_blocking(move || end_left(&name)).await;
            if !swept.unwrap_or(false) {
                tracing::error!(shell = entry.0, "something of a shell lives on");
            }
            lock(&shells).remove(&entry);
            // Nobody may be listening any more.
            let _ = inner.said.send(Said::Ended(code)).await;
        });
        Ok(shell)
    }
}

/// Kills whatever still carries the name of a shell. False: something survives.
pub(crate) fn end_left(name: &str) -> bool {
    // Only a pause: nobody ever sends.
    let (_quiet, never) = std::sync::mpsc::channel::<()>();
    for _ in 0..KILLS {
        let table = proc::table().unwrap_or_default();
        let of_it =
            |stat: &&proc::Stat| !stat.zombie && stat.process.variable(SHELL).as_deref() == Some(name);
        let left: Vec<Process> = table.values().filter(of_it).map(|stat| stat.process).collect();
        if left.is_empty() {
            return true;
        }
        for process in left {
            // Gone already is as good; who cannot be killed is found again.
            let _ = process.signal(rustix::process::Signal::KILL);
        }
        let _ = never.recv_timeout(KILL_PAUSE);
    }
    false
}

fn pair() -> std::io::Result<(OwnedFd, OwnedFd)> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = rustix::pty::openpt(flags)?;
    rustix::pty::grantpt(&master)?;
    rustix::pty::unlockpt(&master)?;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
    let set = rustix::fs::fcntl_getfl(&master)? | rustix::fs::OFlags::NONBLOCK;
    rustix::fs::fcntl_setfl(&master, set)?;
    Ok((master, slave))
}

fn resize(master: &OwnedFd, size: Size) -> std::io::Result<()> {
    let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(tcsetwinsize(master, size)?)
}

fn status(status: std::io::Result<ExitStatus>) -> Option<i32> {
    use std::os::unix::process::ExitStatusExt;
    let status = status.ok()?;
    status.code().or_else(|| status.signal().map(|signal| 128 + signal))
}

/// Waits for what entered; when its time is over it is killed, and the kernel tells those inside by their output.
async fn over(mut child: Child) -> Option<i32> {
    match tokio::time::timeout(GRACE, child.wait()).await {
        Ok(ended) => status(ended),
        Err(_) => {
            let _ = child.start_kill();
            child.wait().await.ok().and(None)
        }
    }
}

async fn terminal(
    master: OwnedFd,
    mut child: Child,
    mut typed: tokio::sync::mpsc::Receiver<Typed>,
    said: &tokio::sync::mpsc::Sender<Said>,
) -> Option<i32> {
    #[allow(
        deprecated,
        reason = "its safe successor is none: an owned descriptor stays open for as long as it is registered"
    )]
    let Ok(master) = AsyncFd::new(master) else { return over(child).await };
    let mut pending: Vec<u8> = Vec::new();
    let mut chunk = vec![0; CHUNK];
    loop {
        tokio::select! {
            more = typed.recv(), if pending.is_empty() => match more {
                Some(Typed::Bytes(bytes)) => pending = bytes,
                Some(Typed::End) => pending.push(END_OF_INPUT),
                // A terminal that is closing has no size.
                Some(Typed::Size(size)) => drop(resize(master.get_ref(), size)),
                None => break,
            },
            ready = master.writable(), if !pending.is_empty() => {
                let Ok(mut ready) = ready else { break };
                match ready.try_io(|fd| Ok(rustix::io::write(fd.get_ref(), &pending)?)) {
                    Ok(Ok(written)) => drop(pending.drain(..written)),
                    Ok(Err(_)) => break,
                    Err(_not_yet) => {}
                }
            }
            ready = master.readable() => {
                let Ok(mut ready) = ready else { break };
                match ready.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), &mut chunk)?)) {
                    // Nobody has the other side open any more: an error, by the kernel's custom.
                    Ok(Ok(0) | Err(_)) => break,
                    Ok(Ok(read)) => if said.send(Said::Out(chunk[..read].to_vec())).await.is_err() { break },
                    Err(_not_yet) => {}
                }
            }
            ended = child.wait() => {
                let ended = status(ended);
                while let Ok(read @ 1..) = rustix::io::read(master.get_ref(), &mut chunk) {
                    if said.send(Said::Out(chunk[..read].to_vec())).await.is_err() {
                        break;
                    }
                }
                return ended;
            }
        }
    }
    // With the last copy of this side everything on the other one hears that it was hung up.
    drop(master);
    over(child).await
}

async fn pipes(
    mut child: Child,
    mut typed: tokio::sync::mpsc::Receiver<Typed>,
    said: &tokio::sync::mpsc::Sender<Said>,
) -> Option<i32> {
    let mut input: Option<ChildStdin> = child.stdin.take();
    let (Some(mut out), Some(mut err)) = (child.stdout.take(), child.stderr.take()) else {
        return over(child).await;
    };
    let (mut out_chunk, mut err_chunk) = (vec![0; CHUNK], vec![0; CHUNK]);
    let (mut out_open, mut err_open) = (true, true);
    let mut pending: Vec<u8> = Vec::new();
    let mut ended = None;
    while out_open || err_open {
        tokio::select! {
            more = typed.recv(), if pending.is_empty() && ended.is_none() => match more {
                Some(Typed::Bytes(bytes)) => pending = bytes,
                Some(Typed::End) => input = None,
                Some(Typed::Size(_)) => {}
                None => break,
            },
            written = write(&mut input, &pending), if !pending.is_empty() => match written {
                Ok(written) => drop(pending.drain(..written)),
                // It reads no more: what it says is still heard.
                Err(_) => { input = None; pending.clear(); }
            },
            read = out.read(&mut out_chunk), if out_open => match read {
                Ok(read @ 1..) => out_open = said.send(Said::Out(out_chunk[..read].to_vec())).await.is_ok(),
                _ => out_open = false,
            },
            read = err.read(&mut err_chunk), if err_open => match read {
                Ok(read @ 1..) => err_open = said.send(Said::Err(err_chunk[..read].to_vec())).await.is_ok(),
                _ => err_open = false,
            },
            over = child.wait(), if ended.is_none() => ended = Some(over),
            // It was killed, and somebody else still has its outputs open.
            () = tokio::time::sleep(LAST_WORDS), if ended.is_some() => break,
        }
    }
    drop((input, out, err));
    match ended {
        Some(ended) => status(ended),
        None => over(child).await,
    }
}

async fn write(to: &mut Option<ChildStdin>, bytes: &[u8]) -> std::io::Result<usize> {
    match to {
        Some(to) => to.write(bytes).await,
        None => Ok(bytes.len()),
    }
}

/// Whether this process belongs to a shell that nobody holds any more.
pub(super) fn forgotten(open: &BTreeSet<(String, Process)>, process: Process) -> bool {
    process.variable(SHELL).is_some_and(|name| !open.iter().any(|(known, _)| *known == name))
}
