//! The messages of Terraform's plugin protocol 6, as far as this provider speaks it. Source of names and numbers: `tfplugin6.5.proto` in
//! docs/plugin-protocol of hashicorp/terraform. Written as derived types, so that building needs no `protoc`. Holds no behaviour.
//!
//! What a newer Terraform adds is skipped on reading, as protobuf wants it; what is left out here is never sent.

use std::collections::BTreeMap;

/// A value of Terraform's type system.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DynamicValue {
    /// As MessagePack; what Terraform sends today.
    #[prost(bytes = "vec", tag = "1")]
    pub msgpack: Vec<u8>,
    /// As JSON.
    #[prost(bytes = "vec", tag = "2")]
    pub json: Vec<u8>,
}

/// What a person reads.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Diagnostic {
    /// 1 an error, 2 a warning.
    #[prost(int32, tag = "1")]
    pub severity: i32,
    /// In one line.
    #[prost(string, tag = "2")]
    pub summary: String,
    /// What to do.
    #[prost(string, tag = "3")]
    pub detail: String,
    /// Where in the configuration.
    #[prost(message, optional, tag = "4")]
    pub attribute: Option<AttributePath>,
}

/// Where something stands.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AttributePath {
    /// From the outside in.
    #[prost(message, repeated, tag = "1")]
    pub steps: Vec<Step>,
}

/// One step of a path; this provider has attributes on the outside only.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Step {
    /// The attribute's name.
    #[prost(string, optional, tag = "1")]
    pub attribute_name: Option<String>,
}

/// A schema with its version.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Schema {
    /// Rises when stored states have to be rewritten.
    #[prost(int64, tag = "1")]
    pub version: i64,
    /// What it holds.
    #[prost(message, optional, tag = "2")]
    pub block: Option<Block>,
}

/// The attributes of a schema.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Block {
    /// As of the schema.
    #[prost(int64, tag = "1")]
    pub version: i64,
    /// In any order.
    #[prost(message, repeated, tag = "2")]
    pub attributes: Vec<Attribute>,
    /// For people.
    #[prost(string, tag = "4")]
    pub description: String,
}

/// An attribute.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Attribute {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its type as JSON: `"string"`.
    #[prost(bytes = "vec", tag = "2")]
    pub r#type: Vec<u8>,
    /// For people.
    #[prost(string, tag = "3")]
    pub description: String,
    /// A person has to give it.
    #[prost(bool, tag = "4")]
    pub required: bool,
    /// A person may give it.
    #[prost(bool, tag = "5")]
    pub optional: bool,
    /// The provider gives it.
    #[prost(bool, tag = "6")]
    pub computed: bool,
    /// Never shown.
    #[prost(bool, tag = "7")]
    pub sensitive: bool,
}

/// Nothing is asked, or nothing has to be said.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Empty {}

/// `GetProviderSchema`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Schemas {
    /// Of the provider's own configuration.
    #[prost(message, optional, tag = "1")]
    pub provider: Option<Schema>,
    /// By name.
    #[prost(btree_map = "string, message", tag = "2")]
    pub resources: BTreeMap<String, Schema>,
    /// By name.
    #[prost(btree_map = "string, message", tag = "3")]
    pub data_sources: BTreeMap<String, Schema>,
}

/// `ValidateProviderConfig`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ProviderConfig {
    /// As written.
    #[prost(message, optional, tag = "1")]
    pub config: Option<DynamicValue>,
}

/// The answer to `ValidateProviderConfig`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ProviderValidated {
    /// What is wrong.
    #[prost(message, repeated, tag = "2")]
    pub diagnostics: Vec<Diagnostic>,
}

/// `ConfigureProvider`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Configure {
    /// Who asks.
    #[prost(string, tag = "1")]
    pub terraform_version: String,
    /// As written, with variables filled in.
    #[prost(message, optional, tag = "2")]
    pub config: Option<DynamicValue>,
}

/// The answer to `ConfigureProvider`, `ValidateResourceConfig`, `ValidateDataResourceConfig`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Validated {
    /// What is wrong.
    #[prost(message, repeated, tag = "1")]
    pub diagnostics: Vec<Diagnostic>,
}

/// `ValidateResourceConfig`, `ValidateDataResourceConfig`, `ReadDataSource`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct OfType {
    /// `andon_flag`.
    #[prost(string, tag = "1")]
    pub type_name: String,
    /// As written.
    #[prost(message, optional, tag = "2")]
    pub config: Option<DynamicValue>,
}

