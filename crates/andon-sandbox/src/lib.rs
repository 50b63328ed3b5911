//! What a process may see and do: namespaces, a file system of its own, Landlock, a filter of system calls, groups with limits; and
//! processes told apart by more than their numbers. A process enters a sandbox by itself, single-threaded, just before it starts what is to be
//! confined. Knows no instance and no job.
//!
//! What the host permits differs: [`Means`] says what works here, found by trying it, and each lack has its reason.

mod confine;
mod filter;
mod group;
mod host;
mod join;
mod means;
mod mounts;
pub mod process;
mod rehearse;
mod sys;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use group::{Bounds, Controller, Group, Groups};
pub use host::{KEPT, system, tools};
pub use join::{approach, join};
pub use means::{Isolation, Means};
pub use process::Process;
pub use rehearse::{ENTERED, rehearse_inside, rehearse_outside};

/// What a process enters. Made outside, carried to it as JSON.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Whether it has mounts, processes, shared memory and a name of its own.
    pub namespaces: bool,
    /// Whether that needs a user namespace: we are not root.
    pub own_user: bool,
    /// Whether it has a network of its own.
    pub own_network: bool,
    /// Its name for itself.
    pub hostname: String,
    /// An empty directory that its file system is put together on. Outside nothing is seen there.
    pub root: PathBuf,
    /// What it sees and cannot change, at the place where it lies outside. What is not there is left out.
    pub read: Vec<PathBuf>,
    /// What it does not see though it lies within `read`.
    pub hide: Vec<PathBuf>,
    /// What it sees and may change.
    pub write: Vec<PathBuf>,
    /// Shown as `/tmp`, instead of a small one in memory.
    #[serde(default)]
    pub temporary: Option<PathBuf>,
    /// Whether it may have terminals of its own.
    #[serde(default)]
    pub terminals: bool,
    /// Shown as `/etc/hosts`.
    pub hosts: Option<PathBuf>,
    /// Whether Landlock limits it as well.
    pub landlock: bool,
    /// Whether calls that no service needs are refused.
    pub filter: bool,
    /// Bytes of memory for each of its processes, where no group limits all together.
    pub memory_each: Option<u64>,
    /// Processes of its user, where no group counts them.
    pub processes: Option<u64>,
}

/// Leaves the host's processes, and its users if that is needed, for those started next. The caller itself stays where it is, but
/// for the user namespace. Single-threaded callers only.
pub fn leave(plan: &Plan) -> Result<(), String> {
    if !plan.namespaces {
        return Ok(());
    }
    if plan.own_user {
        sys::own_user(plan.own_network)?;
    }
    sys::own_processes()
}

/// Enters it: from here on the caller and whatever it starts is confined, and there is no way back. To be called by the first
/// process after [`leave`]. `connected` is called when the caller is in a network of its own, if it is to be: it returns when
/// somebody outside has connected it.
pub fn enter(plan: &Plan, connected: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    if plan.namespaces {
        sys::own_rest(plan.own_network)?;
        if !plan.hostname.is_empty() {
            rustix::system::sethostname(plan.hostname.as_bytes())
                .map_err(|error| format!("cannot name itself: {error}"))?;
        }
        if plan.own_network {
            connected()?;
        }
        mounts::own_files(plan)?;
    }
    confine::limits(plan)?;
    confine::capabilities()?;
    rustix::thread::set_no_new_privs(true).map_err(|error| format!("cannot give up new rights: {error}"))?;
    if plan.landlock {
        confine::files(plan)?;
    }
    if plan.filter {
        filter::apply()?;
    }
    Ok(())
}
