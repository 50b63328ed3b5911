//! `andon.yaml` as types. The comments of the fields become the descriptions that an editor shows. Reads nothing and checks nothing.

use crate::ansible::{Ansible, as_git};
use crate::job::{Approve, Beside, Cache, Matrix, Retries, Template, When};
use crate::rules::{Alike, Exception, Protection, Rules};
pub use crate::steps::Step;
use andon_model::event::{DefinitionRule, PlannedService, Role};
use andon_model::strategy::Strategy;
use andon_model::{
    DatabaseName, EnvironmentName, JobName, Limits, Percent, RuntimeKind, SecretName, ServiceName, Size,
    Span, Spoken, StageName, StrategyName, TemplateName,
};
use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_saphyr::Spanned;
use std::collections::BTreeMap;

/// The stage whose jobs test a deployed environment instead of a change.
pub const ENVIRONMENT_STAGE: &str = "environment";

/// What Andon does with this repository.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// Version of this file's form: 1.
    pub version: u32,
    /// What every change has to pass before it lands.
    pub pipeline: Pipeline,
    /// Limits that the test and coverage reports have to keep.
    #[serde(default)]
    pub validation: Validation,
    /// What runs in environments.
    #[serde(default)]
    pub services: IndexMap<ServiceName, Service>,
    /// PostgreSQL databases; each environment has its own of each.
    #[serde(default)]
    pub databases: IndexMap<DatabaseName, Database>,
    /// Where it runs, in the order in which a green change passes through.
    #[serde(default)]
    pub environments: IndexMap<EnvironmentName, Environment>,
    /// Named ways of moving users to a new revision.
    #[serde(default)]
    pub releases: IndexMap<StrategyName, Strategy>,
    /// When the line stops.
    #[serde(default)]
    pub cord: Cord,
    /// Who approves a change of this file.
    #[serde(default)]
    pub definition: Guarded,
}

/// The jobs and what they share.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pipeline {
    /// Environment variables of every job.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Forms that several jobs take with `use`.
    #[serde(default)]
    pub templates: IndexMap<TemplateName, Template>,
    /// The jobs. A job of a later stage waits until every job of the stages before it is green.
    pub jobs: IndexMap<JobName, Job>,
}

