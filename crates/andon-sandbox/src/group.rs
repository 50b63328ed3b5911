//! Control groups: limits over all processes of one group together, their number, whether memory ran out, and an end for all at
//! once. Version 2 where its controllers are, else version 1; version 2 without controllers still ends a group.
//! After the kernel's documents `admin-guide/cgroup-v2.rst` and `admin-guide/cgroup-v1/`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

/// Microseconds over which processor time is shared out.
const PERIOD: u64 = 100_000;

/// What all processes of a group may use together. What is not said is not limited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Thousandths of a processor.
    pub cpu_millis: Option<u32>,
    /// Processes and threads.
    pub processes: Option<u32>,
}

/// What can be limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Controller {
    /// Bytes.
    Memory,
    /// Share of processors.
    Cpu,
    /// Processes and threads.
    Pids,
}

impl Controller {
    const ALL: [Controller; 3] = [Controller::Memory, Controller::Cpu, Controller::Pids];

    fn name(self) -> &'static str {
        match self {
            Controller::Memory => "memory",
            Controller::Cpu => "cpu",
            Controller::Pids => "pids",
        }
    }
}

/// The groups' parents on this host, one for each hierarchy that is used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Groups {
    /// Version 2, with or without controllers.
    unified: Option<PathBuf>,
    /// Which of them version 2 has.
    controllers: BTreeSet<Controller>,
    /// Version 1, for those that version 2 has not.
    old: BTreeMap<Controller, PathBuf>,
    /// What could not be had, and why.
    pub lacks: BTreeMap<Controller, String>,
}

/// One group. Its directories are all there is to it: whoever knows them can end it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    dirs: Vec<PathBuf>,
}

impl Groups {
    /// Tries what this host permits. The parents are called `name`; they are made when they are needed and go when they are empty.
    pub fn find(name: &str) -> Groups {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let mut groups = Groups::default();
        for base in unified(&mounts, &own) {
            let parent = base.join(name);
            if made(&parent).is_ok() {
                groups.controllers = enabled(&base, &parent);
                drop_empty(&parent);
                groups.unified = Some(parent);
                break;
            }
        }
        for controller in Controller::ALL {
            if groups.controllers.contains(&controller) {
                continue;
            }
            match old(&mounts, &own, controller.name()) {
                None => {
                    groups.lacks.insert(controller, "the host has no control group for it".into());
                }
                Some(base) => {
                    let parent = base.join(name);
                    match made(&parent) {
                        Ok(()) => {
                            drop_empty(&parent);
                            groups.old.insert(controller, parent);
                        }
                        Err(error) => {
                            groups.lacks.insert(
                                controller,
                                format!("no group may be made in {}: {error}", base.display()),
                            );
                        }
                    }
                }
            }
        }
        groups
    }

    /// Whether this can be limited.
    pub fn has(&self, controller: Controller) -> bool {
        self.controllers.contains(&controller) || self.old.contains_key(&controller)
    }

    /// The group of this name, made or not.
    pub fn of(&self, name: &str) -> Group {
        let parents: BTreeSet<_> = self.unified.iter().chain(self.old.values()).collect();
        Group { dirs: parents.into_iter().map(|parent| parent.join(name)).collect() }
    }

