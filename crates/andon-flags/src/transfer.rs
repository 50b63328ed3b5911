//! Whole flagd files in and out. A bad file is refused whole; nothing is applied here.

use std::fmt;

use andon_model::event::Event;
use serde_json::{Map, Value, json};

use crate::definition::{Flag, OWN};
use crate::rule::inline;
use crate::set::FlagSet;

/// The largest file that is read, in bytes: about 50,000 plain flags.
pub const LARGEST: usize = 16 * 1024 * 1024;

/// Everything that is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadFile {
    /// One sentence for each mistake.
    pub problems: Vec<String>,
}

impl std::error::Error for BadFile {}

impl fmt::Display for BadFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in self.problems.iter().take(20) {
            writeln!(f, "{problem}")?;
        }
        if self.problems.len() > 20 {
            writeln!(f, "and {} more", self.problems.len() - 20)?;
        }
        f.write_str("hint: mend the file and import it again; nothing was changed")
    }
}

/// Reads a flagd file: the events that make its flags what it says, without those that are so already. Flags that it does not name stay.
/// Every `$ref` is written out and the set's metadata joins each flag's, so that each flag stands alone.
pub fn import(set: &FlagSet, file: &str) -> Result<Vec<Event>, BadFile> {
    let bad = |problem: String| BadFile { problems: vec![problem] };
    if file.len() > LARGEST {
        return Err(bad(format!("the file has {} bytes, more than the {LARGEST} that are read", file.len())));
    }
    let file: Value =
        serde_json::from_str(file).map_err(|error| bad(format!("the file is no JSON: {error}")))?;
    let object = |name: &str| file.get(name).and_then(Value::as_object).cloned().unwrap_or_default();
    let (evaluators, shared) = (object("$evaluators"), object("metadata"));
    let flags: Vec<(String, &Value)> = match file.get("flags") {
        Some(Value::Object(flags)) => flags.iter().map(|(key, flag)| (key.clone(), flag)).collect(),
        Some(Value::Array(flags)) => flags
            .iter()
            .map(|flag| (flag.get("key").and_then(Value::as_str).unwrap_or_default().to_owned(), flag))
            .collect(),
        _ => {
            return Err(bad(
                "the file has no `flags`: a flagd file is {\"flags\": {\"my-flag\": {\"state\": …}}}".into(),
            ));
        }
    };
    let mut problems = Vec::new();
    let mut events = Vec::new();
    for (key, flag) in flags {
        let definition = match alone(flag, &evaluators, &shared) {
            Ok(definition) => definition,
            Err(why) => {
                problems.push(format!("flag {key:?}: its targeting {why}"));
                continue;
            }
        };
        match Flag::read(&key, &definition) {
            Err(wrong) => problems.extend(wrong),
            Ok(read) => {
                if let Some(variant) = unknown_variant(&read) {
                    problems.push(format!(
                        "flag {key:?}: its targeting chooses the variant {variant:?}, which it does not have"
                    ));
                    continue;
                }
                let known = set.get(&key);
                if known.is_none_or(|known| known.definition != definition) {
                    let word = if known.is_some() { "changed" } else { "created" };
                    let what = format!("flag {key} was {word} by an import");
                    events.push(Event::FlagChanged { flag: key, definition: Some(definition), what });
                }
            }
        }
    }
    if problems.is_empty() { Ok(events) } else { Err(BadFile { problems }) }
}

/// All flags as a flagd file.
pub fn export(set: &FlagSet) -> Value {
    let plain = |flag: &Flag| {
        let mut definition = flag.definition.clone();
        if let Some(map) = definition.as_object_mut() {
            map.remove(OWN);
        }
        definition
    };
    let flags: Map<String, Value> = set.iter().map(|flag| (flag.key.clone(), plain(flag))).collect();
    json!({"$schema": "https://flagd.dev/schema/v0/flags.json", "flags": flags, "metadata": {"version": set.revision().to_string()}})
}

