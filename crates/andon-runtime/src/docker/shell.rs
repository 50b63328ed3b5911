//! A shell inside a container: an exec of the engine, known as ours for as long as somebody holds it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bollard::Docker;
use bollard::container::LogOutput;
use bollard::exec::{CreateExecOptions, ResizeExecOptions, StartExecOptions, StartExecResults};
use futures_util::StreamExt as _;
use rustix::process::Signal;
use tokio::io::AsyncWriteExt as _;

use super::engine::reactor;
use super::{DockerRuntime, lock};
use crate::Process;
use crate::error::RuntimeError;
use crate::process::{SHELL, end_left};
use crate::shell::{Inner, Said, Shell, ShellOrder, Size, Typed, ends};

/// What is run when no command is said: images have this one, if any.
const PROGRAM: &str = "/bin/sh";
/// Between two looks whether it ended, and how many: the engine closes the output a moment before it knows the status.
const LOOK: Duration = Duration::from_millis(50);
const LOOKS: u32 = 40;
/// What a terminal takes for the end of the input.
const END_OF_INPUT: &[u8] = &[4];

/// Execs of ours that somebody holds, by the engine's names.
pub(super) type Held = Arc<Mutex<BTreeSet<String>>>;

impl DockerRuntime {
    pub(super) fn open_shell(&self, id: &str, order: &ShellOrder) -> Result<Shell, RuntimeError> {
        let found = self.inspect(id)?.ok_or_else(|| RuntimeError::Unknown(id.to_owned()))?;
        if found.state.and_then(|state| state.running) != Some(true) {
            return Err(RuntimeError::NoShell { id: id.to_owned(), why: "it does not run".into() });
        }
        let terminal = order.terminal.clone();
        let mut env = vec![format!("{SHELL}={}", order.name)];
        env.extend(terminal.iter().map(|terminal| format!("TERM={}", terminal.kind)));
        let command = match order.command.is_empty() {
            true => vec![PROGRAM.to_owned()],
            false => order.command.clone(),
        };
        let (name, with_terminal) = (self.name(id)?, terminal.is_some());
        let options = CreateExecOptions {
            attach_stdin: Some(true),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            tty: Some(with_terminal),
            env: Some(env),
            cmd: Some(command),
            ..CreateExecOptions::default()
        };
        let exec = self
            .engine
            .ask("open a shell", |docker| async move { Ok(docker.create_exec(&name, options).await?.id) })?;
        lock(&self.shells).insert(exec.clone());
        let entry = Entry { held: Arc::clone(&self.shells), exec: exec.clone() };
        let started = self.engine.ask("open a shell", move |docker| async move {
            let options = StartExecOptions { tty: with_terminal, ..StartExecOptions::default() };
            let started = docker.start_exec(&exec, Some(options)).await?;
            Ok((docker, started))
        })?;
        let (docker, StartExecResults::Attached { output, input }) = started else {
            let why = "the engine did not attach to it".to_owned();
            return Err(RuntimeError::NoShell { id: id.to_owned(), why });
        };
        let (shell, inner) = ends();
        let name = order.name.clone();
        reactor().spawn(async move {
            let Inner { typed, said } = inner;
            if let Some(terminal) = terminal {
                resize(&docker, &entry.exec, terminal.size).await;
            }
            carry(&docker, &entry.exec, (output, input), typed, &said, with_terminal).await;
            let code = over(&docker, &entry.exec, name).await;
            drop(entry);
            // Nobody may be listening any more.
            let _ = said.send(Said::Ended(code)).await;
        });
        Ok(shell)
    }
}

/// While it is there, the exec is no stranger.
struct Entry {
    held: Held,
    exec: String,
}

impl Drop for Entry {
    fn drop(&mut self) {
        lock(&self.held).remove(&self.exec);
    }
}

type Attached = (
    std::pin::Pin<Box<dyn futures_util::Stream<Item = Result<LogOutput, bollard::errors::Error>> + Send>>,
    std::pin::Pin<Box<dyn tokio::io::AsyncWrite + Send>>,
);

/// A terminal that is closing has no size.
async fn resize(docker: &Docker, exec: &str, size: Size) {
    let size = ResizeExecOptions { height: size.rows, width: size.columns };
    if let Err(error) = docker.resize_exec(exec, size).await {
        tracing::debug!(%error, "the size of a terminal could not be set");
    }
}

/// Carries bytes until it ends or nobody holds it any more.
async fn carry(
    docker: &Docker,
    exec: &str,
    (mut output, input): Attached,
    mut typed: tokio::sync::mpsc::Receiver<Typed>,
    said: &tokio::sync::mpsc::Sender<Said>,
    terminal: bool,
) {
    let mut input = Some(input);
    loop {
        tokio::select! {
            more = typed.recv() => match (more, &mut input) {
                (None, _) => return,
                (Some(Typed::Size(size)), _) => resize(docker, exec, size).await,
                (Some(Typed::Bytes(bytes)), Some(to)) => {
                    if to.write_all(&bytes).await.is_err() {
                        input = None;
                    }
                }
                (Some(Typed::End), Some(to)) => {
                    // It reads no more, or has ended: what it says is still heard.
                    let _ = if terminal { to.write_all(END_OF_INPUT).await } else { to.shutdown().await };
                }
                (Some(_), None) => {}
            },
            more = output.next() => {
                let piece = match more {
                    Some(Ok(LogOutput::StdErr { message })) => Said::Err(message.to_vec()),
                    Some(Ok(other)) => Said::Out(other.into_bytes().to_vec()),
                    Some(Err(_)) | None => return,
                };
                if said.send(piece).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Ends what is left of it; its status, if it ended by itself.
async fn over(docker: &Docker, exec: &str, name: String) -> Option<i32> {
    let mut pid = None;
    let mut code = None;
    for _ in 0..LOOKS {
        let Ok(found) = docker.inspect_exec(exec).await else { break };
        pid = found.pid.and_then(|pid| u32::try_from(pid).ok());
        if found.running != Some(true) {
            code = found.exit_code.and_then(|code| i32::try_from(code).ok());
            break;
        }
        // It was let go of: what does not hear that is killed below.
        if let Some(process) = pid.filter(|pid| *pid > 0).and_then(|pid| Process::of(pid).ok())
            && process.variable(SHELL).as_deref() == Some(&name)
        {
            let _ = process.signal(Signal::KILL);
        }
        tokio::time::sleep(LOOK).await;
    }
    let swept = tokio::task::spawn_blocking(move || end_left(&name)).await;
    if !swept.unwrap_or(false) {
        tracing::error!(?pid, "something of a shell in a container lives on");
    }
    code
}
