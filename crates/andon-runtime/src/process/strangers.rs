//! Processes among the instances that none of them accounts for.

use std::collections::BTreeSet;
use std::path::PathBuf;

use rustix::process::Signal;

use super::proc::{self, Process, Stat};
use super::shell::forgotten;
use super::shim::MARK;
use super::{Foreign, ProcessRuntime, lock, read};
use crate::error::RuntimeError;
use crate::spec::{self, State};

impl ProcessRuntime {
    /// Processes that run in or from an instance's directory, or were started by an instance, and that no living shim
    /// accounts for.
    pub fn foreign(&self) -> Result<Vec<Foreign>, RuntimeError> {
        let first = self.strays()?;
        if first.is_empty() {
            return Ok(first);
        }
        // Processes come and go while the table is read, and one whose parent is just missing looks like a stray. Only
        // who is one twice is one.
        let before: BTreeSet<Process> = first.iter().map(|stray| stray.process).collect();
        let mut strays = self.strays()?;
        strays.retain(|stray| before.contains(&stray.process));
        Ok(strays)
    }

    fn strays(&self) -> Result<Vec<Foreign>, RuntimeError> {
        // Processes first: whoever is in this table was started by a shim that had written its state before.
        let table = proc::table().map_err(RuntimeError::disk("read", "/proc"))?;
        let mut shims = BTreeSet::new();
        for id in self.ids()? {
            let dir = self.root.join(&id);
            if let Some(state) = read::<State>(&dir.join(spec::STATE))?
                && self.held(&dir)?
            {
                shims.insert(state.shim.pid);
            }
        }
        let own = std::process::id();
        // After the table: a shell is entered here before it starts anything.
        let shells = lock(&self.shells).clone();
        let of_shell = |pid: u32| shells.iter().any(|(_, entered)| proc::descends(&table, pid, entered.pid));
        let of_shim = |pid: u32| shims.iter().any(|shim| proc::descends(&table, pid, *shim));
        // What a shell left to the instance when it was killed is no part of that.
        let accounted = |process: Process| match process.pid {
            pid if pid == own || of_shell(pid) => true,
            pid => of_shim(pid) && !forgotten(&shells, process),
        };
        let strays = table.values().filter(|stat| !stat.zombie && !accounted(stat.process));
        let strays = strays.filter_map(|stat| Some((stat.process, self.owner(stat)?)));
        Ok(strays
            .map(|(process, instance)| Foreign { process, instance, command: process.command() })
            .collect())
    }

    /// Kills a process that [`ProcessRuntime::foreign`] named. False: it is gone already.
    pub fn kill_foreign(&self, process: Process) -> Result<bool, RuntimeError> {
        process.signal(Signal::KILL).map_err(RuntimeError::disk("signal", format!("/proc/{}", process.pid)))
    }

    /// The instance that a process belongs to, by where it runs, what it runs, or who started it.
    pub(super) fn owner(&self, stat: &Stat) -> Option<String> {
        let below = |path: PathBuf| {
            let first = path.strip_prefix(&self.root).ok()?.components().next()?;
            Some(first.as_os_str().to_string_lossy().into_owned())
        };
        let process = stat.process;
        let by_place = process.cwd().and_then(below).or_else(|| process.exe().and_then(below));
        by_place.or_else(|| process.variable(MARK).map(PathBuf::from).and_then(below))
    }
}
