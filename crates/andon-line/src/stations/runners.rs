//! The server's station for runners: sees who is back, ends there what is no longer theirs, and lets those go that have no job left. Gives no
//! jobs: the pipeline's station does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use andon_model::RunnerName;
use andon_model::event::{Actor, Event};
use andon_pipeline::runners::Runner;
use tokio_util::sync::CancellationToken;

use super::pipeline::has_assigned;
use crate::{Line, Refusal};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(250);
/// The station's name in the journal.
const RUNNERS: &str = "runners";

pub(super) async fn run(line: Arc<Line>, stop: CancellationToken) {
    let mut met = BTreeMap::new();
    loop {
        if let Err(error) = step(&line, &mut met).await {
            tracing::error!(%error, "runners could not be looked after, it is tried again");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// `met` are the connections that were seen before.
async fn step(line: &Arc<Line>, met: &mut BTreeMap<RunnerName, u64>) -> Result<(), Refusal> {
    let runners: Vec<Runner> = line.runners().joined.values().cloned().collect();
    for runner in runners {
        let name = &runner.name;
        match line.crew.connection(name) {
            Some(number) if met.get(name) != Some(&number) => {
                line.wake_all();
                if sweep(line, name).await {
                    met.insert(name.clone(), number);
                }
            }
            _ => {}
        }
        if let Some(leaving) = runner.leaving.as_ref().filter(|leaving| leaving.forget)
            && line.jobs_on(name) == 0
        {
            let_go(line, name, &leaving.why).await?;
        }
    }
    Ok(())
}

/// Ends there what the journal does not say is there. False: it could not be asked.
async fn sweep(line: &Arc<Line>, runner: &RunnerName) -> bool {
    let has = match line.crew.list(runner).await {
        Ok(has) => has,
        Err(error) => {
            tracing::warn!(%runner, %error, "it does not say what it has");
            return false;
        }
    };
    let mut all = true;
    for has in has {
        if has_assigned(line, runner, &has.which) {
            continue;
        }
        tracing::info!(%runner, attempt = has.which.attempt, "what came of it is refused: it is no longer this runner's");
        if let Err(error) = line.crew.let_go(runner, &has.which).await {
            tracing::warn!(%runner, %error, "an attempt there is not ended yet");
            all = false;
        }
    }
    all
}

/// Everything of it is ended before it is forgotten. One that is not reached for a whole lease hears of it if it ever comes back.
async fn let_go(line: &Arc<Line>, runner: &RunnerName, why: &str) -> Result<(), Refusal> {
    match line.crew.silent_for(runner) {
        None => {
            if let Err(error) = line.crew.dismiss(runner).await {
                tracing::warn!(%runner, %error, "it could not be let go yet");
                return Ok(());
            }
        }
        Some(silent) if silent < line.settings.runner_lease.duration() => return Ok(()),
        Some(_) => {}
    }
    let left = Event::RunnerLeft { runner: runner.clone(), why: why.to_owned() };
    line.decide_server(Actor::line(RUNNERS), |_, _| Ok((vec![left], ()))).await?;
    line.crew.forget(runner);
    Ok(())
}
