//! Break-glass: a recorded shell into an instance, for owners. That it was opened, by whom and why, is in the journal before anything is
//! sent; the environment is tainted from then on. What was typed and shown becomes a blob when it ends, however it ends.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use andon_environment::Instance;
use andon_model::event::{Actor, Event, Role};
use andon_model::{Digest, EnvironmentName, InstanceId, ShellId};
use andon_runtime::{Said, Shell, ShellOrder, Terminal, Typed};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;

use super::act;
use crate::recording::{About, Recording, hide};
use crate::{Caller, Line, Project, Refusal};

/// Who tells of the end of a shell.
const GLASS: &str = "break-glass";
/// Shells that are open at once in a project.
const MOST: usize = 8;
/// The longest command, in bytes over all its words.
const COMMAND: usize = 32 * 1024;
/// Pieces on their way to a person who reads slowly.
const WAITING: usize = 16;
/// What a shell gets to end once it was let go of.
const GRACE: Duration = Duration::from_secs(30);

/// A shell that somebody asks for.
#[derive(Debug, Clone)]
pub struct NewShell {
    /// Inside which instance; none: the oldest healthy one.
    pub instance: Option<InstanceId>,
    /// The reason. Everybody reads it.
    pub why: String,
    /// Program and arguments; empty: one to type in.
    pub command: Vec<String>,
    /// The terminal that it gets.
    pub terminal: Option<Terminal>,
}

/// A shell that is open and recorded.
#[derive(Debug)]
pub struct OpenShell {
    /// Its number.
    pub id: ShellId,
    /// Inside which instance.
    pub instance: InstanceId,
    /// Both ends. Dropping them ends it.
    pub shell: Shell,
}

impl Line {
    /// Opens a shell inside an instance. From now on the environment is tainted, until it is rebuilt.
    pub async fn open_shell(
        self: &Arc<Line>,
        project: &Arc<Project>,
        caller: &Caller,
        environment: EnvironmentName,
        wanted: NewShell,
    ) -> Result<OpenShell, Refusal> {
        caller.may(Role::Owner)?;
        let wanted = plain(wanted)?;
        let instance = choose(project, &environment, wanted.instance)?;
        if let Some(host) = &instance.host {
            // Said before anything is tainted by it.
            let (id, hint) =
                (instance.id, "name an instance of the server's own host: `andon env show` lists them");
            return Err(Refusal::Conflict(format!(
                "{id} runs on the host {host}, and shells are opened on the server's own host only\nhint: {hint}"
            )));
        }
        if let Some(host) = &instance.host {
            return Err(Refusal::Conflict(format!(
                "{} runs on the host {host}, and shells are opened on the server's own host only\nhint: name an instance that runs here: `andon env show {environment}`",
                instance.id
            )));
        }
        let runtime = project.runtime_of(instance.id)?;
        let secrets = secrets(self, project, &instance)?;
        let hidden = |text: &str| crate::intake::plain(&hide(text, &secrets));
        let (id, why) = (instance.id, hidden(&wanted.why));
        let said: Vec<String> = wanted.command.iter().map(|word| hidden(word)).collect();
        let shell = self
            .decide(project, caller.actor(), |state, _| {
                let found = super::commands::there(state, &environment)?;
                if state.estate.shells.open().count() >= MOST {
                    let hint = "end one of them: `andon env shells` names them";
                    return Err(Refusal::Conflict(format!("{MOST} shells are open already\nhint: {hint}")));
                }
                let shell = state.estate.shells.next();
                let opened = Event::ShellOpened {
                    shell,
                    environment: environment.clone(),
                    instance: id,
                    command: said,
                    why: why.clone(),
                };
                let tainted =
                    Event::EnvironmentTainted { environment: environment.clone(), why: why.clone() };
                let first = found.tainted.is_none().then_some(tainted);
                Ok((first.into_iter().chain([opened]).collect(), shell))
            })
            .await?;
        let order = ShellOrder {
            name: format!("{}/{}/{shell}", self.id(), project.name),
            command: wanted.command.clone(),
            terminal: wanted.terminal.clone(),
        };
        let about = About {
            title: format!("{shell} in {id} of {environment} by {}: {}", caller.user, wanted.why),
            command: wanted.command,
            size: wanted.terminal.as_ref().map_or((80, 24), |t| (t.size.columns, t.size.rows)),
            terminal: wanted.terminal.map(|terminal| terminal.kind),
            at: self.now(),
        };
        let opened = tokio::task::spawn_blocking(move || runtime.shell(&id.to_string(), &order)).await;
        let opened = opened.map_err(|error| Refusal::Broken(error.to_string()))?;
        let begun = opened.map_err(|error| Refusal::Conflict(error.to_string())).and_then(|inner| {
            let file = self.recording(project, shell);
            Ok((inner, Recording::begin(&file, &about, &secrets)?))
        });
        let (inner, recording) = match begun {
            Ok(begun) => begun,
            Err(refusal) => {
                let first = refusal.to_string().lines().next().unwrap_or_default().to_owned();
                self.shell_ended(project, shell, Over { code: None, how: first, cut: false }).await?;
                return Err(refusal);
            }
        };
        let (input, mut typed) = mpsc::channel(WAITING);
        let (said, output) = mpsc::channel(WAITING);
        let (line, project) = (Arc::clone(self), Arc::clone(project));
        tokio::spawn(async move {
            let over = carry(&line, inner, &mut typed, &said, recording).await;
            let code = over.code;
            let words = format!("\r\n■ the shell is closed: {}\r\n", over.how);
            let words = code.is_none().then(|| Said::Err(words.into_bytes()));
            // Persisted first, then told.
            if let Err(error) = line.shell_ended(&project, shell, over).await {
                tracing::error!(%shell, %error, "the end of a shell could not be recorded, it is at the next start");
            }
            for piece in words.into_iter().chain([Said::Ended(code)]) {
                // Whoever had it open may be gone, or read nothing more.
                let _ = tokio::time::timeout(GRACE, said.send(piece)).await;
            }
        });
        Ok(OpenShell { id: shell, instance: id, shell: Shell { input, output } })
    }

