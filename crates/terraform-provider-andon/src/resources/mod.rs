//! What can be managed. A resource reads itself from the server each time: what somebody changed by hand is seen.

mod environment;
mod flag;
mod scale;

use crate::api::Api;
use crate::schema::Attribute;
use crate::trouble::Trouble;
use crate::value::Object;

pub(crate) use environment::expires;
pub(crate) use flag::one as one_flag;

/// A kind of thing that is managed.
pub trait Resource: Sync {
    /// `andon_flag`.
    fn name(&self) -> &'static str;
    /// For people.
    fn description(&self) -> &'static str;
    /// What it has.
    fn attributes(&self) -> &'static [Attribute];
    /// Whether the configuration can be meant; values that are not known yet may become anything.
    ///
    /// # Errors
    /// What is wrong with it.
    fn check(&self, config: &Object) -> Result<(), Trouble>;
    /// Refines the proposal: what follows from the configuration, and what the change leaves open.
    fn plan(&self, prior: Option<&Object>, config: &Object, planned: &mut Object);
    /// What names the thing, from an id that a person gave.
    ///
    /// # Errors
    /// When the id names nothing.
    fn of_id(&self, id: &str) -> Result<Object, Trouble>;
    /// As it is on the server; none: it is gone.
    ///
    /// # Errors
    /// When the server cannot be asked.
    fn read(&self, api: &Api, state: &Object) -> Result<Option<Object>, Trouble>;
    /// Makes it. A second trouble is one that came when it was there already.
    ///
    /// # Errors
    /// When it was not made.
    fn create(&self, api: &Api, planned: &Object) -> Result<(Object, Option<Trouble>), Trouble>;
    /// Changes it.
    ///
    /// # Errors
    /// When it stays as it was.
    fn update(&self, api: &Api, prior: &Object, planned: &Object) -> Result<Object, Trouble>;
    /// Ends it; that it is gone already is no trouble.
    ///
    /// # Errors
    /// When it is still there.
    fn delete(&self, api: &Api, state: &Object) -> Result<(), Trouble>;
}

/// All of them.
pub const ALL: [&dyn Resource; 3] = [&environment::Environment, &flag::Flag, &scale::Scale];

/// The one of that name.
pub fn resource(name: &str) -> Option<&'static dyn Resource> {
    ALL.into_iter().find(|resource| resource.name() == name)
}

/// A text that has to be there.
pub(crate) fn text<'a>(object: &'a Object, name: &'static str) -> Result<&'a str, Trouble> {
    let found = object.get(name).and_then(|value| value.text()).filter(|text| !text.is_empty());
    found.ok_or_else(|| Trouble::new(format!("`{name}` is missing")).at(name))
}
