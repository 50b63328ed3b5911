//! `llvm-cov export -format=text`, which is JSON (llvm/tools/llvm-cov/CoverageExporterJson.cpp, versions 2 and 3): segments as lines,
//! branches, functions.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::collect::{Collector, LAST_LINE};
use crate::walk::{Items, Keys, List, Object, Text, skip};

/// Segments of one file that are kept.
const MOST_SEGMENTS: usize = 2_000_000;

/// The list `data`.
pub(crate) struct Exports<'a, 'p>(pub &'a mut Collector<'p>);

impl<'de> Items<'de> for Exports<'_, '_> {
    fn item<A: SeqAccess<'de>>(&mut self, seq: &mut A) -> Result<bool, A::Error> {
        Ok(seq.next_element_seed(Object(&mut Export(self.0)))?.is_some())
    }
}

struct Export<'a, 'p>(&'a mut Collector<'p>);

impl<'de> Keys<'de> for Export<'_, '_> {
    fn key<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "files" => map.next_value_seed(List(&mut Files(self.0))),
            "functions" => map.next_value_seed(List(&mut Functions(self.0))),
            _ => skip(map),
        }
    }
}

struct Files<'a, 'p>(&'a mut Collector<'p>);

impl<'de> Items<'de> for Files<'_, '_> {
    fn item<A: SeqAccess<'de>>(&mut self, seq: &mut A) -> Result<bool, A::Error> {
        let Some(file) = seq.next_element::<File<'de>>()? else { return Ok(false) };
        if self.0.open(&file.filename) {
            lines(&file.segments, self.0);
            for branch in &file.branches {
                self.0.branch(branch.line, branch.yes);
                self.0.branch(branch.line, branch.no);
            }
        }
        self.0.close();
        Ok(true)
    }
}

#[derive(Deserialize)]
struct File<'a> {
    #[serde(borrow)]
    filename: Cow<'a, str>,
    #[serde(default)]
    segments: Vec<Segment>,
    #[serde(default)]
    branches: Vec<Branch>,
}

struct Functions<'a, 'p>(&'a mut Collector<'p>);

#[derive(Deserialize)]
struct Function<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(default)]
    count: u64,
    #[serde(borrow, default)]
    filenames: Vec<Text<'a>>,
    #[serde(default)]
    regions: Vec<Region>,
}

impl<'de> Items<'de> for Functions<'_, '_> {
    fn item<A: SeqAccess<'de>>(&mut self, seq: &mut A) -> Result<bool, A::Error> {
        let Some(function) = seq.next_element::<Function<'de>>()? else { return Ok(false) };
        let line = function.regions.first().map_or(0, |region| region.line);
        if let Some(Text(file)) = function.filenames.first() {
            self.0.open(file);
            self.0.function(line, &function.name, function.count);
            self.0.close();
        }
        Ok(true)
    }
}

/// `[line, column, count, has count, begins a region, is a gap]`.
#[derive(Clone, Copy)]
struct Segment {
    line: u32,
    count: u64,
    counted: bool,
    entry: bool,
    gap: bool,
}

/// `[line, column, end line, end column, true, false, …]`.
struct Branch {
    line: u32,
    yes: u64,
    no: u64,
}

/// `[line, column, …]`.
struct Region {
    line: u32,
}

/// Reads the fields of a list by position and passes over what follows.
macro_rules! by_position {
    ($type:ident, $what:literal, |$seq:ident| $body:expr) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(input: D) -> Result<$type, D::Error> {
                struct Fields;
                impl<'de> Visitor<'de> for Fields {
                    type Value = $type;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($what)
                    }
                    fn visit_seq<A: SeqAccess<'de>>(self, mut $seq: A) -> Result<$type, A::Error> {
                        let made = $body;
                        while $seq.next_element::<IgnoredAny>()?.is_some() {}
                        Ok(made)
                    }
                }
                input.deserialize_seq(Fields)
            }
        }
    };
}

