//! Reading SARIF 2.1.0 (OASIS): the findings of each run, walked one by one. Of the format's many types only what is shown is read.

use std::borrow::Cow;
use std::collections::HashMap;

use serde::Deserialize;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess};

use crate::detect::{NotAReport, not_findings};
use crate::findings::{Finding, Findings, Level};
use crate::places::Places;
use crate::text::{cut, line};
use crate::walk::{Items, Keys, List, Object, skip};

/// Findings that are kept of one report.
const MOST: usize = 20_000;
/// Bytes of a message.
const LONGEST: usize = 1000;

/// Reads a report.
pub fn read(bytes: &[u8], places: &Places) -> Result<Findings, NotAReport> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut log = Log { made: Findings::default(), runs: false, places };
    let mut input = serde_json::Deserializer::from_slice(bytes);
    let walked = Object(&mut log).deserialize(&mut input).and_then(|()| input.end());
    if !log.runs {
        return Err(not_findings(bytes));
    }
    if let Err(error) = walked {
        log.made.warnings.push(format!("the report could not be read to its end: {error}"));
    }
    log.made.all.sort_by_key(|finding| std::cmp::Reverse(finding.level));
    Ok(log.made)
}

struct Log<'p> {
    made: Findings,
    runs: bool,
    places: &'p Places,
}

impl<'de> Keys<'de> for Log<'_> {
    fn key<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        if key != "runs" {
            return skip(map);
        }
        self.runs = true;
        map.next_value_seed(List(self))
    }
}

impl<'de> Items<'de> for Log<'_> {
    fn item<A: SeqAccess<'de>>(&mut self, seq: &mut A) -> Result<bool, A::Error> {
        let mut run = Run::default();
        let done = seq.next_element_seed(Object(&mut run));
        // What a run held before a mistake is kept.
        run.give(self);
        Ok(done?.is_some())
    }
}

/// One run of a tool. Its rules and folders may stand behind its results.
#[derive(Default)]
struct Run {
    tool: String,
    levels: HashMap<String, Level>,
    folders: HashMap<String, String>,
    results: Vec<(Option<Level>, String, Finding)>,
    more: u64,
}

impl Run {
    fn give(self, log: &mut Log<'_>) {
        log.made.more += self.more;
        for (level, folder, mut finding) in self.results {
            if log.made.all.len() >= MOST {
                log.made.more += 1;
                continue;
            }
            finding.tool.clone_from(&self.tool);
            finding.level =
                level.or_else(|| self.levels.get(&finding.rule).copied()).unwrap_or(Level::Warning);
            finding.path = finding.path.and_then(|path| {
                let folder =
                    self.folders.get(&folder).filter(|_| !path.starts_with('/') && !path.contains(':'));
                let whole = folder.map(|folder| format!("{}/{path}", folder.trim_end_matches('/')));
                log.places.find(&decoded(whole.as_deref().unwrap_or(&path)))
            });
            log.made.all.push(finding);
        }
    }
}

impl<'de> Keys<'de> for Run {
    fn key<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "tool" => {
                let tool: Tool = map.next_value()?;
                self.tool = cut(line(&tool.driver.name), 100);
                for rule in tool.driver.rules {
                    if let Some(level) = rule.default.level.as_deref().and_then(level) {
                        self.levels.insert(rule.id, level);
                    }
                }
                Ok(())
            }
            "originalUriBaseIds" => {
                let folders: HashMap<String, Place> = map.next_value()?;
                self.folders = folders
                    .into_iter()
                    .filter(|(_, place)| !place.uri.is_empty())
                    .map(|(id, place)| (id, place.uri))
                    .collect();
                Ok(())
            }
            "results" => map.next_value_seed(List(self)),
            _ => skip(map),
        }
    }
}

