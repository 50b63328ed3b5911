//! The release's controller: starts releases of what is deployed and tested, looks at the signals every second, moves users. What is done
//! next and what counts as worse is decided in andon-release.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use andon_environment::DeploymentState;
use andon_model::event::{Event, Revision, Role};
use andon_model::strategy::Strategy;
use andon_model::{Actor, EnvironmentName, ReleaseId, ServiceName, Span, Time};
use andon_release::command::{self, WayBack};
use andon_release::plan::plan;
use andon_release::state::{Fact, ROLL_BACK};
use andon_release::{ArmCounts, Decision, EpochCounts, Explanation, Observed, Release, Sample, look};
use andon_traffic::{Arm, ArmSignals};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::dark::{self, Mirrored, mirrored};
use super::{Pulse, routes};
use crate::{Caller, Line, Project, Refusal, State};

/// The station's name in the journal.
const RELEASE: &str = "release";
/// Who takes releases back.
const IMMUNE: &str = "immune system";
/// Time between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// Between two times that what mirrors found is put aside.
const ASIDE: Span = Span::secs(5);
/// Points kept of a release's curve: half an hour of looks.
const POINTS: usize = 1800;
/// Answers of the old revision below which its quantiles say nothing.
const FEW: u64 = 100;

/// One look, for the curves of the release's page.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// When.
    pub at: Time,
    /// Share of users on the new revision, in basis points.
    pub weight_bp: u16,
    /// Users with an error and users seen, old revision.
    pub stable: (u64, u64),
    /// The same of the new one.
    pub canary: (u64, u64),
    /// Evidence that it is worse, as the natural logarithm.
    pub evidence_ln: f64,
}

/// What is known of releases beside the journal: looks and curves. Lost with the process; the counts then begin anew.
#[derive(Debug, Default)]
pub struct Watched {
    /// The newest look of each.
    pub looks: BTreeMap<ReleaseId, Explanation>,
    /// The curve of each.
    pub curves: BTreeMap<ReleaseId, VecDeque<Point>>,
    /// What mirrors had found when this server started.
    pub(super) before: BTreeMap<ReleaseId, Mirrored>,
}

pub(super) async fn run(line: Arc<Line>, project: Arc<Project>, stop: CancellationToken) {
    let mut pulse = Pulse::new(&line, &project, stop, LOOK);
    if let Err(error) = dark::remember(&line, &project).await {
        tracing::warn!(%error, "dark launches are counted anew");
    }
    let mut aside = line.now();
    loop {
        let mut done = step(&line, &project).await;
        if done.is_ok() && line.now().since(aside) >= ASIDE {
            aside = line.now();
            done = dark::put_aside(&line, &project).await;
        }
        let watching = project.state().releases.under_way().next().is_some();
        pulse.every(if watching { LOOK } else { Duration::from_secs(30) });
        if !pulse.beat(done, RELEASE).await {
            return;
        }
    }
}

async fn step(line: &Line, project: &Project) -> Result<(), Refusal> {
    begin(line, project).await?;
    watch(line, project);
    let by = |decision: &Decision| match decision {
        Decision::Finish { how: andon_model::event::ReleaseEnd::TakenBack, .. } => IMMUNE,
        _ => RELEASE,
    };
    let acted = {
        let (state, now) = (project.state(), line.now());
        let decisions = plan(&state.releases, &observe_all(line, project, &state), now);
        decisions.iter().any(|decision| by(decision) == IMMUNE)
    };
    let actor = Actor::line(if acted { IMMUNE } else { RELEASE });
    line.decide(project, actor, |state, now| {
        let decisions = plan(&state.releases, &observe_all(line, project, state), now);
        Ok((events(line, project, state, decisions), ()))
    })
    .await
}

/// Deployments that are up and tested, and not on their way to users yet.
async fn begin(line: &Line, project: &Project) -> Result<(), Refusal> {
    let ready = |state: &State| {
        state.estate.deployments.values().any(|deployment| deployment.state == DeploymentState::Ready)
    };
    if !ready(&project.state()) {
        return Ok(());
    }
    let defined = project.trunk_definition().await?;
    let Some(defined) = defined else { return Ok(()) };
    line.decide(project, Actor::line(RELEASE), |state, _| {
        let mut events = Vec::new();
        let mut next = state.releases.next();
        for deployment in state.estate.deployments.values().filter(|d| d.state == DeploymentState::Ready) {
            let Some(environment) = state.estate.environments.get(&deployment.environment) else {
                continue;
            };
            let like = environment.like.as_ref().filter(|_| !environment.standing);
            let resolved =
                defined.as_ref().as_ref().ok().and_then(|d| d.resolve(like.unwrap_or(&environment.name)));
            // Nobody lives in an environment that was asked for: no ceremony there.
            let (strategy, name) = match (resolved, like) {
                (Some(resolved), None) => (resolved.strategy, resolved.strategy_name),
                _ => (Strategy::AllAtOnce, "all-at-once".to_owned()),
            };
            for service in &deployment.services {
                let tried = |r: &Release| r.deployment == deployment.id && r.service == service.name;
                let busy = state.releases.of(&environment.name, &service.name).is_some();
                if busy || deployment.released.contains(&service.name) || state.releases.iter().any(tried) {
                    continue;
                }
                let from = environment.serving.get(&service.name).and_then(|serving| serving.stable.clone());
                let key = routes::key(&project.name, &environment.name, &service.name);
                events.push(Event::ReleaseStarted {
                    release: next,
                    deployment: deployment.id,
                    environment: environment.name.clone(),
                    service: service.name.clone(),
                    limits_us: from.as_ref().map(|from| limits(line, &key, from)).unwrap_or_default(),
                    from,
                    to: deployment.revision(),
                    strategy: strategy.clone(),
                    strategy_name: name.clone(),
                });
                next = next.next();
            }
        }
        Ok((events, ()))
    })
    .await
}

