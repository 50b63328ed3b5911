//! `show -json` of a saved plan, read into a typed plan (developer.hashicorp.com/terraform/internals/json-format). Keys that are new are
//! passed over; a new major `format_version` is refused.
//!
//! Nothing sensitive passes: what is marked is masked, and so is every text that holds a value marked anywhere else in the same document –
//! providers copy values from one attribute into another and lose the mark.

use std::collections::{BTreeMap, BTreeSet};

use andon_environment::blueprint::{Action, Attribute, Plan, ResourceChange, SENSITIVE, UNKNOWN};
use serde::Deserialize;
use serde_json::Value;

use super::TerraformError;

/// The major version of the format that is read.
const MAJOR: &str = "1";
/// Shorter values are not looked for elsewhere: `1` or `on` would mask everything.
const SHORTEST: usize = 4;
/// Longest value that is shown, in characters.
const LONGEST: usize = 400;
/// Most attributes of one resource that are shown.
const MOST: usize = 200;

#[derive(Deserialize)]
struct Document {
    format_version: String,
    #[serde(default)]
    terraform_version: String,
    #[serde(default)]
    variables: BTreeMap<String, Variable>,
    #[serde(default)]
    resource_changes: Vec<Raw>,
    #[serde(default)]
    resource_drift: Vec<Raw>,
    #[serde(default)]
    output_changes: BTreeMap<String, Change>,
    #[serde(default)]
    configuration: Value,
    #[serde(default)]
    applyable: Option<bool>,
    #[serde(default)]
    errored: bool,
}

#[derive(Deserialize)]
struct Variable {
    #[serde(default)]
    value: Value,
}

#[derive(Deserialize)]
struct Raw {
    address: String,
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    deposed: Option<String>,
    #[serde(default)]
    action_reason: Option<String>,
    change: Change,
}

#[derive(Deserialize)]
struct Change {
    actions: Vec<String>,
    #[serde(default)]
    before: Value,
    #[serde(default)]
    after: Value,
    #[serde(default)]
    after_unknown: Value,
    #[serde(default)]
    before_sensitive: Value,
    #[serde(default)]
    after_sensitive: Value,
    #[serde(default)]
    replace_paths: Vec<Value>,
}

/// Reads the document.
pub fn read(json: &[u8]) -> Result<Plan, TerraformError> {
    let unknown = |why: String| TerraformError::Unknown { what: "the plan", why };
    let document: Document = serde_json::from_slice(json).map_err(|error| unknown(error.to_string()))?;
    if document.format_version.split('.').next() != Some(MAJOR) {
        return Err(unknown(format!(
            "its format is {}",
            document.format_version.chars().take(20).collect::<String>()
        )));
    }
    if document.errored {
        return Err(unknown("it is not whole: planning failed".into()));
    }
    let secrets = secrets(&document);
    let acts = |raw: &&Raw| raw.change.actions != ["no-op"] || raw.deposed.is_some();
    let changes: Vec<ResourceChange> =
        document.resource_changes.iter().filter(acts).map(|raw| resource(raw, &secrets)).collect();
    let drift = document.resource_drift.iter().filter(acts).map(|raw| resource(raw, &secrets)).collect();
    let outputs = document.output_changes.iter().filter(|(_, change)| change.actions != ["no-op"]);
    let outputs: Vec<String> = outputs.map(|(name, _)| plain(name)).collect();
    let applyable = document.applyable.unwrap_or(!changes.is_empty() || !outputs.is_empty());
    Ok(Plan { version: plain(&document.terraform_version), changes, drift, outputs, applyable })
}