/// One job: commands in a working copy of its own, or a person who is asked.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// `commit`, `acceptance`, or any name; stages run in the order in which they first appear. Jobs of the stage `environment` do not
    /// gate a change: they test an environment after a deployment, when it lists them under `tests`.
    #[serde(default = "commit_stage")]
    pub stage: StageName,
    /// Jobs that must be green before this one. The name of a job with a matrix stands for all that it becomes.
    #[serde(default)]
    #[schemars(with = "Vec<JobName>")]
    pub needs: Vec<Spanned<JobName>>,
    /// The commands, given to `sh -e` as they stand. A job has either these or `steps`.
    #[schemars(with = "Option<String>")]
    pub run: Option<Spanned<String>>,
    /// The commands in parts with names, run one after the other in the same working copy.
    #[serde(default)]
    pub steps: Vec<Step>,
    /// Environment variables of this job.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Stopped after this time. Left out, it follows from how long the job usually takes: 30 minutes until five green attempts are known,
    /// then four times what it takes at most, and no less than 5 minutes.
    pub timeout: Option<Span>,
    /// Stopped when it printed nothing for this long.
    pub quiet: Option<Span>,
    /// What all its processes may use together.
    #[serde(default)]
    pub limits: ServiceLimits,
    /// Secrets that it gets as variables of the same names: `andon secret set` keeps them, and says who may have them. A job that may not
    /// have one runs without, and its output says so.
    #[serde(default)]
    pub secrets: Vec<SecretName>,
    /// A token that says who it is, for services that trust this server: as `ANDON_ID_TOKEN`, and in the file `ANDON_ID_TOKEN_FILE`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
    /// It runs in a container of this image, `python:3.12-slim`, made for it on the engine of its machine. The image has `sh`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Labels that the machine has to have on which it runs: `[gpu, arm64]`. Left out, it runs on the server's own or on any runner.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runs_on: Vec<String>,
    /// `true`: it reaches the container engine of its machine, where server or runner was started with `--docker-in-jobs`.
    #[serde(default)]
    pub docker: bool,
    /// `false`: it reaches nobody but itself.
    #[serde(default = "yes")]
    pub network: bool,
    /// How often an attempt is run again: a number for red ones, or `{ red: 1, broken: 2 }`. A retry is shown, never hidden.
    pub retries: Option<Retries>,
    /// Reports that the commands write.
    #[serde(default)]
    pub reports: Reports,
    /// A folder or file that the commands produce: packed, named by its digest, and deployed everywhere without being built again.
    pub artifact: Option<String>,
    /// The template that says what this job does not say itself.
    #[serde(rename = "use", skip_serializing)]
    #[schemars(with = "Option<TemplateName>")]
    pub uses: Option<Spanned<TemplateName>>,
    /// Values of the template's parameters; the commands find them as `WITH_NAME`.
    #[serde(default, skip_serializing)]
    pub with: BTreeMap<String, String>,
    /// Makes a job of each combination of values; the commands find them as `MATRIX_NAME`.
    #[serde(skip_serializing)]
    pub matrix: Option<Matrix>,
    /// Only for changes of these files. A job that a change does not need counts as passed.
    pub when: Option<When>,
    /// Runs nothing: a person has to say yes before what needs it goes on.
    pub approve: Option<Approve>,
    /// Jobs of one group run one at a time, in whatever run they are; the others wait in order.
    pub group: Option<String>,
    /// Files and folders that a green attempt hands on to the jobs that take it.
    #[serde(default)]
    pub outputs: Vec<String>,
    /// Jobs whose outputs are put into this job's working copy. They are needed by it.
    #[serde(default)]
    #[schemars(with = "Vec<JobName>")]
    pub takes: Vec<Spanned<JobName>>,
    /// What runs beside the steps, by name: a database, a server to be tested. The steps find its port as `NAME_PORT`.
    #[serde(default)]
    pub services: IndexMap<ServiceName, Beside>,
    /// Files that the next run may begin with.
    pub cache: Option<Cache>,
    /// All that the job reads of the repository; its working copy has nothing else. When none of it changed since it was green, the job is
    /// not run but replayed.
    #[serde(default)]
    pub reads: Vec<String>,
    /// What its tests stand on. Left out, it follows from the stage: `commit` is unit, `acceptance` is integration, anything else e2e.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer: Option<Layer>,
}

/// A token by which a job says who it is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// For whom: nobody else accepts it. `sts.amazonaws.com`, or what a service asks for.
    pub audience: Vec<String>,
}

/// Paths of reports in the working copy; `*` stands for a part of a name.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reports {
    /// Test results: JUnit XML, TAP, TRX, `go test -json`, JSON of libtest or nextest.
    #[serde(default)]
    pub tests: OneOrMany,
    /// The same as `tests`.
    #[serde(default)]
    pub junit: OneOrMany,
    /// Coverage: LCOV, Cobertura, JaCoCo or Clover XML, a Go profile, JSON of llvm-cov, SimpleCov or coverage.py.
    #[serde(default)]
    pub coverage: OneOrMany,
    /// What linters and analysers found, as SARIF 2.1.0.
    #[serde(default)]
    pub findings: OneOrMany,
    /// What performance tests measured: Criterion's `estimates.json`, JSON of hyperfine, or a list of `{ name, value, unit }`.
    #[serde(default)]
    pub performance: OneOrMany,
}

impl Reports {
    /// Paths of test results, by either name.
    pub fn of_tests(&self) -> impl Iterator<Item = &str> {
        self.tests.iter().chain(self.junit.iter())
    }

    /// All paths.
    pub fn all(&self) -> impl Iterator<Item = &str> {
        let others = self.coverage.iter().chain(self.findings.iter()).chain(self.performance.iter());
        self.of_tests().chain(others)
    }
}

