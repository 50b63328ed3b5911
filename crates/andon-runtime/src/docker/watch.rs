//! News of the engine: what somebody does to our containers is heard at once, and not found at the next look.

use std::collections::HashMap;
use std::time::Duration;

use bollard::API_DEFAULT_VERSION;
use bollard::query_parameters::EventsOptionsBuilder;
use futures_util::StreamExt as _;
use tokio::sync::watch;

use super::DockerRuntime;
use super::engine::reactor;

/// What can make an instance differ from its code. Reading a container's files is an event too, and not among them: a look would call
/// for the next one.
const EVENTS: [&str; 11] = [
    "die",
    "destroy",
    "oom",
    "pause",
    "unpause",
    "update",
    "rename",
    "start",
    "extract-to-dir",
    "exec_start",
    "exec_die",
];
/// Between two attempts to reach an engine that is not there.
const AGAIN: Duration = Duration::from_secs(2);

impl DockerRuntime {
    /// Counts news, for as long as somebody listens.
    pub(super) fn follow(&self) -> watch::Receiver<u64> {
        let (tell, told) = watch::channel(0);
        let host = self.engine.host().to_owned();
        let mut filters: HashMap<&str, Vec<String>> = self.ours();
        filters.insert("type", vec!["container".into()]);
        filters.insert("event", EVENTS.map(str::to_owned).into());
        reactor().spawn(async move {
            while !tell.is_closed() {
                // A connection of its own: it stays open, and asks for nothing else. Its silence is no failure.
                if let Ok(docker) =
                    bollard::Docker::connect_with_unix(&host, u64::from(u32::MAX), API_DEFAULT_VERSION)
                    && let Ok(docker) = docker.negotiate_version().await
                {
                    // What happened while nobody listened is looked for.
                    tell.send_modify(|count| *count += 1);
                    let mut events =
                        docker.events(Some(EventsOptionsBuilder::new().filters(&filters).build()));
                    loop {
                        tokio::select! {
                            () = tell.closed() => return,
                            event = events.next() => match event {
                                Some(Ok(_)) => tell.send_modify(|count| *count += 1),
                                Some(Err(_)) | None => break,
                            },
                        }
                    }
                    tell.send_modify(|count| *count += 1);
                }
                tokio::select! {
                    () = tell.closed() => return,
                    () = tokio::time::sleep(AGAIN) => {}
                }
            }
        });
        told
    }
}