fn resource(raw: &Raw, secrets: &BTreeSet<String>) -> ResourceChange {
    let change = &raw.change;
    let actions = change.actions.iter().map(|action| match action.as_str() {
        "no-op" => Action::NoOp,
        "create" => Action::Create,
        "read" => Action::Read,
        "update" => Action::Update,
        "delete" => Action::Delete,
        "forget" => Action::Forget,
        other => Action::Unknown(plain(other)),
    });
    let mut before = BTreeMap::new();
    leaves("", &change.before, &change.before_sensitive, &Value::Null, secrets, &mut before);
    let mut after = BTreeMap::new();
    leaves("", &change.after, &change.after_sensitive, &change.after_unknown, secrets, &mut after);
    let paths: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let differs = |path: &&&String| before.get(**path) != after.get(**path);
    let attribute = |path: &String| Attribute {
        path: path.clone(),
        before: before.get(path).map(|(_, shown)| shown.clone()),
        after: after.get(path).map(|(_, shown)| shown.clone()),
    };
    ResourceChange {
        address: plain(&raw.address),
        kind: plain(&raw.kind),
        actions: actions.collect(),
        reason: raw.action_reason.as_deref().map(plain),
        replaced_by: change.replace_paths.iter().map(path_words).collect(),
        deposed: raw.deposed.is_some(),
        attributes: paths.iter().filter(differs).take(MOST).map(|path| attribute(path)).collect(),
    }
}

/// Every leaf by its path: the value itself, to compare, and as it may be shown.
fn leaves(
    path: &str,
    value: &Value,
    sensitive: &Value,
    unknown: &Value,
    secrets: &BTreeSet<String>,
    into: &mut BTreeMap<String, (Option<Value>, String)>,
) {
    let put = |into: &mut BTreeMap<_, _>, value: Option<Value>, shown: String| {
        drop(into.insert(path.to_owned(), (value, shown)))
    };
    if *unknown == Value::Bool(true) {
        return put(into, None, UNKNOWN.into());
    }
    if *sensitive == Value::Bool(true) {
        return put(into, Some(value.clone()), SENSITIVE.into());
    }
    let under = |key: &str| if path.is_empty() { plain(key) } else { format!("{path}.{}", plain(key)) };
    match (value, unknown) {
        (Value::Object(map), _) => {
            let later = unknown.as_object().into_iter().flat_map(|map| map.keys());
            let keys: BTreeSet<&String> = map.keys().chain(later).collect();
            for key in keys {
                let value = map.get(key).unwrap_or(&Value::Null);
                leaves(&under(key), value, &sensitive[key], &unknown[key], secrets, into);
            }
        }
        (Value::Null, Value::Object(later)) => {
            for (key, unknown) in later {
                leaves(&under(key), &Value::Null, &sensitive[key], unknown, secrets, into);
            }
        }
        (Value::Array(items), _) => {
            for (n, item) in items.iter().enumerate() {
                leaves(&format!("{path}[{n}]"), item, &sensitive[n], &unknown[n], secrets, into);
            }
        }
        // What is not set is not shown.
        (Value::Null, _) => {}
        (leaf, _) => put(into, Some(leaf.clone()), shown(leaf, secrets)),
    }
}

fn shown(leaf: &Value, secrets: &BTreeSet<String>) -> String {
    let text = leaf.as_str().map_or_else(|| leaf.to_string(), str::to_owned);
    if secrets.iter().any(|secret| text.contains(secret.as_str())) {
        return SENSITIVE.into();
    }
    leaf.to_string().chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST).collect()
}

/// Every text that is marked as sensitive somewhere.
fn secrets(document: &Document) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let declared = &document.configuration["root_module"]["variables"];
    for (name, variable) in &document.variables {
        if declared[name]["sensitive"] == Value::Bool(true) {
            texts(&variable.value, &Value::Bool(true), &mut found);
        }
    }
    let resources = document.resource_changes.iter().chain(&document.resource_drift).map(|raw| &raw.change);
    for change in resources.chain(document.output_changes.values()) {
        texts(&change.before, &change.before_sensitive, &mut found);
        texts(&change.after, &change.after_sensitive, &mut found);
    }
    found
}

fn texts(value: &Value, sensitive: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::String(text) if *sensitive == Value::Bool(true) && text.chars().count() >= SHORTEST => {
            into.insert(text.clone());
        }
        Value::Number(number) if *sensitive == Value::Bool(true) && number.to_string().len() >= SHORTEST => {
            into.insert(number.to_string());
        }
        Value::Array(items) => {
            for (n, item) in items.iter().enumerate() {
                texts(item, if *sensitive == Value::Bool(true) { sensitive } else { &sensitive[n] }, into);
            }
        }
        Value::Object(map) => {
            for (key, item) in map {
                texts(item, if *sensitive == Value::Bool(true) { sensitive } else { &sensitive[key] }, into);
            }
        }
        _ => {}
    }
}

