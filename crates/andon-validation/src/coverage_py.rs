//! `coverage json` of coverage.py (its documentation, "JSON reporting"): lines, branches as pairs of lines, functions, classes.

use serde::Deserialize;
use serde::de::MapAccess;
use std::collections::BTreeMap;

use crate::collect::Collector;
use crate::walk::Keys;

/// The object `files`: path by path.
pub(crate) struct Files<'a, 'p>(pub &'a mut Collector<'p>);

#[derive(Deserialize, Default)]
#[serde(default)]
struct File {
    executed_lines: Vec<u32>,
    missing_lines: Vec<u32>,
    executed_branches: Vec<(i64, i64)>,
    missing_branches: Vec<(i64, i64)>,
    functions: BTreeMap<String, Region>,
    classes: BTreeMap<String, Region>,
    contexts: BTreeMap<String, Vec<String>>,
}

/// A function or a class; the one without a name is what stands outside of all.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Region {
    executed_lines: Vec<u32>,
    missing_lines: Vec<u32>,
    start_line: Option<u32>,
}

impl<'de> Keys<'de> for Files<'_, '_> {
    fn key<A: MapAccess<'de>>(&mut self, path: &str, map: &mut A) -> Result<(), A::Error> {
        let file: File = map.next_value()?;
        if !self.0.open(path) {
            return Ok(());
        }
        file.executed_lines.iter().for_each(|line| self.0.line(*line, 1));
        file.missing_lines.iter().for_each(|line| self.0.line(*line, 0));
        // By where they lead to, so that the order is the same in every report.
        let taken = file.executed_branches.iter().map(|pair| (*pair, 1));
        let missed = file.missing_branches.iter().map(|pair| (*pair, 0));
        let ways: BTreeMap<(i64, i64), u64> = missed.chain(taken).collect();
        for ((from, _), hits) in ways {
            self.0.branch(u32::try_from(from).unwrap_or(0), hits);
        }
        for (name, region) in file.functions.iter().filter(|(name, _)| !name.is_empty()) {
            let first = region.executed_lines.iter().chain(&region.missing_lines).min().copied();
            let line = region.start_line.or(first).unwrap_or(0);
            self.0.function(line, name, u64::from(!region.executed_lines.is_empty()));
        }
        for (name, region) in file.classes.iter().filter(|(name, _)| !name.is_empty()) {
            let (covered, missing) = (region.executed_lines.len() as u64, region.missing_lines.len() as u64);
            self.0.class(name, covered, covered + missing);
        }
        // `tests/test_app.py::test_add|run`; what ran outside of all tests has an empty one.
        let contexts = file
            .contexts
            .values()
            .flatten()
            .map(|context| context.rsplit_once('|').map_or(context.as_str(), |(test, _)| test));
        contexts.filter(|test| !test.is_empty()).for_each(|test| self.0.test(test));
        self.0.close();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::coverage::{Share, read};
    use crate::places::Places;

    #[test]
    fn branches_lead_to_lines_and_the_nameless_region_is_no_function() {
        let text = r#"{"meta":{"format":3},"files":{"src/app.py":{"executed_lines":[1,2,3],"missing_lines":[5],"executed_branches":[[2,3]],
            "missing_branches":[[2,5],[2,-1]],"functions":{"add":{"executed_lines":[2],"missing_lines":[]},"":{"executed_lines":[1]}},
            "classes":{"":{"executed_lines":[1]}}}},"totals":{}}"#;
        let reading = read(text.as_bytes(), &Places::at("/w")).unwrap();
        let totals = reading.coverage.totals();
        assert_eq!(totals.lines, Share { covered: 3, total: 4 });
        assert_eq!(
            (totals.branches, totals.functions),
            (Share { covered: 1, total: 3 }, Share { covered: 1, total: 1 })
        );
    }
}
