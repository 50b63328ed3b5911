//! Terraform's questions, one method each: bytes in, bytes out. What a resource is and does stands in [`crate::resources`] and
//! [`crate::data`].

use std::sync::atomic::Ordering;
use std::sync::{Arc, RwLock};

use prost::Message;

use crate::api::Api;
use crate::protocol::{self as p, Diagnostic, DynamicValue, at};
use crate::resources::{Resource, resource};
use crate::schema::{Attribute, Kind, said};
use crate::serve::Status;
use crate::trouble::Trouble;
use crate::value::{Object, Value, pack, stored, unpack};
use crate::{data, resources};

const CONFIG: [Attribute; 3] = [
    Attribute::optional("server", Kind::Text, "Address of the server; else ANDON_SERVER."),
    Attribute::optional("token", Kind::Text, "A token of the server; else ANDON_TOKEN.").sensitive(),
    Attribute::optional("project", Kind::Text, "The project; else ANDON_PROJECT."),
];

/// The provider: nothing but where its server is.
#[derive(Debug, Default)]
pub struct Provider {
    api: RwLock<Option<Arc<Api>>>,
}

type Troubles = Vec<Diagnostic>;

impl Provider {
    /// Answers one question.
    ///
    /// # Errors
    /// When the question cannot be read, or is not known.
    pub fn call(&self, method: &str, message: &[u8]) -> Result<Vec<u8>, Status> {
        match method {
            "GetProviderSchema" => answer(message, |_: p::Empty| schemas()),
            "ValidateProviderConfig" => {
                answer(message, |_: p::ProviderConfig| p::ProviderValidated::default())
            }
            "ConfigureProvider" => answer(message, |asked: p::Configure| p::Validated {
                diagnostics: troubles(self.configure(asked.config)),
            }),
            "ValidateResourceConfig" => answer(message, |asked: p::OfType| {
                let checked = known(&asked.type_name)
                    .and_then(|resource| resource.check(&object(asked.config)?.unwrap_or_default()));
                p::Validated { diagnostics: troubles(checked) }
            }),
            "ValidateDataResourceConfig" => answer(message, |_: p::OfType| p::Validated::default()),
            "UpgradeResourceState" => answer(message, |asked: p::Upgrade| {
                let (state, diagnostics) = either(upgrade(&asked));
                p::Upgraded { state, diagnostics }
            }),
            "ReadResource" => answer(message, |asked: p::Read| {
                let private = asked.private.clone();
                // What could not be read stays as it was.
                let before = asked.state.clone();
                let (state, diagnostics) = either(self.read(asked));
                p::ReadAnswer { state: state.or(before), diagnostics, private }
            }),
            "PlanResourceChange" => answer(message, |asked: p::Plan| match plan(asked) {
                Ok((state, anew)) => p::Planned {
                    state: Some(state),
                    requires_replace: anew.into_iter().map(at).collect(),
                    diagnostics: vec![],
                },
                Err(trouble) => p::Planned { diagnostics: vec![trouble.into()], ..Default::default() },
            }),
            "ApplyResourceChange" => answer(message, |asked: p::Apply| self.apply(asked)),
            "ImportResourceState" => answer(message, |asked: p::Import| match self.import(&asked) {
                Ok(state) => p::ImportAnswer {
                    imported: vec![p::Imported { type_name: asked.type_name, state: Some(state) }],
                    diagnostics: vec![],
                },
                Err(trouble) => p::ImportAnswer { imported: vec![], diagnostics: vec![trouble.into()] },
            }),
            "ReadDataSource" => answer(message, |asked: p::OfType| {
                let (state, diagnostics) = either(self.look(asked));
                p::DataRead { state, diagnostics }
            }),
            "StopProvider" => answer(message, |_: p::Empty| {
                if let Ok(api) = self.api() {
                    api.stopped.store(true, Ordering::Relaxed);
                }
                p::Empty {}
            }),
            other => Err(Status(Status::UNIMPLEMENTED, format!("{other} is not answered"))),
        }
    }

    fn api(&self) -> Result<Arc<Api>, Trouble> {
        let api = self.api.read().map_err(|_| Trouble::new("the provider is broken".into()))?;
        api.clone().ok_or_else(|| Trouble::new("the provider was asked before it was configured".into()))
    }

