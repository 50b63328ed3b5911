//! What differs in a container from what it was made as: its files, its settings, and processes that somebody else started in it.

use std::collections::BTreeSet;

use andon_model::Limits;
use bollard::models::{ChangeType, ContainerInspectResponse, FilesystemChange};
use bollard::query_parameters::{DownloadFromContainerOptionsBuilder, KillContainerOptions};
use futures_util::StreamExt as _;
use rustix::process::Signal;
use sha2::Digest as _;

use super::engine::or_absent;
use super::{DockerRuntime, archive, label, lock};
use crate::error::RuntimeError;
use crate::manifest::{Entry, Manifest};
use crate::spec;
use crate::{Difference, Foreign, Process};

/// Files whose content is looked at in one look; of more it is only said that they changed.
const READ_MOST: usize = 16;
/// The largest file whose content is looked at, in bytes.
const LARGEST: usize = 16 * 1024 * 1024;

impl DockerRuntime {
    pub(super) fn changed(&self, id: &str) -> Result<Vec<Difference>, RuntimeError> {
        let Some(found) = self.inspect(id)? else { return Err(RuntimeError::Unknown(id.to_owned())) };
        let name = self.name(id)?;
        let changes = self
            .engine
            .try_ask("compare files", |docker| async move { docker.container_changes(&name).await })?;
        let changes = or_absent(changes)?.flatten().unwrap_or_default();
        let mut all = Vec::new();
        let mut own = mounted(&found);
        if self.about()?.names_users {
            own.extend(["/etc/passwd", "/etc/group"].map(str::to_owned));
        }
        let files = relevant(changes, &own);
        if files.is_empty() {
            return Ok(all);
        }
        let image = found.config.and_then(|config| config.image).unwrap_or_default();
        let known: Option<Manifest> = spec::read(&self.manifest_path(&image))
            .map_err(RuntimeError::disk("read", self.manifest_path(&image)))?;
        let app = format!("{}/", archive::APP);
        for (number, change) in files.into_iter().enumerate() {
            let packed = change.path.strip_prefix(&app).and_then(|path| known.as_ref()?.get(path));
            let before = match (packed, change.kind) {
                (Some(entry), _) => entry.to_string(),
                (None, ChangeType::_1) => "absent".to_owned(),
                (None, _) => "as in its image".to_owned(),
            };
            let after = match change.kind {
                ChangeType::_2 => "absent".to_owned(),
                _ if number < READ_MOST => self.content(id, &change.path)?,
                _ => "changed".to_owned(),
            };
            // Touched, and as it was.
            if before != after {
                let path = change.path.strip_prefix(&app).map_or_else(|| change.path.clone(), str::to_owned);
                all.push(Difference { path, before, after });
            }
        }
        Ok(all)
    }

    /// The only network that it is to be in.
    pub(super) fn network_of(&self, found: &ContainerInspectResponse) -> Option<String> {
        let labels = found.config.as_ref()?.labels.as_ref()?;
        let environment = labels.get(label::ENVIRONMENT)?.parse().ok()?;
        Some(self.network(&environment))
    }

    /// What a file of a container holds now, in the words of a manifest.
    fn content(&self, id: &str, path: &str) -> Result<String, RuntimeError> {
        let name = self.name(id)?;
        let options = DownloadFromContainerOptionsBuilder::new().path(path).build();
        let read = self.engine.try_ask("read a file", |docker| async move {
            let mut parts = docker.download_from_container(&name, Some(options));
            let mut bytes = Vec::new();
            while let Some(part) = parts.next().await {
                bytes.extend_from_slice(&part?);
                if bytes.len() > LARGEST {
                    break;
                }
            }
            Ok(bytes)
        })?;
        let Some(bytes) = or_absent(read)? else { return Ok("absent".to_owned()) };
        Ok(entry(&bytes).map_or_else(|| "changed".to_owned(), |entry| entry.to_string()))
    }

