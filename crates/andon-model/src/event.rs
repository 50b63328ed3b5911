//! The line events: everything that happens, in the words that all stations share.
//!
//! The journal is a sequence of these; every state, page, metric and notice is a fold over them. A variant says what *is so now*, in the
//! past tense, with all that a reader needs and nothing that can be computed from earlier events. Variants are only ever added; a field
//! that joins later has a serde default. Bulk (logs, reports) lies in blobs that an event names by digest.

#![allow(
    missing_docs,
    reason = "each variant says what its fields are; a sentence per field would only repeat the name"
)]

use std::collections::BTreeMap;
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use crate::data::{DataMigrated, DataWanted, MigrationRan, Phase, TemplateSealed};
pub use crate::infrastructure::{
    Connection, Hosts, InfraAction, InfraFinished, InfraPlanned, InfraQueued, InfraTool, InfraWanted,
    LockInfo, PlanCounts, Playbook, StoredState,
};
pub use crate::service::{Limits, PlannedService, RuntimeKind};
use crate::strategy::Strategy;
use crate::{
    AndonId, ChangeId, DatabaseName, DeploymentId, Digest, EnvironmentName, GroupName, HostName, InstanceId,
    JobName, LabelName, Oid, Pins, ProjectName, ReleaseId, RunId, RunnerName, ServiceName, Span, Time,
    UserName,
};
use crate::{InfraRunId, SecretName, ShellId, StateName};

/// Who did it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Actor {
    /// A person or program that logged in.
    User(UserName),
    /// The line itself; the text names the station: `gate`, `immune system`, `drift`.
    Line(String),
}

impl Actor {
    /// The line's own doing, by one of its stations.
    pub fn line(station: &str) -> Actor {
        Actor::Line(station.to_owned())
    }
}

impl std::fmt::Display for Actor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Actor::User(name) => write!(f, "{name}"),
            Actor::Line(station) => write!(f, "the line ({station})"),
        }
    }
}

