//! A run of Ansible through the stages that every run has: checked, reviewed, played. A playbook is repeatable: what a dead server left in the
//! middle is played again. Knows nothing of states; secrets are in no word that leaves this file.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::PoisonError;

use andon_environment::blueprint::Plan;
use andon_environment::infrastructure::Stage;
use andon_model::event::{Event, Hosts, InfraAction, InfraQueued, InfraTool, Playbook};
use andon_provision::ansible::plan::{self, unknowns};
use andon_provision::ansible::{self, AnsibleError, Input, Said, room};
use andon_provision::mask::mask;
use andon_provision::terraform::{Ended, Room, Running, Tool};
use tokio_util::sync::CancellationToken;

use super::drive::{FRESH, Failed, MOST, Work, alone, protection};
use super::{Hands, fill_in};
use crate::{Line, Project, Refusal};

impl From<AnsibleError> for Failed {
    fn from(error: AnsibleError) -> Failed {
        match error {
            AnsibleError::Io(error) => Failed::Server(error.into()),
            other => Failed::Run(other.to_string()),
        }
    }
}

impl Work<'_> {
    /// Takes a run of Ansible one stage further.
    pub(super) async fn play(&self, hands: &Hands) -> Result<(), Failed> {
        let Some(asked) = &self.run.asked.playbook else { return Ok(()) };
        let destroy = self.run.asked.action == InfraAction::Destroy;
        let file = if destroy { asked.destroy.as_deref() } else { Some(asked.playbook.as_str()) };
        let Some(file) = file else {
            let words =
                "what was set up on the hosts stays: `infrastructure.ansible.destroy` names no playbook";
            return Ok(self.finish(true, words).await?);
        };
        match self.run.stage {
            Stage::Queued => self.check(hands, asked, file).await,
            Stage::Ready => self.act(hands, asked, file).await,
            Stage::Planning | Stage::Applying => self.take_up(asked).await,
            Stage::Waiting | Stage::Ended => Ok(()),
        }
    }

    async fn check(&self, hands: &Hands, asked: &Playbook, file: &str) -> Result<(), Failed> {
        let tool = hands.ansible().await?;
        self.room.make()?;
        self.project.repository.check_out(&self.run.asked.commit, &self.room.tree()).await?;
        if let Some(plan) = self.looked().await? {
            return self.planned(&plan).await;
        }
        let said = self.played(tool, asked, file, true).await?;
        if let Some(why) = said.errors.first().filter(|_| reaches_nobody(&said)) {
            return Err(Failed::Run(why.clone()));
        }
        self.planned(&plan::of(&said, &tool.to_string())).await
    }

    /// What a look found a moment ago, where nobody has to approve what is done about it: the very check that this run would make.
    async fn looked(&self) -> Result<Option<Plan>, Refusal> {
        let environment = &self.run.asked.environment;
        if protection(self.project, environment).await?.is_some() {
            return Ok(None);
        }
        let state = self.project.state();
        let applied = state.estate.infrastructure.in_force(environment, InfraTool::Ansible);
        let Some(applied) = applied.filter(|applied| self.run.asked.tree == applied.tree).map(|a| a.run)
        else {
            return Ok(None);
        };
        let mut looks = self.project.looks.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(looks.plan_for(self.run, applied, self.line.now()))
    }

    async fn act(&self, hands: &Hands, asked: &Playbook, file: &str) -> Result<(), Failed> {
        let old = self.line.now().since(self.run.since) > FRESH;
        if old || !self.room.work().is_dir() {
            return Ok(self.again().await?);
        }
        let tool = hands.ansible().await?;
        self.tell(vec![Event::InfraApplying { run: self.run.id() }]).await?;
        let said = self.played(tool, asked, file, false).await?;
        Ok(self.finish(true, &did(&said)).await?)
    }

    /// What a dead server left: its process has ended by now. Whether it did all, its last line says.
    async fn take_up(&self, asked: &Playbook) -> Result<(), Failed> {
        ansible::clear(&self.room);
        let secrets = room::secrets(&asked.secrets)?;
        let said = read(&self.room, "apply", &secrets)?;
        if self.run.stage == Stage::Applying && said.is_whole() {
            return Ok(self.finish(true, &did(&said)).await?);
        }
        Ok(self.again().await?)
    }

    /// Plays it to its end. A check may fail in single tasks: what it could not look at is unknown.
    async fn played(&self, tool: &Tool, asked: &Playbook, file: &str, check: bool) -> Result<Said, Failed> {
        let phase = if check { "plan" } else { "apply" };
        let environment = &self.run.asked.environment;
        let hosts = hosts(self.project, environment, asked).map_err(Failed::Run)?;
        let secrets = room::secrets(&asked.secrets)?;
        let running = begin(&self.room, tool, &self.run.asked, asked, file, &hosts, &secrets, check)?;
        let told = self.started(&running, tool.to_string()).await;
        let ended = match told {
            Ok(()) => running.end(&CancellationToken::new(), MOST).await,
            Err(refusal) => return Err(Failed::Server(refusal)),
        };
        ansible::clear(&self.room);
        let Ended { ok, stopped } = ended?;
        let said = read(&self.room, phase, &secrets)?;
        if stopped {
            return Err(Failed::Run(format!("stopped after {} h", MOST.as_secs() / 3600)));
        }
        whole(said, ok, check).map_err(Failed::Run)
    }
}

