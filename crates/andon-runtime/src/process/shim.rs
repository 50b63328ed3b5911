//! The shim: one small process for each instance, the server's binary run again. It outlives the server.
//!
//! `exe shim DIR` is run twice. The first stage starts the second and waits until that one says that the command runs
//! (or why it does not), so that whoever asked knows at once and has no child to look after. The second stage leaves
//! the server's session, takes the instance's lock, adopts whatever the command leaves behind, keeps its output, and
//! ends only when no descendant is left. What confines the command is entered by a third stage (`inside`). It has no threads and no runtime, and restarts nothing: that is decided by
//! the server, which may be down.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use andon_model::{Limits, Time};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::process::Pid;
use signal_hook::consts::{SIGCHLD, SIGINT, SIGTERM};

use super::held::{Held, next_line};
use super::inside::{ENTERED, NETWORK, RUNS as COMMAND_RUNS, WHY, rehearse};
use super::join;
use super::log::Log;
use super::network::Cable;
use super::plan::{SETTING, Setting, order};
use super::proc::{self, Process};
use crate::sandbox::{Bounds, Group, Means, leave};
use crate::spec::{self, Exit, Spec, State};

/// Tells the later stages from the first: none, or one of these.
pub(super) const STAGE: &str = "ANDON_SHIM_STAGE";
const SECOND: &str = "2";
pub(super) const INSIDE: &str = "inside";
pub(super) const REHEARSE: &str = "rehearse";
/// Names the instance's directory in the environment of everything that it starts.
pub(crate) const MARK: &str = "ANDON_INSTANCE";
/// What the second stage says to the first, beside a reason.
const RUNS: &str = "runs";
const HELD: &str = "held";
/// How long the lock is tried for: someone who only looks holds it for an instant.
pub(super) const LOCK_TRIES: u32 = 50;
pub(super) const A_MOMENT: Duration = Duration::from_millis(4);
/// Where programs are looked for if the server has no PATH.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs the instance in this directory; call it first thing in `main`, before any thread is started. The exit status
/// is 0 when the command was started (or ran already), else 1 with the reason on standard error.
pub fn shim_main(dir: &Path) -> i32 {
    match std::env::var(STAGE).as_deref() {
        Ok(SECOND) => return second(dir),
        Ok(INSIDE) => return super::inside::main(),
        Ok(join::OUTSIDE) => return join::outside(dir),
        Ok(join::INSIDE) => return join::inside(),
        Ok(REHEARSE) => return rehearse(dir, false),
        Ok(_) => return rehearse(dir, true),
        Err(_) => {}
    }
    match first(dir) {
        Ok(()) => 0,
        Err(why) => {
            // Nobody left to tell if this fails.
            let _ = writeln!(io::stderr(), "{why}");
            1
        }
    }
}

fn first(dir: &Path) -> Result<(), String> {
    let words = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
    let log = File::options()
        .append(true)
        .create(true)
        .open(dir.join("shim.log"))
        .map_err(words("cannot keep a log"))?;
    let exe = std::env::current_exe().map_err(words("cannot find the server's own binary"))?;
    let mut second = Command::new(exe)
        .args(std::env::args_os().skip(1))
        .env(STAGE, SECOND)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .map_err(words("cannot start the supervisor"))?;
    let mut said = String::new();
    if let Some(mut out) = second.stdout.take() {
        out.read_to_string(&mut said).map_err(words("cannot hear the supervisor"))?;
    }
    match said.as_str() {
        RUNS | HELD => Ok(()),
        "" => Err("its supervisor died at once; shim.log in its directory may say why".into()),
        why => Err(why.into()),
    }
}