/// An event as the journal keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recorded {
    /// Place in the whole journal, from 1, without gaps.
    pub seq: u64,
    /// When it was accepted, by the server's clock.
    pub at: Time,
    /// Who did it.
    pub by: Actor,
    /// The project it belongs to; none for the server's own (accounts).
    pub project: Option<ProjectName>,
    /// What happened.
    pub event: Event,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    // ── accounts (the server's own stream) ─────────────────────────────
    /// An account came to be, or its roles or password changed.
    UserSet { user: UserName, roles: Vec<Role>, password_hash: Option<String> },
    /// A token that acts for a user: only its hash is kept.
    TokenIssued {
        user: UserName,
        name: String,
        hash: Digest,
        roles: Vec<Role>,
        expires: Option<Time>,
        kind: TokenKind,
    },
    /// The token is worth nothing from now on.
    TokenRevoked { hash: Digest },

    // ── keys (the server's own stream) ─────────────────────────────────
    /// A key to sign with was made; `public` in PEM, the other half sealed in a blob. One that it replaces signs nothing any more.
    SigningKeyMade { purpose: KeyPurpose, key: String, public: String, sealed: Digest, builder: String },

    // ── recovery ───────────────────────────────────────────────────────
    /// Everything that was recorded up to `seq` lies in a file of this name below the data directory.
    BackupMade { name: String, seq: u64, bytes: u64 },
    /// The project comes from a backup made at `seq`: nothing of what ran then runs any more.
    Restored { seq: u64 },
    /// Everything was made again from a backup and code, beside what runs. `opened`: until the server was back; `served`: until every
    /// environment was as before.
    DrillFinished {
        backup: String,
        opened: Span,
        served: Option<Span>,
        environments: u32,
        instances: u32,
        why: Option<String>,
    },

    // ── hosts (the server's own stream) ────────────────────────────────
    /// A machine may join, once, with the secret that has this digest.
    HostInvited { token: Digest, expires: Time },
    /// A machine runs instances from now on, which listen on this address. `token`: what it came with, used up by this; `credential`:
    /// the digest of the secret that it comes back with.
    HostJoined {
        host: HostName,
        address: IpAddr,
        labels: BTreeMap<String, String>,
        token: Digest,
        credential: Digest,
    },
    /// It takes nothing more, and what runs there moves; `forget`: it leaves for good when it is empty. The server's own is called `here`.
    HostLeaving { host: HostName, forget: bool, why: String },
    /// It takes instances again.
    HostStays { host: HostName },
    /// Nobody reaches it: what ran there is made anew elsewhere.
    HostLost { host: HostName, why: String },
    /// It is reached again.
    HostBack { host: HostName },
    /// It is no host any more.
    HostLeft { host: HostName, why: String },

    // ── runners (the server's own stream) ──────────────────────────────
    /// A machine may join as a runner, once, with the secret that has this digest; it gets these labels beside its own.
    RunnerInvited { token: Digest, expires: Time, labels: Vec<LabelName> },
    /// A machine runs jobs from now on, so many at once. `token`: what it came with, used up by this; `credential`: the digest of the
    /// secret that it comes back with.
    RunnerJoined { runner: RunnerName, labels: Vec<LabelName>, slots: u32, token: Digest, credential: Digest },
    /// It gets no job any more; `forget`: it leaves for good when the last one is over.
    RunnerLeaving { runner: RunnerName, forget: bool, why: String },
    /// It gets jobs again.
    RunnerStays { runner: RunnerName },
    /// It is no runner any more.
    RunnerLeft { runner: RunnerName, why: String },

    // ── intake ─────────────────────────────────────────────────────────
    /// A repository with a line of its own.
    ProjectCreated { trunk: String },
    /// Commits arrived for trunk: a new change, or a new patch set of one.
    ChangePushed(Push),
    /// Its author or a maintainer took the change back.
    ChangeAbandoned { change: ChangeId, why: String },
    /// What this patch set makes of `andon.yaml` was approved. `by_push`: by whoever pushed it, who may approve it.
    DefinitionApproved { change: ChangeId, patch_set: u32, why: String, by_push: bool },

    // ── gate ───────────────────────────────────────────────────────────
    /// The gate will not land this patch set. `run` is the run that says so, if one was made.
    ChangeRefused { change: ChangeId, patch_set: u32, run: Option<RunId>, why: String },
    /// A run was asked for on one exact tree. `plan` names the expanded definition (a blob); `again`: the run whose change it tests once more.
    RunQueued {
        run: RunId,
        purpose: Purpose,
        commit: Oid,
        tree: Oid,
        parent: Option<Oid>,
        jobs: Vec<PlannedJob>,
        #[serde(default)]
        plan: Option<Digest>,
        #[serde(default)]
        again: Option<RunId>,
    },
    /// The tree of this run has another `andon.yaml` than the trunk that it was made on. `asks`: who has to approve that before it lands, as
    /// trunk says; none: nobody.
    DefinitionEdited {
        run: RunId,
        change: ChangeId,
        patch_set: u32,
        edits: Vec<DefinitionEdit>,
        asks: Option<DefinitionRule>,
    },
    /// Trunk moved. `tested_tree` and `landed_tree` are the proof: they were read from git separately and are equal.
    Landed {
        change: ChangeId,
        patch_set: u32,
        run: RunId,
        commit: Oid,
        parent: Option<Oid>,
        tested_tree: Oid,
        landed_tree: Oid,
    },

    // ── pipeline ───────────────────────────────────────────────────────
    /// A runner began the job. The attempt counts from 1. `report` of its end is a blob with what its report files say.
    /// `isolation` is what separates this attempt from its neighbours and from the host.
    JobStarted {
        run: RunId,
        job: JobName,
        attempt: u32,
        #[serde(default)]
        isolation: JobIsolation,
    },
    /// The attempt that was just begun is this runner's. Numbers of a project's assignments only grow: what comes of an older one is refused.
    JobAssigned { run: RunId, job: JobName, attempt: u32, runner: RunnerName, number: u64 },
    /// A step of an attempt ended; steps count from 1. `log_at` is where its output begins in the attempt's, in bytes.
    StepFinished {
        run: RunId,
        job: JobName,
        attempt: u32,
        step: u32,
        name: String,
        ended: JobEnd,
        took: Span,
        log_at: u64,
    },
    /// The job ended. `log` names its whole output.
    JobFinished {
        run: RunId,
        job: JobName,
        attempt: u32,
        ended: JobEnd,
        took: Span,
        log: Option<Digest>,
        tests: TestCounts,
        #[serde(default)]
        report: Option<Digest>,
    },
    /// The first red test of an attempt, told as soon as a report shows it, which may be long before the attempt ends. It judges nothing.
    TestRed { run: RunId, job: JobName, attempt: u32, test: String, message: String },
    /// The attempt is gone and nobody knows how it would have ended: it counts for nothing, another follows.
    JobLost { run: RunId, job: JobName, attempt: u32, why: String },
    /// The job will not be run, for the reason given.
    JobSkipped { run: RunId, job: JobName, why: String },
    /// An attempt that was begun, and this names all that it depends on: green before with the same key is green again.
    JobKeyed { run: RunId, job: JobName, key: Digest },
    /// The job is what it was in an earlier run: its end, log, report and outputs are those.
    JobReplayed { run: RunId, job: JobName, from: RunId, key: Option<Digest> },
    /// What a green attempt hands on to the jobs that take it: a tar of paths in the working copy.
    JobOutputs { run: RunId, job: JobName, attempt: u32, outputs: Digest, bytes: u64 },
    /// The job waits for a person from now on, until then.
    ApprovalAsked { run: RunId, job: JobName, until: Time },
    /// A person said yes.
    ApprovalGiven { run: RunId, job: JobName, why: String },
    /// A person said no, or nobody said yes in time.
    ApprovalRefused { run: RunId, job: JobName, why: String },
    /// What a run produced, packed once. Everything deployed later names this digest.
    /// `pins` go with it into every environment.
    ArtifactBuilt {
        run: RunId,
        artifact: Digest,
        bytes: u64,
        commit: Oid,
        #[serde(default)]
        pins: Pins,
    },
    /// The server vouches for what a run built; the envelope (DSSE) is a blob, `key` the name of the key that signed it.
    Attested { run: RunId, artifact: Digest, what: Attestation, envelope: Digest, key: String },
    /// The validation suite has spoken. `report` is a blob with every test and the coverage of every file.
    RunFinished {
        run: RunId,
        verdict: Verdict,
        tests: TestCounts,
        coverage: Option<CoverageFigures>,
        report: Option<Digest>,
    },
    /// A secret has this value now, sealed in a blob; whom it is given to.
    SecretSet { secret: SecretName, sealed: Digest, environments: Vec<EnvironmentName>, unlanded: bool },
    /// It is forgotten.
    SecretRemoved { secret: SecretName },
    /// The test runs and reports, and its failures stop nothing until then.
    TestQuarantined { test: String, owner: UserName, why: String, until: Time },
    /// The test counts again.
    QuarantineEnded { test: String, why: String },
    /// What a smaller selection of the run's tests would have been, by what the change can touch, and which red ones it would have missed: `missed` names some.
    ImpactSeen {
        run: RunId,
        tests: u32,
        selected: u32,
        ms: u64,
        selected_ms: u64,
        failed: u32,
        missed: Vec<String>,
        misses: u32,
    },
    /// Jobs of a run share these tests among them while they run. `names` is the SHA-256 of all names, sorted, one a line; `list` names them with their
    /// expected times, longest first.
    HandoutOpened { run: RunId, name: String, names: Digest, list: Digest, tests: u32 },
    /// An attempt has these of the list, from a place to before another; `ask` is what it asked by: who asks so again gets the same.
    TestsHanded { run: RunId, name: String, job: JobName, attempt: u32, ask: String, from: u32, to: u32 },

    // ── environments ───────────────────────────────────────────────────
    /// An environment exists. `standing` ones are declared in `andon.yaml`; others were asked for and expire.
    EnvironmentCreated {
        environment: EnvironmentName,
        like: Option<EnvironmentName>,
        standing: bool,
        expires: Option<Time>,
        /// The change that it shows, before it landed too.
        #[serde(default)]
        change: Option<ChangeId>,
    },
    /// Everything in it is being stopped and removed; `rebuild` says that it comes back from code at once.
    EnvironmentDestroyed { environment: EnvironmentName, rebuild: bool, why: String },
    /// Its end was moved.
    EnvironmentExtended { environment: EnvironmentName, expires: Option<Time> },
    /// It ends by itself in no more than this.
    ExpiryNear { environment: EnvironmentName, left: Span },
    /// So many instances instead of what code says; none: as code says.
    ServiceScaled { environment: EnvironmentName, service: ServiceName, replicas: Option<u32> },
    /// Nothing is deployed into it any more, for this reason; none: deployments go on. It is looked after all the same.
    EnvironmentHeld { environment: EnvironmentName, why: Option<String> },
    /// Stopped because nobody used it, or started again.
    EnvironmentAsleep { environment: EnvironmentName, asleep: bool, why: String },
    /// Somebody had a hand in it: nothing is promoted into it or out of it until it is rebuilt.
    EnvironmentTainted { environment: EnvironmentName, why: String },
    /// Somebody opens a shell inside an instance; an empty command is one to type in. Recorded before anything is sent.
    ShellOpened {
        shell: ShellId,
        environment: EnvironmentName,
        instance: InstanceId,
        command: Vec<String>,
        why: String,
    },
    /// Nothing of it runs any more. `recording` names what was typed and shown (asciicast); `cut`: not all that was shown is in it.
    ShellEnded { shell: ShellId, code: Option<i32>, how: String, recording: Option<Digest>, cut: bool },
    /// Other packages than before are seen by instances of a service; the blob names them.
    PackagesSeen {
        environment: EnvironmentName,
        service: ServiceName,
        packages: Digest,
        kind: String,
        count: u32,
    },
    /// Reality differs from code.
    DriftSeen { environment: EnvironmentName, drift: Drift },
    /// Reality equals code again.
    DriftHealed { environment: EnvironmentName, what: String, how: String },

    // ── deployment ─────────────────────────────────────────────────────
    /// An artifact is being put beside what serves. It moves no user.
    DeploymentStarted {
        deployment: DeploymentId,
        environment: EnvironmentName,
        artifact: Digest,
        commit: Oid,
        run: RunId,
        services: Vec<PlannedService>,
        changes: Vec<ChangeId>,
        /// What runs its instances.
        #[serde(default)]
        runtime: RuntimeKind,
        /// What goes with the artifact.
        #[serde(default)]
        pins: Pins,
    },
    /// An instance has a place and a port, and may be started from now on.
    InstancePlanned {
        instance: InstanceId,
        environment: EnvironmentName,
        service: ServiceName,
        revision: Revision,
        port: u16,
        /// Where it listens; none: on the loopback address.
        #[serde(default)]
        address: Option<IpAddr>,
        /// The host that runs it; none: the server's own.
        #[serde(default)]
        host: Option<HostName>,
    },
    /// It answered its health check.
    InstanceHealthy { instance: InstanceId },
    /// It is to be stopped and removed.
    InstanceRetired { instance: InstanceId, why: String },
    /// All instances are healthy, or it was given up.
    DeploymentFinished { deployment: DeploymentId, ok: bool, why: String },
    /// The environment's own tests ran against what was deployed.
    EnvironmentTested {
        deployment: DeploymentId,
        environment: EnvironmentName,
        ok: bool,
        why: String,
        log: Option<Digest>,
    },

    // ── infrastructure ─────────────────────────────────────────────────
    /// Somebody alone may write this state from now on.
    StateLocked { state: StateName, holder: LockInfo },
    /// The lock is gone. `forced`: not by whoever held it.
    StateUnlocked { state: StateName, lock: String, forced: bool, why: String },
    /// A new version of a state.
    StateStored { state: StateName, version: StoredState },
    /// The state is empty again; its versions are kept.
    StateDeleted { state: StateName },
    /// A deployment that follows needs these databases.
    DataWanted(DataWanted),
    /// A database of an environment exists; `template`: cloned from that one.
    DatabaseMade {
        environment: EnvironmentName,
        database: DatabaseName,
        name: String,
        template: Option<String>,
    },
    /// It is gone with everything in it.
    DatabaseDropped { environment: EnvironmentName, database: DatabaseName },
    /// A migration ran.
    MigrationRan(MigrationRan),
    /// A deployment's migrations of one phase are through, or failed.
    DataMigrated(DataMigrated),
    /// A masked copy of an environment's database is to become the template.
    RefreshAsked { database: DatabaseName, from: EnvironmentName },
    /// It did not; the template is what it was.
    RefreshFailed { database: DatabaseName, why: String },
    /// It did.
    TemplateSealed(TemplateSealed),
    /// A deployment that follows needs this infrastructure.
    InfraWanted(InfraWanted),
    /// A run of the infrastructure tool was asked for; again: it plans anew.
    InfraQueued(InfraQueued),
    /// Its process exists: pid and start time in clock ticks tell it from any other.
    InfraStarted { run: InfraRunId, pid: u32, started: u64, tool: String },
    /// Its plan was made and read.
    InfraPlanned(InfraPlanned),
    /// A person approved a guarded plan.
    InfraApproved { run: InfraRunId, why: String },
    /// The reviewed plan is being applied.
    InfraApplying { run: InfraRunId },
    /// It ended.
    InfraFinished(InfraFinished),
    /// A look could not tell of these whether they are as the code says; an empty list: now it can.
    InfraUnknown { environment: EnvironmentName, tool: InfraTool, what: Vec<String> },
    /// It is asked to save and end; `force`: it did not in time, and is ended with everything it started.
    InfraStopping { run: InfraRunId, force: bool },
    /// A resource that the tool had made and not saved was taken into the state.
    InfraAdopted { run: InfraRunId, environment: EnvironmentName, address: String, id: String },
    /// A resource that the tool made, or was making, when it was ended, and that no state knows.
    InfraLost {
        run: InfraRunId,
        environment: EnvironmentName,
        address: String,
        id: Option<String>,
        why: String,
    },
    /// A person looked after what was lost.
    InfraForgotten { environment: EnvironmentName, address: String, why: String },

    // ── release ────────────────────────────────────────────────────────
    /// Users begin to move from one revision to another.
    ReleaseStarted {
        release: ReleaseId,
        deployment: DeploymentId,
        environment: EnvironmentName,
        service: ServiceName,
        from: Option<Revision>,
        to: Revision,
        strategy: Strategy,
        strategy_name: String,
        /// Quantiles of the old revision's answer times in microseconds, frozen here; empty when too few are known.
        #[serde(default)]
        limits_us: Vec<u64>,
    },
    /// One fact of the release's own state machine (its JSON is defined in andon-release).
    ReleaseMoved { release: ReleaseId, fact: serde_json::Value },
    /// The share of users on the new revision is now this many basis points.
    WeightChanged { release: ReleaseId, basis_points: u16, why: String },
    /// Over. `explanation` holds the counts and the evidence.
    ReleaseFinished { release: ReleaseId, how: ReleaseEnd, why: String, explanation: serde_json::Value },

    // ── flags ──────────────────────────────────────────────────────────
    /// The flag's definition is now this; none: it was removed. `what` says it in a sentence.
    FlagChanged { flag: String, definition: Option<serde_json::Value>, what: String },

    // ── cord ───────────────────────────────────────────────────────────
    /// The line stopped.
    CordPulled { andon: AndonId, cause: Cause, why: String, tag: String, suspects: Vec<ChangeId> },
    /// Someone has it.
    CordAcknowledged { andon: AndonId, owner: UserName },
    /// A word for the timeline.
    CordNoted { andon: AndonId, note: String },
    /// A change that names the andon landed: believed fixed, to be proven.
    CordFixLanded { andon: AndonId, change: ChangeId },
    /// The line runs again.
    CordReleased { andon: AndonId, why: String },
}

