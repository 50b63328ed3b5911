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

/// The key of a test as reports name it.
pub fn of_report(class: &str, name: &str) -> String {
    let mut whole = key(class);
    let own = key(name);
    if !whole.is_empty() && !own.is_empty() {
        whole.push('.');
    }
    whole + &own
}

/// The parts of a name, without endings of files.
fn parts(name: &str) -> impl Iterator<Item = &str> {
    let end = (0..=name.len().min(LONGEST)).rev().find(|at| name.is_char_boundary(*at)).unwrap_or(0);
    let between = |c: char| {
        matches!(c, '.' | '/' | '\\' | ':' | '#' | '$' | '>' | '›') || c.is_whitespace() || c.is_control()
    };
    let name = &name[..end];
    // Only what stands behind a dot can be an ending.
    let is_ending = move |part: &str| {
        let at = part.as_ptr() as usize - name.as_ptr() as usize;
        ENDINGS.contains(&part) && name[..at].ends_with('.')
    };
    name.split(between).filter(move |part| !part.is_empty() && !is_ending(part))
}

/// Calls `with` for every word of a name in lower case: `src/payCheck_v2.rs` has `src`, `pay`, `check`, `v2`. Words that say nothing about
/// what a thing is for are left out.
pub fn words(name: &str, mut with: impl FnMut(&str)) {
    const EMPTY: [&str; 14] = [
        "test", "tests", "spec", "specs", "src", "lib", "main", "mod", "index", "init", "it", "should",
        "unit", "crates",
    ];
    let mut word = String::new();
    for part in parts(name) {
        let mut small = false;
        for c in part.chars().chain(['_']) {
            if (c.is_uppercase() && small) || !c.is_alphanumeric() {
                if word.chars().count() > 1 && !EMPTY.contains(&word.as_str()) {
                    with(&word);
                }
                word.clear();
            }
            if c.is_alphanumeric() {
                word.extend(c.to_lowercase());
            }
            small = c.is_lowercase() || c.is_numeric();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
