//! Where agents come in. Who may is said by others.

use std::sync::Arc;

use andon_dial::trust::Identity;
use andon_dial::{Peer, Porter, Refused, door};
use andon_model::HostName;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::fleet::Fleet;
use super::wire::{Entry, Hello, VERSION};

/// The answer to whoever wants to come in, once it is recorded.
pub type Admitted = std::pin::Pin<Box<dyn Future<Output = Result<HostName, Refused>> + Send>>;
/// Says who may come in, and records it.
pub type Admit = Arc<dyn Fn(Entry) -> Admitted + Send + Sync>;

struct AtDoor {
    fleet: Arc<Fleet>,
    admit: Admit,
}

impl Porter for AtDoor {
    type Hello = Hello;
    type Guest = HostName;

    async fn admit(&self, hello: &Hello) -> Result<HostName, Refused> {
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

    fn peer(&self, host: &HostName, hello: Hello) -> Arc<Peer> {
        self.fleet.greeted(host, hello.isolation)
    }
}

impl Fleet {
    /// Lets agents in until `stop`.
    pub async fn serve(
        self: Arc<Fleet>,
        listener: TcpListener,
        identity: Identity,
        admit: Admit,
        stop: CancellationToken,
    ) {
        door::serve(Arc::new(AtDoor { fleet: self, admit }), listener, identity, stop).await;
    }
}
