//! One key for the many names of a test: reports and runners write the same test differently. Knows no history.
//!
//! `tests/test_app.py::TestCart::test_add[1]` (pytest), class `tests.test_app.TestCart` with name `test_add[1]` (its JUnit report) and
//! `tests.test_app.TestCart.test_add[1]` are one test; `shop::cart adds` (nextest) and class `shop::cart`, name `adds` are another.

/// Endings of source files: they stand in a runner's names, and in a report's they do not. One of a single letter would be taken for a test.
const ENDINGS: [&str; 23] = [
    "py", "rs", "js", "mjs", "cjs", "jsx", "ts", "mts", "cts", "tsx", "java", "kt", "scala", "rb", "php",
    "go", "cs", "cc", "cpp", "ml", "ex", "exs", "swift",
];
/// Bytes of a name that are looked at: what is longer is text, not a name.
const LONGEST: usize = 4096;

/// The key of a name: its parts, joined by single dots.
pub fn key(name: &str) -> String {
    let mut key = String::with_capacity(name.len().min(LONGEST));
    for part in parts(name) {
        if !key.is_empty() {
            key.push('.');
        }
        key.push_str(part);
    }
    key
}

/// Where the last part begins that neither stands behind a dot nor holds anything of the one before: key and words of a name are those of what is before
/// it, and those of what is behind. Many tests share what is before it, so it need be read only once.
pub fn last_part(name: &str) -> usize {
    if name.len() > LONGEST {
        return 0;
    }
    let between = |byte: &u8| matches!(byte, b':' | b'/' | b'#' | b'>' | b' ');
    name.as_bytes().iter().rposition(between).map_or(0, |at| at + 1)
}

/// The key of a test as reports name it.
pub fn of_report(class: &str, name: &str) -> String {
    let mut whole = key(class);
    let own = key(name);
    if !whole.is_empty() && !own.is_empty() {
        whole.push('.');
    }
    whole + &own
}

/// What a byte of a name is: 0 belongs to a part, 1 stands between parts, 2 begins a character that is not ASCII. Names are read by the ten
/// thousand, so each byte is one look into a table.
const KIND: [u8; 256] = {
    let mut kind = [0; 256];
    let mut at = 0;
    while at < 256 {
        let c = at as u8;
        if !c.is_ascii() {
            kind[at] = 2;
        } else if matches!(c, b'.' | b'/' | b'\\' | b':' | b'#' | b'$' | b'>' | b' ') || c.is_ascii_control()
        {
            kind[at] = 1;
        }
        at += 1;
    }
    kind
};

/// The parts of a name, without endings of files.
pub(super) fn parts(name: &str) -> Parts<'_> {
    let end = if name.len() <= LONGEST { name.len() } else { name.floor_char_boundary(LONGEST) };
    Parts { name: &name[..end], at: 0 }
}

pub(super) struct Parts<'a> {
    name: &'a str,
    at: usize,
}

impl<'a> Iterator for Parts<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        while self.at < self.name.len() {
            let begin = self.at;
            let (mut end, mut step) = (begin, 0);
            loop {
                let rest = &self.name.as_bytes()[end..];
                end += rest.iter().position(|byte| KIND[usize::from(*byte)] != 0).unwrap_or(rest.len());
                let Some(c) = self.name[end..].chars().next() else { break };
                if c.is_ascii() || c == '›' || c.is_whitespace() || c.is_control() {
                    step = c.len_utf8();
                    break;
                }
                end += c.len_utf8();
            }
            self.at = end + step;
            let part = &self.name[begin..end];
            // Only what stands behind a dot can be an ending.
            let behind_dot = begin > 0 && self.name.as_bytes()[begin - 1] == b'.';
            let ending = behind_dot && ENDINGS.contains(&part);
            if !part.is_empty() && !ending {
                return Some(part);
            }
        }
        None
    }
}

