//! The first process inside an attempt's sandbox: enters it, then runs one step after the other as its shim says, on its standard input,
//! which is a socket. It inherits what the steps leave behind; when it ends, that ends too.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use andon_sandbox::{Plan, enter};
use rustix::process::{DumpableBehavior, Pid, Signal, WaitOptions, kill_process, wait};
use serde::{Deserialize, Serialize};
use signal_hook::consts::SIGCHLD;

use super::poll::{can_read, wait_for};
use crate::order::{Service, Step};

/// Between two tries to reach a service.
const LOOK: Duration = Duration::from_millis(20);

/// What is said, a line each; a reason begins with `! `.
const ENTERED: &str = "entered";
pub(super) const CODE: &str = "code ";
pub(super) const SIGNAL: &str = "signal ";
pub(super) const WHY: &str = "! ";

/// What it hears, a line each.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Say {
    /// First: where it is to go.
    Enter { plan: Box<Plan>, workdir: PathBuf, env: Vec<(String, String)> },
    /// The next step.
    Run(Step),
    /// The step is asked to end.
    Stop,
}

/// The same in a container, which confines it: it takes over what it is handed first.
pub(super) fn main_in_container() -> i32 {
    match super::contained::take_over() {
        Ok(()) => main(Some(super::contained::env_of_image())),
        Err(why) => {
            let _ = writeln!(io::stderr(), "{why}");
            1
        }
    }
}

/// Its whole life. `image`: it is in a container, whose image has this environment.
pub(super) fn main(image: Option<Vec<(String, String)>>) -> i32 {
    let Ok(socket) = io::stdin().as_fd().try_clone_to_owned() else { return 1 };
    let mut shim = BufReader::new(UnixStream::from(socket));
    match run(&mut shim, image) {
        Ok(()) => 0,
        Err(why) => {
            // Nobody left to tell if this fails.
            let _ = say(&mut shim, &format!("{WHY}{}", why.replace('\n', " ")));
            1
        }
    }
}

fn say(shim: &mut BufReader<UnixStream>, line: &str) -> Result<(), String> {
    shim.get_mut()
        .write_all(format!("{line}\n").as_bytes())
        .map_err(|error| format!("its shim is gone: {error}"))
}

/// None: the shim is gone, or wants no more.
fn hear(shim: &mut BufReader<UnixStream>) -> Result<Option<Say>, String> {
    let mut line = String::new();
    match shim.read_line(&mut line) {
        Err(error) => Err(format!("cannot hear its shim: {error}")),
        Ok(_) if !line.ends_with('\n') => Ok(None),
        Ok(_) => serde_json::from_str(&line)
            .map(Some)
            .map_err(|error| format!("cannot understand its shim: {error}")),
    }
}

struct Inside {
    workdir: PathBuf,
    env: Vec<(String, String)>,
    /// The step that runs.
    child: Option<Pid>,
    wake: UnixStream,
}

fn run(shim: &mut BufReader<UnixStream>, image: Option<Vec<(String, String)>>) -> Result<(), String> {
    let Some(Say::Enter { plan, workdir, env }) = hear(shim)? else { return Ok(()) };
    let failed = |error: io::Error| format!("cannot hear of its children: {error}");
    let (wake, waker) = UnixStream::pair().map_err(failed)?;
    wake.set_nonblocking(true).map_err(failed)?;
    signal_hook::low_level::pipe::register(SIGCHLD, waker).map_err(failed)?;
    let env = match image {
        None => {
            enter(&plan, loopback)?;
            env
        }
        // What the job says comes behind what its image says.
        Some(image) => image.into_iter().chain(env).collect(),
    };
    // Of the same user as its job: the job is not to look into it.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|error| format!("cannot keep its memory to itself: {error}"))?;
    if plan.namespaces {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
            .map_err(|error| format!("cannot end with its shim: {error}"))?;
    } else {
        // Else nobody below could be found again once the shim is gone.
        andon_kit::tree::become_subreaper().map_err(|error| format!("cannot adopt its children: {error}"))?;
    }
    // Fails if the shim ended before it could take us with it.
    say(shim, ENTERED)?;
    let mut inside = Inside { workdir, env, child: None, wake };
    let ended = inside.serve(shim);
    if !plan.namespaces {
        andon_kit::tree::kill_all();
    }
    ended
}

/// The network of one that reaches nobody: itself alone.
fn loopback() -> Result<(), String> {
    let said = Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot reach itself: `ip` cannot be run: {error}"))?;
    match said.status.success() {
        true => Ok(()),
        false => Err(format!("cannot reach itself: {}", String::from_utf8_lossy(&said.stderr).trim())),
    }
}

/// A port that nobody listens on now.
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

