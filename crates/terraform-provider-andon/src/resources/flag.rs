//! `andon_flag`: a flag with its variants and its rule, as flagd has them. A flag that somebody killed stays killed until a person restores it.

use serde_json::{Map, Value as Json, json as json_of};

use super::{Resource, text};
use crate::api::Api;
use crate::schema::{Attribute, Kind};
use crate::trouble::Trouble;
use crate::value::{Object, Value};

const ATTRIBUTES: [Attribute; 7] = [
    Attribute::computed("id", Kind::Text, "Its key."),
    Attribute::required("key", Kind::Text, "What clients ask for.").anew(),
    Attribute::required(
        "variants",
        Kind::Text,
        "Values by variant, as JSON: jsonencode({ on = true, off = false }).",
    ),
    Attribute::optional(
        "default_variant",
        Kind::Text,
        "The variant without a matching rule; else the caller's own default.",
    ),
    Attribute::optional(
        "targeting",
        Kind::Text,
        "Who gets what: a JsonLogic rule as JSON; else everyone the default.",
    ),
    Attribute::optional("enabled", Kind::Bool, "Answered at all; else yes.").or_computed(),
    Attribute::computed(
        "killed",
        Kind::Bool,
        "Somebody killed it. Terraform changes it no more until it is restored.",
    ),
];

/// The resource.
pub(super) struct Flag;

impl Resource for Flag {
    fn name(&self) -> &'static str {
        "andon_flag"
    }

    fn description(&self) -> &'static str {
        "A feature flag."
    }

    fn attributes(&self) -> &'static [Attribute] {
        &ATTRIBUTES
    }

    fn check(&self, config: &Object) -> Result<(), Trouble> {
        if config.get("key").and_then(Value::text) == Some("") {
            return Err(Trouble::new("a flag needs a `key`".into()).at("key"));
        }
        let variants = json(config, "variants")?;
        if variants.as_ref().is_some_and(|variants| variants.as_object().is_none_or(Map::is_empty)) {
            let why = "`variants` must be an object with at least one value".into();
            return Err(Trouble::new(why)
                .hint("variants = jsonencode({ on = true, off = false })")
                .at("variants"));
        }
        if json(config, "targeting")?.is_some_and(|rule| !rule.is_object()) {
            let why = "`targeting` is no JsonLogic rule: it must be an object".into();
            return Err(Trouble::new(why).hint("targeting = jsonencode({ if = [ … ] })").at("targeting"));
        }
        if let (Some(variants), Some(default)) =
            (variants, config.get("default_variant").and_then(Value::text))
            && variants.get(default).is_none()
        {
            let names: Vec<&str> =
                variants.as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
            let why = format!("`default_variant` is {default:?}, which is none of its variants");
            return Err(Trouble::new(why)
                .hint(&format!("its variants are {}", names.join(", ")))
                .at("default_variant"));
        }
        Ok(())
    }

    fn plan(&self, prior: Option<&Object>, config: &Object, planned: &mut Object) {
        // The same in another order of names is the same.
        for name in ["variants", "targeting"] {
            let before = prior.and_then(|prior| json(prior, name).ok().flatten());
            if let (Some(prior), Some(before), Ok(Some(now))) = (prior, before, json(planned, name))
                && before == now
            {
                planned.insert(name.into(), prior.get(name).cloned().unwrap_or(Value::Null));
            }
        }
        if config.get("enabled").is_none_or(|enabled| *enabled == Value::Null) {
            planned.insert("enabled".into(), Value::Bool(true));
        }
        planned.insert("id".into(), planned.get("key").cloned().unwrap_or(Value::Unknown));
        if prior.is_none() {
            planned.insert("killed".into(), Value::Bool(false));
        }
    }

    fn of_id(&self, id: &str) -> Result<Object, Trouble> {
        Ok(Object::from([("key".into(), Value::Text(id.to_owned()))]))
    }

    fn read(&self, api: &Api, state: &Object) -> Result<Option<Object>, Trouble> {
        let key = text(state, "key")?;
        Ok(one(api, key)?.map(|row| seen(key, &row["definition"], state)))
    }

    fn create(&self, api: &Api, planned: &Object) -> Result<(Object, Option<Trouble>), Trouble> {
        let key = text(planned, "key")?;
        if one(api, key)?.is_some() {
            let why = format!("the flag {key} is there already");
            return Err(Trouble::new(why)
                .hint(&format!("`terraform import` takes it over: its id is {key}"))
                .at("key"));
        }
        Ok((write(api, key, planned, Map::new())?, None))
    }

    fn update(&self, api: &Api, _: &Object, planned: &Object) -> Result<Object, Trouble> {
        let key = text(planned, "key")?;
        let found = one(api, key)?;
        let definition = found.as_ref().map(|row| &row["definition"]);
        if definition.is_some_and(killed) {
            let why = format!("the flag {key} was killed, so that Terraform leaves it as it is");
            return Err(Trouble::new(why)
                .hint(&format!("`andon flag restore {key}` brings it back, then apply again")));
        }
        let kept = definition.and_then(|d| d["metadata"].as_object()).cloned().unwrap_or_default();
        write(api, key, planned, kept)
    }

    fn delete(&self, api: &Api, state: &Object) -> Result<(), Trouble> {
        let key = text(state, "key")?;
        if one(api, key)?.is_none() {
            return Ok(());
        }
        api.post(&["flags", key, "remove"], &json_of!({})).map(drop)
    }
}