    /// Records the end of shells that were open when the server was killed. Their processes ended with it.
    pub(super) async fn end_lost_shells(&self, project: &Project) -> Result<(), Refusal> {
        let lost: Vec<ShellId> = project.state().estate.shells.open().map(|shell| shell.id).collect();
        for shell in lost {
            let how = "the server was killed while it was open".to_owned();
            self.shell_ended(project, shell, Over { code: None, how, cut: false }).await?;
        }
        Ok(())
    }

    async fn shell_ended(&self, project: &Project, shell: ShellId, over: Over) -> Result<(), Refusal> {
        let (file, blobs) = (self.recording(project, shell), self.blobs.clone());
        let kept = tokio::task::spawn_blocking(move || -> std::io::Result<Option<Digest>> {
            match std::fs::File::open(&file) {
                Ok(open) => Ok(Some(blobs.put(open)?.0)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error),
            }
        });
        let recording = kept.await.map_err(|error| Refusal::Broken(error.to_string()))??;
        let Over { code, how, cut } = over;
        let ended = Event::ShellEnded { shell, code, how, recording, cut };
        self.decide(project, Actor::line(GLASS), |state, _| {
            let open = state.estate.shells.open().any(|open| open.id == shell);
            Ok((if open { vec![ended] } else { vec![] }, ()))
        })
        .await?;
        // It is a blob now; what cannot be removed is only a copy.
        let _ = std::fs::remove_file(self.recording(project, shell));
        Ok(())
    }

    /// Where a shell is recorded while it is open.
    fn recording(&self, project: &Project, shell: ShellId) -> PathBuf {
        self.settings.data.join("shells").join(project.name.as_str()).join(format!("{shell}.cast"))
    }

    /// The recording of a shell that ended: a file, and what it is to be called.
    pub fn shell_recording(
        &self,
        project: &Project,
        caller: &Caller,
        shell: ShellId,
    ) -> Result<(PathBuf, String), Refusal> {
        caller.may(Role::Owner)?;
        let state = project.state();
        let found = state.estate.shells.all.get(&shell);
        let found = found.ok_or_else(|| Refusal::Unknown(format!("there is no shell {shell}")))?;
        let recording = found.ended.as_ref().and_then(|ended| ended.recording.as_ref());
        let none =
            || Refusal::Unknown(format!("{shell} has no recording yet\nhint: it has one when it is over"));
        let path = self.blobs.path(recording.ok_or_else(none)?);
        Ok((path, format!("{}-{shell}.cast", project.name)))
    }
}

/// How a shell ended.
struct Over {
    code: Option<i32>,
    how: String,
    cut: bool,
}

const GONE: &str = "whoever had it open went away";

