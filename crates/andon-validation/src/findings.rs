//! What linters and analysers found, and how much of it is allowed. Reads no format.

use serde::{Deserialize, Serialize};

use crate::diff::Diff;

/// How bad it is, as the tool says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Worth knowing.
    Note,
    /// Doubtful.
    Warning,
    /// Wrong.
    Error,
}

/// One thing that a tool found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The tool's name.
    pub tool: String,
    /// Its rule.
    pub rule: String,
    /// How bad it is.
    pub level: Level,
    /// In a sentence.
    pub message: String,
    /// The file, relative to the root of the repository; none where it is about no file of it.
    pub path: Option<String>,
    /// First and last line; 0 where it is about the whole file.
    pub lines: (u32, u32),
    /// Whether it stands on a line that the change adds.
    #[serde(default)]
    pub on_change: bool,
}

impl Finding {
    /// `src/a.js:9: no-unused-vars: 'x' is never used`.
    pub fn says(&self) -> String {
        let place = match (&self.path, self.lines.0) {
            (Some(path), 0) => format!("{path}: "),
            (Some(path), line) => format!("{path}:{line}: "),
            (None, _) => String::new(),
        };
        format!("{place}{}: {}", self.rule, self.message)
    }
}

/// What a report of findings says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Findings {
    /// As far as they are kept, the worst first.
    pub all: Vec<Finding>,
    /// How many there are that are not kept.
    pub more: u64,
    /// What was odd about the report.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// Limits on findings; none: no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FindingLimits {
    /// Errors that are allowed.
    pub errors: Option<u32>,
    /// Warnings that are allowed.
    pub warnings: Option<u32>,
    /// Only findings on lines that the change adds count.
    pub on_change: bool,
}

/// A limit on findings that is broken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Surplus {
    /// In a sentence.
    pub says: String,
    /// What was found, with places.
    pub found: Vec<String>,
}

/// Findings that a broken limit lists.
const LISTED: usize = 50;

/// Says of each finding whether it stands on a line that the change adds.
pub fn mark(findings: &mut [Finding], diff: &Diff) {
    for finding in findings {
        let Some(added) = finding.path.as_ref().and_then(|path| diff.files.get(path)) else { continue };
        let (first, last) = finding.lines;
        let meets = |(from, to): &(u32, u32)| first <= *to && last.max(first) >= *from;
        finding.on_change = if first == 0 { added.new } else { added.ranges.iter().any(meets) };
    }
}

/// All limits that are broken.
pub fn judge(limits: &FindingLimits, findings: &[Finding]) -> Vec<Surplus> {
    let one = |level: Level, most: Option<u32>, word: &str| {
        let most = most?;
        let counts = |finding: &&Finding| finding.level == level && (finding.on_change || !limits.on_change);
        let found: Vec<&Finding> = findings.iter().filter(counts).collect();
        if found.len() <= most as usize {
            return None;
        }
        let plural = if found.len() == 1 { "" } else { "s" };
        let place = if limits.on_change { " on lines that the change adds" } else { "" };
        let says = format!("{} {word}{plural} found{place}; {most} are allowed", found.len());
        let mut listed: Vec<String> = found.iter().take(LISTED).map(|finding| finding.says()).collect();
        if found.len() > LISTED {
            listed.push(format!("and {} more", found.len() - LISTED));
        }
        Some(Surplus { says, found: listed })
    };
    let errors = one(Level::Error, limits.errors, "error");
    errors.into_iter().chain(one(Level::Warning, limits.warnings, "warning")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diff;

    fn finding(level: Level, path: &str, line: u32) -> Finding {
        let (tool, rule, message) = ("lint".into(), "no-x".into(), "x".into());
        Finding { tool, rule, level, message, path: Some(path.into()), lines: (line, line), on_change: false }
    }

    #[test]
    fn only_what_the_change_adds_counts_when_it_is_said_so() {
        let mut found = vec![
            finding(Level::Error, "a.js", 3),
            finding(Level::Error, "a.js", 9),
            finding(Level::Warning, "b.js", 1),
        ];
        mark(&mut found, &diff::read("+++ b/a.js\n@@ -0,0 +9,2 @@\n+x\n+y\n"));
        assert_eq!(found.iter().map(|f| f.on_change).collect::<Vec<_>>(), [false, true, false]);
        let limits = FindingLimits { errors: Some(0), warnings: Some(0), on_change: true };
        let broken = judge(&limits, &found);
        assert_eq!(broken.len(), 1);
        assert_eq!(broken[0].says, "1 error found on lines that the change adds; 0 are allowed");
        assert_eq!(broken[0].found, ["a.js:9: no-x: x"]);
        assert_eq!(judge(&FindingLimits { on_change: false, ..limits }, &found).len(), 2);
        assert!(judge(&FindingLimits { errors: Some(2), ..FindingLimits::default() }, &found).is_empty());
    }
}