/// What a push brought.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Push {
    /// The change.
    pub change: ChangeId,
    /// Counts from 1.
    pub patch_set: u32,
    /// The commit that was pushed.
    pub head: Oid,
    /// First line of its message.
    pub title: String,
    /// Author as git has it, for display only.
    pub author: String,
    /// Author date of the change's first commit, by the author's clock.
    pub authored: Time,
    /// What tells one change from another over its patch sets: topic, trailer, or author and author date.
    pub identity: String,
    /// The andon that it says it fixes.
    pub fixes: Option<AndonId>,
    /// Whether it changes `andon.yaml`.
    pub edits_pipeline: bool,
    /// How many commits it has beyond trunk.
    pub commits: u32,
}

/// One difference between two `andon.yaml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DefinitionEdit {
    /// In a sentence.
    pub says: String,
    /// It takes away or weakens what guards trunk and users: a limit, a job, a question to people.
    pub loosens: bool,
}

/// Who approves another `andon.yaml` before it lands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DefinitionRule {
    /// Whoever holds this role.
    pub role: Role,
    /// Whoever pushed it does not count where somebody else holds the role.
    pub not_author: bool,
}

/// What a person may do; default is nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Reads everything.
    Viewer,
    /// Pushes changes, pulls and acknowledges the cord, creates and destroys environments.
    Developer,
    /// Deploys, rebuilds.
    Deployer,
    /// Moves users: promotes, pauses, aborts, rolls back, switches flags.
    Releaser,
    /// Everything, and accounts.
    Owner,
}

