//! Texts and numbers as tools write them, made fit to be kept. Knows no format.

use andon_model::Span;

/// Cuts at a character boundary.
pub fn cut(mut text: String, limit: usize) -> String {
    if text.len() > limit {
        let end = (0..=limit).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.truncate(end);
    }
    text
}

/// The text without terminal colours, which XML cannot hold and pytest therefore writes as `#x1B[31m`, and other control characters.
pub fn plain(text: &str) -> String {
    // Nearly every text is plain, which shows in its bytes: no control character of one byte, no mark, no first byte of the longer ones.
    if !text.bytes().any(|byte| (byte < 0x20 && byte != b'\n') || matches!(byte, 0x7f | b'#' | 0xc2)) {
        return text.to_owned();
    }
    if !text.contains("#x1B[") && !text.contains(|c: char| c.is_control() && c != '\n') {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let colour = rest.strip_prefix("#x1B[").or_else(|| rest.strip_prefix("\u{1b}["));
        let behind = colour.map(|codes| codes.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';'));
        if let Some(behind) = behind.and_then(|end| end.strip_prefix(|c: char| c.is_ascii_alphabetic())) {
            rest = behind;
            continue;
        }
        if !c.is_control() || c == '\n' || c == '\t' {
            out.push(c);
        }
        rest = &rest[c.len_utf8()..];
    }
    out
}

/// The text in one line, as names and paths are shown, without terminal colours and control characters.
pub fn line(text: &str) -> String {
    if !text.bytes().any(|byte| byte < 0x20 || matches!(byte, 0x7f | b'#' | 0xc2)) {
        return text.to_owned();
    }
    plain(text).replace(['\n', '\t'], " ")
}

/// Seconds as tools write them: `0.013`, `2,503.1`, `0,5`, `1.2e-05`, `3s`. None for nonsense.
pub fn seconds(text: &str) -> Option<Span> {
    let text = text.trim().trim_end_matches(['s', ' ']);
    if !text.contains(',') {
        return span(text.parse().ok()?);
    }
    let plain = match (text.contains('.'), text.rsplit_once(',')) {
        // With three digits behind it a comma groups thousands, unless nothing but a zero stands before it.
        (false, Some((whole, rest))) if rest.len() != 3 || whole.trim_start_matches('-') == "0" => {
            format!("{whole}.{rest}")
        }
        _ => text.replace(',', ""),
    };
    span(plain.parse().ok()?)
}

/// A time from seconds; none for nonsense.
pub fn span(seconds: f64) -> Option<Span> {
    (seconds.is_finite() && (0.0..1e9).contains(&seconds)).then(|| Span((seconds * 1000.0).round() as u64))
}
