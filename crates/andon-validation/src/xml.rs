//! A streaming reader of XML as test tools really write it: bounded memory, forgiving, no DTD, no external entities.
//!
//! Not a general parser. One token of a strict parser is as large as its text, and a byte that is not UTF-8 ends it; here every text is
//! cut at a limit while it is read, and foreign bytes become replacement characters. Namespaces are dropped, nesting is not checked.

use std::io::{self, BufRead};

use memchr::memchr;

use crate::text::cut;
pub use crate::xml_tag::Tag;
use crate::xml_tag::{MOST_ATTRIBUTES, local_name, resolve, tag_of};

/// The longest tag that is read, in bytes without its attribute values; a longer one is dropped.
const LONGEST_TAG: usize = 64 * 1024;

/// One piece of a document. It lives until the next one is asked for: nothing is allocated for each.
#[derive(Debug)]
pub enum Token<'a> {
    /// `<name a="b">`; empty for `<name/>`, which no [`Token::End`] follows.
    Start(&'a Tag),
    /// `</name>`.
    End(&'a str),
    /// Character data, entities resolved, cut at the limit.
    Text(&'a str),
}

/// Reads tokens one after the other.
pub struct Tokens<R> {
    input: R,
    text_limit: usize,
    value_limit: usize,
    tag: Tag,
    /// The newest text or closing name.
    held: String,
    raw: Vec<u8>,
    /// Bytes read so far.
    position: u64,
    /// The input ended inside a tag, a comment or a CDATA section.
    pub truncated: bool,
    /// A read failed; reading ended there.
    pub failed: Option<io::Error>,
}

impl<R: BufRead> Tokens<R> {
    /// Texts are cut at `text_limit` bytes, attribute values at `value_limit`.
    pub fn new(input: R, text_limit: usize, value_limit: usize) -> Self {
        Tokens {
            input,
            text_limit,
            value_limit,
            tag: Tag::default(),
            held: String::new(),
            raw: Vec::new(),
            position: 0,
            truncated: false,
            failed: None,
        }
    }

    /// The next token; none at the end. Texts are skipped unless `keep_text`.
    pub fn next(&mut self, keep_text: bool) -> Option<Token<'_>> {
        loop {
            let limit = if keep_text { self.text_limit } else { 0 };
            self.raw.clear();
            let more = self.until(b'<', limit);
            if !self.raw.is_empty() {
                self.held = resolve(&self.raw, self.text_limit);
                return Some(Token::Text(&self.held));
            }
            if !more {
                return None;
            }
            self.eat();
            match self.markup(keep_text) {
                Markup::Start => return Some(Token::Start(&self.tag)),
                Markup::End => return Some(Token::End(&self.held)),
                Markup::Text => return Some(Token::Text(&self.held)),
                Markup::Nothing => {}
                Markup::Over => return None,
            }
        }
    }

    /// What to say when the document ended too early; `open`: elements are still open.
    pub fn cut_short(&self, open: bool) -> Option<String> {
        let at = self.position;
        match &self.failed {
            Some(error) => Some(format!("the report could not be read to its end: {error} (at byte {at})")),
            None if self.truncated || open => Some(format!(
                "the report ends in the middle, at byte {at}: the tool that wrote it was stopped or ran out of space"
            )),
            None => None,
        }
    }

    fn markup(&mut self, keep_text: bool) -> Markup {
        match self.peek() {
            None => {
                self.truncated = true;
                Markup::Over
            }
            Some(b'/') => {
                self.eat();
                self.raw.clear();
                if !self.until(b'>', LONGEST_TAG) {
                    self.truncated = true;
                    return Markup::Over;
                }
                self.eat();
                self.held.clear();
                let name = String::from_utf8_lossy(&self.raw);
                self.held.push_str(local_name(&name));
                Markup::End
            }
            Some(b'!') => {
                self.eat();
                self.bang(keep_text)
            }
            Some(b'?') => match self.skip_past(b"?>") {
                true => Markup::Nothing,
                false => Markup::Over,
            },
            Some(byte) if is_name(byte) => self.tag(),
            // A bare `<` in a text, as some tools write it: it separates texts and is dropped.
            Some(_) => Markup::Nothing,
        }
    }

    fn bang(&mut self, keep_text: bool) -> Markup {
        match self.peek() {
            Some(b'-') => match self.skip_past(b"-->") {
                true => Markup::Nothing,
                false => Markup::Over,
            },
            Some(b'[') => {
                for _ in 0.."[CDATA[".len() {
                    self.eat();
                }
                self.raw.clear();
                let limit = if keep_text { self.text_limit } else { 0 };
                let whole = self.past(b"]]>", limit);
                self.held = cut(String::from_utf8_lossy(&self.raw).into_owned(), self.text_limit);
                if self.held.is_empty() {
                    return if whole { Markup::Nothing } else { Markup::Over };
                }
                Markup::Text
            }
            _ => self.skip_declaration(),
        }
    }

    /// `<!DOCTYPE …>` with its internal subset: nothing in it is used.
    fn skip_declaration(&mut self) -> Markup {
        let (mut depth, mut quote) = (0u32, None);
        while let Some(byte) = self.eat() {
            match (quote, byte) {
                (Some(open), _) if open == byte => quote = None,
                (Some(_), _) => {}
                (None, b'"' | b'\'') => quote = Some(byte),
                (None, b'[') => depth += 1,
                (None, b']') => depth = depth.saturating_sub(1),
                (None, b'>') if depth == 0 => return Markup::Nothing,
                _ => {}
            }
        }
        self.truncated = true;
        Markup::Over
    }

    /// A tag. Nearly every one lies whole in the buffer and is read in place; one that does not goes byte by byte.
    fn tag(&mut self) -> Markup {
        self.tag.clear();
        let used = match self.input.fill_buf() {
            Ok(chunk) => tag_of(chunk, self.value_limit, &mut self.tag),
            Err(_) => None,
        };
        match used {
            Some(used) => {
                self.consume(used);
                Markup::Start
            }
            None => self.long_tag(),
        }
    }

    fn long_tag(&mut self) -> Markup {
        self.tag.clear();
        let mut named = false;
        let mut word = Vec::new();
        let mut read = 0usize;
        let mut key: Option<(usize, usize)> = None;
        loop {
            read += 1;
            let Some(byte) = self.eat() else {
                self.truncated = true;
                return Markup::Over;
            };
            match byte {
                b'>' => break,
                b'"' | b'\'' if key.is_some() => {
                    self.raw.clear();
                    if !self.until(byte, self.value_limit) {
                        self.truncated = true;
                        return Markup::Over;
                    }
                    self.eat();
                    if let Some(key) = key.take().filter(|_| self.tag.attributes.len() < MOST_ATTRIBUTES) {
                        let value = resolve(&self.raw, self.value_limit);
                        let value = self.tag.keep(&value);
                        self.tag.attributes.push([key, value]);
                    }
                }
                b'=' => {
                    let name = String::from_utf8_lossy(&std::mem::take(&mut word)).into_owned();
                    key = Some(self.tag.keep(local_name(&name)));
                }
                b' ' | b'\t' | b'\r' | b'\n' | b'/' => {
                    if !named {
                        named = !word.is_empty();
                        self.name(&mut word);
                    }
                    self.tag.empty = byte == b'/';
                }
                other => {
                    self.tag.empty = false;
                    if word.len() < 256 {
                        word.push(other);
                    }
                }
            }
            if read > LONGEST_TAG {
                return Markup::Nothing;
            }
        }
        if !named {
            self.name(&mut word);
        }
        Markup::Start
    }

    fn name(&mut self, word: &mut Vec<u8>) {
        let name = String::from_utf8_lossy(word).into_owned();
        self.tag.name = self.tag.keep(local_name(&name));
        word.clear();
    }

    fn consume(&mut self, bytes: usize) {
        self.position += bytes as u64;
        self.input.consume(bytes);
    }

    fn peek(&mut self) -> Option<u8> {
        match self.input.fill_buf() {
            Ok(chunk) => chunk.first().copied(),
            Err(error) => {
                self.failed = Some(error);
                None
            }
        }
    }

    fn eat(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.consume(1);
        Some(byte)
    }

    /// Reads into `raw` up to the delimiter and leaves it unread, keeping at most `limit` bytes. False when the input ended first.
    fn until(&mut self, delimiter: u8, limit: usize) -> bool {
        loop {
            let chunk = match self.input.fill_buf() {
                Ok([]) => return false,
                Ok(chunk) => chunk,
                Err(error) => {
                    self.failed = Some(error);
                    return false;
                }
            };
            let end = memchr(delimiter, chunk);
            let used = end.unwrap_or(chunk.len());
            self.raw.extend_from_slice(&chunk[..used.min(limit.saturating_sub(self.raw.len()))]);
            self.consume(used);
            if end.is_some() {
                return true;
            }
        }
    }

    fn skip_past(&mut self, end: &[u8]) -> bool {
        self.raw.clear();
        self.past(end, 0)
    }

    /// Reads past `end`, keeping at most `limit` bytes of what stands before it.
    fn past(&mut self, end: &[u8], limit: usize) -> bool {
        let mut tail: Vec<u8> = Vec::with_capacity(end.len() * 2);
        let last = end[end.len() - 1];
        loop {
            let chunk = match self.input.fill_buf() {
                Ok([]) => {
                    self.truncated = true;
                    self.raw.truncate(limit);
                    return false;
                }
                Ok(chunk) => chunk,
                Err(error) => {
                    self.failed = Some(error);
                    return false;
                }
            };
            let stop = memchr(last, chunk);
            let used = stop.map_or(chunk.len(), |at| at + 1);
            let part = &chunk[..used];
            let room = (limit + end.len()).saturating_sub(self.raw.len());
            self.raw.extend_from_slice(&part[..used.min(room)]);
            let from = used.saturating_sub(end.len());
            tail.extend_from_slice(&part[from..]);
            let drop = tail.len().saturating_sub(end.len());
            tail.drain(..drop);
            self.consume(used);
            if stop.is_some() && tail == end {
                if self.raw.ends_with(end) {
                    let kept = self.raw.len() - end.len();
                    self.raw.truncate(kept);
                }
                self.raw.truncate(limit);
                return true;
            }
        }
    }
}

enum Markup {
    Start,
    End,
    Text,
    Nothing,
    /// Nothing follows.
    Over,
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

#[cfg(test)]
#[path = "xml_tests.rs"]
mod tests;