/// What a key of the server signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyPurpose {
    /// Statements about artifacts.
    Provenance,
    /// Tokens that say who a job is.
    Identity,
}

/// What is said about an artifact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Attestation {
    /// Where it comes from.
    Provenance,
    /// What its tests said.
    TestResult,
}

/// What a token is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenKind {
    /// Opens the door once, then is revoked: the owner link.
    OneTime,
    /// A browser's session.
    Session,
    /// For git, the CLI and programs.
    Api,
}

/// Why a run exists.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// May this patch set land?
    Gate { change: ChangeId, patch_set: u32 },
    /// Is trunk still green?
    Trunk,
}

/// A job as planned for one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedJob {
    /// Its name in `andon.yaml`.
    pub name: JobName,
    /// Its stage.
    pub stage: String,
    /// Jobs that must be green before it.
    pub needs: Vec<JobName>,
    /// How often a red attempt is run again.
    pub retries: u32,
    /// How often an attempt whose infrastructure broke is run again.
    #[serde(default = "twice")]
    pub broken: u32,
    /// Stopped after this; none: after a time that follows from how long it usually takes.
    #[serde(default)]
    pub timeout: Option<Span>,
    /// Jobs of one group run one at a time, in whatever run they are.
    #[serde(default)]
    pub group: Option<GroupName>,
    /// It runs nothing: a person has to say yes.
    #[serde(default)]
    pub approve: Option<PlannedApproval>,
    /// Why this change does not need it; none: it is needed.
    #[serde(default)]
    pub not_needed: Option<String>,
    /// It says what it reads: green before with the same inputs is green again.
    #[serde(default)]
    pub keyed: bool,
    /// It is run even if it was green before with the same inputs.
    #[serde(default)]
    pub fresh: bool,
    /// Labels that a runner has to have; none: it runs anywhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runs_on: Vec<LabelName>,
}

