//! The disaster drill: a backup is made, everything is made again from it and from code beside what runs, timed, and removed. Users notice
//! nothing. Infrastructure of providers is not made twice: its state comes back with the backup. Databases are made from their migrations.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use andon_kit::SystemClock;
use andon_model::event::{Actor, Event, Role};
use andon_model::{ServiceName, Time};
use tokio_util::sync::CancellationToken;

use crate::recovery::Drill;
use crate::stations::environment;
use crate::{Caller, Line, Project, Refusal, Settings, State, backup};

/// Where the second server lives, below the data directory.
const FOLDER: &str = "drills";
/// How long everything may take to come back.
const PATIENCE: Duration = Duration::from_secs(300);
/// Between two looks at what is back.
const LOOK: Duration = Duration::from_millis(100);

impl Line {
    /// Holds a drill at the wish of a person, and returns when it is over.
    pub async fn drill(self: &Arc<Line>, caller: &Caller) -> Result<Drill, Refusal> {
        caller.may(Role::Owner)?;
        self.hold_drill(caller.actor()).await
    }

    pub(crate) async fn hold_drill(self: &Arc<Line>, by: Actor) -> Result<Drill, Refusal> {
        let Ok(_turn) = self.drill_turn.try_lock() else {
            return Err(Refusal::Conflict("a drill is being held already\nhint: wait for its end".into()));
        };
        let made = self.make_backup(by.clone()).await?;
        let folder = self.settings.data.join(FOLDER);
        std::fs::create_dir_all(&folder)?;
        let place = folder.join(format!("of-{}", made.seq));
        sweep(&place, &self.settings.exe).await?;
        let began = self.now();
        let held = match self.drop_drill_databases().await {
            Ok(()) => self.made_again(&made.name, &place, began).await,
            Err(error) => Err(error),
        };
        sweep(&place, &self.settings.exe).await?;
        if let Err(error) = self.drop_drill_databases().await {
            tracing::error!(%error, "databases of a drill could not be dropped, they are with the next one");
        }
        let drill = held.unwrap_or_else(|error| Drill {
            at: began,
            backup: made.name.clone(),
            opened: self.now().since(began),
            served: None,
            environments: 0,
            instances: 0,
            why: Some(crate::intake::plain(&error.to_string())),
        });
        let told = Event::DrillFinished {
            backup: drill.backup.clone(),
            opened: drill.opened,
            served: drill.served,
            environments: drill.environments,
            instances: drill.instances,
            why: drill.why.clone(),
        };
        self.decide_server(by, |_, _| Ok((vec![told], ()))).await?;
        Ok(drill)
    }

    async fn made_again(&self, name: &str, place: &Path, began: Time) -> Result<Drill, Refusal> {
        let key = self.settings.data.join("key");
        let archive = self.backups().join(name);
        backup::restore(&archive, Some(place), Some(&key), &self.settings.exe).await?;
        let settings = Settings {
            data: place.to_owned(),
            slots: 1,
            certificates: None,
            access_log: None,
            ..self.settings.clone()
        };
        // Boxed: a server within a server would otherwise have no size.
        let second = Box::pin(Line::open(settings, Box::new(SystemClock::default()))).await?;
        let opened = self.now().since(began);
        second.make_databases_again().await?;
        let stop = CancellationToken::new();
        let mut running = tokio::task::JoinSet::new();
        for project in second.projects() {
            running.spawn(environment::run(Arc::clone(&second), project, stop.clone()));
        }
        let (environments, wanted) = wanted(&second);
        let back = async {
            while missing(&second) > 0 {
                tokio::time::sleep(LOOK).await;
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, back).await.is_ok();
        let served = in_time.then(|| self.now().since(began));
        let lacking = missing(&second);
        stop.cancel();
        while running.join_next().await.is_some() {}
        let why = (!in_time).then(|| format!("{lacking} of {wanted} instances did not come back"));
        Ok(Drill {
            at: self.now(),
            backup: name.to_owned(),
            opened,
            served,
            environments,
            instances: wanted,
            why,
        })
    }

    /// Removes what a drill left that was cut off. Call it before the first one.
    pub(crate) async fn sweep_drills(&self) -> Result<(), Refusal> {
        let Ok(left) = std::fs::read_dir(self.settings.data.join(FOLDER)) else { return Ok(()) };
        for place in left.flatten() {
            sweep(&place.path(), &self.settings.exe).await?;
        }
        self.drop_drill_databases().await
    }
}

/// Services that serve, with how many instances each ought to have and has.
fn instances(state: &State) -> impl Iterator<Item = (&ServiceName, usize, usize)> {
    state.estate.environments.values().flat_map(move |environment| {
        environment.serving.iter().filter_map(move |(name, serving)| {
            let stable = serving.stable.as_ref()?;
            let service = state.estate.of_revision(&environment.name, stable)?.service(name)?;
            let healthy = state.estate.healthy(&environment.name, name, stable).count();
            Some((name, environment.replicas(service) as usize, healthy))
        })
    })
}

fn wanted(line: &Line) -> (u32, u32) {
    let (mut environments, mut wanted) = (0, 0);
    for project in line.projects() {
        let state = project.state();
        environments += state.estate.environments.values().filter(|e| !e.serving.is_empty()).count();
        wanted += instances(&state).map(|(_, wanted, _)| wanted).sum::<usize>();
    }
    (environments as u32, wanted as u32)
}

fn missing(line: &Line) -> usize {
    let missing_in = |project: &Arc<Project>| {
        let state = project.state();
        instances(&state).map(|(_, wanted, healthy)| wanted.saturating_sub(healthy)).sum::<usize>()
    };
    line.projects().iter().map(missing_in).sum()
}

/// Ends everything that runs from a second server's data directory, and removes it.
async fn sweep(place: &Path, exe: &Path) -> Result<(), Refusal> {
    if !place.exists() {
        return Ok(());
    }
    let (place, exe): (PathBuf, PathBuf) = (place.to_owned(), exe.to_owned());
    let fleet = Arc::new(andon_runtime::remote::Fleet::new(tokio::runtime::Handle::current()));
    let swept = tokio::task::spawn_blocking(move || {
        for entry in std::fs::read_dir(place.join("instances")).into_iter().flatten().flatten() {
            let Ok(name) = entry.file_name().to_string_lossy().parse() else { continue };
            let project = Project::new(name, &place, &exe, State::default(), Arc::clone(&fleet))?;
            for runtime in project.runtimes() {
                let broken = |error: andon_runtime::RuntimeError| Refusal::Broken(error.to_string());
                // One that does not answer runs nothing of a drill that could not have used it.
                for observed in runtime.list().unwrap_or_default() {
                    runtime.remove(&observed.id).map_err(broken)?;
                    let environment = observed.labels.get("environment").and_then(|name| name.parse().ok());
                    if let Some(environment) = environment {
                        runtime.clear(&environment).map_err(broken)?;
                    }
                }
            }
        }
        std::fs::remove_dir_all(&place)?;
        Ok(())
    });
    swept.await.map_err(|error| Refusal::Broken(error.to_string()))?
}
