//! Reading Clover XML as OpenClover, PHPUnit and Istanbul write it: statements as lines, conditions as branches, methods, classes.

use std::io::BufRead;

use crate::collect::{Collector, Join, hits};
use crate::coverage::Reading;
use crate::places::Places;
use crate::xml::{Tag, Token, Tokens};

/// Conditions of one file that are kept until its sums are known.
const MOST_CONDITIONS: usize = 1_000_000;

/// The file that is being read.
#[derive(Default)]
struct File {
    /// `conditionals` of its own metrics.
    declared: Option<u64>,
    /// Line, hits of true, hits of false.
    conditions: Vec<(u32, u64, u64)>,
    class: Option<String>,
    anonymous: u32,
}

/// Reads a report.
pub fn read(input: impl BufRead, places: &Places) -> Reading {
    let mut tokens = Tokens::new(input, 0, 4096);
    let mut collector = Collector::new(places, Join::Max);
    let mut depth = 0u32;
    let mut file: Option<File> = None;
    while let Some(token) = tokens.next(false) {
        match token {
            Token::Start(tag) => {
                depth += u32::from(!tag.empty);
                match (tag.name(), &mut file) {
                    ("file", _) => {
                        // `path` is whole; `name` is, too, where there is no `path`.
                        collector.open(tag.get("path").or(tag.get("name")).unwrap_or_default());
                        file = Some(File::default()).filter(|_| !tag.empty);
                    }
                    ("line", Some(file)) => line(tag, file, &mut collector),
                    ("class", Some(file)) => file.class = tag.get("name").map(str::to_owned),
                    ("metrics", Some(file)) => metrics(tag, file, &mut collector),
                    _ => {}
                }
            }
            Token::End(name) => {
                depth = depth.saturating_sub(1);
                match name {
                    "file" => {
                        if let Some(file) = file.take() {
                            conditions(file, &mut collector);
                        }
                        collector.close();
                    }
                    "class" => file.iter_mut().for_each(|file| file.class = None),
                    _ => {}
                }
            }
            Token::Text(_) => {}
        }
    }
    if let Some(file) = file.take() {
        conditions(file, &mut collector);
    }
    if let Some(why) = tokens.cut_short(depth > 0) {
        collector.warn(why);
    }
    collector.finish()
}

fn line(tag: &Tag, file: &mut File, collector: &mut Collector<'_>) {
    let Some(line) = tag.get("num").and_then(|n| n.trim().parse::<u32>().ok()) else { return };
    let count = |key| tag.get(key).and_then(hits);
    match tag.get("type").unwrap_or("stmt") {
        "method" => {
            let name = tag.get("name").or(tag.get("signature")).map(str::to_owned);
            let name = name.unwrap_or_else(|| {
                file.anonymous += 1;
                format!("(method {})", file.anonymous)
            });
            collector.function(line, &name, count("count").unwrap_or(0));
        }
        kind => {
            let (yes, no) = (count("truecount"), count("falsecount"));
            // OpenClover says of a condition only how often it was true and false.
            let ran = count("count").unwrap_or_else(|| yes.unwrap_or(0).saturating_add(no.unwrap_or(0)));
            collector.line(line, ran);
            if kind == "cond" && file.conditions.len() < MOST_CONDITIONS {
                file.conditions.push((line, yes.unwrap_or(0), no.unwrap_or(0)));
            }
        }
    }
}

fn metrics(tag: &Tag, file: &mut File, collector: &mut Collector<'_>) {
    let count = |key| tag.get(key).and_then(hits);
    match &file.class {
        Some(class) => {
            if let (Some(covered), Some(all)) = (count("coveredstatements"), count("statements")) {
                collector.class(class, covered, all);
            }
        }
        None => file.declared = count("conditionals"),
    }
}

/// OpenClover counts how often a condition was true and false: two ways each. Istanbul writes the number of ways that were taken and
/// that were not. The file's own sum tells which it is.
fn conditions(file: File, collector: &mut Collector<'_>) {
    let ways: u64 =
        file.conditions.iter().fold(0, |sum, (_, yes, no)| sum.saturating_add(*yes).saturating_add(*no));
    let counts_ways = file.declared == Some(ways);
    for (line, yes, no) in file.conditions {
        if counts_ways {
            let small = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
            collector.branches(line, small(yes), small(yes.saturating_add(no)));
        } else {
            collector.branch(line, yes);
            collector.branch(line, no);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coverage::Share;

    fn of(text: &str) -> Reading {
        read(text.as_bytes(), &Places::at("/w"))
    }

    fn share(covered: u64, total: u64) -> Share {
        Share { covered, total }
    }

    #[test]
    fn phpunit_counts_statements_methods_and_classes() {
        let totals = of(r#"<coverage generated="1"><project timestamp="1"><file name="/w/src/Cart.php"><class name="Cart" namespace="global">
            <metrics complexity="3" methods="2" coveredmethods="1" conditionals="0" coveredconditionals="0" statements="3" coveredstatements="2"/></class>
            <line num="5" type="method" name="add" visibility="public" complexity="1" crap="1" count="2"/><line num="7" type="stmt" count="2"/>
            <line num="8" type="stmt" count="1"/><line num="11" type="method" name="gone" count="0"/><line num="13" type="stmt" count="0"/>
            <metrics loc="15" statements="3" coveredstatements="2" conditionals="0"/></file></project></coverage>"#)
        .coverage
        .totals();
        assert_eq!((totals.lines, totals.functions, totals.classes), (share(2, 3), share(1, 2), share(1, 1)));
    }

    #[test]
    fn conditions_of_istanbul_and_of_openclover_are_told_apart() {
        let of_kind = |declared: u32| {
            let text = format!(
                r#"<coverage clover="3.2.0"><project><file name="a.js" path="/w/a.js"><metrics conditionals="{declared}"/>
                <line num="1" count="3" type="cond" truecount="3" falsecount="1"/></file></project></coverage>"#
            );
            of(&text).coverage.totals().branches
        };
        assert_eq!(of_kind(4), share(3, 4), "three of four ways were taken");
        assert_eq!(of_kind(2), share(2, 2), "it was true three times and false once");
    }
}
