//! The shim's watch over an attempt: step after step, within their times, and then their end.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use andon_sandbox::Group;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait, waitpid};

use super::inside::{CODE, SIGNAL, Say, WHY};
use super::output::Output;
use super::poll::{Readable, wait_for};
use super::{Job, announce, note};
use crate::order::{End, Step};
use crate::room::{Line, Record};

/// Between two looks at what will not go.
const A_MOMENT: Duration = Duration::from_millis(4);
/// Looks at it.
const LOOKS: u32 = 500;
/// 128 + KILL: what a shell says of a command that was killed.
const KILLED: i32 = 137;

pub(super) struct Watch {
    /// The first process inside, and what is said to it and heard from it.
    told: UnixStream,
    said: Vec<u8>,
    child: Pid,
    /// Whether it is over.
    gone: bool,
    output: Output,
    wake: UnixStream,
    ending: Arc<AtomicBool>,
    begun: Instant,
    /// Why it is being stopped, and when it is killed.
    stopping: Option<(End, Instant)>,
}

impl Watch {
    pub(super) fn new(
        told: UnixStream,
        child: Pid,
        output: Output,
        wake: UnixStream,
        ending: Arc<AtomicBool>,
    ) -> Watch {
        let begun = Instant::now();
        Watch { told, said: Vec::new(), child, gone: false, output, wake, ending, begun, stopping: None }
    }

    pub(super) fn say(&mut self, what: &Say) -> Result<(), String> {
        let mut line =
            serde_json::to_vec(what).map_err(|error| format!("cannot write what is to be run: {error}"))?;
        line.push(b'\n');
        self.told
            .write_all(&line)
            .map_err(|error| format!("the first process of its sandbox is gone: {error}"))
    }

    /// Runs them all, or until one is red. What is returned is the end of the last one that ran.
    pub(super) fn steps(&mut self, job: &Job, record: &mut Record) -> End {
        let mut last = End::Exited(0);
        for (number, step) in (1..).zip(&job.steps) {
            let log_at = self.output.length;
            let begin = Line::Begin { step: number, name: step.name.clone(), log_at };
            if let Err(error) = record.add(&begin).and_then(|()| record.write(number > 1)) {
                return End::Broken(format!("its record cannot be written: {error}"));
            }
            if number > 1 {
                announce();
            }
            let begun = Instant::now();
            last = self.step(job, step, begun);
            let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            let ended = Line::End { step: number, end: last.clone(), took_ms };
            if let Err(error) = record.add(&ended) {
                return End::Broken(format!("its record cannot be written: {error}"));
            }
            if last != End::Exited(0) {
                break;
            }
        }
        // The end of a step is written with the begin of the next one, and that of the last one here.
        if let Err(error) = record.write(true) {
            return End::Broken(format!("its record cannot be written: {error}"));
        }
        last
    }

    fn step(&mut self, job: &Job, step: &Step, begun: Instant) -> End {
        if let Err(why) = self.say(&Say::Run(step.clone())) {
            self.gone = true;
            return End::Broken(why);
        }
        let millis = Duration::from_millis;
        let step_over = step.timeout_ms.map(|most| (begun + millis(most), End::TimedOut(most)));
        let job_over = Some((self.begun + millis(job.timeout_ms), End::TimedOut(job.timeout_ms)));
        self.output.last = begun;
        loop {
            self.heed_stop(job);
            let silent = job.quiet_ms.map(|most| (self.output.last + millis(most), End::Quiet(most)));
            let mut next = self.stopping.clone().map(|(end, at)| (at, end));
            if next.is_none() {
                next = [step_over.clone(), job_over.clone(), silent]
                    .into_iter()
                    .flatten()
                    .min_by_key(|(at, _)| *at);
            }
            let left = next.as_ref().map(|(at, _)| at.saturating_duration_since(Instant::now()));
            if let (Some(Duration::ZERO), Some((_, end))) = (left, next) {
                match &self.stopping {
                    Some(_) => return end,
                    None => self.stop(end, job.grace_ms),
                }
                continue;
            }
            if self.output.length > job.log_limit {
                return End::TooMuchOutput(job.log_limit);
            }
            if let Some(lost) = self.output.lost.take() {
                return End::Broken(lost);
            }
            self.wait(left);
            if let Some(end) = self.heard() {
                self.output.keep_all(job.log_limit);
                let stopped = self.stopping.as_ref().map(|(why, _)| why.clone());
                return stopped.unwrap_or(end);
            }
        }
    }

