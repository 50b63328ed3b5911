//! Reading JaCoCo XML (report.dtd 1.1 of JaCoCo): lines and branches of source files, methods and classes by their counters.

use std::io::BufRead;

use crate::collect::{Collector, Join};
use crate::coverage::Reading;
use crate::places::Places;
use crate::xml::{Tag, Token, Tokens};

/// A class that is being read. Its file comes further down, so it is kept until then.
struct Class {
    /// Its path, `com/acme/Foo.java`.
    file: String,
    name: String,
    line: Option<(u64, u64)>,
    methods: Vec<(u32, String, bool)>,
}

/// Classes of one package that are kept until its files come.
const MOST_CLASSES: usize = 100_000;

/// Reads a report.
pub fn read(input: impl BufRead, places: &Places) -> Reading {
    let mut tokens = Tokens::new(input, 0, 4096);
    let mut collector = Collector::new(places, Join::Max);
    let (mut depth, mut package) = (0u32, String::new());
    let mut waiting: Vec<Class> = Vec::new();
    // Inside: a class, one of its methods.
    let (mut class, mut method): (Option<Class>, Option<(u32, String, bool)>) = (None, None);
    while let Some(token) = tokens.next(false) {
        match token {
            Token::Start(tag) => {
                depth += u32::from(!tag.empty);
                match tag.name() {
                    "line" => line(tag, &mut collector),
                    "package" => package = tag.get("name").unwrap_or_default().to_owned(),
                    "class" => {
                        let name = tag.get("name").unwrap_or_default();
                        let file = tag.get("sourcefilename").unwrap_or_default();
                        let (name, file) = (name.replace('/', "."), join(&package, file));
                        class = Some(Class { file, name, line: None, methods: Vec::new() })
                            .filter(|_| !tag.empty);
                    }
                    "method" if !tag.empty => {
                        let name = format!(
                            "{}{}",
                            tag.get("name").unwrap_or_default(),
                            tag.get("desc").unwrap_or_default()
                        );
                        method = Some((number(tag, "line").unwrap_or(0), name, false));
                    }
                    "counter" => {
                        let of = |key| number::<u64>(tag, key).unwrap_or(0);
                        let (kind, covered) = (tag.get("type").unwrap_or_default(), of("covered"));
                        match (&mut method, &mut class) {
                            (Some(method), _) if kind == "METHOD" => method.2 = covered > 0,
                            (None, Some(class)) if kind == "LINE" => {
                                class.line = Some((covered, covered.saturating_add(of("missed"))));
                            }
                            _ => {}
                        }
                    }
                    "sourcefile" if !tag.empty => {
                        let path = join(&package, tag.get("name").unwrap_or_default());
                        collector.open(&path);
                        for class in waiting.extract_if(.., |class| class.file == path) {
                            for (line, name, ran) in class.methods {
                                collector.function(line, &format!("{}.{name}", class.name), u64::from(ran));
                            }
                            let (covered, lines) = class.line.unwrap_or((0, 0));
                            collector.class(&class.name, covered, lines);
                        }
                    }
                    _ => {}
                }
            }
            Token::End(name) => {
                depth = depth.saturating_sub(1);
                match name {
                    "method" => {
                        if let (Some(method), Some(class)) = (method.take(), &mut class) {
                            class.methods.push(method);
                        }
                    }
                    "class" => waiting.extend(class.take().filter(|_| waiting.len() < MOST_CLASSES)),
                    "sourcefile" => collector.close(),
                    "package" => waiting.clear(),
                    _ => {}
                }
            }
            Token::Text(_) => {}
        }
    }
    if let Some(why) = tokens.cut_short(depth > 0) {
        collector.warn(why);
    }
    collector.finish()
}

/// `<line nr="4" mi="0" ci="4" mb="1" cb="3"/>`: instructions and branches, missed and covered.
fn line(tag: &Tag, collector: &mut Collector<'_>) {
    let (mut line, mut ran, mut missed, mut taken) = (0, 0, 0, 0u32);
    for (key, value) in tag.attributes() {
        let into = match key {
            "nr" => &mut line,
            "ci" => &mut ran,
            "mb" => &mut missed,
            "cb" => &mut taken,
            _ => continue,
        };
        *into = value.parse().unwrap_or(0);
    }
    // Instructions tell whether it ran; how often is not counted.
    collector.line(line, u64::from(ran > 0));
    if missed > 0 || taken > 0 {
        collector.branches(line, taken, taken.saturating_add(missed));
    }
}

fn join(package: &str, file: &str) -> String {
    if package.is_empty() { file.to_owned() } else { format!("{package}/{file}") }
}

fn number<T: std::str::FromStr>(tag: &Tag, key: &str) -> Option<T> {
    tag.get(key)?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coverage::Share;

    const REPORT: &str = r#"<?xml version="1.0"?><!DOCTYPE report PUBLIC "-//JACOCO//DTD Report 1.1//EN" "report.dtd"><report name="x">
<sessioninfo id="a" start="1" dump="2"/><group name="m"><package name="com/acme"><class name="com/acme/Foo" sourcefilename="Foo.java">
<method name="add" desc="(II)I" line="4"><counter type="LINE" missed="0" covered="2"/><counter type="METHOD" missed="0" covered="1"/></method>
<method name="sub" desc="(II)I" line="8"><counter type="LINE" missed="1" covered="0"/><counter type="METHOD" missed="1" covered="0"/></method>
<counter type="LINE" missed="1" covered="2"/><counter type="METHOD" missed="1" covered="1"/></class>
<class name="com/acme/Foo$In" sourcefilename="Foo.java"><counter type="LINE" missed="1" covered="0"/></class>
<sourcefile name="Foo.java"><line nr="4" mi="0" ci="4" mb="1" cb="3"/><line nr="5" mi="2" ci="1" mb="0" cb="0"/>
<line nr="8" mi="4" ci="0" mb="0" cb="0"/><counter type="LINE" missed="1" covered="2"/></sourcefile></package></group></report>"#;

    #[test]
    fn lines_branches_methods_and_classes_are_found_below_the_source_folder() {
        let places = Places::with_files("/w", ["app/src/main/java/com/acme/Foo.java".to_owned()]);
        let reading = read(REPORT.as_bytes(), &places);
        assert!(reading.warnings.is_empty(), "{:?}", reading.warnings);
        let file = &reading.coverage.files["app/src/main/java/com/acme/Foo.java"];
        assert_eq!(file.lines, [(4, 1), (5, 1), (8, 0)].into());
        let (totals, share) = (file.totals(), |covered, total| Share { covered, total });
        assert_eq!(
            (totals.branches, totals.functions, totals.classes),
            (share(3, 4), share(1, 2), share(1, 2))
        );
        assert_eq!(file.functions[1].name, "com.acme.Foo.sub(II)I");
    }

    #[test]
    fn a_truncated_file_says_where_it_ends() {
        let cut = REPORT.find("<line nr=\"8\"").unwrap();
        let reading = read(&REPORT.as_bytes()[..cut], &Places::at("/w"));
        assert_eq!(reading.coverage.sums(), (2, 2));
        assert!(reading.warnings[0].contains(&format!("at byte {cut}")), "{:?}", reading.warnings);
    }
}
