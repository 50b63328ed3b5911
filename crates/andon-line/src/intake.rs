//! Pushes: what the `proc-receive` hook asks, and the change or patch set that comes of it. Tests and lands nothing.

use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, PoisonError};

use andon_gate::identity::{Signs, find, fixes_andon, identity};
use andon_gate::{Change, Standing};
use andon_git::Commits;
use andon_git::hook::{Answer, Question, Update};
use andon_git::serve::Way;
use andon_model::event::{DefinitionRule, Event, Push, Role};
use andon_model::{ChangeId, Oid, Span};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

use crate::stations::definition;
use crate::{Caller, Line, Project, Refusal, State};

/// Largest question of a hook, in bytes.
const LARGEST: u64 = 256 * 1024;

impl Line {
    /// The way by which the hook of one push finds back to us. The key dies with the returned guard.
    pub fn push_way(self: &Arc<Line>, project: &Project, caller: &Caller) -> (Way, PushGuard) {
        let key = andon_kit::secret::fresh("push_");
        let value = (project.name.clone(), caller.clone());
        self.pushes.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone(), value);
        let socket = self.settings.data.join("hooks.sock");
        (Way { socket, key: key.clone() }, PushGuard { line: Arc::clone(self), key })
    }

    /// Answers hooks until the socket fails. Jobs and services cannot speak here: they have no key.
    pub async fn answer_hooks(self: Arc<Line>) -> std::io::Result<()> {
        let path = self.settings.data.join("hooks.sock");
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        loop {
            let (socket, _) = listener.accept().await?;
            let line = Arc::clone(&self);
            tokio::spawn(async move {
                if let Err(error) = line.answer_hook(socket).await {
                    tracing::warn!(%error, "a push hook went away");
                }
            });
        }
    }

    async fn answer_hook(&self, socket: UnixStream) -> std::io::Result<()> {
        let (read, mut write) = socket.into_split();
        let mut text = String::new();
        BufReader::new(read.take(LARGEST)).read_line(&mut text).await?;
        let question: Question = serde_json::from_str(&text)?;
        let answer = self.pushed(&question).await;
        let mut text = serde_json::to_string(&answer)?;
        text.push('\n');
        write.write_all(text.as_bytes()).await
    }

    async fn pushed(&self, question: &Question) -> Answer {
        let known = self.pushes.lock().unwrap_or_else(PoisonError::into_inner).get(&question.key).cloned();
        let mut answer = Answer::default();
        let Some((project, caller)) = known else {
            answer.refused = question.updates.iter().map(|_| Some("this push is not known".into())).collect();
            return answer;
        };
        let mut taken = false;
        for update in &question.updates {
            let one = match (taken, self.project(project.as_str())) {
                (true, _) => {
                    Err(Refusal::Bad("one change per push\nhint: push the others on their own".into()))
                }
                (false, Ok(project)) => self.propose(&project, &caller, update, &question.options).await,
                (false, Err(error)) => Err(error),
            };
            match one {
                Ok(lines) => {
                    taken = true;
                    answer.lines.extend(lines);
                    answer.refused.push(None);
                }
                Err(refusal) => {
                    let text = refusal.to_string();
                    answer.refused.push(Some(text.lines().next().unwrap_or("refused").to_owned()));
                    answer.lines.push(format!("■ not taken: {text}"));
                }
            }
        }
        answer
    }

    /// A pushed ref becomes a change or a patch set. Recorded before it is acknowledged.
    async fn propose(
        &self,
        project: &Project,
        caller: &Caller,
        update: &Update,
        options: &[String],
    ) -> Result<Vec<String>, Refusal> {
        caller.may(Role::Developer)?;
        let (branch, trunk) = {
            let state = project.state();
            (state.trunk.clone(), state.queue.trunk.clone())
        };
        if update.reference != format!("refs/for/{branch}") {
            let why = format!("{branch} moves only by landing\nhint: git push andon HEAD:refs/for/{branch}");
            return Err(Refusal::Bad(why));
        }
        let head: Oid = update.new.parse().map_err(|_| Refusal::Bad("the new value is no commit".into()))?;
        if head.is_zero() {
            return Err(Refusal::Bad(
                "there is nothing to delete here\nhint: `andon change abandon` takes a change back".into(),
            ));
        }
        let repository = &project.repository;
        let commits = repository.beyond(trunk.as_ref(), &head).await.map_err(|error| {
            Refusal::Bad(format!("{error}\nhint: does it start from {branch}? `git pull --rebase andon {branch}` brings it there"))
        })?;
        let Some(commits) = commits else {
            return Err(Refusal::Bad(format!(
                "{branch} has these commits already\nhint: commit something first"
            )));
        };
        repository.pin(&format!("heads/{head}"), &head).await?;
        let topic = options.iter().find_map(|option| option.strip_prefix("topic=")).map(plain);
        let signs = Signs {
            topic: topic.as_deref().filter(|topic| !topic.is_empty()),
            message: &commits.message,
            author: &commits.author,
            authored_secs: commits.authored.0 / 1000,
        };
        let identity = identity(signs);
        let known = self.same_change(project, &identity, &commits).await?;
        let edits_pipeline = commits.paths.iter().any(|path| path == definition::FILE);
        let rule = if edits_pipeline { self.definition_rule(project).await? } else { None };
        let (change, patch_set) = self
            .decide(project, caller.actor(), |state, _| {
                let (change, patch_set) = number(state, known, &head)?;
                let push = Push {
                    change,
                    patch_set,
                    head: head.clone(),
                    title: plain(&commits.title),
                    author: plain(&commits.author),
                    authored: commits.authored,
                    identity,
                    fixes: fixes_andon(&commits.message),
                    edits_pipeline,
                    commits: commits.count,
                };
                // What somebody pushes who may approve it anyway is approved by that, and marked so.
                let approves = rule.is_some_and(|rule| self.not_approver(caller, rule, true).is_none());
                let approved = approves.then(|| Event::DefinitionApproved {
                    change,
                    patch_set,
                    why: "pushed by whoever may approve it".into(),
                    by_push: true,
                });
                let events = std::iter::once(Event::ChangePushed(push)).chain(approved).collect();
                Ok((events, (change, patch_set)))
            })
            .await?;
        Ok(self.words(project, change, patch_set, rule))
    }

    /// The change that these commits are a new patch set of. By author and date alone two changes of one second look alike: then the
    /// title or a file in common decides.
    async fn same_change(
        &self,
        project: &Project,
        identity: &str,
        new: &Commits,
    ) -> Result<Option<ChangeId>, Refusal> {
        let (found, trunk): (Vec<(ChangeId, String, Oid)>, Option<Oid>) = {
            let state = project.state();
            let known = find(&state.queue, identity).filter_map(|id| state.queue.changes.get(&id));
            (
                known.map(|c| (c.id, c.push.title.clone(), c.push.head.clone())).collect(),
                state.queue.trunk.clone(),
            )
        };
        for (id, title, head) in found {
            if !identity.starts_with("author ") || title == plain(&new.title) {
                return Ok(Some(id));
            }
            let old = project.repository.beyond(trunk.as_ref(), &head).await?;
            if old.is_some_and(|old| old.paths.iter().any(|path| new.paths.contains(path))) {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }

    /// What the pusher reads: number, place, estimate, link.
    fn words(
        &self,
        project: &Project,
        id: ChangeId,
        patch_set: u32,
        rule: Option<DefinitionRule>,
    ) -> Vec<String> {
        let state = project.state();
        let Some(change) = state.queue.changes.get(&id) else { return Vec::new() };
        let (number, url) = (id.0, &self.settings.url);
        let mut lines = vec![String::new(), format!("○ {id} {}", change.push.title)];
        if patch_set > 1 {
            lines[1].push_str(&format!(" (patch set {patch_set})"));
        }
        let ahead = state.queue.ahead_of(id);
        let hold = state.hold();
        let waits = andon_gate::plan::waits_for(&state.queue, change, &hold);
        lines.push(format!(
            "  place {} in the queue{}",
            ahead + 1,
            waits.map(|w| format!(", {w}")).unwrap_or_default()
        ));
        if let Some(usual) = usual(&state) {
            lines.push(format!("  about {} until it lands", Span(usual.0.saturating_mul(ahead as u64 + 1))));
        }
        if change.push.edits_pipeline {
            lines.push("  it changes andon.yaml: it is tested by the new one".into());
            match (rule, change.approved()) {
                (Some(_), Some(_)) => lines.push("  approved by this push: whoever pushes it may approve it".into()),
                (Some(rule), None) => lines.push(format!(
                    "  it lands with {}, and until then trunk's limits and questions hold too: andon change approve {number} --why '…'",
                    andon_gate::plan::approver(rule)
                )),
                (None, _) => {}
            }
        }
        lines.push(format!("  {url}/{}/changes/{number}", project.name));
        lines.push(String::new());
        lines
    }
}

/// How long a change usually takes from its run's start to its verdict: the median of the newest runs.
pub fn usual(state: &State) -> Option<Span> {
    let done =
        state.runs.all.values().rev().filter_map(|run| Some(run.finished.as_ref()?.0.since(run.queued)));
    let mut newest: Vec<Span> = done.take(9).collect();
    newest.sort_unstable();
    newest.get(newest.len() / 2).copied()
}

fn number(state: &State, known: Option<ChangeId>, head: &Oid) -> Result<(ChangeId, u32), Refusal> {
    // It may have landed or been taken back while git was asked: what is on trunk gets no patch set any more.
    let goes_on =
        |change: &&Change| change.standing.is_open() || matches!(change.standing, Standing::Refused { .. });
    let Some(known) = known.and_then(|id| state.queue.changes.get(&id)).filter(goes_on) else {
        return Ok((state.queue.next_change(), 1));
    };
    if known.push.head == *head && known.standing.is_open() {
        return Err(Refusal::Conflict(format!("{} is this commit already, nothing is new", known.id)));
    }
    Ok((known.id, known.push.patch_set + 1))
}

/// One line without control characters, for terminals and pages.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect::<String>().trim().to_owned()
}