impl PlannedJob {
    /// A job of which nothing else is said.
    pub fn new(name: JobName, stage: impl Into<String>) -> PlannedJob {
        PlannedJob {
            name,
            stage: stage.into(),
            needs: Vec::new(),
            retries: 0,
            broken: twice(),
            timeout: None,
            group: None,
            approve: None,
            not_needed: None,
            keyed: false,
            fresh: false,
            runs_on: Vec::new(),
        }
    }
}

const fn twice() -> u32 {
    2
}

/// Who may let a run go on, and until when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedApproval {
    /// Whoever holds one of these roles.
    pub roles: Vec<Role>,
    /// And these people.
    pub people: Vec<UserName>,
    /// How long it waits for them.
    pub within: Span,
    /// What they are asked.
    pub why: String,
    /// Whoever pushed the change does not count.
    pub not_author: bool,
}

/// How a job's attempt ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobEnd {
    /// Exit status 0 and its reports could be read.
    Passed,
    /// A command said no.
    Failed { code: i32 },
    /// Stopped after its time.
    TimedOut { after: Span },
    /// Stopped because it printed nothing for this long.
    Quiet { after: Span },
    /// Killed by the kernel, because it used more memory than its limit; in bytes, if it had one.
    OutOfMemory { limit: Option<u64> },
    /// Stopped because it printed more than this, in bytes.
    TooMuchOutput { most: u64 },
    /// Not the change's fault.
    Broken { why: String },
    /// A person said no, or nobody said yes in time.
    Refused { why: String },
}