/// The flag of that key, as the server lists it; none: there is none.
///
/// # Errors
/// When the server cannot be asked.
pub(crate) fn one(api: &Api, key: &str) -> Result<Option<Json>, Trouble> {
    let view = api.get(&["flags"])?;
    Ok(view["rows"].as_array().into_iter().flatten().find(|row| row["key"] == key).cloned())
}

/// What an attribute holds as JSON; none: nothing, or not known.
///
/// # Errors
/// When it is no JSON.
fn json(object: &Object, name: &'static str) -> Result<Option<Json>, Trouble> {
    let read = object.get(name).and_then(Value::text).map(serde_json::from_str).transpose();
    read.map_err(|error| {
        Trouble::new(format!("`{name}` is no JSON: {error}")).hint("write it with jsonencode()").at(name)
    })
}

fn killed(definition: &Json) -> bool {
    !definition["andon"]["killed"].is_null()
}

fn write(api: &Api, key: &str, planned: &Object, metadata: Map<String, Json>) -> Result<Object, Trouble> {
    let enabled = planned.get("enabled") != Some(&Value::Bool(false));
    let mut definition = Map::from_iter([
        ("state".to_owned(), Json::from(if enabled { "ENABLED" } else { "DISABLED" })),
        ("variants".to_owned(), json(planned, "variants")?.unwrap_or_default()),
    ]);
    if let Some(default) = planned.get("default_variant").and_then(Value::text) {
        definition.insert("defaultVariant".into(), default.into());
    }
    if let Some(rule) = json(planned, "targeting")? {
        definition.insert("targeting".into(), rule);
    }
    if !metadata.is_empty() {
        definition.insert("metadata".into(), metadata.into());
    }
    let definition = Json::Object(definition);
    api.post(&["flags.json"], &json_of!({ "flags": { key: definition } }))?;
    Ok(seen(key, &definition, planned))
}

/// As it is, in the words of `state` where they say the same.
fn seen(key: &str, definition: &Json, state: &Object) -> Object {
    let as_said = |name: &'static str| {
        let found = match &definition[name] {
            Json::Object(map) if name == "targeting" && map.is_empty() => &Json::Null,
            found => found,
        };
        match json(state, name) {
            Ok(Some(said)) if said == *found || (said == json_of!({}) && found.is_null()) => {
                state.get(name).cloned().unwrap_or(Value::Null)
            }
            _ if found.is_null() => Value::Null,
            _ => Value::Text(found.to_string()),
        }
    };
    Object::from([
        ("id".into(), Value::Text(key.to_owned())),
        ("key".into(), Value::Text(key.to_owned())),
        ("variants".into(), as_said("variants")),
        ("default_variant".into(), Value::of(definition["defaultVariant"].as_str())),
        ("targeting".into(), as_said("targeting")),
        ("enabled".into(), Value::Bool(definition["state"] == "ENABLED")),
        ("killed".into(), Value::Bool(killed(definition))),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(variants: &str) -> Object {
        Object::from([
            ("key".into(), Value::Text("cards".into())),
            ("variants".into(), Value::Text(variants.into())),
        ])
    }

    #[test]
    fn variants_that_are_none_are_refused() {
        for wrong in ["", "{", "[]", "{}", "3"] {
            let trouble = Flag.check(&config(wrong)).expect_err(wrong);
            assert!(trouble.attribute == Some("variants") && !trouble.hint.is_empty(), "{trouble:?}");
        }
        assert_eq!(Flag.check(&config(r#"{"on":true}"#)), Ok(()));
        let mut named = config(r#"{"on":true}"#);
        named.insert("default_variant".into(), Value::Text("off".into()));
        assert_eq!(Flag.check(&named).expect_err("no such variant").attribute, Some("default_variant"));
    }

    #[test]
    fn the_same_json_in_another_spelling_is_no_change() {
        let prior = config(r#"{"on":true,"off":false}"#);
        let now = config(r#"{ "off": false, "on": true }"#);
        let mut planned = now.clone();
        Flag.plan(Some(&prior), &now, &mut planned);
        assert_eq!(planned["variants"], prior["variants"]);
        let read =
            seen("cards", &json_of!({"state": "ENABLED", "variants": {"off": false, "on": true}}), &prior);
        assert_eq!(read["variants"], prior["variants"]);
    }

    #[test]
    fn what_somebody_changed_by_hand_is_read_as_it_is() {
        let by_hand = json_of!({"state": "DISABLED", "variants": {"on": 1}, "andon": {"killed": {}}});
        let read = seen("cards", &by_hand, &config(r#"{"on":true}"#));
        assert_eq!(read["variants"], Value::Text(r#"{"on":1}"#.into()));
        assert_eq!((&read["enabled"], &read["killed"]), (&Value::Bool(false), &Value::Bool(true)));
    }
}