impl<'de> Items<'de> for Run {
    fn item<A: SeqAccess<'de>>(&mut self, seq: &mut A) -> Result<bool, A::Error> {
        let Some(found) = seq.next_element::<Found<'de>>()? else { return Ok(false) };
        // What passed, and what people accepted in the source, is no finding.
        if !matches!(found.kind.as_ref(), "" | "fail") || !found.suppressions.is_empty() {
            return Ok(true);
        }
        if self.results.len() >= MOST {
            self.more += 1;
            return Ok(true);
        }
        let place = found.locations.into_iter().next().map(|location| location.physical).unwrap_or_default();
        let first = place.region.first;
        let finding = Finding {
            tool: String::new(),
            rule: cut(line(if found.rule.is_empty() { &found.by.id } else { &found.rule }), 200),
            level: Level::Warning,
            message: cut(line(&found.message.text), LONGEST),
            path: Some(place.artifact.uri).filter(|uri| !uri.is_empty()),
            lines: (first, place.region.last.unwrap_or(first).max(first)),
            on_change: false,
        };
        let said = if found.level == "none" { Some(Level::Note) } else { level(&found.level) };
        self.results.push((said, place.artifact.folder, finding));
        Ok(true)
    }
}

fn level(word: &str) -> Option<Level> {
    match word {
        "error" => Some(Level::Error),
        "warning" => Some(Level::Warning),
        "note" => Some(Level::Note),
        _ => None,
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Tool {
    driver: Driver,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Driver {
    name: String,
    rules: Vec<Rule>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Rule {
    id: String,
    #[serde(rename = "defaultConfiguration")]
    default: Configuration,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Configuration {
    level: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Found<'a> {
    #[serde(rename = "ruleId", borrow)]
    rule: Cow<'a, str>,
    #[serde(rename = "rule")]
    by: Rule,
    #[serde(borrow)]
    level: Cow<'a, str>,
    #[serde(borrow)]
    kind: Cow<'a, str>,
    message: Message,
    locations: Vec<Location>,
    suppressions: Vec<IgnoredAny>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Message {
    text: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Location {
    #[serde(rename = "physicalLocation")]
    physical: Physical,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Physical {
    #[serde(rename = "artifactLocation")]
    artifact: Place,
    region: Region,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Place {
    uri: String,
    #[serde(rename = "uriBaseId")]
    folder: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Region {
    #[serde(rename = "startLine")]
    first: u32,
    #[serde(rename = "endLine")]
    last: Option<u32>,
}

/// A path without the escapes of a URI.
fn decoded(uri: &str) -> String {
    let bytes = uri.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = (bytes[at] == b'%').then(|| uri.get(at + 1..at + 3)).flatten();
        match escaped.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = r#"{"version":"2.1.0","$schema":"x","runs":[{"tool":{"driver":{"name":"ESLint","rules":[{"id":"no-x","defaultConfiguration":{"level":"error"}}]}},
        "results":[{"ruleId":"no-x","message":{"text":"x is \u001b[31mno\u001b[0m good"},"locations":[{"physicalLocation":{"artifactLocation":{"uri":"file:///w/src/a%20b.js","index":0},
        "region":{"startLine":3,"startColumn":1,"endLine":4}}}]},{"ruleId":"style","level":"note","message":{"text":"s"},"locations":[{"physicalLocation":
        {"artifactLocation":{"uri":"c.js","uriBaseId":"SRC"},"region":{"startLine":9}}}]},{"ruleId":"ok","kind":"pass","message":{"text":"fine"}},
        {"ruleId":"old","level":"error","message":{"text":"accepted"},"suppressions":[{"kind":"inSource"}]}],"originalUriBaseIds":{"SRC":{"uri":"file:///w/lib/"}}}]}"#;

    #[test]
    fn findings_have_their_rules_level_and_the_repositorys_path() {
        let found = read(LOG.as_bytes(), &Places::at("/w")).unwrap();
        assert_eq!(found.all.len(), 2, "what passed or was accepted is no finding: {found:?}");
        assert_eq!(found.all[0].says(), "src/a b.js:3: no-x: x is no good");
        assert_eq!(
            (found.all[0].level, found.all[0].lines, found.all[0].tool.as_str()),
            (Level::Error, (3, 4), "ESLint")
        );
        assert_eq!((found.all[1].path.as_deref(), found.all[1].level), (Some("lib/c.js"), Level::Note));
    }

    #[test]
    fn a_truncated_report_keeps_what_it_holds_and_something_else_is_named() {
        let cut = LOG.find("{\"ruleId\":\"style\"").unwrap() + 20;
        let found = read(&LOG.as_bytes()[..cut], &Places::at("/w")).unwrap();
        assert_eq!((found.all.len(), found.warnings.len()), (1, 1));
        let error = read(b"{\"a\":1}", &Places::at("/w")).unwrap_err().to_string();
        assert!(error.contains("no report of findings was found") && error.contains("hint: "), "{error}");
    }
}