fn path_words(path: &Value) -> String {
    let steps = path.as_array().map(Vec::as_slice).unwrap_or_default();
    let mut words = String::new();
    for step in steps {
        match step {
            Value::String(key) if words.is_empty() => words = plain(key),
            Value::String(key) => words.push_str(&format!(".{}", plain(key))),
            other => words.push_str(&format!("[{}]", plain(&other.to_string()))),
        }
    }
    words
}

fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As Terraform 1.11.4 printed it, shortened.
    const PLAN: &str = r#"{"format_version":"1.2","terraform_version":"1.11.4","variables":{"secret":{"value":"hunter2"}},
"resource_changes":[{"address":"terraform_data.a","mode":"managed","type":"terraform_data","name":"a",
"change":{"actions":["delete","create"],
"before":{"id":"0f35","input":{"l":[1,2],"s":"hunter2","x":1},"output":{"l":[1,2],"s":"my hunter2","x":1},"triggers_replace":"gone"},
"after":{"input":{"l":[1,2],"s":"hunter2","x":2},"triggers_replace":"98ea"},
"after_unknown":{"id":true,"input":{"l":[false,false]},"output":true},
"before_sensitive":{"input":{"l":[false,false],"s":true},"output":{"l":[false,false]}},
"after_sensitive":{"input":{"l":[false,false],"s":true},"output":{}},"replace_paths":[["triggers_replace"],["input","l",0]]},
"action_reason":"replace_because_cannot_update"}],
"output_changes":{"o":{"actions":["update"],"before":"x","after_unknown":true}},
"configuration":{"root_module":{"variables":{"secret":{"default":"hunter2","sensitive":true}}}},"applyable":true,"complete":true,"errored":false}"#;

    #[test]
    fn a_replacement_is_read_with_its_reason_and_what_differs() {
        let plan = read(PLAN.as_bytes()).unwrap();
        let change = &plan.changes[0];
        assert_eq!((change.word(), change.ends()), ("replace", true));
        assert_eq!(change.replaced_by, ["triggers_replace", "input.l[0]"]);
        let of = |path: &str| change.attributes.iter().find(|a| a.path == path).unwrap();
        assert_eq!(of("input.x").after.as_deref(), Some("2"));
        assert_eq!(of("id").after.as_deref(), Some(UNKNOWN));
        assert!(
            !change.attributes.iter().any(|a| a.path == "input.l[0]"),
            "what is the same is no difference"
        );
        assert_eq!(plan.outputs, ["o"]);
    }

    #[test]
    fn a_sensitive_value_is_shown_nowhere_even_where_its_mark_was_lost() {
        let shown = serde_json::to_string(&read(PLAN.as_bytes()).unwrap()).unwrap();
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(shown.contains(SENSITIVE));
    }

    #[test]
    fn a_newer_major_format_or_a_plan_that_failed_is_refused() {
        assert!(read(PLAN.replace("\"1.2\"", "\"2.0\"").as_bytes()).is_err());
        assert!(read(PLAN.replace("\"errored\":false", "\"errored\":true").as_bytes()).is_err());
        assert!(read(b"{}").is_err());
    }

    #[test]
    fn an_action_that_is_new_is_not_taken_for_harmless() {
        let plan = read(PLAN.replace("[\"delete\",\"create\"]", "[\"evaporate\"]").as_bytes()).unwrap();
        assert!(plan.changes[0].ends());
    }

    proptest! {
        #[test]
        fn no_damage_makes_the_reader_panic(at in 0usize..1500, with in "\\PC{0,8}", skip in 0usize..20) {
            let damaged: String = PLAN.chars().take(at).chain(with.chars()).chain(PLAN.chars().skip(at + skip)).collect();
            let _ = read(damaged.as_bytes());
        }
    }
}