/// One path or a list of them.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum OneOrMany {
    /// None.
    #[default]
    None,
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl OneOrMany {
    /// The paths.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        let slice = match self {
            OneOrMany::None => &[],
            OneOrMany::One(one) => std::slice::from_ref(one),
            OneOrMany::Many(many) => many.as_slice(),
        };
        slice.iter().map(String::as_str)
    }

    /// The paths, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut String> {
        let slice = match self {
            OneOrMany::None => &mut [],
            OneOrMany::One(one) => std::slice::from_mut(one),
            OneOrMany::Many(many) => many.as_mut_slice(),
        };
        slice.iter_mut()
    }
}

impl Reports {
    /// Every path of every kind, to be changed.
    pub(crate) fn paths_mut(&mut self) -> impl Iterator<Item = &mut String> {
        // Taken apart, so that no kind is forgotten.
        let Reports { tests, junit, coverage, findings, performance } = self;
        [tests, junit, coverage, findings, performance].into_iter().flat_map(OneOrMany::iter_mut)
    }
}

/// Limits on reports.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Validation {
    /// Limits on coverage; each one that is broken blocks the change and lists the lines that lack tests.
    pub coverage: Option<CoverageLimits>,
    /// Limits on what linters and analysers find.
    pub findings: Option<FindingLimits>,
    /// Limits on what performance tests measure.
    pub performance: Option<PerformanceLimits>,
    /// What is said of selections of tests by what a change can touch. They are observed; all tests run.
    pub impact: Option<ImpactRules>,
}

/// Rules for selections of tests.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImpactRules {
    /// Parts of names of tests that no selection leaves out: those of processes, browsers, data files, whose coverage says too little.
    #[serde(default)]
    pub always: Vec<String>,
}

/// Limits on measured numbers.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PerformanceLimits {
    /// A number may be worse than the median of the last landings by so much, or by as much as it scatters, whichever is more.
    pub worse_by: Percent,
}

/// Limits on coverage, in percent.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CoverageLimits {
    /// Of the whole project's lines.
    pub lines: Option<f64>,
    /// Of the whole project's branches.
    pub branches: Option<f64>,
    /// Of the whole project's functions.
    pub functions: Option<f64>,
    /// So many percent of all classes have at least one line that ran in tests; a file counts where the report knows no classes.
    pub classes_with_tests: Option<f64>,
    /// Of lines of every file.
    pub per_file: Option<f64>,
    /// Of the lines that the change adds.
    pub diff: Option<f64>,
    /// The project's coverage must not fall.
    #[serde(default)]
    pub ratchet: bool,
    /// Of files by pattern: `"src/core/**": { lines: 90 }`.
    #[serde(default)]
    pub paths: IndexMap<String, Shares>,
    /// Of what the tests of one layer run: `unit: { lines: 70 }`.
    #[serde(default)]
    pub layers: IndexMap<Layer, Shares>,
    /// How old the coverage of a job may be that did not run this time.
    #[serde(default = "carry_at_most")]
    pub carry_at_most: Span,
}

/// Least shares in percent.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Shares {
    /// Of lines.
    pub lines: Option<f64>,
    /// Of branches.
    pub branches: Option<f64>,
    /// Of functions.
    pub functions: Option<f64>,
}

/// What tests stand on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Layer {
    /// One piece by itself.
    Unit,
    /// Pieces together.
    Integration,
    /// The whole product, as a user has it.
    E2e,
}

/// Limits on findings.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FindingLimits {
    /// Errors that are allowed.
    pub errors: Option<u32>,
    /// Warnings that are allowed.
    pub warnings: Option<u32>,
    /// `change`: only findings on lines that the change adds count.
    #[serde(default)]
    pub on: FindingsOn,
}

/// Which findings count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FindingsOn {
    /// Those on lines that the change adds.
    #[default]
    Change,
    /// All.
    All,
}

