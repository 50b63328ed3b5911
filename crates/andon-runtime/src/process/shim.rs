//! The shim: one small process for each instance, the server's binary run again. It outlives the server.
//!
//! `exe shim DIR` is run twice. The first stage starts the second and waits until that one says that the command runs
//! (or why it does not), so that whoever asked knows at once and has no child to look after. The second stage leaves
//! the server's session, takes the instance's lock, adopts whatever the command leaves behind, keeps its output, and
//! ends only when no descendant is left. It has no threads and no runtime, and restarts nothing: that is decided by
//! the server, which may be down.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use andon_model::Time;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::process::{Pid, Signal, WaitOptions, wait};
use signal_hook::consts::{SIGCHLD, SIGINT, SIGTERM};

use super::log::Log;
use super::proc::{self, Process};
use crate::spec::{self, Exit, Spec, State};

/// Tells the second stage from the first.
const STAGE: &str = "ANDON_SHIM_STAGE";
/// Names the instance's directory in the environment of everything that it starts.
pub(crate) const MARK: &str = "ANDON_INSTANCE";
/// What the second stage says to the first, beside a reason.
const RUNS: &str = "runs";
const HELD: &str = "held";
/// How long the lock is tried for: someone who only looks holds it for an instant.
const LOCK_TRIES: u32 = 50;
const A_MOMENT: Duration = Duration::from_millis(4);
/// Where programs are looked for if the server has no PATH.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs the instance in this directory; call it first thing in `main`, before any thread is started. The exit status
/// is 0 when the command was started (or ran already), else 1 with the reason on standard error.
pub fn shim_main(dir: &Path) -> i32 {
    if std::env::var_os(STAGE).is_some() {
        return second(dir);
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
        .env(STAGE, "2")
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

/// A running command and all that is needed to end it.
struct Held {
    dir: PathBuf,
    /// Held open for as long as the shim lives: that is the lock.
    _lock: File,
    spec: Spec,
    state: State,
    main: Pid,
    output: Option<io::PipeReader>,
    log: Log,
    wake: UnixStream,
    ending: Arc<AtomicBool>,
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
    match launch(dir, &spec) {
        Err(why) => {
            state.exit = Some(Exit::NotStarted(why.clone()));
            write(&state)?;
            Err(why)
        }
        Ok((main, output, log, wake, ending)) => {
            // A process that is gone already leaves its number until it is waited for.
            state.main = Process::of(main.as_raw_pid().unsigned_abs()).ok();
            let held = Held {
                dir: dir.into(),
                _lock: lock,
                spec,
                state,
                main,
                output: Some(output),
                log,
                wake,
                ending,
            };
            write(&held.state)?;
            Ok(Some(held))
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

trait Readable {
    fn fd(&self) -> PollFd<'_>;
}
impl<T: AsFd> Readable for T {
    fn fd(&self) -> PollFd<'_> {
        PollFd::new(self, PollFlags::IN)
    }
}

/// Waits until one of these can be read, or the time is over.
fn wait_for(on: &[&dyn Readable], most: Option<Duration>) -> io::Result<()> {
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

type Launched = (Pid, io::PipeReader, Log, UnixStream, Arc<AtomicBool>);

fn launch(dir: &Path, spec: &Spec) -> Result<Launched, String> {
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
    let mut command = command(dir, spec)?;
    command.stdout(writer.try_clone().map_err(words("cannot open a pipe"))?).stderr(writer);
    let program = spec.command.first().map_or("", String::as_str);
    let mut spawned = command.spawn();
    for _ in 0..LOCK_TRIES {
        // The file was just unpacked, and a process that the server forked meanwhile has it open until it executes.
        match &spawned {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => {
                wait_for(&[], Some(A_MOMENT)).map_err(words("cannot wait"))?;
                spawned = command.spawn();
            }
            _ => break,
        }
    }
    let main = spawned.map_err(|error| format!("cannot run {program:?}: {error}"))?;
    let main = i32::try_from(main.id()).ok().and_then(Pid::from_raw).ok_or("it got no process id")?;
    Ok((main, output, log, wake, ending))
}

fn command(dir: &Path, spec: &Spec) -> Result<Command, String> {
    let workdir = Path::new(&spec.workdir);
    if !workdir.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(format!("its directory {:?} leads out of the release", spec.workdir));
    }
    let arguments = spec.arguments();
    let Some((program, arguments)) = arguments.split_first() else {
        return Err("its command is empty".into());
    };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir(dir.join(spec::RELEASE).join(workdir))
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_else(|| PATH.into()))
        .env("HOME", dir.join("home"))
        .env("TMPDIR", dir.join("tmp"))
        .env("LANG", "C.UTF-8")
        .envs(&spec.env)
        .env("PORT", spec.port.to_string())
        .env(MARK, dir)
        .stdin(Stdio::null())
        .process_group(0);
    Ok(command)
}

/// What is left of the descendants.
#[derive(PartialEq)]
enum Left {
    Some,
    None,
}

impl Held {
    fn run(mut self) {
        let mut exit = None;
        let mut deadline: Option<Instant> = None;
        while exit.is_none() {
            if self.ending.load(Ordering::SeqCst) && deadline.is_none() {
                deadline = Some(Instant::now() + self.spec.stop_within.duration());
                // It cannot have been waited for yet: the number is still its own.
                if let Err(error) = rustix::process::kill_process(self.main, Signal::TERM) {
                    self.note("cannot ask the command to end", error.into());
                }
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                break;
            }
            self.wait(left);
            self.reap(&mut exit);
        }
        self.end_all(&mut exit);
        self.keep_output();
        self.state.exit = Some(exit.unwrap_or(Exit::Unseen));
        if let Err(error) = spec::write(&self.dir.join(spec::STATE), &self.state) {
            self.note("cannot write how it ended", error);
        }
    }

    fn wait(&mut self, most: Option<Duration>) {
        let waited = match &self.output {
            Some(output) => wait_for(&[&self.wake, output], most),
            None => wait_for(&[&self.wake], most),
        };
        if let Err(error) = waited {
            self.note("cannot wait", error);
        }
        let mut signs = [0; 64];
        while matches!(self.wake.read(&mut signs), Ok(1..)) {}
        self.keep_output();
    }

    /// Writes down what the command said since last time.
    fn keep_output(&mut self) {
        let mut chunk = [0; 64 * 1024];
        // Bounded, so that a command that never stops talking can still be stopped.
        for _ in 0..16 {
            let Some(output) = &mut self.output else { return };
            match output.read(&mut chunk) {
                Ok(0) => self.output = None,
                Ok(read) => {
                    // A full disk must not stop the service: what cannot be kept is lost.
                    if let Err(error) = self.log.write(&chunk[..read]) {
                        self.note("output was lost", error);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.output = None;
                    self.note("cannot read its output", error);
                }
            }
        }
    }

    /// Takes note of every descendant that ended.
    fn reap(&self, exit: &mut Option<Exit>) -> Left {
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if pid == self.main => {
                    *exit = match (status.exit_status(), status.terminating_signal()) {
                        (Some(code), _) => Some(Exit::Code(code)),
                        (_, Some(signal)) => Some(Exit::Signal(signal)),
                        _ => exit.take(),
                    };
                }
                Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
                Ok(None) => return Left::Some,
                Err(_) => return Left::None,
            }
        }
    }

    /// Kills whatever is left, sessions of its own included, until nothing is.
    fn end_all(&mut self, exit: &mut Option<Exit>) {
        let own = std::process::id();
        let mut most = A_MOMENT;
        while self.reap(exit) == Left::Some {
            let table = proc::table().unwrap_or_default();
            let alive = table.values().filter(|stat| !stat.zombie && stat.process.pid != own);
            for stat in alive.filter(|stat| proc::descends(&table, stat.process.pid, own)) {
                if let Err(error) = stat.process.signal(Signal::KILL) {
                    self.note("cannot kill a process it left", error);
                }
            }
            self.wait(Some(most));
            most = (most * 2).min(Duration::from_secs(1));
        }
    }

    fn note(&self, what: &str, error: io::Error) {
        // The shim's own log; if even that fails there is nobody left to tell.
        let _ = writeln!(io::stderr(), "{what}: {error}");
    }
}