fn alone(
    flag: &Value,
    evaluators: &Map<String, Value>,
    shared: &Map<String, Value>,
) -> Result<Value, String> {
    let mut definition = flag.as_object().cloned().unwrap_or_default();
    definition.remove("key");
    // Only a kill writes this; a file that brings it along would make a flag that cannot be changed.
    definition.remove(OWN);
    if let Some(targeting) = definition.get_mut("targeting") {
        *targeting = inline(targeting, evaluators)?;
    }
    let own = definition.get("metadata").and_then(Value::as_object).cloned().unwrap_or_default();
    // The set's version is another file's; everything else it says belongs to each flag.
    let mut metadata: Map<String, Value> =
        shared.iter().filter(|(name, _)| *name != "version").map(|(k, v)| (k.clone(), v.clone())).collect();
    metadata.extend(own);
    if !metadata.is_empty() {
        definition.insert("metadata".into(), Value::Object(metadata));
    }
    Ok(Value::Object(definition))
}

/// A variant that the rule plainly names in a place that decides, but the flag lacks. Computed names are seen only when they are used.
fn unknown_variant(flag: &Flag) -> Option<String> {
    fn named(rule: &Value, found: &mut Vec<String>) {
        match rule {
            Value::String(name) => found.push(name.clone()),
            Value::Object(map) if map.len() == 1 => match map.iter().next() {
                Some((name, Value::Array(parts))) if name == "if" || name == "?:" => {
                    let count = parts.len();
                    let values = parts
                        .iter()
                        .enumerate()
                        .filter(|(n, _)| n % 2 == 1 || (count % 2 == 1 && n + 1 == count));
                    values.for_each(|(_, value)| named(value, found));
                }
                Some((name, Value::Array(parts))) if name == "fractional" => {
                    parts
                        .iter()
                        .filter_map(|part| part.as_array()?.first())
                        .for_each(|variant| named(variant, found));
                }
                _ => {}
            },
            _ => {}
        }
    }
    let mut found = Vec::new();
    named(flag.definition.get("targeting")?, &mut found);
    found.into_iter().find(|name| !flag.variants.contains_key(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::{Context, evaluate};
    use andon_model::event::Recorded;
    use andon_model::{Actor, Time};
    use proptest::prelude::*;

    fn imported(set: &FlagSet, file: &str) -> Result<FlagSet, BadFile> {
        let mut set = set.clone();
        for event in import(&set, file)? {
            let seq = set.revision() + 1;
            set.evolve(&Recorded { seq, at: Time(0), by: Actor::line("test"), project: None, event });
        }
        Ok(set)
    }

    const FILE: &str = r#"{"$schema": "x", "flags": {
        "mail": {"state": "ENABLED", "variants": {"hi": "hi", "bye": "bye"}, "defaultVariant": "bye",
                 "targeting": {"if": [{"$ref" : "is_acme"}, "hi", "bye"]}, "metadata": {"team": "own"}},
        "cards": {"state": "ENABLED", "variants": {"a": 1, "b": 2}, "targeting": {"fractional": [["a", 50], ["b", 50]]}}},
        "$evaluators": {"is_acme": {"ends_with": [{"var": "email"}, "@acme.com"]}}, "metadata": {"team": "all", "flagSetId": "shop", "version": "7"}}"#;

    #[test]
    fn a_flagd_file_comes_in_with_its_evaluators_and_metadata() {
        let set = imported(&FlagSet::default(), FILE).unwrap();
        let found = evaluate(&set, "mail", &Context::of("u").with("email", "x@acme.com"), Time(0));
        assert_eq!(
            (found.variant, &found.metadata.unwrap()["team"], &found.metadata.unwrap()["flagSetId"]),
            (Some("hi"), &json!("own"), &json!("shop"))
        );
    }

    #[test]
    fn importing_what_was_exported_changes_nothing() {
        let set = imported(&FlagSet::default(), FILE).unwrap();
        assert_eq!(import(&set, &export(&set).to_string()), Ok(vec![]));
    }

    #[test]
    fn flags_may_come_as_a_list() {
        let file = r#"{"flags": [{"key": "a", "state": "ENABLED", "variants": {"x": {"deep": [1]}}, "defaultVariant": "x"}]}"#;
        assert!(imported(&FlagSet::default(), file).unwrap().get("a").is_some());
    }

    #[test]
    fn a_bad_file_is_refused_whole_with_every_mistake() {
        let file = r#"{"flags": {"good": {"state": "ENABLED", "variants": {"a": 1}},
            "none": {"state": "ENABLED", "variants": {}}, "mixed": {"state": "ENABLED", "variants": {"a": 1, "b": true}},
            "unknown": {"state": "ENABLED", "variants": {"a": 1}, "targeting": {"if": [true, "a", {"fractional": [["zz", 1]]}]}},
            "lost": {"state": "ENABLED", "variants": {"a": 1}, "targeting": {"$ref": "nobody"}}}}"#;
        let error = imported(&FlagSet::default(), file).unwrap_err();
        assert_eq!(error.problems.len(), 4, "{error}");
        for word in ["at least one value", "different types", "\"zz\"", "\"nobody\"", "hint: "] {
            assert!(error.to_string().contains(word), "{word}: {error}");
        }
        for nonsense in ["", "[]", "{\"flags\": 3}", "{\"flags\": {\"a\": 3}}"] {
            assert!(import(&FlagSet::default(), nonsense).is_err(), "{nonsense}");
        }
    }

    /// What the fuzz target does: read foreign text, and answer with whatever came in.
    fn read_and_answer(text: &str) {
        if let Ok(set) = imported(&FlagSet::default(), text) {
            let context =
                Context::of("u").with("email", "x@acme.com").with("n", 3).with("list", json!([1, "a", null]));
            let _ = crate::ofrep::bulk(&set, &context, Time(0), None);
            set.iter().for_each(|flag| drop(crate::describe::describe(flag)));
        }
    }

    fn any_rule() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(json!(null)),
            Just(json!(true)),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "[a-c]{0,2}".prop_map(Value::from),
            Just(json!({"var": "n"})),
            Just(json!({"var": ""})),
            Just(json!({"var": "list"})),
        ];
        let names = [
            "var",
            "==",
            "===",
            "!=",
            "!==",
            "<",
            "<=",
            ">",
            ">=",
            "!",
            "!!",
            "and",
            "or",
            "if",
            "?:",
            "in",
            "+",
            "-",
            "*",
            "/",
            "%",
            "min",
            "max",
            "cat",
            "substr",
            "map",
            "filter",
            "reduce",
            "all",
            "none",
            "some",
            "merge",
            "missing",
            "missing_some",
            "starts_with",
            "ends_with",
            "sem_ver",
            "fractional",
        ];
        leaf.prop_recursive(5, 40, 4, move |inner| {
            (proptest::sample::select(names.to_vec()), proptest::collection::vec(inner, 0..4), any::<bool>())
                .prop_map(
                    |(name, arguments, list)| {
                        if list { Value::Array(arguments) } else { json!({ name: arguments }) }
                    },
                )
        })
    }

    proptest! {
        #[test]
        fn no_rule_makes_evaluation_panic(rule in any_rule()) {
            let mut file: Value = serde_json::from_str(FILE).unwrap();
            file["flags"]["cards"]["targeting"] = json!({"cat": [rule.clone()]});
            file["flags"]["mail"]["targeting"] = rule;
            read_and_answer(&file.to_string());
        }

        #[test]
        fn no_damaged_file_makes_import_panic(at in 0..FILE.len(), text in "[\\x00-\\x7f]{0,3}", cut in 0..40usize) {
            let mut file = FILE.to_owned();
            file.replace_range(at..(at + cut).min(FILE.len()), &text);
            read_and_answer(&file);
        }
    }
}
