//! The gate's controller: makes the commit that would land, asks for its run, moves trunk. The rules are in andon-gate.

use std::sync::Arc;
use std::time::Duration;

use andon_gate::Standing;
use andon_gate::plan::{Decision, plan};
use andon_git::Merge;
use andon_model::event::{Event, PlannedJob, Purpose, Role, TestCounts, Verdict};
use andon_model::{ChangeId, Digest, Oid, RunId};
use andon_pipeline::{Definition, Plan};
use tokio_util::sync::CancellationToken;

use super::Pulse;
use super::definition::{Edited, FILE};
use super::pipeline::again::Again;
use super::pipeline::pins;
use crate::{Caller, Line, Project, Refusal};

/// The station's name in the journal.
const GATE: &str = "gate";

pub(super) async fn run(line: Arc<Line>, project: Arc<Project>, stop: CancellationToken) {
    let mut pulse = Pulse::new(&line, &project, stop, Duration::from_secs(30));
    loop {
        let done = step(&line, &project).await;
        if !pulse.beat(done, GATE).await {
            return;
        }
    }
}

async fn step(line: &Line, project: &Project) -> Result<(), Refusal> {
    let branch = project.state().trunk.clone();
    let trunk = project.repository.branch(&branch).await?;
    finish_landing(line, project, trunk.as_ref()).await?;
    let decisions = {
        let state = project.state();
        plan(&state.queue, &state.hold(), trunk.as_ref())
    };
    for decision in decisions {
        match decision {
            Decision::Test { change, patch_set, head } => {
                test(line, project, (change, patch_set, &head), trunk.as_ref(), None).await?;
            }
            Decision::Land { change, patch_set, run } => {
                land(line, project, &branch, change, patch_set, run).await?
            }
            Decision::Refuse { change, patch_set, run, why } => {
                let refused = Event::ChangeRefused { change, patch_set, run: Some(run), why };
                line.tell(project, GATE, vec![refused]).await?;
            }
            Decision::Stop { run, why } => {
                let verdict = Verdict::Broken { why };
                let tests = TestCounts::default();
                let stopped = Event::RunFinished { run, verdict, tests, coverage: None, report: None };
                line.tell(project, GATE, vec![stopped]).await?;
            }
        }
    }
    Ok(())
}

/// A landing that the server was killed in: trunk has moved, the journal does not know it yet.
async fn finish_landing(line: &Line, project: &Project, trunk: Option<&Oid>) -> Result<(), Refusal> {
    let unrecorded = {
        let state = project.state();
        let moved = trunk.filter(|trunk| state.queue.trunk.as_ref() != Some(*trunk));
        moved.and_then(|trunk| {
            state.queue.open().find_map(|change| match &change.standing {
                Standing::Green { run, .. }
                    if state.queue.runs.get(run).is_some_and(|r| r.commit == *trunk) =>
                {
                    Some((change.id, change.push.patch_set, *run))
                }
                _ => None,
            })
        })
    };
    match unrecorded {
        Some((change, patch_set, run)) => record_landing(line, project, change, patch_set, run).await,
        None => Ok(()),
    }
}

