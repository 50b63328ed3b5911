//! The words of infrastructure: names of states, runs of the infrastructure tool, and what its events carry. No IO, no rules.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::name::NotAName;
use crate::{DeploymentId, Digest, EnvironmentName, InfraRunId, Oid, Span, UserName};

/// Which state: of an environment, or of one layer of it. Written `production` or `production/network`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StateName {
    /// The environment it describes.
    pub environment: EnvironmentName,
    /// The layer, where an environment has several states. The alphabet is that of all names.
    pub layer: Option<EnvironmentName>,
}

impl StateName {
    /// The one state of an environment without layers.
    pub fn of(environment: EnvironmentName) -> StateName {
        StateName { environment, layer: None }
    }
}

impl fmt::Display for StateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.layer {
            Some(layer) => write!(f, "{}/{layer}", self.environment),
            None => write!(f, "{}", self.environment),
        }
    }
}

impl FromStr for StateName {
    type Err = NotAName;
    fn from_str(text: &str) -> Result<StateName, NotAName> {
        match text.split_once('/') {
            Some((environment, layer)) => {
                Ok(StateName { environment: environment.parse()?, layer: Some(layer.parse()?) })
            }
            None => Ok(StateName::of(text.parse()?)),
        }
    }
}

impl TryFrom<String> for StateName {
    type Error = NotAName;
    fn try_from(text: String) -> Result<StateName, NotAName> {
        text.parse()
    }
}

impl From<StateName> for String {
    fn from(name: StateName) -> String {
        name.to_string()
    }
}

/// Who holds a state's lock, as the tool or a person said it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockInfo {
    /// The tool's own id of the lock.
    pub id: String,
    /// `OperationTypePlan`, `OperationTypeApply`; `maintenance` when a person holds it on purpose.
    pub operation: String,
    /// `user@host`, or the reason of a maintenance lock.
    pub who: String,
    /// The tool's version; empty for a person.
    pub version: String,
    /// The run of ours that holds it: its end frees it.
    pub run: Option<InfraRunId>,
    /// Held by a person on purpose, so that nothing changes meanwhile.
    pub maintenance: bool,
}

/// One version of a state, kept for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredState {
    /// The document's own number.
    pub serial: u64,
    /// Which history it belongs to.
    pub lineage: String,
    /// Of the document in clear, to know a repeated request.
    pub digest: Digest,
    /// The encrypted document.
    pub blob: Digest,
    /// Length of the document in clear.
    pub bytes: u64,
    /// The lock it was stored under.
    pub lock: Option<String>,
    /// The version that was brought back with it; versions count from 1.
    pub restored_from: Option<u32>,
    /// The run whose tool could not store it: the server found it afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovered: Option<InfraRunId>,
}

/// What a run of the infrastructure tool is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InfraAction {
    /// Show what would change; change nothing.
    Plan,
    /// Plan, then apply exactly that plan.
    Apply,
    /// Plan and apply the removal of everything.
    Destroy,
    /// Look whether reality differs; change nothing.
    Look,
}

impl fmt::Display for InfraAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            InfraAction::Plan => "plan",
            InfraAction::Apply => "apply",
            InfraAction::Destroy => "destroy",
            InfraAction::Look => "look for drift",
        })
    }
}

/// Which tool makes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InfraTool {
    /// Terraform or OpenTofu: what there is. First.
    Terraform,
    /// Ansible: how it is set up. After Terraform, whose output may say where the hosts are.
    Ansible,
}

/// How Ansible reaches a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Connection {
    /// Over ssh, with the keys of the server's account.
    #[default]
    Ssh,
    /// On the host of the server itself.
    Local,
}

/// Hosts by group, each with its variables.
pub type Hosts = BTreeMap<String, BTreeMap<String, BTreeMap<String, String>>>;

/// What Ansible is to do in a folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Playbook {
    /// The playbook, relative to the folder.
    pub playbook: String,
    /// The playbook that removes what the other one made.
    #[serde(default)]
    pub destroy: Option<String>,
    /// How hosts are reached that do not say it themselves.
    #[serde(default)]
    pub connection: Connection,
    /// Whom it is about; values may name output of the infrastructure, which is filled in when it runs.
    pub hosts: Hosts,
    /// Names of variables whose values only the server knows.
    #[serde(default)]
    pub secrets: Vec<String>,
}

