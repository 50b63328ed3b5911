//! The process between the server and an attempt: `andon job-shim ROOM`. It outlives the server, and its attempt does not outlive it.
//!
//! On its standard input it hears what is to be run, a line, and nothing of that is written to the disk: it holds the attempt's secrets. It
//! takes the room's lock, confines a process ([`inside`]) that runs the steps, keeps their record and their output, and ends them: when
//! the server says so by TERM, when their time is over, or when they are done. Its last word is written when nothing of them is left. It has
//! no threads and no runtime. On its standard output a line tells whoever listens that the record has grown; that nobody listens is no harm.

pub(crate) mod contained;
mod inside;
mod output;
mod poll;
mod watch;

use std::io::{self, BufRead, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use andon_sandbox::{Bounds, Group, Groups, Plan, Process, leave, rehearse_inside, rehearse_outside};
use rustix::process::Pid;
use serde::{Deserialize, Serialize};
use signal_hook::consts::{SIGCHLD, SIGINT, SIGTERM};

use self::contained::Contained;
use self::inside::Say;
use self::output::Output;
use self::watch::Watch;
use crate::order::{End, Step};
use crate::room::{Room, State};

/// Tells the later stages from the first: none, or one of these.
pub(crate) const STAGE: &str = "ANDON_JOB_STAGE";
const INSIDE: &str = "inside";
/// Makes a container and hands over to what runs inside.
const CONTAINER: &str = "container";
/// The first process in one.
const INSIDE_CONTAINER: &str = "inside-container";
/// Tries what the host permits.
pub(crate) const REHEARSE: &str = "rehearse";
const REHEARSE_INSIDE: &str = "rehearse-inside";
/// Names the attempt's room in the environment of everything that it starts.
pub(crate) const MARK: &str = "ANDON_ATTEMPT";

/// What the server says. Read by shims of other versions: fields are only added, with a default.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Job {
    /// Names its group.
    pub name: String,
    pub steps: Vec<Step>,
    pub workdir: PathBuf,
    pub env: Vec<(String, String)>,
    #[serde(default)]
    pub secrets: Vec<String>,
    pub timeout_ms: u64,
    #[serde(default)]
    pub quiet_ms: Option<u64>,
    pub grace_ms: u64,
    pub log: PathBuf,
    pub log_limit: u64,
    #[serde(default)]
    pub limits: Bounds,
    pub groups: Groups,
    pub plan: Plan,
    /// It runs in a container, and the engine confines it.
    #[serde(default)]
    pub container: Option<Contained>,
}

/// The shim's whole life. Returns its exit status, which nobody needs: how the attempt ended stands in its room.
pub fn main(room: &Path) -> i32 {
    match std::env::var(STAGE).as_deref() {
        Ok(INSIDE) => return inside::main(None),
        Ok(CONTAINER) => return contained::main(room),
        Ok(INSIDE_CONTAINER) => return inside::main_in_container(),
        Ok(REHEARSE) => return rehearse(room),
        Ok(_) => return rehearse_inside(),
        Err(_) => {}
    }
    match run(&Room::at(room)) {
        Ok(()) => 0,
        Err(why) => {
            // Nobody left to tell if this fails.
            let _ = writeln!(io::stderr(), "{why}");
            1
        }
    }
}

fn rehearse(room: &Path) -> i32 {
    let Ok(exe) = std::env::current_exe() else { return 1 };
    let mut again = Command::new(exe);
    again.arg("job-shim").arg(room).env(STAGE, REHEARSE_INSIDE);
    rehearse_outside(again)
}

fn run(room: &Room) -> Result<(), String> {
    let words = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).map_err(words("cannot hear the server"))?;
    if !line.ends_with('\n') {
        return Err("the server was gone before it had said what is to be run".into());
    }
    let job: Job =
        serde_json::from_str(&line).map_err(|error| format!("cannot understand the server: {error}"))?;
    // Leaving the server's session fails only for one that has left already.
    let _ = rustix::process::setsid();
    // Whoever has the lock instead has given the attempt up.
    let Some(_lock) = room.lock().map_err(words("cannot take its lock"))? else {
        return Err("somebody else has the lock of its room".into());
    };
    let mut record = room.record().map_err(words("cannot open its record"))?;
    let end = match launch(room, &job) {
        Ok(launched) => {
            let Launched { mut watch, group } = launched;
            let mut end = watch.steps(&job, &mut record);
            if let Some(container) = &job.container {
                // Before its output is closed: until then somebody in it may print.
                end = contained::end(container, end);
            }
            watch.end(end, &job, &group)
        }
        Err(why) => {
            andon_kit::tree::kill_all();
            if let Some(Err(why)) =
                job.container.as_ref().map(|container| contained::remove(&container.left()))
            {
                note("its container stays", why);
            }
            End::Broken(why)
        }
    };
    room.keep_outcome(&end).map_err(words("cannot write how it ended"))
}

