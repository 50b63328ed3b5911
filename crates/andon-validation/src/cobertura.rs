//! Reading Cobertura XML: lines, branches, methods, classes. Rates are passed over, since they are the tool's own arithmetic
//! (coverage-04.dtd of Cobertura).

use std::io::BufRead;

use crate::collect::{Collector, Join, hits};
use crate::coverage::Reading;
use crate::places::{Places, normal_path};
use crate::xml::{Tag, Token, Tokens};

/// Reads a Cobertura file.
pub fn read(input: impl BufRead, places: &Places) -> Reading {
    let mut tokens = Tokens::new(input, 4096, 4096);
    let mut collector = Collector::new(places, Join::Max);
    let mut roots: Vec<String> = Vec::new();
    let mut source: Option<String> = None;
    let mut depth = 0u32;
    let mut roots_warned = false;
    let mut class: Option<Class> = None;
    let mut method: Option<Method> = None;
    while let Some(token) = tokens.next(source.is_some()) {
        match token {
            Token::Start(tag) => {
                depth += u32::from(!tag.empty);
                match tag.name() {
                    "line" => {
                        if let Some((line, hits)) = line_of(tag) {
                            // The same line stands under its method and its class: it ran as often as the larger one says.
                            collector.line(line, hits);
                            if let Some((taken, total)) = tag.get("condition-coverage").and_then(conditions) {
                                collector.branches(line, taken, total);
                            }
                            match &mut method {
                                Some(method) => method.line(line, hits),
                                None => class.iter_mut().for_each(|class| class.line(line, hits)),
                            }
                        }
                    }
                    "method" if !tag.empty => {
                        let name = format!(
                            "{}{}",
                            tag.get("name").unwrap_or_default(),
                            tag.get("signature").unwrap_or_default()
                        );
                        method = Some(Method { name, first: None, hits: 0 });
                    }
                    "source" if !tag.empty => source = Some(String::new()),
                    "class" => {
                        let name = tag.get("filename").unwrap_or_default();
                        if roots.len() > 1 && !std::mem::replace(&mut roots_warned, true) {
                            collector.warn("the report names several source folders: paths are read as relative to the repository");
                        }
                        collector.open(&under_root(name, &roots, places));
                        class = Some(Class {
                            name: tag.get("name").unwrap_or(name).to_owned(),
                            lines: Vec::new(),
                        });
                    }
                    _ => {}
                }
            }
            Token::End(name) => {
                depth = depth.saturating_sub(1);
                match name {
                    "source" => roots.extend(source.take().filter(|_| roots.len() < 64)),
                    "method" => {
                        if let Some((method, line)) =
                            method.take().and_then(|m| m.first.map(|line| (m, line)))
                        {
                            collector.function(line, &method.name, method.hits);
                        }
                    }
                    "class" => {
                        method = None;
                        if let Some(mut class) = class.take() {
                            let (covered, lines) = class.sums();
                            collector.class(&class.name, covered, lines);
                        }
                        collector.close();
                    }
                    _ => {}
                }
            }
            Token::Text(text) => {
                if let Some(source) = &mut source {
                    source.push_str(text.trim());
                }
            }
        }
    }
    if let Some(why) = tokens.cut_short(depth > 0) {
        collector.warn(why);
    }
    collector.finish()
}

/// The class that is being read; its lines and whether they ran.
struct Class {
    name: String,
    lines: Vec<(u32, bool)>,
}

/// The method that is being read: called as often as its first line ran.
struct Method {
    name: String,
    first: Option<u32>,
    hits: u64,
}

impl Class {
    fn line(&mut self, line: u32, hits: u64) {
        if self.lines.len() < 1_000_000 {
            self.lines.push((line, hits > 0));
        }
    }
}

impl Class {
    /// Lines that ran and all; one that is told twice ran if it ran once.
    fn sums(&mut self) -> (u64, u64) {
        self.lines.sort_unstable();
        self.lines.reverse();
        self.lines.dedup_by_key(|(line, _)| *line);
        (self.lines.iter().filter(|(_, ran)| *ran).count() as u64, self.lines.len() as u64)
    }
}

impl Method {
    fn line(&mut self, line: u32, hits: u64) {
        if self.first.is_none() {
            (self.first, self.hits) = (Some(line), hits);
        }
    }
}

/// `50% (1/2)`.
fn conditions(text: &str) -> Option<(u32, u32)> {
    let (taken, total) = text.split_once('(')?.1.split_once(')')?.0.split_once('/')?;
    Some((taken.trim().parse().ok()?, total.trim().parse().ok()?))
}

/// File names are relative to `<source>`. With one source below the working copy that is where they lie; with any other, as when the
/// tests ran in a container, the working copy itself is the only place that makes sense.
fn under_root(name: &str, roots: &[String], places: &Places) -> String {
    let [root] = roots else { return name.to_owned() };
    let absolute = name.starts_with(['/', '\\']) || name.chars().nth(1) == Some(':');
    match normal_path(root, places.root()) {
        Some(root) if !absolute => format!("{root}/{name}"),
        _ => name.to_owned(),
    }
}

fn line_of(tag: &Tag) -> Option<(u32, u64)> {
    Some((tag.get("number")?.trim().parse().ok()?, hits(tag.get("hits")?)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const COVERAGE_PY: &str = r#"<?xml version="1.0" ?>
<coverage version="7.6" timestamp="1" lines-valid="3" lines-covered="2" line-rate="0.6667" complexity="0">
<!-- Generated by coverage.py: https://coverage.readthedocs.io -->
<sources><source>SOURCE</source></sources>
<packages><package name="." line-rate="0.67"><classes><class name="app.py" filename="app.py" line-rate="0.6667">
<methods><method name="add"><lines><line number="2" hits="1"/></lines></method></methods>
<lines><line number="1" hits="1"/><line number="2" hits="1" branch="true" condition-coverage="50% (1/2)"/><line number="5" hits="0"/>
</lines></class></classes></package></packages></coverage>"#;

    fn of(source: &str) -> Reading {
        read(COVERAGE_PY.replace("SOURCE", source).as_bytes(), &Places::at("/w/7"))
    }

    #[test]
    fn files_lie_under_the_source_folder() {
        for (source, path) in [
            ("/w/7", "app.py"),
            ("/w/7/src", "src/app.py"),
            ("/container/app", "app.py"),
            ("src", "src/app.py"),
        ] {
            let reading = of(source);
            assert_eq!(reading.coverage.files.keys().collect::<Vec<_>>(), [path], "{source}");
            assert!(reading.warnings.is_empty(), "{:?}", reading.warnings);
        }
    }

    #[test]
    fn a_line_of_a_method_counts_once() {
        assert_eq!(of("/w/7").coverage.files["app.py"].lines, [(1, 1), (2, 1), (5, 0)].into());
        assert_eq!(of("/w/7").coverage.sums(), (2, 3));
    }

    #[test]
    fn branches_methods_and_classes_are_counted() {
        let totals = of("/w/7").coverage.totals();
        let share = |covered, total| crate::coverage::Share { covered, total };
        assert_eq!(
            (totals.branches, totals.functions, totals.classes),
            (share(1, 2), share(1, 1), share(1, 1))
        );
    }

    #[test]
    fn a_truncated_file_keeps_what_it_holds_and_says_so() {
        let reading = read(&COVERAGE_PY.as_bytes()[..COVERAGE_PY.len() - 90], &Places::at("/w"));
        assert_eq!(reading.coverage.sums(), (2, 2), "the last line is cut off");
        assert!(reading.warnings.iter().any(|w| w.contains("ends in the middle")));
    }
}
