//! What may differ for a while: a difference between environments, or from code. Every exception has a reason and an end.

use andon_model::Time;
use serde::{Deserialize, Serialize};

/// Allows what its pattern names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exception {
    /// What may differ; `*` stands for any part, within it too.
    pub what: String,
    /// The reason.
    pub why: String,
    /// Ends it.
    pub until: Time,
}

impl Exception {
    /// The first one that allows this now.
    pub fn find<'a>(exceptions: &'a [Exception], what: &str, now: Time) -> Option<&'a Exception> {
        exceptions.iter().find(|exception| now < exception.until && matches(&exception.what, what))
    }
}

/// Whether `text` has the parts of `pattern` in their order, its first and last at the ends.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let mut last = None;
    for part in parts {
        if let Some(middle) = last.replace(part) {
            let Some((_, after)) = rest.split_once(middle) else { return false };
            rest = after;
        }
    }
    match last {
        Some(end) => rest.ends_with(end),
        None => rest.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_names_whole_texts() {
        for (pattern, text) in [
            ("a", "a"),
            ("*", ""),
            ("a*", "abc"),
            ("*c", "abc"),
            ("a*c", "abc"),
            ("a*b*c", "a/b/b/c"),
            ("**", "x"),
        ] {
            assert!(matches(pattern, text), "{pattern} on {text}");
        }
        for (pattern, text) in
            [("a", "ab"), ("", "a"), ("a*c", "ab"), ("ab*bc", "abc"), ("*b*", "ac"), ("b*", "ab")]
        {
            assert!(!matches(pattern, text), "{pattern} on {text}");
        }
    }
}