/// A service: what is run.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Program and arguments, run in the unpacked artifact; `$PORT` stands for the port to listen on, `$HOST` for the address. No shell
    /// is involved. Left out, an artifact that is an image runs as the image says.
    #[serde(default)]
    pub command: Vec<String>,
    /// Environment variables of its own.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// A path that answers 2xx when the instance is healthy; without it an open port is enough.
    pub health: Option<String>,
    /// Instances.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 64))]
    pub replicas: u32,
    /// How long an instance may take to become healthy.
    #[serde(default = "start_within")]
    pub start_within: Span,
    /// How long an instance may take to stop, before it is killed.
    #[serde(default = "stop_within")]
    pub stop_within: Span,
    /// Names under which users of production reach it, beside `SERVICE.ENVIRONMENT.PROJECT.localhost`.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// What one instance may use.
    #[serde(default)]
    pub limits: ServiceLimits,
    /// The image that the artifact is put on, where instances are containers; without it, an empty one.
    pub image: Option<String>,
    /// Paths below its directory that it may write. Anything else that changes there is drift.
    #[serde(default)]
    pub writes: Vec<String>,
    /// The port that it listens on, on all addresses, where instances have a network of their own; services of an environment then
    /// reach each other as `SERVICE:PORT`. Where they have none, and without it, it listens on `$PORT`, which holds the right one.
    #[schemars(range(min = 1))]
    pub port: Option<u16>,
    /// Names under `databases`. Each is told as `NAME_URL`, and a single one as `DATABASE_URL` too.
    #[serde(default)]
    #[schemars(with = "Vec<DatabaseName>")]
    pub databases: Vec<Spanned<DatabaseName>>,
    /// Secrets that its instances get as variables of the same names: `andon secret set` keeps them.
    #[serde(default)]
    pub secrets: Vec<SecretName>,
    /// What its instances speak: `http1`, or `http2` in the clear as gRPC wants it. Users may speak either.
    #[serde(default)]
    pub protocol: Spoken,
}

/// A PostgreSQL database that every environment has one of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Database {
    /// A folder with `NAME.expand.sql`, run before the instances that need it, and `NAME.contract.sql`, run when the release reached
    /// everyone; in the order of their names.
    pub migrations: Option<String>,
    /// A file that says of every column what becomes of it in a copy of production.
    pub mask: Option<String>,
}

impl Database {
    /// The folder of migrations as git names it.
    pub fn folder(&self) -> Option<String> {
        self.migrations.as_deref().map(as_git)
    }
}

/// What one instance, or one job, may use. What is not said is not limited.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceLimits {
    /// Memory; what takes more is ended.
    pub memory: Option<Size>,
    /// Processors, as `0.5` or `2`.
    pub cpu: Option<f64>,
    /// Processes and threads.
    pub processes: Option<u32>,
}

impl ServiceLimits {
    /// As they are set.
    pub fn planned(&self) -> Limits {
        Limits {
            memory: self.memory.map(|size| size.0),
            cpu_millis: self.cpu.map(|cpu| (cpu * 1000.0).round() as u32),
            processes: self.processes,
        }
    }
}

/// An environment: a named place where services run.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Environment {
    /// Takes everything that is not said here from that environment.
    #[schemars(with = "Option<EnvironmentName>")]
    pub like: Option<Spanned<EnvironmentName>>,
    /// What runs the instances: `process` or `docker`.
    pub runtime: Option<RuntimeKind>,
    /// Infrastructure that is in force before anything is started here.
    pub infrastructure: Option<Infrastructure>,
    /// When an artifact is deployed here.
    pub deploy: Option<DeployWhen>,
    /// Jobs of the stage `environment` that run after each deployment here, before any user sees it.
    #[serde(default)]
    #[schemars(with = "Vec<JobName>")]
    pub tests: Vec<Spanned<JobName>>,
    /// How users are moved: a name under `releases`, or `all-at-once`.
    #[schemars(with = "Option<StrategyName>")]
    pub release: Option<Spanned<StrategyName>>,
    /// Environment variables of every service here.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Instances of every service here, instead of the service's own number.
    pub replicas: Option<u32>,
    /// Gone after this time, unless extended.
    pub ttl: Option<Span>,
    /// Stopped when nobody used it for this long; the first request starts it again. Never in `production`.
    pub sleep_after: Option<Span>,
    /// What may differ from the environment that a change comes from, with a reason and an end.
    #[serde(default)]
    pub differs: Vec<Exception>,
    /// What may differ from code without being drift, with a reason and an end.
    #[serde(default)]
    pub ignores: Vec<Exception>,
    /// Plans that delete or replace something here wait for people.
    pub protected: Option<Protection>,
    /// How much a change has to make this environment like the one that it comes from, before it comes here.
    pub parity: Option<Alike>,
}

