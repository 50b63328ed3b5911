//! What was typed into a shell and shown by it, as a file that grows while it is open (asciicast, version 2: a line of JSON for each piece,
//! <https://docs.asciinema.org/manual/asciicast/v2/>). Secrets are replaced before anything is written. Knows no shell.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use andon_kit::Mask;
use andon_kit::mask::Stream as Masked;
use andon_model::Time;
use serde_json::json;

/// The most that is kept of what was shown, and of what was typed, in bytes.
pub const LARGEST: u64 = 8 << 20;
/// Shorter values are not looked for: `1` or `on` would hide everything.
const SHORTEST: usize = 6;

/// What the first line says.
#[derive(Debug, Clone)]
pub struct About {
    /// What it is a recording of.
    pub title: String,
    /// The command, if one was said.
    pub command: Vec<String>,
    /// Columns and rows; of a terminal that does not exist: 80 by 24.
    pub size: (u16, u16),
    /// What programs know the terminal by.
    pub terminal: Option<String>,
    /// When it began.
    pub at: Time,
}

/// A recording under way. What was written is on its way to the disk, whatever becomes of this process.
pub struct Recording {
    file: File,
    began: Time,
    shown: Stream,
    typed: Stream,
    /// Not all that was shown is in it.
    pub cut: bool,
}

/// One direction.
struct Stream {
    code: &'static str,
    mask: Masked,
    /// The beginning of a character that is not whole yet.
    rest: Vec<u8>,
    bytes: u64,
}

impl Recording {
    /// Begins a file that is not there yet. Values that are too short to be secrets are left as they are.
    pub fn begin(path: &Path, about: &About, secrets: &[String]) -> io::Result<Recording> {
        use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
        if let Some(folder) = path.parent() {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
        let mut head = json!({
            "version": 2, "width": about.size.0, "height": about.size.1,
            "timestamp": about.at.0 / 1000, "title": hide(&about.title, secrets),
        });
        if !about.command.is_empty() {
            head["command"] = json!(hide(&about.command.join(" "), secrets));
        }
        if let Some(terminal) = &about.terminal {
            head["env"] = json!({ "TERM": terminal });
        }
        writeln!(file, "{head}")?;
        let stream = |code| Stream { code, mask: mask(secrets).stream(), rest: Vec::new(), bytes: 0 };
        Ok(Recording { file, began: about.at, shown: stream("o"), typed: stream("i"), cut: false })
    }

    /// Output. Beyond [`LARGEST`] nothing more is kept, and the recording says so.
    pub fn shown(&mut self, now: Time, bytes: &[u8]) -> io::Result<()> {
        if self.cut {
            return Ok(());
        }
        if self.shown.bytes + bytes.len() as u64 > LARGEST {
            self.cut = true;
            return self.mark(now, "more was shown than a recording keeps: the rest is left out");
        }
        let piece = self.shown.take(bytes);
        self.piece(now, "o", &piece)
    }

    /// Input. False: more than [`LARGEST`], and it was not kept; the shell has to end, since nothing is typed that is not recorded.
    pub fn typed(&mut self, now: Time, bytes: &[u8]) -> io::Result<bool> {
        if self.typed.bytes + bytes.len() as u64 > LARGEST {
            self.mark(now, "more was typed than a recording keeps: the shell was closed")?;
            return Ok(false);
        }
        let piece = self.typed.take(bytes);
        self.piece(now, "i", &piece).map(|()| true)
    }

    /// Another size of the terminal.
    pub fn resized(&mut self, now: Time, columns: u16, rows: u16) -> io::Result<()> {
        self.piece(now, "r", &format!("{columns}x{rows}"))
    }

    /// Writes what was held back, and waits until all of it is on the disk.
    pub fn end(&mut self, now: Time) -> io::Result<()> {
        for last in [self.typed.end(), self.shown.end()] {
            let (code, text) = last;
            self.piece(now, code, &text)?;
        }
        self.file.sync_all()
    }

    fn mark(&mut self, now: Time, words: &str) -> io::Result<()> {
        self.piece(now, "m", words)
    }

    fn piece(&mut self, now: Time, code: &str, text: &str) -> io::Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        let seconds = now.since(self.began).0 as f64 / 1000.0;
        // One write for each line: a process that is killed leaves whole lines.
        let line = format!("{}\n", json!([seconds, code, text]));
        self.file.write_all(line.as_bytes())
    }
}

impl Stream {
    fn take(&mut self, bytes: &[u8]) -> String {
        self.bytes += bytes.len() as u64;
        let mut clear = Vec::new();
        self.mask.push(bytes, &mut clear);
        self.text(&clear, false)
    }

