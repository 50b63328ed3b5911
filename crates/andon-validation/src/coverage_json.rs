//! Reading coverage that is written as JSON: which of the formats it is shows while it is walked. The formats themselves are in `llvm_cov`,
//! `simplecov` and `coverage_py`.

use serde::de::{DeserializeSeed, MapAccess};

use crate::collect::{Collector, Join};
use crate::coverage::Reading;
use crate::detect::{NotAReport, not_coverage};
use crate::places::Places;
use crate::walk::{Keys, List, Object, skip};
use crate::{coverage_py, llvm_cov, simplecov};

/// Reads `llvm-cov export`, `.resultset.json` and `coverage.json` of SimpleCov, `coverage json` of coverage.py.
pub fn read(bytes: &[u8], places: &Places) -> Result<Reading, NotAReport> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut top = Top { collector: Collector::new(places, Join::Add), known: false };
    let mut input = serde_json::Deserializer::from_slice(bytes);
    // Nesting is limited by the parser to 128.
    let walked = Object(&mut top).deserialize(&mut input).and_then(|()| input.end());
    if !top.known {
        return Err(not_coverage(bytes));
    }
    if let Err(error) = walked {
        top.collector.warn(format!("the report could not be read to its end: {error}"));
    }
    Ok(top.collector.finish())
}

struct Top<'p> {
    collector: Collector<'p>,
    known: bool,
}

impl<'de> Keys<'de> for Top<'_> {
    fn key<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "data" => {
                self.known = true;
                map.next_value_seed(List(&mut llvm_cov::Exports(&mut self.collector)))
            }
            "coverage" => {
                self.known = true;
                map.next_value_seed(Object(&mut simplecov::Files(&mut self.collector)))
            }
            "files" => {
                self.known = true;
                map.next_value_seed(Object(&mut coverage_py::Files(&mut self.collector)))
            }
            "meta" | "total" | "totals" | "groups" | "errors" | "type" | "version" => skip(map),
            // A command of SimpleCov: `{ "RSpec": { "coverage": …, "timestamp": … } }`.
            _ => map.next_value_seed(Object(&mut Command { top: self })),
        }
    }
}

struct Command<'a, 'p> {
    top: &'a mut Top<'p>,
}

impl<'de> Keys<'de> for Command<'_, '_> {
    fn key<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "coverage" => {
                self.top.known = true;
                map.next_value_seed(Object(&mut simplecov::Files(&mut self.top.collector)))
            }
            _ => skip(map),
        }
    }
}
