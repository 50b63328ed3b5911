//! Runs of the infrastructure tool as the journal tells them, and which run is due. No processes, no plans' contents.
//!
//! One run per environment at a time; the others wait in order. What is due is a pure function: the folder that a deployment pins has to be
//! applied before its instances start; an environment that goes is emptied by the tool as well; reality is looked at again and again.

use std::collections::BTreeMap;

use andon_model::event::{
    Actor, Event, InfraAction, InfraFinished, InfraPlanned, InfraQueued, InfraTool, InfraWanted, Playbook,
    Recorded,
};
use andon_model::{ChangeId, DeploymentId, EnvironmentName, InfraRunId, Oid, Time, UserName};
use serde::Serialize;

use crate::healing::Healings;
use crate::lost::Losses;

/// What an output value of Terraform is called where it may be used: `${infrastructure.NAME}`.
pub const OUTPUT: &str = "${infrastructure.";

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Waits for its turn.
    Queued,
    /// The plan is being made.
    Planning,
    /// The plan is there; people have to approve it.
    Waiting,
    /// The plan may be applied.
    Ready,
    /// The plan is being applied.
    Applying,
    /// Over.
    Ended,
}

/// One run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Run {
    /// What was asked for.
    pub asked: InfraQueued,
    /// By whom.
    pub by: Actor,
    /// When.
    pub at: Time,
    /// How far it is.
    pub stage: Stage,
    /// Since when it is in that stage.
    pub since: Time,
    /// The process of this stage: pid and start time.
    pub process: Option<(u32, u64)>,
    /// The tool and its version.
    pub tool: Option<String>,
    /// Its plan.
    pub planned: Option<InfraPlanned>,
    /// How often it was planned: again when what was planned fits no more.
    pub attempt: u32,
    /// Who wants it ended.
    pub stopping: Option<Stopping>,
    /// Who approved it, when, and why.
    pub approvals: Vec<(UserName, Time, String)>,
    /// People who wrote what it applies.
    pub authors: Vec<UserName>,
    /// How it ended.
    pub finished: Option<InfraFinished>,
}

impl Run {
    /// Its number.
    pub fn id(&self) -> InfraRunId {
        self.asked.run
    }

    /// Approvals that are still missing.
    pub fn missing(&self) -> u32 {
        let needed = self.planned.as_ref().map_or(0, |planned| planned.approvals);
        needed.saturating_sub(u32::try_from(self.approvals.len()).unwrap_or(u32::MAX))
    }
}

/// A run that is to end before its time.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Stopping {
    /// Who said so.
    pub by: Actor,
    /// When.
    pub at: Time,
    /// It did not save and end in time, and is ended with everything it started.
    pub force: bool,
}

impl Stopping {
    /// How the run ended, in words.
    pub fn sentence(&self) -> String {
        let by = &self.by;
        if self.force {
            return format!(
                "stopped by {by}; the tool did not end in time and was ended by force: what it was doing may be half done"
            );
        }
        format!("stopped by {by}; the tool saved what it had done and ended")
    }
}

/// What is in force in an environment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Applied {
    /// The run that made it so.
    pub run: InfraRunId,
    /// The folder's tree.
    pub tree: Oid,
    /// The folder.
    pub folder: String,
    /// The commit it was taken from.
    pub commit: Oid,
    /// Its input.
    pub variables: BTreeMap<String, String>,
    /// For Ansible; none: Terraform.
    pub playbook: Option<Playbook>,
    /// Of what the last look could not tell whether it is as the code says.
    pub unknown: Vec<String>,
    /// Its output.
    pub outputs: BTreeMap<String, serde_json::Value>,
    /// Since when.
    pub at: Time,
    /// When reality was last looked at.
    pub looked: Time,
}

/// Everything that the infrastructure tool did in a project.
#[derive(Debug, Clone, Default)]
pub struct Infrastructure {
    /// All runs.
    pub runs: BTreeMap<InfraRunId, Run>,
    /// What is in force, of each tool.
    pub applied: BTreeMap<(EnvironmentName, InfraTool), Applied>,
    /// The last run that began to apply something here, and when: what it made has to be removed one day.
    pub touched: BTreeMap<(EnvironmentName, InfraTool), (InfraQueued, Time)>,
    /// What each deployment needs of each tool.
    pub wanted: BTreeMap<(DeploymentId, InfraTool), InfraWanted>,
    /// What runs made and no state knows.
    pub lost: Losses,
    /// What was healed, and how often.
    pub healings: Healings,
    pushed: BTreeMap<ChangeId, UserName>,
    changes: BTreeMap<DeploymentId, Vec<ChangeId>>,
}