fn second(dir: &Path) -> i32 {
    let (said, held) = match begin(dir) {
        Ok(Some(held)) => (RUNS.to_owned(), Some(held)),
        Ok(None) => (HELD.to_owned(), None),
        Err(why) => (why, None),
    };
    let mut out = io::stdout();
    let told = out.write_all(said.as_bytes()).and_then(|()| out.flush());
    let Some(held) = held else { return i32::from(said != HELD) };
    // The first stage waits for the end of this stream. It may have been killed: the command runs all the same.
    let silent =
        File::options().write(true).open("/dev/null").and_then(|null| Ok(rustix::stdio::dup2_stdout(null)?));
    if let Err(error) = told.and(silent) {
        let _ = writeln!(io::stderr(), "nobody heard that the command runs: {error}");
    }
    held.run();
    0
}

#[allow(
    clippy::disallowed_methods,
    reason = "a process of its own: there is nobody who could give it the time"
)]
fn now() -> Time {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Time(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

fn begin(dir: &Path) -> Result<Option<Held>, String> {
    let words = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
    // Leaving the session fails only for one that has left already.
    let _ = rustix::process::setsid();
    let lock = File::options().write(true).create(true).truncate(false).open(dir.join(spec::LOCK));
    let lock = lock.map_err(words("cannot open its lock"))?;
    if !take(&lock).map_err(words("cannot take its lock"))? {
        return Ok(None);
    }
    let spec: Spec = spec::read(&dir.join(spec::SPEC))
        .and_then(|spec| spec.ok_or_else(|| io::ErrorKind::NotFound.into()))
        .map_err(words("cannot read its spec"))?;
    let own = Process::own().map_err(words("cannot read /proc"))?;
    let mut state = State { shim: own, main: None, started_at: now(), exit: None };
    let write =
        |state: &State| spec::write(&dir.join(spec::STATE), state).map_err(words("cannot write its state"));
    write(&state)?;
    let setting: Option<Setting> =
        spec::read(&dir.join(SETTING)).map_err(words("cannot read its sandbox"))?;
    let setting = setting.unwrap_or_else(|| Setting {
        means: Means::none("nobody tried"),
        hide: Vec::new(),
        cable: None,
    });
    let Limits { memory, cpu_millis, processes } = spec.limits;
    let group = setting.means.groups.make(&spec.instance, &Bounds { memory, cpu_millis, processes });
    let launched = group.and_then(|group| {
        let launched = launch(dir, &spec, &setting, &group, &mut state);
        // Whoever may be left in it is killed by the server.
        launched
            .inspect_err(|_| group.kill())
            .map_err(|why| (drop(group.remove()), why).1)
            .map(|launched| (group, launched))
    });
    match launched {
        Err(why) => {
            state.exit = Some(Exit::NotStarted(why.clone()));
            write(&state)?;
            Err(why)
        }
        Ok((group, launched)) => {
            write(&state)?;
            let Launched { child, told, said, output, log, wake, ending } = launched;
            let output = Some(output);
            Ok(Some(Held {
                dir: dir.into(),
                _lock: lock,
                spec,
                state,
                child,
                told,
                said,
                group,
                output,
                log,
                wake,
                ending,
            }))
        }
    }
}

fn take(lock: &File) -> io::Result<bool> {
    for _ in 0..LOCK_TRIES {
        match flock(lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(true),
            Err(rustix::io::Errno::WOULDBLOCK) => wait_for(&[], Some(A_MOMENT))?,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(false)
}

pub(super) trait Readable {
    fn fd(&self) -> PollFd<'_>;
}
impl<T: AsFd> Readable for T {
    fn fd(&self) -> PollFd<'_> {
        PollFd::new(self, PollFlags::IN)
    }
}

/// Waits until one of these can be read, or the time is over.
pub(super) fn wait_for(on: &[&dyn Readable], most: Option<Duration>) -> io::Result<()> {
    let mut fds: Vec<PollFd<'_>> = on.iter().map(|readable| readable.fd()).collect();
    let most = most.map(|most| Timespec {
        tv_sec: most.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: most.subsec_nanos().into(),
    });
    match poll(&mut fds, most.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

struct Launched {
    child: Pid,
    told: Option<UnixStream>,
    said: Vec<u8>,
    output: io::PipeReader,
    log: Log,
    wake: UnixStream,
    ending: Arc<AtomicBool>,
}

fn launch(
    dir: &Path,
    spec: &Spec,
    setting: &Setting,
    group: &Group,
    state: &mut State,
) -> Result<Launched, String> {
    let words = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
    // What the command leaves behind comes to us instead of to the host's first process.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(|error| format!("cannot adopt its children: {error}"))?;
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
    let log = Log::open(&dir.join(spec::LOG), spec.log_bytes, spec.log_keep)
        .map_err(words("cannot open its log"))?;
    let (output, writer) = io::pipe().map_err(words("cannot open a pipe"))?;
    rustix::fs::fcntl_setfl(&output, OFlags::NONBLOCK)
        .map_err(|error| format!("cannot open a pipe: {error}"))?;
    let order = order(dir, spec, setting)?;
    let exe = std::env::current_exe().map_err(words("cannot find the server's own binary"))?;
    let (mut told, theirs) = UnixStream::pair().map_err(words("cannot open a pipe"))?;
    leave(&order.plan)?;
    let inside = Command::new(exe)
        .arg("shim")
        .arg(dir)
        .env_clear()
        .env(STAGE, INSIDE)
        .env(MARK, dir)
        .current_dir("/")
        .stdin(OwnedFd::from(theirs))
        .stdout(writer.try_clone().map_err(words("cannot open a pipe"))?)
        .stderr(writer)
        .spawn()
        .map_err(words("cannot start the first process of its sandbox"))?;
    // Before it starts anything.
    group.add(inside.id())?;
    let mut text =
        serde_json::to_string(&order).map_err(|error| format!("cannot write its order: {error}"))?;
    text.push('\n');
    told.write_all(text.as_bytes()).map_err(words("cannot tell the first process of its sandbox"))?;
    let cable = || order.cable.as_ref().map_or(Ok(()), Cable::lay);
    let said = until_it_runs(&mut told, cable)?;
    let child = i32::try_from(inside.id()).ok().and_then(Pid::from_raw).ok_or("it got no process id")?;
    // A process that is gone already leaves its number until it is waited for.
    state.main = match order.plan.namespaces {
        false => Process::of(inside.id()).ok(),
        true => {
            let table = proc::table().unwrap_or_default();
            let children = table.values().filter(|stat| stat.parent == inside.id());
            children.map(|stat| stat.process).min_by_key(|process| (process.start, process.pid))
        }
    };
    told.set_nonblocking(true).map_err(words("cannot open a pipe"))?;
    let told = order.plan.namespaces.then_some(told);
    Ok(Launched { child, told, said, output, log, wake, ending })
}

/// Waits until the command runs, and connects it to its network when it asks. That it runs is said, or, where the first process becomes the command, shown by the end of the stream.
/// What was said after that is returned.
fn until_it_runs(told: &mut UnixStream, connect: impl Fn() -> Result<(), String>) -> Result<Vec<u8>, String> {
    let (mut said, mut entered) = (Vec::new(), false);
    let mut chunk = [0; 4096];
    loop {
        while let Some(line) = next_line(&mut said) {
            match line.strip_prefix(WHY) {
                Some(why) => return Err(why.to_owned()),
                None if line == COMMAND_RUNS => return Ok(said),
                None if line == NETWORK => {
                    connect()?;
                    told.write_all(b"go\n").map_err(|error| format!("cannot tell it to go on: {error}"))?;
                }
                None => entered |= line == ENTERED,
            }
        }
        match told.read(&mut chunk) {
            Ok(0) if entered => return Ok(said),
            Ok(0) => return Err("the first process of its sandbox died at once; its log may say why".into()),
            Ok(read) => said.extend_from_slice(&chunk[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(format!("cannot hear the first process of its sandbox: {error}")),
        }
    }
}