/// Quantiles of what a revision answered lately, in microseconds.
fn limits(line: &Line, key: &str, revision: &Revision) -> Vec<u64> {
    let signals = line.signals();
    let newest = signals.iter().rev().filter(|s| s.service == key).find_map(|service| {
        service
            .arms
            .iter()
            .find(|arm| arm.revision == *revision && arm.latency.count >= FEW)
            .map(|arm| arm.latency)
    });
    newest.map_or_else(Vec::new, |l| vec![l.p50_us, l.p75_us, l.p90_us, l.p95_us, l.p99_us, l.p999_us])
}

/// Takes one look at every release under way.
fn watch(line: &Line, project: &Project) {
    let now = line.now();
    let releases: Vec<Release> = project.state().releases.under_way().cloned().collect();
    let signals = if releases.is_empty() { Vec::new() } else { line.signals() };
    let mut watched = project.watched.lock().unwrap_or_else(PoisonError::into_inner);
    for release in &releases {
        let Some(guard) = release.strategy.guard() else { continue };
        let key = routes::key(&project.name, &release.environment, &release.service);
        let salt = format!("{} {}", project.name, release.id);
        let mine = signals.iter().filter(|s| s.service == key && s.salt.as_deref() == Some(salt.as_str()));
        let epochs: Vec<EpochCounts> = mine
            .map(|s| EpochCounts {
                epoch: s.epoch,
                weight_bp: s.weight_bp,
                stable: counts(&s.arms, Arm::Stable),
                canary: counts(&s.arms, Arm::Candidate),
            })
            .collect();
        let sample = Sample { epochs, limits_us: release.limits_us.clone(), exits: release.exits.clone() };
        let before = watched.looks.get(&release.id).map_or(0.0, |look| look.highest);
        let seen = look(&guard.analysis, release.to.commit(), &sample, before);
        let sums = |pick: fn(&EpochCounts) -> &ArmCounts| {
            let arms = sample.epochs.iter().map(pick);
            arms.fold((0, 0), |(hit, of), arm| (hit + arm.reached[0], of + arm.subjects))
        };
        let point = Point {
            at: now,
            weight_bp: release.weight_bp,
            stable: sums(|epoch| &epoch.stable),
            canary: sums(|epoch| &epoch.canary),
            evidence_ln: seen.evidence.max(f64::MIN_POSITIVE).ln(),
        };
        let curve = watched.curves.entry(release.id).or_default();
        if curve.back().is_none_or(|last| now.since(last.at).0 >= 900) {
            if curve.len() == POINTS {
                curve.pop_front();
            }
            curve.push_back(point);
        }
        watched.looks.insert(release.id, seen);
    }
}

fn counts(arms: &[ArmSignals], which: Arm) -> ArmCounts {
    let Some(arm) = arms.iter().find(|arm| arm.arm == which) else { return ArmCounts::default() };
    ArmCounts {
        subjects: arm.subjects,
        requests: arm.requests,
        errors: arm.errors,
        reached: arm.reached_errors,
        slow: arm.slow_subjects.clone(),
        came: arm.came,
        first_slow: arm.first_slow.clone(),
        good: arm.good_subjects,
    }
}

fn observe_all(line: &Line, project: &Project, state: &State) -> BTreeMap<ReleaseId, Observed> {
    state.releases.under_way().map(|release| (release.id, observe(line, project, state, release))).collect()
}

/// What is known of a release at this moment.
pub fn observe(line: &Line, project: &Project, state: &State, release: &Release) -> Observed {
    let healthy = |revision: &Revision| {
        state.estate.healthy(&release.environment, &release.service, revision).next().is_some()
    };
    let mirror = mirrored(line, project, release).unwrap_or_default();
    let deployment = state.estate.deployments.get(&release.deployment);
    let landing = deployment.and_then(|d| state.estate.landings.iter().find(|landing| landing.run == d.run));
    let held = state.cord.hold(landing.and_then(|landing| landing.fixes)).is_some();
    let from = release.from.as_ref().and_then(|from| state.estate.of_revision(&release.environment, from));
    Observed {
        lost: from.and_then(|from| state.estate.data.no_way_back(&release.environment, from.id)),
        look: project.watched.lock().unwrap_or_else(PoisonError::into_inner).looks.get(&release.id).cloned(),
        mirror: andon_release::Mirror { compared: mirror.compared, different: mirror.different },
        candidate_healthy: healthy(&release.to),
        stable_healthy: release.from.as_ref().is_some_and(healthy),
        held,
    }
}