/// Calls `with` for every word of a name in lower case: `src/payCheck_v2.rs` has `src`, `pay`, `check`, `v2`. Words that say nothing about
/// what a thing is for are left out.
pub fn words(name: &str, mut with: impl FnMut(&str)) {
    const EMPTY: [&str; 14] = [
        "test", "tests", "spec", "specs", "src", "lib", "main", "mod", "index", "init", "it", "should",
        "unit", "crates",
    ];
    all_words(name, |word| {
        let word = word.to_lowercase();
        if word.chars().nth(1).is_some() && !EMPTY.contains(&word.as_str()) {
            with(&word);
        }
    });
}

/// Every word as it stands there, those too that say nothing.
pub fn all_words<'a>(name: &'a str, mut with: impl FnMut(&'a str)) {
    for part in parts(name) {
        let (mut begin, mut small) = (0, false);
        if part.is_ascii() {
            for (at, byte) in part.bytes().enumerate() {
                let large = byte.is_ascii_uppercase();
                let inside = large || byte.is_ascii_lowercase() || byte.is_ascii_digit();
                if !inside || large && small {
                    if begin < at {
                        with(&part[begin..at]);
                    }
                    begin = if inside { at } else { at + 1 };
                }
                small = inside && !large;
            }
            if begin < part.len() {
                with(&part[begin..]);
            }
            continue;
        }
        for (at, c) in part.char_indices() {
            let (inside, large) = match c {
                'a'..='z' | '0'..='9' => (true, false),
                'A'..='Z' => (true, true),
                c if c.is_ascii() => (false, false),
                c => (c.is_alphanumeric(), c.is_uppercase()),
            };
            if !inside || large && small {
                if begin < at {
                    with(&part[begin..at]);
                }
                begin = if inside { at } else { at + c.len_utf8() };
            }
            small = inside && !large;
        }
        if begin < part.len() {
            with(&part[begin..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_test_has_one_key_whoever_names_it() {
        let pytest = of_report("tests.test_app.TestCart", "test_add[1]");
        assert_eq!(pytest, key("tests/test_app.py::TestCart::test_add[1]"));
        assert_eq!(of_report("shop::cart", "items::adds"), key("shop::cart items::adds"));
        assert_eq!(of_report("src/cart.test.ts", "cart > adds"), key("src/cart.test.ts › cart › adds"));
        assert_eq!(of_report("com.shop.CartTest", "adds()"), key("com.shop.CartTest#adds()"));
        assert_eq!(of_report("", "adds"), "adds");
        assert_eq!(of_report("shop", "tests::c"), "shop.tests.c", "a test may be called like an ending");
    }

    proptest! {
        #[test]
        fn a_name_may_be_read_in_two_pieces(name in "[ab:/#> .pyrsÉ›$]{0,24}") {
            let (before, last) = name.split_at(last_part(&name));
            let both = [key(before), key(last)].into_iter().filter(|key| !key.is_empty()).collect::<Vec<_>>();
            prop_assert_eq!(both.join("."), key(&name));
            let of = |text: &str| {
                let mut all = Vec::new();
                all_words(text, |word| all.push(word.to_owned()));
                all
            };
            prop_assert_eq!([of(before), of(last)].concat(), of(&name));
        }
    }

    #[test]
    fn words_are_what_a_path_speaks_of() {
        let of = |name| {
            let mut all = Vec::new();
            words(name, |word| all.push(word.to_owned()));
            all.join(" ")
        };
        assert_eq!(of("src/shop/payCheck_v2.rs"), "shop pay check v2");
        assert_eq!(of("tests/test_refund.py::TestHTTPServer"), "refund httpserver");
        assert_eq!(of("x/y.go"), "");
    }

    #[test]
    fn names_of_any_length_and_with_any_characters_have_a_key() {
        assert!(key(&"é/".repeat(10_000)).len() <= LONGEST);
        assert_eq!(key("a\u{1b}[31m\n b"), "a.[31m.b");
    }
}
