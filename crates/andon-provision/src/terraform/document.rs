//! The state document, form 4: which resources it knows, by address and id. Reads no other part of it; attributes are never kept.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::TerraformError;
use super::stream::Made;

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    resources: Vec<Resource>,
}

#[derive(Deserialize)]
struct Resource {
    #[serde(default)]
    module: Option<String>,
    mode: String,
    #[serde(rename = "type")]
    kind: String,
    name: String,
    #[serde(default)]
    instances: Vec<Instance>,
}

#[derive(Deserialize)]
struct Instance {
    #[serde(default)]
    index_key: Option<serde_json::Value>,
    #[serde(default)]
    deposed: Option<String>,
    #[serde(default)]
    attributes: Attributes,
}

#[derive(Default, Deserialize)]
struct Attributes {
    #[serde(default)]
    id: Option<serde_json::Value>,
}

/// Ids by address, as the tool writes addresses. A resource without an id has none here; old copies that wait for their end are left out.
pub fn known(document: &[u8]) -> Result<BTreeMap<String, Option<String>>, TerraformError> {
    let read: Document = serde_json::from_slice(document)
        .map_err(|error| TerraformError::Unknown { what: "the state", why: error.to_string() })?;
    let mut known = BTreeMap::new();
    for resource in read.resources.into_iter().filter(|resource| resource.mode == "managed") {
        let module = resource.module.map_or_else(String::new, |module| format!("{module}."));
        for instance in resource.instances.into_iter().filter(|instance| instance.deposed.is_none()) {
            // A key is written as JSON writes it: `["a"]`, `[0]`.
            let key = instance.index_key.map_or_else(String::new, |key| format!("[{key}]"));
            let id = instance.attributes.id.map(|id| match id {
                serde_json::Value::String(id) => id,
                other => other.to_string(),
            });
            known.insert(format!("{module}{}.{}{key}", resource.kind, resource.name), id);
        }
    }
    Ok(known)
}

/// Of what was made, that of which the state knows nothing: never heard of, or only of what was there before it.
pub fn unsaved<'a>(made: &'a [Made], known: &BTreeMap<String, Option<String>>) -> Vec<&'a Made> {
    let newest =
        |place: usize, one: &Made| !made[place + 1..].iter().any(|other| other.address == one.address);
    let unknown = |one: &Made| match known.get(&one.address) {
        None => true,
        Some(id) => one.instead && id.as_ref() != Some(&one.id),
    };
    let all = made.iter().enumerate();
    all.filter(|(place, one)| newest(*place, one) && unknown(one)).map(|(_, one)| one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATE: &str = r#"{"version":4,"serial":3,"lineage":"l","outputs":{},"resources":[
      {"mode":"managed","type":"terraform_data","name":"one","provider":"p","instances":[{"schema_version":0,"attributes":{"id":"1","input":null}}]},
      {"module":"module.m[\"x\"]","mode":"managed","type":"a_b","name":"many","instances":[
        {"index_key":"k","attributes":{"id":"2"}},{"index_key":0,"attributes":{"id":7}},{"index_key":"k","deposed":"d","attributes":{"id":"9"}}]},
      {"mode":"data","type":"a_b","name":"read","instances":[{"attributes":{"id":"3"}}]}]}"#;

    #[test]
    fn a_state_says_what_it_knows_by_the_addresses_that_the_tool_writes() {
        let known = known(STATE.as_bytes()).unwrap();
        let all: Vec<_> =
            known.iter().map(|(address, id)| (address.as_str(), id.as_deref().unwrap())).collect();
        let many = r#"module.m["x"].a_b.many"#;
        assert_eq!(
            all,
            [
                (format!("{many}[\"k\"]").as_str(), "2"),
                (&format!("{many}[0]"), "7"),
                ("terraform_data.one", "1")
            ]
        );
        assert!(super::known(b"3").is_err() && super::known(b"{}").unwrap().is_empty());
    }

    #[test]
    fn what_was_made_and_is_in_no_state_is_told_and_nothing_else_is() {
        let known = known(STATE.as_bytes()).unwrap();
        let made =
            |address: &str, id: &str, instead: bool| Made { address: address.into(), id: id.into(), instead };
        let all = [
            made("terraform_data.one", "1", false),
            made("terraform_data.new", "5", false),
            made("terraform_data.one", "6", true),
            made("terraform_data.twice", "7", false),
            made("terraform_data.twice", "8", true),
        ];
        let found: Vec<&str> = unsaved(&all, &known).into_iter().map(|one| one.id.as_str()).collect();
        assert_eq!(found, ["5", "6", "8"]);
        assert!(unsaved(&all[..1], &known).is_empty());
    }
}