by_position!(Segment, "a segment", |seq| {
    let line = seq.next_element()?.unwrap_or(0);
    seq.next_element::<IgnoredAny>()?;
    let count = seq.next_element()?.unwrap_or(0);
    let mut flag = || Ok::<bool, A::Error>(seq.next_element()?.unwrap_or(false));
    Segment { line, count, counted: flag()?, entry: flag()?, gap: flag()? }
});
by_position!(Branch, "a branch", |seq| {
    let line = seq.next_element()?.unwrap_or(0);
    for _ in 0..3 {
        seq.next_element::<IgnoredAny>()?;
    }
    Branch { line, yes: seq.next_element()?.unwrap_or(0), no: seq.next_element()?.unwrap_or(0) }
});
by_position!(Region, "a region", |seq| Region { line: seq.next_element()?.unwrap_or(0) });

/// Lines from segments, as `LineCoverageStats` of LLVM's CoverageMapping.cpp counts them: a line ran as often as the most of the regions
/// that begin in it and of the one that reaches into it.
fn lines(segments: &[Segment], collector: &mut Collector<'_>) {
    let segments = &segments[..segments.len().min(MOST_SEGMENTS)];
    let sane = segments.is_sorted_by_key(|segment| segment.line)
        && segments.last().is_none_or(|last| last.line <= LAST_LINE);
    if !sane {
        collector.warn("the segments of a file are not in order and were passed over");
        return;
    }
    let begins = |segment: &&Segment| !segment.gap && segment.counted && segment.entry;
    let (mut at, mut around): (usize, Option<Segment>) = (0, None);
    let Some(first) = segments.first() else { return };
    let mut line = first.line;
    while at < segments.len() || around.is_some_and(|segment| segment.counted) {
        let here =
            &segments[at..at + segments[at..].iter().take_while(|segment| segment.line == line).count()];
        let skipped = here.first().is_some_and(|first| !first.counted && first.entry);
        let starts = here.iter().filter(begins).count();
        let mapped = !skipped && (around.is_some_and(|segment| segment.counted) || starts > 0)
            || here.iter().any(|segment| segment.entry && segment.counted);
        if mapped {
            let inside = here.iter().filter(begins).map(|segment| segment.count);
            let hits = inside.chain(around.map(|segment| segment.count)).max().unwrap_or(0);
            collector.line(line, hits);
        }
        at += here.len();
        around = here.last().copied().or(around);
        // Behind the last segment nothing follows; a region that was never closed must not go on for ever.
        let Some(next) = segments.get(at) else { break };
        line = match around {
            Some(segment) if segment.counted => line + 1,
            // Nothing is counted up to the next segment.
            _ => next.line,
        };
    }
}

#[cfg(test)]
mod tests {
    use crate::coverage::{Share, read};
    use crate::places::Places;

    const EXPORT: &str = r#"{"data":[{"files":[{"branches":[[4,7,4,12,2,0,0,0,4]],"expansions":[],"filename":"/w/src/a.c",
        "segments":[[3,14,2,true,true,false],[4,7,2,true,true,false],[4,12,2,true,false,false],[4,13,0,true,false,true],
        [4,14,0,true,true,false],[6,4,2,true,false,true],[7,3,2,true,true,false],[8,2,0,false,false,false]],"summary":{}}],
        "functions":[{"branches":[],"count":2,"filenames":["/w/src/a.c"],"name":"f","regions":[[3,14,8,2,2,0,0,0]]}],"totals":{}}],
        "type":"llvm.coverage.json.export","version":"2.0.1"}"#;

    #[test]
    fn segments_become_lines_as_llvm_counts_them() {
        let reading = read(EXPORT.as_bytes(), &Places::at("/w")).unwrap();
        assert!(reading.warnings.is_empty(), "{:?}", reading.warnings);
        let file = &reading.coverage.files["src/a.c"];
        assert_eq!(file.lines, [(3, 2), (4, 2), (5, 0), (6, 0), (7, 2), (8, 2)].into());
        assert_eq!(file.branches, [(4, vec![2, 0])].into());
        assert_eq!(reading.coverage.totals().functions, Share { covered: 1, total: 1 });
    }

    #[test]
    fn a_truncated_export_keeps_what_it_holds_and_says_where_it_ends() {
        let cut = EXPORT.find("\"functions\"").unwrap() + 5;
        let reading = read(&EXPORT.as_bytes()[..cut], &Places::at("/w")).unwrap();
        assert_eq!(reading.coverage.sums(), (4, 6));
        assert!(reading.warnings[0].contains("at line 4 column"), "{:?}", reading.warnings);
    }
}