    fn configure(&self, config: Option<DynamicValue>) -> Result<(), Trouble> {
        let config = object(config)?.unwrap_or_default();
        let given = |name: &'static str, variable: &str| match config.get(name) {
            Some(Value::Text(text)) => Ok(text.clone()),
            Some(Value::Unknown) => {
                Err(Trouble::new(format!("the provider's `{name}` is not known before apply"))
                    .hint("give it a value that does not come from a resource")
                    .at(name))
            }
            _ => std::env::var(variable).ok().filter(|text| !text.is_empty()).ok_or_else(|| {
                Trouble::new(format!("the provider has no `{name}`"))
                    .hint(&format!("write `{name} = …` into provider \"andon\", or set {variable}"))
                    .at(name)
            }),
        };
        let api = Api::new(
            &given("server", "ANDON_SERVER")?,
            &given("token", "ANDON_TOKEN")?,
            &given("project", "ANDON_PROJECT")?,
        )?;
        *self.api.write().map_err(|_| Trouble::new("the provider is broken".into()))? = Some(Arc::new(api));
        Ok(())
    }

    fn read(&self, asked: p::Read) -> Result<DynamicValue, Trouble> {
        let resource = known(&asked.type_name)?;
        let found = match object(asked.state)? {
            Some(state) => resource.read(&*self.api()?, &state)?,
            None => None,
        };
        Ok(value(found.as_ref(), resource.attributes()))
    }

    fn apply(&self, asked: p::Apply) -> p::Applied {
        let prior = asked.prior.clone();
        let done = || -> Result<(DynamicValue, Troubles), Trouble> {
            let (resource, api) = (known(&asked.type_name)?, self.api()?);
            let said = |object: Option<&Object>| value(object, resource.attributes());
            match (object(asked.prior)?, object(asked.planned)?) {
                (None, Some(planned)) => {
                    let (made, after) = resource.create(&api, &planned)?;
                    // Made, and something after it went wrong: Terraform has to know that it is there.
                    Ok((said(Some(&made)), after.map(Into::into).into_iter().collect()))
                }
                (Some(prior), Some(planned)) => {
                    Ok((said(Some(&resource.update(&api, &prior, &planned)?)), vec![]))
                }
                (Some(prior), None) => {
                    resource.delete(&api, &prior)?;
                    Ok((said(None), vec![]))
                }
                (None, None) => Ok((said(None), vec![])),
            }
        };
        match done() {
            Ok((state, diagnostics)) => p::Applied { state: Some(state), diagnostics },
            Err(trouble) => p::Applied { state: prior, diagnostics: vec![trouble.into()] },
        }
    }

    fn import(&self, asked: &p::Import) -> Result<DynamicValue, Trouble> {
        let resource = known(&asked.type_name)?;
        let found = resource.read(&*self.api()?, &resource.of_id(&asked.id)?)?;
        let found = found.ok_or_else(|| {
            Trouble::new(format!("there is no {} {:?}", asked.type_name, asked.id))
                .hint("import takes what is there; a resource that is not is created by apply")
        })?;
        Ok(value(Some(&found), resource.attributes()))
    }

    fn look(&self, asked: p::OfType) -> Result<DynamicValue, Trouble> {
        let source = data::source(&asked.type_name)?;
        let config = object(asked.config)?.unwrap_or_default();
        let found = (source.read)(&*self.api()?, &config)?;
        Ok(value(Some(&found), source.attributes))
    }
}

fn answer<Q: Message + Default, A: Message>(
    message: &[u8],
    with: impl FnOnce(Q) -> A,
) -> Result<Vec<u8>, Status> {
    let question = Q::decode(message).map_err(|error| Status(Status::INVALID, error.to_string()))?;
    Ok(with(question).encode_to_vec())
}

fn schemas() -> p::Schemas {
    let resources = resources::ALL.iter();
    let sources = data::ALL.iter();
    p::Schemas {
        provider: Some(said(&CONFIG, "A project on an Andon server.")),
        resources: resources.map(|r| (r.name().to_owned(), said(r.attributes(), r.description()))).collect(),
        data_sources: sources.map(|s| (s.name.to_owned(), said(s.attributes, s.description))).collect(),
    }
}

fn known(name: &str) -> Result<&'static dyn Resource, Trouble> {
    resource(name).ok_or_else(|| Trouble::new(format!("this provider has no resource {name}")))
}

fn object(value: Option<DynamicValue>) -> Result<Option<Object>, Trouble> {
    match value {
        Some(value) if value.msgpack.is_empty() && !value.json.is_empty() => stored(&value.json).map(Some),
        Some(value) => unpack(&value.msgpack),
        None => Ok(None),
    }
}

fn value(object: Option<&Object>, attributes: &[Attribute]) -> DynamicValue {
    DynamicValue { msgpack: pack(object, attributes), json: vec![] }
}

fn troubles(done: Result<(), Trouble>) -> Troubles {
    done.err().map(Into::into).into_iter().collect()
}

fn either(done: Result<DynamicValue, Trouble>) -> (Option<DynamicValue>, Troubles) {
    match done {
        Ok(value) => (Some(value), vec![]),
        Err(trouble) => (None, vec![trouble.into()]),
    }
}

fn upgrade(asked: &p::Upgrade) -> Result<DynamicValue, Trouble> {
    let resource = known(&asked.type_name)?;
    let raw = asked.raw_state.as_ref().map(|raw| raw.json.as_slice()).unwrap_or_default();
    Ok(value(Some(&stored(raw)?), resource.attributes()))
}

/// What will be: the proposal, with what only the server knows left open, and what has to be made anew.
fn plan(asked: p::Plan) -> Result<(DynamicValue, Vec<&'static str>), Trouble> {
    let resource = known(&asked.type_name)?;
    let attributes = resource.attributes();
    let (prior, config) = (object(asked.prior)?, object(asked.config)?.unwrap_or_default());
    let Some(mut planned) = object(asked.proposed)? else { return Ok((value(None, attributes), vec![])) };
    let given = |name: &str| config.get(name).is_some_and(|value| *value != Value::Null);
    let mut anew = Vec::new();
    for attribute in attributes {
        let before = prior.as_ref().and_then(|prior| prior.get(attribute.name));
        let now = planned.get(attribute.name).unwrap_or(&Value::Null);
        match before {
            None if attribute.computed && !given(attribute.name) => {
                planned.insert(attribute.name.to_owned(), Value::Unknown);
            }
            Some(before) if attribute.anew && before != now => anew.push(attribute.name),
            _ => {}
        }
    }
    resource.plan(prior.as_ref(), &config, &mut planned);
    Ok((value(Some(&planned), attributes), anew))
}

#[cfg(test)]
#[path = "provider_tests.rs"]
mod tests;
