//! A streaming reader of XML as test tools really write it: bounded memory, forgiving, no DTD, no external entities.
//!
//! Not a general parser. One token of a strict parser is as large as its text, and a byte that is not UTF-8 ends it; here every text is
//! cut at a limit while it is read, and foreign bytes become replacement characters. Namespaces are dropped, nesting is not checked.

use std::io::{self, BufRead};

use crate::text::cut;

/// The longest tag that is read, in bytes without its attribute values; a longer one is dropped.
const LONGEST_TAG: usize = 64 * 1024;
/// More attributes than any tool writes.
const MOST_ATTRIBUTES: usize = 64;

/// One piece of a document.
#[derive(Debug, Clone, PartialEq)]
pub enum Token {
    /// `<name a="b">`; `empty` for `<name/>`, which no [`Token::End`] follows.
    Start(Tag),
    /// `</name>`.
    End(String),
    /// Character data, entities resolved, cut at the limit.
    Text(String),
}

/// An opening tag.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tag {
    /// Name without a namespace prefix.
    pub name: String,
    /// Attributes in order, values cut at the limit.
    pub attributes: Vec<(String, String)>,
    /// Whether it closes itself.
    pub empty: bool,
}

impl Tag {
    /// The value of an attribute.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// Reads tokens one after the other.
pub struct Tokens<R> {
    input: R,
    text_limit: usize,
    value_limit: usize,
    /// The input ended inside a tag, a comment or a CDATA section.
    pub truncated: bool,
    /// A read failed; reading ended there.
    pub failed: Option<io::Error>,
}

impl<R: BufRead> Tokens<R> {
    /// Texts are cut at `text_limit` bytes, attribute values at `value_limit`.
    pub fn new(input: R, text_limit: usize, value_limit: usize) -> Self {
        Tokens { input, text_limit, value_limit, truncated: false, failed: None }
    }

    /// The next token; none at the end. Texts are skipped unless `keep_text`.
    pub fn next(&mut self, keep_text: bool) -> Option<Token> {
        loop {
            let mut raw = Vec::new();
            let limit = if keep_text { self.text_limit } else { 0 };
            let more = self.until(b'<', &mut raw, limit);
            if !raw.is_empty() {
                return Some(Token::Text(resolve(&raw, self.text_limit)));
            }
            if !more {
                return None;
            }
            self.eat();
            match self.markup(keep_text) {
                Markup::Token(token) => return Some(token),
                Markup::Nothing => {}
                Markup::End => return None,
            }
        }
    }

    fn markup(&mut self, keep_text: bool) -> Markup {
        match self.peek() {
            None => {
                self.truncated = true;
                Markup::End
            }
            Some(b'/') => {
                let mut name = Vec::new();
                self.eat();
                if !self.until(b'>', &mut name, LONGEST_TAG) {
                    self.truncated = true;
                    return Markup::End;
                }
                self.eat();
                Markup::Token(Token::End(local_name(&String::from_utf8_lossy(&name))))
            }
            Some(b'!') => {
                self.eat();
                self.bang(keep_text)
            }
            Some(b'?') => match self.skip_past(b"?>") {
                true => Markup::Nothing,
                false => Markup::End,
            },
            Some(byte) if byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80 => self.tag(),
            // A bare `<` in a text, as some tools write it: it separates texts and is dropped.
            Some(_) => Markup::Nothing,
        }
    }

