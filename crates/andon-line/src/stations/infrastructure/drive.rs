//! One run of the infrastructure tool through its stages: planned, reviewed, applied exactly as reviewed. Each call does what the run's
//! stage asks for and records what came of it; a run that a dead server left is settled and planned anew.

use std::collections::BTreeMap;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use andon_environment::blueprint::Plan;
use andon_environment::guard::{self, Protected};
use andon_environment::infrastructure::{Run, Stage};
use andon_model::event::{Actor, Event, InfraAction, InfraFinished, InfraPlanned};
use andon_model::{EnvironmentName, InfraRunId, Span, StateName};
use andon_provision::terraform::room::Backend;
use andon_provision::terraform::{Ended, Room, Running, Said, TerraformError, process};
use tokio_util::sync::CancellationToken;

use super::{Hands, STATION, playbook};
use crate::intake::plain;
use crate::{Line, Project, Refusal};

/// A phase of the tool that takes longer is stopped.
pub(super) const MOST: Duration = Duration::from_secs(2 * 3600);
/// A plan that is older is made again before anything is applied: plans hold secrets and go out of date.
pub(super) const FRESH: Span = Span::secs(3600);
/// Between two looks whether somebody still works in a run's room.
const LOOK: Duration = Duration::from_millis(100);
/// Most of the tool's output that is kept, in bytes.
const LOG: usize = 16 << 20;

/// Why a phase came to nothing: for people, or for the server.
pub(super) enum Failed {
    /// The tool or the code; recorded as the run's end.
    Run(String),
    /// The server; tried again.
    Server(Refusal),
}

impl From<TerraformError> for Failed {
    fn from(error: TerraformError) -> Failed {
        match error {
            TerraformError::Io(error) => Failed::Server(error.into()),
            other => Failed::Run(other.to_string()),
        }
    }
}

impl<E: Into<Refusal>> From<E> for Failed {
    fn from(error: E) -> Failed {
        Failed::Server(error.into())
    }
}

/// Takes the run one stage further.
pub(super) async fn drive(
    line: &Line,
    project: &Project,
    hands: &Hands,
    id: InfraRunId,
) -> Result<(), Refusal> {
    let found = project.state().estate.infrastructure.runs.get(&id).cloned();
    let Some(run) = found else { return Ok(()) };
    let work = Work::of(line, project, &run);
    work.until_alone(run.process).await;
    if work.stopping().is_some() {
        return work.stopped(hands).await;
    }
    let done = match run.stage {
        Stage::Queued | Stage::Planning | Stage::Ready | Stage::Applying if run.asked.playbook.is_some() => {
            work.play(hands).await
        }
        Stage::Queued => work.plan(hands).await,
        Stage::Planning | Stage::Applying => work.settle(hands).await,
        Stage::Ready => work.apply(hands).await,
        Stage::Waiting | Stage::Ended => return Ok(()),
    };
    match done {
        Ok(()) => Ok(()),
        // It did not fail: somebody ended it.
        Err(Failed::Run(_)) if work.stopping().is_some() => work.stopped(hands).await,
        Err(Failed::Run(why)) => work.finish(false, &why).await,
        Err(Failed::Server(refusal)) => Err(refusal),
    }
}

/// Where runs of a project work.
pub(super) fn rooms(line: &Line, project: &Project) -> std::path::PathBuf {
    line.settings.data.join("infrastructure").join(project.name.as_str())
}

pub(super) struct Work<'a> {
    pub(super) line: &'a Line,
    pub(super) project: &'a Project,
    pub(super) run: &'a Run,
    pub(super) room: Room,
    pub(super) state: StateName,
}

