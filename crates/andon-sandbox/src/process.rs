//! Processes as /proc tells of them. A process is named by its id *and* its start, so that a number used again is
//! never taken for the process that had it before.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// One process, for as long as the host is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// When it began, in clock ticks since the host's start.
    pub start: u64,
}

/// What the table says of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// Which.
    pub process: Process,
    /// The id of its parent.
    pub parent: u32,
    /// Ended, and only waiting for its parent to notice.
    pub zombie: bool,
}

impl Process {
    /// This very process.
    pub fn own() -> io::Result<Process> {
        Process::of(std::process::id())
    }

    /// The process that has this id now.
    pub fn of(pid: u32) -> io::Result<Process> {
        Ok(stat(pid)?.process)
    }

    /// Sends a signal to exactly this process. False: it is gone.
    pub fn signal(self, signal: Signal) -> io::Result<bool> {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else { return Ok(false) };
        let handle = match pidfd_open(pid, PidfdFlags::empty()) {
            Err(rustix::io::Errno::SRCH) => return Ok(false),
            handle => handle?,
        };
        // The handle stays with the process it was opened for: is that the one that is meant?
        if Process::of(self.pid).ok() != Some(self) {
            return Ok(false);
        }
        match pidfd_send_signal(&handle, signal) {
            Err(rustix::io::Errno::SRCH) => Ok(false),
            sent => Ok(sent.map(|()| true)?),
        }
    }

    /// Where it runs.
    pub fn cwd(self) -> Option<PathBuf> {
        std::fs::read_link(format!("/proc/{}/cwd", self.pid)).ok()
    }

    /// The file it runs.
    pub fn exe(self) -> Option<PathBuf> {
        std::fs::read_link(format!("/proc/{}/exe", self.pid)).ok()
    }

    /// A variable of the environment it was started with.
    pub fn variable(self, name: &str) -> Option<String> {
        let all = std::fs::read(format!("/proc/{}/environ", self.pid)).ok()?;
        let lines = all.split(|byte| *byte == 0).filter_map(|line| std::str::from_utf8(line).ok());
        lines.filter_map(|line| line.strip_prefix(name)?.strip_prefix('=')).map(str::to_owned).next()
    }

    /// Its command as people would type it; in brackets its short name, while it has none (in the act of executing).
    pub fn command(self) -> String {
        let bytes = std::fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let text: String = text.trim_end_matches('\0').replace('\0', " ").chars().take(200).collect();
        if !text.is_empty() {
            return text;
        }
        let name = std::fs::read_to_string(format!("/proc/{}/comm", self.pid)).unwrap_or_default();
        format!("[{}]", name.trim_end())
    }
}

/// What the table says of this id now.
pub fn stat(pid: u32) -> io::Result<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    parse(pid, &text).ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat reads {text:?}")))
}

/// The name in brackets may hold anything, brackets and blanks too: fields count from the last bracket.
fn parse(pid: u32, text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let process = Process { pid, start: fields.get(19)?.parse().ok()? };
    Some(Stat {
        process,
        parent: fields.get(1)?.parse().ok()?,
        zombie: matches!(*fields.first()?, "Z" | "X"),
    })
}

/// Every process that can be seen, by id.
pub fn table() -> io::Result<BTreeMap<u32, Stat>> {
    let mut table = BTreeMap::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        // It may be gone by now.
        if let Ok(stat) = stat(pid) {
            table.insert(pid, stat);
        }
    }
    Ok(table)
}

/// Whether a process is `ancestor` or descends from it.
pub fn descends(table: &BTreeMap<u32, Stat>, pid: u32, ancestor: u32) -> bool {
    let mut at = pid;
    // A table read while processes come and go might hold a circle.
    for _ in 0..table.len() {
        if at == ancestor {
            return true;
        }
        match table.get(&at) {
            Some(stat) if stat.parent != 0 => at = stat.parent,
            _ => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_blanks_does_not_shift_the_fields() {
        let text = "7 (a) b) S 3 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 12345 0 0";
        let stat = parse(7, text).unwrap();
        assert_eq!((stat.parent, stat.process.start, stat.zombie), (3, 12345, false));
    }

    #[test]
    fn another_process_with_the_same_number_gets_no_signal() {
        let own = Process::own().unwrap();
        let before = Process { start: own.start - 1, ..own };
        assert!(!before.signal(Signal::KILL).unwrap());
        assert!(descends(&table().unwrap(), own.pid, stat(own.pid).unwrap().parent));
    }
}