/// What separates an attempt of a job from its neighbours and from the host. Both lists are in the words of people.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobIsolation {
    /// In force.
    pub has: Vec<String>,
    /// Not in force, each with the reason.
    pub lacks: Vec<(String, String)>,
}

/// Sums over tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TestCounts {
    /// Green ones.
    pub passed: u32,
    /// Red ones, errors included.
    pub failed: u32,
    /// Not run.
    pub skipped: u32,
}

impl TestCounts {
    /// All tests that were reported.
    pub fn total(self) -> u32 {
        self.passed + self.failed + self.skipped
    }
}

impl std::ops::AddAssign for TestCounts {
    fn add_assign(&mut self, other: TestCounts) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// Covered lines of a project.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CoverageFigures {
    /// Lines that ran.
    pub covered: u64,
    /// Lines that could run.
    pub lines: u64,
    /// Lines that ran, of those the change added; none where it added none.
    pub diff: Option<(u64, u64)>,
}

impl CoverageFigures {
    /// Percent of lines; 100 where there are none.
    pub fn percent(self) -> f64 {
        if self.lines == 0 { 100.0 } else { self.covered as f64 * 100.0 / self.lines as f64 }
    }
}

/// What the validation suite says about a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// May land.
    Green,
    /// May not; the headline names the first reason, the rest follow.
    Red { headline: String, reasons: Vec<String> },
    /// Says nothing about the change: the infrastructure broke.
    Broken { why: String },
}

