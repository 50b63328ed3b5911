//! The shape of a service as a deployment runs it: command, limits, runtime. What a team writes is in andon-pipeline.

use std::collections::BTreeMap;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{DatabaseName, SecretName, ServiceName, Span};

/// A service as a deployment will run it: the whole shape, so that nothing is read again later.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedService {
    /// Its name.
    pub name: ServiceName,
    /// Arguments, `$PORT` and `${PORT}` standing for the port, `$HOST` for the address to listen on; never given to a shell.
    pub command: Vec<String>,
    /// Environment variables of its own.
    pub env: BTreeMap<String, String>,
    /// Path that answers 2xx when it is healthy.
    pub health: Option<String>,
    /// How long it may take to become healthy.
    pub start_within: Span,
    /// How long it may take to stop.
    pub stop_within: Span,
    /// Instances wanted.
    pub replicas: u32,
    /// Hosts under which users reach it, beside the one it always has.
    pub hosts: Vec<String>,
    /// What one instance may use.
    #[serde(default)]
    pub limits: Limits,
    /// Image that the artifact is put on, where instances are containers; none: an empty one.
    #[serde(default)]
    pub image: Option<String>,
    /// Paths below its directory that it may write; anything else that changes there is drift.
    #[serde(default)]
    pub writes: Vec<String>,
    /// The port that it listens on wherever it has a network of its own; none: the one it is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Databases that it is told the addresses of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub databases: Vec<DatabaseName>,
    /// Secrets that it is given as variables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretName>,
    /// What it speaks.
    #[serde(default, skip_serializing_if = "Spoken::is_usual")]
    pub protocol: Spoken,
}

/// What the instances of a service speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Spoken {
    /// HTTP/1.1, with WebSocket.
    #[default]
    Http1,
    /// HTTP/2 in the clear, as gRPC wants it.
    Http2,
}

impl Spoken {
    /// Whether nothing need be said.
    pub fn is_usual(&self) -> bool {
        *self == Spoken::Http1
    }
}

/// What runs the instances of an environment.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum RuntimeKind {
    /// Processes on the host, each under its shim.
    #[default]
    Process,
    /// Containers of a Docker Engine.
    Docker,
}

impl std::fmt::Display for RuntimeKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            RuntimeKind::Process => "process",
            RuntimeKind::Docker => "docker",
        })
    }
}

/// What one instance may use; what is not said is not limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Thousandths of one processor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_millis: Option<u32>,
    /// Processes and threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes: Option<u32>,
}

impl PlannedService {
    /// One instance of a command: no health path, no limits, ready within 30 s, stopped within 10 s.
    pub fn new(name: ServiceName, command: &[&str]) -> PlannedService {
        PlannedService {
            name,
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            env: BTreeMap::new(),
            health: None,
            start_within: Span::secs(30),
            stop_within: Span::secs(10),
            replicas: 1,
            hosts: Vec::new(),
            limits: Limits::default(),
            image: None,
            writes: Vec::new(),
            port: None,
            databases: Vec::new(),
            secrets: Vec::new(),
            protocol: Spoken::Http1,
        }
    }
}

/// A number of bytes, written as `512KiB`, `256MiB` or `2GiB`; `K`, `M` and `G` mean the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// Not a [`Size`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a size\nhint: write 512KiB, 256MiB or 2GiB")]
pub struct NotASize(pub String);

const UNITS: [(&str, u64); 3] = [("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10)];

impl FromStr for Size {
    type Err = NotASize;

    fn from_str(text: &str) -> Result<Size, NotASize> {
        let wrong = || NotASize(text.chars().take(40).collect());
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u64 = text[..digits].parse().map_err(|_| wrong())?;
        let unit = text[digits..].trim();
        let unit = unit.strip_suffix("iB").or_else(|| unit.strip_suffix('B')).unwrap_or(unit);
        let factor = match unit {
            "" => 1,
            unit => UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?.1,
        };
        number.checked_mul(factor).map(Size).ok_or_else(wrong)
    }
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match UNITS.iter().find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor)) {
            Some((name, factor)) => write!(f, "{}{name}iB", self.0 / factor),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Size, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Size {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Size".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^[0-9]+ *([KMG](iB|B)?|B)$",
            "description": "A number of bytes: 512KiB, 256MiB, 2GiB"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_what_people_write_and_refuse_the_rest() {
        for (text, bytes) in [("512KiB", 1 << 19), ("256M", 1 << 28), ("2 GB", 2 << 30), ("7B", 7)] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        for bad in ["", "5", "MiB", "1.5GiB", "-1MiB", "99999999999999GiB", "1TiBB", "1KK"] {
            assert!(bad.parse::<Size>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn a_size_survives_being_written_and_read() {
        for bytes in [1, 1023, 1024, 1 << 20, (1 << 30) + 1, 5 << 30] {
            assert_eq!(Size(bytes).to_string().parse(), Ok(Size(bytes)));
        }
    }
}