struct Launched {
    watch: Watch,
    group: Group,
}

fn launch(room: &Room, job: &Job) -> Result<Launched, String> {
    let words = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
    andon_kit::tree::become_subreaper().map_err(words("cannot adopt its children"))?;
    let (wake, waker) = UnixStream::pair().map_err(words("cannot open a pipe"))?;
    wake.set_nonblocking(true).map_err(words("cannot open a pipe"))?;
    let ending = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        signal_hook::flag::register(signal, ending.clone()).map_err(words("cannot hear signals"))?;
    }
    for signal in [SIGTERM, SIGINT, SIGCHLD] {
        let waker = waker.try_clone().map_err(words("cannot open a pipe"))?;
        signal_hook::low_level::pipe::register(signal, waker).map_err(words("cannot hear signals"))?;
    }
    let shim = Process::own().map_err(words("cannot read /proc"))?;
    // Written before it is made: whoever finds the room can end what is in it.
    let container = job.container.as_ref().map(Contained::left);
    let state = State { shim, group: job.groups.least(&job.name, &job.limits), container };
    room.keep_state(&state).map_err(words("cannot write its state"))?;
    let group = job.groups.make_least(&job.name, &job.limits)?;
    let made = enter(room, job, wake, ending, &group);
    made.map(|watch| Launched { watch, group: group.clone() }).inspect_err(|_| {
        group.kill();
        andon_kit::tree::kill_all();
        // One that stays is found by its state.
        let _ = group.remove();
    })
}

fn enter(
    room: &Room,
    job: &Job,
    wake: UnixStream,
    ending: Arc<AtomicBool>,
    group: &Group,
) -> Result<Watch, String> {
    let words = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
    let (output, writer) = Output::open(&job.log, &job.secrets).map_err(words("cannot open its log"))?;
    let (told, theirs) = UnixStream::pair().map_err(words("cannot open a pipe"))?;
    leave(&job.plan)?;
    if let Some(container) = &job.container {
        let spec = serde_json::to_vec(container).map_err(|error| error.to_string())?;
        std::fs::write(room.dir().join(contained::SPEC), spec)
            .map_err(words("cannot write what container it is to be"))?;
    }
    // By what runs and not by its name: the file may be another version by now.
    let inside = Command::new("/proc/self/exe")
        .arg("job-shim")
        .arg(room.dir())
        .env_clear()
        .env(STAGE, if job.container.is_some() { CONTAINER } else { INSIDE })
        .env(MARK, room.dir())
        .current_dir("/")
        .stdin(OwnedFd::from(theirs))
        .stdout(writer.try_clone().map_err(words("cannot open a pipe"))?)
        .stderr(writer)
        .spawn()
        .map_err(words("cannot start the first process of its sandbox"))?;
    // Before it starts anything.
    group.add(inside.id())?;
    let child = i32::try_from(inside.id()).ok().and_then(Pid::from_raw).ok_or("it got no process id")?;
    let mut env = job.env.clone();
    env.push((MARK.to_owned(), room.dir().to_string_lossy().into_owned()));
    let mut watch = Watch::new(told, child, output, wake, ending);
    watch.say(&Say::Enter { plan: Box::new(job.plan.clone()), workdir: job.workdir.clone(), env })?;
    Ok(watch)
}

/// Tells whoever listens that the record has grown.
fn announce() {
    let _ = io::stdout().write_all(b"\n").and_then(|()| io::stdout().flush());
}

/// So that a note about what cannot be told otherwise is not lost.
fn note(what: &str, error: impl std::fmt::Display) {
    let _ = writeln!(io::stderr(), "{what}: {error}");
}
