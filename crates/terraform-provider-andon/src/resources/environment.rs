//! `andon_environment`: an environment like a declared one, with an end. Environments of `andon.yaml` are the line's own and only read.

use std::time::Duration;

use andon_model::{EnvironmentName, Span, Time};
use serde_json::{Value as Json, json};

use super::{Resource, text};
use crate::api::Api;
use crate::schema::{Attribute, Kind};
use crate::trouble::Trouble;
use crate::value::{Object, Value};

/// How long an end may take, until everything of it is gone.
const END_WITHIN: Duration = Duration::from_secs(300);
const ATTRIBUTES: [Attribute; 8] = [
    Attribute::computed("id", Kind::Text, "Its name."),
    Attribute::optional("name", Kind::Text, "Its name; else made from the change.").or_computed().anew(),
    Attribute::optional("like", Kind::Text, "The declared environment it is like; else the last one.")
        .or_computed()
        .anew(),
    Attribute::optional("change", Kind::Number, "The change it shows; else what serves in `like`.").anew(),
    Attribute::optional(
        "ttl",
        Kind::Text,
        "How long it lives, like 2h or 7d, from when this is applied; else a day.",
    ),
    Attribute::optional("wait", Kind::Text, "Creation waits so long until it serves; else it does not wait."),
    Attribute::computed("expires", Kind::Text, "When it ends by itself, in UTC."),
    Attribute::computed("standing", Kind::Bool, "Declared in andon.yaml."),
];

/// The resource.
pub(super) struct Environment;

impl Resource for Environment {
    fn name(&self) -> &'static str {
        "andon_environment"
    }

    fn description(&self) -> &'static str {
        "An environment like a declared one, which ends by itself."
    }

    fn attributes(&self) -> &'static [Attribute] {
        &ATTRIBUTES
    }

    fn check(&self, config: &Object) -> Result<(), Trouble> {
        let null = |name: &str| config.get(name).is_none_or(|value| *value == Value::Null);
        if null("name") && null("change") {
            let why = "an environment needs a `name`, or a `change` that it is named by".into();
            return Err(Trouble::new(why).hint("write name = \"try\"").at("name"));
        }
        for name in ["name", "like"] {
            if let Some(text) = config.get(name).and_then(Value::text) {
                text.parse::<EnvironmentName>().map_err(|error| Trouble::new(error.to_string()).at(name))?;
            }
        }
        for name in ["ttl", "wait"] {
            span(config, name)?;
        }
        match config.get("change") {
            Some(change @ Value::Number(_)) => number(change).map(drop),
            _ => Ok(()),
        }
    }

    fn plan(&self, prior: Option<&Object>, config: &Object, planned: &mut Object) {
        let of = |name: &str| config.get(name).unwrap_or(&Value::Null);
        let name = match (of("name"), of("change")) {
            (Value::Null, Value::Number(change)) => Value::Text(format!("change-{change}")),
            (Value::Null, _) => Value::Unknown,
            (name, _) => name.clone(),
        };
        planned.insert("id".into(), name.clone());
        planned.insert("name".into(), name);
        match prior {
            None => drop(planned.insert("standing".into(), Value::Bool(false))),
            // Its end moves with its life. Who takes the length out of the code leaves the end where it is.
            Some(prior) if prior.get("ttl") != planned.get("ttl") && *of("ttl") != Value::Null => {
                planned.insert("expires".into(), Value::Unknown);
            }
            Some(_) => {}
        }
    }

    fn of_id(&self, id: &str) -> Result<Object, Trouble> {
        id.parse::<EnvironmentName>().map_err(|error| Trouble::new(error.to_string()))?;
        Ok(Object::from([("name".into(), Value::Text(id.to_owned()))]))
    }

    fn read(&self, api: &Api, state: &Object) -> Result<Option<Object>, Trouble> {
        let found = api.find(&["environments", text(state, "name")?])?;
        Ok(found.map(|view| seen(&view["row"], state)))
    }

    fn create(&self, api: &Api, planned: &Object) -> Result<(Object, Option<Trouble>), Trouble> {
        let change = match planned.get("change") {
            Some(change @ Value::Number(_)) => json!(number(change)?),
            _ => Json::Null,
        };
        let of = |name: &str| planned.get(name).and_then(Value::text);
        let wanted = json!({ "name": of("name"), "like": of("like"), "ttl": of("ttl"), "change": change });
        let wait = span(planned, "wait")?;
        let made = api.post(&["environments"], &wanted)?;
        let name = made["environment"].as_str().unwrap_or_default();
        let view = api.get(&["environments", name])?;
        let state = seen(&view["row"], planned);
        let after = wait.and_then(|wait| serves(api, name, wait.duration()).err());
        Ok((state, after))
    }

    fn update(&self, api: &Api, prior: &Object, planned: &Object) -> Result<Object, Trouble> {
        let name = text(planned, "name")?;
        if let Some(ttl) = planned.get("ttl").and_then(Value::text)
            && prior.get("ttl") != planned.get("ttl")
        {
            api.post(&["environments", name, "extend"], &json!({ "lasts": ttl }))?;
        }
        let view = api.get(&["environments", name])?;
        Ok(seen(&view["row"], planned))
    }

    fn delete(&self, api: &Api, state: &Object) -> Result<(), Trouble> {
        let name = text(state, "name")?;
        let Some(found) = api.find(&["environments", name])? else { return Ok(()) };
        if found["row"]["standing"] == true {
            let why = format!("{name} is declared in andon.yaml, so that it is not Terraform's to end");
            return Err(Trouble::new(why).hint("take it out of andon.yaml, or `terraform state rm` it here"));
        }
        match api.post(&["environments", name, "destroy"], &json!({ "why": "destroyed by Terraform" })) {
            Ok(_) => {}
            Err(trouble) if trouble.missing => return Ok(()),
            // That it ends already is what was wanted; if it does not end, waiting says so.
            Err(trouble) if trouble.summary.contains("already") => {}
            Err(trouble) => return Err(trouble),
        }
        api.until(&format!("the end of {name}"), END_WITHIN, || {
            Ok(api.find(&["environments", name])?.is_none().then_some(()))
        })
    }
}

