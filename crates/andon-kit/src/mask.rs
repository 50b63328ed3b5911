//! Secrets kept out of what programs print, in every form that programs give them, however the output is cut into pieces. Keeps none.
//!
//! All occurrences are found, also those that overlap, and each stretch of them is replaced by one word. What may be the beginning of one is
//! held back until the next bytes decide.

use std::collections::BTreeSet;
use std::sync::Arc;

use aho_corasick::{AhoCorasick, MatchKind, packed};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// Stands for a secret.
pub const HIDDEN: &str = "[hidden]";
/// Forms that are shorter than this, in bytes, stand in too much that is no secret.
const SHORTEST_FORM: usize = 6;
/// Parts of a secret (its lines, the texts in it where it is JSON) are secrets of their own from this length on, in bytes.
const SHORTEST_PART: usize = 8;
/// Of a secret that was not finished so much may be seen.
const HARMLESS: usize = 3;
/// Bytes at the beginning of a form that are looked for first.
const BEGINNING: usize = 6;
/// Lines that tools break base64 into.
const COLUMNS: [usize; 2] = [76, 64];

/// Secrets, ready to be found.
#[derive(Debug, Clone, Default)]
pub struct Mask {
    found: Option<Arc<Forms>>,
}

#[derive(Debug)]
struct Forms {
    automaton: AhoCorasick,
    /// Beginnings of all forms, many bytes at a time: nearly all output has none of them, and is not looked at further. None: there are too many.
    beginnings: Option<packed::Searcher>,
    /// Sorted.
    all: Vec<Vec<u8>>,
    longest: usize,
    /// Bytes that a form begins with.
    begins: [bool; 256],
}

impl Mask {
    /// For these values. Those shorter than `shortest` bytes are left out: to hide `1` or `on` would hide everything.
    pub fn new<'a>(values: impl IntoIterator<Item = &'a str>, shortest: usize) -> Mask {
        let mut all: BTreeSet<Vec<u8>> = BTreeSet::new();
        for value in values {
            for part in parts(value, shortest) {
                forms(&part, &mut all);
                all.insert(part.into_bytes());
            }
        }
        all.remove(&Vec::new());
        let all: Vec<Vec<u8>> = all.into_iter().collect();
        // Only the sum of all lengths is limited, far beyond what a server keeps as secrets.
        let automaton = AhoCorasick::builder().match_kind(MatchKind::Standard).build(&all).ok();
        let beginnings = packed::Searcher::new(
            all.iter().map(|form| &form[..form.len().min(BEGINNING)]).collect::<BTreeSet<&[u8]>>(),
        );
        let longest = all.iter().map(Vec::len).max().unwrap_or(0);
        let mut begins = [false; 256];
        all.iter().filter_map(|form| form.first()).for_each(|first| begins[usize::from(*first)] = true);
        let found = automaton
            .filter(|_| longest > 0)
            .map(|automaton| Arc::new(Forms { automaton, beginnings, all, longest, begins }));
        Mask { found }
    }

    /// Whether there is nothing to hide.
    pub fn is_empty(&self) -> bool {
        self.found.is_none()
    }

    /// A whole text without the secrets in it.
    pub fn hide(&self, text: &str) -> String {
        let mut stream = self.stream();
        let mut clear = Vec::with_capacity(text.len());
        stream.push(text.as_bytes(), &mut clear);
        stream.end(&mut clear);
        String::from_utf8_lossy(&clear).into_owned()
    }

    /// For output that comes in pieces.
    pub fn stream(&self) -> Stream {
        Stream { mask: self.clone(), held: Vec::new(), covered: 0 }
    }
}

/// Output in pieces.
#[derive(Debug)]
pub struct Stream {
    mask: Mask,
    held: Vec<u8>,
    /// So many bytes of what is held belong to a secret whose word was written already.
    covered: usize,
}

impl Stream {
    /// Takes a piece; adds to `clear` what is decided.
    pub fn push(&mut self, bytes: &[u8], clear: &mut Vec<u8>) {
        let Some(forms) = self.mask.found.clone() else {
            clear.extend_from_slice(bytes);
            return;
        };
        self.held.extend_from_slice(bytes);
        let open = forms.open(&self.held);
        self.write(&forms, open, clear);
    }

    /// Nothing more comes: what may have been the beginning of a secret is one if it is more than a few bytes.
    pub fn end(&mut self, clear: &mut Vec<u8>) {
        let Some(forms) = self.mask.found.clone() else { return };
        let open = forms.open(&self.held);
        let begun = self.held.len() - open > HARMLESS;
        self.write(&forms, if begun { open } else { self.held.len() }, clear);
        if begun && self.covered == 0 {
            clear.extend_from_slice(HIDDEN.as_bytes());
        }
        self.held.clear();
        self.covered = 0;
    }

