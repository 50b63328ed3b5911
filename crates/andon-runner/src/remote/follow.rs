//! One attempt on a runner, followed from the server: what is new is asked for from where we stand, its output is kept here, and a runner that
//! is silent for longer than its lease has lost it.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use andon_dial::{Peer, one};
use andon_model::RunnerName;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::crew::{Trouble, line, trouble};
use super::wire::{ANSWER_BYTES, Ask, Progress, Which};
use crate::execute::News;
use crate::log::marks::{self, Marking};
use crate::order::End;

/// How long a runner may think about whether something is new; it answers before.
const THINKS: Duration = Duration::from_secs(40);
/// For an answer that needs no waiting.
const QUICK: Duration = Duration::from_secs(10);
/// Between two tries to reach it.
const AGAIN: Duration = Duration::from_millis(250);
/// News that nobody has taken yet.
const WAITING: usize = 64;

/// An attempt under way elsewhere.
#[derive(Debug)]
pub struct Following {
    news: mpsc::Receiver<News>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Drop for Following {
    fn drop(&mut self) {
        // The attempt goes on: whoever follows it next asks from where the output stands.
        self.task.abort();
    }
}

impl Following {
    pub(super) fn begin(
        runner: RunnerName,
        peer: Arc<Peer>,
        which: Which,
        log: PathBuf,
        lease: Duration,
    ) -> Following {
        let (tell, news) = mpsc::channel(WAITING);
        let stop = CancellationToken::new();
        let follower = Follower { runner, peer, which, lease, stop: stop.clone(), tell };
        let task = tokio::spawn(follower.run(log));
        Following { news, stop, task }
    }

    /// Asks it to end; what comes of that is heard as its end.
    pub fn stop(&mut self) {
        self.stop.cancel();
    }

    /// Waits for what comes next. To be dropped and asked again at any time: nothing is missed.
    pub async fn next(&mut self) -> News {
        let vanished = || News::Ended(End::Broken("nobody follows it any more".into()));
        self.news.recv().await.unwrap_or_else(vanished)
    }
}

struct Follower {
    runner: RunnerName,
    peer: Arc<Peer>,
    which: Which,
    lease: Duration,
    stop: CancellationToken,
    tell: mpsc::Sender<News>,
}

impl Follower {
    async fn run(self, log: PathBuf) {
        let end = match Output::open(&log) {
            Ok(output) => self.follow(output).await,
            Err(error) => End::Broken(format!("its output cannot be kept: {error}")),
        };
        // Whoever does not listen any more has let go of it.
        let _ = self.tell.send(News::Ended(end)).await;
    }

    async fn follow(&self, mut output: Output) -> End {
        let (mut steps, mut stopped) = (0, false);
        loop {
            let news = async {
                if self.stop.is_cancelled() && !stopped {
                    self.ask("/stop", &self.which, QUICK).await?;
                    stopped = true;
                }
                let ask = Ask { which: self.which.clone(), steps, log: output.length };
                tokio::select! {
                    said = self.ask("/follow", &ask, THINKS) => said.map(Some),
                    () = self.stop.cancelled(), if !stopped => Ok(None),
                }
            };
            let said = match news.await {
                Ok(Some(said)) => said,
                Ok(None) => continue,
                Err(Trouble::Silent(why)) => match self.peer.silent_for() {
                    Some(silent) if silent >= self.lease => {
                        return End::Broken(format!(
                            "the runner {} was not reached for {} s, and its lease is over: {why}",
                            self.runner,
                            self.lease.as_secs()
                        ));
                    }
                    _ => {
                        tokio::time::sleep(AGAIN).await;
                        continue;
                    }
                },
                Err(Trouble::Gone(why) | Trouble::Said(why)) => {
                    return End::Broken(format!("on the runner {}: {why}", self.runner));
                }
            };
            let Some((progress, bytes)) = read(&said) else {
                return End::Broken(format!(
                    "the answer of the runner {} is not understood; is it of the same version?",
                    self.runner
                ));
            };
            if let Err(error) = output.add(bytes) {
                return End::Broken(format!("its output cannot be kept: {error}"));
            }
            if let Some(last) = progress.steps.last() {
                steps = last.step;
                if self.tell.send(News::Steps(progress.steps)).await.is_err() {
                    return End::Broken("nobody follows it any more".into());
                }
            }
            if let Some(end) = progress.end {
                return end;
            }
        }
    }

    async fn ask(
        &self,
        path: &str,
        question: &impl serde::Serialize,
        within: Duration,
    ) -> Result<bytes::Bytes, Trouble> {
        let asked = self.peer.ask(path, one(line(question)?), ANSWER_BYTES, within).await;
        let (status, said) = asked.map_err(Trouble::Silent)?;
        if status.is_success() { Ok(said) } else { Err(trouble(status, &said)) }
    }
}

/// A line of what is new, and the output behind it.
fn read(said: &[u8]) -> Option<(Progress, &[u8])> {
    let end = memchr::memchr(b'\n', said)?;
    let progress: Progress = serde_json::from_slice(&said[..end]).ok()?;
    let bytes = &said[end + 1..];
    (progress.log == bytes.len() as u64).then_some((progress, bytes))
}

/// Output of an attempt as far as it is here.
struct Output {
    file: File,
    /// Without marks it is read all the same, only slower.
    marks: Option<Marking>,
    length: u64,
}

impl Output {
    fn open(log: &Path) -> io::Result<Output> {
        let file = File::options().create(true).append(true).open(log)?;
        let length = file.metadata()?.len();
        // Marks count from the beginning: those of an earlier server are made again.
        let _ = std::fs::remove_file(marks::path(log));
        let before = || std::fs::read(log).ok();
        let marks = Marking::begin(log).ok().zip(before()).and_then(|(mut marks, before)| {
            marks.push(&before).ok()?;
            Some(marks)
        });
        Ok(Output { file, marks, length })
    }

    fn add(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.length += bytes.len() as u64;
        self.marks = self.marks.take().and_then(|mut marks| marks.push(bytes).ok().map(|()| marks));
        Ok(())
    }
}
