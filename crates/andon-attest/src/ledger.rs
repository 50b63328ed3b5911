//! Which keys the server has and what it said about artifacts, as folds over line events. Opens no key.

use std::collections::{BTreeMap, BTreeSet};

use andon_model::event::{Attestation, Event, KeyPurpose, Recorded};
use andon_model::{Digest, RunId, Span, Time};

use crate::key::Public;
use crate::statement::says_something;

/// A key of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// What it is for.
    pub purpose: KeyPurpose,
    /// Its name.
    pub id: String,
    /// Verifies what it signed.
    pub public: Public,
    /// Names the sealed secret half.
    pub sealed: Digest,
    /// The builder that it speaks for.
    pub builder: String,
    /// When it was made.
    pub since: Time,
    /// When another took its place.
    pub until: Option<Time>,
}

/// All keys of the server, oldest first.
#[derive(Debug, Clone, Default)]
pub struct Keys {
    /// Every key there ever was: what it signed stays signed.
    pub all: Vec<Key>,
}

impl Keys {
    /// Takes in what happened.
    pub fn evolve(&mut self, recorded: &Recorded) {
        let Event::SigningKeyMade { purpose, key, public, sealed, builder } = &recorded.event else { return };
        // Written by ourselves: what cannot be read is nobody's key.
        let Ok(public) = Public::from_pem(public) else { return };
        let before = self.all.iter_mut().rev().find(|key| key.purpose == *purpose);
        if let Some(before) = before {
            before.until = Some(recorded.at);
        }
        self.all.push(Key {
            purpose: *purpose,
            id: key.clone(),
            public,
            sealed: sealed.clone(),
            builder: builder.clone(),
            since: recorded.at,
            until: None,
        });
    }

    /// The key that signs now.
    pub fn newest(&self, purpose: KeyPurpose) -> Option<&Key> {
        self.all.iter().rev().find(|key| key.purpose == purpose)
    }

    /// Every key of this purpose.
    pub fn of(&self, purpose: KeyPurpose) -> impl Iterator<Item = &Key> {
        self.all.iter().filter(move |key| key.purpose == purpose)
    }

    /// Keys of which something may still be valid that lasts as long as this: they are published.
    pub fn published(&self, purpose: KeyPurpose, lasts: Span, now: Time) -> impl Iterator<Item = &Key> {
        self.of(purpose).filter(move |key| key.until.is_none_or(|until| now < until + lasts))
    }
}

/// What was said about the artifact of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// The artifact.
    pub artifact: Digest,
    /// Names the envelope.
    pub envelope: Digest,
    /// The key that signed it.
    pub key: String,
    /// When.
    pub at: Time,
}

/// What a project's artifacts have been attested to be.
#[derive(Debug, Clone, Default)]
pub struct Attestations {
    /// By run and kind.
    pub made: BTreeMap<(RunId, Attestation), Made>,
    /// Still to be made.
    pub due: BTreeSet<(RunId, Attestation)>,
    built: BTreeMap<RunId, Digest>,
}

impl Attestations {
    /// Takes in what happened.
    pub fn evolve(&mut self, recorded: &Recorded) {
        match &recorded.event {
            Event::ArtifactBuilt { run, artifact, .. } => {
                self.built.insert(*run, artifact.clone());
                self.due.insert((*run, Attestation::Provenance));
            }
            Event::RunFinished { run, verdict, .. }
                if says_something(verdict) && self.built.contains_key(run) =>
            {
                self.due.insert((*run, Attestation::TestResult));
            }
            Event::Attested { run, artifact, what, envelope, key } => {
                let (artifact, envelope, key) = (artifact.clone(), envelope.clone(), key.clone());
                self.due.remove(&(*run, *what));
                self.made.insert((*run, *what), Made { artifact, envelope, key, at: recorded.at });
            }
            _ => {}
        }
    }

    /// What was said about this artifact of this run.
    pub fn of(&self, run: RunId, what: Attestation, artifact: &Digest) -> Option<&Made> {
        self.made.get(&(run, what)).filter(|made| made.artifact == *artifact)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Signer;
    use andon_model::Actor;

    fn told(at: i64, event: Event) -> Recorded {
        Recorded { seq: 1, at: Time(at), by: Actor::line("test"), project: None, event }
    }

    fn key() -> Event {
        let signer =
            Signer::of(KeyPurpose::Identity, &Signer::generate(KeyPurpose::Identity).unwrap()).unwrap();
        let (key, public) = (signer.public.id(), signer.public.pem());
        let (sealed, builder) = (Digest::of(b"x"), "b".into());
        Event::SigningKeyMade { purpose: KeyPurpose::Identity, key, public, sealed, builder }
    }

    #[test]
    fn a_key_that_was_replaced_is_published_until_the_last_that_it_signed_is_over() {
        let mut keys = Keys::default();
        keys.evolve(&told(0, key()));
        keys.evolve(&told(1000, key()));
        let published = |now| keys.published(KeyPurpose::Identity, Span(500), Time(now)).count();
        assert_eq!((published(1000), published(1499), published(1500)), (2, 2, 1));
        assert_eq!(keys.newest(KeyPurpose::Identity).unwrap().since, Time(1000));
        assert!(keys.newest(KeyPurpose::Provenance).is_none());
    }

    #[test]
    fn what_is_due_is_made_once() {
        let mut all = Attestations::default();
        let (run, artifact) = (RunId(1), Digest::of(b"a"));
        let (bytes, commit) = (1, "a".repeat(40).parse().unwrap());
        let pins = Default::default();
        all.evolve(&told(0, Event::ArtifactBuilt { run, artifact: artifact.clone(), bytes, commit, pins }));
        let what = Attestation::Provenance;
        assert!(all.due.contains(&(run, what)));
        let (envelope, key) = (Digest::of(b"e"), "k".to_owned());
        all.evolve(&told(0, Event::Attested { run, artifact: artifact.clone(), what, envelope, key }));
        assert!(all.due.is_empty() && all.of(run, what, &artifact).is_some());
        assert!(all.of(run, what, &Digest::of(b"other")).is_none());
    }
}