    /// Writes everything before `until`; the rest stays.
    fn write(&mut self, forms: &Forms, until: usize, clear: &mut Vec<u8>) {
        let mut at = 0;
        let mut covered = 0;
        for (from, to) in forms.stretches(&self.held, self.covered) {
            if from >= until {
                break;
            }
            clear.extend_from_slice(&self.held[at..from]);
            if from > 0 || self.covered == 0 {
                clear.extend_from_slice(HIDDEN.as_bytes());
            }
            at = to.min(until);
            covered = to.saturating_sub(until);
        }
        clear.extend_from_slice(&self.held[at..until]);
        self.held.drain(..until);
        // A stretch that is held whole keeps what was covered of it.
        self.covered = if until == 0 { self.covered } else { covered };
    }
}

impl Forms {
    /// Where the first form may begin that is not finished; the length where none may.
    fn open(&self, bytes: &[u8]) -> usize {
        let from = (bytes.len() + 1).saturating_sub(self.longest);
        let begun = |at: &usize| {
            let rest = &bytes[*at..];
            let next = self.all.partition_point(|form| form.as_slice() <= rest);
            self.begins[usize::from(rest[0])] && self.all.get(next).is_some_and(|form| form.starts_with(rest))
        };
        (from..bytes.len()).find(begun).unwrap_or(bytes.len())
    }

    /// Where secrets stand, joined where they overlap; the first `covered` bytes are one.
    fn stretches(&self, bytes: &[u8], covered: usize) -> Vec<(usize, usize)> {
        if covered == 0 && self.beginnings.as_ref().is_some_and(|search| search.find(bytes).is_none()) {
            return Vec::new();
        }
        let mut all: Vec<(usize, usize)> =
            self.automaton.find_overlapping_iter(bytes).map(|found| (found.start(), found.end())).collect();
        if covered > 0 {
            all.push((0, covered));
        }
        all.sort_unstable();
        let mut joined: Vec<(usize, usize)> = Vec::with_capacity(all.len());
        for (from, to) in all {
            match joined.last_mut() {
                Some(last) if from < last.1 => last.1 = last.1.max(to),
                _ => joined.push((from, to)),
            }
        }
        joined
    }
}

/// The value, its lines, the texts in it where it is JSON.
fn parts(value: &str, shortest: usize) -> Vec<String> {
    let trimmed = value.trim();
    if trimmed.len() < shortest.max(1) {
        return Vec::new();
    }
    let mut parts = vec![trimmed.to_owned()];
    if value != trimmed {
        parts.push(value.to_owned());
    }
    if trimmed.contains('\n') {
        let lines = trimmed.lines().map(str::trim).filter(|line| line.len() >= SHORTEST_PART.max(shortest));
        // Of a key in PEM's armour the armour is no secret.
        parts.extend(lines.filter(|line| !line.starts_with("-----")).map(str::to_owned));
    }
    if trimmed.starts_with(['{', '['])
        && let Ok(json) = serde_json::from_str::<serde_json::Value>(trimmed)
    {
        texts(&json, &mut parts, shortest);
    }
    parts
}

fn texts(json: &serde_json::Value, parts: &mut Vec<String>, shortest: usize) {
    match json {
        serde_json::Value::String(text) if text.len() >= SHORTEST_PART.max(shortest) => {
            parts.push(text.clone());
            // A key in a field: its lines are printed one by one.
            let lines = text
                .lines()
                .map(str::trim)
                .filter(|line| line.len() >= SHORTEST_PART && !line.starts_with("-----"));
            parts.extend(lines.map(str::to_owned));
        }
        serde_json::Value::Array(all) => all.iter().for_each(|one| texts(one, parts, shortest)),
        serde_json::Value::Object(all) => all.values().for_each(|one| texts(one, parts, shortest)),
        _ => {}
    }
}

