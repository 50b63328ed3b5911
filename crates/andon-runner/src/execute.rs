//! One attempt of a job: shim, log file, timeout, cancelling. Knows no pipeline.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use andon_model::Span;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

use crate::shim::{self, Job};

/// How often the length of a log is compared with its limit.
const LOOK: Duration = Duration::from_millis(500);

/// What is to be run.
#[derive(Debug, Clone)]
pub struct Order {
    /// The commands.
    pub script: String,
    /// The working copy.
    pub workdir: PathBuf,
    /// The whole environment of the job.
    pub env: BTreeMap<String, String>,
    /// Stopped after this.
    pub timeout: Span,
    /// Time between asking it to end and killing it.
    pub grace: Span,
    /// Gets all output as it comes.
    pub log: PathBuf,
    /// Bytes of output after which the job is stopped, so that it cannot fill the disk.
    pub log_limit: u64,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// By itself, with this status; 128 + n for signal n.
    Exited(i32),
    /// Stopped after its time.
    TimedOut,
    /// Stopped because nobody needs it any more.
    Cancelled,
    /// Stopped because it printed more than its limit.
    TooMuchOutput,
    /// It never began.
    Broken(String),
}

/// Starts jobs through the shim.
#[derive(Debug, Clone)]
pub struct Runner {
    /// Program and arguments that run [`shim::main`].
    pub shim: Vec<PathBuf>,
}

impl Runner {
    /// Runs one attempt to its end. When `cancel` resolves it is stopped. In every case nothing of it is left running.
    pub async fn run(&self, order: &Order, cancel: impl Future<Output = ()>) -> End {
        match self.start(order).await {
            Ok(child) => watch(child, order, cancel).await,
            Err(error) => End::Broken(error.to_string()),
        }
    }

    async fn start(&self, order: &Order) -> std::io::Result<Child> {
        let log = std::fs::File::options().create(true).append(true).open(&order.log)?;
        let (program, args) =
            self.shim.split_first().ok_or_else(|| std::io::Error::other("no shim is configured"))?;
        let mut child = Command::new(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()?;
        let job = Job {
            script: order.script.clone(),
            workdir: order.workdir.clone(),
            env: order.env.clone(),
            grace_ms: order.grace.0,
        };
        let mut line = serde_json::to_vec(&job)?;
        line.push(b'\n');
        if let Some(stdin) = child.stdin.as_mut() {
            stdin.write_all(&line).await?;
            stdin.flush().await?;
        }
        Ok(child)
    }
}

async fn watch(mut child: Child, order: &Order, cancel: impl Future<Output = ()>) -> End {
    // Taken out of the child, since waiting on it would close it: the leash is held until the end.
    let leash = child.stdin.take();
    let timeout = tokio::time::sleep(order.timeout.duration());
    let too_long = outgrows(&order.log, order.log_limit);
    let early = tokio::select! {
        status = child.wait() => return exited(status),
        () = timeout => End::TimedOut,
        () = cancel => End::Cancelled,
        () = too_long => End::TooMuchOutput,
    };
    drop(leash);
    match child.wait().await {
        Ok(_) => early,
        Err(error) => End::Broken(error.to_string()),
    }
}

fn exited(status: std::io::Result<std::process::ExitStatus>) -> End {
    match status.map(|status| status.code()) {
        Ok(Some(shim::BROKEN)) => {
            End::Broken("the job's process could not be started; its log says why".into())
        }
        Ok(Some(code)) => End::Exited(code),
        Ok(None) => End::Broken("the job's shim was killed from outside".into()),
        Err(error) => End::Broken(error.to_string()),
    }
}

async fn outgrows(log: &Path, limit: u64) {
    let mut tick = tokio::time::interval(LOOK);
    loop {
        tick.tick().await;
        if tokio::fs::metadata(log).await.is_ok_and(|meta| meta.len() > limit) {
            return;
        }
    }
}
