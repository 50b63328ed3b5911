//! Attempts in a container of an image: made for one attempt, gone with it. What runs the steps inside is this very program, with the libraries
//! it was started with; it gets its shim's socket and the way for output handed over, and from then on a container is like any other
//! sandbox. Follows nothing: the shim does.
//!
//! The engine is one on this machine: the container sees the attempt's working copy at the place where it is.

use std::collections::HashMap;
use std::fs;
use std::io::{self, IoSlice, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use andon_sandbox::Bounds;
use bollard::errors::Error;
use bollard::models::{ContainerCreateBody, HostConfig, Mount, MountType};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, CreateImageOptionsBuilder, LogsOptionsBuilder,
    RemoveContainerOptionsBuilder,
};
use bollard::{API_DEFAULT_VERSION, Docker};
use futures_util::StreamExt;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};

use super::{INSIDE_CONTAINER, STAGE};
use crate::order::End;

/// Where an engine listens unless DOCKER_HOST says otherwise.
const SOCKET: &str = "unix:///var/run/docker.sock";
/// The longest that one answer may take, in seconds.
const ANSWER: u64 = 120;
/// How long the first process inside may take until it knocks.
const KNOCKS: Duration = Duration::from_secs(60);
/// Between two looks whether it knocks, or has ended instead.
const LOOK: Duration = Duration::from_millis(10);
/// Where this program is inside.
const INSIDE: &str = "/.andon";
/// What a killed command's status is.
const KILLED: i32 = 137;
/// Whose attempts a container is of.
const LABEL: &str = "andon.jobs";
/// What package managers of images need to do their work; the rest of what root may is taken away.
const CAPABILITIES: [&str; 5] = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"];

/// What a container is made of.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Contained {
    /// Of the container; unique on the engine.
    pub name: String,
    /// Whose runner made it.
    pub owner: String,
    pub image: String,
    /// The engine.
    pub host: String,
    pub network: bool,
    /// Seen where they are.
    pub reads: Vec<PathBuf>,
    pub writes: Vec<PathBuf>,
    /// `/tmp` inside, and where it is.
    pub tmp: PathBuf,
    pub limits: Bounds,
}

/// What is left to be removed of an attempt.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Left {
    host: String,
    name: String,
}

/// The engine that DOCKER_HOST names, or this machine's.
pub(crate) fn host() -> String {
    std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty()).unwrap_or_else(|| SOCKET.to_owned())
}

impl Contained {
    pub(crate) fn left(&self) -> Left {
        Left { host: self.host.clone(), name: self.name.clone() }
    }
}

fn asked<T>(host: &str, ask: impl AsyncFnOnce(Docker) -> Result<T, Error>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot speak with the container engine: {error}"))?;
    runtime.block_on(async {
        let path = host.strip_prefix("unix://").ok_or_else(|| {
            format!("the container engine {host} is not on this machine\nhint: give DOCKER_HOST a unix:// address")
        })?;
        let docker = Docker::connect_with_unix(path, ANSWER, API_DEFAULT_VERSION).map_err(words)?;
        let docker = docker.negotiate_version().await.map_err(|error| {
            format!("no container engine answers at {host}: {}\nhint: a job with an `image` needs one on its machine", words(error))
        })?;
        ask(docker).await.map_err(words)
    })
}

fn words(error: Error) -> String {
    match error {
        Error::DockerResponseServerError { message, .. } => message,
        Error::DockerStreamError { error } => error,
        other => other.to_string(),
    }
}

fn status(error: &Error) -> Option<u16> {
    match error {
        Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

/// The helper's whole life: makes the container, hands over what it inherited, ends. What goes wrong is said like the first process inside
/// would say it.
pub(super) fn main(room: &Path) -> i32 {
    let Err(why) = begin(room) else { return 0 };
    let Ok(socket) = io::stdin().as_fd().try_clone_to_owned() else { return 1 };
    let _ = UnixStream::from(socket)
        .write_all(format!("{}{}\n", super::inside::WHY, why.replace('\n', "; ")).as_bytes());
    1
}

fn begin(room: &Path) -> Result<(), String> {
    let spec = fs::read(room.join(SPEC))
        .map_err(|error| format!("cannot read what container it is to be: {error}"))?;
    let spec: Contained = serde_json::from_slice(&spec).map_err(|error| error.to_string())?;
    let door = room.join("door");
    fs::create_dir_all(&door).map_err(|error| format!("cannot make a door: {error}"))?;
    // By a short name: the address of a socket has no more than 108 bytes.
    std::env::set_current_dir(&door).map_err(|error| format!("cannot go to its door: {error}"))?;
    let listener = UnixListener::bind("s").map_err(|error| format!("cannot open a door: {error}"))?;
    listener.set_nonblocking(true).map_err(|error| error.to_string())?;
    let program = Program::own()?;
    asked(&spec.host.clone(), async |docker| {
        if let Err(error) = docker.inspect_image(&spec.image).await {
            match status(&error) {
                Some(404) => fetch(&docker, &spec.image).await?,
                _ => return Err(error),
            }
        }
        let options = CreateContainerOptionsBuilder::new().name(&spec.name).build();
        docker.create_container(Some(options), body(&spec, &program, &door, room)).await?;
        docker.start_container(&spec.name, None).await
    })?;
    let knocked = std::time::Instant::now();
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                return hand_over(&stream).map_err(|error| format!("cannot hand over to it: {error}"));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(format!("cannot hear it knock: {error}")),
        }
        if let Some(why) = ended(&spec)? {
            return Err(format!("a container of {} does not begin: {why}", spec.image));
        }
        if knocked.elapsed() > KNOCKS {
            return Err(format!("a container of {} does not begin in {} s", spec.image, KNOCKS.as_secs()));
        }
        std::thread::park_timeout(LOOK);
    }
}