impl Playbook {
    /// Whether it has to run again when this output value's owner ran.
    pub fn uses(&self, words: &str) -> bool {
        let mut values = self.hosts.values().flat_map(|hosts| hosts.values()).flat_map(|host| host.values());
        values.any(|value| value.contains(words))
    }
}

/// The infrastructure that a deployment needs: in force before its instances start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InfraWanted {
    /// The deployment.
    pub deployment: DeploymentId,
    /// Where.
    pub environment: EnvironmentName,
    /// The commit that the folder is taken from.
    pub commit: Oid,
    /// The folder, relative to the repository.
    pub folder: String,
    /// Its tree in that commit; none: the commit has no such folder.
    pub tree: Option<Oid>,
    /// Input variables.
    pub variables: BTreeMap<String, String>,
    /// For Ansible; none: Terraform.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub playbook: Option<Playbook>,
}

impl InfraWanted {
    /// Whose work it is.
    pub fn tool(&self) -> InfraTool {
        self.playbook.as_ref().map_or(InfraTool::Terraform, |_| InfraTool::Ansible)
    }
}

/// A run that was asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InfraQueued {
    /// Its number.
    pub run: InfraRunId,
    /// Where.
    pub environment: EnvironmentName,
    /// What for.
    pub action: InfraAction,
    /// The commit that the folder is taken from.
    pub commit: Oid,
    /// The folder's tree: the same tree is the same infrastructure code.
    pub tree: Oid,
    /// The folder, relative to the repository.
    pub folder: String,
    /// Input variables. No secrets: they are part of the journal.
    pub variables: BTreeMap<String, String>,
    /// The deployment that waits for it.
    pub deployment: Option<DeploymentId>,
    /// The reason, in words.
    pub why: String,
    /// For Ansible; none: Terraform.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub playbook: Option<Playbook>,
}

impl InfraQueued {
    /// Whose work it is.
    pub fn tool(&self) -> InfraTool {
        self.playbook.as_ref().map_or(InfraTool::Terraform, |_| InfraTool::Ansible)
    }
}

/// What a plan would do, counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PlanCounts {
    /// Resources that come to be, replacements included.
    pub add: u32,
    /// Resources changed in place.
    pub change: u32,
    /// Resources that end, replacements included.
    pub destroy: u32,
    /// Resources found other than recorded.
    pub drift: u32,
    /// What cannot be known before it is done.
    #[serde(default)]
    pub unknown: u32,
}

impl fmt::Display for PlanCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to add, {} to change, {} to destroy", self.add, self.change, self.destroy)?;
        if self.unknown > 0 {
            write!(f, ", {} unknown", self.unknown)?;
        }
        Ok(())
    }
}

/// A plan that was made and read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InfraPlanned {
    /// The run.
    pub run: InfraRunId,
    /// What it would do.
    pub counts: PlanCounts,
    /// The typed plan with sensitive values masked, as a blob.
    pub shown: Digest,
    /// Addresses that nobody may delete or replace without approval, with what would happen to each.
    pub guarded: Vec<String>,
    /// How many different people have to approve; 0: nobody.
    pub approvals: u32,
    /// Who they are; empty: everyone who may deploy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approvers: Vec<UserName>,
    /// The server has to have a backup that is not older than this when the last one approves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_within: Option<Span>,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InfraFinished {
    /// The run.
    pub run: InfraRunId,
    /// Whether it did what it was for.
    pub ok: bool,
    /// In words; of a failure the tool's first error.
    pub why: String,
    /// Output values that are not sensitive, as JSON.
    pub outputs: BTreeMap<String, serde_json::Value>,
    /// Everything that the tool said.
    pub log: Option<Digest>,
    /// How long it took from its start.
    pub took: Span,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_named_by_its_environment_and_at_most_one_layer() {
        for good in ["production", "production/network"] {
            assert_eq!(good.parse::<StateName>().unwrap().to_string(), good);
        }
        for bad in ["", "/", "production/", "/network", "a/b/c", "../x", "A"] {
            assert!(bad.parse::<StateName>().is_err(), "{bad:?} was accepted");
        }
    }
}