/// How programs write a text that holds it.
fn forms(text: &str, all: &mut BTreeSet<Vec<u8>>) {
    let mut add = |form: String| {
        if form.len() >= SHORTEST_FORM {
            all.insert(form.into_bytes());
        }
    };
    let json = |text: &str| {
        let quoted = serde_json::to_string(text).unwrap_or_default();
        quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default().to_owned()
    };
    let once = json(text);
    add(json(&once));
    add(once.replace('/', "\\/"));
    add(once.replace("\\\"", "\""));
    add(once);
    add(text.replace("\r\n", "\n"));
    add(text.replace('\n', "\r\n"));
    let xml = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    add(xml.replace('"', "&quot;").replace('\'', "&#39;"));
    add(xml.replace('"', "&#34;").replace('\'', "&#x27;"));
    add(xml.replace('"', "&quot;").replace('\'', "&apos;"));
    add(xml);
    add(text.replace('\'', "'\\''"));
    add(text.replace('\'', "'\"'\"'"));
    add(escaped(text, |c| c.is_ascii() && !c.is_ascii_alphanumeric() && !"_-./:=@%+,".contains(c)));
    add(escaped(text, |c| "\\\"$`".contains(c)));
    for kept in ["-._~", "-._~!'()*", "-._~!'()*;/?:@&=+$,#", "-._*"] {
        let percent = percent(text, kept);
        add(percent.replace("%20", "+"));
        add(lower(&percent));
        add(percent);
    }
    add(hex::encode(text));
    add(hex::encode_upper(text));
    base64s(text.as_bytes()).into_iter().for_each(add);
}

fn escaped(text: &str, special: impl Fn(char) -> bool) -> String {
    text.chars().flat_map(|c| special(c).then_some('\\').into_iter().chain([c])).collect()
}

fn percent(text: &str, kept: &str) -> String {
    let mut out = String::with_capacity(text.len() * 3);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || kept.as_bytes().contains(&byte) {
            out.push(char::from(byte));
        } else {
            out += &format!("%{byte:02X}");
        }
    }
    out
}

/// With small digits in its `%2f`.
fn lower(percent: &str) -> String {
    let mut left = 0;
    let digit = |c: char| {
        left = if c == '%' { 3 } else { left };
        let small = if left > 0 { c.to_ascii_lowercase() } else { c };
        left = i32::max(left - 1, 0);
        small
    };
    percent.chars().map(digit).collect()
}