/// One deployed version of a service: the short commit and the deployment that brought it, as `9c41d7e-D7`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(pub String);

impl Revision {
    /// The revision that a deployment of this commit makes.
    pub fn of(commit: &Oid, deployment: DeploymentId) -> Revision {
        Revision(format!("{}-{deployment}", commit.short()))
    }

    /// The commit part, as people say it.
    pub fn commit(&self) -> &str {
        self.0.split('-').next().unwrap_or(&self.0)
    }
}

impl std::fmt::Display for Revision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A difference between an environment and its code.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Drift {
    /// The service concerned, if one is.
    pub service: Option<ServiceName>,
    /// The instance concerned, if one is.
    pub instance: Option<InstanceId>,
    /// What differs: a file, a process.
    pub what: String,
    /// As code says.
    pub before: String,
    /// As found.
    pub after: String,
}

/// How a release ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReleaseEnd {
    /// Everyone is on the new revision.
    Released,
    /// The immune system took it back.
    TakenBack,
    /// A person took it back.
    Aborted,
    /// Production traffic was mirrored; nobody was ever moved.
    DarkEnded,
}

/// Who or what stopped the line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// A person.
    Person,
    /// Trunk itself is red.
    Trunk { run: RunId },
    /// The tests of an environment failed.
    Environment { environment: EnvironmentName, deployment: DeploymentId },
    /// A deployment did not come up.
    Deployment { environment: EnvironmentName, deployment: DeploymentId },
    /// The immune system took a release back.
    Release { release: ReleaseId },
    /// An environment drifts again and again.
    Drift { environment: EnvironmentName },
}
