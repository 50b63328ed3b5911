//! What `andon.yaml` says of Ansible: which playbook, on which hosts, with what. Checks names and paths; runs nothing, resolves no output.

use std::collections::BTreeMap;

use andon_model::Span;
use andon_model::event::{Connection, Hosts, Playbook};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::check::inside;

/// Groups that Ansible makes by itself.
const TAKEN: [&str; 2] = ["all", "ungrouped"];

/// What Ansible sets up, with the playbooks of this repository.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ansible {
    /// The folder with playbooks, roles and files. It is taken from the commit that is deployed.
    pub folder: String,
    /// The playbook in it that sets everything up. It has to be repeatable: what differs is healed by playing it again.
    #[serde(default = "site")]
    pub playbook: String,
    /// The playbook in it that removes what the other one made. Without it, that stays when the environment ends.
    pub destroy: Option<String>,
    /// How hosts are reached.
    #[serde(default)]
    pub connection: Connection,
    /// Hosts by group, each with its variables. Every play also knows `andon_environment`. A value may name an output of Terraform: `${infrastructure.NAME}`.
    pub hosts: Hosts,
    /// Variables of every play. No secrets: they are part of the journal.
    #[serde(default)]
    pub variables: BTreeMap<String, String>,
    /// Names of variables whose values only the server knows: those of its own variables `ANDON_INFRA_NAME`.
    #[serde(default)]
    pub secrets: Vec<String>,
    /// How often reality is compared with the code.
    #[serde(default = "look_every")]
    pub look_every: Span,
}

fn site() -> String {
    "site.yml".into()
}
const fn look_every() -> Span {
    Span::secs(300)
}

/// A folder as git names it: `infra`, without what changes nothing.
pub(crate) fn as_git(folder: &str) -> String {
    let parts = folder.split('/').filter(|part| !part.is_empty() && *part != ".");
    parts.collect::<Vec<_>>().join("/")
}

impl Ansible {
    /// The folder as git names it.
    pub fn folder(&self) -> String {
        as_git(&self.folder)
    }

    /// As the journal keeps it.
    pub fn playbook(&self) -> Playbook {
        Playbook {
            playbook: as_git(&self.playbook),
            destroy: self.destroy.as_deref().map(as_git),
            connection: self.connection,
            hosts: self.hosts.clone(),
            secrets: self.secrets.clone(),
        }
    }

    /// What nobody can have meant: which key, and how to mend it.
    pub(crate) fn problems(&self) -> Vec<(&'static str, &'static str)> {
        let mut found = Vec::new();
        let mut unless = |good: bool, key, hint| {
            if !good {
                found.push((key, hint));
            }
        };
        let file = |path: &str| inside(path) && !as_git(path).is_empty();
        unless(
            file(&self.folder),
            "infrastructure.ansible.folder",
            "write a folder of this repository, as in ansible/",
        );
        unless(
            file(&self.playbook),
            "infrastructure.ansible.playbook",
            "write a file in the folder, as in site.yml",
        );
        unless(
            self.destroy.as_deref().is_none_or(file),
            "infrastructure.ansible.destroy",
            "write a file in the folder, as in destroy.yml",
        );
        unless(
            self.hosts.values().any(|hosts| !hosts.is_empty()),
            "infrastructure.ansible.hosts",
            "name at least one host in a group, as in hosts: { web: { web1: {} } }",
        );
        let group = |name: &String| is_variable(name) && !TAKEN.contains(&name.as_str());
        unless(
            self.hosts.keys().all(group),
            "infrastructure.ansible.hosts",
            "groups are letters, digits and `_`, and neither `all` nor `ungrouped`",
        );
        unless(
            self.hosts.values().flat_map(BTreeMap::keys).all(|name| is_host(name)),
            "infrastructure.ansible.hosts",
            "hosts are letters, digits, `.`, `-` and `_`, as in web1 or web1.example.org",
        );
        let mut variables = self.hosts.values().flat_map(BTreeMap::values).flat_map(BTreeMap::keys);
        unless(
            variables.all(|name| is_variable(name))
                && self.variables.keys().chain(&self.secrets).all(|name| is_variable(name)),
            "infrastructure.ansible.variables",
            "variables are letters, digits and `_`, and begin with a letter",
        );
        unless(
            !self.secrets.iter().any(|name| self.variables.contains_key(name)),
            "infrastructure.ansible.secrets",
            "a name is either a variable or a secret: take it out of one of both",
        );
        unless(
            self.look_every >= Span::secs(1),
            "infrastructure.ansible.look_every",
            "write 1s or more; 5m suits most",
        );
        found
    }
}

fn is_variable(name: &str) -> bool {
    name.len() <= 100
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn is_host(name: &str) -> bool {
    name.len() <= 250
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

#[cfg(test)]
mod tests {
    use crate::read;

    const FILE: &str = "version: 1
pipeline: { jobs: { unit: { run: 'true', artifact: . } } }
services: { web: { command: [./web] } }
environments:
  staging: { like: production }
  production:
    infrastructure:
      ansible: { folder: ./ansible/, hosts: { web: { web1: { page: hello } } } }
";

    #[test]
    fn the_folder_of_the_playbook_is_pinned_with_the_artifact() {
        let definition = read(FILE).unwrap();
        assert_eq!(definition.folders(), ["ansible"]);
        let both = read(&FILE.replace("ansible: {", "terraform: infra\n      ansible: {")).unwrap();
        assert_eq!(both.folders(), ["ansible", "infra"]);
    }

    #[test]
    fn an_environment_like_another_has_its_hosts() {
        let resolved = read(FILE).unwrap().resolve(&"staging".parse().unwrap()).unwrap();
        let ansible = resolved.infrastructure.unwrap().ansible.unwrap();
        assert_eq!(ansible.playbook().hosts["web"]["web1"]["page"], "hello");
        assert_eq!(ansible.playbook, "site.yml");
    }

    #[test]
    fn what_would_leave_the_folder_or_be_read_as_something_else_is_refused() {
        for (good, bad) in [
            ("./ansible/", "../ansible"),
            ("web1", "web[1:3]"),
            ("web1", "-web"),
            ("web: { web1", "all: { web1"),
            ("page", "a-b"),
            ("web1: { page: hello }", ""),
            ("hosts:", "playbook: /etc/site.yml, hosts:"),
            ("hosts:", "look_every: 0s, hosts:"),
            ("hosts:", "secrets: ['a b'], hosts:"),
        ] {
            let file = FILE.replacen(good, bad, 1);
            assert_ne!(file, FILE, "{good}");
            assert!(read(&file).is_err(), "{bad:?} was accepted");
        }
        let neither = FILE.replace(
            "ansible: { folder: ./ansible/, hosts: { web: { web1: { page: hello } } } }",
            "look_every: 5s",
        );
        assert!(read(&neither).is_err(), "infrastructure that names no tool was accepted");
    }
}