/// The file that says what container it is to be; there is no secret in it.
pub(super) const SPEC: &str = "container.json";

async fn fetch(docker: &Docker, image: &str) -> Result<(), Error> {
    // Without a tag all of them would come.
    let whole = match image.rsplit('/').next().is_some_and(|last| last.contains([':', '@'])) {
        true => image.to_owned(),
        false => format!("{image}:latest"),
    };
    let options = CreateImageOptionsBuilder::new().from_image(&whole).build();
    let mut coming = docker.create_image(Some(options), None, None);
    while let Some(part) = coming.next().await {
        part?;
    }
    Ok(())
}

/// What it said where it ended before it began; none: it runs.
fn ended(spec: &Contained) -> Result<Option<String>, String> {
    asked(&spec.host, async |docker| {
        let found = docker.inspect_container(&spec.name, None).await?;
        let state = found.state.unwrap_or_default();
        if state.running == Some(true) {
            return Ok(None);
        }
        let options = LogsOptionsBuilder::new().stdout(true).stderr(true).tail("3").build();
        let mut logs = docker.logs(&spec.name, Some(options));
        let mut said = state.error.unwrap_or_default();
        while let Some(part) = logs.next().await {
            said.push_str(String::from_utf8_lossy(&part?.into_bytes()).trim());
        }
        Ok(Some(if said.is_empty() { "it ended at once".into() } else { said }))
    })
}