/// As the server shows it, with what only the code says.
fn seen(row: &Json, state: &Object) -> Object {
    let name = Value::of(row["name"].as_str());
    let of = |name: &str| state.get(name).cloned().unwrap_or(Value::Null);
    Object::from([
        ("id".into(), name.clone()),
        ("name".into(), name),
        ("like".into(), Value::read(&row["like"])),
        ("change".into(), Value::read(&row["change"])),
        ("ttl".into(), of("ttl")),
        ("wait".into(), of("wait")),
        ("expires".into(), expires(row)),
        ("standing".into(), Value::Bool(row["standing"] == true)),
    ])
}

/// The end, as people read it.
pub(crate) fn expires(row: &Json) -> Value {
    row["expires"].as_i64().map_or(Value::Null, |end| Value::Text(Time(end).rfc3339()))
}

fn serves(api: &Api, name: &str, within: Duration) -> Result<(), Trouble> {
    api.until(&format!("that {name} serves"), within, || {
        let view = api.get(&["environments", name])?;
        match view["row"]["mark"].as_str() {
            Some("go") => Ok(Some(())),
            Some("stop") => {
                let words = view["row"]["words"].as_str().unwrap_or_default();
                Err(Trouble::new(format!("{name} does not serve: {words}"))
                    .hint(&format!("`andon env show {name}` says more")))
            }
            _ => Ok(None),
        }
    })
}

fn span(object: &Object, name: &'static str) -> Result<Option<Span>, Trouble> {
    let parsed = object.get(name).and_then(Value::text).map(str::parse).transpose();
    parsed.map_err(|error: andon_model::time::NotASpan| Trouble::new(error.to_string()).at(name))
}

fn number(change: &Value) -> Result<u32, Trouble> {
    let number = change.whole().and_then(|number| u32::try_from(number).ok());
    number.ok_or_else(|| Trouble::new("`change` is no number of a change".into()).at("change"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(pairs: &[(&str, Value)]) -> Object {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
    }

    fn words(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    #[test]
    fn a_configuration_that_cannot_be_meant_is_refused_at_its_attribute() {
        let wrong = [
            (object(&[]), "name"),
            (object(&[("name", words("../etc"))]), "name"),
            (object(&[("name", words("try")), ("like", words("A B"))]), "like"),
            (object(&[("name", words("try")), ("ttl", words("soon"))]), "ttl"),
            (object(&[("name", words("try")), ("wait", words("-1s"))]), "wait"),
            (object(&[("change", Value::Number((-3).into()))]), "change"),
        ];
        for (config, at) in wrong {
            let trouble = Environment.check(&config).expect_err(at);
            assert_eq!(trouble.attribute, Some(at), "{trouble:?}");
        }
    }

    #[test]
    fn what_is_not_known_yet_may_become_right() {
        let open = object(&[("name", Value::Unknown), ("ttl", Value::Unknown), ("change", Value::Unknown)]);
        assert_eq!(Environment.check(&open), Ok(()));
        assert_eq!(Environment.check(&object(&[("change", Value::Unknown)])), Ok(()));
    }

    #[test]
    fn an_environment_without_a_name_is_planned_with_that_of_its_change() {
        let mut planned = Object::new();
        Environment.plan(None, &object(&[("change", Value::from(7))]), &mut planned);
        assert_eq!(planned["name"], words("change-7"));
        Environment.plan(None, &object(&[("change", Value::Unknown)]), &mut planned);
        assert_eq!(planned["name"], Value::Unknown);
    }

    #[test]
    fn another_length_of_life_leaves_the_end_open_until_applied() {
        let prior = object(&[("name", words("try")), ("ttl", words("1h")), ("expires", words("then"))]);
        let config = object(&[("name", words("try")), ("ttl", words("2h"))]);
        let mut planned = Object::from([("expires".into(), words("then")), ("ttl".into(), words("2h"))]);
        Environment.plan(Some(&prior), &config, &mut planned);
        assert_eq!(planned["expires"], Value::Unknown);
        let mut planned = prior.clone();
        Environment.plan(Some(&prior), &prior, &mut planned);
        assert_eq!(planned["expires"], words("then"));
    }
}
