//! One container per instance: made from its spec, started, stopped, removed, found again by its labels.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::sync::atomic::Ordering;

use andon_model::{EnvironmentName, Limits, Span, Time};
use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, ContainerStateStatusEnum, ContainerSummary,
    EndpointIpamConfig, EndpointSettings, HostConfig, HostConfigLogConfig, ImageInspect, NetworkingConfig,
    RestartPolicy, RestartPolicyNameEnum,
};
use bollard::query_parameters::{
    ContainerArchiveInfoOptionsBuilder, CreateContainerOptionsBuilder, ListContainersOptionsBuilder,
    LogsOptionsBuilder, RemoveContainerOptionsBuilder, StopContainerOptionsBuilder,
};
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use sha2::Digest as _;

use super::engine::{About, Failure, or_absent, settled};
use super::{DockerRuntime, archive, label};
use crate::Observed;
use crate::error::RuntimeError;
use crate::spec::{Exit, Spec};

/// Room for temporary files of one instance, in bytes: they lie in memory.
const TEMPORARY: u64 = 256 * 1024 * 1024;
/// The most of a log that is read for its tail, in bytes.
const TAIL_MOST: usize = 4 * 1024 * 1024;

impl DockerRuntime {
    /// A container's name: what is begun twice is found and not made twice.
    pub(super) fn name(&self, id: &str) -> Result<String, RuntimeError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if id.is_empty() || id.len() > 100 || id.starts_with('.') || !id.bytes().all(plain) {
            return Err(RuntimeError::BadId(id.to_owned()));
        }
        Ok(format!("andon-{}-{}-{id}", self.server, self.project))
    }

    pub(super) fn inspect(&self, id: &str) -> Result<Option<ContainerInspectResponse>, RuntimeError> {
        let name = self.name(id)?;
        let found = self.engine.try_ask("look at a container", |docker| async move {
            settled(|| docker.inspect_container(&name, None)).await
        })?;
        Ok(or_absent(found)?)
    }

    pub(super) fn start_container(&self, spec: &Spec) -> Result<(), RuntimeError> {
        let id = &spec.instance;
        let base = self.base(spec)?;
        let image = self.image_name(spec, base.as_ref());
        let Some(image) = self.inspect_image(&image)?.map(|found| (image, found)) else {
            return Err(RuntimeError::NotPrepared(id.clone()));
        };
        let network = match &spec.environment {
            Some(environment) => Some(self.link_for(environment, spec.address)?),
            None => None,
        };
        let about = self.about()?;
        loop {
            let init = !self.without_init.load(Ordering::Relaxed);
            let body = self.body(spec, &image, network.clone(), &about, init);
            match self.run(spec, body)? {
                Ok(()) => return Ok(()),
                // A first process is common and not everywhere installed beside the engine.
                Err(failure) if init && failure.why.contains("init") => {
                    self.remove_container(id)?;
                    self.without_init.store(true, Ordering::Relaxed);
                }
                Err(failure) => return Err(RuntimeError::NotStarted { id: id.clone(), why: failure.why }),
            }
        }
    }

    /// Makes the container, unless it is there, and starts it, unless it runs. The inner error: what the engine says against it.
    fn run(&self, spec: &Spec, body: ContainerCreateBody) -> Result<Result<(), Failure>, RuntimeError> {
        let (id, name) = (&spec.instance, self.name(&spec.instance)?);
        let wanted = body.labels.as_ref().and_then(|labels| labels.get(label::CONFIG)).cloned();
        if let Some(found) = self.inspect(id)? {
            let config = found.config.and_then(|config| config.labels?.remove(label::CONFIG));
            if found.state.and_then(|state| state.running).unwrap_or(false) {
                return Ok(Ok(()));
            }
            // Made for another shape of the service, or by somebody else: nothing of it is used.
            if config != wanted {
                self.remove_container(id)?;
            }
        }
        let program = body.cmd.as_ref().and_then(|words| words.first()).cloned();
        let own = body.working_dir.clone();
        let (making, options) = (name.clone(), CreateContainerOptionsBuilder::new().name(&name).build());
        let made = self.engine.try_ask("make a container", |docker| async move {
            docker.create_container(Some(options), body).await
        })?;
        match made {
            // It was made before this server was killed.
            Err(failure) if failure.status == Some(409) => {}
            Err(failure) => return Ok(Err(failure)),
            Ok(_) => {}
        }
        // The first process would be what starts, and it would fail later, in its own words.
        if let (Some(program), Some(workdir)) = (program, own)
            && program.contains('/')
            && !self.executable(&making, &format!("{workdir}/{program}"), &program)?
        {
            let why = format!("{program} is not there, or may not be executed");
            return Err(RuntimeError::NotStarted { id: id.clone(), why });
        }
        let started = self.engine.try_ask("start a container", |docker| async move {
            docker.start_container(&name, None).await
        })?;
        Ok(match started {
            Err(failure) if failure.status == Some(304) => Ok(()),
            started => started,
        })
    }

    /// Whether a container has a program at this path; a link is believed.
    fn executable(&self, name: &str, below: &str, program: &str) -> Result<bool, RuntimeError> {
        let path = if program.starts_with('/') { program.to_owned() } else { below.to_owned() };
        let (name, options) =
            (name.to_owned(), ContainerArchiveInfoOptionsBuilder::new().path(&path).build());
        let found = self.engine.try_ask("look for a program", |docker| async move {
            docker.get_container_archive_info(&name, Some(options)).await
        })?;
        // The mode is that of Go's library: the lowest nine bits are as everywhere, the first tells of links and folders.
        Ok(or_absent(found)?.is_some_and(|stat| stat.file_mode & 0o111 != 0))
    }

    /// The whole container, as the engine is asked for it.
    fn body(
        &self,
        spec: &Spec,
        image: &(String, ImageInspect),
        network: Option<String>,
        about: &About,
        init: bool,
    ) -> ContainerCreateBody {
        let config = image.1.config.clone().unwrap_or_default();
        let own = config.labels.is_some_and(|labels| labels.contains_key(archive::ARTIFACT));
        let mut env = BTreeMap::from(
            [("HOME", "/tmp"), ("TMPDIR", "/tmp"), ("LANG", "C.UTF-8"), ("HOST", "0.0.0.0")]
                .map(|(key, value)| (key.to_owned(), value.to_owned())),
        );
        env.extend(spec.env.clone());
        env.insert("PORT".into(), spec.port.to_string());
        let workdir = archive::clean(&spec.workdir);
        let limits = spec.limits;
        let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let address = spec.address.map(|address| address.to_string());
        let host = HostConfig {
            network_mode: network.clone(),
            readonly_rootfs: Some(true),
            tmpfs: Some(HashMap::from([(
                "/tmp".to_owned(),
                format!("rw,nosuid,nodev,size={TEMPORARY},mode=1777"),
            )])),
            cap_drop: Some(vec!["ALL".into()]),
            security_opt: Some(vec!["no-new-privileges".into()]),
            memory: limits.memory.filter(|_| about.memory).map(signed),
            // Without swap: who needs more memory than it may use is ended, not slow.
            memory_swap: limits.memory.filter(|_| about.memory).map(signed),
            nano_cpus: limits.cpu_millis.filter(|_| about.cpu).map(|millis| i64::from(millis) * 1_000_000),
            pids_limit: limits.processes.filter(|_| about.processes).map(i64::from),
            restart_policy: Some(RestartPolicy {
                name: Some(RestartPolicyNameEnum::NO),
                maximum_retry_count: None,
            }),
            init: Some(init).filter(|init| *init),
            log_config: Some(HostConfigLogConfig {
                typ: Some("json-file".into()),
                config: Some(HashMap::from([
                    ("max-size".to_owned(), spec.log_bytes.to_string()),
                    ("max-file".to_owned(), (spec.log_keep + 1).to_string()),
                ])),
            }),
            ..HostConfig::default()
        };
        let endpoint = |network| {
            let settings = EndpointSettings {
                ipam_config: Some(EndpointIpamConfig { ipv4_address: address.clone(), ..Default::default() }),
                ..EndpointSettings::default()
            };
            NetworkingConfig { endpoints_config: Some(HashMap::from([(network, settings)])) }
        };
        let mut body = ContainerCreateBody {
            image: Some(image.0.clone()),
            cmd: Some(spec.arguments()).filter(|words| !words.is_empty()),
            env: Some(env.into_iter().map(|(key, value)| format!("{key}={value}")).collect()),
            // An image that a team built runs as it says; ours run as nobody, or as the image below says.
            working_dir: own.then(|| format!("{}/{}", archive::APP, workdir.display())),
            volumes: Some(writes(spec)).filter(|volumes| !volumes.is_empty()),
            networking_config: network.map(endpoint),
            host_config: Some(host),
            ..ContainerCreateBody::default()
        };
        let shape = serde_json::to_vec(&body).unwrap_or_default();
        let said = |key: &str, value: String| (key.to_owned(), value);
        let mut labels: HashMap<String, String> =
            spec.labels.iter().map(|(key, value)| (format!("andon.{key}"), value.clone())).collect();
        labels.extend([
            said(label::SERVER, self.server.clone()),
            said(label::PROJECT, self.project.clone()),
            said(label::INSTANCE, spec.instance.clone()),
            said(label::PORT, spec.port.to_string()),
            said(label::STOP, spec.stop_within.0.to_string()),
            said(label::LIMITS, serde_json::to_string(&limits).unwrap_or_default()),
            said(label::WRITES, serde_json::to_string(&writes(spec)).unwrap_or_default()),
            said(label::CONFIG, hex::encode(sha2::Sha256::digest(shape))),
        ]);
        if let Some(environment) = &spec.environment {
            labels.insert(label::ENVIRONMENT.into(), environment.to_string());
        }
        if let Some(artifact) = &spec.artifact {
            labels.insert(label::ARTIFACT.into(), artifact.to_string());
        }
        body.labels = Some(labels);
        body
    }

    pub(super) fn stop_container(&self, id: &str) -> Result<(), RuntimeError> {
        let Some(found) = self.inspect(id)? else { return Err(RuntimeError::Unknown(id.to_owned())) };
        let labels = found.config.and_then(|config| config.labels).unwrap_or_default();
        let within = labels.get(label::STOP).and_then(|ms| ms.parse().ok()).map_or(Span::secs(10), Span);
        let name = self.name(id)?;
        // In whole seconds, as the engine counts them.
        let seconds = i32::try_from(within.duration().as_millis().div_ceil(1000)).unwrap_or(i32::MAX);
        let options = StopContainerOptionsBuilder::new().t(seconds).build();
        let stopped = self.engine.try_ask("stop a container", |docker| async move {
            docker.stop_container(&name, Some(options)).await
        })?;
        match stopped {
            Ok(()) => Ok(()),
            Err(failure) if matches!(failure.status, Some(304 | 404)) => Ok(()),
            Err(failure) => Err(RuntimeError::NotStopped { id: id.to_owned(), why: failure.why }),
        }
    }

    pub(super) fn remove_container(&self, id: &str) -> Result<(), RuntimeError> {
        match self.stop_container(id) {
            Err(RuntimeError::Unknown(_)) => return Ok(()),
            stopped => stopped?,
        }
        let name = self.name(id)?;
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        let removed = self.engine.try_ask("remove a container", |docker| async move {
            docker.remove_container(&name, Some(options)).await
        })?;
        match removed {
            // Somebody else is removing it: the next look says whether they did.
            Err(failure) if failure.status == Some(409) && self.inspect(id)?.is_none() => Ok(()),
            removed => Ok(or_absent(removed).map(drop)?),
        }
    }

    /// Every container of this project.
    pub(super) fn containers(&self) -> Result<Vec<ContainerSummary>, RuntimeError> {
        let options = ListContainersOptionsBuilder::new().all(true).filters(&self.ours()).build();
        self.engine.ask("list containers", |docker| async move {
            settled(|| docker.list_containers(Some(options.clone()))).await
        })
    }

    /// Every container of this project, in full. One that goes meanwhile is left out.
    pub(super) fn inspected(&self) -> Result<Vec<ContainerInspectResponse>, RuntimeError> {
        let ids: Vec<String> = self.containers()?.into_iter().filter_map(|found| found.id).collect();
        let all = self.engine.ask("look at containers", |docker| async move {
            let looks = ids.iter().map(|id| settled(|| docker.inspect_container(id, None)));
            let gone = |answer: &Result<_, Error>| {
                matches!(answer, Err(Error::DockerResponseServerError { status_code: 404, .. }))
            };
            join_all(looks).await.into_iter().filter(|answer| !gone(answer)).collect()
        })?;
        Ok(all)
    }

    pub(super) fn observe(&self) -> Result<Vec<Observed>, RuntimeError> {
        let mut found: Vec<Observed> = self.inspected()?.into_iter().filter_map(observed).collect();
        found.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(found)
    }

    /// Addresses that containers of an environment have or will have.
    pub(super) fn addresses(
        &self,
        environment: &EnvironmentName,
    ) -> Result<BTreeSet<Ipv4Addr>, RuntimeError> {
        let network = self.network(environment);
        let of = |found: ContainerInspectResponse| {
            let endpoint = found.network_settings?.networks?.remove(&network)?;
            let fixed = endpoint.ipam_config.and_then(|config| config.ipv4_address);
            fixed.or(endpoint.ip_address)?.parse().ok()
        };
        Ok(self.inspected()?.into_iter().filter_map(of).collect())
    }

    pub(super) fn tail(&self, id: &str, lines: usize) -> Result<String, RuntimeError> {
        let name = self.name(id)?;
        let options = LogsOptionsBuilder::new().stdout(true).stderr(true).tail(&lines.to_string()).build();
        let read = self.engine.try_ask("read a log", |docker| async move {
            let mut parts = docker.logs(&name, Some(options));
            let mut text = Vec::new();
            while let Some(part) = parts.next().await {
                match part? {
                    LogOutput::StdIn { .. } => {}
                    part => text.extend_from_slice(&part.into_bytes()),
                }
                if text.len() > TAIL_MOST {
                    text.drain(..text.len() - TAIL_MOST);
                }
            }
            Ok(text)
        })?;
        let text = or_absent(read)?.ok_or_else(|| RuntimeError::Unknown(id.to_owned()))?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

/// Where in the container it may write, beside its temporary files.
pub(super) fn writes(spec: &Spec) -> Vec<String> {
    let inside = |path: &String| format!("{}/{}", archive::APP, archive::clean(path).display());
    spec.writes.iter().map(inside).collect()
}

fn observed(found: ContainerInspectResponse) -> Option<Observed> {
    use ContainerStateStatusEnum as Status;
    let labels: BTreeMap<String, String> = found.config?.labels?.into_iter().collect();
    let id = labels.get(label::INSTANCE)?.clone();
    let state = found.state?;
    let status = state.status.unwrap_or(Status::EMPTY);
    let alive = matches!(status, Status::RUNNING | Status::PAUSED | Status::RESTARTING);
    let ended = matches!(status, Status::EXITED | Status::DEAD | Status::REMOVING);
    let code = i32::try_from(state.exit_code.unwrap_or(0)).unwrap_or(i32::MAX);
    let exit = match code {
        _ if !ended => None,
        _ if state.error.as_ref().is_some_and(|error| !error.is_empty()) => {
            Some(Exit::NotStarted(state.error.unwrap_or_default()))
        }
        // The engine heard of it from the kernel; the status alone is that of any kill.
        137 if state.oom_killed == Some(true) => {
            let limits = labels.get(label::LIMITS).and_then(|text| serde_json::from_str::<Limits>(text).ok());
            Some(Exit::OutOfMemory(limits.and_then(|limits| limits.memory)))
        }
        // As shells and engines say it: 128 and the signal.
        129..=192 => Some(Exit::Signal(code - 128)),
        code => Some(Exit::Code(code)),
    };
    let time = |text: Option<String>| {
        let time: jiff::Timestamp = text?.parse().ok()?;
        Some(Time(time.as_millisecond())).filter(|time| time.0 > 0)
    };
    let plain = |(key, value): (String, String)| Some((key.strip_prefix("andon.")?.to_owned(), value));
    Some(Observed {
        id,
        port: labels.get(label::PORT).and_then(|port| port.parse().ok()).unwrap_or(0),
        alive,
        pid: state.pid.and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0),
        exit,
        started_at: time(state.started_at),
        labels: labels.into_iter().filter_map(plain).collect(),
    })
}
