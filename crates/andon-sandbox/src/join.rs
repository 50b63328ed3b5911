//! Entering a sandbox that others are in already: the namespaces of one of its processes, and the same loss of rights. The counterpart of
//! [`crate::leave`] and [`crate::enter`]. Single-threaded callers only.

use std::fs::File;

use rustix::thread::{CapabilitySet, LinkNameSpaceType, move_into_link_name_space};

use crate::{Plan, confine, filter, sys};
use std::os::fd::AsFd;

/// The namespaces beside those of users and processes, in the order in which they are entered: the way to the others goes by files.
const REST: [(&str, LinkNameSpaceType); 4] = [
    ("ipc", LinkNameSpaceType::InterProcessCommunication),
    ("uts", LinkNameSpaceType::HostNameAndNISDomainName),
    ("net", LinkNameSpaceType::Network),
    ("mnt", LinkNameSpaceType::Mount),
];

fn space(pid: u32, name: &str) -> Result<File, String> {
    File::open(format!("/proc/{pid}/ns/{name}"))
        .map_err(|error| format!("cannot see the instance's namespaces ({name}): {error}"))
}

fn into(space: &File, name: &str, kind: LinkNameSpaceType) -> Result<(), String> {
    move_into_link_name_space(space.as_fd(), Some(kind))
        .map_err(|error| format!("cannot enter the instance's namespaces ({name}): {error}"))
}

/// From here on children are born among the processes of `pid`'s sandbox, and, where that has users of its own, with rights over it.
pub fn approach(plan: &Plan, pid: u32) -> Result<(), String> {
    if !plan.namespaces {
        return Ok(());
    }
    let processes = space(pid, "pid")?;
    if plan.own_user {
        into(&space(pid, "user")?, "user", LinkNameSpaceType::User)?;
        sys::keep_rights(&[CapabilitySet::SYS_ADMIN, CapabilitySet::SETPCAP, CapabilitySet::SYS_CHROOT])?;
    }
    into(&processes, "pid", LinkNameSpaceType::ProcessID)
}

/// Enters it, and gives up what those inside have not either; only Landlock is not put on. `still` says that `pid` is who was meant.
pub fn join(plan: &Plan, pid: u32, still: impl FnOnce() -> bool) -> Result<(), String> {
    if plan.namespaces {
        let spaces = REST.map(|(name, kind)| (name, kind, space(pid, name)));
        let entered = |name: &str| name != "net" || plan.own_network;
        if !still() {
            return Err("the instance has just ended".into());
        }
        for (name, kind, space) in spaces.into_iter().filter(|(name, ..)| entered(name)) {
            into(&space?, name, kind)?;
        }
        std::env::set_current_dir("/").map_err(|error| format!("cannot enter its files: {error}"))?;
    }
    confine::limits(plan)?;
    confine::capabilities()?;
    rustix::thread::set_no_new_privs(true).map_err(|error| format!("cannot give up new rights: {error}"))?;
    if plan.filter {
        filter::apply()?;
    }
    Ok(())
}
