//! Which secrets a project has, and who gets them. Knows no value: that is sealed elsewhere.

use std::collections::BTreeMap;

use andon_model::event::{Event, Recorded};
use andon_model::{Actor, Digest, EnvironmentName, SecretName, Time};

/// A secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    /// Names the sealed value.
    pub sealed: Digest,
    /// Only for what runs in or tests these environments; empty: for every one, and for runs of trunk.
    pub environments: Vec<EnvironmentName>,
    /// Given to changes that have not landed, too.
    pub unlanded: bool,
    /// When it was set.
    pub at: Time,
    /// Who set it.
    pub by: Actor,
}

/// All of a project.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Secrets {
    /// By name.
    pub all: BTreeMap<SecretName, Secret>,
}

/// Who asks for a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asks<'a> {
    /// A job on commits that are not on trunk.
    Unlanded {
        /// The change edits `andon.yaml`: it decides itself what is done with what it gets.
        edits_pipeline: bool,
    },
    /// A job on trunk.
    Landed,
    /// What runs in an environment, or tests it, from trunk.
    Environment(&'a EnvironmentName),
}

impl Secrets {
    /// Takes in what happened.
    pub fn evolve(&mut self, recorded: &Recorded) {
        match &recorded.event {
            Event::SecretSet { secret, sealed, environments, unlanded } => {
                let made = Secret {
                    sealed: sealed.clone(),
                    environments: environments.clone(),
                    unlanded: *unlanded,
                    at: recorded.at,
                    by: recorded.by.clone(),
                };
                self.all.insert(secret.clone(), made);
            }
            Event::SecretRemoved { secret } => drop(self.all.remove(secret)),
            _ => {}
        }
    }

    /// The secret, or why whoever asks does not get it.
    pub fn given(&self, name: &SecretName, asks: Asks<'_>) -> Result<&Secret, String> {
        let Some(secret) = self.all.get(name) else {
            return Err(format!("{name} is not set; hint: andon secret set {name}"));
        };
        let only = || secret.environments.iter().map(EnvironmentName::as_str).collect::<Vec<_>>().join(", ");
        match asks {
            Asks::Unlanded { .. } if !secret.unlanded => Err(format!(
                "{name} is not given to changes that have not landed; hint: use it in a job of the stage `environment`, or set it with --unlanded"
            )),
            Asks::Unlanded { edits_pipeline: true } => Err(format!(
                "{name} is not given to a change that edits andon.yaml before it landed; hint: land that edit on its own"
            )),
            Asks::Unlanded { .. } | Asks::Landed if !secret.environments.is_empty() => Err(format!(
                "{name} is only for {}; hint: andon secret set {name} without --environment",
                only()
            )),
            Asks::Environment(environment)
                if !secret.environments.is_empty() && !secret.environments.contains(environment) =>
            {
                Err(format!(
                    "{name} is only for {}; hint: andon secret set {name} --environment {environment}",
                    only()
                ))
            }
            _ => Ok(secret),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(environments: &[&str], unlanded: bool) -> (Secrets, SecretName) {
        let secret: SecretName = "NPM_TOKEN".parse().unwrap();
        let environments = environments.iter().map(|name| name.parse().unwrap()).collect();
        let event =
            Event::SecretSet { secret: secret.clone(), sealed: Digest::of(b"x"), environments, unlanded };
        let mut secrets = Secrets::default();
        secrets.evolve(&Recorded { seq: 1, at: Time(1), by: Actor::line("test"), project: None, event });
        (secrets, secret)
    }

    #[test]
    fn what_has_not_landed_gets_nothing_unless_that_was_said_and_never_what_it_redefines() {
        let change = |edits_pipeline| Asks::Unlanded { edits_pipeline };
        let (closed, name) = secrets(&[], false);
        assert!(closed.given(&name, change(false)).unwrap_err().contains("not landed"));
        assert!(closed.given(&name, Asks::Landed).is_ok());
        let (open, name) = secrets(&[], true);
        assert!(open.given(&name, change(false)).is_ok());
        assert!(open.given(&name, change(true)).unwrap_err().contains("edits andon.yaml"));
    }

    #[test]
    fn a_secret_of_an_environment_stays_there() {
        let (bound, name) = secrets(&["production"], true);
        let (production, staging) = ("production".parse().unwrap(), "staging".parse().unwrap());
        assert!(bound.given(&name, Asks::Environment(&production)).is_ok());
        assert!(bound.given(&name, Asks::Environment(&staging)).unwrap_err().contains("only for production"));
        assert!(bound.given(&name, Asks::Landed).is_err());
        assert!(bound.given(&name, Asks::Unlanded { edits_pipeline: false }).is_err());
    }

    #[test]
    fn a_removed_secret_is_gone() {
        let (mut secrets, name) = secrets(&[], false);
        let event = Event::SecretRemoved { secret: name.clone() };
        secrets.evolve(&Recorded { seq: 2, at: Time(2), by: Actor::line("test"), project: None, event });
        assert!(secrets.given(&name, Asks::Landed).unwrap_err().contains("not set"));
    }
}
