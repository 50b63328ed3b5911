//! The access log: one line of JSON for each answer that began. Writing never makes a request wait: lines that the disk is too slow for are left out and counted.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use serde::Serialize;

/// Lines that wait for the disk.
const WAITING: usize = 8192;
/// A line is on the disk after this long.
const FLUSH: Duration = Duration::from_millis(500);

/// One answer.
#[derive(Debug, Serialize)]
pub(crate) struct Line<'a> {
    /// Milliseconds since 1970.
    pub at: u64,
    pub client: std::net::IpAddr,
    pub method: &'a str,
    pub host: &'a str,
    /// Without its query, where secrets stand.
    pub path: &'a str,
    pub status: u16,
    /// Microseconds until the answer began.
    pub took_us: u64,
    pub service: &'a str,
    pub revision: &'a str,
    pub request: &'a str,
}

/// An open access log. Clones write to the same file.
#[derive(Debug, Clone)]
pub struct AccessLog {
    lines: SyncSender<Vec<u8>>,
    lost: Arc<AtomicU64>,
}

impl AccessLog {
    /// Appends to a file; it is opened anew when it was moved away, as log rotation does.
    pub fn open(path: &Path) -> std::io::Result<AccessLog> {
        let file = append(path)?;
        let (lines, waiting) = sync_channel(WAITING);
        let path = path.to_owned();
        std::thread::Builder::new().name("access-log".into()).spawn(move || write(&waiting, file, &path))?;
        Ok(AccessLog { lines, lost: Arc::default() })
    }

    /// Lines that were left out.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    pub(crate) fn say(&self, line: &Line<'_>) {
        let Ok(mut text) = serde_json::to_vec(line) else { return };
        text.push(b'\n');
        if self.lines.try_send(text).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn append(path: &Path) -> std::io::Result<BufWriter<File>> {
    Ok(BufWriter::new(OpenOptions::new().create(true).append(true).open(path)?))
}

fn write(waiting: &Receiver<Vec<u8>>, mut file: BufWriter<File>, path: &Path) {
    let mut looked = Instant::now();
    loop {
        let mut done = match waiting.recv_timeout(FLUSH) {
            Ok(line) => file.write_all(&line),
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Err(RecvTimeoutError::Disconnected) => return,
        };
        // By the clock and not by idleness: where lines never stop, they reach the disk, and rotation is noticed, all the same.
        if looked.elapsed() >= FLUSH {
            looked = Instant::now();
            done = done.and(file.flush());
            if !path.exists()
                && let Ok(anew) = append(path)
            {
                file = anew;
            }
        }
        if let Err(error) = done {
            tracing::warn!(%error, path = %path.display(), "the access log cannot be written");
        }
    }
}