    fn end(&mut self) -> (&'static str, String) {
        let mut clear = Vec::new();
        self.mask.end(&mut clear);
        (self.code, self.text(&clear, true))
    }

    /// Whole characters; the beginning of one waits for the rest, what can be none is replaced.
    fn text(&mut self, bytes: &[u8], last: bool) -> String {
        self.rest.extend_from_slice(bytes);
        let mut text = String::new();
        let mut at = 0;
        loop {
            match std::str::from_utf8(&self.rest[at..]) {
                Ok(whole) => {
                    text.push_str(whole);
                    at = self.rest.len();
                    break;
                }
                Err(error) => {
                    let good = at + error.valid_up_to();
                    text.push_str(std::str::from_utf8(&self.rest[at..good]).unwrap_or_default());
                    at = good;
                    match error.error_len() {
                        Some(bad) => at += bad,
                        None if last => at = self.rest.len(),
                        None => break,
                    }
                    text.push(char::REPLACEMENT_CHARACTER);
                }
            }
        }
        self.rest.drain(..at);
        text
    }
}

/// A text without the secrets in it.
pub fn hide(text: &str, secrets: &[String]) -> String {
    mask(secrets).hide(text)
}

fn mask(secrets: &[String]) -> Mask {
    Mask::new(secrets.iter().map(String::as_str), SHORTEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about() -> About {
        About { title: "t".into(), command: Vec::new(), size: (80, 24), terminal: None, at: Time(0) }
    }

    fn recorded(secrets: &[&str], act: impl FnOnce(&mut Recording)) -> Vec<serde_json::Value> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/S1.cast");
        let secrets: Vec<String> = secrets.iter().map(|secret| (*secret).to_owned()).collect();
        let mut recording = Recording::begin(&path, &about(), &secrets).unwrap();
        act(&mut recording);
        recording.end(Time(2000)).unwrap();
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn all(lines: &[serde_json::Value], code: &str) -> String {
        lines[1..].iter().filter(|line| line[1] == code).map(|line| line[2].as_str().unwrap()).collect()
    }

    #[test]
    fn a_secret_is_hidden_however_it_is_cut_into_pieces() {
        let text = "url=postgres://u:hunter22@h/db pw=hunter22 hunter2 x";
        let secrets = ["hunter22", "postgres://u:hunter22@h/db"];
        for step in 1..text.len() {
            let lines = recorded(&secrets, |recording| {
                for piece in text.as_bytes().chunks(step) {
                    recording.shown(Time(10), piece).unwrap();
                    assert!(recording.typed(Time(11), piece).unwrap());
                }
            });
            for code in ["o", "i"] {
                assert_eq!(all(&lines, code), "url=[hidden] pw=[hidden] hunter2 x", "pieces of {step}");
            }
        }
        let lines = recorded(&secrets, |recording| recording.shown(Time(1), b"it is hunter2").unwrap());
        assert_eq!(all(&lines, "o"), "it is [hidden]", "nearly all of it is as good as all of it");
    }

    #[test]
    fn characters_are_whole_and_bytes_that_are_none_are_replaced() {
        let text = "grün → ok".as_bytes();
        let lines = recorded(&[], |recording| {
            text.iter().for_each(|byte| recording.shown(Time(1), &[*byte]).unwrap());
            recording.shown(Time(1), b"\xff!\xe2\x86").unwrap();
        });
        assert_eq!(all(&lines, "o"), "grün → ok\u{fffd}!\u{fffd}");
        assert_eq!((&lines[0]["version"], &lines[0]["width"]), (&2.into(), &80.into()));
    }

    #[test]
    fn what_is_too_much_is_left_out_with_a_word_and_nothing_is_typed_unrecorded() {
        let piece = vec![b'x'; (LARGEST / 4) as usize];
        let mut cut = false;
        let lines = recorded(&[], |recording| {
            (0..5).for_each(|_| recording.shown(Time(1), &piece).unwrap());
            cut = recording.cut;
            let typed: Vec<bool> = (0..5).map(|_| recording.typed(Time(1), &piece).unwrap()).collect();
            assert_eq!(typed, [true, true, true, true, false]);
        });
        assert!(cut);
        assert_eq!(all(&lines, "o").len() as u64, LARGEST);
        assert!(all(&lines, "m").contains("left out") && all(&lines, "m").contains("closed"));
    }

    #[test]
    fn values_that_are_too_short_to_be_secrets_stay() {
        let lines = recorded(&["1", "on", ""], |recording| recording.shown(Time(1), b"1 on").unwrap());
        assert_eq!(all(&lines, "o"), "1 on");
    }
}
