//! A growing output, read and drawn once for all who follow it. Whoever joins, or falls behind, reads for himself what he missed: [`super::grown`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use andon_line::view::{Output, Place};
use andon_model::{JobName, ProjectName, RunId};
use tokio::sync::broadcast::{self, Receiver, Sender};
use tokio::time::{MissedTickBehavior, interval};

/// Time between two looks at the output.
const LOOKS: Duration = Duration::from_millis(100);
/// Growths that a slow reader may be behind before he has to read for himself.
const BEHIND: usize = 32;

/// One attempt of a job, whose output grows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Attempt {
    /// Its project.
    pub project: ProjectName,
    /// Its run.
    pub run: RunId,
    /// Its job.
    pub job: JobName,
    /// Its number.
    pub number: u32,
}

/// What has grown: the lines from one place to another, drawn.
#[derive(Debug)]
pub struct Growth {
    /// Where the first of its lines begins.
    pub from: Place,
    /// Where the line after its last will begin.
    pub to: Place,
    /// `{html, at, line}` as the page's script takes it.
    pub json: String,
}

impl Growth {
    /// Of lines that are drawn.
    pub fn new(from: Place, to: Place, html: &str) -> Growth {
        let json = serde_json::json!({ "html": html, "at": to.at, "line": to.line }).to_string();
        Growth { from, to, json }
    }
}

/// Where growths of one output are sent.
type Tail = Sender<Arc<Growth>>;

/// Every output that somebody follows.
#[derive(Debug, Clone, Default)]
pub struct Tails(Arc<Mutex<HashMap<Attempt, Weak<Tail>>>>);

/// Somebody who follows. When the last one has gone, the output is no longer read.
#[derive(Debug)]
pub struct Follower {
    growths: Receiver<Arc<Growth>>,
    _tail: Arc<Tail>,
}

impl Follower {
    /// The next growth; none when he has fallen behind and must read for himself.
    pub async fn next(&mut self) -> Option<Arc<Growth>> {
        self.growths.recv().await.ok()
    }
}

impl Tails {
    /// Follows an attempt whose output is known up to a place.
    pub fn follow(&self, attempt: Attempt, output: Output, from: Place) -> Follower {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, tail| tail.strong_count() > 0);
        if let Some(tail) = all.get(&attempt).and_then(Weak::upgrade) {
            return Follower { growths: tail.subscribe(), _tail: tail };
        }
        let (sender, growths) = broadcast::channel(BEHIND);
        let tail = Arc::new(sender);
        all.insert(attempt, Arc::downgrade(&tail));
        tokio::spawn(read(Arc::downgrade(&tail), output, from));
        Follower { growths, _tail: tail }
    }
}

/// Reads on for as long as somebody follows.
async fn read(tail: Weak<Tail>, output: Output, mut from: Place) {
    let mut looks = interval(LOOKS);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while tail.strong_count() > 0 {
        match super::grown(output.clone(), from, None, true).await {
            Some((growth, last)) => {
                from = growth.to;
                if let Some(tail) = tail.upgrade() {
                    // Nobody listening at this moment is no reason to stop.
                    let _ = tail.send(Arc::new(growth));
                }
                if last {
                    looks.tick().await;
                }
            }
            None => {
                looks.tick().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn attempt() -> Attempt {
        Attempt { project: "shop".parse().unwrap(), run: RunId(1), job: "unit".parse().unwrap(), number: 1 }
    }

    #[tokio::test]
    async fn a_hundred_followers_have_every_line_once_and_the_output_is_drawn_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut file = std::fs::File::create(&path).unwrap();
        let tails = Tails::default();
        let follow = || tails.follow(attempt(), Output::Growing(path.clone()), Place::BEGIN);
        let mut followers: Vec<_> = std::iter::repeat_with(follow).take(100).collect();
        (1..=2500).for_each(|n| writeln!(file, "line {n}").unwrap());
        let mut drawn: Vec<*const Growth> = Vec::new();
        for follower in &mut followers {
            let (mut at, mut growths) = (Place::BEGIN, Vec::new());
            while at.line <= 2500 {
                let growth = follower.next().await.unwrap();
                assert_eq!(growth.from, at);
                at = growth.to;
                growths.push(Arc::as_ptr(&growth));
            }
            assert_eq!(at.line, 2501);
            if drawn.is_empty() {
                drawn.clone_from(&growths);
            }
            assert_eq!(growths, drawn);
        }
    }

    #[tokio::test]
    async fn what_nobody_follows_is_read_no_longer() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, "one\n").unwrap();
        let tails = Tails::default();
        let mut follower = tails.follow(attempt(), Output::Growing(path.clone()), Place::BEGIN);
        assert_eq!(follower.next().await.unwrap().to.line, 2);
        drop(follower);
        // Whoever comes later begins where he says, not where others were.
        std::fs::write(&path, "one\ntwo\n").unwrap();
        let mut follower = tails.follow(attempt(), Output::Growing(path), Place { at: 4, line: 2 });
        assert_eq!(follower.next().await.unwrap().from.line, 2);
        assert_eq!(tails.0.lock().unwrap().len(), 1);
    }
}
