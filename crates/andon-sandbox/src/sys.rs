//! Leaving the host's namespaces. The only file with unsafe code; each piece says why it holds.

use std::fs;

use rustix::thread::{CapabilitySet, UnshareFlags, configure_capability_in_ambient_set};

/// Leaves these namespaces.
#[allow(
    unsafe_code,
    reason = "rustix marks the call so because of file descriptor tables, which stay shared here"
)]
fn unshare(flags: UnshareFlags, what: &str) -> Result<(), String> {
    // SAFETY: the call is unsafe because a thread with a file descriptor table of its own could use a number that means another
    // file elsewhere. No caller passes `UnshareFlags::FILES`, so the table stays as it is.
    unsafe { rustix::thread::unshare_unsafe(flags) }
        .map_err(|error| format!("cannot have {what} of its own: {error}"))
}

/// A user namespace in which the user keeps its number and may set up the other namespaces; `network`: a network too.
pub(crate) fn own_user(network: bool) -> Result<(), String> {
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    unshare(UnshareFlags::NEWUSER, "users")?;
    let write = |name: &str, text: String| {
        fs::write(format!("/proc/self/{name}"), text)
            .map_err(|error| format!("cannot map its user ({name}): {error}"))
    };
    write("setgroups", "deny".into())?;
    write("uid_map", format!("{user} {user} 1"))?;
    write("gid_map", format!("{group} {group} 1"))?;
    keep_rights(&[CapabilitySet::SYS_ADMIN, CapabilitySet::SETPCAP])?;
    // For the one device that a network of nobody else has.
    if network { keep_rights(&[CapabilitySet::NET_ADMIN]) } else { Ok(()) }
}

/// Whoever is not root loses all rights at its next execution, but for these.
pub(crate) fn keep_rights(kept: &[CapabilitySet]) -> Result<(), String> {
    let failed = |error: rustix::io::Errno| format!("cannot keep its rights over its namespaces: {error}");
    let mut sets = rustix::thread::capabilities(None).map_err(failed)?;
    sets.inheritable = kept.iter().fold(sets.inheritable, |all, one| all | *one);
    rustix::thread::set_capabilities(None, sets).map_err(failed)?;
    kept.iter().try_for_each(|one| configure_capability_in_ambient_set(*one, true)).map_err(failed)
}

/// The next child is the first process of a namespace of its own.
pub(crate) fn own_processes() -> Result<(), String> {
    unshare(UnshareFlags::NEWPID, "processes")
}

/// Mounts, shared memory, name, and the network if asked for.
pub(crate) fn own_rest(network: bool) -> Result<(), String> {
    let mut flags = UnshareFlags::NEWNS | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS;
    if network {
        flags |= UnshareFlags::NEWNET;
    }
    unshare(flags, "mounts, shared memory and a name")
}
