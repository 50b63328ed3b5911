//! The rules of an environment as a team writes them: what may differ and until when, how it is protected. Applies none of them.

use andon_model::time::Day;
use andon_model::{EnvironmentName, Span, Time, UserName};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::Definition;
use crate::check::{Problem, inside, whole};

/// Less than this starts no program.
const LEAST_MEMORY: u64 = 8 << 20;

/// Something that may differ for a while.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Exception {
    /// What: `shape web replicas`, `file cache/*`; `*` stands for any part.
    pub what: String,
    /// The reason.
    pub why: String,
    /// The last day on which it may.
    pub until: Day,
}

impl Exception {
    /// When it ends.
    pub fn ends(&self) -> Time {
        self.until.end()
    }
}

/// How an environment is protected against being destroyed piece by piece. One that was asked for is not protected, whatever it is like: it is
/// made to end.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Protection {
    /// People who have to approve a plan that deletes or replaces something here.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 10))]
    pub approvals: u32,
    /// Resources that may go without anybody's approval: types or addresses, `*` stands for any part.
    #[serde(default)]
    pub harmless: Vec<String>,
    /// Who may approve. Without it, everyone who may deploy.
    #[serde(default)]
    pub approvers: Vec<UserName>,
    /// The server has to have a backup that is not older than this when such a plan is approved, as in `15m`.
    pub backup_within: Option<Span>,
}

/// How much two environments have to be alike.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Alike {
    /// The other environment; none: the one before this in the order of the file.
    pub with: Option<EnvironmentName>,
    /// Hundredths of what is compared that are alike, or differ for a reason under `differs`.
    #[schemars(range(min = 1, max = 100))]
    pub least: u8,
}

const fn one() -> u32 {
    1
}

/// The rules of one environment, with what it takes from the one it is like.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// Differences from the environment that a change comes from.
    pub differs: Vec<Exception>,
    /// Differences from code that are no drift.
    pub ignores: Vec<Exception>,
    /// Its protection, if it has one.
    pub protection: Option<Protection>,
    /// Stopped when nobody used it for this long.
    pub sleep_after: Option<Span>,
    /// What a change has to make of it, before it comes here.
    pub parity: Option<Alike>,
}

