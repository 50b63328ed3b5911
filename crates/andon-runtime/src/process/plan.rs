//! What an instance sees of its host, from its spec and from what the host permits. Sets nothing up.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use andon_model::Limits;
use serde::{Deserialize, Serialize};

use super::network::Cable;
use super::shim::{MARK, PATH};
use crate::sandbox::{Controller, KEPT, Means, Plan, tools};
use crate::spec::{self, Spec};

/// The file in an instance's directory that says how it is confined.
pub(super) const SETTING: &str = "sandbox.json";
/// Where an instance's file system is put together.
pub(super) const ROOT: &str = "root";
/// The names of its environment's services.
pub(super) const HOSTS: &str = "hosts";
/// What the server that started it found out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Setting {
    pub means: Means,
    /// What no instance sees: the server's data.
    pub hide: Vec<PathBuf>,
    /// Its place in its environment's network; none: the host's own network.
    #[serde(default)]
    pub cable: Option<Cable>,
}

/// What the first process inside is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Order {
    pub plan: Plan,
    pub arguments: Vec<String>,
    pub env: BTreeMap<String, String>,
    pub workdir: PathBuf,
    pub cable: Option<Cable>,
}

pub(super) fn order(dir: &Path, spec: &Spec, setting: &Setting) -> Result<Order, String> {
    let release = dir.join(spec::RELEASE);
    let workdir =
        below(&spec.workdir).ok_or(format!("its directory {:?} leads out of the release", spec.workdir))?;
    let arguments = spec.arguments();
    let program = arguments.first().ok_or("its command is empty")?;
    let path = std::env::var("PATH").unwrap_or_else(|_| PATH.into());
    let (home, tmp) = (dir.join("home"), dir.join("tmp"));
    let mut env = BTreeMap::from([
        ("PATH".to_owned(), path.clone()),
        ("HOME".to_owned(), home.to_string_lossy().into_owned()),
        ("TMPDIR".to_owned(), tmp.to_string_lossy().into_owned()),
        ("LANG".to_owned(), "C.UTF-8".to_owned()),
    ]);
    env.extend(spec.env.clone());
    env.insert("PORT".into(), spec.port.to_string());
    env.insert(MARK.into(), dir.to_string_lossy().into_owned());

    let means = &setting.means;
    let mut read = crate::sandbox::system();
    read.extend(tools(&path, &setting.hide));
    if Path::new(program).is_absolute() {
        read.push(program.into());
    }
    // Where names are looked up may lie outside of /etc.
    read.extend(Path::new("/etc/resolv.conf").canonicalize());
    read.push(release.clone());
    let mut write = vec![home, tmp];
    write.extend(writable(&release, &spec.writes)?);
    let groups = &means.groups;
    let Limits { memory, processes, .. } = spec.limits;
    Ok(Order {
        plan: Plan {
            namespaces: means.namespaces.is_ok(),
            own_user: means.namespaces == Ok(true),
            own_network: setting.cable.is_some(),
            hostname: spec.instance.chars().take(60).collect(),
            root: dir.join(ROOT),
            read,
            hide: KEPT.map(PathBuf::from).into_iter().chain(setting.hide.iter().cloned()).collect(),
            write,
            temporary: None,
            terminals: false,
            hosts: setting.cable.is_some().then(|| dir.join(HOSTS)),
            landlock: means.landlock.is_ok(),
            filter: means.filter.is_ok(),
            memory_each: memory.filter(|_| !groups.has(Controller::Memory)),
            processes: processes.filter(|_| !groups.has(Controller::Pids)).map(u64::from),
        },
        arguments,
        env,
        workdir: release.join(workdir),
        cable: setting.cable.clone(),
    })
}

/// A relative path that stays where it begins.
pub(super) fn below(path: &str) -> Option<&Path> {
    let path = Path::new(path);
    path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)).then_some(path)
}

/// The declared places, made where they are missing.
fn writable(release: &Path, writes: &[String]) -> Result<Vec<PathBuf>, String> {
    let mut all = Vec::new();
    for declared in writes {
        let failed =
            |error: std::io::Error| format!("its writable path {declared:?} cannot be made: {error}");
        let at = release
            .join(below(declared).ok_or(format!("its writable path {declared:?} leads out of the release"))?);
        if !at.exists() {
            std::fs::create_dir_all(&at).map_err(failed)?;
        }
        let found = at.canonicalize().map_err(failed)?;
        if !found.starts_with(release) || found == release {
            return Err(format!("its writable path {declared:?} is not below the release"));
        }
        all.push(found);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_written_stays_below_the_release() {
        let dir = tempfile::tempdir().unwrap();
        let release = dir.path().canonicalize().unwrap().join("release");
        std::fs::create_dir(&release).unwrap();
        std::os::unix::fs::symlink("/etc", release.join("out")).unwrap();
        assert_eq!(writable(&release, &["data/db".into()]).unwrap(), [release.join("data/db")]);
        for bad in ["..", "data/../..", "/etc", "out", "."] {
            assert!(writable(&release, &[bad.into()]).is_err(), "{bad}");
        }
    }
}
