//! Numbers that people say aloud (`#12`, `A3`, `R88`) as types that cannot be mixed up. They count up within one project.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Why a text is not an id of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {kind}: write it like {example}")]
pub struct NotAnId {
    text: String,
    kind: &'static str,
    example: &'static str,
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident $prefix:literal $kind:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(transparent)]
        pub struct $name(pub u32);

        impl $name {
            /// The id after this one.
            pub fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }

        /// Accepts the number with or without its mark.
        impl FromStr for $name {
            type Err = NotAnId;
            fn from_str(text: &str) -> Result<Self, NotAnId> {
                let digits = text.strip_prefix($prefix).unwrap_or(text);
                let wrong = || NotAnId {
                    text: text.chars().take(40).collect(),
                    kind: $kind,
                    example: concat!($prefix, "12"),
                };
                if !digits.bytes().all(|b| b.is_ascii_digit()) {
                    return Err(wrong());
                }
                digits.parse().map($name).map_err(|_| wrong())
            }
        }
    )*};
}

ids! {
    /// A change: commits proposed for trunk. Shown as `#12`.
    ChangeId "#" "a change";
    /// One execution of the pipeline on one exact tree. Shown as `run-34`.
    RunId "run-" "a run";
    /// An incident opened by pulling the cord. Shown as `A12`.
    AndonId "A" "an andon";
    /// A movement of users to a revision. Shown as `R88`.
    ReleaseId "R" "a release";
    /// An artifact put into an environment. Shown as `D7`.
    DeploymentId "D" "a deployment";
    /// One running copy of a service. Shown as `i5`.
    InstanceId "i" "an instance";
    /// One run of the infrastructure tool in an environment. Shown as `T4`.
    InfraRunId "T" "an infrastructure run";
    /// A shell that somebody opened inside an instance. Shown as `S3`.
    ShellId "S" "a shell";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_with_and_without_its_mark() {
        assert_eq!("A12".parse(), Ok(AndonId(12)));
        assert_eq!("12".parse(), Ok(AndonId(12)));
        assert_eq!(ChangeId(7).to_string(), "#7");
        for bad in ["", "A", "A-1", "A+1", "A12x", "A99999999999"] {
            assert!(bad.parse::<AndonId>().is_err(), "{bad:?} was accepted");
        }
    }
}
