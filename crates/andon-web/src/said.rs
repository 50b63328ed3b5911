//! The short word that follows a form: kept in a cookie for the next page only. Nobody else's page can put words into ours.

use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderValue};

/// The cookie.
const NAME: &str = "andon_said";
/// Longest text kept, in bytes.
const LONGEST: usize = 900;

/// What was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// It was done.
    pub done: bool,
    /// In words; a refusal with its hint on a second line.
    pub words: String,
}

impl Said {
    /// It was done.
    pub fn done(words: impl Into<String>) -> Said {
        Said { done: true, words: words.into() }
    }

    /// It was not.
    pub fn not(words: impl Into<String>) -> Said {
        Said { done: false, words: words.into() }
    }

    /// What the answer before this request said.
    pub fn read(headers: &HeaderMap) -> Option<Said> {
        let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut pairs =
            cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
        let (_, value) = pairs.find(|(name, _)| *name == NAME)?;
        let (kind, text) = value.split_at_checked(1)?;
        let words = String::from_utf8(hex::decode(text).ok()?).ok()?;
        Some(Said { done: kind == "g", words })
    }

    /// To be said by the next page.
    pub fn keep(&self, headers: &mut HeaderMap) {
        let mut end = self.words.len().min(LONGEST);
        while !self.words.is_char_boundary(end) {
            end -= 1;
        }
        let kind = if self.done { 'g' } else { 's' };
        let text = hex::encode(&self.words[..end]);
        append(headers, &format!("{NAME}={kind}{text}; Path=/; Max-Age=30; HttpOnly; SameSite=Strict"));
    }

    /// It was said.
    pub fn forget(headers: &mut HeaderMap) {
        append(headers, &format!("{NAME}=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict"));
    }
}

/// Adds a cookie.
pub fn append(headers: &mut HeaderMap, cookie: &str) {
    if let Ok(value) = HeaderValue::from_str(cookie) {
        headers.append(SET_COOKIE, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_survives_its_cookie_whatever_is_in_it() {
        for words in ["R7 goes on", "no; it\nhint: cannot = <b>", "日本語"] {
            let mut headers = HeaderMap::new();
            Said::not(words).keep(&mut headers);
            let cookie = headers[SET_COOKIE].to_str().unwrap().split(';').next().unwrap().to_owned();
            let asked =
                HeaderMap::from_iter([(COOKIE, HeaderValue::from_str(&format!("a=b; {cookie}")).unwrap())]);
            assert_eq!(Said::read(&asked), Some(Said::not(words)));
        }
    }
}
