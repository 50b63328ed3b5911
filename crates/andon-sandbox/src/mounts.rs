//! The file system that a confined process sees: what it needs of the host read-only, what is its own writable, and nothing else.

use std::ffi::{CStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive, mount_change,
    mount_remount, unmount,
};

use crate::Plan;

/// Devices that any program may expect.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
/// Parts of /proc that change the host when root writes to them.
const KERNEL: [&str; 5] = ["sys", "bus", "fs", "irq", "sysrq-trigger"];
/// Parts of /proc that tell of the host's memory and keys.
const TELLING: [&str; 6] = ["kcore", "keys", "kmsg", "timer_list", "sched_debug", "acpi"];
/// Of what is in memory only: enough for small files, too little to hurt the host.
const SMALL: &CStr = c"size=4m,mode=755";
const TEMPORARY: &CStr = c"size=256m,mode=1777";

/// Puts it together and moves into it. The caller is in a mount namespace of its own.
pub(crate) fn own_files(plan: &Plan) -> Result<(), String> {
    // Nothing of what follows is seen outside.
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(|error| format!("cannot have mounts of its own: {error}"))?;
    let tree = Tree { top: &plan.root };
    memory(&plan.root, SMALL)?;
    for path in &plan.read {
        tree.show(path, false)?;
    }
    for path in &plan.hide {
        tree.hide(path)?;
    }
    for (name, size) in [("tmp", TEMPORARY), ("run", SMALL), ("dev", SMALL), ("dev/shm", TEMPORARY)] {
        let at = plan.root.join(name);
        fs::create_dir_all(&at).map_err(said("create", &at))?;
        match &plan.temporary {
            Some(own) if name == "tmp" => tree.lay(own, &at)?,
            _ => memory(&at, size)?,
        }
    }
    tree.devices()?;
    if plan.terminals {
        tree.terminals()?;
    }
    tree.proc(!plan.own_user)?;
    // Again: what is read may lie below what was hidden or covered.
    for path in &plan.read {
        tree.show(path, false)?;
    }
    for path in &plan.write {
        tree.show(path, true)?;
    }
    if let Some(hosts) = &plan.hosts {
        tree.hosts(hosts)?;
    }
    // Read-only from here on; what was mounted on it keeps its own rights.
    for name in ["run", "dev", ""] {
        set(&plan.root.join(name), MountFlags::RDONLY | MountFlags::NOSUID, false)?;
    }
    std::env::set_current_dir(&plan.root).map_err(said("enter", &plan.root))?;
    // Onto itself: the old root lies below the new one until it is let go.
    rustix::process::pivot_root(".", ".").map_err(|error| format!("cannot change its root: {error}"))?;
    unmount(".", UnmountFlags::DETACH).map_err(|error| format!("cannot let the host's files go: {error}"))?;
    std::env::set_current_dir("/").map_err(said("enter", Path::new("/")))
}

struct Tree<'a> {
    top: &'a Path,
}