/// What its base64 always has in it, wherever in the encoded text it stands and whatever stands around it.
fn base64s(bytes: &[u8]) -> Vec<String> {
    let mut all = Vec::new();
    for before in 0..3usize {
        let shifted: Vec<u8> = std::iter::repeat_n(0, before).chain(bytes.iter().copied()).collect();
        let (from, to) = ((before * 8).div_ceil(6), shifted.len() * 8 / 6);
        for encoded in [STANDARD_NO_PAD.encode(&shifted), URL_SAFE_NO_PAD.encode(&shifted)] {
            all.extend(encoded.get(from..to).map(str::to_owned));
        }
    }
    let whole = STANDARD.encode(bytes);
    for columns in COLUMNS.into_iter().filter(|columns| whole.len() > *columns) {
        let mut rest = whole.as_str();
        while rest.len() > columns {
            let (line, more) = rest.split_at(columns);
            all.push(line.to_owned());
            rest = more;
        }
        // Of the last line its end depends on what follows.
        all.extend(
            rest.get(..rest.len().saturating_sub(4))
                .filter(|line| line.len() >= SHORTEST_PART)
                .map(str::to_owned),
        );
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRETS: [&str; 4] = [
        "s3cr3t/pass+word",
        "two words & a \"quote\" 'n <more>",
        "-----BEGIN KEY-----\nMIIEpAIBAAKCAQEA0Z3VS5JJcds\nfxGfJcxEdz0YHSmg6n2tXsIu\n-----END KEY-----\n",
        "{\"user\": \"robot-account\", \"keys\": [\"k3y-number-one\", {\"deep\": \"k3y-number-two\"}]}",
    ];

    fn mask() -> Mask {
        Mask::new(SECRETS, 8)
    }

    fn pieces(mask: &Mask, text: &[u8], cut: &mut dyn FnMut() -> usize) -> String {
        let (mut stream, mut clear, mut at) = (mask.stream(), Vec::new(), 0);
        while at < text.len() {
            let to = (at + cut().max(1)).min(text.len());
            stream.push(&text[at..to], &mut clear);
            at = to;
        }
        stream.end(&mut clear);
        String::from_utf8_lossy(&clear).into_owned()
    }

    fn next(state: &mut u64) -> u64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state
    }

    /// How a program might print it; the seed decides.
    fn printed(secret: &str, state: &mut u64) -> String {
        let json = serde_json::to_string(secret).unwrap();
        let noise = |state: &mut u64| {
            (0..next(state) % 5).map(|_| char::from(b'a' + (next(state) % 26) as u8)).collect::<String>()
        };
        let (before, after) = (noise(state), noise(state));
        match next(state) % 12 {
            0 => secret.to_owned(),
            1 => json[1..json.len() - 1].to_owned(),
            2 => serde_json::to_string(&json).unwrap(),
            3 => STANDARD.encode(format!("{before}{secret}{after}")),
            4 => URL_SAFE_NO_PAD.encode(format!("{before}{secret}{after}")),
            5 => hex::encode(secret),
            6 => hex::encode_upper(secret),
            7 => percent(secret, "-._~"),
            8 => lower(&percent(secret, "-._~!'()*")),
            9 => secret.replace('\'', "'\\''"),
            10 => secret
                .replace('&', "&amp;")
                .replace('<', "&lt;")
                .replace('>', "&gt;")
                .replace('"', "&quot;")
                .replace('\'', "&#39;"),
            _ => STANDARD
                .encode(secret)
                .as_bytes()
                .chunks(76)
                .map(|line| String::from_utf8_lossy(line).into_owned() + "\n")
                .collect(),
        }
    }

    #[test]
    fn a_secret_is_hidden_in_every_form_however_it_is_cut() {
        let mask = mask();
        for seed in 1..=4_000u64 {
            let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            let secret = SECRETS[(next(&mut state) % 4) as usize];
            let secret = if next(&mut state).is_multiple_of(2) { secret.trim() } else { secret };
            let form = printed(secret, &mut state);
            let text = format!("value: {form} end");
            let shown = pieces(&mask, text.as_bytes(), &mut || (next(&mut state) % 9) as usize);
            assert!(shown.contains(HIDDEN), "seed {seed}: {text:?} → {shown:?}");
            // Of a secret, nothing that helps is left: no piece of its form of eight bytes, armour and JSON's own words apart.
            for piece in form.as_bytes().windows(12) {
                let piece = String::from_utf8_lossy(piece);
                let plain = ["BEGIN", "END", "KEY", "---", "user", "keys", "deep", "\\n"]
                    .iter()
                    .any(|word| piece.contains(word));
                assert!(
                    plain || !shown.contains(&*piece),
                    "seed {seed}: {piece:?} of {form:?} is left in {shown:?}"
                );
            }
        }
    }

    #[test]
    fn overlapping_secrets_leave_nothing_between_them() {
        let mask = Mask::new(["abcdefgh", "fghijklm", "klmnopqr"], 8);
        for step in 1..20 {
            let shown = pieces(&mask, b"xx abcdefghijklmnopqr yy abcdefghabcdefgh", &mut || step);
            assert_eq!(shown, "xx [hidden] yy [hidden][hidden]", "pieces of {step}");
        }
    }

    #[test]
    fn a_stream_of_what_a_secret_begins_with_is_not_held_back_for_ever() {
        let mask = Mask::new(["aaaaaaaab"], 8);
        let mut stream = mask.stream();
        let mut clear = Vec::new();
        for _ in 0..10_000 {
            stream.push(b"aaaaaaaa", &mut clear);
            assert!(stream.held.len() < 10);
        }
        assert!(clear.len() > 79_000);
    }

    #[test]
    fn what_is_no_secret_is_left_as_it_is() {
        let mask = mask();
        let mut state = 42;
        let mut text = Vec::new();
        while text.len() < 2_000_000 {
            let word = [
                "INFO  request served in 3 ms\n",
                "error[E0308]: mismatched types\n",
                "aGVsbG8gd29ybGQ=\n",
                "{\"user\": \"ann\", \"ok\": true}\n",
                "\x1b[32mPASS\x1b[0m tests/a.rs\n",
                "s3cr3t/pas",
            ];
            text.extend_from_slice(word[(next(&mut state) % 6) as usize].as_bytes());
        }
        let shown = pieces(&mask, &text, &mut || (next(&mut state) % 4096) as usize);
        let lost = shown.matches(HIDDEN).count() * HIDDEN.len();
        assert!((lost as f64) < text.len() as f64 * 0.0001, "{lost} bytes of {}", text.len());
    }

    #[test]
    fn values_that_are_too_short_stay_and_nearly_all_of_one_is_as_good_as_all() {
        assert!(Mask::new(["1", "on", " "], 8).is_empty());
        assert_eq!(Mask::new(["1", "on"], 8).hide("1 on"), "1 on");
        assert_eq!(mask().hide("it is s3cr3t/pass+wor"), "it is [hidden]");
        assert_eq!(mask().hide("it is s3"), "it is s3");
    }
}
