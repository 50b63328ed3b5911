//! The name of a secret: that of the environment variable in which a job or an instance gets it. Knows no value.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The longest name.
const LONGEST: usize = 64;
/// Variables that decide how programs run, or that the server itself sets: a secret of that name would break or bend both.
const TAKEN: [&str; 13] = [
    "PATH",
    "HOME",
    "TMPDIR",
    "IFS",
    "ENV",
    "BASH_ENV",
    "SHELLOPTS",
    "PS4",
    "CI",
    "ANDON",
    "USER",
    "SHELL",
    "PORT",
];
const TAKEN_BEGINNINGS: [&str; 4] = ["ANDON_", "LD_", "GIT_", "MATRIX_"];

/// Capital letters, digits and `_`, beginning with a letter, at most 64 characters, and none that programs or the server use already.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct SecretName(#[schemars(regex(pattern = "^[A-Z][A-Z0-9_]{0,63}$"))] String);

/// Why a text is not the name of a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no name for a secret: use capital letters, digits and '_', as in NPM_TOKEN, and no variable that programs or Andon use already"
)]
pub struct NotASecretName(String);

impl SecretName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for SecretName {
    type Err = NotASecretName;
    fn from_str(text: &str) -> Result<SecretName, NotASecretName> {
        let plain = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
        let begins = text.bytes().next().is_some_and(|b| b.is_ascii_uppercase());
        let taken = TAKEN.contains(&text) || TAKEN_BEGINNINGS.iter().any(|begin| text.starts_with(begin));
        if begins && text.len() <= LONGEST && text.bytes().all(plain) && !taken {
            return Ok(SecretName(text.to_owned()));
        }
        Err(NotASecretName(text.chars().take(60).collect()))
    }
}

impl TryFrom<String> for SecretName {
    type Error = NotASecretName;
    fn try_from(text: String) -> Result<SecretName, NotASecretName> {
        text.parse()
    }
}

impl From<SecretName> for String {
    fn from(name: SecretName) -> String {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_named_like_a_variable_that_nobody_uses_yet() {
        for good in ["NPM_TOKEN", "A", "AWS_SECRET_ACCESS_KEY2"] {
            assert!(good.parse::<SecretName>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "npm",
            "1A",
            "A-B",
            "A B",
            "PATH",
            "LD_PRELOAD",
            "ANDON_TOKEN",
            "BASH_ENV",
            "É",
            &"A".repeat(65),
        ] {
            assert!(bad.parse::<SecretName>().is_err(), "{bad}");
        }
    }
}
