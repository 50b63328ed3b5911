//! Names that come from outside and go into paths, hosts, refs and pages: validated once, here, and safe from then on.
//!
//! One alphabet serves all of them: lower-case letters, digits and `-`, starting with a letter or digit, at most 40 characters. It needs
//! no escaping in a path, a DNS label, a git ref, a URL or a page, and none of them can look like an option. A job, which is no DNS label, may
//! have single dots inside its name as well: `unit-3.11`.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The longest name: leaves room for two names in one DNS label's 63 characters.
pub const LONGEST: usize = 40;

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a name for {kind}: use lower-case letters, digits and '-', starting with a letter or digit, at most 40 characters"
)]
pub struct NotAName {
    text: String,
    kind: &'static str,
}

fn is_name(text: &str, dots: bool) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    text.len() <= LONGEST
        && text.bytes().next().is_some_and(plain)
        && text.bytes().all(|b| plain(b) || b == b'-' || (dots && b == b'.'))
        && !text.contains("..")
        && !text.ends_with('.')
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident $kind:literal $dots:literal $pattern:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(#[schemars(regex(pattern = $pattern))] String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = NotAName;
            fn from_str(text: &str) -> Result<Self, NotAName> {
                if is_name(text, $dots) {
                    return Ok(Self(text.to_owned()));
                }
                Err(NotAName { text: text.chars().take(60).collect(), kind: $kind })
            }
        }

        impl TryFrom<String> for $name {
            type Error = NotAName;
            fn try_from(text: String) -> Result<Self, NotAName> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    )*};
}

names! {
    /// A project: one repository with its `andon.yaml`.
    ProjectName "a project" false "^[a-z0-9][a-z0-9-]{0,39}$";
    /// A service of a project.
    ServiceName "a service" false "^[a-z0-9][a-z0-9-]{0,39}$";
    /// An environment of a project.
    EnvironmentName "an environment" false "^[a-z0-9][a-z0-9-]{0,39}$";
    /// A machine that runs instances.
    HostName "a host" false "^[a-z0-9][a-z0-9-]{0,39}$";
    /// A machine that runs jobs.
    RunnerName "a runner" false "^[a-z0-9][a-z0-9-]{0,39}$";
    /// What a job asks of the machine that runs it.
    LabelName "a label" true "^[a-z0-9][a-z0-9.-]{0,39}$";
    /// A database of a project's environments.
    DatabaseName "a database" false "^[a-z0-9][a-z0-9-]{0,39}$";
    /// A job of the pipeline.
    JobName "a job" true "^[a-z0-9][a-z0-9.-]{0,39}$";
    /// A stage of the pipeline.
    StageName "a stage" false "^[a-z0-9][a-z0-9-]{0,39}$";
    /// Jobs that run one at a time.
    GroupName "a group" false "^[a-z0-9][a-z0-9-]{0,39}$";
    /// A job's form that others take.
    TemplateName "a template" false "^[a-z0-9][a-z0-9-]{0,39}$";
    /// A named way of releasing, under `releases:`.
    StrategyName "a release strategy" false "^[a-z0-9][a-z0-9-]{0,39}$";
    /// A person or program that logs in.
    UserName "a user" false "^[a-z0-9][a-z0-9-]{0,39}$";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_be_a_path_an_option_or_markup_are_refused() {
        for bad in ["", "-x", "a/b", "..", "a.b", "A", "a b", "<b>", "é", "a\n", "--upload-pack=x"] {
            assert!(bad.parse::<ServiceName>().is_err(), "{bad:?} was accepted");
        }
        assert!("a".repeat(41).parse::<ServiceName>().is_err());
        for bad in ["..", ".a", "a.", "a..b", "a/../b", "unit-3.11."] {
            assert!(bad.parse::<JobName>().is_err(), "{bad:?} was accepted");
        }
        assert_eq!("unit-3.11".parse::<JobName>().unwrap().as_str(), "unit-3.11");
    }

    #[test]
    fn a_plain_name_is_kept_as_it_is() {
        assert_eq!("web-2".parse::<ServiceName>().unwrap().as_str(), "web-2");
        assert!(serde_json::from_str::<ServiceName>("\"../x\"").is_err());
    }
}
