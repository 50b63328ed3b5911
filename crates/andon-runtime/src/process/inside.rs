//! The first process inside an instance's sandbox: enters it, starts the command, and reports to the shim on its standard input,
//! which is a socket. Where there is no process namespace it becomes the command instead.
//!
//! As the first process it inherits what the command leaves behind. When it ends, the kernel ends everything else inside.

use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Signal, WaitOptions, wait};

use super::network::Cable;
use super::plan::Order;
use super::shim::{A_MOMENT, INSIDE, LOCK_TRIES, REHEARSE, STAGE, wait_for};
pub(super) use crate::sandbox::ENTERED;
use crate::sandbox::{enter, rehearse_inside, rehearse_outside};

/// What is reported, a line each; a reason begins with `! `.
pub(super) const NETWORK: &str = "network";
pub(super) const RUNS: &str = "runs";
pub(super) const CODE: &str = "code ";
pub(super) const SIGNAL: &str = "signal ";
pub(super) const WHY: &str = "! ";

/// Runs as the first process inside.
pub(super) fn main() -> i32 {
    let Ok(socket) = io::stdin().as_fd().try_clone_to_owned() else { return 1 };
    let mut shim = BufReader::new(UnixStream::from(socket));
    match run(&mut shim) {
        Ok(()) => 0,
        Err(why) => {
            // Nobody left to tell if this fails.
            let _ = say(&mut shim, &format!("{WHY}{}", why.replace('\n', " ")));
            1
        }
    }
}

fn say(shim: &mut BufReader<UnixStream>, line: &str) -> Result<(), String> {
    writeln!(shim.get_mut(), "{line}").map_err(|error| format!("its shim is gone: {error}"))
}

fn run(shim: &mut BufReader<UnixStream>) -> Result<(), String> {
    let mut line = String::new();
    shim.read_line(&mut line).map_err(|error| format!("cannot hear its shim: {error}"))?;
    let order: Order =
        serde_json::from_str(&line).map_err(|error| format!("cannot read its order: {error}"))?;
    enter(&order.plan, || {
        say(shim, NETWORK)?;
        let mut go = String::new();
        shim.read_line(&mut go).map_err(|error| format!("cannot hear its shim: {error}"))?;
        order.cable.as_ref().map_or(Ok(()), Cable::plug_in)
    })?;
    if order.plan.namespaces {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
            .map_err(|error| format!("cannot end with its shim: {error}"))?;
    }
    // Fails if the shim ended before it could take us with it.
    say(shim, ENTERED)?;
    let mut command = command(&order)?;
    let program = order.arguments.first().map_or("", String::as_str);
    if !order.plan.namespaces {
        // The copy of the socket closes when the command executes, and that tells the shim.
        let null =
            std::fs::File::open("/dev/null").map_err(|error| format!("cannot open /dev/null: {error}"))?;
        rustix::stdio::dup2_stdin(&null).map_err(|error| format!("cannot give up the socket: {error}"))?;
        return busy(|| Err::<(), _>(command.exec()))
            .map_err(|error| format!("cannot run {program:?}: {error}"));
    }
    let child = busy(|| command.spawn()).map_err(|error| format!("cannot run {program:?}: {error}"))?;
    say(shim, RUNS)?;
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid.as_raw_pid().unsigned_abs() == child.id() => {
                match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => return say(shim, &format!("{CODE}{code}")),
                    (_, Some(signal)) => return say(shim, &format!("{SIGNAL}{signal}")),
                    _ => {}
                }
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(format!("cannot wait for its command: {error}")),
        }
    }
}

/// Tries again while the program's file is open for writing: it was just unpacked, and a process that the server forked meanwhile has
/// it open until it executes.
fn busy<T>(mut start: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 0..LOCK_TRIES {
        match start() {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => wait_for(&[], Some(A_MOMENT))?,
            done => return done,
        }
    }
    start()
}

fn command(order: &Order) -> Result<Command, String> {
    let (program, arguments) = order.arguments.split_first().ok_or("its command is empty")?;
    let mut command = Command::new(program);
    command.args(arguments).current_dir(&order.workdir).env_clear().envs(&order.env).process_group(0);
    if order.plan.namespaces {
        command.stdin(Stdio::null());
    }
    Ok(command)
}

/// Tries a plan that comes on standard input and says how it went.
pub(super) fn rehearse(dir: &Path, inside: bool) -> i32 {
    if inside {
        return rehearse_inside();
    }
    let Ok(exe) = std::env::current_exe() else { return 1 };
    let mut again = Command::new(exe);
    again.arg("shim").arg(dir).env(STAGE, format!("{REHEARSE}-{INSIDE}"));
    rehearse_outside(again)
}
