//! The server's own station: makes backups and holds drills when they are due. How, is in `backup` and `drill`.

use std::sync::Arc;
use std::time::Duration;

use andon_model::Span;
use andon_model::event::Actor;
use tokio_util::sync::CancellationToken;

use crate::Line;

/// Between two looks at the clock.
const LOOK: Duration = Duration::from_secs(5);
/// After a failure it is not tried again for so long.
const AFTER_ERROR: Duration = Duration::from_secs(60);

pub(super) async fn run(line: Arc<Line>, stop: CancellationToken) {
    if let Err(error) = line.sweep_drills().await {
        tracing::error!(%error, "what a drill left could not be removed");
    }
    loop {
        let pause = match step(&line).await {
            Ok(()) => LOOK,
            Err(error) => {
                tracing::error!(%error, "backup or drill failed, it is tried again");
                AFTER_ERROR
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn step(line: &Arc<Line>) -> Result<(), crate::Refusal> {
    let now = line.now();
    let (backup, drill) = {
        let known = line.recovery();
        (known.backups.last().map(|made| made.at), known.drills.last().map(|drill| drill.at))
    };
    // A server that never made one waits its time first: right after its first start there is nothing to keep.
    let due = |every: Option<Span>, last| every.is_some_and(|every| now.since(last) >= every);
    let by = || Actor::line("recovery");
    if due(line.settings.drill_every, drill.unwrap_or(line.began)) {
        // A drill makes a backup of its own.
        line.hold_drill(by()).await?;
    } else if due(line.settings.backup_every, backup.unwrap_or(line.began)) {
        line.make_backup(by()).await?;
    }
    Ok(())
}
