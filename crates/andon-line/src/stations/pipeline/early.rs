//! The first red test of an attempt, seen while it runs: report files are read as far as they are written, again whenever they grew. Judges nothing; what
//! counts is read when the attempt has ended. Attempts on runners are not looked into: their first red test is told with their end.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use andon_runner::gather;
use andon_validation::tests::{self as reports, Limits, Outcome, Report, TestCase};
use rustix::fs::{Mode, OFlags, ResolveFlags};

/// Between two looks, and no more than a small part of the time: a look that took long is followed by a longer pause.
const LOOK: Duration = Duration::from_secs(1);
/// How many times as long as a look the pause after it is.
const PAUSE: u32 = 20;
/// Larger reports are not read before they are whole, in bytes: one that grows would be read over and over.
const LARGEST: u64 = 8 << 20;
/// Files that are looked at.
const MOST: usize = 256;
/// What is kept of a message, in characters.
const MESSAGE: usize = 300;

/// A red test, by name and by what it says.
#[derive(Debug, PartialEq)]
pub(super) struct Red {
    pub test: String,
    pub message: String,
}

/// Waits until the reports in a working copy show a red test that counts. With no reports, or if none does, that is for ever.
pub(super) async fn watch(
    tree: PathBuf,
    patterns: Vec<String>,
    counts: impl Fn(&TestCase) -> bool + Clone + Send + 'static,
) -> Red {
    let mut looks = Looks { tree, patterns, read: HashMap::new() };
    let mut pause = LOOK;
    while !looks.patterns.is_empty() {
        tokio::time::sleep(pause).await;
        let counts = counts.clone();
        let looked = tokio::task::spawn_blocking(move || {
            let begun = Instant::now();
            let red = looks.look(&counts);
            (looks, red, begun.elapsed())
        });
        // A look that panicked is not taken again: the end of the attempt says what could not be read.
        let Ok((back, red, took)) = looked.await else { break };
        if let Some(red) = red {
            return red;
        }
        looks = back;
        pause = (took * PAUSE).max(LOOK);
    }
    std::future::pending().await
}

/// The first red test of whole reports that counts.
pub(super) fn first(reports: &[Report], counts: impl Fn(&TestCase) -> bool) -> Option<Red> {
    let mut cases = reports.iter().flat_map(|report| &report.cases);
    let case = cases.find(|case| case.outcome.is_red() && counts(case))?;
    let message = case.outcome.message().lines().next().unwrap_or_default();
    Some(Red { test: case.full_name(), message: message.chars().take(MESSAGE).collect() })
}

struct Looks {
    tree: PathBuf,
    patterns: Vec<String>,
    /// Bytes that each report had when it was read last.
    read: HashMap<PathBuf, usize>,
}

impl Looks {
    fn look(&mut self, counts: &impl Fn(&TestCase) -> bool) -> Option<Red> {
        let found = self.patterns.iter().filter_map(|pattern| gather::find(&self.tree, pattern).ok());
        let paths: Vec<PathBuf> = found.flatten().take(MOST).collect();
        paths.into_iter().find_map(|path| self.file(path, counts))
    }

    fn file(&mut self, path: PathBuf, counts: &impl Fn(&TestCase) -> bool) -> Option<Red> {
        let bytes = beneath(&self.tree, &path)?;
        if self.read.insert(path, bytes.len()) == Some(bytes.len()) {
            return None;
        }
        // The last line may be half of one, and what makes a red line harmless stands at its end. XML is not made of lines.
        let whole = match bytes.trim_ascii_start().first() {
            Some(b'<') => &bytes[..],
            _ => &bytes[..bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1)],
        };
        let report = reports::read(whole, Limits::default()).ok()?;
        // What began and did not end is broken in a report that is whole, and in one that grows it just runs.
        first(&[report], |case| matches!(case.outcome, Outcome::Failed { .. }) && counts(case))
    }
}

/// What stands in a file of the working copy. The job still runs and may put a link where a file was: nothing outside is ever opened, on the way there
/// neither.
fn beneath(tree: &Path, path: &Path) -> Option<Vec<u8>> {
    let root = File::open(tree).ok()?;
    let inside = path.strip_prefix(tree).ok()?;
    let way = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    // A pipe would keep the look waiting for whoever writes into it.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = File::from(rustix::fs::openat2(root, inside, flags, Mode::empty(), way).ok()?);
    let known = file.metadata().ok()?;
    if !known.is_file() || known.len() > LARGEST {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(LARGEST).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(_: &TestCase) -> bool {
        true
    }

    fn looked_at(tree: &Path) -> Looks {
        Looks { tree: tree.to_owned(), patterns: vec!["out/*.tap".into()], read: HashMap::new() }
    }

    #[test]
    fn a_red_test_is_seen_before_its_report_is_whole_and_a_file_is_read_again_when_it_grew() {
        let tree = tempfile::tempdir().unwrap();
        std::fs::create_dir(tree.path().join("out")).unwrap();
        let report = tree.path().join("out/a.tap");
        let mut looks = looked_at(tree.path());
        assert!(looks.look(&all).is_none(), "there is no report yet");
        std::fs::write(&report, "TAP version 14\n1..9\nok 1 - adds\n").unwrap();
        assert!(looks.look(&all).is_none());
        std::fs::write(&report, "TAP version 14\n1..9\nok 1 - adds\nnot ok 2 - takes away").unwrap();
        assert!(looks.look(&all).is_none(), "the line may go on with # TODO");
        std::fs::write(&report, "TAP version 14\n1..9\nok 1 - adds\nnot ok 2 - takes away\n").unwrap();
        assert_eq!(looks.look(&all).map(|red| red.test), Some("takes away".into()));
        assert!(looks.look(&all).is_none(), "nothing new stands there");
    }

    #[test]
    fn a_test_that_still_runs_is_not_red() {
        let tree = tempfile::tempdir().unwrap();
        std::fs::create_dir(tree.path().join("out")).unwrap();
        let line =
            |action: &str| format!("{{\"Action\":\"{action}\",\"Package\":\"shop\",\"Test\":\"TestAdd\"}}\n");
        std::fs::write(tree.path().join("out/a.tap"), line("run")).unwrap();
        let mut looks = looked_at(tree.path());
        assert!(looks.look(&all).is_none());
        std::fs::write(tree.path().join("out/a.tap"), line("run") + &line("fail")).unwrap();
        assert!(looks.look(&all).is_some());
    }

    #[test]
    fn what_does_not_count_is_passed_over() {
        let tree = tempfile::tempdir().unwrap();
        std::fs::create_dir(tree.path().join("out")).unwrap();
        std::fs::write(tree.path().join("out/a.tap"), "1..3\nnot ok 1 - shaky\nnot ok 2 - broken\n").unwrap();
        let red = looked_at(tree.path()).look(&|case: &TestCase| case.name != "shaky");
        assert_eq!(red.map(|red| red.test), Some("broken".into()));
    }

    #[test]
    fn a_link_that_leads_out_of_the_working_copy_and_a_pipe_are_not_read() {
        let (tree, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(other.path().join("a.tap"), "1..1\nnot ok 1 - of somebody else\n").unwrap();
        std::os::unix::fs::symlink(other.path(), tree.path().join("out")).unwrap();
        let link = tree.path().join("out/a.tap");
        assert!(beneath(tree.path(), &link).is_none());
        let pipe = tree.path().join("pipe.tap");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, Mode::from(0o600), 0)
            .unwrap();
        assert!(looked_at(tree.path()).file(pipe, &all).is_none());
    }
}
