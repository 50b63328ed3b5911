//! Which artifact goes into which environment next. Pure: the estate and the declared order in, decisions out.
//!
//! The rules:
//! 1. Environments that `andon.yaml` declares and that do not exist are created.
//! 2. The first environment takes the newest landing; each later one takes the newest artifact that every environment before it has released.
//! 3. A landing is tried once in an environment. One whose artifact serves there already, with the same pins, is not tried at all.
//! 4. Nothing overtakes: while a deployment is under way in an environment, the next one waits.
//! 5. Nothing goes into an environment that is held or that somebody had a hand in, and nothing goes on from one of the latter.
//! 6. An environment of a change gets the newest artifact of that change, landed or not.
//! 7. While the line is stopped, only artifacts whose landing fixes the andon move on.

use andon_model::{AndonId, ChangeId, DeploymentId, Digest, EnvironmentName, Oid, Pins, RunId};

use crate::estate::{Deployment, DeploymentState, Environment, Estate, Landing};

/// An environment as declared, reduced to what promotion needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Declared {
    /// Its name.
    pub name: EnvironmentName,
    /// Whether green artifacts come by themselves.
    pub on_green: bool,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// Bring a declared environment into being.
    Create {
        /// Its name.
        environment: EnvironmentName,
    },
    /// Put an artifact beside what serves there.
    Deploy(Candidate),
}

/// An artifact on its way into an environment.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// Where.
    pub environment: EnvironmentName,
    /// What.
    pub artifact: Digest,
    /// Its commit.
    pub commit: Oid,
    /// The run that built it.
    pub run: RunId,
    /// Changes that are new with it there.
    pub changes: Vec<ChangeId>,
    /// What goes with the artifact.
    pub pins: Pins,
    /// The deployment that it repeats, when an environment is rebuilt: with the same shape, whatever trunk says now.
    pub repeats: Option<DeploymentId>,
}

/// The next decisions. `declared` is in the order in which a change passes.
pub fn plan(estate: &Estate, declared: &[Declared], hold: &[AndonId]) -> Vec<Decision> {
    let missing = declared.iter().filter(|d| !estate.environments.contains_key(&d.name));
    let mut decisions: Vec<Decision> =
        missing.map(|d| Decision::Create { environment: d.name.clone() }).collect();
    decisions.extend(rebuilds(estate).map(Decision::Deploy));
    decisions.extend(newcomers(estate).map(Decision::Deploy));
    decisions.extend(previews(estate).map(Decision::Deploy));
    for (place, environment) in declared.iter().enumerate().filter(|(_, d)| d.on_green) {
        let landing = newest_passed(estate, &declared[..place], hold);
        decisions.extend(landing.and_then(|l| candidate(estate, &environment.name, l)).map(Decision::Deploy));
    }
    decisions
}

/// What a person gets who asks for a deployment of this landing there; none when it is there already or has no artifact.
pub fn candidate(estate: &Estate, name: &EnvironmentName, landing: &Landing) -> Option<Candidate> {
    let open = |e: &&Environment| e.destroying.is_none() && e.held.is_none() && e.tainted.is_none();
    let environment = estate.environments.get(name).filter(open)?;
    let artifact = landing.artifact.clone()?;
    let here = || estate.deployments.values().filter(|d| d.environment == environment.name);
    let tried = |d: &Deployment| d.run == landing.run && d.started >= environment.created;
    let newest = here().next_back();
    // What serves already is not put beside itself. After a failure it is: that proves the environment works again.
    let serves =
        newest.is_some_and(|d| d.carries(landing) && matches!(d.state, DeploymentState::Released { .. }));
    if serves || here().any(|d| d.under_way() || tried(d)) {
        return None;
    }
    let landed_before = |d: &Deployment| estate.landings.iter().position(|l| l.run == d.run);
    let is_on = |d: &&Deployment| matches!(d.state, DeploymentState::Released { .. });
    let have = here().filter(is_on).filter_map(landed_before).max();
    let want = estate.landings.iter().position(|l| l.run == landing.run)?;
    if have.is_some_and(|have| have >= want) {
        return None;
    }
    let changes = estate.landings[have.map_or(0, |have| have + 1)..=want].iter().map(|l| l.change).collect();
    Some(Candidate {
        environment: name.clone(),
        artifact,
        commit: landing.commit.clone(),
        run: landing.run,
        pins: landing.pins.clone(),
        changes,
        repeats: None,
    })
}

/// What keeps a landing out of an environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The reason.
    pub why: String,
    /// What to do about it.
    pub hint: String,
}

