//! Where agents come in. Who may is said by others.

use std::pin::Pin;
use std::sync::Arc;

use andon_dial::trust::Identity;
use andon_dial::{Peer, Porter, Refused, door};
use andon_model::RunnerName;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::crew::Crew;
use super::wire::{Entry, Hello, VERSION};

/// The answer to whoever wants to come in, once it is recorded.
pub type Admitted = Pin<Box<dyn Future<Output = Result<RunnerName, Refused>> + Send>>;
/// Says who may come in, and records it.
pub type Admit = Arc<dyn Fn(Entry) -> Admitted + Send + Sync>;

struct AtDoor {
    crew: Arc<Crew>,
    admit: Admit,
}

impl Porter for AtDoor {
    type Hello = Hello;
    type Guest = RunnerName;

    async fn admit(&self, hello: &Hello) -> Result<RunnerName, Refused> {
        match hello.version {
            VERSION => match hello.entry.flaw() {
                None => (self.admit)(hello.entry.clone()).await,
                Some(flaw) => Err(Refused::because(flaw)),
            },
            other => Err(Refused::because(format!(
                "its agent speaks version {other} and this server {VERSION}\nhint: use the same version of andon on both"
            ))),
        }
    }

    fn peer(&self, runner: &RunnerName, hello: Hello) -> Arc<Peer> {
        self.crew.greeted(runner, hello.means, hello.dir)
    }
}

impl Crew {
    /// Lets agents in until `stop`.
    pub async fn serve(
        self: Arc<Crew>,
        listener: TcpListener,
        identity: Identity,
        admit: Admit,
        stop: CancellationToken,
    ) {
        door::serve(Arc::new(AtDoor { crew: self, admit }), listener, identity, stop).await;
    }
}
