//! Reading a unified diff as `git diff -U0` prints it: which lines of which files a change adds. Runs no git.

use std::collections::{BTreeMap, BTreeSet};

/// Files with added lines; deleted, renamed and binary files add none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diff {
    /// By path after the change.
    pub files: BTreeMap<String, Added>,
    /// All paths of which there is a text after the change, also where nothing is added.
    pub paths: BTreeSet<String>,
    /// Files that the change touches; more than `paths`: some are gone, renamed only, or no text.
    pub touched: usize,
}

/// What a change adds to a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Added {
    /// First and last line of each added piece, ascending.
    pub ranges: Vec<(u32, u32)>,
    /// Of those, lines that hold more than space or a comment, as far as one can tell without knowing the language.
    pub code: Vec<u32>,
    /// The file did not exist before.
    pub new: bool,
}

impl Added {
    /// Whether the change adds this line.
    pub fn has(&self, line: u32) -> bool {
        self.ranges.iter().any(|(first, last)| (*first..=*last).contains(&line))
    }
}

/// Reads a diff. What is not understood is passed over: git wrote it, and lines in it are the team's.
pub fn read(text: &str) -> Diff {
    let mut diff = Diff::default();
    let mut file: Option<String> = None;
    let mut new = false;
    // Lines of the current hunk that are still to come: without them `+++ x` inside a file would start another one.
    let (mut old_left, mut new_left, mut line) = (0u32, 0u32, 0u32);
    for text in text.split('\n') {
        if old_left > 0 || new_left > 0 {
            match text.bytes().next() {
                Some(b'+') if new_left > 0 => {
                    if let Some(path) = &file {
                        add(diff.files.entry(path.clone()).or_default(), line, &text[1..], new);
                    }
                    line = line.saturating_add(1);
                    new_left -= 1;
                    continue;
                }
                Some(b'-') if old_left > 0 => {
                    old_left -= 1;
                    continue;
                }
                Some(b'\\') => continue,
                Some(b' ') | None | Some(b'\r') if old_left > 0 && new_left > 0 => {
                    line = line.saturating_add(1);
                    (old_left, new_left) = (old_left - 1, new_left - 1);
                    continue;
                }
                _ => (old_left, new_left) = (0, 0),
            }
        }
        if text.starts_with("diff --git ") {
            (file, new) = (None, false);
            diff.touched += 1;
        } else if text.starts_with("new file mode") || text == "--- /dev/null" {
            new = true;
        } else if let Some(name) = text.strip_prefix("+++ ") {
            file = path(name);
            diff.paths.extend(file.clone());
        } else if let Some((old, added)) = text.strip_prefix("@@ ").and_then(hunk) {
            (old_left, line, new_left) = (old, added.0, added.1);
        }
    }
    diff
}

fn add(added: &mut Added, line: u32, text: &str, new: bool) {
    added.new = new;
    match added.ranges.last_mut() {
        Some((_, last)) if last.saturating_add(1) == line => *last = line,
        _ => added.ranges.push((line, line)),
    }
    let text = text.trim();
    let comment =
        ["#", "//", "/*", "* ", "*/", "--", ";"].iter().any(|mark| text.starts_with(mark)) || text == "*";
    if !text.is_empty() && !comment {
        added.code.push(line);
    }
}

/// `-a,b +c,d @@ …` → old count, (new start, new count).
fn hunk(text: &str) -> Option<(u32, (u32, u32))> {
    let mut words = text.split(' ');
    let (_, old) = span(words.next()?.strip_prefix('-')?)?;
    let new = span(words.next()?.strip_prefix('+')?)?;
    Some((old, new))
}

fn span(text: &str) -> Option<(u32, u32)> {
    match text.split_once(',') {
        Some((start, count)) => Some((start.parse().ok()?, count.parse().ok()?)),
        None => Some((text.parse().ok()?, 1)),
    }
}

/// The path behind `+++ `: `b/` taken off, quotes resolved; none for `/dev/null`.
fn path(name: &str) -> Option<String> {
    let name = name.trim_end_matches('\r');
    // Git puts a tab behind a name with spaces, so that patch tools find its end.
    let name = match name.strip_prefix('"') {
        Some(quoted) => unquote(quoted),
        None => name.strip_suffix('\t').unwrap_or(name).to_owned(),
    };
    if name == "/dev/null" {
        return None;
    }
    let name = name.strip_prefix("b/").unwrap_or(&name);
    (!name.is_empty()).then(|| name.to_owned())
}

