//! What people and machines do with runners: invite one, join, come back, give it no more jobs, let it leave; and the places that jobs have
//! there. Runs nothing itself.

use std::sync::{Arc, PoisonError};

use andon_model::event::{Event, Role};
use andon_model::{Actor, Digest, LabelName, RunnerName, Span};
use andon_pipeline::{Place, Places, Standing};
use andon_runner::remote::trust::Identity;
use andon_runner::remote::{self, Admit, Entry, Refused};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::access::Caller;
use crate::hosts::{Door, INVITED, INVITED_MOST, Invitation, dialled};
use crate::intake::plain;
use crate::{Line, Refusal};

/// More runners than this are a mistake.
const MOST: usize = 500;
/// More labels than this are one, too.
const LABELS: usize = 32;

/// A place that a job has on a runner, until it is dropped.
pub(crate) struct Slot {
    line: Arc<Line>,
    runner: RunnerName,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.line.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(taken) = taken.get_mut(&self.runner) {
            *taken = taken.saturating_sub(1);
        }
    }
}

impl Line {
    /// Opens the door to runners; call it before the stations run.
    pub fn open_to_runners(
        self: &Arc<Line>,
        listener: TcpListener,
        stop: CancellationToken,
    ) -> Result<(), Refusal> {
        let identity = Identity::open(&self.settings.data.join("runners-door.json"))?;
        let server = dialled(&self.settings.url, listener.local_addr()?);
        let door = Door { identity: identity.clone(), server };
        if self.runners_door.set(door).is_err() {
            return Err(Refusal::Broken("the door to runners is open already".into()));
        }
        let line = Arc::clone(self);
        let admit: Admit = Arc::new(move |entry| {
            let line = Arc::clone(&line);
            Box::pin(async move { line.admit_runner(entry).await })
        });
        tokio::spawn(Arc::clone(&self.crew).serve(listener, identity, admit, stop));
        Ok(())
    }

    /// The secret with which one machine may join, once; it gets these labels beside its own.
    pub async fn invite_runner(
        &self,
        caller: &Caller,
        lasts: Option<Span>,
        labels: Vec<LabelName>,
    ) -> Result<Invitation, Refusal> {
        caller.may(Role::Owner)?;
        let door = self.runners_door.get().ok_or_else(|| {
            Refusal::Conflict(
                "this server lets no runners in\nhint: start it with --runners ADDRESS:PORT, where machines can dial it"
                    .into(),
            )
        })?;
        let lasts = lasts.unwrap_or(INVITED);
        if lasts < Span::secs(1) || lasts > INVITED_MOST {
            return Err(Refusal::Bad(format!("an invitation lasts 1s to {}", INVITED_MOST.compact())));
        }
        if labels.len() > LABELS {
            return Err(Refusal::Bad(format!("a runner has at most {LABELS} labels")));
        }
        let secret = andon_kit::secret::fresh("");
        let token = Digest::of(secret.as_bytes());
        self.decide_server(caller.actor(), |_, now| {
            Ok((vec![Event::RunnerInvited { token, expires: now + lasts, labels }], ()))
        })
        .await?;
        let token = door.identity.token(remote::PREFIX, &secret);
        Ok(Invitation { server: door.server.clone(), token, lasts })
    }

    /// Whether a machine may come in, and as which runner.
    async fn admit_runner(&self, entry: Entry) -> Result<RunnerName, Refused> {
        let (token, name, labels, slots, credential) = match entry {
            Entry::Join { token, name, labels, slots, credential } => {
                (Digest::of(token.as_bytes()), name, labels, slots, credential)
            }
            Entry::Back { secret } => return self.runner_is_back(&Digest::of(secret.as_bytes())),
        };
        // Let in before, and gone before it heard so.
        if let Some(runner) = self.runners().holder(&credential) {
            return Ok(runner.name.clone());
        }
        let made = self.decide_server(Actor::line("runners"), |_, now| {
            let runners = self.runners();
            let Some(given) = runners.invites(&token, now) else {
                let why = "this token was used already, is too old, or is not of this server\nhint: `andon runner token` prints a new one";
                return Err(Refusal::Conflict(why.into()));
            };
            if runners.joined.contains_key(&name) {
                let why = format!(
                    "there is a runner called {name} already\nhint: give another --name, or let that one leave first: andon runner leave {name}"
                );
                return Err(Refusal::Conflict(why));
            }
            if runners.joined.len() >= MOST {
                return Err(Refusal::Conflict(format!("there are {MOST} runners already")));
            }
            let mut labels: Vec<LabelName> = given.iter().cloned().chain(labels).collect();
            labels.sort();
            labels.dedup();
            let joined = Event::RunnerJoined { runner: name.clone(), labels, slots, token, credential };
            Ok((vec![joined], ()))
        });
        made.await.map_err(|refusal| Refused::because(refusal.to_string()))?;
        Ok(name)
    }