    /// Every group that is there.
    pub fn names(&self) -> BTreeSet<String> {
        let parents = self.unified.iter().chain(self.old.values());
        let inner = parents.flat_map(|parent| fs::read_dir(parent).into_iter().flatten().flatten());
        let dirs = inner.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        dirs.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    /// Makes a group with these limits in every hierarchy; one that is there is taken over.
    pub fn make(&self, name: &str, limits: &Bounds) -> Result<Group, String> {
        let parents = self.unified.iter().chain(self.old.values());
        self.make_in(parents.collect(), name, limits)
    }

    /// Makes a group only where these limits need one, and where it can be ended at once: entering a hierarchy takes time.
    pub fn make_least(&self, name: &str, limits: &Bounds) -> Result<Group, String> {
        self.make_in(self.needed(limits), name, limits)
    }

    /// The group that [`Groups::make_least`] makes, made or not.
    pub fn least(&self, name: &str, limits: &Bounds) -> Group {
        Group { dirs: self.needed(limits).into_iter().map(|parent| parent.join(name)).collect() }
    }

    fn needed(&self, limits: &Bounds) -> BTreeSet<&PathBuf> {
        let old = |controller, limited| self.old.get(&controller).filter(|_| limited);
        let Bounds { memory, cpu_millis, processes } = limits;
        let of_old = [
            old(Controller::Memory, memory.is_some()),
            old(Controller::Cpu, cpu_millis.is_some()),
            old(Controller::Pids, processes.is_some()),
        ];
        self.unified.iter().chain(of_old.into_iter().flatten()).collect()
    }

    fn make_in(&self, parents: BTreeSet<&PathBuf>, name: &str, limits: &Bounds) -> Result<Group, String> {
        let mut group = Group::default();
        for parent in parents {
            let dir = parent.join(name);
            group.dirs.push(dir.clone());
            let create = || {
                made(parent)?;
                if self.unified.as_ref() == Some(parent) {
                    // Again: the parent goes when it is empty.
                    if let Some(base) = parent.parent() {
                        enabled(base, parent);
                    }
                }
                made(&dir)
            };
            // Another group's end may just have taken the parent away.
            let tried = create().or_else(|_| create());
            tried.map_err(|error| format!("cannot make the group {}: {error}", dir.display()))?;
        }
        self.limit(name, limits).inspect_err(|_| {
            let _ = group.remove();
        })?;
        Ok(group)
    }

    fn limit(&self, name: &str, limits: &Bounds) -> Result<(), String> {
        let quota = limits.cpu_millis.map(|millis| u64::from(millis) * PERIOD / 1000);
        let unified = |file: &str| self.unified.as_ref().map(|parent| parent.join(name).join(file));
        let old =
            |controller, file: &str| self.old.get(&controller).map(|parent| parent.join(name).join(file));
        let mut wanted: Vec<(Option<PathBuf>, String, bool)> = Vec::new();
        if let Some(memory) = limits.memory {
            match self.controllers.contains(&Controller::Memory) {
                true => wanted.extend([
                    (unified("memory.max"), memory.to_string(), true),
                    (unified("memory.swap.max"), "0".into(), false),
                    (unified("memory.oom.group"), "1".into(), false),
                ]),
                false => wanted.extend([
                    (old(Controller::Memory, "memory.limit_in_bytes"), memory.to_string(), true),
                    (old(Controller::Memory, "memory.memsw.limit_in_bytes"), memory.to_string(), false),
                ]),
            }
        }
        if let Some(quota) = quota {
            match self.controllers.contains(&Controller::Cpu) {
                true => wanted.push((unified("cpu.max"), format!("{quota} {PERIOD}"), true)),
                false => wanted.extend([
                    (old(Controller::Cpu, "cpu.cfs_period_us"), PERIOD.to_string(), false),
                    (old(Controller::Cpu, "cpu.cfs_quota_us"), quota.to_string(), true),
                ]),
            }
        }
        if let Some(processes) = limits.processes {
            let most = processes.to_string();
            match self.controllers.contains(&Controller::Pids) {
                true => wanted.push((unified("pids.max"), most, true)),
                false => wanted.push((old(Controller::Pids, "pids.max"), most, true)),
            }
        }
        for (file, text, needed) in wanted {
            let Some(file) = file else { continue };
            match fs::write(&file, text) {
                Err(error) if needed => return Err(format!("cannot set {}: {error}", file.display())),
                _ => {}
            }
        }
        Ok(())
    }
}

impl Group {
    /// Puts a process in, and with it whatever it starts from now on.
    pub fn add(&self, pid: u32) -> Result<(), String> {
        for dir in &self.dirs {
            fs::write(dir.join("cgroup.procs"), pid.to_string())
                .map_err(|error| format!("cannot put it into the group {}: {error}", dir.display()))?;
        }
        Ok(())
    }

    /// Who is in it.
    pub fn members(&self) -> BTreeSet<u32> {
        let lists = self.dirs.iter().filter_map(|dir| fs::read_to_string(dir.join("cgroup.procs")).ok());
        lists.flat_map(|list| list.lines().filter_map(|line| line.parse().ok()).collect::<Vec<_>>()).collect()
    }

    /// Kills who is in it. To be repeated until [`Group::members`] is empty: without `cgroup.kill` somebody may be born meanwhile.
    pub fn kill(&self) {
        for dir in &self.dirs {
            // Only version 2 has it.
            let _ = fs::write(dir.join("cgroup.kill"), "1");
        }
        let own = std::process::id();
        for pid in self.members().into_iter().filter(|pid| *pid != own) {
            if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                // Gone already is as good.
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }

    /// How often the kernel killed somebody in it because its memory was used up.
    pub fn out_of_memory(&self) -> u64 {
        let count = |file: &Path| {
            let text = fs::read_to_string(file).ok()?;
            text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse::<u64>().ok())
        };
        let files =
            self.dirs.iter().flat_map(|dir| [dir.join("memory.events"), dir.join("memory.oom_control")]);
        files.filter_map(|file| count(&file)).sum()
    }

