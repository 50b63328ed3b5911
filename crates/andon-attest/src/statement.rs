//! Statements about an artifact: in-toto Statement v1 with SLSA v1 provenance (as in SLSA 1.2) or in-toto's test result v0.1. Signs nothing.

use andon_model::event::{JobIsolation, Verdict};
use andon_model::{ChangeId, Digest, JobName, Oid, ProjectName, RunId, Time};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The type of a statement.
pub const STATEMENT: &str = "https://in-toto.io/Statement/v1";
/// The predicate of provenance.
pub const PROVENANCE: &str = "https://slsa.dev/provenance/v1";
/// The predicate of a test result.
pub const TEST_RESULT: &str = "https://in-toto.io/attestation/test-result/v0.1";
/// How our jobs build: commands of a job of `andon.yaml` in a working copy of one commit.
pub const BUILD_TYPE: &str = "urn:andon:build:job:v1";
/// Tests named one by one; beyond it only their number is told.
const NAMED: usize = 20_000;

/// Something that a predicate is about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Subject {
    /// What people call it.
    pub name: String,
    /// By algorithm: `sha256`.
    pub digest: std::collections::BTreeMap<String, String>,
}

/// A statement as it is read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Statement {
    /// [`STATEMENT`].
    #[serde(rename = "_type")]
    pub kind: String,
    /// What it is about.
    pub subject: Vec<Subject>,
    /// What is said.
    pub predicate_type: String,
    /// The words.
    pub predicate: Value,
}

/// Where an artifact comes from.
#[derive(Debug)]
pub struct Origin<'a> {
    /// Under which people reach the server.
    pub url: &'a str,
    /// Whose.
    pub project: &'a ProjectName,
    /// The branch that it is for.
    pub trunk: &'a str,
    /// The change and its patch set; none: trunk itself.
    pub change: Option<(ChangeId, u32)>,
    /// The run.
    pub run: RunId,
    /// The job that built it, and its attempt.
    pub job: Option<(&'a JobName, u32)>,
    /// The run whose attempt counts for this one.
    pub replayed: Option<RunId>,
    /// What it was built from.
    pub commit: &'a Oid,
    /// Its tree.
    pub tree: &'a Oid,
    /// The plan that names every command.
    pub plan: Option<&'a Digest>,
    /// What separated it from everything else.
    pub isolation: &'a JobIsolation,
    /// Who vouches.
    pub builder: &'a str,
    /// The version of this program.
    pub version: &'a str,
    /// When it began and ended.
    pub times: Option<(Time, Time)>,
}

impl Origin<'_> {
    fn source(&self) -> String {
        format!("git+{}/{}.git@refs/heads/{}", self.url, self.project, self.trunk)
    }

    /// The statement of SLSA.
    pub fn provenance(&self, artifact: &Digest) -> Value {
        let invocation = |run: RunId| format!("{}/{}/runs/{}", self.url, self.project, run.0);
        let job = self.job.map(|(job, _)| job.as_str());
        let of_run = match job {
            Some(job) => format!("{}/{job}", invocation(self.run)),
            None => invocation(self.run),
        };
        let times = self.times.map(|(from, to)| (from.rfc3339(), to.rfc3339()));
        statement(
            self.project,
            artifact,
            PROVENANCE,
            json!({
                "buildDefinition": {
                    "buildType": BUILD_TYPE,
                    "externalParameters": {
                        "project": self.project,
                        "source": self.source(),
                        "job": job,
                        "change": self.change.map(|(change, _)| change.0),
                        "patchSet": self.change.map(|(_, patch_set)| patch_set),
                        "plan": self.plan.map(|plan| json!({ "sha256": plan.hex() })),
                    },
                    "internalParameters": {
                        "run": self.run.0,
                        "attempt": self.job.map(|(_, attempt)| attempt),
                        "replayedFrom": self.replayed.map(invocation),
                        "isolation": self.isolation.has,
                        "isolationLacks": self.isolation.lacks.iter().map(|(what, _)| what).collect::<Vec<_>>(),
                    },
                    "resolvedDependencies": [
                        { "name": "commit", "uri": self.source(), "digest": { "gitCommit": self.commit } },
                        { "name": "tree", "uri": self.source(), "digest": { "gitTree": self.tree } },
                    ],
                },
                "runDetails": {
                    "builder": { "id": self.builder, "version": { "andon": self.version } },
                    "metadata": {
                        "invocationId": of_run,
                        "startedOn": times.as_ref().map(|(from, _)| from),
                        "finishedOn": times.as_ref().map(|(_, to)| to),
                    },
                },
            }),
        )
    }

    /// The statement of what the tests said.
    pub fn test_result(&self, artifact: &Digest, said: &Said) -> Value {
        let named = |names: &[String]| names.iter().take(NAMED).cloned().collect::<Vec<_>>();
        let result = match (said.green, said.warned.is_empty()) {
            (false, _) => "FAILED",
            (true, false) => "WARNED",
            (true, true) => "PASSED",
        };
        let mut configuration = vec![
            json!({ "name": "commit", "uri": self.source(), "digest": { "gitCommit": self.commit } }),
            json!({ "name": "tree", "uri": self.source(), "digest": { "gitTree": self.tree } }),
        ];
        if let Some(plan) = self.plan {
            let uri = format!("{}/api/v1/{}/runs/{}/plan", self.url, self.project, self.run.0);
            configuration.push(json!({ "name": "plan", "uri": uri, "digest": { "sha256": plan.hex() } }));
        }
        statement(
            self.project,
            artifact,
            TEST_RESULT,
            json!({
                "result": result,
                "configuration": configuration,
                "url": format!("{}/{}/runs/{}", self.url, self.project, self.run.0),
                "passedTests": named(&said.passed),
                "warnedTests": named(&said.warned),
                "failedTests": named(&said.failed),
            }),
        )
    }
}

/// What a run's tests said, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    /// The verdict.
    pub green: bool,
    /// Green tests.
    pub passed: Vec<String>,
    /// Red ones in quarantine, and those that were red before they were green.
    pub warned: Vec<String>,
    /// Red ones.
    pub failed: Vec<String>,
}

/// Whether a run with this verdict says anything about its artifact.
pub fn says_something(verdict: &Verdict) -> bool {
    !matches!(verdict, Verdict::Broken { .. })
}

fn statement(project: &ProjectName, artifact: &Digest, predicate_type: &str, predicate: Value) -> Value {
    // What is not known is left out: the schemas have no null.
    let mut predicate = predicate;
    without_nulls(&mut predicate);
    json!({
        "_type": STATEMENT,
        "subject": [{ "name": format!("{project}.tar"), "digest": { "sha256": artifact.hex() } }],
        "predicateType": predicate_type,
        "predicate": predicate,
    })
}

fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(without_nulls);
        }
        Value::Array(all) => all.iter_mut().for_each(without_nulls),
        _ => {}
    }
}