/// Forgets the key of a push when the push is over.
#[derive(Debug)]
pub struct PushGuard {
    line: Arc<Line>,
    key: String,
}

impl Drop for PushGuard {
    fn drop(&mut self) {
        self.line.pushes.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use andon_model::event::Recorded;
    use andon_model::{Actor, RunId, Time};

    fn oid(digit: char) -> Oid {
        digit.to_string().repeat(40).parse().unwrap()
    }

    #[test]
    fn what_landed_while_git_was_asked_gets_no_patch_set_any_more() {
        let mut state = State::default();
        let tell = |state: &mut State, event: Event| {
            state.evolve(&Recorded { seq: 1, at: Time(1), by: Actor::line("test"), project: None, event });
        };
        let push = Push {
            change: ChangeId(1),
            patch_set: 1,
            head: oid('a'),
            title: "t".into(),
            author: "a".into(),
            authored: Time(0),
            identity: "i".into(),
            fixes: None,
            edits_pipeline: false,
            commits: 1,
        };
        tell(&mut state, Event::ChangePushed(push));
        assert_eq!(number(&state, Some(ChangeId(1)), &oid('b')).unwrap(), (ChangeId(1), 2));
        let landed = Event::Landed {
            change: ChangeId(1),
            patch_set: 1,
            run: RunId(1),
            commit: oid('c'),
            parent: None,
            tested_tree: oid('d'),
            landed_tree: oid('d'),
        };
        tell(&mut state, landed);
        assert_eq!(number(&state, Some(ChangeId(1)), &oid('b')).unwrap(), (ChangeId(2), 1));
    }
}
