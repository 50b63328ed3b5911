//! An opening tag of XML, and reading the plain ones in place; entities resolved. Reads no document.

use memchr::memchr;

use crate::text::cut;

/// More attributes than any tool writes.
pub(crate) const MOST_ATTRIBUTES: usize = 64;

/// An opening tag: its text once, and where in it names and values are.
#[derive(Debug, Default)]
pub struct Tag {
    text: String,
    pub(crate) name: (usize, usize),
    pub(crate) attributes: Vec<[(usize, usize); 2]>,
    /// Whether it closes itself.
    pub empty: bool,
}

impl Tag {
    /// Name without a namespace prefix.
    pub fn name(&self) -> &str {
        &self.text[self.name.0..self.name.1]
    }

    /// The value of an attribute, cut at the limit.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.attributes().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// All attributes in order, names without their prefixes.
    pub fn attributes(&self) -> impl Iterator<Item = (&str, &str)> {
        self.attributes.iter().map(|[key, value]| (&self.text[key.0..key.1], &self.text[value.0..value.1]))
    }

    pub(crate) fn clear(&mut self) {
        self.text.clear();
        self.attributes.clear();
        (self.name, self.empty) = ((0, 0), false);
    }

    pub(crate) fn keep(&mut self, text: &str) -> (usize, usize) {
        let from = self.text.len();
        self.text.push_str(text);
        (from, self.text.len())
    }
}

/// Bytes that end a name of a plain tag.
const ENDS: [bool; 256] = {
    let mut ends = [false; 256];
    let marks = b" \t\r\n\x0c/>=\"'";
    let mut at = 0;
    while at < marks.len() {
        ends[marks[at] as usize] = true;
        at += 1;
    }
    ends
};

/// The tag that starts with these bytes behind its `<`, and its length with the `>`, if it lies whole in them and is as plain as tags
/// are; none: the slow way decides.
pub(crate) fn tag_of(bytes: &[u8], value_limit: usize, tag: &mut Tag) -> Option<usize> {
    let word =
        |from: usize| Some(from + bytes.get(from..)?.iter().position(|byte| ENDS[usize::from(*byte)])?);
    let space =
        |from: usize| Some(from + bytes.get(from..)?.iter().position(|byte| !byte.is_ascii_whitespace())?);
    let name_end = word(0)?;
    if name_end == 0 || matches!(bytes[name_end], b'=' | b'"' | b'\'' | b'\x0c') {
        return None;
    }
    let mut at = name_end;
    let end = loop {
        at = space(at)?;
        match bytes[at] {
            b'>' => break at,
            b'/' if bytes.get(at + 1) == Some(&b'>') => {
                tag.empty = true;
                break at + 1;
            }
            _ => {}
        }
        let key_end = word(at)?;
        let quote = *bytes.get(key_end + 1)?;
        let odd =
            key_end == at || key_end - at >= 256 || bytes[key_end] != b'=' || !matches!(quote, b'"' | b'\'');
        if odd || tag.attributes.len() >= MOST_ATTRIBUTES {
            return None;
        }
        let from = key_end + 2;
        let value = memchr(quote, bytes.get(from..)?)?;
        tag.attributes.push([(at, key_end), (from, from + value)]);
        at = from + value + 1;
    };
    // One check and one copy for the whole tag; what is not plain text is resolved and put behind it.
    tag.text.push_str(std::str::from_utf8(&bytes[..end]).ok()?);
    tag.name = local(&tag.text, (0, name_end));
    for n in 0..tag.attributes.len() {
        let [key, (from, to)] = tag.attributes[n];
        let raw = &bytes[from..to];
        let value = match raw.len() > value_limit || memchr(b'&', raw).is_some() {
            true => tag.keep(&resolve(&raw[..raw.len().min(value_limit)], value_limit)),
            false => (from, to),
        };
        tag.attributes[n] = [local(&tag.text, key), value];
    }
    Some(end + 1)
}

fn local(text: &str, (from, to): (usize, usize)) -> (usize, usize) {
    (text[from..to].rfind(':').map_or(from, |colon| from + colon + 1), to)
}

pub(crate) fn local_name(name: &str) -> &str {
    let name = name.trim();
    name.rsplit(':').next().unwrap_or(name)
}

/// The text with XML's own five entities and character references resolved; anything else stays as it stands.
pub(crate) fn resolve(raw: &[u8], limit: usize) -> String {
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
