//! What our callback plugin prints: one JSON object a line, `"andon": 1` in each. Read a line at a time with limits; what is too much is
//! counted as lost, and never taken for good. Anything else between the lines is the tool's plain words.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, Read};

use serde::Deserialize;

use super::AnsibleError;

/// The form that is read.
const FORM: u32 = 1;
/// Longest line, in bytes.
const LINE: u64 = 8 << 20;
/// Most results of one play that are kept.
const MOST: usize = 20_000;
/// Longest text that is kept of names and messages, in characters.
const LONGEST: usize = 2000;
/// Most errors that are kept.
const ERRORS: usize = 50;

/// One line.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Line {
    /// A play begins.
    Play {
        #[serde(default)]
        name: String,
    },
    /// A task begins.
    Task {
        #[serde(default)]
        name: String,
    },
    /// What a task came to on a host.
    Result(Box<Outcome>),
    /// A play whose hosts are none.
    Nobody,
    /// The sums: the last line.
    Stats { hosts: BTreeMap<String, Sums> },
    /// Something that this version does not know.
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Form {
    andon: u32,
}

/// How a task ended on a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It was done, or there was nothing to do.
    Ok,
    /// It failed, and the host is out.
    #[default]
    Failed,
    /// It failed, and that is allowed.
    Ignored,
    /// It was not done.
    Skipped,
    /// Nobody reached the host.
    Unreachable,
}

/// What a task came to on a host.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct Outcome {
    /// The host's name in the inventory.
    pub host: String,
    /// The task's name.
    pub task: String,
    /// `ansible.builtin.copy`
    pub module: String,
    /// How it ended.
    pub status: Status,
    /// It changed something, or would.
    pub changed: bool,
    /// `no_log`: nothing of it may be shown.
    pub hidden: bool,
    /// It is done even where things are only checked.
    pub really: bool,
    /// Whether it is done depends on being only checked.
    pub asks_for_check: bool,
    /// The module's words.
    pub message: String,
    /// One, or one for each item of a loop.
    pub parts: Vec<Part>,
    /// Items that were not told.
    pub more: u32,
}

/// One item of a task.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct Part {
    /// It changed something, or would.
    pub changed: bool,
    /// It was not done.
    pub skipped: bool,
    /// It failed.
    pub failed: bool,
    /// Why it was skipped: a condition, an empty list.
    pub reason: String,
    /// Nothing of it may be shown.
    pub hidden: bool,
    /// The module's words.
    pub message: String,
    /// What differs.
    pub diffs: Vec<Diff>,
}

/// A difference, from what is found to what the task says.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct Diff {
    /// Of what: mostly a file. Empty: the module does not say.
    pub path: String,
    /// As found.
    pub before: Option<Side>,
    /// As the task says.
    pub after: Option<Side>,
    /// The module's own text of the difference.
    pub prepared: String,
}

/// One side of a difference.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Side {
    /// The whole content.
    Text(String),
    /// Attributes: `mode`, `state`.
    Table(BTreeMap<String, Option<String>>),
}

/// The sums of one host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Sums {
    /// Tasks that were done.
    pub ok: u32,
    /// Tasks that changed something, or would.
    pub changed: u32,
    /// Tasks that failed.
    pub failures: u32,
    /// Times that it could not be reached.
    pub unreachable: u32,
}

/// What a whole stream said.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Said {
    /// Results in their order.
    pub outcomes: Vec<Outcome>,
    /// The sums of all hosts: only then it is complete.
    pub sums: Option<BTreeMap<String, Sums>>,
    /// Errors, the first one first.
    pub errors: Vec<String>,
    /// What happens now: the last words.
    pub last: String,
    /// Lines that were too long or too many: what they said is not known.
    pub lost: usize,
}

impl Said {
    /// Reads a whole stream; its last line may be half written.
    pub fn of(mut stream: impl BufRead) -> Result<Said, AnsibleError> {
        let mut said = Said::default();
        let mut line = Vec::new();
        loop {
            line.clear();
            if (&mut stream).take(LINE).read_until(b'\n', &mut line)? == 0 {
                return Ok(said);
            }
            if line.last() != Some(&b'\n') && line.len() as u64 == LINE {
                said.lost += 1;
                skip(&mut stream)?;
                continue;
            }
            said.line(&line)?;
        }
    }