    fn bang(&mut self, keep_text: bool) -> Markup {
        match self.peek() {
            Some(b'-') => match self.skip_past(b"-->") {
                true => Markup::Nothing,
                false => Markup::End,
            },
            Some(b'[') => {
                for _ in 0.."[CDATA[".len() {
                    self.eat();
                }
                let mut raw = Vec::new();
                let limit = if keep_text { self.text_limit } else { 0 };
                let whole = self.past(b"]]>", &mut raw, limit);
                let text = cut(String::from_utf8_lossy(&raw).into_owned(), self.text_limit);
                if text.is_empty() {
                    return if whole { Markup::Nothing } else { Markup::End };
                }
                Markup::Token(Token::Text(text))
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
        Markup::End
    }

    /// A tag. Nearly every one lies whole in the buffer and is read in place; one that does not goes byte by byte.
    fn tag(&mut self) -> Markup {
        let whole = match self.input.fill_buf() {
            Ok(chunk) => tag_end(chunk).map(|end| (tag_of(&chunk[..end], self.value_limit), end + 1)),
            Err(_) => None,
        };
        match whole {
            Some((Some(tag), used)) => {
                self.input.consume(used);
                Markup::Token(Token::Start(tag))
            }
            _ => self.long_tag(),
        }
    }

    fn long_tag(&mut self) -> Markup {
        let mut tag = Tag::default();
        let mut word = Vec::new();
        let mut read = 0usize;
        let mut key: Option<String> = None;
        loop {
            read += 1;
            let Some(byte) = self.eat() else {
                self.truncated = true;
                return Markup::End;
            };
            match byte {
                b'>' => break,
                b'"' | b'\'' if key.is_some() => {
                    let mut value = Vec::new();
                    if !self.until(byte, &mut value, self.value_limit) {
                        self.truncated = true;
                        return Markup::End;
                    }
                    self.eat();
                    let name = key.take().unwrap_or_default();
                    if tag.attributes.len() < MOST_ATTRIBUTES {
                        tag.attributes.push((name, resolve(&value, self.value_limit)));
                    }
                }
                b'=' => key = Some(local_name(&String::from_utf8_lossy(&std::mem::take(&mut word)))),
                b' ' | b'\t' | b'\r' | b'\n' | b'/' => {
                    if tag.name.is_empty() {
                        tag.name = local_name(&String::from_utf8_lossy(&word));
                        word.clear();
                    }
                    tag.empty = byte == b'/';
                }
                other => {
                    tag.empty = false;
                    if word.len() < 256 {
                        word.push(other);
                    }
                }
            }
            if read > LONGEST_TAG {
                return Markup::Nothing;
            }
        }
        if tag.name.is_empty() {
            tag.name = local_name(&String::from_utf8_lossy(&word));
        }
        Markup::Token(Token::Start(tag))
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
        self.input.consume(1);
        Some(byte)
    }

    /// Reads up to the delimiter and leaves it unread, keeping at most `limit` bytes. False when the input ended first.
    fn until(&mut self, delimiter: u8, kept: &mut Vec<u8>, limit: usize) -> bool {
        loop {
            let chunk = match self.input.fill_buf() {
                Ok([]) => return false,
                Ok(chunk) => chunk,
                Err(error) => {
                    self.failed = Some(error);
                    return false;
                }
            };
            let end = chunk.iter().position(|&byte| byte == delimiter);
            let part = &chunk[..end.unwrap_or(chunk.len())];
            kept.extend_from_slice(&part[..part.len().min(limit.saturating_sub(kept.len()))]);
            let used = part.len();
            self.input.consume(used);
            if end.is_some() {
                return true;
            }
        }
    }

    fn skip_past(&mut self, end: &[u8]) -> bool {
        self.past(end, &mut Vec::new(), 0)
    }

    /// Reads past `end`, keeping at most `limit` bytes of what stands before it.
    fn past(&mut self, end: &[u8], kept: &mut Vec<u8>, limit: usize) -> bool {
        let last = end[end.len() - 1];
        let mut tail: Vec<u8> = Vec::with_capacity(end.len());
        loop {
            let chunk = match self.input.fill_buf() {
                Ok([]) => {
                    self.truncated = true;
                    return false;
                }
                Ok(chunk) => chunk,
                Err(error) => {
                    self.failed = Some(error);
                    return false;
                }
            };
            let stop = chunk.iter().position(|&byte| byte == last);
            let used = stop.map_or(chunk.len(), |at| at + 1);
            let part = &chunk[..used];
            kept.extend_from_slice(&part[..used.min((limit + end.len()).saturating_sub(kept.len()))]);
            let from = used.saturating_sub(end.len());
            tail.extend_from_slice(&part[from..]);
            let drop = tail.len().saturating_sub(end.len());
            tail.drain(..drop);
            self.input.consume(used);
            if stop.is_some() && tail == end {
                if kept.ends_with(end) {
                    kept.truncate(kept.len() - end.len());
                }
                kept.truncate(limit);
                return true;
            }
        }
    }
}

enum Markup {
    Token(Token),
    Nothing,
    End,
}

/// Where the `>` is that ends a tag, behind any quotes.
fn tag_end(chunk: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let rest = chunk.get(at..)?;
        let next = rest.iter().position(|byte| matches!(byte, b'>' | b'"' | b'\''))?;
        at += next;
        if chunk[at] == b'>' {
            return Some(at);
        }
        at += 1 + chunk[at + 1..].iter().position(|byte| *byte == chunk[at])? + 1;
    }
}

/// The tag between `<` and `>`, if it is as plain as tags are; none: the slow way decides.
fn tag_of(text: &[u8], value_limit: usize) -> Option<Tag> {
    let text = std::str::from_utf8(text).ok()?;
    let (text, empty) = text.strip_suffix('/').map_or((text, false), |text| (text, true));
    let end = text.find(|c: char| c.is_ascii_whitespace()).unwrap_or(text.len());
    let (name, mut rest) = (&text[..end], text[end..].trim_ascii_start());
    if name.is_empty() || name.contains(['"', '\'', '=', '/']) {
        return None;
    }
    let mut attributes = Vec::new();
    while !rest.is_empty() {
        let (key, value) = rest.split_once('=')?;
        let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''))?;
        let (value, behind) = value[1..].split_once(quote)?;
        let plain = !key.is_empty()
            && key.len() < 256
            && !key.contains(|c: char| c.is_ascii_whitespace() || "\"'/".contains(c));
        if !plain || attributes.len() >= MOST_ATTRIBUTES {
            return None;
        }
        attributes
            .push((local_name(key), resolve(&value.as_bytes()[..value.len().min(value_limit)], value_limit)));
        rest = behind.trim_ascii_start();
    }
    Some(Tag { name: local_name(name), attributes, empty })
}

fn local_name(name: &str) -> String {
    let name = name.trim();
    name.rsplit(':').next().unwrap_or(name).to_owned()
}

/// The text with XML's own five entities and character references resolved; anything else stays as it stands.
fn resolve(raw: &[u8], limit: usize) -> String {
    let text = String::from_utf8_lossy(raw);
    if !text.contains('&') {
        return cut(text.into_owned(), limit);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_ref();
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let end = rest.bytes().take(12).position(|byte| byte == b';');
        match end.and_then(|end| Some((entity(&rest[1..end])?, end))) {
            Some((found, end)) => {
                out.push(found);
                rest = &rest[end + 1..];
            }
            None => {
                out.push('&');
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
    cut(out, limit)
}

fn entity(name: &str) -> Option<char> {
    match name {
        "lt" => Some('<'),
        "gt" => Some('>'),
        "amp" => Some('&'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => {
            let number = name.strip_prefix('#')?;
            let code = match number.strip_prefix(['x', 'X']) {
                Some(hex) => u32::from_str_radix(hex, 16),
                None => number.parse(),
            };
            char::from_u32(code.ok()?)
        }
    }
}

#[cfg(test)]
#[path = "xml_tests.rs"]
mod tests;
