//! The end of an instance: asked, killed, swept, removed, and proven empty each time.

use std::fs::{self, File};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::process::Signal;

use super::plan::{SETTING, Setting};
use super::{ProcessRuntime, lock, proc, read};
use crate::error::RuntimeError;
use crate::sandbox::Group;
use crate::spec::{self, Spec, State};

/// What a shim may take beyond the time that the instance has to stop.
const SHIM_GRACE: Duration = Duration::from_secs(10);
/// How often what will not die is killed again, and the pause before looking whether it did.
const KILLS: u32 = 200;
const KILL_PAUSE: Duration = Duration::from_millis(10);

/// What came of looking for what a shim left.
pub(super) enum Swept {
    /// Nothing is left, and no shim can start while this is held.
    Empty(File),
    /// It has a shim: one that an earlier server was starting.
    Held,
}

impl ProcessRuntime {
    /// Ends an instance with everything it started: asked first, killed after its time. Returns when nothing is left.
    pub fn stop(&self, id: &str) -> Result<(), RuntimeError> {
        let turn = self.turn(id);
        let _turn = lock(&turn);
        self.end(id).map(drop)
    }

    /// No shim can start it while what is returned is held.
    fn end(&self, id: &str) -> Result<File, RuntimeError> {
        let dir = self.dir(id)?;
        if !dir.exists() {
            return Err(RuntimeError::Unknown(id.to_owned()));
        }
        let spec: Option<Spec> = read(&dir.join(spec::SPEC))?;
        if let Some(spec) = spec
            && self.held(&dir)?
        {
            self.end_shim(id, &dir, spec.stop_within.duration() + SHIM_GRACE)?;
        }
        match self.sweep(id, &dir)? {
            Swept::Empty(lock) => Ok(lock),
            Swept::Held => {
                Err(RuntimeError::NotStopped { id: id.to_owned(), why: "it is just being started".into() })
            }
        }
    }

    /// Stops an instance and removes its directory. One that is not there is as good.
    pub fn remove(&self, id: &str) -> Result<(), RuntimeError> {
        let turn = self.turn(id);
        let _turn = lock(&turn);
        let _held = match self.end(id) {
            Err(RuntimeError::Unknown(_)) => return Ok(()),
            stopped => stopped?,
        };
        let (dir, beside) = (self.dir(id)?, self.beside(id));
        let spec: Option<Spec> = read(&dir.join(spec::SPEC))?;
        let network = spec.and_then(|spec| spec.environment.filter(|_| spec.address.is_some()));
        if let Some(watcher) = &self.watcher {
            watcher.end(id);
        }
        fs::rename(&dir, &beside).map_err(RuntimeError::disk("remove", &dir))?;
        lock(&self.inspector).forget(&dir);
        lock(&self.turns).remove(id);
        if let Some(environment) = network {
            self.tell_hosts(&environment);
        }
        fs::remove_dir_all(&beside).map_err(RuntimeError::disk("remove", beside))
    }

    /// Asks the shim to end and waits for its lock; a shim that does not is killed.
    fn end_shim(&self, id: &str, dir: &Path, within: Duration) -> Result<(), RuntimeError> {
        let path = dir.join(spec::STATE);
        let signal = |signal: Signal| match read::<State>(&path)? {
            Some(state) => state.shim.signal(signal).map_err(RuntimeError::disk("signal the shim of", dir)),
            None => Ok(false),
        };
        signal(Signal::TERM)?;
        let lock = File::open(dir.join(spec::LOCK)).map_err(RuntimeError::disk("open the lock of", dir))?;
        let (tell, free) = mpsc::channel();
        // A thread, because waiting for a lock knows no time limit. It ends when the shim does.
        std::thread::spawn(move || {
            let waited = flock(&lock, FlockOperation::LockShared);
            // Nobody listening: the wait was given up.
            let _ = tell.send(waited);
        });
        if free.recv_timeout(within).is_ok() {
            return Ok(());
        }
        tracing::warn!(instance = id, "the shim did not end in time and is killed");
        signal(Signal::KILL)?;
        free.recv_timeout(SHIM_GRACE).map(drop).map_err(|_| RuntimeError::NotStopped {
            id: id.to_owned(),
            why: "its shim survives being killed".into(),
        })
    }

    /// The group of an instance, of whatever server started it.
    fn group(&self, id: &str, dir: &Path) -> Result<Group, RuntimeError> {
        let setting: Option<Setting> = read(&dir.join(SETTING))?;
        Ok(setting.map(|setting| setting.means.groups.of(id)).unwrap_or_default())
    }

    /// Kills what an instance without a shim has left.
    pub(super) fn sweep(&self, id: &str, dir: &Path) -> Result<Swept, RuntimeError> {
        // Only a pause: nobody ever sends.
        let (_quiet, never) = mpsc::channel::<()>();
        // Held while sweeping: a shim that an earlier server is just starting waits, and what it makes is not taken for a left-over.
        let path = dir.join(spec::LOCK);
        let lock = File::options().write(true).create(true).truncate(false).open(&path);
        let lock = lock.map_err(RuntimeError::disk("open", &path))?;
        let mut tries = KILLS / 10;
        while let Err(error) = flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            // Whoever only looks holds it for an instant.
            if error != rustix::io::Errno::WOULDBLOCK || tries == 0 {
                return Ok(Swept::Held);
            }
            tries -= 1;
            let _ = never.recv_timeout(KILL_PAUSE);
        }
        let group = self.group(id, dir)?;
        let own = std::process::id();
        let mut left = Vec::new();
        for _ in 0..KILLS {
            let table = proc::table().map_err(RuntimeError::disk("read", "/proc"))?;
            let others = table.values().filter(|stat| !stat.zombie && stat.process.pid != own);
            left = others
                .filter(|stat| self.owner(stat).as_deref() == Some(id))
                .map(|stat| stat.process)
                .collect();
            group.kill();
            if left.is_empty() && group.remove().is_ok() {
                return Ok(Swept::Empty(lock));
            }
            for process in &left {
                process.signal(Signal::KILL).map_err(RuntimeError::disk("kill what is left of", dir))?;
            }
            if never.recv_timeout(KILL_PAUSE).is_ok() {
                break;
            }
        }
        let pids: Vec<String> = left.iter().map(|process| process.pid.to_string()).collect();
        Err(RuntimeError::NotStopped {
            id: id.to_owned(),
            why: format!("processes {} survive", pids.join(", ")),
        })
    }
}