    fn line(&mut self, line: &[u8]) -> Result<(), AnsibleError> {
        let Ok(form) = serde_json::from_slice::<Form>(line) else {
            self.words(&short(&String::from_utf8_lossy(line)));
            return Ok(());
        };
        if form.andon != FORM {
            return Err(AnsibleError::Unknown(format!("its form is {}", form.andon)));
        }
        match serde_json::from_slice::<Line>(line) {
            Ok(Line::Play { name } | Line::Task { name }) => self.last = short(&name),
            Ok(Line::Result(outcome)) => self.result(*outcome),
            Ok(Line::Stats { hosts }) => {
                self.sums = Some(hosts.into_iter().map(|(host, sums)| (short(&host), sums)).collect());
            }
            Ok(Line::Nobody | Line::Other) => {}
            Err(_) => self.lost += 1,
        }
        Ok(())
    }

    fn words(&mut self, words: &str) {
        // `ERROR!` until 2.18, `[ERROR]:` since.
        let error = words.strip_prefix("ERROR! ").or_else(|| words.strip_prefix("[ERROR]: "));
        if let Some(error) = error.filter(|_| self.errors.len() < ERRORS) {
            self.errors.push(error.trim().to_owned());
        } else if let (Some(last), false) = (self.errors.last_mut(), words.is_empty()) {
            // An error goes on until something else is said, in at most a few lines.
            if self.outcomes.is_empty() && last.len() + words.len() < 400 {
                last.push(' ');
                last.push_str(words);
            }
        }
    }

    fn result(&mut self, mut outcome: Outcome) {
        if self.outcomes.len() >= MOST {
            self.lost += 1;
            return;
        }
        for text in [&mut outcome.host, &mut outcome.task, &mut outcome.module, &mut outcome.message] {
            *text = short(text);
        }
        let Outcome { host, task, message, .. } = &outcome;
        let found = match outcome.status {
            Status::Failed if outcome.hidden => Some(format!("{host}: {task} failed; no_log hides why")),
            Status::Failed => {
                let item = outcome.parts.iter().find(|part| part.failed && !part.message.is_empty());
                let message = item.map_or_else(|| message.clone(), |part| short(&part.message));
                Some(format!("{host}: {task}: {message}"))
            }
            Status::Unreachable => Some(format!("{host} cannot be reached: {message}")),
            Status::Ok | Status::Ignored | Status::Skipped => None,
        };
        if let Some(error) = found.filter(|_| self.errors.len() < ERRORS) {
            self.errors.push(error);
        }
        self.last = format!("{host}: {task}");
        self.outcomes.push(outcome);
    }

    /// Whether it was played to its end, on at least one host, and nothing failed.
    pub fn is_whole(&self) -> bool {
        let good = |sums: &Sums| sums.failures == 0 && sums.unreachable == 0;
        self.sums.as_ref().is_some_and(|hosts| !hosts.is_empty() && hosts.values().all(good))
    }

    /// Hosts of which not every task was told: it failed, it could not be reached, or lines were lost.
    pub fn blind(&self) -> BTreeSet<String> {
        let all = self.sums.iter().flatten();
        let blind = |sums: &Sums| self.lost > 0 || sums.failures > 0 || sums.unreachable > 0;
        all.filter(|(_, sums)| blind(sums)).map(|(host, _)| host.clone()).collect()
    }

    /// Tasks that changed something, on all hosts.
    pub fn changed(&self) -> u32 {
        self.sums.iter().flat_map(BTreeMap::values).fold(0, |all, sums| all.saturating_add(sums.changed))
    }
}

fn skip(stream: &mut impl BufRead) -> std::io::Result<()> {
    loop {
        let read = stream.fill_buf()?;
        let (end, length) = match read.iter().position(|byte| *byte == b'\n') {
            Some(at) => (true, at + 1),
            None => (read.is_empty(), read.len()),
        };
        stream.consume(length);
        if end {
            return Ok(());
        }
    }
}

/// In one line, no longer than anybody reads.
pub(super) fn short(text: &str) -> String {
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.take(LONGEST).collect::<String>().trim().to_owned()
}