    /// Processes that were started in our containers from outside.
    pub(super) fn strangers(&self) -> Result<Vec<Foreign>, RuntimeError> {
        let mut found = Vec::new();
        for container in self.inspected()? {
            let labels =
                container.config.as_ref().and_then(|config| config.labels.clone()).unwrap_or_default();
            let (Some(instance), Some(id)) = (labels.get(label::INSTANCE), container.id.clone()) else {
                continue;
            };
            for exec in container.exec_ids.into_iter().flatten() {
                if lock(&self.shells).contains(&exec) {
                    continue;
                }
                let asked = self
                    .engine
                    .try_ask("look at a process", |docker| async move { docker.inspect_exec(&exec).await })?;
                let Some(exec) = or_absent(asked)?.filter(|exec| exec.running == Some(true)) else {
                    continue;
                };
                let Some(pid) = exec.pid.and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0)
                else {
                    continue;
                };
                let config = exec.process_config.unwrap_or_default();
                let mut words = vec![config.entrypoint.unwrap_or_default()];
                words.extend(config.arguments.unwrap_or_default());
                found.push(Foreign {
                    process: self.process(pid, &id),
                    instance: instance.clone(),
                    command: words.join(" "),
                });
            }
        }
        Ok(found)
    }

    /// The process as this host knows it; where the engine's numbers mean nothing here, only its number.
    fn process(&self, pid: u32, container: &str) -> Process {
        let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        match Process::of(pid) {
            Ok(process) if groups.contains(container) => process,
            _ => {
                lock(&self.afar).insert(pid, container.to_owned());
                Process { pid, start: 0 }
            }
        }
    }

    /// Kills it; where only the engine could reach it, its whole container, which is then replaced.
    pub(super) fn end_stranger(&self, process: Process) -> Result<bool, RuntimeError> {
        if process.start != 0 {
            let path = format!("/proc/{}", process.pid);
            return process.signal(Signal::KILL).map_err(RuntimeError::disk("signal", path));
        }
        let Some(container) = lock(&self.afar).remove(&process.pid) else { return Ok(false) };
        let killed = self.engine.try_ask("kill a container", |docker| async move {
            docker.kill_container(&container, None::<KillContainerOptions>).await
        })?;
        match killed {
            Err(failure) if matches!(failure.status, Some(404 | 409)) => Ok(false),
            killed => Ok(killed.map(|()| true)?),
        }
    }
}

/// Settings that somebody changed on the living container.
pub(super) fn settings(found: &ContainerInspectResponse, network: &Option<String>) -> Vec<Difference> {
    let labels = found.config.as_ref().and_then(|config| config.labels.clone()).unwrap_or_default();
    let limits: Limits =
        labels.get(label::LIMITS).and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default();
    let host = found.host_config.clone().unwrap_or_default();
    let mut all = Vec::new();
    let mut compare = |what: &str, before: Option<u64>, after: Option<i64>| {
        let after = after.and_then(|after| u64::try_from(after).ok()).filter(|after| *after > 0);
        // What the engine cannot limit, it says with the isolation.
        if before != after && (after.is_some() || before.is_none()) {
            let say = |value: Option<u64>| value.map_or("none".to_owned(), |value| value.to_string());
            all.push(Difference { path: what.to_owned(), before: say(before), after: say(after) });
        }
    };
    compare("memory limit", limits.memory, host.memory);
    compare("processor limit", limits.cpu_millis.map(|millis| u64::from(millis) * 1_000_000), host.nano_cpus);
    if limits.processes.is_some() {
        // Podman sets one of its own where none is asked for.
        compare("process limit", limits.processes.map(u64::from), host.pids_limit);
    }
    let policy = host.restart_policy.and_then(|policy| policy.name).map(|name| name.to_string());
    if let Some(policy) = policy.filter(|policy| !policy.is_empty() && policy != "no") {
        all.push(Difference { path: "restart policy".into(), before: "no".into(), after: policy });
    }
    if found.state.as_ref().and_then(|state| state.paused) == Some(true) {
        all.push(Difference { path: "state".into(), before: "running".into(), after: "paused".into() });
    }
    if let Some(network) = network {
        let has = found.network_settings.clone().and_then(|settings| settings.networks).unwrap_or_default();
        let has: BTreeSet<String> = has.into_keys().collect();
        if has != BTreeSet::from([network.clone()]) {
            let after = if has.is_empty() { "none".into() } else { Vec::from_iter(has).join(", ") };
            all.push(Difference { path: "networks".into(), before: network.clone(), after });
        }
    }
    all
}

