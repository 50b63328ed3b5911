//! The processes that enter an instance which runs already, for a shell. Two stages of the server's own binary, without threads.
//!
//! The first joins the instance's control group and, where it has one, its process namespace, which only children are born into. The
//! second is such a child: it enters the rest, gives up every right that the instance has not, and starts the command. It keeps hold of all
//! that the command leaves behind, and when the command ends, or whoever listens is gone, it kills them all. That the listener is gone is
//! seen by the outputs: their other ends are closed, by whatever death.
//!
//! Landlock is not put on: a shell is opened where something is wrong, and its limits would hide what. Everything else holds as for the instance.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, WaitOptions, wait};
use serde::{Deserialize, Serialize};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTSTP, SIGTTIN, SIGTTOU};

use super::plan::{SETTING, Setting, order};
use super::proc::{self, Process};
use super::shim::STAGE;
use crate::sandbox::{self, Means, Plan};
use crate::shell::{NOT_OPENED, ShellOrder};
use crate::spec::{self, Spec, State};

/// Names the shell in the environment of everything that it starts.
pub(crate) const SHELL: &str = "ANDON_SHELL";
/// The stages.
pub(super) const OUTSIDE: &str = "shell";
pub(super) const INSIDE: &str = "shell-inside";
/// Carries what the stage is to do.
pub(super) const JOIN: &str = "ANDON_SHELL_ORDER";
/// What is looked for when no command is said.
const SHELLS: [&str; 2] = ["/bin/bash", "/bin/sh"];
/// Between two looks at what will not die.
const A_MOMENT: Duration = Duration::from_millis(20);

/// What the second stage is told.
#[derive(Serialize, Deserialize)]
struct Order {
    plan: Plan,
    /// Of the instance's command, as the host numbers it.
    main: Process,
    command: Vec<String>,
    env: BTreeMap<String, String>,
    workdir: PathBuf,
    terminal: bool,
}

fn told(done: Result<i32, String>) -> i32 {
    done.unwrap_or_else(|why| {
        // Whoever opened the shell reads it.
        let _ = writeln!(io::stderr(), "the shell cannot be opened: {why}");
        NOT_OPENED
    })
}

/// The first stage.
pub(super) fn outside(dir: &Path) -> i32 {
    told(approach(dir))
}

fn approach(dir: &Path) -> Result<i32, String> {
    let words = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
    let asked = std::env::var(JOIN).map_err(|error| format!("it was told nothing: {error}"))?;
    let asked: ShellOrder = serde_json::from_str(&asked).map_err(|error| error.to_string())?;
    let spec: Spec = spec::read(&dir.join(spec::SPEC))
        .and_then(|spec| spec.ok_or_else(|| io::ErrorKind::NotFound.into()))
        .map_err(words("cannot read its spec"))?;
    let state: Option<State> = spec::read(&dir.join(spec::STATE)).map_err(words("cannot read its state"))?;
    let main = state.and_then(|state| state.main).ok_or("the instance does not run")?;
    let setting: Option<Setting> =
        spec::read(&dir.join(SETTING)).map_err(words("cannot read its sandbox"))?;
    let setting = setting.unwrap_or_else(|| Setting {
        means: Means::none("nobody tried"),
        hide: Vec::new(),
        cable: None,
    });
    let of_it = order(dir, &spec, &setting)?;
    let mut env = of_it.env;
    env.insert(SHELL.into(), asked.name);
    if let Some(terminal) = &asked.terminal {
        env.insert("TERM".into(), terminal.kind.clone());
    }
    let order = Order {
        plan: of_it.plan,
        main,
        command: asked.command,
        env,
        workdir: of_it.workdir,
        terminal: asked.terminal.is_some(),
    };
    let text = serde_json::to_string(&order).map_err(|error| error.to_string())?;
    let exe = std::env::current_exe().map_err(words("cannot find the server's own binary"))?;
    setting.means.groups.of(&spec.instance).add(std::process::id())?;
    sandbox::approach(&order.plan, main.pid)?;
    if Process::of(main.pid).ok() != Some(main) {
        return Err("the instance has just ended".into());
    }
    let mut inside = Command::new(exe);
    inside.arg("shim").arg(dir).env_clear().env(STAGE, INSIDE).env(JOIN, text).current_dir("/");
    let ended = inside.status().map_err(words("cannot start the process that enters"))?;
    use std::os::unix::process::ExitStatusExt;
    Ok(ended.code().or_else(|| ended.signal().map(|signal| 128 + signal)).unwrap_or(NOT_OPENED))
}

/// The second stage.
pub(super) fn inside() -> i32 {
    told(enter())
}