/// Looks at reality without changing it: what differs, of what nobody knows, and hosts of which not everything was looked at (none: all of
/// them were seen).
pub(super) async fn look(
    project: &Project,
    hands: &Hands,
    room: &Room,
    asked: &InfraQueued,
) -> Result<super::look::Found, Refusal> {
    let broken = |error: AnsibleError| Refusal::Broken(error.to_string());
    let Some(playbook) = &asked.playbook else { return Err(Refusal::Broken("no playbook".into())) };
    let tool = hands.ansible().await.map_err(broken)?;
    alone(room).await;
    room.make()?;
    project.repository.check_out(&asked.commit, &room.tree()).await?;
    let hosts = hosts(project, &asked.environment, playbook).map_err(Refusal::Broken)?;
    let secrets = room::secrets(&playbook.secrets).map_err(broken)?;
    let running =
        begin(room, tool, asked, playbook, &playbook.playbook, &hosts, &secrets, true).map_err(broken)?;
    let ended = running.end(&CancellationToken::new(), super::look::MOST).await;
    let said = read(room, "plan", &secrets);
    room.remove()?;
    let said = whole(said.map_err(broken)?, ended?.ok, true).map_err(Refusal::Broken)?;
    let plan = plan::of(&said, &tool.to_string());
    let (drifts, unknown, blind) = (plan::drifts(&plan), unknowns(&plan), said.blind());
    Ok(super::look::Found { drifts, unknown, blind, plan: Some(plan) })
}

/// Hosts with the output of Terraform filled in.
fn hosts(
    project: &Project,
    environment: &andon_model::EnvironmentName,
    asked: &Playbook,
) -> Result<Hosts, String> {
    let state = project.state();
    let made = state.estate.infrastructure.in_force(environment, InfraTool::Terraform);
    let outputs = made.map(|applied| &applied.outputs);
    let mut hosts = asked.hosts.clone();
    for value in hosts.values_mut().flat_map(BTreeMap::values_mut).flat_map(BTreeMap::values_mut) {
        *value = fill_in(value, outputs)?;
    }
    Ok(hosts)
}

#[expect(clippy::too_many_arguments, reason = "all that a play depends on")]
fn begin(
    at: &Room,
    tool: &Tool,
    asked: &InfraQueued,
    playbook: &Playbook,
    file: &str,
    hosts: &Hosts,
    secrets: &BTreeMap<String, String>,
    check: bool,
) -> Result<Running, AnsibleError> {
    let phase = if check { "plan" } else { "apply" };
    let variables = &asked.variables;
    let environment = &asked.environment;
    let connection = playbook.connection;
    ansible::furnish(at, &Input { environment, hosts, connection, variables, secrets })?;
    ansible::start(at, tool, playbook, file, check, phase)
}

fn read(at: &Room, phase: &str, secrets: &BTreeMap<String, String>) -> Result<Said, AnsibleError> {
    Said::of(mask(&at.said(phase), secrets).as_bytes())
}

/// What was said, if it can be gone by.
fn whole(said: Said, ok: bool, check: bool) -> Result<Said, String> {
    let first = || said.errors.first().cloned();
    match &said.sums {
        None => Err(first().unwrap_or_else(|| "ansible-playbook ended without saying what it did".into())),
        Some(hosts) if hosts.is_empty() => Err(
            "its plays are for none of the hosts\nhint: `hosts:` of a play names a group of `infrastructure.ansible.hosts`".into(),
        ),
        Some(_) if check || (ok && said.is_whole()) => Ok(said),
        Some(_) => Err(first().unwrap_or_else(|| "ansible-playbook failed without saying why".into())),
    }
}

fn reaches_nobody(said: &Said) -> bool {
    said.sums.iter().flat_map(BTreeMap::values).any(|sums| sums.unreachable > 0)
}

fn did(said: &Said) -> String {
    let hosts = said.sums.as_ref().map_or(0, BTreeMap::len);
    format!(
        "{} changed on {}",
        crate::view::count(said.changed() as usize, "task"),
        crate::view::count(hosts, "host")
    )
}

/// Everything that the tool said in a run, without its secrets.
pub(super) fn said(at: &Room, asked: &InfraQueued) -> String {
    let text = ["init", "plan", "apply", "salvage"].map(|phase| at.said(phase)).concat();
    let Some(playbook) = &asked.playbook else { return text };
    match room::secrets(&playbook.secrets) {
        Ok(secrets) => mask(&text, &secrets),
        Err(error) => format!("not shown, for its secrets cannot be taken out: {error}\n"),
    }
}

/// Where looks at an environment by Ansible work.
pub(super) fn look_room(line: &Line, project: &Project, name: &andon_model::EnvironmentName) -> PathBuf {
    super::drive::rooms(line, project).join(format!("check-{name}"))
}