impl Infrastructure {
    /// The number that the next run gets.
    pub fn next_run(&self) -> InfraRunId {
        self.runs.keys().next_back().map_or(InfraRunId(1), |id| id.next())
    }

    /// Runs of an environment that are not over, oldest first.
    pub fn open<'a>(&'a self, environment: &'a EnvironmentName) -> impl Iterator<Item = &'a Run> {
        self.runs
            .values()
            .filter(move |run| run.stage != Stage::Ended && &run.asked.environment == environment)
    }

    /// Whether this run may still do something.
    pub fn is_open(&self, run: InfraRunId) -> bool {
        self.runs.get(&run).is_some_and(|run| run.stage != Stage::Ended)
    }

    /// Runs whose turn it is: the first of each environment.
    pub fn turns(&self) -> Vec<&Run> {
        let mut first: BTreeMap<&EnvironmentName, &Run> = BTreeMap::new();
        for run in self.runs.values().filter(|run| run.stage != Stage::Ended) {
            first.entry(&run.asked.environment).or_insert(run);
        }
        first.into_values().collect()
    }

    /// What a tool has in force here.
    pub fn in_force(&self, environment: &EnvironmentName, tool: InfraTool) -> Option<&Applied> {
        self.applied.get(&(environment.clone(), tool))
    }

    /// Everything that this deployment needs.
    pub fn needs(&self, deployment: DeploymentId) -> impl Iterator<Item = &InfraWanted> {
        self.wanted
            .range((deployment, InfraTool::Terraform)..=(deployment, InfraTool::Ansible))
            .map(|(_, wanted)| wanted)
    }

    /// What this deployment needs next, of what is not in force yet.
    pub fn lacks(&self, deployment: DeploymentId) -> Option<&InfraWanted> {
        self.needs(deployment).find(|wanted| !self.has(wanted))
    }

    fn has(&self, wanted: &InfraWanted) -> bool {
        let Some(applied) = self.in_force(&wanted.environment, wanted.tool()) else { return false };
        // Hosts that are said by output are other hosts when that was made anew.
        let made = self.in_force(&wanted.environment, InfraTool::Terraform);
        let hosts_moved = wanted.playbook.as_ref().is_some_and(|playbook| playbook.uses(OUTPUT))
            && made.is_some_and(|made| made.run > applied.run);
        Some(&applied.tree) == wanted.tree.as_ref()
            && applied.variables == wanted.variables
            && applied.playbook == wanted.playbook
            && !hosts_moved
    }

    /// Why this deployment will never have what it needs.
    pub fn hopeless(&self, deployment: DeploymentId) -> Option<String> {
        let wanted = self.lacks(deployment)?;
        if wanted.tree.is_none() {
            return Some(format!("its commit has no folder {}", wanted.folder));
        }
        let end = self.for_deployment(deployment, wanted.tool())?.finished.as_ref().filter(|end| !end.ok)?;
        Some(format!("its infrastructure could not be applied: {}", end.why))
    }

    /// The last run of this tool for this deployment.
    pub fn for_deployment(&self, deployment: DeploymentId, tool: InfraTool) -> Option<&Run> {
        let of_it = |run: &&Run| run.asked.deployment == Some(deployment) && run.asked.tool() == tool;
        self.runs.values().rev().find(of_it)
    }