    fn heed_stop(&mut self, job: &Job) {
        if self.ending.load(Ordering::SeqCst) && self.stopping.is_none() {
            self.stop(End::Cancelled, job.grace_ms);
        }
    }

    /// Asks the step to end, and gives it its grace.
    fn stop(&mut self, why: End, grace_ms: u64) {
        if let Err(why) = self.say(&Say::Stop) {
            note("cannot ask the step to end", why);
        }
        self.stopping = Some((why, Instant::now() + Duration::from_millis(grace_ms)));
    }

    fn wait(&mut self, most: Option<Duration>) {
        let mut on: Vec<&dyn Readable> = vec![&self.wake];
        if !self.gone {
            on.push(&self.told);
        }
        on.extend(self.output.pipe.as_ref().map(|pipe| pipe as &dyn Readable));
        if let Err(error) = wait_for(&on, most) {
            note("cannot wait", error);
        }
        let mut signs = [0; 64];
        while matches!(self.wake.read(&mut signs), Ok(1..)) {}
        self.output.keep();
    }

    /// How the step ended, if that was said, or how the first process inside did.
    fn heard(&mut self) -> Option<End> {
        let mut chunk = [0; 4096];
        while !self.gone && super::poll::can_read(&self.told) {
            match self.told.read(&mut chunk) {
                Ok(0) => self.gone = true,
                Ok(read) => self.said.extend_from_slice(&chunk[..read]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    note("cannot hear the first process of its sandbox", error);
                    self.gone = true;
                }
            }
        }
        while let Some(line) = self.next_line() {
            let number = |text: &str| text.parse::<i32>().ok();
            if let Some(why) = line.strip_prefix(WHY) {
                return Some(End::Broken(why.to_owned()));
            } else if let Some(code) = line.strip_prefix(CODE).and_then(number) {
                return Some(End::Exited(code));
            } else if let Some(signal) = line.strip_prefix(SIGNAL).and_then(number) {
                return Some(End::Exited(128 + signal));
            }
        }
        let why = || End::Broken("the first process of its sandbox died; its log may say why".into());
        self.gone.then(why)
    }

    fn next_line(&mut self) -> Option<String> {
        let end = self.said.iter().position(|byte| *byte == b'\n')?;
        let rest = self.said.split_off(end + 1);
        let line = std::mem::replace(&mut self.said, rest);
        Some(String::from_utf8_lossy(&line[..end]).into_owned())
    }

    /// Ends all that is left, and says how the attempt ended once nothing is.
    pub(super) fn end(mut self, last: End, job: &Job, group: &Group) -> End {
        group.kill();
        // With its first process the kernel ends all of a process namespace, and says so only when they are gone.
        let _ = kill_process(self.child, Signal::KILL);
        if job.plan.namespaces {
            while let Err(rustix::io::Errno::INTR) = waitpid(Some(self.child), WaitOptions::empty()) {}
        }
        // Looking through all processes of the host takes longer than most steps: only if somebody is left.
        if !matches!(wait(WaitOptions::NOHANG), Err(rustix::io::Errno::CHILD)) {
            andon_kit::tree::kill_all();
        }
        self.output.keep_all(job.log_limit);
        self.output.close();
        let starved = group.out_of_memory() > 0 && (last == End::Exited(KILLED) || self.gone);
        for look in 0..LOOKS {
            match group.remove() {
                Ok(()) => break,
                Err(error) if look + 1 == LOOKS => note("its group stays", error),
                Err(_) => group.kill(),
            }
            self.wait(Some(A_MOMENT));
        }
        match last {
            _ if starved => End::OutOfMemory(job.limits.memory),
            End::Exited(0) if self.output.length > job.log_limit => End::TooMuchOutput(job.log_limit),
            last => last,
        }
    }
}
