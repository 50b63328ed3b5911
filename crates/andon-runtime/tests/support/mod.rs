//! A host of the runtime's own for tests: instances below a temporary directory, ended with it.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use andon_model::Span;
use andon_runtime::sandbox::Means;
use andon_runtime::{Observed, ProcessRuntime, RuntimeError, Spec};
use rustix::process::Pid;

pub const EXE: &str = env!("CARGO_BIN_EXE_andon-shim-test");

/// A host of its own; whatever it still runs ends with it.
pub struct Host {
    pub runtime: ProcessRuntime,
    pub dir: tempfile::TempDir,
}

impl Host {
    pub fn new() -> Host {
        let dir = tempfile::tempdir().unwrap();
        Host { runtime: runtime(dir.path()), dir }
    }

    /// One that permits all that this host does but namespaces, as in many containers.
    pub fn without_namespaces() -> Host {
        let dir = tempfile::tempdir().unwrap();
        let all = runtime(dir.path());
        let refused = Err("the test forbids it".to_owned());
        let means =
            Means { namespaces: Err("the test forbids it".into()), network: refused, ..all.means().clone() };
        Host { runtime: runtime(dir.path()).with(means), dir }
    }

    /// One that permits nothing.
    pub fn bare() -> Host {
        let dir = tempfile::tempdir().unwrap();
        Host { runtime: runtime(dir.path()).with(Means::none("the test forbids it")), dir }
    }

    pub fn path(&self, id: &str, name: &str) -> PathBuf {
        self.dir.path().canonicalize().unwrap().join("instances").join(id).join(name)
    }

    /// Prepares and starts a shell script as an instance.
    pub fn run(&self, id: &str, script: &str) -> Observed {
        self.start(&shell(id, script)).unwrap();
        self.see(id)
    }

    pub fn start(&self, spec: &Spec) -> Result<(), RuntimeError> {
        self.runtime.prepare(&spec.instance, &artifact()[..])?;
        self.runtime.start(spec)
    }

    pub fn see(&self, id: &str) -> Observed {
        self.runtime.list().unwrap().into_iter().find(|seen| seen.id == id).unwrap()
    }

    /// A number that the script wrote below its TMPDIR: of one of its processes, as the host counts.
    pub fn pid(&self, id: &str, name: &str) -> u32 {
        let path = self.path(id, &format!("tmp/{name}"));
        let mut pid = None;
        until("the script wrote its pid", || {
            pid = std::fs::read_to_string(&path)
                .ok()
                .filter(|text| text.ends_with('\n'))
                .and_then(|t| t.trim().parse().ok());
            pid.is_some()
        });
        let mark = format!("ANDON_INSTANCE={}\0", self.path(id, "").display()).replace("/\0", "\0");
        on_the_host(pid.unwrap(), &mark).expect("the process is there")
    }
}

/// The host's number of the process that has this number in its own namespace and this variable in its environment.
pub fn on_the_host(inner: u32, mark: &str) -> Option<u32> {
    let last = |status: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
        line.split_whitespace().last()?.parse::<u32>().ok()
    };
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let numbers = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut marked = numbers.filter(|pid| {
        let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        String::from_utf8_lossy(&environ).contains(mark)
    });
    marked.find(|pid| {
        std::fs::read_to_string(format!("/proc/{pid}/status")).ok().as_deref().and_then(last) == Some(inner)
    })
}

impl Drop for Host {
    fn drop(&mut self) {
        for seen in self.runtime.list().unwrap_or_default() {
            let _ = self.runtime.remove(&seen.id);
        }
    }
}

pub fn runtime(dir: &Path) -> ProcessRuntime {
    ProcessRuntime::new(dir.join("instances"), EXE.into()).unwrap()
}

pub fn shell(id: &str, script: &str) -> Spec {
    Spec { stop_within: Span(300), ..Spec::new(id, &["sh", "-c", script], 4321) }
}

pub fn artifact() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, body, mode) in [("app.txt", "hello\n", 0o644), ("bin/echo-env", "#!/bin/sh\nenv\n", 0o755)] {
        let mut header = tar::Header::new_ustar();
        header.set_size(body.len() as u64);
        header.set_mode(mode);
        tar.append_data(&mut header, name, body.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap()
}

/// Waits for something that happens by itself. Fails after 10 s.
pub fn until(what: &str, mut so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !so() {
        assert!(began.elapsed() < Duration::from_secs(10), "never: {what}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

pub fn exists(pid: u32) -> bool {
    // A zombie is only waiting for its parent.
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        !matches!(stat.rsplit(')').next().and_then(|rest| rest.trim().chars().next()), Some('Z' | 'X'))
    })
}

pub fn pid(number: u32) -> Pid {
    Pid::from_raw(i32::try_from(number).unwrap()).unwrap()
}