    /// Takes in what happened.
    pub fn evolve(&mut self, recorded: &Recorded) {
        let at = recorded.at;
        self.lost.evolve(recorded);
        self.healings.evolve(recorded);
        match &recorded.event {
            Event::ChangePushed(push) => {
                if let Actor::User(user) = &recorded.by {
                    self.pushed.insert(push.change, user.clone());
                }
            }
            Event::DeploymentStarted { deployment, changes, .. } => {
                self.changes.insert(*deployment, changes.clone());
            }
            Event::InfraWanted(wanted) => {
                self.wanted.insert((wanted.deployment, wanted.tool()), wanted.clone());
            }
            Event::InfraQueued(asked) => {
                let changes = asked.deployment.and_then(|id| self.changes.get(&id));
                let mut authors: Vec<UserName> = changes
                    .into_iter()
                    .flatten()
                    .filter_map(|change| self.pushed.get(change).cloned())
                    .collect();
                if let Actor::User(user) = &recorded.by {
                    authors.push(user.clone());
                }
                authors.sort();
                authors.dedup();
                // Planned anew: who asked, who wrote it and who wants it ended is as before.
                let before = self.runs.remove(&asked.run);
                let attempt = before.as_ref().map_or(0, |before| before.attempt) + 1;
                let (by, first, authors, stopping) = match before {
                    Some(before) => (before.by, before.at, before.authors, before.stopping),
                    None => (recorded.by.clone(), at, authors, None),
                };
                let run = Run {
                    asked: asked.clone(),
                    by,
                    at: first,
                    stage: Stage::Queued,
                    since: at,
                    process: None,
                    tool: None,
                    planned: None,
                    attempt,
                    stopping,
                    approvals: Vec::new(),
                    authors,
                    finished: None,
                };
                self.runs.insert(asked.run, run);
            }
            Event::InfraStarted { run, pid, started, tool } => {
                self.step(*run, at, |run| {
                    run.process = Some((*pid, *started));
                    run.tool = Some(tool.clone());
                    if run.stage == Stage::Applying { Stage::Applying } else { Stage::Planning }
                });
            }
            Event::InfraPlanned(planned) => self.step(planned.run, at, |run| {
                run.process = None;
                run.planned = Some(planned.clone());
                run.approvals.clear();
                if run.missing() > 0 { Stage::Waiting } else { Stage::Ready }
            }),
            Event::InfraApproved { run, why } => {
                let Actor::User(user) = recorded.by.clone() else { return };
                self.step(*run, at, |run| {
                    run.approvals.push((user, at, why.clone()));
                    if run.missing() > 0 { Stage::Waiting } else { Stage::Ready }
                });
            }
            Event::InfraStopping { run, force } => self.step(*run, at, |run| {
                let (by, at) = match run.stopping.take() {
                    Some(before) => (before.by, before.at),
                    None => (recorded.by.clone(), at),
                };
                run.stopping = Some(Stopping { by, at, force: *force });
                run.stage
            }),
            Event::InfraApplying { run } => {
                self.step(*run, at, |run| {
                    run.process = None;
                    Stage::Applying
                });
                if let Some(run) = self.runs.get(run).filter(|run| run.asked.action == InfraAction::Apply) {
                    let key = (run.asked.environment.clone(), run.asked.tool());
                    self.touched.insert(key, (run.asked.clone(), at));
                }
            }
            Event::InfraFinished(finished) => self.finish(finished, at),
            Event::InfraUnknown { environment, tool, what } => {
                if let Some(applied) = self.applied.get_mut(&(environment.clone(), *tool)) {
                    applied.unknown.clone_from(what);
                }
            }
            _ => {}
        }
    }

    fn step(&mut self, id: InfraRunId, at: Time, change: impl FnOnce(&mut Run) -> Stage) {
        let Some(run) = self.runs.get_mut(&id).filter(|run| run.stage != Stage::Ended) else { return };
        let stage = change(run);
        if stage != run.stage {
            (run.stage, run.since) = (stage, at);
        }
    }

    fn finish(&mut self, finished: &InfraFinished, at: Time) {
        let Some(run) = self.runs.get_mut(&finished.run) else { return };
        (run.stage, run.since, run.process) = (Stage::Ended, at, None);
        run.finished = Some(finished.clone());
        let asked = &run.asked;
        let key = (asked.environment.clone(), asked.tool());
        match asked.action {
            InfraAction::Apply if finished.ok => {
                let applied = Applied {
                    run: asked.run,
                    tree: asked.tree.clone(),
                    folder: asked.folder.clone(),
                    commit: asked.commit.clone(),
                    variables: asked.variables.clone(),
                    playbook: asked.playbook.clone(),
                    // Until a look says otherwise.
                    unknown: self.applied.get(&key).map(|before| before.unknown.clone()).unwrap_or_default(),
                    outputs: finished.outputs.clone(),
                    at,
                    looked: at,
                };
                self.applied.insert(key, applied);
            }
            InfraAction::Destroy if finished.ok => {
                self.applied.remove(&key);
                self.touched.remove(&key);
            }
            _ => {
                if let Some(applied) = self.applied.get_mut(&key) {
                    applied.looked = at;
                }
            }
        }
    }
}