/// Why this landing may not go there yet: somebody had a hand in it or in one before, it is held, or an environment before it has not
/// released the same change. None: it may.
pub fn refusal(
    estate: &Estate,
    declared: &[Declared],
    name: &EnvironmentName,
    landing: &Landing,
) -> Option<Refused> {
    // An environment that somebody asked for stands beside the order.
    let known = declared.iter().any(|d| &d.name == name);
    let before = || declared.iter().take_while(|d| known && &d.name != name).map(|d| &d.name);
    let tainted = |name: &EnvironmentName| {
        let taint = estate.environments.get(name)?.tainted.as_ref()?;
        Some(Refused {
            why: format!("{name} is {taint}"),
            hint: format!("make it clean again: andon env rebuild {name}"),
        })
    };
    let held = || {
        let (_, why) = estate.environments.get(name)?.held.as_ref()?;
        Some(Refused {
            why: format!("{name} is held: {why}"),
            hint: format!("let it go: andon env unhold {name}"),
        })
    };
    let closed = tainted(name).or_else(held).or_else(|| before().find_map(tainted));
    closed.or_else(|| {
        let lacking = before().find(|before| !released_in(estate, before, landing))?;
        let hint = "the same change goes everywhere in the order of andon.yaml: deploy it there first".into();
        Some(Refused { why: lacks(estate, lacking, landing), hint })
    })
}

fn lacks(estate: &Estate, lacking: &EnvironmentName, landing: &Landing) -> String {
    let there = estate.deployments.values().rev().filter(|d| &d.environment == lacking);
    let same_artifact =
        there.clone().find(|d| Some(&d.artifact) == landing.artifact.as_ref() && d.tested_well());
    match same_artifact {
        Some(other) if !other.carries(landing) => format!(
            "{lacking} ran this artifact with other things beside it: {} differs",
            other.pins.differences(&landing.pins).join(", ")
        ),
        _ => format!("{lacking} has not released {} yet", landing.commit.short()),
    }
}

fn newest_passed<'a>(estate: &'a Estate, before: &[Declared], hold: &[AndonId]) -> Option<&'a Landing> {
    let passed = |l: &&Landing| before.iter().all(|d| released_in(estate, &d.name, l));
    let admitted = |l: &&Landing| hold.is_empty() || l.fixes.is_some_and(|andon| hold.contains(&andon));
    let newest = estate.landings.iter().rev().filter(|l| l.artifact.is_some()).find(passed)?;
    Some(newest).filter(admitted)
}

fn released_in(estate: &Estate, name: &EnvironmentName, landing: &Landing) -> bool {
    let is_it = |d: &Deployment| &d.environment == name && d.carries(landing);
    let tainted = estate.environments.get(name).is_some_and(|e| e.tainted.is_some());
    let released = |d: &Deployment| matches!(d.state, DeploymentState::Released { .. });
    !tainted && estate.deployments.values().any(|d| is_it(d) && released(d))
}

/// Environments that were emptied to be rebuilt and are empty now: the same deployment again.
fn rebuilds(estate: &Estate) -> impl Iterator<Item = Candidate> {
    estate.environments.values().filter_map(|environment| {
        let repeat = estate.deployments.get(&environment.repeat?)?;
        let empty = estate.instances_in(&environment.name).next().is_none();
        // Rebuilt means that what the infrastructure tool made is gone as well.
        let empty = empty && !estate.infrastructure.touched.keys().any(|(name, _)| *name == environment.name);
        (environment.destroying == Some(true) && empty).then(|| again(repeat, environment.name.clone()))
    })
}

/// Environments that a person asked for get what serves in the one they are like.
fn newcomers(estate: &Estate) -> impl Iterator<Item = Candidate> {
    let asked = |e: &&Environment| !e.standing && e.change.is_none() && e.destroying.is_none();
    estate.environments.values().filter(asked).filter_map(|environment| {
        let untouched = |d: &Deployment| d.environment != environment.name || d.started < environment.created;
        if !estate.deployments.values().all(untouched) {
            return None;
        }
        let serves = |d: &&Deployment| {
            Some(&d.environment) == environment.like.as_ref()
                && matches!(d.state, DeploymentState::Released { .. })
        };
        let model = estate.deployments.values().rev().find(serves)?;
        let mut candidate = again(model, environment.name.clone());
        candidate.repeats = None;
        Some(candidate)
    })
}

/// Environments of changes get what the newest run of their change built.
fn previews(estate: &Estate) -> impl Iterator<Item = Candidate> {
    let open = |e: &&Environment| e.destroying.is_none() && e.held.is_none() && e.tainted.is_none();
    estate.environments.values().filter(open).filter_map(|environment| {
        let change = environment.change?;
        let built = estate.proposed.get(&change)?;
        let here = || estate.deployments.values().filter(|d| d.environment == environment.name);
        let tried = here().any(|d| d.run == built.run && d.started >= environment.created);
        let under_way = here().any(Deployment::under_way);
        (!tried && !under_way).then(|| Candidate {
            environment: environment.name.clone(),
            artifact: built.artifact.clone(),
            commit: built.commit.clone(),
            run: built.run,
            pins: built.pins.clone(),
            changes: Vec::new(),
            repeats: None,
        })
    })
}

fn again(deployment: &Deployment, environment: EnvironmentName) -> Candidate {
    Candidate {
        environment,
        artifact: deployment.artifact.clone(),
        commit: deployment.commit.clone(),
        run: deployment.run,
        pins: deployment.pins.clone(),
        changes: Vec::new(),
        repeats: Some(deployment.id),
    }
}
