//! An instance's output: written in files of limited size, read from the end.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// The most of a log that is read for its tail, in bytes.
const TAIL_MOST: u64 = 4 * 1024 * 1024;

/// A log under way. When it is full it becomes `log.1`, that one `log.2`, and the oldest goes.
pub(crate) struct Log {
    path: PathBuf,
    file: File,
    size: u64,
    most: u64,
    keep: u32,
}

fn aside(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

impl Log {
    pub fn open(path: &Path, most: u64, keep: u32) -> io::Result<Log> {
        let file = open(path)?;
        let size = file.metadata()?.len();
        Ok(Log { path: path.to_owned(), file, size, most, keep })
    }

    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.size + bytes.len() as u64 > self.most && self.size > 0 {
            self.rotate()?;
        }
        self.file.write_all(bytes)?;
        self.size += bytes.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        for number in (1..self.keep).rev() {
            match std::fs::rename(aside(&self.path, number), aside(&self.path, number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if self.keep > 0 {
            std::fs::rename(&self.path, aside(&self.path, 1))?;
        } else {
            std::fs::remove_file(&self.path)?;
        }
        self.file = open(&self.path)?;
        self.size = 0;
        Ok(())
    }
}

/// The last lines, the file set aside last included where the current one is too short.
pub(crate) fn tail(path: &Path, lines: usize) -> io::Result<String> {
    let mut bytes = end(path)?;
    if count(&bytes) < lines {
        let mut before = end(&aside(path, 1))?;
        before.append(&mut bytes);
        bytes = before;
    }
    let text = String::from_utf8_lossy(&bytes);
    let skip = text.lines().count().saturating_sub(lines);
    Ok(text.lines().skip(skip).flat_map(|line| [line, "\n"]).collect())
}

fn count(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == b'\n').count()
}

fn end(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        file => file?,
    };
    let size = file.metadata()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(TAIL_MOST)))?;
    let mut bytes = Vec::new();
    file.take(TAIL_MOST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_log_is_set_aside_and_the_oldest_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = Log::open(&path, 10, 2).unwrap();
        for n in 0..6 {
            log.write(format!("line {n}\n").as_bytes()).unwrap();
        }
        let read = |path: &Path| std::fs::read_to_string(path).unwrap();
        assert_eq!(
            (read(&path), read(&aside(&path, 1)), read(&aside(&path, 2))),
            ("line 5\n".into(), "line 4\n".into(), "line 3\n".into())
        );
        assert!(!aside(&path, 3).exists());
        assert_eq!(tail(&path, 2).unwrap(), "line 4\nline 5\n");
        assert_eq!(tail(&dir.path().join("none"), 2).unwrap(), "");
    }
}