impl<'a> Work<'a> {
    fn of(line: &'a Line, project: &'a Project, run: &'a Run) -> Work<'a> {
        let room = Room::at(rooms(line, project).join(run.id().to_string()), &run.asked.folder);
        Work { line, project, run, room, state: StateName::of(run.asked.environment.clone()) }
    }

    pub(super) fn env(&self) -> std::io::Result<BTreeMap<String, String>> {
        environment(
            self.line,
            self.project,
            &self.room,
            self.run.id(),
            &self.state,
            &self.run.asked.variables,
        )
    }

    /// A server that was killed may have left the tool at work, with or without a record of it.
    async fn until_alone(&self, process: Option<(u32, u64)>) {
        if let Some((pid, started)) = process {
            process::gone(pid, started).await;
        }
        alone(&self.room).await;
    }

    async fn plan(&self, hands: &Hands) -> Result<(), Failed> {
        let tool = hands.tool().await?;
        let asked = &self.run.asked;
        self.room.make()?;
        self.project.repository.check_out(&asked.commit, &self.room.tree()).await?;
        self.room.furnish()?;
        let env = self.env()?;
        let init = self.room.start(tool, &env, "init", self.room.init_args())?;
        self.started(&init, tool.to_string()).await?;
        self.end(init, "init").await?;
        self.unless_stopping()?;
        let destroy = asked.action == InfraAction::Destroy;
        let plan = self.room.start(tool, &env, "plan", self.room.plan_args(destroy, false))?;
        self.started(&plan, tool.to_string()).await?;
        self.end(plan, "plan").await?;
        let plan = self.room.show(tool, &env).await?;
        self.seal().await?;
        self.planned(&plan).await
    }

    /// Records the plan: what it would do, and who has to approve it.
    pub(super) async fn planned(&self, plan: &Plan) -> Result<(), Failed> {
        let asked = &self.run.asked;
        let shown = serde_json::to_vec(plan).map_err(|error| Refusal::Broken(error.to_string()))?;
        let shown = self.line.seal_blob(shown).await?;
        let protected = protection(self.project, &asked.environment).await?;
        let ends = guard::guarded(plan, protected.as_ref());
        let looks_only = matches!(asked.action, InfraAction::Plan | InfraAction::Look);
        let approvals = match &protected {
            Some(protected) if !ends.is_empty() && !looks_only => protected.approvals.max(1),
            _ => 0,
        };
        let guarded = ends.into_iter().map(|g| format!("{} {}", g.what, plain(&g.address))).collect();
        let (run, counts) = (self.run.id(), plan.counts());
        let held = protected.filter(|_| approvals > 0);
        let backup_within = held.as_ref().and_then(|protected| protected.backup_within);
        let approvers = held.map(|protected| protected.approvers).unwrap_or_default();
        let planned = InfraPlanned { run, counts, shown, guarded, approvals, approvers, backup_within };
        self.tell(vec![Event::InfraPlanned(planned)]).await?;
        if looks_only {
            return Ok(self.finish(true, &format!("{counts}; nothing was changed")).await?);
        }
        Ok(())
    }

    async fn apply(&self, hands: &Hands) -> Result<(), Failed> {
        let tool = hands.tool().await?;
        let old = self.line.now().since(self.run.since) > FRESH;
        let sealed = tokio::fs::read(self.room.sealed()).await;
        let (Ok(sealed), false) = (sealed, old) else { return Ok(self.again().await?) };
        self.tell(vec![Event::InfraApplying { run: self.run.id() }]).await?;
        let clear = self.line.vault.open_sealed(&sealed)?;
        let options = || {
            std::fs::File::options()
                .create(true)
                .truncate(true)
                .write(true)
                .mode(0o600)
                .open(self.room.plan())
        };
        std::io::Write::write_all(&mut options()?, &clear)?;
        self.unless_stopping()?;
        let env = self.env()?;
        let apply = self.room.start(tool, &env, "apply", self.room.apply_args())?;
        self.started(&apply, tool.to_string()).await?;
        let ended = self.end(apply, "apply").await;
        let _ = std::fs::remove_file(self.room.plan());
        self.salvage(hands).await?;
        match ended {
            Err(Failed::Run(_)) if Said::of(&self.room.said("apply")).is_ok_and(|said| said.stale()) => {
                Ok(self.again().await?)
            }
            Err(failed) => Err(failed),
            Ok(()) => Ok(self.done().await?),
        }
    }

    /// What a dead server left: its process has ended by now. What it did is in the state; whether it did all, its last words say.
    async fn settle(&self, hands: &Hands) -> Result<(), Failed> {
        self.salvage(hands).await?;
        let said = Said::of(&self.room.said("apply")).unwrap_or_default();
        let whole =
            said.errors.is_empty() && said.complete.is_some() && said.complete.as_deref() != Some("plan");
        if self.run.stage == Stage::Applying && whole {
            return Ok(self.done().await?);
        }
        Ok(self.again().await?)
    }

    /// Plans anew: what was reviewed does not fit the state any more.
    pub(super) async fn again(&self) -> Result<(), Refusal> {
        let _ = std::fs::remove_file(self.room.plan());
        let _ = std::fs::remove_file(self.room.sealed());
        self.tell(vec![Event::InfraQueued(self.run.asked.clone())]).await
    }

    pub(super) async fn started(&self, running: &Running, tool: String) -> Result<(), Refusal> {
        let (pid, started) = (running.pid, running.started);
        self.tell(vec![Event::InfraStarted { run: self.run.id(), pid, started, tool }]).await
    }

    /// Waits for a phase's end; a failure is told in the tool's first error.
    pub(super) async fn end(&self, running: Running, phase: &str) -> Result<(), Failed> {
        let Ended { ok, stopped } = running.end(&CancellationToken::new(), MOST).await?;
        if ok {
            return Ok(());
        }
        let text = self.room.said(phase);
        let said = Said::of(&text)?;
        let first = said.errors.into_iter().next().or_else(|| first_error(&text));
        let why = first.unwrap_or_else(|| "the tool failed without saying why".into());
        let why = if stopped { format!("stopped after {} h: {why}", MOST.as_secs() / 3600) } else { why };
        Err(Failed::Run(why))
    }

    async fn seal(&self) -> Result<(), Refusal> {
        let clear = tokio::fs::read(self.room.plan()).await?;
        tokio::fs::write(self.room.sealed(), self.line.vault.seal(&clear)?).await?;
        Ok(tokio::fs::remove_file(self.room.plan()).await?)
    }

    /// Applied: the outputs are read from the state that the tool has just stored.
    async fn done(&self) -> Result<(), Refusal> {
        let counts = self.run.planned.as_ref().map(|planned| planned.counts).unwrap_or_default();
        let did = format!("{} added, {} changed, {} destroyed", counts.add, counts.change, counts.destroy);
        self.finish(true, &did).await
    }

    pub(super) async fn finish(&self, ok: bool, why: &str) -> Result<(), Refusal> {
        let outputs = match self.run.asked.action {
            InfraAction::Apply if ok && self.run.asked.playbook.is_none() => self.outputs().await?,
            _ => BTreeMap::new(),
        };
        let mut log = playbook::said(&self.room, &self.run.asked).into_bytes();
        log.truncate(LOG);
        let log = if log.is_empty() { None } else { Some(self.line.seal_blob(log).await?) };
        let finished = InfraFinished {
            run: self.run.id(),
            ok,
            why: plain(why),
            outputs,
            log,
            took: self.line.now().since(self.run.at),
        };
        self.tell(vec![Event::InfraFinished(finished)]).await?;
        Ok(self.room.remove()?)
    }

    async fn outputs(&self) -> Result<BTreeMap<String, serde_json::Value>, Refusal> {
        #[derive(serde::Deserialize)]
        struct Document {
            #[serde(default)]
            outputs: BTreeMap<String, Output>,
        }
        #[derive(serde::Deserialize)]
        struct Output {
            value: serde_json::Value,
            #[serde(default)]
            sensitive: bool,
        }
        let Some(document) = self.line.read_state(self.project, &self.state).await? else {
            return Ok(BTreeMap::new());
        };
        let read: Document =
            serde_json::from_slice(&document).map_err(|error| Refusal::Broken(error.to_string()))?;
        let shown = read.outputs.into_iter().filter(|(_, output)| !output.sensitive);
        Ok(shown.map(|(name, output)| (name, output.value)).collect())
    }

    pub(super) async fn tell(&self, events: Vec<Event>) -> Result<(), Refusal> {
        let id = self.run.id();
        self.line
            .decide(self.project, Actor::line(STATION), |state, _| {
                // Taken back by a person meanwhile: what follows is not recorded.
                let open = state.estate.infrastructure.is_open(id);
                Ok((if open { events } else { vec![] }, ()))
            })
            .await
    }
}

/// The tool's environment in a room, for the states that this run may speak with.
pub(super) fn environment(
    line: &Line,
    project: &Project,
    room: &Room,
    run: InfraRunId,
    state: &StateName,
    variables: &BTreeMap<String, String>,
) -> std::io::Result<BTreeMap<String, String>> {
    let plugins = line.settings.data.join("infrastructure").join("plugins");
    std::fs::create_dir_all(&plugins)?;
    let backend = Backend {
        address: format!("{}/api/v1/{}/state/{state}", line.settings.url, project.name),
        token: line.run_token(&project.name, state, run),
    };
    Ok(room.env(&backend, variables, &plugins))
}

/// Waits until nobody works in this room. What the tool started and left behind on purpose is a resource, and stays: it is waited for only so
/// long.
pub(super) async fn alone(room: &Room) {
    let alone = async {
        while process::works_below(&room.dir) {
            tokio::time::sleep(LOOK).await;
        }
    };
    let _ = tokio::time::timeout(process::GRACE, alone).await;
}

/// How trunk protects an environment. One that was asked for is in no definition, and so not protected, whatever it is like: it is made to
/// end, and an end that waits for people would never come.
pub(super) async fn protection(
    project: &Project,
    environment: &EnvironmentName,
) -> Result<Option<Protected>, Refusal> {
    let defined = project.trunk_definition().await?;
    let definition = defined.as_deref().and_then(|defined| defined.as_ref().ok());
    let rules =
        definition.and_then(|definition| definition.resolve(environment)).map(|resolved| resolved.rules);
    Ok(rules.and_then(|rules| rules.protection).map(|p| Protected {
        approvals: p.approvals,
        harmless: p.harmless,
        approvers: p.approvers,
        backup_within: p.backup_within,
    }))
}

/// The first error of plain output: `init` has no other.
pub(super) fn first_error(text: &str) -> Option<String> {
    let mut lines = text.lines().map(|line| line.trim_start_matches(['│', '╷', '╵', ' ']).trim());
    let first = lines.by_ref().find_map(|line| line.strip_prefix("Error: "))?;
    let rest: Vec<&str> = lines.filter(|line| !line.is_empty()).take(3).collect();
    Some(format!("{first} {}", rest.join(" ")).trim().to_owned())
}
