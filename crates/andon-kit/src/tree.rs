//! Ending a process with everything it started, also what changed its session or lost its parent. Starts nothing.
//!
//! The caller becomes *subreaper* (Linux `PR_SET_CHILD_SUBREAPER`): orphans of its descendants become its own children instead of
//! init's, so the tree below it is complete, and empty means empty. Listing and killing is repeated until nobody is left, because a
//! process may fork between the two.

use std::fs;

use rustix::process::{Pid, Signal, WaitOptions};

/// Orphans below this process come to it from now on.
pub fn become_subreaper() -> std::io::Result<()> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).map_err(Into::into)
}

/// Process ids of everything below `root`, nearest first.
pub fn descendants(root: Pid) -> Vec<Pid> {
    let mut parents: Vec<(i32, i32)> = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        // The name in parentheses may hold anything; what follows the last one is plain.
        let Some((_, rest)) = stat.rsplit_once(')') else { continue };
        if let Some(parent) = rest.split_whitespace().nth(1).and_then(|word| word.parse().ok()) {
            parents.push((pid, parent));
        }
    }
    let mut found = vec![root.as_raw_nonzero().get()];
    let mut next = 0;
    while next < found.len() {
        let parent = found[next];
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    found.into_iter().skip(1).filter_map(Pid::from_raw).collect()
}

/// Kills everything below this process and reaps it. Returns how many there were. Only for a process that has nothing else to wait for.
pub fn kill_all() -> usize {
    let me = rustix::process::getpid();
    let mut killed = 0;
    loop {
        let left = descendants(me);
        for pid in &left {
            // It may have ended by itself in between.
            let _ = rustix::process::kill_process(*pid, Signal::KILL);
        }
        killed += left.len();
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(_) => while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {},
            Err(_) if descendants(me).is_empty() => return killed,
            Err(_) => {}
        }
    }
}