/// Makes the commit that would land and asks for its run. `again`: whoever asked for it by hand, and what is kept of the run before.
async fn test(
    line: &Line,
    project: &Project,
    (change, patch_set, head): (ChangeId, u32, &Oid),
    trunk: Option<&Oid>,
    again: Option<(&Caller, &Again)>,
) -> Result<Option<RunId>, Refusal> {
    let (title, at) = {
        let state = project.state();
        (state.queue.changes.get(&change).map(|c| c.push.title.clone()).unwrap_or_default(), line.now())
    };
    let refuse = async |why: String| match again {
        // It is refused already: whoever asked is told.
        Some(_) => Err(Refusal::Conflict(why)),
        None => {
            let refused = Event::ChangeRefused { change, patch_set, run: None, why };
            line.tell(project, GATE, vec![refused]).await.map(|()| None)
        }
    };
    let message = format!("Land {change}: {title}\n\nChange: {change} patch set {patch_set}\nHead: {head}\n");
    let (commit, tree) = match project.repository.merge(trunk, head, &message, at).await {
        Ok(Merge::Made { commit, tree }) => (commit, tree),
        Ok(Merge::Contained) => return refuse("trunk has it already".into()).await,
        Ok(Merge::Conflict { files }) => {
            let files: Vec<&str> = files.iter().map(String::as_str).take(20).collect();
            let why = format!(
                "conflicts with trunk in {}\nhint: git pull --rebase andon {}, resolve, push again",
                files.join(", "),
                project.state().trunk
            );
            return refuse(why).await;
        }
        Err(error) => return refuse(error.to_string()).await,
    };
    // Reachable from now on, whatever becomes of it.
    let name = format!("tested/{commit}");
    let (pinned, defined) = tokio::join!(project.repository.pin(&name, &commit), project.definition(&commit));
    pinned?;
    let defined = defined?;
    let definition = match &*defined {
        Ok(definition) => definition,
        Err(problem) => return refuse(problem.clone()).await,
    };
    let Planned { mut jobs, plan, edits } = planned(line, project, definition, trunk, &commit).await?;
    // On an empty trunk there is nothing that could be taken away.
    let edited = match trunk.filter(|_| edits) {
        Some(trunk) => Some(Edited::of(project, trunk, &commit).await?),
        None => None,
    };
    if let Some(edited) = &edited {
        edited.keep_asking(&mut jobs);
    }
    let (parent, purpose) = (trunk.cloned(), Purpose::Gate { change, patch_set });
    let pins = pins(project, definition, &commit).await?;
    let by = again.map_or_else(|| andon_model::Actor::line(GATE), |(caller, _)| caller.actor());
    line.decide(project, by, |state, _| {
        // A newer patch set may have come while git was merging: it is planned again then.
        let current = state.queue.changes.get(&change).is_some_and(|c| {
            let refused = matches!(c.standing, Standing::Refused { .. });
            c.push.patch_set == patch_set && if again.is_some() { refused } else { c.standing.is_open() }
        });
        if !current {
            return Ok((vec![], None));
        }
        let run = state.runs.next_id();
        let queued = Event::RunQueued {
            run,
            purpose,
            commit: commit.clone(),
            tree: tree.clone(),
            parent,
            jobs,
            plan: Some(plan),
            again: again.map(|(_, again)| again.run),
        };
        let kept = again.map(|(_, again)| again.keep(state, queued.clone(), definition, &pins));
        let mut events = kept.unwrap_or_else(|| vec![queued]);
        // In one breath with its run: a run without it has trunk's own file.
        events.extend(edited.map(|edited| edited.event(run, change, patch_set)));
        Ok((events, Some(run)))
    })
    .await
}

/// The plan of a commit.
struct Planned {
    /// Its jobs as this change needs them.
    jobs: Vec<PlannedJob>,
    /// The name under which the whole plan is kept.
    plan: Digest,
    /// It has another `andon.yaml` than its parent.
    edits: bool,
}

async fn planned(
    line: &Line,
    project: &Project,
    definition: &Definition,
    parent: Option<&Oid>,
    commit: &Oid,
) -> Result<Planned, Refusal> {
    let plan = Plan::of(definition);
    let (blobs, json) = (line.blobs.clone(), plan.json());
    // Kept while git is asked.
    let kept = tokio::task::spawn_blocking(move || blobs.put(&json[..]));
    let changed = match parent {
        Some(parent) => Some(project.repository.changed(parent, commit).await?),
        None => None,
    };
    let jobs = plan.jobs(changed.as_deref());
    let (hash, _) = kept.await.map_err(|error| Refusal::Broken(error.to_string()))??;
    let edits = changed.is_some_and(|changed| changed.iter().any(|path| path == FILE));
    Ok(Planned { jobs, plan: hash, edits })
}

async fn land(
    line: &Line,
    project: &Project,
    branch: &str,
    change: ChangeId,
    patch_set: u32,
    run: RunId,
) -> Result<(), Refusal> {
    let tested = project.state().queue.runs.get(&run).cloned();
    let Some(tested) = tested else { return Ok(()) };
    if project.repository.tree(&tested.commit).await? != tested.tree {
        let why = format!("the commit of {run} does not have the tree that was tested: it does not land");
        return line
            .tell(project, GATE, vec![Event::ChangeRefused { change, patch_set, run: Some(run), why }])
            .await;
    }
    if project.repository.land(branch, tested.parent.as_ref(), &tested.commit).await? {
        record_landing(line, project, change, patch_set, run).await?;
        if let Err(error) = project.repository.tidy().await {
            tracing::warn!(%error, "the commit graph was not written: merges are slower until it is");
        }
    }
    // Else trunk was moved from outside: the next look tests on what is there.
    Ok(())
}

