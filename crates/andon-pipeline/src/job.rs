//! The parts of a job that say when, how often and with what it runs, as types. Reads nothing and decides nothing.

use std::collections::BTreeMap;
use std::fmt;

use andon_model::event::Role;
use andon_model::{Span, UserName};
use indexmap::IndexMap;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::definition::Job;

/// How often broken infrastructure is tried again where nothing is said.
pub const BROKEN: u32 = 2;
/// The longest that a person is waited for where nothing is said.
const WITHIN: Span = Span::secs(24 * 3600);

/// A form of jobs with parameters. It says what is run; where and when (`stage`, `needs`, `when`, `matrix`) is said by the job that uses it.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Template {
    /// Parameters by name, each with the value that it has where a job gives none; without one, a job has to give it.
    #[serde(default)]
    pub parameters: IndexMap<String, Option<String>>,
    /// What a job that uses it does. `$WITH_NAME` stands for a parameter in paths and in `env` and `group`.
    pub job: Job,
}

/// How often an attempt is run again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Retries {
    /// When a command said no or ran out of time.
    pub red: u32,
    /// When the infrastructure broke: it is not the change's fault, and never red.
    pub broken: u32,
}

impl Default for Retries {
    fn default() -> Retries {
        Retries { red: 0, broken: BROKEN }
    }
}

impl<'de> Deserialize<'de> for Retries {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Retries, D::Error> {
        struct Form;
        impl<'de> Visitor<'de> for Form {
            type Value = Retries;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, or { red: 1, broken: 2 }")
            }
            fn visit_u64<E: serde::de::Error>(self, red: u64) -> Result<Retries, E> {
                let red = u32::try_from(red).map_err(|_| E::custom("that is more than anybody waits for"))?;
                Ok(Retries { red, ..Retries::default() })
            }
            fn visit_i64<E: serde::de::Error>(self, red: i64) -> Result<Retries, E> {
                u64::try_from(red)
                    .map_err(|_| E::custom("a number of retries is not negative"))
                    .and_then(|red| self.visit_u64(red))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Retries, A::Error> {
                let mut made = Retries::default();
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "red" => made.red = map.next_value()?,
                        "broken" => made.broken = map.next_value()?,
                        _ => return Err(serde::de::Error::unknown_field(&key, &["red", "broken"])),
                    }
                }
                Ok(made)
            }
        }
        from.deserialize_any(Form)
    }
}

impl JsonSchema for Retries {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Retries".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let times = |words: &str| serde_json::json!({ "description": words, "type": "integer", "minimum": 0, "maximum": 20 });
        json_schema!({
            "anyOf": [
                times("Red attempts."),
                {
                    "type": "object",
                    "additionalProperties": false,
                    "properties": {
                        "red": times("When a command said no or ran out of time."),
                        "broken": times("When the infrastructure broke; 2 where nothing is said."),
                    },
                },
            ],
        })
    }
}

/// Values of variables, by name.
pub type Values = BTreeMap<String, String>;

/// Makes a job of each combination of values: at most 256.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Matrix {
    /// Names with their values, in the order of the file.
    pub axes: IndexMap<String, Vec<String>>,
    /// Combinations beside the product of all values; each names every axis.
    pub include: Vec<Values>,
    /// Combinations that are left out; each may name only some axes.
    pub exclude: Vec<Values>,
}

impl<'de> Deserialize<'de> for Matrix {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Matrix, D::Error> {
        struct Form;
        impl<'de> Visitor<'de> for Form {
            type Value = Matrix;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("names with lists of values, as in { python: [\"3.11\", \"3.12\"] }")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Matrix, A::Error> {
                let mut made = Matrix::default();
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "include" => made.include = map.next_value()?,
                        "exclude" => made.exclude = map.next_value()?,
                        _ => drop(made.axes.insert(key, map.next_value()?)),
                    }
                }
                Ok(made)
            }
        }
        from.deserialize_map(Form)
    }
}

impl JsonSchema for Matrix {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Matrix".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let value = serde_json::json!({ "type": ["string", "number", "boolean"] });
        let some = serde_json::json!({ "type": "array", "items": { "type": "object", "additionalProperties": value } });
        json_schema!({
            "description": "Makes a job of each combination of values: at most 256.",
            "type": "object",
            "properties": { "include": some, "exclude": some },
            "additionalProperties": { "type": "array", "items": value, "minItems": 1 },
        })
    }
}

/// Which changes need a job. On trunk every job runs, and a change of `andon.yaml` needs every job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct When {
    /// Files that it is about: `src/**`, `*.lock`, a folder as `docs/`. None: all.
    #[serde(default)]
    pub paths: Vec<String>,
    /// Files that it is not about, even if they are named above.
    #[serde(default)]
    pub not_paths: Vec<String>,
}

/// Who is asked before a run goes on. Without roles and people: everyone who may release.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Approve {
    /// Whoever holds one of these roles.
    #[serde(default)]
    pub roles: Vec<Role>,
    /// And these people.
    #[serde(default)]
    pub people: Vec<UserName>,
    /// Red after this time without a yes.
    #[serde(default = "within")]
    pub within: Span,
    /// What they are asked.
    pub why: String,
    /// Whoever pushed the change does not count.
    #[serde(default)]
    pub not_author: bool,
}

const fn within() -> Span {
    WITHIN
}

/// What runs beside the steps of a job: started before the first one, ended with the last.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Beside {
    /// The commands, given to `sh -e` as they stand. They listen on 127.0.0.1 on the port that `NAME_PORT` says.
    pub run: String,
    /// Environment variables of its own.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// The port that it listens on. Left out, one that is free: jobs of one machine do not get into each other's way then.
    #[schemars(range(min = 1))]
    pub port: Option<u16>,
    /// How long it may take until it listens. Red after this time.
    #[serde(default = "listen_within")]
    pub within: Span,
}

const fn listen_within() -> Span {
    Span::secs(30)
}

/// Files kept between runs, found again by the content of other files.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cache {
    /// Jobs with the same name and key share it; default: the job's name.
    pub name: Option<String>,
    /// Files whose content is the key: `Cargo.lock`, `**/package-lock.json`.
    pub key: Vec<String>,
    /// Files and folders that are kept.
    pub paths: Vec<String>,
    /// Begin with the newest one of another key where there is none of this.
    #[serde(default)]
    pub fallback: bool,
}
