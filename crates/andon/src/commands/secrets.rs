//! `andon secret`: values that jobs and services get as variables, and that nobody gets back.

use std::io::{IsTerminal, Read};

use andon_line::view::secrets::SecretsView;
use clap::{Args, Subcommand};
use serde_json::json;

use super::Place;
use crate::cli::Common;
use crate::client::{Failure, status};
use crate::say::say;

/// The longest value that is read, in bytes; the server says what it keeps.
const LONGEST: u64 = 1 << 20;

/// What is done with secrets.
#[derive(Debug, Subcommand)]
pub enum Secret {
    /// Keep a value, read from standard input, under this name.
    Set(Set),
    /// Names, who gets them, who set them. No values.
    List,
    /// Forget one.
    Remove {
        /// Its name.
        name: String,
    },
}

/// Options of `andon secret set`.
#[derive(Debug, Args)]
pub struct Set {
    /// The name, and that of the variable: NPM_TOKEN.
    name: String,
    /// Only for this environment; may be said more than once.
    #[arg(long, value_name = "NAME")]
    environment: Vec<String>,
    /// Give it to changes that have not landed, too: whoever can push a change can then read it.
    #[arg(long)]
    unlanded: bool,
}

/// Does it.
pub fn secret(common: &Common, secret: Secret) -> Result<(), Failure> {
    let place = Place::find(common)?;
    match secret {
        Secret::List => place.show("/secrets", list).map(drop),
        Secret::Remove { name } => {
            let answer = place.client.delete(&format!("{}/secrets/{}", place.base, plain(&name)?))?;
            drop(answer);
            say!("● {name} is forgotten; what has it keeps it until it is started anew");
            Ok(())
        }
        Secret::Set(options) => {
            let (name, value) = (plain(&options.name)?.to_owned(), value()?);
            let body =
                json!({ "value": value, "environments": options.environment, "unlanded": options.unlanded });
            place
                .command(&format!("/secrets/{name}"), &body, |_| {
                    format!("{name} is sealed; nobody can read it back")
                })
                .map(drop)
        }
    }
}

fn plain(name: &str) -> Result<&str, Failure> {
    match name.parse::<andon_model::SecretName>() {
        Ok(_) => Ok(name),
        Err(error) => Err(Failure { words: error.to_string(), status: status::USAGE }),
    }
}

/// From a pipe, never from the command line, where every process of the machine could read it.
fn value() -> Result<String, Failure> {
    if std::io::stdin().is_terminal() {
        let words =
            "the value is read from standard input\nhint: printf %s \"$VALUE\" | andon secret set NAME";
        return Err(Failure { words: words.into(), status: status::USAGE });
    }
    let mut bytes = Vec::new();
    let read = std::io::stdin().lock().take(LONGEST).read_to_end(&mut bytes);
    read.map_err(|error| format!("standard input: {error}"))?;
    let text = String::from_utf8(bytes)
        .map_err(|_| Failure::from("a secret is text\nhint: encode other bytes, as with base64"))?;
    // `echo` ends its line; a key in PEM's armour needs that end, and a token has none.
    Ok(if text.trim().contains('\n') { text } else { text.trim_end_matches(['\r', '\n']).to_owned() })
}

fn list(view: &SecretsView) {
    if view.rows.is_empty() {
        say!("there is no secret");
    }
    for row in &view.rows {
        say!(
            "● {} {}, set by {} on {}",
            row.name,
            row.says,
            row.by,
            row.at.rfc3339().get(..10).unwrap_or_default()
        );
    }
}
