//! What needs no namespace: capabilities dropped, limits of a single process, Landlock.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus, Scope, path_beneath_rules,
};
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::Plan;

/// What Landlock is asked for; an older kernel gives what it has.
const LANDLOCK: ABI = ABI::V6;

/// Limits of each process, where nothing counts all together.
pub(crate) fn limits(plan: &Plan) -> Result<(), String> {
    let set = |what, name: &str, most: u64| {
        setrlimit(what, Rlimit { current: Some(most), maximum: Some(most) })
            .map_err(|error| format!("cannot limit its {name}: {error}"))
    };
    // A core would hold every secret of the process.
    set(Resource::Core, "core files", 0)?;
    if let Some(memory) = plan.memory_each {
        set(Resource::Data, "memory", memory)?;
    }
    if let Some(processes) = plan.processes {
        set(Resource::Nproc, "processes", processes)?;
    }
    Ok(())
}

/// Gives up every capability, also for programs that it starts.
pub(crate) fn capabilities() -> Result<(), String> {
    let failed = |error: rustix::io::Errno| format!("cannot give up its capabilities: {error}");
    let held = rustix::thread::capabilities(None).map_err(failed)?;
    if held.effective.contains(CapabilitySet::SETPCAP) {
        for bit in 0..u64::BITS {
            match rustix::thread::remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(
                1 << bit,
            )) {
                // This kernel knows no more.
                Err(rustix::io::Errno::INVAL) => break,
                dropped => dropped.map_err(failed)?,
            }
        }
    }
    // Older kernels know no ambient set, and then there is none to clear.
    let _ = rustix::thread::clear_ambient_capability_set();
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    rustix::thread::set_capabilities(None, sets).map_err(failed)
}

/// A path that is named, or what of it is not hidden: Landlock takes nothing away from what it has given.
fn without(path: &Path, hide: &[PathBuf]) -> Vec<PathBuf> {
    if !hide.iter().any(|hide| hide != path && hide.starts_with(path)) {
        return vec![path.to_owned()];
    }
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|path| !hide.contains(path)).flat_map(|path| without(&path, hide)).collect()
}

/// Writing only where the plan allows it, reading only what the plan names; no signals and no abstract sockets to the outside.
pub(crate) fn files(plan: &Plan) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| format!("cannot limit its files: {error}");
    let read = AccessFs::from_read(LANDLOCK);
    let all = AccessFs::from_all(LANDLOCK);
    // Programs write to devices, and to what /proc tells of themselves (the names of their threads).
    let own = AccessFs::from_read(LANDLOCK) | AccessFs::WriteFile | AccessFs::IoctlDev;
    // Where there are namespaces, what is hidden is hidden by them.
    let hide: &[PathBuf] = if plan.namespaces { &[] } else { &plan.hide };
    let readable: Vec<PathBuf> = plan.read.iter().flat_map(|path| without(path, hide)).collect();
    let common: &[&str] = if plan.namespaces { &["/"] } else { &["/proc"] };
    let also: &[&str] = if plan.namespaces { &["/tmp", "/dev/shm"] } else { &["/dev/shm"] };
    let written: &[&str] = if plan.namespaces { &["/dev", "/proc"] } else { &["/dev"] };
    let rules = Ruleset::default()
        .handle_access(all)
        .and_then(|rules| rules.scope(Scope::from_all(LANDLOCK)))
        .and_then(Ruleset::create)
        .and_then(|rules| rules.add_rules(path_beneath_rules(common, read)))
        .and_then(|rules| rules.add_rules(path_beneath_rules(&readable, read)))
        .and_then(|rules| rules.add_rules(path_beneath_rules(written, own)))
        .and_then(|rules| rules.add_rules(path_beneath_rules(also, all)))
        .and_then(|rules| rules.add_rules(path_beneath_rules(&plan.write, all)))
        .map_err(|error| failed(&error))?;
    let status = rules.restrict_self().map_err(|error| failed(&error))?;
    match status.ruleset {
        RulesetStatus::NotEnforced => Err("the kernel has no Landlock, or it is not switched on".into()),
        RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_holds_something_hidden_all_the_rest_is_shown() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["a", "b/c", "b/d"] {
            std::fs::create_dir_all(at(name)).unwrap();
        }
        let mut shown = without(dir.path(), &[at("b/c")]);
        shown.sort();
        assert_eq!(shown, [at("a"), at("b/d")]);
        assert_eq!(without(dir.path(), &[dir.path().join("b/c/e")]).len(), 2);
        assert_eq!(without(&at("b/c"), &[at("b")]), [at("b/c")], "what is named is shown, wherever it lies");
    }
}
