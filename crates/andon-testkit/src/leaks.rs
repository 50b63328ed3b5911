//! What a test leaves behind on the host: processes, their namespaces, control groups, mounts, networks, ports, files. Looks only at
//! what carries the test's own directory or names, since other tests run at the same time. Removes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Kinds of namespaces, as `/proc/PID/ns` names them.
const NAMESPACES: [&str; 7] = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"];
/// What listens, in the fourth column of `/proc/net/tcp`.
const LISTENS: &str = "0A";

/// What belongs to one test.
#[derive(Debug, Clone, Default)]
pub struct Traces {
    dirs: Vec<PathBuf>,
    names: Vec<String>,
    ports: BTreeSet<u16>,
    /// With the time, in ticks since the host's start, at which each was seen last: its number may be given to another one later.
    namespaces: BTreeMap<String, u64>,
}

impl Traces {
    /// Of what has to do with this directory: processes that run in it, were told of it or carry it in their environment, mounts on
    /// it and files in it.
    pub fn of(dir: &Path) -> Traces {
        let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
        Traces { dirs: vec![dir], ..Traces::default() }
    }

    /// And what is called so, or begins so: control groups, network namespaces, network devices.
    #[must_use]
    pub fn named(mut self, name: &str) -> Traces {
        self.names.push(name.to_owned());
        self
    }

    /// And what listens here.
    #[must_use]
    pub fn port(mut self, port: u16) -> Traces {
        self.ports.insert(port);
        self
    }

    /// Takes down the namespaces of the processes that there are now: they have to be gone as well, whoever is in them then.
    pub fn note(&mut self) {
        let own: BTreeSet<String> = spaces(std::process::id()).collect();
        let now = ticks();
        for pid in self.processes().into_keys() {
            for space in spaces(pid).filter(|space| !own.contains(space)) {
                self.namespaces.insert(space, now);
            }
        }
    }

    /// How many namespaces were taken down: a test that counts on them asks whether there were any.
    pub fn noted(&self) -> usize {
        self.namespaces.len()
    }

    /// What is there, a line each; empty: nothing is left.
    pub fn left(&self) -> Vec<String> {
        let mut left: Vec<String> =
            self.processes().into_iter().map(|(pid, command)| format!("process {pid}: {command}")).collect();
        left.extend(self.spaces_left());
        left.extend(self.groups());
        left.extend(self.mounts());
        left.extend(self.networks());
        left.extend(self.listening());
        left
    }

    /// Files and directories below the test's directory, by their paths from it, as deep as this.
    pub fn files(&self, depth: usize) -> Vec<String> {
        let mut found = Vec::new();
        for dir in &self.dirs {
            let mut level = vec![dir.clone()];
            for _ in 0..depth {
                let entries: Vec<PathBuf> = level.iter().flat_map(|dir| entries(dir)).collect();
                let inner = entries.iter().map(|path| path.strip_prefix(dir).unwrap_or(path));
                found.extend(inner.map(|path| path.display().to_string()));
                level = entries;
            }
        }
        found
    }

    fn processes(&self) -> BTreeMap<u32, String> {
        let own = std::process::id();
        numbers()
            .filter(|pid| *pid != own)
            .filter_map(|pid| {
                let at = PathBuf::from(format!("/proc/{pid}"));
                let text = |name: &str| {
                    String::from_utf8_lossy(&fs::read(at.join(name)).unwrap_or_default()).replace('\0', " ")
                };
                let cwd = fs::read_link(at.join("cwd")).unwrap_or_default();
                let command = text("cmdline");
                let environment = text("environ");
                let mut dirs = self.dirs.iter();
                let ours = dirs.any(|dir| {
                    let named = dir.to_string_lossy();
                    cwd.starts_with(dir)
                        || command.contains(&*named)
                        || environment.contains(&format!("ANDON_INSTANCE={named}"))
                });
                // One that ended and only waits for its parent has no command and no environment.
                ours.then_some((pid, command.trim().to_owned()))
            })
            .collect()
    }

    fn spaces_left(&self) -> Vec<String> {
        if self.namespaces.is_empty() {
            return Vec::new();
        }
        let mut left = BTreeMap::new();
        for pid in numbers() {
            let began = began(pid).unwrap_or(u64::MAX);
            let ours = |space: &String| self.namespaces.get(space).is_some_and(|seen| began <= *seen);
            for space in spaces(pid).filter(ours) {
                left.entry(space).or_insert(pid);
            }
        }
        left.into_iter().map(|(space, pid)| format!("namespace {space}, with process {pid} in it")).collect()
    }