fn enter() -> Result<i32, String> {
    let words = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
    let order = std::env::var(JOIN).map_err(|error| format!("it was told nothing: {error}"))?;
    let order: Order = serde_json::from_str(&order).map_err(|error| error.to_string())?;
    let (wake, waker) = UnixStream::pair().map_err(words("cannot open a pipe"))?;
    wake.set_nonblocking(true).map_err(words("cannot open a pipe"))?;
    // Heard and not ignored: what is ignored would be ignored by the command as well.
    for signal in [SIGINT, SIGQUIT, SIGTSTP, SIGTTIN, SIGTTOU, SIGHUP] {
        let heard = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(signal, heard).map_err(words("cannot hear signals"))?;
    }
    signal_hook::low_level::pipe::register(SIGCHLD, waker).map_err(words("cannot hear signals"))?;
    let alike = || Process::of(order.main.pid).ok() == Some(order.main);
    sandbox::join(&order.plan, order.main.pid, alike)?;
    rustix::process::setsid().map_err(|error| format!("cannot leave the server's session: {error}"))?;
    if order.terminal {
        rustix::process::ioctl_tiocsctty(io::stdin().as_fd())
            .map_err(|error| format!("cannot take its terminal: {error}"))?;
    }
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(|error| format!("cannot adopt what it leaves: {error}"))?;
    let found = SHELLS.iter().find(|path| Path::new(path).exists());
    let own = || found.map(|path| vec![(*path).to_owned()]).ok_or("there is no shell inside; name a command");
    let command = if order.command.is_empty() { own()? } else { order.command.clone() };
    let mut start = Command::new(&command[0]);
    start.args(&command[1..]).env_clear().envs(&order.env).current_dir(&order.workdir);
    // Without a terminal its input is a pipe that the command alone may read.
    let child = match start.stdin(Stdio::inherit()).spawn() {
        Ok(child) => child,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{:?} cannot be run: {error}", command[0]);
            return Ok(if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 });
        }
    };
    Ok(hold(wake, child.id()))
}

/// Waits for the command or for the end of those who listen, then ends everything that is left.
fn hold(mut wake: UnixStream, child: u32) -> i32 {
    let mut code = None;
    while code.is_none() && !deserted() {
        wait_for(&wake, None);
        let mut signs = [0; 64];
        while matches!(wake.read(&mut signs), Ok(1..)) {}
        reap(child, &mut code);
    }
    let own = std::process::id();
    loop {
        let left = reap(child, &mut code);
        if !left {
            return code.unwrap_or(128 + Signal::HUP.as_raw());
        }
        let table = proc::table().unwrap_or_default();
        let alive = table.values().filter(|stat| !stat.zombie && stat.process.pid != own);
        for stat in alive.filter(|stat| proc::descends(&table, stat.process.pid, own)) {
            let pid = i32::try_from(stat.process.pid).ok().and_then(Pid::from_raw);
            // Gone already is as good.
            let _ = pid.map(|pid| rustix::process::kill_process(pid, Signal::KILL));
        }
        wait_for(&wake, Some(A_MOMENT));
    }
}

/// Whether nobody listens any more.
fn deserted() -> bool {
    let (out, err) = (io::stdout(), io::stderr());
    let mut ends = [PollFd::new(&out, PollFlags::empty()), PollFd::new(&err, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let gone = PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
    poll(&mut ends, Some(&now)).is_ok() && ends.iter().all(|end| end.revents().intersects(gone))
}

/// Waits for a sign, or until nobody listens any more: the outputs are closed together.
fn wait_for(wake: &UnixStream, most: Option<Duration>) {
    let (out, err) = (io::stdout(), io::stderr());
    let mut on = [
        PollFd::new(wake, PollFlags::IN),
        PollFd::new(&out, PollFlags::empty()),
        PollFd::new(&err, PollFlags::empty()),
    ];
    // Who ends the others looks at them by the clock: the outputs have nothing to say any more.
    let on = if most.is_some() { &mut on[..1] } else { &mut on[..] };
    let most = most.map(|most| Timespec { tv_sec: 0, tv_nsec: most.subsec_nanos().into() });
    // Interrupted is as good as woken.
    let _ = poll(on, most.as_ref());
}

/// Takes note of everybody that ended. False: nobody is left.
fn reap(child: u32, code: &mut Option<i32>) -> bool {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid.as_raw_pid().unsigned_abs() == child => {
                *code = status.exit_status().or_else(|| status.terminating_signal().map(|s| 128 + s));
            }
            Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
            Ok(None) => return true,
            Err(_) => return false,
        }
    }
}
