//! One flag: its flagd definition, checked and compiled. Evaluates nothing and changes nothing.

use std::collections::BTreeMap;

use serde_json::{Map, Number, Value};

use crate::rule::{Compiled, compile};

/// The largest magnitude of a number that every client's language holds exactly: 2⁵³ − 1.
const EXACT: f64 = 9_007_199_254_740_991.0;
/// Where a definition keeps what flagd does not know: what a killed flag was before. Never exported.
pub(crate) const OWN: &str = "andon";
/// The longest key.
const LONGEST_KEY: usize = 200;

/// A flag.
#[derive(Debug, Clone, PartialEq)]
pub struct Flag {
    /// Its key.
    pub key: String,
    /// Not switched off as a whole: a disabled flag gives every caller its own default.
    pub enabled: bool,
    /// Values by variant.
    pub variants: BTreeMap<String, Value>,
    /// The variant without a matching rule; none: the caller's own default.
    pub default_variant: Option<String>,
    /// Who gets what.
    pub(crate) targeting: Targeting,
    /// Said with every answer.
    pub metadata: Map<String, Value>,
    /// As it was given.
    pub definition: Value,
}

/// Who gets what.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Targeting {
    /// Everyone the default.
    None,
    /// As the rule says.
    Rule(Compiled),
    /// The rule cannot be read: every evaluation is a PARSE_ERROR with this text.
    Bad(String),
}

impl Flag {
    /// Reads a definition. An error names everything that is wrong; a rule that cannot be read is an error too.
    pub fn read(key: &str, definition: &Value) -> Result<Flag, Vec<String>> {
        let (flag, mut problems) = Flag::lenient(key, definition);
        if let Targeting::Bad(why) = &flag.targeting {
            problems.push(format!("flag {key:?}: its targeting {why}"));
        }
        if problems.is_empty() { Ok(flag) } else { Err(problems) }
    }

    /// Reads a definition as far as possible: what is in the journal has to be answered for.
    pub(crate) fn lenient(key: &str, definition: &Value) -> (Flag, Vec<String>) {
        let mut problems = Vec::new();
        let mut wrong = |what: String| problems.push(format!("flag {key:?}: {what}"));
        if key.is_empty() || key.len() > LONGEST_KEY || key.chars().any(char::is_control) {
            wrong(format!(
                "its key must have 1 to {LONGEST_KEY} characters, none of them control characters"
            ));
        }
        let enabled = match definition.get("state").and_then(Value::as_str) {
            Some("ENABLED") => true,
            Some("DISABLED") => false,
            _ => {
                wrong("`state` must be \"ENABLED\" or \"DISABLED\"".into());
                false
            }
        };
        let empty = Map::new();
        let given = definition.get("variants").and_then(Value::as_object).unwrap_or(&empty);
        if given.is_empty() {
            wrong("`variants` must hold at least one value".into());
        }
        let kinds: Vec<&str> = given.values().map(kind).collect();
        if kinds.windows(2).any(|pair| pair[0] != pair[1]) {
            let list: Vec<String> =
                given.iter().map(|(name, value)| format!("{name} is {}", kind(value))).collect();
            wrong(format!("its variants have different types: {}", list.join(", ")));
        }
        if kinds.contains(&"null") {
            wrong("a variant is null".into());
        }
        if given.values().filter_map(Value::as_f64).any(|n| n.abs() > EXACT) {
            wrong("a variant is larger than 9007199254740991, which not every client holds exactly".into());
        }
        let default_variant = definition.get("defaultVariant").and_then(Value::as_str).map(str::to_owned);
        match definition.get("defaultVariant") {
            None | Some(Value::Null) => {}
            Some(Value::String(name)) if given.contains_key(name) => {}
            Some(other) => {
                let names = given.keys().cloned().collect::<Vec<_>>().join(", ");
                wrong(format!("`defaultVariant` is {other}, which is none of its variants ({names})"));
            }
        }
        let metadata = definition.get("metadata").and_then(Value::as_object).cloned().unwrap_or_default();
        if metadata.values().any(|value| !(value.is_string() || value.is_number() || value.is_boolean())) {
            wrong("`metadata` may hold texts, numbers and booleans only".into());
        }
        let targeting = match definition.get("targeting") {
            None | Some(Value::Null) => Targeting::None,
            Some(Value::Object(rule)) if rule.is_empty() => Targeting::None,
            Some(rule @ Value::Object(_)) => match compile(rule, &empty) {
                Ok(compiled) => Targeting::Rule(compiled),
                Err(why) => Targeting::Bad(why),
            },
            Some(_) => Targeting::Bad("is no JsonLogic rule: it must be an object".into()),
        };
        let flag = Flag {
            key: key.to_owned(),
            enabled,
            variants: alike(given),
            default_variant,
            targeting,
            metadata,
            definition: definition.clone(),
        };
        (flag, problems)
    }

    /// Whether its answers may change with time alone.
    pub fn uses_clock(&self) -> bool {
        matches!(&self.targeting, Targeting::Rule(compiled) if compiled.uses_clock)
    }

    /// The variants whose values are true and false, for a flag that has just these two.
    pub fn on_and_off(&self) -> Option<(&str, &str)> {
        let of = |wanted: bool| {
            self.variants
                .iter()
                .find(|(_, value)| **value == Value::Bool(wanted))
                .map(|(name, _)| name.as_str())
        };
        if self.variants.len() == 2 { of(true).zip(of(false)) } else { None }
    }

    /// What it was before it was killed; none: it is not killed.
    pub fn killed(&self) -> Option<&Value> {
        self.definition.get(OWN)?.get("killed")
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) | Value::Object(_) => "an object",
    }
}

/// Where one number has a fraction, all are sent with one: a client that asks for a float refuses `1`.
fn alike(variants: &Map<String, Value>) -> BTreeMap<String, Value> {
    let floats = variants.values().any(Value::is_f64);
    let same = |value: &Value| match value.as_f64() {
        Some(n) if floats => Number::from_f64(n).map_or(Value::Null, Value::Number),
        _ => value.clone(),
    };
    variants.iter().map(|(name, value)| (name.clone(), same(value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_definition_with_mistakes_names_each_of_them() {
        let bad = json!({"state": "on", "variants": {"a": 1, "b": "x"}, "defaultVariant": "c", "metadata": {"x": {}}, "targeting": {"nope": 1}});
        let problems = Flag::read("k", &bad).unwrap_err().join("\n");
        for word in [
            "`state`",
            "different types: a is a number, b is a text",
            "none of its variants (a, b)",
            "`metadata`",
            "\"nope\"",
        ] {
            assert!(problems.contains(word), "{word} is not in {problems}");
        }
        assert!(Flag::read("k", &json!({"state": "ENABLED", "variants": {}})).is_err());
        assert!(
            Flag::read("k", &json!({"state": "ENABLED", "variants": {"a": 9007199254740993u64}})).is_err()
        );
        assert!(Flag::read("", &json!({"state": "ENABLED", "variants": {"a": 1}})).is_err());
    }

    #[test]
    fn numbers_of_a_float_flag_are_all_floats() {
        let flag =
            Flag::read("k", &json!({"state": "ENABLED", "variants": {"half": 0.5, "one": 1}})).unwrap();
        assert_eq!(flag.variants["one"].to_string(), "1.0");
        let whole = Flag::read("k", &json!({"state": "ENABLED", "variants": {"ten": 10, "one": 1}})).unwrap();
        assert_eq!(whole.variants["one"].to_string(), "1");
    }
}
