//! Tokens by which jobs say who they are to others, so that clouds need no stored secret. What they claim is decided in andon-attest.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use andon_attest::token::{LONGEST, Who, discovery, sign};
use andon_model::event::KeyPurpose;
use andon_pipeline::definition::Identity;
use serde_json::{Value, json};

use crate::{Caller, Line, Refusal};

/// The variable that holds the token, and the one that names its file.
const TOKEN: &str = "ANDON_ID_TOKEN";
const FILE: &str = "ANDON_ID_TOKEN_FILE";

impl Line {
    /// Gives a job its token: as a variable, and as a file in its own room. Returns what its output may not show. It is valid for as long
    /// as the job may run, and never longer than an hour.
    pub(super) async fn give_identity(
        &self,
        identity: &Identity,
        who: &Who<'_>,
        lasts: andon_model::Span,
        tmp: &Path,
        env: &mut BTreeMap<String, String>,
    ) -> Result<Vec<String>, Refusal> {
        let signer = self.signer(KeyPurpose::Identity).await?;
        let id = andon_kit::secret::fresh("");
        let claims = who.claims(&identity.audience, self.now(), lasts, &id);
        let token = sign(&claims, &signer).map_err(|error| Refusal::Broken(error.to_string()))?;
        std::fs::create_dir_all(tmp)?;
        let file = tmp.join("andon-id-token");
        let mut out =
            std::fs::File::options().create(true).truncate(true).write(true).mode(0o600).open(&file)?;
        out.write_all(token.as_bytes())?;
        env.insert(TOKEN.into(), token.clone());
        env.insert(FILE.into(), file.display().to_string());
        // Without its signature it proves nothing; with it alone the rest can be put together again.
        let signature = token.rsplit('.').next().unwrap_or_default().to_owned();
        Ok(vec![token, signature])
    }

    /// Where relying parties find what verifies the tokens.
    pub fn discovery(&self) -> Value {
        discovery(&self.settings.url)
    }

    /// The keys of all tokens that may still be valid, as a JSON Web Key Set.
    pub fn jwks(&self) -> Value {
        let keys = self.keys();
        let keys: Vec<Value> =
            keys.published(KeyPurpose::Identity, LONGEST, self.now()).map(|key| key.public.jwk()).collect();
        json!({ "keys": keys })
    }

    /// Signs tokens with a new key from now on; the one before is published until the last token that it signed is over.
    pub async fn rotate_identity(&self, caller: &Caller) -> Result<String, Refusal> {
        self.rotate_key(caller, KeyPurpose::Identity).await
    }
}
