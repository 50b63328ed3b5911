//! `andon identity`: the key that signs who a job is.

use clap::Subcommand;
use serde_json::json;

use super::print_json;
use crate::cli::Common;
use crate::client::{Client, Failure};
use crate::say::say;

/// What is done about identities of jobs.
#[derive(Debug, Subcommand)]
pub enum Identity {
    /// What a cloud has to be told: the issuer and its keys.
    Show,
    /// Sign with a new key from now on; the one before is published until its last token is over.
    Rotate,
}

/// Does it.
pub fn identity(common: &Common, identity: Identity) -> Result<(), Failure> {
    let client = Client::new(common.server.clone(), common.token.clone())?;
    match identity {
        Identity::Show => {
            let about = client.get("/.well-known/openid-configuration")?;
            let keys = client.get("/.well-known/jwks.json")?;
            if common.json {
                print_json(&json!({ "configuration": about, "jwks": keys }));
                return Ok(());
            }
            say!("● issuer {}", about["issuer"].as_str().unwrap_or_default());
            say!("  keys at {}", about["jwks_uri"].as_str().unwrap_or_default());
            for key in keys["keys"].as_array().into_iter().flatten() {
                say!(
                    "  {} {}",
                    key["alg"].as_str().unwrap_or_default(),
                    key["kid"].as_str().unwrap_or_default()
                );
            }
        }
        Identity::Rotate => {
            let made = client.post("/api/v1/identity/rotate", &json!({}))?;
            say!("● {} signs from now on", made["keyid"].as_str().unwrap_or_default());
        }
    }
    Ok(())
}
