//! The directory of an attempt: what its shim writes there and what a server reads, also one of another version. Fields are only added,
//! with a default; lines that are not known are passed over.
//!
//! `lock` is held by the shim for as long as it lives, `state.json` says who that is, `steps.jsonl` is the record of steps, `outcome.json`
//! the last word, written once nothing of the attempt runs any more.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use andon_model::Span;
use andon_sandbox::{Group, Process};
use rustix::fs::{FlockOperation, flock};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::order::{End, StepEnd};
use crate::shim::contained::Left;

const LOCK: &str = "lock";
const STATE: &str = "state.json";
const RECORD: &str = "steps.jsonl";
const OUTCOME: &str = "outcome.json";

/// The directory.
#[derive(Debug, Clone)]
pub struct Room(PathBuf);

/// Who holds an attempt.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct State {
    /// The shim.
    pub shim: Process,
    /// What its processes are counted and ended in.
    #[serde(default)]
    pub group: Group,
    /// The container that it runs in.
    #[serde(default)]
    pub container: Option<Left>,
}

/// A line of the record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Line {
    /// A step is about to begin.
    Begin {
        /// Counts from 1.
        step: u32,
        /// What people call it.
        name: String,
        /// Length of the log, in bytes.
        log_at: u64,
    },
    /// It ended.
    End {
        /// Counts from 1.
        step: u32,
        /// How.
        end: End,
        /// Milliseconds.
        took_ms: u64,
    },
}

/// The last word.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub end: End,
}

/// What reading the record has come to.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    offset: u64,
    begun: Option<(u32, String, u64)>,
}

impl Room {
    /// The room in this directory.
    pub fn at(dir: &Path) -> Room {
        Room(dir.to_owned())
    }

    /// Where it lies.
    pub fn dir(&self) -> &Path {
        &self.0
    }

    /// For temporary files of the attempt.
    pub fn tmp(&self) -> PathBuf {
        self.0.join("tmp")
    }

    /// Where its file system is put together; empty.
    pub(crate) fn root(&self) -> PathBuf {
        self.0.join("root")
    }

    /// What the shim says beside its record, for people who look for a reason.
    pub(crate) fn notes(&self) -> PathBuf {
        self.0.join("shim.log")
    }

    /// Takes the lock; none: somebody has it.
    pub(crate) fn lock(&self) -> io::Result<Option<File>> {
        let file = File::options().write(true).create(true).truncate(false).open(self.0.join(LOCK))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) fn state(&self) -> io::Result<Option<State>> {
        read(&self.0.join(STATE))
    }

    pub(crate) fn keep_state(&self, state: &State) -> io::Result<()> {
        write(&self.0.join(STATE), state, false)
    }

    /// How the attempt ended; none: that is not known yet.
    pub(crate) fn outcome(&self) -> io::Result<Option<End>> {
        Ok(read::<Outcome>(&self.0.join(OUTCOME))?.map(|outcome| outcome.end))
    }

    pub(crate) fn keep_outcome(&self, end: &End) -> io::Result<()> {
        write(&self.0.join(OUTCOME), &Outcome { end: end.clone() }, true)
    }

    pub(crate) fn record(&self) -> io::Result<Record> {
        let file = File::options().append(true).create(true).open(self.0.join(RECORD))?;
        Ok(Record { file, pending: Vec::new() })
    }

    /// All steps that ended so far.
    pub fn steps(&self) -> io::Result<Vec<StepEnd>> {
        self.ended(&mut Reading::default())
    }

    /// Steps that ended since the last look. A line that is just being written is left for the next one.
    pub(crate) fn ended(&self, reading: &mut Reading) -> io::Result<Vec<StepEnd>> {
        let mut file = match File::open(self.0.join(RECORD)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            file => file?,
        };
        file.seek(SeekFrom::Start(reading.offset))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        reading.offset += whole as u64;
        let mut ended = Vec::new();
        for line in bytes[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            match serde_json::from_slice(line) {
                Ok(Line::Begin { step, name, log_at }) => reading.begun = Some((step, name, log_at)),
                Ok(Line::End { step, end, took_ms }) => {
                    let of_it = reading.begun.take().filter(|(begun, ..)| *begun == step);
                    let (_, name, log_at) = of_it.unwrap_or_else(|| (step, format!("step {step}"), 0));
                    ended.push(StepEnd { step, name, end, took: Span(took_ms), log_at });
                }
                // Of a newer shim.
                Err(_) => {}
            }
        }
        Ok(ended)
    }

    /// Removes it with all that is in it. One that is not there is as good.
    pub fn remove(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// The record of steps as its shim writes it.
pub(crate) struct Record {
    file: File,
    pending: Vec<u8>,
}

impl Record {
    pub(crate) fn add(&mut self, line: &Line) -> io::Result<()> {
        serde_json::to_writer(&mut self.pending, line)?;
        self.pending.push(b'\n');
        Ok(())
    }

    /// Writes what was added, whole; `durable`: also if the power goes out now.
    pub(crate) fn write(&mut self, durable: bool) -> io::Result<()> {
        self.file.write_all(&self.pending)?;
        self.pending.clear();
        if durable { self.file.sync_data() } else { Ok(()) }
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Wholly or not at all, and only for its owner. There is one writer.
fn write(path: &Path, value: &impl Serialize, durable: bool) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let beside = path.with_extension("new");
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(&serde_json::to_vec(value)?)?;
    if durable {
        file.sync_data()?;
    }
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_half_written_is_read_once_it_is_whole_and_an_unknown_one_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let (room, mut reading) = (Room::at(dir.path()), Reading::default());
        assert_eq!(room.ended(&mut reading).unwrap(), []);
        let mut record = room.record().unwrap();
        record.add(&Line::Begin { step: 1, name: "a".into(), log_at: 7 }).unwrap();
        record.write(false).unwrap();
        let mut file = File::options().append(true).open(dir.path().join(RECORD)).unwrap();
        file.write_all(b"{\"paused\":{\"step\":1}}\n{\"end\":{\"step\":1,\"end\":{\"exi").unwrap();
        assert_eq!(room.ended(&mut reading).unwrap(), []);
        file.write_all(b"ted\":3},\"took_ms\":5,\"later\":1}}\n").unwrap();
        let ended = StepEnd { step: 1, name: "a".into(), end: End::Exited(3), took: Span(5), log_at: 7 };
        assert_eq!(room.ended(&mut reading).unwrap(), [ended]);
        assert_eq!(room.ended(&mut reading).unwrap(), []);
    }

    #[test]
    fn a_lock_that_is_held_is_not_given_twice() {
        let dir = tempfile::tempdir().unwrap();
        let room = Room::at(dir.path());
        let held = room.lock().unwrap();
        assert!(held.is_some() && room.lock().unwrap().is_none());
        drop(held);
        assert!(room.lock().unwrap().is_some());
    }
}
