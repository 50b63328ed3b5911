//! A command that runs, as its shim holds it: keeps its output, asks it to end, and ends all that is left of it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, wait};

use super::inside::{CODE, SIGNAL};
use super::log::Log;
use super::proc;
use super::shim::{A_MOMENT, LOCK_TRIES, wait_for};
use crate::sandbox::Group;
use crate::spec::{self, Exit, Spec, State};

/// A running command and all that is needed to end it.
pub(super) struct Held {
    pub dir: PathBuf,
    /// Held open for as long as the shim lives: that is the lock.
    pub _lock: File,
    pub spec: Spec,
    pub state: State,
    /// The first process inside, or, without namespaces, the command itself.
    pub child: Pid,
    /// What the first process inside reports, if there is one.
    pub told: Option<UnixStream>,
    pub said: Vec<u8>,
    pub group: Group,
    pub output: Option<io::PipeReader>,
    pub log: Log,
    pub wake: UnixStream,
    pub ending: Arc<AtomicBool>,
}

/// What is left of the descendants.
#[derive(PartialEq)]
enum Left {
    Some,
    None,
}

impl Held {
    pub(super) fn run(mut self) {
        let mut exit = None;
        let mut deadline: Option<Instant> = None;
        while exit.is_none() {
            if self.ending.load(Ordering::SeqCst) && deadline.is_none() {
                deadline = Some(Instant::now() + self.spec.stop_within.duration());
                if let Some(main) = self.state.main
                    && let Err(error) = main.signal(Signal::TERM)
                {
                    self.note("cannot ask the command to end", error);
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
        let exit = exit.unwrap_or(Exit::Unseen);
        let starved = matches!(exit, Exit::Signal(9) | Exit::Code(137)) && self.group.out_of_memory() > 0;
        self.end_group();
        self.state.exit = Some(if starved { Exit::OutOfMemory(self.spec.limits.memory) } else { exit });
        if let Err(error) = spec::write(&self.dir.join(spec::STATE), &self.state) {
            self.note("cannot write how it ended", error);
        }
    }

    fn wait(&mut self, most: Option<Duration>) {
        let waited = match &self.output {
            Some(output) => wait_for(&[&self.wake, output], most),
            // The end of the first process inside is signalled: what it says needs no look of its own.
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
    fn reap(&mut self, exit: &mut Option<Exit>) -> Left {
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if pid == self.child => {
                    *exit = match self.reported() {
                        Some(told) => Some(told),
                        None => match (status.exit_status(), status.terminating_signal()) {
                            (Some(code), _) => Some(Exit::Code(code)),
                            (_, Some(signal)) => Some(Exit::Signal(signal)),
                            _ => exit.take(),
                        },
                    };
                }
                Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
                Ok(None) => return Left::Some,
                Err(_) => return Left::None,
            }
        }
    }

    /// How the command ended, as the first process inside says. None if there is no such process, or it was killed first.
    fn reported(&mut self) -> Option<Exit> {
        let mut told = self.told.take()?;
        // What it said lies in the socket, whole: it is dead.
        let _ = told.read_to_end(&mut self.said);
        while let Some(line) = next_line(&mut self.said) {
            if let Some(code) = line.strip_prefix(CODE) {
                return code.parse().ok().map(Exit::Code);
            }
            if let Some(signal) = line.strip_prefix(SIGNAL) {
                return signal.parse().ok().map(Exit::Signal);
            }
        }
        None
    }

    /// Nobody is left by now; if somebody is all the same, the server sees it by the group that stays.
    fn end_group(&mut self) {
        for _ in 0..LOCK_TRIES {
            match self.group.remove() {
                Ok(()) => return,
                Err(_) => self.group.kill(),
            }
            self.wait(Some(A_MOMENT));
        }
        self.note("its group stays", io::ErrorKind::ResourceBusy.into());
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

/// Takes the first whole line out of what was said.
pub(super) fn next_line(said: &mut Vec<u8>) -> Option<String> {
    let end = said.iter().position(|byte| *byte == b'\n')?;
    let rest = said.split_off(end + 1);
    let line = std::mem::replace(said, rest);
    Some(String::from_utf8_lossy(&line[..end]).into_owned())
}
