//! One controller per station. Each is a loop that wakes on news of its project, and by the clock for what time alone decides.

mod certificates;
pub mod cord;
pub mod dark;
pub mod data;
pub(crate) mod definition;

pub mod environment;
pub mod environment_tests;
pub mod flags;
pub mod gate;
pub mod handouts;
mod hosts;
mod identity;
pub mod infrastructure;
pub mod memory;
pub mod pipeline;
pub mod provenance;
mod recovery;
pub mod release;
pub mod routes;
mod runners;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio_util::sync::CancellationToken;

use andon_model::Recorded;

use crate::{Line, Project, Refusal};

/// Pause after a station failed, so that a full disk does not become a busy loop as well.
const AFTER_ERROR: Duration = Duration::from_secs(1);

/// Runs all controllers of all projects, also of those that join later, until `stop`.
pub async fn run(line: Arc<Line>, stop: CancellationToken) {
    let mut news = line.news();
    line.make_keys().await;
    let mut started = std::collections::BTreeSet::new();
    let mut running = tokio::task::JoinSet::new();
    running.spawn(recovery::run(Arc::clone(&line), stop.clone()));
    running.spawn(hosts::run(Arc::clone(&line), stop.clone()));
    running.spawn(certificates::run(Arc::clone(&line), stop.clone()));
    running.spawn(runners::run(Arc::clone(&line), stop.clone()));
    let (listening, ended) = (Arc::clone(&line), stop.clone());
    running.spawn(async move {
        // None: the server stops; it never ends by itself.
        let _ = ended.run_until_cancelled(listening.hear_knocks()).await;
    });
    loop {
        for project in line.projects() {
            if started.insert(project.name.clone()) {
                project_stations(&line, &project, &stop, &mut running);
            }
        }
        tokio::select! {
            () = stop.cancelled() => break,
            _ = news.recv() => {}
        }
    }
    while running.join_next().await.is_some() {}
}

fn project_stations(
    line: &Arc<Line>,
    project: &Arc<Project>,
    stop: &CancellationToken,
    running: &mut tokio::task::JoinSet<()>,
) {
    running.spawn(gate::run(Arc::clone(line), Arc::clone(project), stop.clone()));
    running.spawn(provenance::run(Arc::clone(line), Arc::clone(project), stop.clone()));
    running.spawn(pipeline::run(Arc::clone(line), Arc::clone(project), stop.clone()));
    running.spawn(memory::run(Arc::clone(line), Arc::clone(project), stop.clone()));
    running.spawn(environment::run(Arc::clone(line), Arc::clone(project), stop.clone()));
    running.spawn(infrastructure::run(Arc::clone(line), Arc::clone(project), stop.clone()));
    running.spawn(data::run(Arc::clone(line), Arc::clone(project), stop.clone()));
    running.spawn(release::run(Arc::clone(line), Arc::clone(project), stop.clone()));
}

/// The heartbeat of a station.
pub(crate) struct Pulse {
    news: Receiver<Arc<Recorded>>,
    project: andon_model::ProjectName,
    stop: CancellationToken,
    every: Duration,
}

impl Pulse {
    pub(crate) fn new(line: &Line, project: &Project, stop: CancellationToken, every: Duration) -> Pulse {
        Pulse { news: line.news(), project: project.name.clone(), stop, every }
    }

    /// How long to wait at most from now on.
    pub(crate) fn every(&mut self, every: Duration) {
        self.every = every;
    }

    /// Waits until something happened in the project or it is time to look. False: the server stops.
    pub(crate) async fn beat(&mut self, last: Result<(), Refusal>, station: &str) -> bool {
        if let Err(error) = last {
            tracing::error!(project = %self.project, station, %error, "station failed, it tries again");
            tokio::time::sleep(AFTER_ERROR).await;
        }
        let tick = tokio::time::sleep(self.every);
        tokio::pin!(tick);
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return false,
                () = &mut tick => break,
                news = self.news.recv() => match news {
                    Ok(event) if event.project.as_ref() != Some(&self.project) => {}
                    Ok(_) | Err(RecvError::Lagged(_)) => break,
                    Err(RecvError::Closed) => return false,
                },
            }
        }
        // What came together is looked at together.
        while self.news.try_recv().is_ok() {}
        !self.stop.is_cancelled()
    }
}