    /// Removes it, and its parent with the last one. Fails while somebody is in it.
    pub fn remove(&self) -> io::Result<()> {
        for dir in &self.dirs {
            match fs::remove_dir(dir) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            if let Some(parent) = dir.parent() {
                drop_empty(parent);
            }
        }
        Ok(())
    }
}

fn made(dir: &Path) -> io::Result<()> {
    match fs::create_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

fn drop_empty(dir: &Path) {
    // Fails while it is used, which is what is wanted.
    let _ = fs::remove_dir(dir);
}

/// Lets groups below `parent` have what `base` can give, and says what that is.
fn enabled(base: &Path, parent: &Path) -> BTreeSet<Controller> {
    for dir in [base, parent] {
        for controller in Controller::ALL {
            // One at a time: one that is missing would make the others fail as well.
            let _ = fs::write(dir.join("cgroup.subtree_control"), format!("+{}", controller.name()));
        }
    }
    let given = fs::read_to_string(parent.join("cgroup.subtree_control")).unwrap_or_default();
    let given: BTreeSet<&str> = given.split_whitespace().collect();
    Controller::ALL.into_iter().filter(|controller| given.contains(controller.name())).collect()
}

/// Where groups of version 2 may be made: in our own, or at the top, where processes and groups may lie together.
fn unified(mounts: &str, own: &str) -> Vec<PathBuf> {
    let Some((top, root)) = mounts.lines().find_map(|line| hierarchy(line, |kind, _| kind == "cgroup2"))
    else {
        return Vec::new();
    };
    let own = own.lines().find_map(|line| line.strip_prefix("0::"));
    let own = own.and_then(|path| within(&top, &root, path));
    let mut bases: Vec<PathBuf> = own.into_iter().chain([top.clone()]).collect();
    // A group with processes in it can give its children no controllers; if that is ours, the top is better.
    bases.sort_by_key(|base| {
        *base != top && fs::read_to_string(base.join("cgroup.procs")).is_ok_and(|list| !list.is_empty())
    });
    bases.dedup();
    bases
}

fn old(mounts: &str, own: &str, controller: &str) -> Option<PathBuf> {
    let has =
        |kind: &str, options: &str| kind == "cgroup" && options.split(',').any(|option| option == controller);
    let (top, root) = mounts.lines().find_map(|line| hierarchy(line, has))?;
    let own = own.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (names, path) = rest.split_once(':')?;
        names.split(',').any(|name| name == controller).then_some(path)
    });
    Some(own.and_then(|path| within(&top, &root, path)).unwrap_or(top))
}

/// Mount point and root of a hierarchy's line in mountinfo.
fn hierarchy(line: &str, wanted: impl Fn(&str, &str) -> bool) -> Option<(PathBuf, String)> {
    let (before, after) = line.split_once(" - ")?;
    let mut before = before.split(' ').skip(3);
    let (root, top) = (before.next()?, before.next()?);
    let mut after = after.split(' ');
    let (kind, options) = (after.next()?, after.nth(1)?);
    wanted(kind, options).then(|| (PathBuf::from(top), root.to_owned()))
}

/// Our own group, if it can be seen: in a container only a part of the hierarchy is mounted.
fn within(top: &Path, root: &str, path: &str) -> Option<PathBuf> {
    let inner = if root == "/" { path } else { path.strip_prefix(root)? };
    let dir = top.join(inner.trim_start_matches('/'));
    dir.is_dir().then_some(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hierarchy_is_known_by_its_controllers_and_not_by_where_it_lies() {
        let line = "40 32 0:35 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct";
        let has = |name: &'static str| {
            move |_: &str, options: &str| options.split(',').any(|option| option == name)
        };
        assert_eq!(hierarchy(line, has("cpu")), Some((PathBuf::from("/sys/fs/cgroup/cpu"), "/".into())));
        assert_eq!(hierarchy(line, has("memory")), None);
    }

    #[test]
    fn a_group_of_another_container_is_not_ours() {
        assert_eq!(within(Path::new("/sys"), "/docker/a", "/docker/b"), None);
        assert_eq!(within(Path::new("/sys"), "/docker/a", "/docker/a"), Some(PathBuf::from("/sys/")));
    }
}