/// Infrastructure as code, in this repository.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Infrastructure {
    /// A folder with Terraform or OpenTofu code. Its state is kept by Andon; it needs no backend of its own.
    pub terraform: Option<String>,
    /// What Ansible sets up, after Terraform.
    pub ansible: Option<Ansible>,
    /// Input variables of Terraform, each as the environment variable `TF_VAR_NAME`. No secrets: they are part of the journal.
    #[serde(default)]
    pub variables: BTreeMap<String, String>,
    /// How often reality is compared with the code.
    #[serde(default = "look_every")]
    pub look_every: Span,
    /// How long a tool that is stopped may take to save and unlock before it is ended by force.
    #[serde(default = "infra_stop_within")]
    pub stop_within: Span,
    /// A plan that nobody approved for this long expires.
    #[serde(default = "approve_within")]
    pub approve_within: Span,
}

/// When an artifact is deployed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DeployWhen {
    /// As soon as a change landed and the environments before this one passed.
    OnGreen,
    /// When a person says so.
    Manual,
}

/// When the line stops.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cord {
    /// What pulls the cord by itself; people always can.
    #[serde(default = "everything")]
    pub pull_on: Vec<PullOn>,
}

/// Who approves a change of this file before it lands. What trunk says holds, not what the change makes of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Guarded {
    /// `owner`, `releaser`, or `none`: nobody.
    #[serde(default)]
    pub approve: Approvers,
    /// Whoever pushed it does not count, where there is somebody else. Left out, what somebody pushes who may approve it is approved by that.
    #[serde(default)]
    pub not_author: bool,
}

/// Who approves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Approvers {
    /// Owners of the server.
    #[default]
    Owner,
    /// Whoever may release.
    Releaser,
    /// Nobody is asked.
    None,
}

impl Guarded {
    /// The rule as it is recorded; none: nobody is asked.
    pub fn rule(self) -> Option<DefinitionRule> {
        let role = match self.approve {
            Approvers::Owner => Role::Owner,
            Approvers::Releaser => Role::Releaser,
            Approvers::None => return None,
        };
        Some(DefinitionRule { role, not_author: self.not_author })
    }
}

/// What can pull the cord by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PullOn {
    /// Trunk is red.
    Trunk,
    /// A deployment or its tests failed in an environment.
    Environment,
    /// The immune system took a release back in production.
    Production,
}

impl Default for Cord {
    fn default() -> Cord {
        Cord { pull_on: everything() }
    }
}

fn everything() -> Vec<PullOn> {
    vec![PullOn::Trunk, PullOn::Environment, PullOn::Production]
}
pub(crate) fn commit_stage() -> StageName {
    "commit".parse().unwrap_or_else(|_| unreachable!("a constant name"))
}
const fn carry_at_most() -> Span {
    Span::secs(7 * 24 * 3600)
}
const fn look_every() -> Span {
    Span::secs(60)
}
const fn infra_stop_within() -> Span {
    Span::secs(60)
}
const fn approve_within() -> Span {
    Span::secs(24 * 3600)
}
const fn start_within() -> Span {
    Span::secs(30)
}
const fn stop_within() -> Span {
    Span::secs(10)
}
const fn yes() -> bool {
    true
}
const fn one() -> u32 {
    1
}

/// An environment with everything that `like` brings, as the line uses it.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolved {
    /// Services as they run here.
    pub services: Vec<PlannedService>,
    /// What runs their instances.
    pub runtime: RuntimeKind,
    /// Infrastructure that is in force before anything is started here.
    pub infrastructure: Option<Infrastructure>,
    /// When an artifact is deployed here.
    pub deploy: DeployWhen,
    /// Jobs that test it.
    pub tests: Vec<JobName>,
    /// How users are moved.
    pub strategy: Strategy,
    /// The strategy's name.
    pub strategy_name: String,
    /// Its life time.
    pub ttl: Option<Span>,
    /// What may differ, what is protected.
    pub rules: Rules,
}