/// The events of these decisions. The end of a dark launch keeps its last differences: the mirror is gone with it.
fn events(line: &Line, project: &Project, state: &State, decisions: Vec<Decision>) -> Vec<Event> {
    let with_differences = |decision: Decision| match decision {
        Decision::Finish { release, how, why, explanation } => {
            let found = state.releases.get(release).and_then(|release| mirrored(line, project, release));
            let kept = found.and_then(|found| serde_json::to_value(found).ok());
            Decision::Finish { release, how, why, explanation: kept.unwrap_or(explanation) }
        }
        other => other,
    };
    decisions.into_iter().map(with_differences).map(Event::from).collect()
}

fn refused(refusal: command::Refusal) -> Refusal {
    Refusal::Conflict(refusal.to_string())
}

/// What a person can do with a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// To the next step, or the end.
    Promote,
    /// Stand still.
    Pause,
    /// Go on.
    Resume,
    /// Let a step go on that waits for a person.
    Approve,
    /// Back to the old revision.
    Abort,
}

impl Line {
    /// A person moves a release.
    pub async fn move_release(
        &self,
        project: &Project,
        caller: &Caller,
        id: ReleaseId,
        command: Command,
        why: &str,
    ) -> Result<(), Refusal> {
        caller.may(Role::Releaser)?;
        let why = crate::intake::plain(why);
        self.decide(project, caller.actor(), |state, _| {
            let release = state
                .releases
                .get(id)
                .ok_or_else(|| Refusal::Unknown(format!("there is no release {id}")))?;
            let seen = observe(self, project, state, release);
            let said = || if why.is_empty() { format!("by {}", caller.user) } else { why.clone() };
            let decisions = match command {
                Command::Promote => command::promote(release, &seen),
                Command::Pause => command::pause(release, &said()),
                Command::Resume => command::resume(release),
                Command::Approve => command::approve(release),
                Command::Abort => command::abort(release, &seen, &said()),
            };
            Ok((events(self, project, state, decisions.map_err(refused)?), ()))
        })
        .await
    }

    /// Users of a service go back to the revision before. It is a release of its own, all at once.
    pub async fn roll_back(
        &self,
        project: &Project,
        caller: &Caller,
        environment: &EnvironmentName,
        service: Option<&ServiceName>,
    ) -> Result<ReleaseId, Refusal> {
        caller.may(Role::Releaser)?;
        let way = self
            .decide(project, caller.actor(), |state, _| {
                let place = state.estate.environments.get(environment);
                let place = place
                    .ok_or_else(|| Refusal::Unknown(format!("there is no environment {environment}")))?;
                let service = match (service, place.serving.len()) {
                    (Some(service), _) => service.clone(),
                    (None, 1) => {
                        place.serving.keys().next().cloned().unwrap_or_else(|| unreachable!("there is one"))
                    }
                    (None, _) => {
                        let names: Vec<String> = place.serving.keys().map(ToString::to_string).collect();
                        return Err(Refusal::Bad(format!("which service? {}", names.join(", "))));
                    }
                };
                // A revision that was stopped meanwhile is started again from its artifact: the release waits for it.
                let known = |revision: &Revision| state.estate.of_revision(environment, revision).is_some();
                let WayBack { behind, from, to, deployment } =
                    command::roll_back(&state.releases, environment, &service, known).map_err(refused)?;
                // What took something away leaves no way back: the environment stays as it is, and only goes forward.
                let before = state.estate.of_revision(environment, &to).map(|before| before.id);
                let lost = before.and_then(|before| state.estate.data.no_way_back(environment, before));
                if let Some(why) = lost {
                    let hint = "go forward: land a change that mends it";
                    let words = format!("{behind} is frozen: {why}\nhint: {hint}");
                    let frozen = Decision::Fact(behind, Fact::Frozen { why });
                    let known = state.releases.get(behind).is_some_and(|release| release.frozen.is_some());
                    let events = if known { vec![] } else { vec![frozen.into()] };
                    return Ok((events, Err(Refusal::Conflict(words))));
                }
                let release = state.releases.next();
                let started = Event::ReleaseStarted {
                    release,
                    deployment,
                    environment: environment.clone(),
                    service,
                    from: Some(from),
                    to,
                    strategy: Strategy::AllAtOnce,
                    strategy_name: ROLL_BACK.to_owned(),
                    limits_us: Vec::new(),
                };
                Ok((vec![started], Ok(release)))
            })
            .await?;
        let id = way?;
        // A healthy old revision takes its users back at once, not at the next look.
        step(self, project).await?;
        Ok(id)
    }
}