    fn groups(&self) -> Vec<String> {
        let mounts = mounted();
        let hierarchies = mounts.iter().filter(|(_, kind)| kind.starts_with("cgroup"));
        let mut left = Vec::new();
        for (top, _) in hierarchies {
            let mut level = vec![top.clone()];
            // The server's own group may lie some levels down.
            for _ in 0..4 {
                let inner: Vec<PathBuf> =
                    level.iter().flat_map(|dir| entries(dir)).filter(|path| path.is_dir()).collect();
                let ours = inner.iter().filter(|path| self.is_named(path));
                left.extend(ours.map(|path| format!("control group {}", path.display())));
                level = inner;
            }
        }
        left
    }

    fn mounts(&self) -> Vec<String> {
        let below = |path: &PathBuf| self.dirs.iter().any(|dir| path.starts_with(dir)) || self.is_named(path);
        mounted()
            .into_iter()
            .filter(|(path, _)| below(path))
            .map(|(path, _)| format!("mount {}", path.display()))
            .collect()
    }

    fn networks(&self) -> Vec<String> {
        let spaces = entries(Path::new("/run/netns")).into_iter().map(|path| ("network namespace", path));
        let devices = entries(Path::new("/sys/class/net")).into_iter().map(|path| ("network device", path));
        let ours = spaces.chain(devices).filter(|(_, path)| self.is_named(path));
        ours.map(|(what, path)| format!("{what} {}", path.display())).collect()
    }

    fn listening(&self) -> Vec<String> {
        let tables =
            ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| fs::read_to_string(path).unwrap_or_default());
        let ports: BTreeSet<u16> = tables
            .iter()
            .flat_map(|table| table.lines().skip(1))
            .filter_map(|line| {
                let fields: Vec<&str> = line.split_whitespace().collect();
                let port = fields.get(1)?.rsplit_once(':')?.1;
                (*fields.get(3)? == LISTENS).then(|| u16::from_str_radix(port, 16).ok()).flatten()
            })
            .collect();
        self.ports.intersection(&ports).map(|port| format!("port {port} is listened on")).collect()
    }

    fn is_named(&self, path: &Path) -> bool {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        self.names.iter().any(|ours| name.starts_with(ours))
    }
}

fn numbers() -> impl Iterator<Item = u32> {
    entries(Path::new("/proc")).into_iter().filter_map(|path| path.file_name()?.to_str()?.parse().ok())
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// Since the host's start, of which Linux counts 100 a second wherever it tells of them.
fn ticks() -> u64 {
    let text = fs::read_to_string("/proc/uptime").unwrap_or_default();
    let seconds: f64 = text.split(' ').next().and_then(|text| text.parse().ok()).unwrap_or_default();
    (seconds * 100.0) as u64
}

/// When a process began, in ticks.
fn began(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
}

fn spaces(pid: u32) -> impl Iterator<Item = String> {
    let links =
        NAMESPACES.into_iter().filter_map(move |kind| fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok());
    links.map(|link| link.to_string_lossy().into_owned())
}

/// Where something is mounted, and of what kind.
fn mounted() -> Vec<(PathBuf, String)> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let line = |line: &str| {
        let path = line.split(' ').nth(4)?;
        let kind = line.split_once(" - ")?.1.split(' ').next()?;
        Some((PathBuf::from(path), kind.to_owned()))
    };
    table.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_in_the_directory_and_what_it_listens_on_are_named_until_they_are_gone() {
        let dir = tempfile::tempdir().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut traces = Traces::of(dir.path()).port(listener.local_addr().unwrap().port());
        let mut child =
            std::process::Command::new("sleep").arg("1000").current_dir(dir.path()).spawn().unwrap();
        traces.note();
        let left = traces.left();
        assert!(left.iter().any(|line| line.starts_with(&format!("process {}", child.id()))), "{left:?}");
        assert!(left.iter().any(|line| line.starts_with("port ")), "{left:?}");
        child.kill().unwrap();
        child.wait().unwrap();
        drop(listener);
        assert_eq!(traces.left(), Vec::<String>::new());
        assert_eq!(traces.noted(), 0, "it lived in our own namespaces");
        fs::create_dir(dir.path().join("a")).unwrap();
        fs::write(dir.path().join("a/b"), "").unwrap();
        assert_eq!(traces.files(2), ["a", "a/b"]);
    }
}