    fn runner_is_back(&self, credential: &Digest) -> Result<RunnerName, Refused> {
        let runners = self.runners();
        match (runners.holder(credential), runners.left_with(credential)) {
            (Some(runner), _) => Ok(runner.name.clone()),
            (None, Some(name)) => Err(Refused { why: format!("{name} has left this server"), left: true }),
            (None, None) => Err(Refused::because(
                "this server knows no runner with this secret\nhint: its data may have been made anew; join again with a token of `andon runner token` and another --data",
            )),
        }
    }

    /// Gives a runner no more jobs; `forget`: it is none any more once its last one is over.
    pub async fn empty_runner(
        &self,
        caller: &Caller,
        runner: RunnerName,
        forget: bool,
        why: &str,
    ) -> Result<(), Refusal> {
        caller.may(Role::Owner)?;
        let why = match plain(why) {
            empty if empty.trim().is_empty() => "a person asked for it".to_owned(),
            why => why,
        };
        self.decide_server(caller.actor(), |_, _| {
            self.known_runner(&runner)?;
            Ok((vec![Event::RunnerLeaving { runner, forget, why }], ()))
        })
        .await
    }

    /// A runner gets jobs again.
    pub async fn keep_runner(&self, caller: &Caller, runner: RunnerName) -> Result<(), Refusal> {
        caller.may(Role::Owner)?;
        self.decide_server(caller.actor(), |_, _| {
            self.known_runner(&runner)?;
            Ok((vec![Event::RunnerStays { runner }], ()))
        })
        .await?;
        self.wake_all();
        Ok(())
    }

    fn known_runner(&self, runner: &RunnerName) -> Result<(), Refusal> {
        if self.runners().joined.contains_key(runner) {
            return Ok(());
        }
        Err(Refusal::Unknown(format!(
            "there is no runner {runner}\nhint: `andon runner list` shows those there are"
        )))
    }

    /// Where jobs may run at this moment.
    pub fn job_places(&self) -> Places {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let place = |runner: &andon_pipeline::runners::Runner| Place {
            name: runner.name.clone(),
            labels: runner.labels.clone(),
            free: (runner.slots as usize).saturating_sub(taken.get(&runner.name).copied().unwrap_or(0)),
            standing: match (&runner.leaving, self.crew.silent_for(&runner.name)) {
                (Some(_), _) => Standing::Leaving,
                (None, None) => Standing::Takes,
                (None, Some(_)) => Standing::Away,
            },
        };
        let here = self.slots.available_permits();
        Places { here, runners: self.runners().joined.values().map(place).collect() }
    }

    /// Jobs that a runner has at this moment.
    pub fn jobs_on(&self, runner: &RunnerName) -> usize {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).get(runner).copied().unwrap_or(0)
    }

    /// A place on a runner; none: it has none free. What runs there already has its place in any case.
    pub(crate) fn take_slot(self: &Arc<Line>, runner: &RunnerName, runs: bool) -> Option<Slot> {
        let most = self.runners().joined.get(runner).map_or(0, |runner| runner.slots as usize);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = taken.entry(runner.clone()).or_default();
        if !runs && *taken >= most {
            return None;
        }
        *taken += 1;
        Some(Slot { line: Arc::clone(self), runner: runner.clone() })
    }

    /// Where machines dial this server to be runners; none: it lets none in.
    pub fn runners_dial(&self) -> Option<&str> {
        self.runners_door.get().map(|door| door.server.as_str())
    }

    /// Wakes the stations of all projects: what they waited for may be there.
    pub(crate) fn wake_all(&self) {
        for project in self.projects() {
            let last = project.state().feed.back().cloned();
            if let Some(last) = last {
                self.nudge(&last);
            }
        }
    }
}