/// Paths that are no part of the image: they may change.
fn mounted(found: &ContainerInspectResponse) -> BTreeSet<String> {
    let mounts = found.mounts.iter().flatten().filter_map(|mount| mount.destination.clone());
    let temporary = found.host_config.as_ref().and_then(|host| host.tmpfs.clone()).unwrap_or_default();
    mounts.chain(temporary.into_keys()).collect()
}

/// Changes that somebody made. What the engine itself puts into a container is none: the points of its mounts and its first process.
fn relevant(changes: Vec<FilesystemChange>, mounts: &BTreeSet<String>) -> Vec<FilesystemChange> {
    const ENGINE: [&str; 6] = [
        "/sbin/docker-init",
        "/dev/init",
        "/etc/hosts",
        "/etc/hostname",
        "/etc/resolv.conf",
        "/run/podman-init",
    ];
    let below = |path: &str, top: &str| {
        path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let engines = |path: &str| {
        ENGINE.iter().any(|own| below(path, own) || below(own, path))
            || mounts.iter().any(|mount| below(path, mount) || below(mount, path))
    };
    let mut left: Vec<FilesystemChange> =
        changes.into_iter().filter(|change| !engines(&change.path)).collect();
    // A folder is named as changed because something in it is.
    let paths: Vec<String> = left.iter().map(|change| change.path.clone()).collect();
    left.retain(|change| {
        let inner = |path: &String| path != &change.path && below(path, &change.path);
        change.kind != ChangeType::_0 || !paths.iter().any(inner)
    });
    left.sort_by(|a, b| a.path.cmp(&b.path));
    left
}

/// The first entry of an archive as a manifest describes it.
fn entry(bytes: &[u8]) -> Option<Entry> {
    let mut archive = tar::Archive::new(bytes);
    let mut first = archive.entries().ok()?.next()?.ok()?;
    let header = first.header().clone();
    match header.entry_type() {
        tar::EntryType::Regular => {
            let mut sum = sha2::Sha256::new();
            let mut content = Vec::new();
            std::io::Read::read_to_end(&mut first, &mut content).ok()?;
            // Cut off: too large to be looked at.
            if content.len() as u64 != header.size().ok()? {
                return None;
            }
            sum.update(&content);
            let executable = header.mode().ok()? & 0o111 != 0;
            Some(Entry::File { sha256: hex::encode(sum.finalize()), executable })
        }
        tar::EntryType::Symlink => Some(Entry::Link(first.link_name().ok()??.display().to_string())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(path: &str, kind: ChangeType) -> FilesystemChange {
        FilesystemChange { path: path.into(), kind }
    }

    #[test]
    fn what_the_engine_itself_puts_there_is_no_drift_and_what_people_put_there_is() {
        let mounts = BTreeSet::from(["/tmp".to_owned(), "/app/data".to_owned()]);
        let made = ["/tmp", "/app/data", "/sbin/docker-init", "/app/data/rows.db"];
        let mut changes: Vec<_> = made.iter().map(|path| change(path, ChangeType::_1)).collect();
        changes.extend([change("/sbin", ChangeType::_0), change("/app", ChangeType::_0)]);
        assert!(relevant(changes.clone(), &mounts).is_empty());
        changes.extend([
            change("/app/lib", ChangeType::_0),
            change("/app/lib/app.py", ChangeType::_0),
            change("/app/database", ChangeType::_1),
            change("/sbin/su", ChangeType::_2),
        ]);
        let left: Vec<_> = relevant(changes, &mounts).into_iter().map(|change| change.path).collect();
        assert_eq!(left, ["/app/database", "/app/lib/app.py", "/sbin/su"]);
    }
}
