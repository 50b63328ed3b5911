//! Keys that the server signs with: made when first needed, sealed, opened, replaced. What they sign is decided in andon-attest.

use std::sync::{Arc, PoisonError, RwLockReadGuard};

use andon_attest::{Keys, Public, Signer};
use andon_model::event::{Actor, Event, KeyPurpose, Role};

use crate::{Caller, Line, Refusal};

/// The largest sealed key that is read, in bytes.
const LARGEST: u64 = 64 * 1024;
/// The station's name in the journal.
const KEYS: &str = "keys";

impl Line {
    /// All keys that this server has or had.
    pub fn keys(&self) -> RwLockReadGuard<'_, Keys> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who this server is as a builder, for as long as it has its data directory's key.
    pub fn builder(&self) -> String {
        format!("urn:andon:builder:{}", self.id())
    }

    /// What verifies this server's statements, each with the builder that it speaks for.
    pub(crate) fn provenance_keys(&self) -> Vec<(Public, Option<String>)> {
        let keys = self.keys();
        keys.of(KeyPurpose::Provenance).map(|key| (key.public.clone(), Some(key.builder.clone()))).collect()
    }

    /// The key that signs now. Made where there is none, or none that this server can open: what was restored without `DATA/key` has sealed
    /// keys of another server.
    pub(crate) async fn signer(&self, purpose: KeyPurpose) -> Result<Arc<Signer>, Refusal> {
        let mut signers = self.signers.lock().await;
        let newest = self.keys().newest(purpose).cloned();
        if let Some(key) = newest {
            if let Some(known) = signers.get(&purpose).filter(|signer| signer.public == key.public) {
                return Ok(Arc::clone(known));
            }
            let (blobs, vault) = (self.blobs.clone(), self.vault.clone());
            let opened = tokio::task::spawn_blocking(move || {
                let sealed = blobs.read(&key.sealed, LARGEST)?;
                vault.open_sealed(&sealed)
            });
            match opened.await.map_err(|error| Refusal::Broken(error.to_string()))? {
                Ok(pkcs8) => {
                    let signer = Signer::of(purpose, &pkcs8).map_err(|e| Refusal::Broken(e.to_string()))?;
                    let signer = Arc::new(signer);
                    signers.insert(purpose, Arc::clone(&signer));
                    return Ok(signer);
                }
                Err(error) => {
                    tracing::warn!(%error, ?purpose, "the key that signs cannot be opened: another is made")
                }
            }
        }
        let signer = self.make_key(purpose, Actor::line(KEYS)).await?;
        signers.insert(purpose, Arc::clone(&signer));
        Ok(signer)
    }

    async fn make_key(&self, purpose: KeyPurpose, by: Actor) -> Result<Arc<Signer>, Refusal> {
        let broken = |error: andon_attest::key::NotAKey| Refusal::Broken(error.to_string());
        let pkcs8 = Signer::generate(purpose).map_err(broken)?;
        let signer = Signer::of(purpose, &pkcs8).map_err(broken)?;
        let sealed = self.vault.seal(&pkcs8)?;
        let blobs = self.blobs.clone();
        let put = tokio::task::spawn_blocking(move || blobs.put(&sealed[..])).await;
        let (sealed, _) = put.map_err(|error| Refusal::Broken(error.to_string()))??;
        let (key, public, builder) = (signer.public.id(), signer.public.pem(), self.builder());
        let made = Event::SigningKeyMade { purpose, key, public, sealed, builder };
        self.decide_server(by, |_, _| Ok((vec![made], ()))).await?;
        Ok(Arc::new(signer))
    }

    /// Signs with a new key from now on. What the one before signed stays signed. Returns the new key's name.
    pub async fn rotate_key(&self, caller: &Caller, purpose: KeyPurpose) -> Result<String, Refusal> {
        caller.may(Role::Owner)?;
        let mut signers = self.signers.lock().await;
        let signer = self.make_key(purpose, caller.actor()).await?;
        let id = signer.public.id();
        signers.insert(purpose, signer);
        Ok(id)
    }

    /// Makes the keys that are missing, so that whoever trusts them can be told before anything is signed.
    pub(crate) async fn make_keys(&self) {
        for purpose in [KeyPurpose::Provenance, KeyPurpose::Identity] {
            if let Err(error) = self.signer(purpose).await {
                tracing::error!(%error, ?purpose, "there is no key to sign with yet: it is made when it is needed");
            }
        }
    }
}
