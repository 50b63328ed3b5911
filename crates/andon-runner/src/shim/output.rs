//! What an attempt prints, on its way into the log: without the secrets it was given, counted, and noted when it came. Understands nothing.

use std::fs::File;
use std::io::{self, PipeReader, Read, Write};
use std::path::Path;
use std::time::Instant;

use crate::log::marks::Marking;
use andon_kit::Mask;
use andon_kit::mask::Stream;
use rustix::fs::OFlags;

/// Bytes moved at once, and what the pipe holds: a step that prints much is not stopped by every line.
const CHUNK: usize = 256 * 1024;
/// Chunks taken in one go, so that one that never stops talking can still be stopped.
const AT_ONCE: u32 = 16;

/// Shorter values are no secrets: they are refused where secrets are kept.
const SHORTEST: usize = 8;

/// Both ends of it.
pub(super) struct Output {
    /// None: nobody is left that could print.
    pub pipe: Option<PipeReader>,
    log: File,
    chunk: Vec<u8>,
    mask: Stream,
    /// Without marks it is read all the same, only slower.
    marks: Option<Marking>,
    clear: Vec<u8>,
    /// Bytes in the log.
    pub length: u64,
    /// When something came last.
    pub last: Instant,
    /// What kept the log from being whole.
    pub lost: Option<String>,
}

impl Output {
    /// Opens the log; what is returned beside is for whoever prints.
    pub(super) fn open(log: &Path, secrets: &[String]) -> io::Result<(Output, io::PipeWriter)> {
        let path = log;
        let log = File::options().create(true).append(true).open(path)?;
        let length = log.metadata()?.len();
        // Marks count from the beginning, with what the server said before.
        let before = || std::fs::read(path).ok();
        let marks = Marking::begin(path).ok().zip(before()).and_then(|(mut marks, before)| {
            marks.push(&before).ok()?;
            Some(marks)
        });
        let (pipe, writer) = io::pipe()?;
        // Smaller is slower, and that is all.
        let _ = rustix::pipe::fcntl_setpipe_size(&pipe, CHUNK);
        rustix::fs::fcntl_setfl(&pipe, OFlags::NONBLOCK)?;
        let output = Output {
            pipe: Some(pipe),
            log,
            chunk: vec![0; CHUNK],
            mask: Mask::new(secrets.iter().map(String::as_str), SHORTEST).stream(),
            marks,
            clear: Vec::new(),
            length,
            last: Instant::now(),
            lost: None,
        };
        Ok((output, writer))
    }

    /// Takes what is there now.
    pub(super) fn keep(&mut self) {
        for _ in 0..AT_ONCE {
            if !self.keep_some() {
                return;
            }
        }
    }

    /// Takes all that was printed by those that have ended.
    pub(super) fn keep_all(&mut self, limit: u64) {
        while self.length <= limit && self.keep_some() {}
    }

    fn keep_some(&mut self) -> bool {
        let Some(pipe) = &mut self.pipe else { return false };
        match pipe.read(&mut self.chunk) {
            Ok(0) => self.close(),
            Ok(read) => {
                self.last = Instant::now();
                self.mask.push(&self.chunk[..read], &mut self.clear);
                self.write();
                return self.lost.is_none();
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return true,
            Err(error) => {
                self.pipe = None;
                self.lost = Some(format!("its output could not be read: {error}"));
            }
        }
        false
    }

    /// Nobody prints any more: what was held back is written.
    pub(super) fn close(&mut self) {
        self.pipe = None;
        self.mask.end(&mut self.clear);
        self.write();
    }

    /// What is decided not to be a secret goes into the log.
    fn write(&mut self) {
        match self.log.write_all(&self.clear) {
            Ok(()) => {
                self.length += self.clear.len() as u64;
                self.marks =
                    self.marks.take().and_then(|mut marks| marks.push(&self.clear).ok().map(|()| marks));
            }
            Err(error) => self.lost = Some(format!("its output could not be kept: {error}")),
        }
        self.clear.clear();
    }
}
