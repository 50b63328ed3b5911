//! The `proc-receive` hook: git's side on stdin and stdout, the server's side on its socket. Decides nothing; the server does.
//!
//! Protocol: git's `Documentation/githooks`, section proc-receive. Frames are pkt-lines: four hexadecimal digits of length, then the
//! payload; `0000` ends a section.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;

use serde::{Deserialize, Serialize};

/// Environment variable with the server's socket.
pub const SOCKET: &str = "ANDON_HOOK_SOCKET";
/// Environment variable with the key of this push.
pub const KEY: &str = "ANDON_HOOK_KEY";

/// Most commands or options that one push may carry.
const MOST: usize = 100;

/// One ref that the pusher wants moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Update {
    /// What the pusher believes it to be.
    pub old: String,
    /// What it shall be.
    pub new: String,
    /// The ref, as given: not checked.
    pub reference: String,
}

/// What the hook asks the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// The key of this push.
    pub key: String,
    /// What it wants.
    pub updates: Vec<Update>,
    /// `-o` options.
    pub options: Vec<String>,
}

/// What the server says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Lines for the pusher's terminal.
    pub lines: Vec<String>,
    /// For each update in order: none when accepted, else the reason.
    pub refused: Vec<Option<String>>,
}

/// Runs the hook: the process's whole life. Returns its exit status.
pub fn main() -> i32 {
    let outcome = (|| {
        let (mut input, mut output) = (io::stdin().lock(), io::stdout().lock());
        let (updates, options) = hear(&mut input, &mut output)?;
        let key = std::env::var(KEY).unwrap_or_default();
        let answer = ask(&Question { key, updates: updates.clone(), options })?;
        for line in &answer.lines {
            eprintln!("{line}");
        }
        reply(&mut output, &updates, &answer)
    })();
    match outcome {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("andon: the push was not taken: {error}");
            eprintln!("hint: nothing was changed; push again when the server is up");
            1
        }
    }
}

fn ask(question: &Question) -> io::Result<Answer> {
    let path = std::env::var_os(SOCKET).ok_or_else(|| bad("pushes come in through the server only"))?;
    let mut socket = UnixStream::connect(path)?;
    let mut text = serde_json::to_string(question)?;
    text.push('\n');
    socket.write_all(text.as_bytes())?;
    let mut line = String::new();
    BufReader::new(socket.take(1 << 20)).read_line(&mut line)?;
    serde_json::from_str(&line).map_err(|_| bad("the server stopped before it answered"))
}

/// Reads the greeting and the commands, and answers the greeting.
fn hear(input: &mut impl Read, output: &mut impl Write) -> io::Result<(Vec<Update>, Vec<String>)> {
    let greeting = section(input)?;
    let greeting = greeting.first().map(String::as_str).unwrap_or_default();
    let (version, offers) = greeting.split_once('\0').unwrap_or((greeting, ""));
    if version.trim() != "version=1" {
        return Err(bad("this git speaks another version of proc-receive"));
    }
    let with_options = offers.split_whitespace().any(|offer| offer == "push-options");
    let agreed = if with_options { "version=1\0push-options" } else { "version=1" };
    frame(output, agreed)?;
    output.write_all(b"0000")?;
    output.flush()?;
    let updates = section(input)?.iter().map(|line| update(line)).collect::<io::Result<_>>()?;
    let options = if with_options { section(input)? } else { Vec::new() };
    Ok((updates, options))
}

fn update(line: &str) -> io::Result<Update> {
    let mut words = line.splitn(3, ' ');
    match (words.next(), words.next(), words.next()) {
        (Some(old), Some(new), Some(name)) => {
            Ok(Update { old: old.into(), new: new.into(), reference: name.into() })
        }
        _ => Err(bad("a command without a ref")),
    }
}

fn reply(output: &mut impl Write, updates: &[Update], answer: &Answer) -> io::Result<()> {
    for (at, update) in updates.iter().enumerate() {
        match answer.refused.get(at) {
            Some(None) => frame(output, &format!("ok {}", update.reference))?,
            Some(Some(why)) => frame(
                output,
                &format!("ng {} {}", update.reference, why.lines().next().unwrap_or("refused")),
            )?,
            None => frame(output, &format!("ng {} not decided", update.reference))?,
        }
    }
    output.write_all(b"0000")?;
    output.flush()
}

/// Frames up to the next flush.
pub fn section(input: &mut impl Read) -> io::Result<Vec<String>> {
    let mut frames = Vec::new();
    loop {
        let mut head = [0u8; 4];
        input.read_exact(&mut head)?;
        let digits = std::str::from_utf8(&head).map_err(|_| bad("a frame without a length"))?;
        let length = usize::from_str_radix(digits, 16).map_err(|_| bad("a frame without a length"))?;
        match length {
            0 => return Ok(frames),
            1..=3 => return Err(bad("a frame of an unknown kind")),
            _ if frames.len() == MOST => return Err(bad("more than 100 refs or options in one push")),
            _ => {}
        }
        let mut payload = vec![0; length - 4];
        input.read_exact(&mut payload)?;
        let text = String::from_utf8(payload).map_err(|_| bad("a ref or option that is not UTF-8"))?;
        frames.push(text.trim_end_matches('\n').to_owned());
    }
}

fn frame(output: &mut impl Write, text: &str) -> io::Result<()> {
    writeln!(output, "{:04x}{text}", text.len() + 5)
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(texts: &[&str]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for text in texts {
            frame(&mut bytes, text).unwrap();
        }
        bytes.extend(b"0000");
        bytes
    }

    #[test]
    fn commands_and_options_are_heard_in_order() {
        let zero = "0".repeat(40);
        let mut input = frames(&["version=1\0push-options atomic"]);
        input.extend(frames(&[&format!("{zero} {zero} refs/for/main")]));
        input.extend(frames(&["topic=login"]));
        let mut output = Vec::new();
        let (updates, options) = hear(&mut &input[..], &mut output).unwrap();
        assert_eq!(updates[0].reference, "refs/for/main");
        assert_eq!(options, ["topic=login"]);
        assert!(String::from_utf8_lossy(&output).contains("version=1\0push-options"));
    }

    #[test]
    fn every_update_is_answered_even_if_the_server_said_nothing_about_it() {
        let update = Update { old: "0".into(), new: "1".into(), reference: "refs/for/main".into() };
        let mut output = Vec::new();
        reply(&mut output, &[update], &Answer::default()).unwrap();
        assert!(String::from_utf8_lossy(&output).contains("ng refs/for/main not decided"));
    }

    #[test]
    fn broken_frames_are_errors_and_never_panics() {
        for bad in [&b"zzzz"[..], b"0001", b"ffff", b"0003", b"", b"0009\xff\xff\xff\xff\xff"] {
            assert!(section(&mut &bad[..]).is_err(), "{bad:?} was read");
        }
    }
}