impl Inside {
    fn serve(&mut self, shim: &mut BufReader<UnixStream>) -> Result<(), String> {
        loop {
            self.reap(shim)?;
            if shim.buffer().is_empty() {
                wait_for(&[shim.get_ref(), &self.wake], None)
                    .map_err(|error| format!("cannot wait: {error}"))?;
                let mut signs = [0; 64];
                while matches!(self.wake.read(&mut signs), Ok(1..)) {}
                if !can_read(shim.get_ref()) {
                    continue;
                }
            }
            match hear(shim)? {
                None => return Ok(()),
                Some(Say::Enter { .. }) => return Err("it was told to enter twice".into()),
                Some(Say::Run(Step { service: Some(service), script, env, .. })) => {
                    let ready = self.beside(shim, &service, &script, &env);
                    if let Err(why) = &ready {
                        // Where whoever looks for the reason looks.
                        let _ = writeln!(io::stdout(), "andon: {why}");
                    }
                    say(shim, &format!("{CODE}{}", i32::from(ready.is_err())))?;
                }
                Some(Say::Run(step)) => match self.start(&step) {
                    Ok(pid) => self.child = pid,
                    Err(error) => say(shim, &format!("{WHY}cannot start a shell: {error}"))?,
                },
                Some(Say::Stop) => {
                    if let Some(child) = self.child {
                        // Gone already is as good.
                        let _ = kill_process(child, Signal::TERM);
                    }
                }
            }
        }
    }

    fn start(&self, step: &Step) -> io::Result<Option<Pid>> {
        self.spawn(&step.script, &step.env)
    }

    fn spawn(&self, script: &str, env: &BTreeMap<String, String>) -> io::Result<Option<Pid>> {
        let child = Command::new("sh")
            .args(["-e", "-c", script])
            .current_dir(&self.workdir)
            .env_clear()
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .envs(env)
            .stdin(Stdio::null())
            .process_group(0)
            .spawn()?;
        Ok(i32::try_from(child.id()).ok().and_then(Pid::from_raw))
    }

    /// Starts what runs beside the steps, and waits until it can be reached. It is ended with everything else of the attempt.
    fn beside(
        &mut self,
        shim: &mut BufReader<UnixStream>,
        service: &Service,
        script: &str,
        env: &BTreeMap<String, String>,
    ) -> Result<(), String> {
        let port = match service.port {
            Some(port) => port,
            None => free_port().map_err(|error| format!("no port is free for the service: {error}"))?,
        };
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        // Somebody else's would be taken for it.
        if TcpStream::connect_timeout(&address, LOOK).is_ok() {
            return Err(format!(
                "port {port} is taken already: leave `port` out, and one that is free is found"
            ));
        }
        self.env.push((service.variable.clone(), port.to_string()));
        let child = self.spawn(script, env).map_err(|error| format!("cannot start a shell: {error}"))?;
        let until = Instant::now() + Duration::from_millis(service.within_ms);
        loop {
            if TcpStream::connect_timeout(&address, LOOK).is_ok() {
                return Ok(());
            }
            // Nobody else runs yet but services: whoever else ended is one of them, too.
            while let Ok(Some((pid, _))) = wait(WaitOptions::NOHANG) {
                if Some(pid) == child {
                    return Err("the service ended before it could be reached".into());
                }
            }
            if Instant::now() >= until {
                return Err(format!(
                    "the service does not listen on port {port} after {} ms",
                    service.within_ms
                ));
            }
            if !shim.buffer().is_empty() || can_read(shim.get_ref()) {
                match hear(shim)? {
                    Some(Say::Stop) => {
                        // Its end is seen like any other; one that will not go is killed when the grace is over.
                        let _ = child.map(|child| kill_process(child, Signal::TERM));
                    }
                    Some(_) => return Err("it was told to run something before the service was there".into()),
                    None => return Err("its shim is gone".into()),
                }
            }
            // Nothing tells when a port is listened on.
            wait_for(&[&self.wake, shim.get_ref()], Some(LOOK))
                .map_err(|error| format!("cannot wait: {error}"))?;
            let mut signs = [0; 64];
            while matches!(self.wake.read(&mut signs), Ok(1..)) {}
        }
    }

    /// Takes note of everybody that ended; the end of the step is said.
    fn reap(&mut self, shim: &mut BufReader<UnixStream>) -> Result<(), String> {
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if Some(pid) == self.child => {
                    self.child = None;
                    match (status.exit_status(), status.terminating_signal()) {
                        (Some(code), _) => say(shim, &format!("{CODE}{code}"))?,
                        (_, Some(signal)) => say(shim, &format!("{SIGNAL}{signal}"))?,
                        _ => {}
                    }
                }
                Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
                Ok(None) | Err(_) => return Ok(()),
            }
        }
    }
}