impl Infrastructure {
    /// The folder of Terraform as git names it: `infra`, without what changes nothing.
    pub fn folder(&self) -> Option<String> {
        self.terraform.as_deref().map(as_git)
    }

    /// All its folders as git names them.
    pub fn folders(&self) -> impl Iterator<Item = String> {
        self.folder().into_iter().chain(self.ansible.as_ref().map(Ansible::folder))
    }
}

impl Definition {
    /// The jobs that gate a change, in order of stages, then as written.
    pub fn gate_jobs(&self) -> impl Iterator<Item = (&JobName, &Job)> {
        self.pipeline.jobs.iter().filter(|(_, job)| job.stage.as_str() != ENVIRONMENT_STAGE)
    }

    /// The environment `name` as declared, or another one made `like` it. None if it is not declared.
    pub fn resolve(&self, name: &EnvironmentName) -> Option<Resolved> {
        let mut chain = vec![self.environments.get(name)?];
        while let Some(like) = &chain[chain.len() - 1].like {
            let next = self.environments.get(&like.value)?;
            if chain.len() > self.environments.len() {
                return None;
            }
            chain.push(next);
        }
        let first = |pick: &dyn Fn(&Environment) -> Option<u32>| chain.iter().find_map(|e| pick(e));
        let replicas = first(&|e| e.replicas);
        let env: BTreeMap<String, String> = chain.iter().rev().flat_map(|e| e.env.clone()).collect();
        let release = chain.iter().find_map(|e| e.release.as_ref()).map(|name| &name.value);
        let own_hosts = name.as_str() == "production";
        let services = self.services.iter().map(|(name, service)| PlannedService {
            name: name.clone(),
            command: service.command.clone(),
            env: service.env.clone().into_iter().chain(env.clone()).collect(),
            health: service.health.clone(),
            start_within: service.start_within,
            stop_within: service.stop_within,
            replicas: replicas.unwrap_or(service.replicas),
            hosts: if own_hosts { service.hosts.clone() } else { Vec::new() },
            limits: service.limits.planned(),
            image: service.image.clone(),
            writes: service.writes.clone(),
            port: service.port,
            databases: service.databases.iter().map(|name| name.value.clone()).collect(),
            secrets: service.secrets.clone(),
            protocol: service.protocol,
        });
        Some(Resolved {
            services: services.collect(),
            runtime: chain.iter().find_map(|e| e.runtime).unwrap_or_default(),
            infrastructure: chain.iter().find_map(|e| e.infrastructure.as_ref()).map(|found| {
                let said = || chain.iter().filter_map(|e| e.infrastructure.as_ref());
                Infrastructure {
                    terraform: said().find_map(|i| i.terraform.clone()),
                    ansible: said().find_map(|i| i.ansible.clone()),
                    look_every: found.look_every,
                    stop_within: found.stop_within,
                    approve_within: found.approve_within,
                    variables: chain
                        .iter()
                        .rev()
                        .filter_map(|e| e.infrastructure.as_ref())
                        .flat_map(|i| i.variables.clone())
                        .collect(),
                }
            }),
            deploy: chain.iter().find_map(|e| e.deploy).unwrap_or(DeployWhen::OnGreen),
            tests: chain[0].tests.iter().map(|t| t.value.clone()).collect(),
            strategy: release
                .and_then(|name| self.releases.get(name))
                .cloned()
                .unwrap_or(Strategy::AllAtOnce),
            strategy_name: release.map_or_else(|| "all-at-once".into(), ToString::to_string),
            ttl: chain[0].ttl,
            rules: Rules {
                differs: chain[0].differs.clone(),
                ignores: chain.iter().flat_map(|e| e.ignores.clone()).collect(),
                // What is made like a protected environment is not worth its protection.
                protection: chain[0].protected.clone(),
                sleep_after: chain[0].sleep_after,
                parity: chain[0].parity.clone(),
            },
        })
    }

    /// Stages that gate a change, in order.
    pub fn stages(&self) -> Vec<&str> {
        let mut stages: Vec<&str> = Vec::new();
        for (_, job) in self.gate_jobs() {
            if !stages.contains(&job.stage.as_str()) {
                stages.push(job.stage.as_str());
            }
        }
        stages
    }
}
