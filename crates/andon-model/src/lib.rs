//! The vocabulary: typed ids, validated names and the line events that stations exchange. No IO, no clock.
//!
//! A type enters this crate only when two other crates need it.

pub mod data;
pub mod event;
pub mod hash;
pub mod id;
pub mod infrastructure;
pub mod name;
mod packages;
mod percent;
pub mod pins;
pub mod secret;
pub mod service;
pub mod strategy;
pub mod time;

pub use event::{Actor, Event, Recorded, Role};
pub use hash::{Digest, Oid};
pub use id::{AndonId, ChangeId, DeploymentId, InfraRunId, InstanceId, ReleaseId, RunId, ShellId};
pub use infrastructure::StateName;
pub use name::{
    DatabaseName, EnvironmentName, GroupName, HostName, JobName, LabelName, ProjectName, RunnerName,
    ServiceName, StageName, StrategyName, TemplateName, UserName,
};
pub use packages::Packages;
pub use pins::Pins;
pub use secret::SecretName;
pub use service::{Limits, PlannedService, RuntimeKind, Size, Spoken};
pub use strategy::{Percent, Strategy, Weight};
pub use time::{Span, Time};
