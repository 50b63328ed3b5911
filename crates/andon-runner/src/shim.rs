//! The process between the server and a job: `andon job-shim`. It ends the job's whole tree when the server says so or is gone.
//!
//! Its stdin is the leash: one line with the order, then silence; the end of stdin, by intent or by the server's death, means stop. Stop is
//! TERM to the job's main process, after the grace KILL to everything below; only an empty tree ends the shim. Starts no runtime.

use std::collections::BTreeMap;
use std::io::{BufRead, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::process::{Pid, PidfdFlags, Signal};
use serde::{Deserialize, Serialize};

/// What the shim is to run.
#[derive(Debug, Serialize, Deserialize)]
pub struct Job {
    /// Given to `sh -e -c` as it stands: it comes from the repository, nothing is put into it.
    pub script: String,
    /// Its working copy.
    pub workdir: PathBuf,
    /// Its whole environment.
    pub env: BTreeMap<String, String>,
    /// Milliseconds between asking and killing.
    pub grace_ms: u64,
}

/// Exit status that says that the shim could not begin.
pub const BROKEN: i32 = 125;

/// The shim's whole life. Returns its exit status: the job's, or 128 + signal.
pub fn main() -> i32 {
    match run() {
        Ok(status) => status,
        Err(error) => {
            eprintln!("andon: the job could not be started: {error}");
            BROKEN
        }
    }
}

fn run() -> std::io::Result<i32> {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    let job: Job = serde_json::from_str(&line)?;
    // A session of its own: no terminal, no signals meant for the server.
    let _ = rustix::process::setsid();
    andon_kit::tree::become_subreaper()?;
    let mut child = Command::new("sh")
        .args(["-e", "-c", &job.script])
        .current_dir(&job.workdir)
        .env_clear()
        .envs(&job.env)
        .stdin(Stdio::null())
        .process_group(0)
        .spawn()?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let handle = pid.and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok());
    std::thread::spawn(move || {
        let _ = std::io::stdin().lock().read_to_end(&mut Vec::new());
        if let Some(handle) = handle {
            let _ = rustix::process::pidfd_send_signal(&handle, Signal::TERM);
            pause(job.grace_ms);
            let _ = rustix::process::pidfd_send_signal(&handle, Signal::KILL);
        }
    });
    let status = child.wait()?;
    andon_kit::tree::kill_all();
    Ok(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)))
}

#[allow(
    clippy::disallowed_methods,
    reason = "a process of one job without a runtime: this is its grace, not synchronisation"
)]
fn pause(millis: u64) {
    std::thread::sleep(std::time::Duration::from_millis(millis));
}