/// Rules and limits that nobody can have meant.
pub(crate) fn problems(definition: &Definition) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (name, service) in &definition.services {
        let limits = &service.limits;
        let mut bad = |what: &str, hint: &str| problems.push(whole(format!("{what} of {name}"), hint));
        if limits.memory.is_some_and(|memory| memory.0 < LEAST_MEMORY) {
            bad("limits.memory", "write 8MiB or more");
        }
        if limits.cpu.is_some_and(|cpu| !(0.01..=1024.0).contains(&cpu)) {
            bad("limits.cpu", "write processors: 0.5, 2");
        }
        if limits.processes == Some(0) {
            bad("limits.processes", "an instance is one process at least");
        }
        if service.writes.iter().any(|path| path.is_empty() || !inside(path)) {
            bad("writes", "write paths below the artifact's folder, as in [cache, var/data]");
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-/:@".contains(c);
        if service.image.as_ref().is_some_and(|image| image.is_empty() || !image.chars().all(plain)) {
            bad("image", "write the name of an image that the engine has, as in python-base:3.11");
        }
    }
    for (name, environment) in &definition.environments {
        let mut bad = |what: &str, hint: &str| problems.push(whole(format!("{what} of {name}"), hint));
        let exceptions = || environment.differs.iter().chain(&environment.ignores);
        if exceptions().any(|e| e.what.trim().is_empty() || e.why.trim().is_empty()) {
            bad("an exception", "say what may differ and why, each in a few words");
        }
        if let Some(alike) = &environment.parity {
            if !(1..=100).contains(&alike.least) {
                bad("parity.least", "write hundredths, 1 to 100");
            }
            let first = definition.environments.get_index_of(name) == Some(0);
            let known = |with: &EnvironmentName| with != name && definition.environments.contains_key(with);
            if !alike.with.as_ref().map_or(!first, known) {
                bad("parity.with", "name another environment of this file, which changes come from");
            }
        }
        if environment.protected.as_ref().is_some_and(|p| !(1..=10).contains(&p.approvals)) {
            bad("protected.approvals", "write 1 to 10");
        }
        let few = |p: &Protection| !p.approvers.is_empty() && p.approvers.len() < p.approvals as usize;
        if environment.protected.as_ref().is_some_and(few) {
            bad("protected.approvers", "name at least as many people as have to approve");
        }
        if environment.protected.as_ref().and_then(|p| p.backup_within).is_some_and(|b| b < Span::secs(60)) {
            bad("protected.backup_within", "write 1m or more; 15m suits most");
        }
        if let Some(infrastructure) = &environment.infrastructure {
            if infrastructure.terraform.as_deref().is_some_and(|folder| !inside(folder)) {
                bad("infrastructure.terraform", "write a folder of this repository, as in infra/");
            }
            if let Some(ansible) = &infrastructure.ansible {
                ansible.problems().into_iter().for_each(|(key, hint)| bad(key, hint));
            } else if infrastructure.terraform.is_none() && environment.like.is_none() {
                bad("infrastructure", "name a folder for terraform, a playbook for ansible, or both");
            }
            if infrastructure.look_every < Span::secs(1) {
                bad("infrastructure.look_every", "write 1s or more; 60s suits most");
            }
            if infrastructure.stop_within < Span::secs(1) {
                bad("infrastructure.stop_within", "write 1s or more: a tool that is stopped has to save");
            }
            if infrastructure.approve_within < Span::secs(1) {
                bad("infrastructure.approve_within", "write how long a plan may wait for people, as in 24h");
            }
            let name = |name: &String| {
                !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
            };
            if !infrastructure.variables.keys().all(name) {
                bad("infrastructure.variables", "names are letters, digits, `_` and `-`, as in the code");
            }
        }
        if environment.sleep_after.is_some() && name.as_str() == "production" {
            bad("sleep_after", "production does not sleep: take it out there");
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use crate::read;

    const FILE: &str = "version: 1
pipeline: { jobs: { unit: { run: 'true', artifact: . } } }
services: { web: { command: [./web], limits: { memory: 64MiB, cpu: 0.5, processes: 20 }, writes: [cache] } }
environments:
  staging: { like: production, sleep_after: 1h, differs: [{ what: shape web replicas, why: small, until: 2027-01-31 }] }
  production: { protected: { approvals: 2 }, ignores: [{ what: file cache/*, why: it is a cache, until: 2027-01-31 }], parity: { least: 90 } }
";

    #[test]
    fn an_environment_has_the_exceptions_of_what_it_is_like_and_not_its_protection() {
        let definition = read(FILE).unwrap();
        let staging = definition.resolve(&"staging".parse().unwrap()).unwrap();
        assert_eq!(staging.rules.ignores.len(), 1);
        assert_eq!((staging.rules.protection, staging.rules.parity), (None, None));
        assert_eq!(staging.services[0].limits.memory, Some(64 << 20));
        assert_eq!(staging.services[0].limits.cpu_millis, Some(500));
    }

    #[test]
    fn rules_that_nobody_can_have_meant_are_refused() {
        for (good, bad) in [
            ("64MiB", "64KiB"),
            ("0.5", "-1"),
            ("processes: 20", "processes: 0"),
            ("[cache]", "[../cache]"),
            ("[cache]", "[cache], image: 'a b'"),
            ("why: small", "why: ' '"),
            ("approvals: 2", "approvals: 0"),
            ("approvals: 2", "approvals: 2, approvers: [ann]"),
            ("approvals: 2", "approvals: 2, backup_within: 10s"),
            ("least: 90", "least: 0"),
            ("least: 90", "least: 101"),
            ("least: 90", "least: 90, with: production"),
            ("least: 90", "least: 90, with: nowhere"),
            ("sleep_after: 1h", "parity: { least: 90 }"),
            ("2027-01-31 }] }\n  p", "soon }] }\n  p"),
            ("production: {", "production: { sleep_after: 1h,"),
        ] {
            assert!(read(FILE.replacen(good, bad, 1).as_str()).is_err(), "{bad} was accepted");
        }
    }
}