async fn record_landing(
    line: &Line,
    project: &Project,
    change: ChangeId,
    patch_set: u32,
    run: RunId,
) -> Result<(), Refusal> {
    let branch = project.state().trunk.clone();
    let Some(commit) = project.repository.branch(&branch).await? else { return Ok(()) };
    // Read from trunk itself, not from what was meant to land: this is the proof.
    let landed_tree = project.repository.tree(&commit).await?;
    line.decide(project, andon_model::Actor::line(GATE), |state, _| {
        let Some(tested) = state.queue.runs.get(&run).filter(|tested| tested.commit == commit) else {
            return Ok((vec![], ()));
        };
        let (parent, tested_tree) = (tested.parent.clone(), tested.tree.clone());
        Ok((vec![Event::Landed { change, patch_set, run, commit, parent, tested_tree, landed_tree }], ()))
    })
    .await
}

impl Line {
    /// Takes a change back.
    pub async fn abandon(
        &self,
        project: &Project,
        caller: &Caller,
        change: ChangeId,
        why: &str,
    ) -> Result<(), Refusal> {
        caller.may(Role::Developer)?;
        let why = crate::intake::plain(why);
        self.decide(project, caller.actor(), |state, _| match state.queue.changes.get(&change) {
            None => Err(Refusal::Unknown(format!("there is no change {change}"))),
            Some(found) if matches!(found.standing, Standing::Landed { .. }) => Err(Refusal::Conflict(
                format!("{change} is on trunk already\nhint: push a change that reverts it"),
            )),
            Some(_) => Ok((vec![Event::ChangeAbandoned { change, why }], ())),
        })
        .await
    }

    /// Tests trunk as it is now.
    pub async fn test_trunk(&self, project: &Project, caller: &Caller) -> Result<RunId, Refusal> {
        self.test_trunk_again(project, caller, None).await
    }

    async fn test_trunk_again(
        &self,
        project: &Project,
        caller: &Caller,
        again: Option<&Again>,
    ) -> Result<RunId, Refusal> {
        caller.may(Role::Developer)?;
        let trunk = project.state().queue.trunk.clone();
        let commit =
            trunk.ok_or_else(|| Refusal::Conflict("trunk is empty: nothing can be tested".into()))?;
        let tree = project.repository.tree(&commit).await?;
        let defined = project.definition(&commit).await?;
        let definition = defined.as_ref().as_ref().map_err(|problem| Refusal::Conflict(problem.clone()))?;
        // Trunk needs every job.
        let Planned { jobs, plan, .. } = planned(self, project, definition, None, &commit).await?;
        let pins = pins(project, definition, &commit).await?;
        self.decide(project, caller.actor(), |state, _| {
            let run = state.runs.next_id();
            let queued = Event::RunQueued {
                run,
                purpose: Purpose::Trunk,
                commit,
                tree,
                parent: None,
                jobs,
                plan: Some(plan),
                again: again.map(|again| again.run),
            };
            let kept = again.map(|again| again.keep(state, queued.clone(), definition, &pins));
            Ok((kept.unwrap_or_else(|| vec![queued]), run))
        })
        .await
    }

    /// Makes a run once more for the same patch set, or for trunk. What was green on the same tree is kept; everything else is run.
    pub async fn run_again(
        &self,
        project: &Project,
        caller: &Caller,
        again: &Again,
    ) -> Result<RunId, Refusal> {
        caller.may(Role::Developer)?;
        let (purpose, trunk) = {
            let state = project.state();
            let run = state.runs.all.get(&again.run);
            let run = run.ok_or_else(|| Refusal::Unknown(format!("there is no {}", again.run)))?;
            again.check(run)?;
            (run.purpose.clone(), state.queue.trunk.clone())
        };
        let Purpose::Gate { change, patch_set } = purpose else {
            return self.test_trunk_again(project, caller, Some(again)).await;
        };
        let head = {
            let state = project.state();
            let found = state.queue.changes.get(&change);
            let found = found.ok_or_else(|| Refusal::Unknown(format!("there is no change {change}")))?;
            let why = match &found.standing {
                _ if found.push.patch_set != patch_set => {
                    Some(format!("{change} has a newer patch set than {} tested", again.run))
                }
                Standing::Refused { .. } => None,
                Standing::Landed { .. } => Some(format!("{change} is on trunk already")),
                Standing::Abandoned { .. } => Some(format!("{change} was taken back")),
                _ => Some(format!("{change} is in the queue already: it is tested by itself")),
            };
            match why {
                Some(why) => return Err(Refusal::Conflict(why)),
                None => found.push.head.clone(),
            }
        };
        let made =
            test(self, project, (change, patch_set, &head), trunk.as_ref(), Some((caller, again))).await?;
        made.ok_or_else(|| Refusal::Conflict(format!("{change} changed meanwhile\nhint: look at it again")))
    }
}
