//! What can be looked at: data sources. They change nothing.

use serde_json::{Value as Json, json};

use crate::api::Api;
use crate::resources::{one_flag, text};
use crate::schema::{Attribute, Kind};
use crate::trouble::Trouble;
use crate::value::{Object, Value};

/// Something to look at.
pub struct Source {
    /// `andon_flag`.
    pub name: &'static str,
    /// For people.
    pub description: &'static str,
    /// What it has.
    pub attributes: &'static [Attribute],
    /// Reads it; that it is not there is a trouble.
    pub read: fn(&Api, &Object) -> Result<Object, Trouble>,
}

/// All of them.
pub const ALL: [Source; 3] = [
    Source {
        name: "andon_environment",
        description: "What serves in an environment, and how it is.",
        attributes: &ENVIRONMENT,
        read: environment,
    },
    Source {
        name: "andon_service",
        description: "A service in an environment.",
        attributes: &SERVICE,
        read: service,
    },
    Source { name: "andon_flag", description: "A feature flag.", attributes: &FLAG, read: flag },
];

const ENVIRONMENT: [Attribute; 13] = [
    Attribute::required("name", Kind::Text, "Its name."),
    Attribute::computed("id", Kind::Text, "Its name."),
    Attribute::computed("health", Kind::Text, "go, wait, live, stop or none."),
    Attribute::computed("words", Kind::Text, "The same in words."),
    Attribute::computed("like", Kind::Text, "The environment it is like."),
    Attribute::computed("standing", Kind::Bool, "Declared in andon.yaml."),
    Attribute::computed("expires", Kind::Text, "When it ends by itself, in UTC."),
    Attribute::computed("serving", Kind::Texts, "The commit that serves, by service."),
    Attribute::computed("addresses", Kind::Texts, "Where users reach it, by service."),
    Attribute::computed("instances", Kind::Number, "Healthy instances."),
    Attribute::computed("drift", Kind::Number, "Differences from code."),
    Attribute::computed(
        "parity",
        Kind::Number,
        "Hundredths that are alike in the environment it is measured by.",
    ),
    Attribute::computed("parity_with", Kind::Text, "Which that is."),
];

const SERVICE: [Attribute; 8] = [
    Attribute::required("environment", Kind::Text, "In which environment."),
    Attribute::required("name", Kind::Text, "Its name."),
    Attribute::computed("id", Kind::Text, "ENVIRONMENT/SERVICE."),
    Attribute::computed("address", Kind::Text, "Where users reach it."),
    Attribute::computed("revision", Kind::Text, "The commit that serves."),
    Attribute::computed("previous", Kind::Text, "The commit before, kept for the way back."),
    Attribute::computed("instances", Kind::Number, "Running copies."),
    Attribute::computed("healthy", Kind::Number, "Those that answer."),
];

const FLAG: [Attribute; 8] = [
    Attribute::required("key", Kind::Text, "What clients ask for."),
    Attribute::computed("id", Kind::Text, "Its key."),
    Attribute::computed("state", Kind::Text, "on, off, ramping, killed, disabled, targeted or broken."),
    Attribute::computed("audience", Kind::Text, "Who gets it."),
    Attribute::computed("variants", Kind::Text, "Values by variant, as JSON."),
    Attribute::computed("default_variant", Kind::Text, "The variant without a matching rule."),
    Attribute::computed("targeting", Kind::Text, "Who gets what, as JSON."),
    Attribute::computed("enabled", Kind::Bool, "Answered at all."),
];

/// The one of that name.
///
/// # Errors
/// When there is none.
pub fn source(name: &str) -> Result<&'static Source, Trouble> {
    static SOURCES: [Source; 3] = ALL;
    let found = SOURCES.iter().find(|source| source.name == name);
    found.ok_or_else(|| Trouble::new(format!("this provider has no data source {name}")))
}

fn object(json: Json) -> Object {
    match Value::read(&json) {
        Value::Map(object) => object,
        _ => Object::new(),
    }
}

fn texts<'a>(pairs: impl Iterator<Item = (&'a Json, &'a Json)>) -> Json {
    pairs
        .filter_map(|(name, text)| Some((name.as_str()?.to_owned(), text.clone())))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn list(json: &Json) -> impl Iterator<Item = &Json> {
    json.as_array().into_iter().flatten()
}

fn environment(api: &Api, config: &Object) -> Result<Object, Trouble> {
    let name = text(config, "name")?;
    let view = api.get(&["environments", name]).map_err(|trouble| trouble.at("name"))?;
    let row = &view["row"];
    let mut found = object(json!({
        "name": name, "id": name, "health": row["mark"], "words": row["words"], "like": row["like"],
        "standing": row["standing"], "instances": row["instances"], "drift": row["drifts"],
        "parity": row["parity"][0], "parity_with": row["parity"][1],
        "serving": texts(list(&row["serving"]).map(|pair| (&pair[0], &pair[1]))),
        "addresses": texts(list(&view["services"]).map(|service| (&service["name"], &service["address"]))),
    }));
    found.insert("expires".into(), crate::resources::expires(row));
    Ok(found)
}

fn service(api: &Api, config: &Object) -> Result<Object, Trouble> {
    let (environment, name) = (text(config, "environment")?, text(config, "name")?);
    let view = api.get(&["environments", environment]).map_err(|trouble| trouble.at("environment"))?;
    let place = list(&view["services"]).find(|service| service["name"] == name);
    let place = place.ok_or_else(|| {
        let names: Vec<&str> =
            list(&view["services"]).filter_map(|service| service["name"].as_str()).collect();
        let hint = if names.is_empty() {
            "it has none yet".to_owned()
        } else {
            format!("it has {}", names.join(", "))
        };
        Trouble::new(format!("{environment} has no service {name}")).hint(&hint).at("name")
    })?;
    let healthy = list(&place["instances"]).filter(|instance| instance["mark"] == "go").count();
    Ok(object(json!({
        "environment": environment, "name": name, "id": format!("{environment}/{name}"),
        "address": place["address"], "revision": place["revision"], "previous": place["previous"],
        "instances": list(&place["instances"]).count(), "healthy": healthy,
    })))
}

fn flag(api: &Api, config: &Object) -> Result<Object, Trouble> {
    let key = text(config, "key")?;
    let row = one_flag(api, key)?.ok_or_else(|| {
        Trouble::new(format!("there is no flag {key}"))
            .hint("`andon flag list` names those there are")
            .at("key")
    })?;
    let definition = &row["definition"];
    let as_json = |value: &Json| if value.is_null() { Json::Null } else { value.to_string().into() };
    Ok(object(json!({
        "key": key, "id": key, "state": row["state"], "audience": row["audience"],
        "variants": as_json(&definition["variants"]), "default_variant": definition["defaultVariant"],
        "targeting": as_json(&definition["targeting"]), "enabled": definition["state"] == "ENABLED",
    })))
}