/// The answer to `ReadDataSource`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DataRead {
    /// What was read.
    #[prost(message, optional, tag = "1")]
    pub state: Option<DynamicValue>,
    /// Why not.
    #[prost(message, repeated, tag = "2")]
    pub diagnostics: Vec<Diagnostic>,
}

/// `UpgradeResourceState`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Upgrade {
    /// `andon_flag`.
    #[prost(string, tag = "1")]
    pub type_name: String,
    /// Of the schema that it was written with.
    #[prost(int64, tag = "2")]
    pub version: i64,
    /// As stored.
    #[prost(message, optional, tag = "3")]
    pub raw_state: Option<RawState>,
}

/// A state as it is stored.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RawState {
    /// An object.
    #[prost(bytes = "vec", tag = "1")]
    pub json: Vec<u8>,
}

/// The answer to `UpgradeResourceState`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Upgraded {
    /// In the schema of today.
    #[prost(message, optional, tag = "1")]
    pub state: Option<DynamicValue>,
    /// Why not.
    #[prost(message, repeated, tag = "2")]
    pub diagnostics: Vec<Diagnostic>,
}

/// `ReadResource`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Read {
    /// `andon_flag`.
    #[prost(string, tag = "1")]
    pub type_name: String,
    /// As last known.
    #[prost(message, optional, tag = "2")]
    pub state: Option<DynamicValue>,
    /// The provider's own notes.
    #[prost(bytes = "vec", tag = "3")]
    pub private: Vec<u8>,
}

/// The answer to `ReadResource`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ReadAnswer {
    /// As found; null: it is gone.
    #[prost(message, optional, tag = "1")]
    pub state: Option<DynamicValue>,
    /// Why not.
    #[prost(message, repeated, tag = "2")]
    pub diagnostics: Vec<Diagnostic>,
    /// The provider's own notes.
    #[prost(bytes = "vec", tag = "3")]
    pub private: Vec<u8>,
}

/// `PlanResourceChange`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Plan {
    /// `andon_flag`.
    #[prost(string, tag = "1")]
    pub type_name: String,
    /// As it is; null: it is to be created.
    #[prost(message, optional, tag = "2")]
    pub prior: Option<DynamicValue>,
    /// What Terraform makes of both; null: it is to be removed.
    #[prost(message, optional, tag = "3")]
    pub proposed: Option<DynamicValue>,
    /// As written.
    #[prost(message, optional, tag = "4")]
    pub config: Option<DynamicValue>,
}

/// The answer to `PlanResourceChange`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Planned {
    /// As it will be.
    #[prost(message, optional, tag = "1")]
    pub state: Option<DynamicValue>,
    /// What can be changed only by making it anew.
    #[prost(message, repeated, tag = "2")]
    pub requires_replace: Vec<AttributePath>,
    /// Why not.
    #[prost(message, repeated, tag = "4")]
    pub diagnostics: Vec<Diagnostic>,
}

/// `ApplyResourceChange`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Apply {
    /// `andon_flag`.
    #[prost(string, tag = "1")]
    pub type_name: String,
    /// As it is; null: it is created.
    #[prost(message, optional, tag = "2")]
    pub prior: Option<DynamicValue>,
    /// As planned; null: it is removed.
    #[prost(message, optional, tag = "3")]
    pub planned: Option<DynamicValue>,
    /// As written.
    #[prost(message, optional, tag = "4")]
    pub config: Option<DynamicValue>,
}

/// The answer to `ApplyResourceChange`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Applied {
    /// As it is now.
    #[prost(message, optional, tag = "1")]
    pub state: Option<DynamicValue>,
    /// What went wrong.
    #[prost(message, repeated, tag = "3")]
    pub diagnostics: Vec<Diagnostic>,
}

/// `ImportResourceState`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Import {
    /// `andon_flag`.
    #[prost(string, tag = "1")]
    pub type_name: String,
    /// As a person gave it.
    #[prost(string, tag = "2")]
    pub id: String,
}

/// One thing that was found.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Imported {
    /// `andon_flag`.
    #[prost(string, tag = "1")]
    pub type_name: String,
    /// As found.
    #[prost(message, optional, tag = "2")]
    pub state: Option<DynamicValue>,
}

/// The answer to `ImportResourceState`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ImportAnswer {
    /// What was found.
    #[prost(message, repeated, tag = "1")]
    pub imported: Vec<Imported>,
    /// Why not.
    #[prost(message, repeated, tag = "2")]
    pub diagnostics: Vec<Diagnostic>,
}

/// A path to one attribute.
pub fn at(attribute: &str) -> AttributePath {
    AttributePath { steps: vec![Step { attribute_name: Some(attribute.to_owned()) }] }
}