fn body(spec: &Contained, program: &Program, door: &Path, room: &Path) -> ContainerCreateBody {
    let mount = |source: &Path, target: &str, read_only: bool| Mount {
        source: Some(source.display().to_string()),
        target: Some(target.to_owned()),
        typ: Some(MountType::BIND),
        read_only: Some(read_only),
        ..Mount::default()
    };
    let same = |path: &PathBuf, read_only| mount(path, &path.display().to_string(), read_only);
    let mut mounts = vec![
        mount(&program.exe, &format!("{INSIDE}/andon"), true),
        mount(door, &format!("{INSIDE}/door"), true),
        mount(&spec.tmp, "/tmp", false),
        same(&spec.tmp, false),
    ];
    mounts.extend(
        program.libraries.iter().map(|path| mount(path, &format!("{INSIDE}/lib/{}", name(path)), true)),
    );
    mounts.extend(spec.writes.iter().map(|path| same(path, false)));
    mounts.extend(spec.reads.iter().filter(|path| path.exists()).map(|path| same(path, true)));
    let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    let Bounds { memory, cpu_millis, processes } = spec.limits;
    let host = HostConfig {
        mounts: Some(mounts),
        network_mode: (!spec.network).then(|| "none".to_owned()),
        cap_drop: Some(vec!["ALL".into()]),
        cap_add: Some(CAPABILITIES.map(str::to_owned).to_vec()),
        security_opt: Some(vec!["no-new-privileges".into()]),
        memory: memory.map(signed),
        // Without swap: who needs more memory than it may use is ended, not slow.
        memory_swap: memory.map(signed),
        nano_cpus: cpu_millis.map(|millis| i64::from(millis) * 1_000_000),
        pids_limit: processes.map(i64::from),
        ..HostConfig::default()
    };
    let own = format!("{INSIDE}/andon");
    let mut command = match &program.loader {
        Some(loader) => {
            vec![
                format!("{INSIDE}/lib/{}", name(loader)),
                "--library-path".into(),
                format!("{INSIDE}/lib"),
                own,
            ]
        }
        None => vec![own],
    };
    command.extend(["job-shim".to_owned(), room.display().to_string()]);
    let (user, group) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    ContainerCreateBody {
        image: Some(spec.image.clone()),
        entrypoint: Some(command),
        cmd: Some(Vec::new()),
        env: Some(vec![format!("{STAGE}={INSIDE_CONTAINER}")]),
        // What it writes belongs to whoever reads it afterwards.
        user: Some(format!("{user}:{group}")),
        working_dir: Some("/".into()),
        labels: Some(HashMap::from([(LABEL.to_owned(), spec.owner.clone())])),
        host_config: Some(host),
        ..ContainerCreateBody::default()
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// This program, so that it runs where nothing of this machine is: whatever C library an image has, it brings its own.
struct Program {
    exe: PathBuf,
    libraries: Vec<PathBuf>,
    loader: Option<PathBuf>,
}

impl Program {
    fn own() -> Result<Program, String> {
        let exe = std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
        if !exe.exists() {
            return Err(
                "this program was replaced: a container cannot be begun until it is started again".into()
            );
        }
        let maps = fs::read_to_string("/proc/self/maps").map_err(|error| error.to_string())?;
        let files = maps.lines().filter_map(|line| line.find('/').map(|at| PathBuf::from(&line[at..])));
        let mut libraries: Vec<PathBuf> =
            files.filter(|path| *path != exe && name(path).contains(".so") && path.exists()).collect();
        libraries.sort();
        libraries.dedup();
        let loader = libraries.iter().find(|path| name(path).starts_with("ld-")).cloned();
        Ok(Program { exe, libraries, loader })
    }
}

/// The socket on which the steps are heard, and where output goes.
fn hand_over(to: &UnixStream) -> io::Result<()> {
    to.set_nonblocking(false)?;
    let (stdin, stdout) = (io::stdin(), io::stdout());
    let fds = [stdin.as_fd(), stdout.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&fds));
    sendmsg(to, &[IoSlice::new(b"!")], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Inside: takes over what it is handed. From then on it is the first process of any sandbox.
pub(super) fn take_over() -> Result<(), String> {
    let words = |error: io::Error| format!("its shim is not reached: {error}");
    let stream = UnixStream::connect(format!("{INSIDE}/door/s")).map_err(words)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    recvmsg(&stream, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)
        .map_err(|error| words(error.into()))?;
    let mut fds: Vec<OwnedFd> = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    let [steps, output] = <[OwnedFd; 2]>::try_from(fds).map_err(|_| "it was not handed what it needs")?;
    rustix::stdio::dup2_stdin(&steps)
        .and_then(|()| rustix::stdio::dup2_stdout(&output))
        .and_then(|()| rustix::stdio::dup2_stderr(&output))
        .map_err(|error| words(error.into()))
}

/// What the image and the engine put into the environment.
pub(super) fn env_of_image() -> Vec<(String, String)> {
    std::env::vars().filter(|(name, _)| name != STAGE).collect()
}

/// Ends the container with all in it; says how the attempt ended.
pub(super) fn end(spec: &Contained, last: End) -> End {
    let killed = asked(&spec.host, async |docker| {
        match docker.kill_container(&spec.name, None).await {
            // It has ended already, or never was.
            Err(error) if matches!(status(&error), Some(404 | 409)) => {}
            killed => killed?,
        }
        match docker.inspect_container(&spec.name, None).await {
            Err(error) if status(&error) == Some(404) => Ok(false),
            found => Ok(found?.state.and_then(|state| state.oom_killed) == Some(true)),
        }
    });
    let starved = matches!(last, End::Exited(KILLED) | End::Broken(_)) && killed == Ok(true);
    if let Err(why) = remove(&spec.left()) {
        // It is found by the attempt's state, and tried again.
        super::note("its container stays", why);
    }
    if starved { End::OutOfMemory(spec.limits.memory) } else { last }
}

/// Removes a container, whatever it does. One that is not there is as good. Blocks, outside of any runtime.
pub(crate) fn remove(left: &Left) -> Result<(), String> {
    asked(&left.host, async |docker| {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        for _ in 0..TRIES {
            match docker.remove_container(&left.name, Some(options.clone())).await {
                Err(error) if status(&error) == Some(404) => return Ok(()),
                // It is being removed, or was just being made.
                Err(error) if status(&error) == Some(409) => tokio::time::sleep(AGAIN).await,
                removed => removed?,
            }
        }
        match docker.inspect_container(&left.name, None).await {
            Err(error) if status(&error) == Some(404) => Ok(()),
            found => found.map(drop),
        }
    })
}

/// Tries to remove one, and the pause between.
const TRIES: u32 = 100;
const AGAIN: Duration = Duration::from_millis(50);
