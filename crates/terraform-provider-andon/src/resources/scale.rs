//! `andon_scale`: another number of instances of a service than its code says. Without it, code says how many again.

use serde_json::{Value as Json, json};

use super::{Resource, text};
use crate::api::Api;
use crate::schema::{Attribute, Kind};
use crate::trouble::Trouble;
use crate::value::{Object, Value};

const ATTRIBUTES: [Attribute; 4] = [
    Attribute::computed("id", Kind::Text, "ENVIRONMENT/SERVICE."),
    Attribute::required("environment", Kind::Text, "In which environment.").anew(),
    Attribute::required("service", Kind::Text, "Of which service.").anew(),
    Attribute::required("replicas", Kind::Number, "How many instances."),
];

/// The resource.
pub(super) struct Scale;

impl Resource for Scale {
    fn name(&self) -> &'static str {
        "andon_scale"
    }

    fn description(&self) -> &'static str {
        "Another number of instances of a service than its code says."
    }

    fn attributes(&self) -> &'static [Attribute] {
        &ATTRIBUTES
    }

    fn check(&self, config: &Object) -> Result<(), Trouble> {
        match config.get("replicas") {
            Some(replicas @ Value::Number(_)) => number(replicas).map(drop),
            _ => Ok(()),
        }
    }

    fn plan(&self, _: Option<&Object>, _: &Object, planned: &mut Object) {
        let id = match (planned.get("environment"), planned.get("service")) {
            (Some(Value::Text(environment)), Some(Value::Text(service))) => {
                Value::Text(format!("{environment}/{service}"))
            }
            _ => Value::Unknown,
        };
        planned.insert("id".into(), id);
    }

    fn of_id(&self, id: &str) -> Result<Object, Trouble> {
        let named = id
            .split_once('/')
            .filter(|(environment, service)| !environment.is_empty() && !service.is_empty());
        let (environment, service) = named.ok_or_else(|| {
            Trouble::new(format!("{id:?} names no service of an environment"))
                .hint("write ENVIRONMENT/SERVICE")
        })?;
        Ok(Object::from([
            ("environment".into(), Value::Text(environment.to_owned())),
            ("service".into(), Value::Text(service.to_owned())),
        ]))
    }

    fn read(&self, api: &Api, state: &Object) -> Result<Option<Object>, Trouble> {
        let (environment, service) = (text(state, "environment")?, text(state, "service")?);
        let Some(view) = api.find(&["environments", environment])? else { return Ok(None) };
        let scaled = view["scaled"].as_array().into_iter().flatten();
        let replicas = scaled.filter(|pair| pair[0] == service).find_map(|pair| pair[1].as_u64());
        Ok(replicas.map(|replicas| seen(environment, service, replicas)))
    }

    fn create(&self, api: &Api, planned: &Object) -> Result<(Object, Option<Trouble>), Trouble> {
        Ok((write(api, planned)?, None))
    }

    fn update(&self, api: &Api, _: &Object, planned: &Object) -> Result<Object, Trouble> {
        write(api, planned)
    }

    fn delete(&self, api: &Api, state: &Object) -> Result<(), Trouble> {
        // With the environment, or with the service in it, the number is gone as well.
        if self.read(api, state)?.is_none() {
            return Ok(());
        }
        let as_code = json!({ "service": text(state, "service")?, "replicas": Json::Null });
        match api.post(&["environments", text(state, "environment")?, "scale"], &as_code) {
            Err(trouble) if trouble.missing && self.read(api, state)?.is_none() => Ok(()),
            done => done.map(drop),
        }
    }
}

fn write(api: &Api, planned: &Object) -> Result<Object, Trouble> {
    let (environment, service) = (text(planned, "environment")?, text(planned, "service")?);
    let replicas = number(planned.get("replicas").unwrap_or(&Value::Null))?;
    api.post(&["environments", environment, "scale"], &json!({ "service": service, "replicas": replicas }))?;
    Ok(seen(environment, service, replicas.into()))
}

fn number(replicas: &Value) -> Result<u32, Trouble> {
    let number = replicas.whole().and_then(|number| u32::try_from(number).ok()).filter(|number| *number > 0);
    number.ok_or_else(|| Trouble::new("`replicas` must be a whole number, 1 or more".into()).at("replicas"))
}

fn seen(environment: &str, service: &str, replicas: u64) -> Object {
    Object::from([
        ("id".into(), Value::Text(format!("{environment}/{service}"))),
        ("environment".into(), Value::Text(environment.to_owned())),
        ("service".into(), Value::Text(service.to_owned())),
        ("replicas".into(), Value::from(replicas)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_names_an_environment_and_a_service() {
        let named = Scale.of_id("staging/web").map_err(|trouble| trouble.summary);
        assert_eq!(named.map(|named| named["service"].clone()), Ok(Value::Text("web".into())));
        for wrong in ["", "web", "/web", "staging/"] {
            assert!(Scale.of_id(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn no_instances_or_half_an_instance_are_refused() {
        for wrong in [json!(0), json!(-1), json!(1.5), json!(1e300)] {
            assert!(
                Scale.check(&Object::from([("replicas".into(), Value::read(&wrong))])).is_err(),
                "{wrong}"
            );
        }
        assert_eq!(Scale.check(&Object::from([("replicas".into(), Value::Unknown)])), Ok(()));
    }
}