impl Tree<'_> {
    fn inside(&self, path: &Path) -> PathBuf {
        self.top.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Shows a path of the host at its own place.
    fn show(&self, path: &Path, writable: bool) -> Result<(), String> {
        let at = self.inside(path);
        let Ok(meta) = path.symlink_metadata() else { return Ok(()) };
        if !writable && at.symlink_metadata().is_ok() {
            return Ok(()); // a part of what is shown already
        }
        if let Some(parent) = at.parent() {
            fs::create_dir_all(parent).map_err(said("create", parent))?;
        }
        if meta.is_symlink() {
            let target = fs::read_link(path).map_err(said("read", path))?;
            return std::os::unix::fs::symlink(target, &at).map_err(said("create", &at));
        }
        if meta.is_dir() {
            fs::create_dir_all(&at).map_err(said("create", &at))?;
        } else if !at.exists() {
            File::create(&at).map_err(said("create", &at))?;
        }
        self.bind(path, &at, writable)
    }

    fn bind(&self, from: &Path, at: &Path, writable: bool) -> Result<(), String> {
        mount_bind_recursive(from, at).map_err(|error| format!("cannot show {}: {error}", from.display()))?;
        let rights = if writable { MountFlags::empty() } else { MountFlags::RDONLY };
        let device = if from.starts_with("/dev") { MountFlags::NOEXEC } else { MountFlags::NODEV };
        set(at, rights | device | MountFlags::NOSUID, true)
    }

    /// Over what may be there already, which is not seen any more.
    fn lay(&self, from: &Path, at: &Path) -> Result<(), String> {
        mount_bind(from, at).map_err(|error| format!("cannot show {}: {error}", from.display()))?;
        set(at, MountFlags::NODEV | MountFlags::NOSUID, false)
    }

    fn hide(&self, path: &Path) -> Result<(), String> {
        let at = self.inside(path);
        match at.symlink_metadata() {
            Ok(meta) if meta.is_dir() => memory(&at, SMALL),
            Ok(meta) if meta.is_file() => {
                // A file that nobody may read, from the tree's own memory.
                let nothing = self.top.join(".nothing");
                if !nothing.exists() {
                    use std::os::unix::fs::OpenOptionsExt;
                    let made = File::options().write(true).create_new(true).mode(0o000).open(&nothing);
                    made.map_err(said("create", &nothing))?;
                }
                self.bind(&nothing, &at, false)
            }
            _ => Ok(()),
        }
    }

    fn devices(&self) -> Result<(), String> {
        for name in DEVICES {
            let from = Path::new("/dev").join(name);
            if from.exists() {
                self.show(&from, true)?;
            }
        }
        for (name, target) in [("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")] {
            let at = self.top.join("dev").join(name);
            std::os::unix::fs::symlink(format!("/proc/self/fd{target}"), &at).map_err(said("create", &at))?;
        }
        Ok(())
    }

    /// Terminals that are nobody else's.
    fn terminals(&self) -> Result<(), String> {
        let at = self.top.join("dev/pts");
        fs::create_dir_all(&at).map_err(said("create", &at))?;
        mount(
            "devpts",
            &at,
            "devpts",
            MountFlags::NOSUID | MountFlags::NOEXEC,
            c"newinstance,ptmxmode=0666,mode=620",
        )
        .map_err(|error| format!("cannot have terminals of its own: {error}"))?;
        let link = self.top.join("dev/ptmx");
        std::os::unix::fs::symlink("pts/ptmx", &link).map_err(said("create", &link))
    }

    /// Its own processes. `cover`: root without capabilities could still write to files that belong to root.
    fn proc(&self, cover: bool) -> Result<(), String> {
        let at = self.top.join("proc");
        fs::create_dir_all(&at).map_err(said("create", &at))?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount("proc", &at, "proc", flags, None)
            .map_err(|error| format!("cannot have a /proc of its own: {error}"))?;
        if !cover {
            return Ok(());
        }
        for path in KERNEL.map(|name| at.join(name)).into_iter().filter(|path| path.exists()) {
            self.bind(&path, &path, false)?;
        }
        for path in TELLING.map(|name| at.join(name)).into_iter().filter(|path| path.exists()) {
            if path.is_dir() {
                memory(&path, SMALL)?;
            } else {
                self.bind(&self.top.join("dev/null"), &path, false)?;
            }
        }
        Ok(())
    }

    fn hosts(&self, hosts: &Path) -> Result<(), String> {
        let at = self.inside(Path::new("/etc/hosts"));
        if at.exists() { self.bind(hosts, &at, false) } else { Ok(()) }
    }
}

/// An empty directory in memory.
fn memory(at: &Path, options: &CStr) -> Result<(), String> {
    mount("tmpfs", at, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, options)
        .map_err(|error| format!("cannot put memory on {}: {error}", at.display()))
}

/// Adds flags to a mount, and if asked to those below it. Flags that it has already stay: a user namespace may not take them away.
fn set(at: &Path, flags: MountFlags, below: bool) -> Result<(), String> {
    let table = fs::read_to_string("/proc/self/mountinfo")
        .map_err(said("read", Path::new("/proc/self/mountinfo")))?;
    for (path, has) in table.lines().filter_map(mounted) {
        if path == at || (below && path.starts_with(at)) {
            mount_remount(&path, MountFlags::BIND | flags | has, c"")
                .map_err(|error| format!("cannot limit {}: {error}", path.display()))?;
        }
    }
    Ok(())
}

/// Where a line of mountinfo says that something is mounted, and its flags.
fn mounted(line: &str) -> Option<(PathBuf, MountFlags)> {
    let mut fields = line.split(' ').skip(4);
    let (path, options) = (fields.next()?, fields.next()?);
    let mut flags = MountFlags::empty();
    for option in options.split(',') {
        flags |= match option {
            "ro" => MountFlags::RDONLY,
            "nosuid" => MountFlags::NOSUID,
            "nodev" => MountFlags::NODEV,
            "noexec" => MountFlags::NOEXEC,
            "noatime" => MountFlags::NOATIME,
            "nodiratime" => MountFlags::NODIRATIME,
            "relatime" => MountFlags::RELATIME,
            _ => MountFlags::empty(),
        };
    }
    Some((PathBuf::from(unescape(path)), flags))
}

/// Blanks and the like are written as three octal digits.
fn unescape(text: &str) -> OsString {
    let mut parts = text.split('\\');
    let mut out = parts.next().unwrap_or_default().as_bytes().to_owned();
    for part in parts {
        match part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                out.push(byte);
                out.extend_from_slice(&part.as_bytes()[3..]);
            }
            None => {
                out.push(b'\\');
                out.extend_from_slice(part.as_bytes());
            }
        }
    }
    OsString::from_vec(out)
}

fn said(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> String {
    let path = path.to_owned();
    move |error| format!("cannot {what} {}: {error}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_with_blanks_in_its_name_keeps_its_flags() {
        let line = "36 35 98:0 / /mnt/a\\040b ro,noexec,relatime shared:1 - ext4 /dev/root rw";
        let flags = MountFlags::RDONLY | MountFlags::NOEXEC | MountFlags::RELATIME;
        assert_eq!(mounted(line), Some((PathBuf::from("/mnt/a b"), flags)));
        assert_eq!(unescape("a\\x"), "a\\x");
    }
}