/// Git's C-style quoting, up to the closing quote.
fn unquote(quoted: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = quoted.bytes().peekable();
    while let Some(byte) = rest.next() {
        match byte {
            b'"' => break,
            b'\\' => match rest.next() {
                Some(digit @ b'0'..=b'7') => {
                    let mut value = u32::from(digit - b'0');
                    for _ in 0..2 {
                        if let Some(next) = rest.next_if(|b| (b'0'..=b'7').contains(b)) {
                            value = value * 8 + u32::from(next - b'0');
                        }
                    }
                    bytes.push(value as u8);
                }
                Some(letter) => bytes.push(match letter {
                    b'n' => b'\n',
                    b't' => b'\t',
                    b'r' => b'\r',
                    b'a' => 7,
                    b'b' => 8,
                    b'f' => 12,
                    b'v' => 11,
                    other => other,
                }),
                None => {}
            },
            other => bytes.push(other),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn added_lines_are_found_and_deleted_ones_are_not() {
        let text = "diff --git a/app.py b/app.py\nindex 1..2 100644\n--- a/app.py\n+++ b/app.py\n@@ -3 +3,2 @@ def f():\n-a\n+b\n+c\n\
            @@ -9,2 +10,0 @@\n-x\n-y\n@@ -20,0 +19 @@\n+# only a comment\n\\ No newline at end of file\n";
        let diff = read(text);
        assert_eq!(diff.files["app.py"].ranges, [(3, 4), (19, 19)]);
        assert_eq!(diff.files["app.py"].code, [3, 4]);
        assert!(!diff.files["app.py"].new && diff.files["app.py"].has(4) && !diff.files["app.py"].has(5));
    }

    #[test]
    fn new_deleted_renamed_and_binary_files_are_told_apart() {
        let text = "diff --git a/new.py b/new.py\nnew file mode 100644\n--- /dev/null\n+++ b/new.py\n@@ -0,0 +1,2 @@\n+a\n+\n\
            diff --git a/gone.py b/gone.py\ndeleted file mode 100644\n--- a/gone.py\n+++ /dev/null\n@@ -1 +0,0 @@\n-a\n\
            diff --git a/x.png b/x.png\nindex 1..2 100644\nBinary files a/x.png and b/x.png differ\n\
            diff --git a/old b/moved\nsimilarity index 90%\nrename from old\nrename to moved\n--- a/old\n+++ b/moved\n@@ -2 +2 @@\n-a\n+b\n";
        let diff = read(text);
        assert_eq!(diff.files.keys().collect::<Vec<_>>(), ["moved", "new.py"]);
        assert!(diff.files["new.py"].new && !diff.files["moved"].new);
        assert_eq!((&diff.files["new.py"].ranges, &diff.files["new.py"].code), (&vec![(1, 2)], &vec![1]));
    }

    #[test]
    fn a_line_that_looks_like_a_header_is_a_line() {
        let text = "+++ b/a\n@@ -1,1 +1,3 @@\n-- a/old\n+++ b/evil\n+@@ -1 +1 @@\n+x\n";
        let diff = read(text);
        assert_eq!(diff.files.keys().collect::<Vec<_>>(), ["a"]);
        assert_eq!(diff.files["a"].ranges, [(1, 3)]);
    }

    #[test]
    fn quoted_and_spaced_paths_are_read() {
        let text = "+++ \"b/k\\303\\244se\\t\\\"x\\\".py\"\n@@ -0,0 +1 @@\n+a\n+++ b/with space.py\t\n@@ -0,0 +1 @@\n+a\n";
        assert_eq!(read(text).files.keys().collect::<Vec<_>>(), ["käse\t\"x\".py", "with space.py"]);
    }

    #[test]
    fn context_lines_move_the_number_on() {
        assert_eq!(read("+++ b/a\n@@ -1,3 +1,4 @@\n one\n\n+new\n three\n").files["a"].ranges, [(3, 3)]);
    }
}
