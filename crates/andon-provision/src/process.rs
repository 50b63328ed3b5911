//! One process of the tool. It has a process group of its own and writes into files, so that it goes on when we end; who comes back finds
//! it by pid and start time. It is stopped by SIGINT, which lets it save its state and unlock; only after a grace by force.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

/// How long the tool may take to save and unlock after SIGINT.
pub const GRACE: Duration = Duration::from_secs(60);
/// Looks at what is below a process that is being ended: it may fork between two of them.
const ROUNDS: usize = 20;
/// Between two looks at a process that is not our child.
const LOOK: Duration = Duration::from_millis(100);

/// What is to be run.
#[derive(Debug, Clone)]
pub struct Order {
    /// The binary.
    pub binary: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Where.
    pub dir: PathBuf,
    /// All of its environment.
    pub env: BTreeMap<String, String>,
    /// Where its output goes, both kinds.
    pub out: PathBuf,
}

/// A process that runs.
#[derive(Debug)]
pub struct Running {
    child: Child,
    /// Its id.
    pub pid: u32,
    /// When it began, in clock ticks since the start of the host.
    pub started: u64,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Exit status 0.
    pub ok: bool,
    /// We stopped it.
    pub stopped: bool,
}

/// Starts it.
pub fn start(order: &Order) -> io::Result<Running> {
    let out = File::options().create(true).append(true).open(&order.out)?;
    let mut child = Command::new(&order.binary)
        .args(&order.args)
        .current_dir(&order.dir)
        .env_clear()
        .envs(&order.env)
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(out)
        .process_group(0)
        .kill_on_drop(false)
        .spawn()?;
    let pid = child.id().ok_or_else(|| io::Error::other("it ended before it began"))?;
    match started(pid) {
        Some(started) => Ok(Running { child, pid, started }),
        None => {
            let _ = child.start_kill();
            Err(io::Error::other("it cannot be found in /proc"))
        }
    }
}

impl Running {
    /// Waits for its end. `stop`, or `most` being over, interrupts it gently, then by force.
    pub async fn end(mut self, stop: &CancellationToken, most: Duration) -> io::Result<Ended> {
        tokio::select! {
            status = self.child.wait() => return Ok(Ended { ok: status?.success(), stopped: false }),
            () = stop.cancelled() => {}
            () = tokio::time::sleep(most) => {}
        }
        interrupt(self.pid, self.started);
        let status = match tokio::time::timeout(GRACE, self.child.wait()).await {
            Ok(status) => status?,
            Err(_) => {
                kill_tree(self.pid, self.started);
                self.child.wait().await?
            }
        };
        Ok(Ended { ok: status.success(), stopped: true })
    }
}

/// Whether exactly this process is there and not only waiting to be noticed.
pub fn is_alive(pid: u32, began: u64) -> bool {
    stat(pid).is_some_and(|(state, start)| start == began && state != "Z")
}

/// Waits until a process that is not our child is gone.
pub async fn gone(pid: u32, began: u64) {
    while is_alive(pid, began) {
        tokio::time::sleep(LOOK).await;
    }
}

/// Asks exactly this process to save and end.
pub fn interrupt(pid: u32, began: u64) {
    if let Some(pid) = ours(pid, began) {
        // It may have ended by itself in between.
        let _ = rustix::process::kill_process(pid, Signal::INT);
    }
}

/// Ends it with everything in its group and everything below it, also what has a session of its own.
pub fn kill_tree(pid: u32, began: u64) {
    let Some(root) = ours(pid, began) else { return };
    // It starts nothing more while those below it are ended.
    let _ = rustix::process::kill_process(root, Signal::STOP);
    for _ in 0..ROUNDS {
        let below = andon_kit::tree::descendants(root);
        let alive = |pid: &&rustix::process::Pid| {
            stat(pid.as_raw_nonzero().get().unsigned_abs()).is_some_and(|(state, _)| state != "Z")
        };
        let mut left = below.iter().filter(alive).peekable();
        if left.peek().is_none() {
            break;
        }
        for pid in left {
            let _ = rustix::process::kill_process(*pid, Signal::KILL);
        }
    }
    let _ = rustix::process::kill_process_group(root, Signal::KILL);
}

fn ours(pid: u32, began: u64) -> Option<Pid> {
    let is = started(pid) == Some(began);
    i32::try_from(pid).ok().and_then(Pid::from_raw).filter(|_| is)
}

fn started(pid: u32) -> Option<u64> {
    stat(pid).map(|(_, start)| start)
}

/// Its state letter and its start (proc_pid_stat(5), fields 3 and 22).
fn stat(pid: u32) -> Option<(String, u64)> {
    let text = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?;
    // The name in parentheses may hold anything; what follows the last one is plain.
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    Some(((*fields.first()?).to_owned(), fields.get(19)?.parse().ok()?))
}

/// Whether any process has its working directory below this folder: the tool itself, or what it started.
pub fn works_below(folder: &Path) -> bool {
    let Ok(folder) = folder.canonicalize() else { return false };
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut places = processes.filter_map(|entry| std::fs::read_link(entry.path().join("cwd")).ok());
    places.any(|place| place.starts_with(&folder))
}