/// Carries what is typed and shown, each piece recorded before it goes on. Neither direction waits for the other.
async fn carry(
    line: &Line,
    inner: Shell,
    typed: &mut mpsc::Receiver<Typed>,
    said: &mpsc::Sender<Said>,
    mut recording: Recording,
) -> Over {
    let Shell { input, mut output } = inner;
    let mut news = line.news();
    let (mut to_it, mut from_it): (Option<Typed>, Option<Said>) = (None, None);
    let lost = |error: std::io::Error| format!("its recording could not be written: {error}");
    let (mut code, mut ended) = (None, false);
    let how = loop {
        tokio::select! {
            more = typed.recv(), if to_it.is_none() => {
                let kept = match &more {
                    Some(Typed::Bytes(bytes)) => recording.typed(line.now(), bytes),
                    Some(Typed::Size(size)) => {
                        recording.resized(line.now(), size.columns, size.rows).map(|()| true)
                    }
                    Some(Typed::End) | None => Ok(true),
                };
                match (kept, more) {
                    (Err(error), _) => break lost(error),
                    (Ok(false), _) => break "more was typed than a recording keeps".to_owned(),
                    (Ok(true), None) => break GONE.to_owned(),
                    (Ok(true), piece) => to_it = piece,
                }
            }
            place = input.reserve(), if to_it.is_some() => {
                let piece = to_it.take();
                // Else it has ended already: its status is on the way.
                if let (Ok(place), Some(piece)) = (place, piece) {
                    place.send(piece);
                }
            },
            more = output.recv(), if from_it.is_none() => match more {
                Some(Said::Ended(status)) => {
                    (code, ended) = (status, true);
                    break status.map_or("its processes were killed".to_owned(), |s| format!("ended with status {s}"));
                }
                None => break "nobody saw how".to_owned(),
                Some(piece) => {
                    if let Said::Out(bytes) | Said::Err(bytes) = &piece
                        && let Err(error) = recording.shown(line.now(), bytes)
                    {
                        break lost(error);
                    }
                    from_it = Some(piece);
                }
            },
            place = said.reserve(), if from_it.is_some() => match (place, from_it.take()) {
                (Ok(place), Some(piece)) => place.send(piece),
                _ => break GONE.to_owned(),
            },
            more = news.recv() => if let Err(RecvError::Closed) = more {
                break "the server stopped".to_owned();
            },
        }
    };
    drop(input);
    if !ended {
        // What it says while it ends is recorded as well.
        let ending = async {
            while let Some(piece) = output.recv().await {
                match piece {
                    Said::Ended(_) => return,
                    Said::Out(bytes) | Said::Err(bytes) => drop(recording.shown(line.now(), &bytes)),
                }
            }
        };
        if tokio::time::timeout(GRACE, ending).await.is_err() {
            tracing::error!("a shell does not end; its processes are looked for and killed");
        }
    }
    if let Err(error) = recording.end(line.now()) {
        tracing::error!(%error, "the end of a recording could not be written");
    }
    Over { code, how, cut: recording.cut }
}

fn plain(wanted: NewShell) -> Result<NewShell, Refusal> {
    let why = crate::intake::plain(&wanted.why);
    if why.is_empty() {
        return Err(Refusal::Bad(
            "say why: a shell taints its environment, and everybody reads the reason\nhint: --reason \"the queue hangs\""
                .into(),
        ));
    }
    let long: usize = wanted.command.iter().map(String::len).sum();
    if long > COMMAND || wanted.command.iter().any(|word| word.contains('\0')) {
        return Err(Refusal::Bad(format!("a command has at most {COMMAND} bytes, and none of them is zero")));
    }
    if wanted.command.first().is_some_and(String::is_empty) {
        return Err(Refusal::Bad("the command is empty".into()));
    }
    let fits = |t: &Terminal| {
        let name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+');
        t.kind.len() <= 64 && t.kind.chars().all(name)
    };
    if !wanted.terminal.as_ref().is_none_or(fits) {
        return Err(Refusal::Bad("the name of the terminal is none".into()));
    }
    Ok(NewShell { why, ..wanted })
}

/// The instance that is meant, running.
fn choose(
    project: &Project,
    environment: &EnvironmentName,
    wanted: Option<InstanceId>,
) -> Result<Instance, Refusal> {
    let state = project.state();
    super::commands::there(&state, environment)?;
    let mut here = state.estate.instances_in(environment).filter(|i| i.retired.is_none());
    let found = match wanted {
        Some(id) => here.find(|i| i.id == id),
        // Of those on other hosts none has a shell.
        None => here.find(|i| i.healthy.is_some() && i.host.is_none()),
    };
    found.cloned().ok_or_else(|| {
        let what = match wanted {
            Some(id) => format!("{id} does not run in {environment}"),
            None => format!("nothing healthy of {environment} runs on this host"),
        };
        Refusal::Unknown(format!("{what}\nhint: `andon env show {environment}` names the instances that run"))
    })
}

/// What nobody shall read in a recording: the values that the instance was told.
fn secrets(line: &Line, project: &Project, instance: &Instance) -> Result<Vec<String>, Refusal> {
    let deployment = project.state().estate.deployments.get(&instance.deployment).cloned();
    let service = deployment.as_ref().and_then(|d| d.service(&instance.service));
    let Some(service) = service else { return Ok(Vec::new()) };
    let env = act::told(line, project, &instance.environment, service).map_err(Refusal::Conflict)?;
    let mut all: Vec<String> = env.into_values().collect();
    // An address with a password holds a secret of its own.
    let password = |value: &String| {
        let (_, rest) = value.split_once("://")?;
        let (who, _) = rest.split_once('@')?;
        Some(who.split_once(':')?.1.to_owned())
    };
    let passwords: Vec<String> = all.iter().filter_map(password).collect();
    all.extend(passwords);
    Ok(all)
}
