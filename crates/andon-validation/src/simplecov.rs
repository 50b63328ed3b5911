//! SimpleCov's `.resultset.json` and the `coverage.json` of its JSON formatter: lines as a list with null where nothing can run, branches.

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use std::fmt;

use crate::collect::Collector;
use crate::walk::{Count, Items, Keys, List, Object, skip};

/// The object `coverage`: path by path.
pub(crate) struct Files<'a, 'p>(pub &'a mut Collector<'p>);

impl<'de> Keys<'de> for Files<'_, '_> {
    fn key<A: MapAccess<'de>>(&mut self, path: &str, map: &mut A) -> Result<(), A::Error> {
        self.0.open(path);
        let done = map.next_value_seed(File(self.0));
        self.0.close();
        done
    }
}

/// `{ "lines": […], "branches": … }`, or only the list of lines as before version 0.18.
struct File<'a, 'p>(&'a mut Collector<'p>);

impl<'de> DeserializeSeed<'de> for File<'_, '_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<(), D::Error> {
        input.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for File<'_, '_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("lines of a file")
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        Object(&mut Parts(self.0)).visit_map(map)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<(), A::Error> {
        List(&mut Lines { collector: self.0, line: 0 }).visit_seq(seq)
    }
}

struct Parts<'a, 'p>(&'a mut Collector<'p>);

impl<'de> Keys<'de> for Parts<'_, '_> {
    fn key<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "lines" => map.next_value_seed(List(&mut Lines { collector: self.0, line: 0 })),
            "branches" => map.next_value_seed(Branches(self.0)),
            _ => skip(map),
        }
    }
}

struct Lines<'a, 'p> {
    collector: &'a mut Collector<'p>,
    line: u32,
}

impl<'de> Items<'de> for Lines<'_, '_> {
    fn item<A: SeqAccess<'de>>(&mut self, seq: &mut A) -> Result<bool, A::Error> {
        let Some(Count(hits)) = seq.next_element()? else { return Ok(false) };
        self.line = self.line.saturating_add(1);
        if let Some(hits) = hits {
            self.collector.line(self.line, hits);
        }
        Ok(true)
    }
}

/// An object by condition in a result set, a list in `coverage.json`.
struct Branches<'a, 'p>(&'a mut Collector<'p>);

impl<'de> DeserializeSeed<'de> for Branches<'_, '_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<(), D::Error> {
        input.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Branches<'_, '_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("branches of a file")
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        Object(&mut Conditions(self.0)).visit_map(map)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        #[derive(Deserialize)]
        struct Branch {
            start_line: u32,
            coverage: Count,
        }
        while let Some(branch) = seq.next_element::<Branch>()? {
            if let Count(Some(hits)) = branch.coverage {
                self.0.branch(branch.start_line, hits);
            }
        }
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

struct Conditions<'a, 'p>(&'a mut Collector<'p>);

impl<'de> Keys<'de> for Conditions<'_, '_> {
    fn key<A: MapAccess<'de>>(&mut self, condition: &str, map: &mut A) -> Result<(), A::Error> {
        // `[:if, 0, 3, 4, 7, 7]`: kind, number, line, column, last line, last column.
        let line = condition.split(',').nth(2).and_then(|line| line.trim().parse().ok());
        match line {
            Some(line) => map.next_value_seed(Object(&mut Ways { collector: self.0, line })),
            None => skip(map),
        }
    }
}

struct Ways<'a, 'p> {
    collector: &'a mut Collector<'p>,
    line: u32,
}

impl<'de> Keys<'de> for Ways<'_, '_> {
    fn key<A: MapAccess<'de>>(&mut self, _: &str, map: &mut A) -> Result<(), A::Error> {
        if let Count(Some(hits)) = map.next_value()? {
            self.collector.branch(self.line, hits);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::coverage::{Share, read};
    use crate::places::Places;

    #[test]
    fn two_commands_of_a_result_set_add_up() {
        let text = r#"{"RSpec":{"coverage":{"/w/lib/a.rb":{"lines":[1,null,0,2],"branches":{"[:if, 0, 3, 4, 7, 7]":{"[:then, 1, 4, 6, 4, 10]":1,
            "[:else, 2, 3, 4, 7, 7]":0}}}},"timestamp":1},"Cucumber":{"coverage":{"/w/lib/a.rb":[1,null,4,0]},"timestamp":2}}"#;
        let reading = read(text.as_bytes(), &Places::at("/w")).unwrap();
        let file = &reading.coverage.files["lib/a.rb"];
        assert_eq!(file.lines, [(1, 2), (3, 4), (4, 2)].into());
        assert_eq!(file.totals().branches, Share { covered: 1, total: 2 });
    }

    #[test]
    fn the_json_formatter_marks_what_is_ignored() {
        let text = r#"{"meta":{"simplecov_version":"0.22.0"},"coverage":{"/w/a.rb":{"lines":[1,"ignored",null,0],
            "branches":[{"type":"then","start_line":4,"end_line":4,"coverage":"ignored","inline":false},{"start_line":4,"coverage":3}]}},"groups":{}}"#;
        let file = &read(text.as_bytes(), &Places::at("/w")).unwrap().coverage.files["a.rb"];
        assert_eq!(
            (file.lines.clone(), file.branches.clone()),
            ([(1, 1), (4, 0)].into(), [(4, vec![3])].into())
        );
    }
}
