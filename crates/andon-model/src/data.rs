//! Databases of environments, as events tell of them: what a deployment needs, what was made, which migrations ran, which template is sealed.
//! Holds no password and no row.

#![allow(
    missing_docs,
    reason = "each struct says what its fields are; a sentence per field would only repeat the name"
)]

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{DatabaseName, DeploymentId, Digest, EnvironmentName, Oid, Span};

/// What a deployment needs before its instances start: each database, with the folder of its migrations in the commit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DataWanted {
    pub deployment: DeploymentId,
    pub environment: EnvironmentName,
    pub commit: Oid,
    pub databases: BTreeMap<DatabaseName, Option<String>>,
}

/// When a migration runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Before the instances that need it: what runs already goes on working.
    Expand,
    /// When nothing needs the old form any more. There is no way back.
    Contract,
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Phase::Expand => "expand",
            Phase::Contract => "contract",
        })
    }
}

/// A migration is in the database's ledger. `checksum` is of its text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MigrationRan {
    pub deployment: DeploymentId,
    pub environment: EnvironmentName,
    pub database: DatabaseName,
    pub name: String,
    pub phase: Phase,
    pub checksum: Digest,
    pub took: Span,
}

/// All migrations of one phase of a deployment ran, or one of them failed. `schema`: digest of each database's shape afterwards.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DataMigrated {
    pub deployment: DeploymentId,
    pub environment: EnvironmentName,
    pub phase: Phase,
    pub ok: bool,
    pub why: String,
    pub schema: BTreeMap<DatabaseName, Digest>,
}

/// A masked copy from which databases are cloned. `took`: from the beginning of the copy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TemplateSealed {
    pub database: DatabaseName,
    pub from: EnvironmentName,
    pub name: String,
    pub took: Span,
}
