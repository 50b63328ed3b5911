//! A server's end and an agent in one process, connected as two machines are.

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "all of it is test code")]

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use andon_model::HostName;
use andon_runtime::Runtime;
use andon_runtime::remote::trust::Identity;
use andon_runtime::remote::{self, Admit, Entry, Fleet, Joining};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::station::until;

const EXE: &str = env!("CARGO_BIN_EXE_andon-shim-test");

/// What ends an agent, and how it ended.
type Agent = (CancellationToken, JoinHandle<Result<(), String>>);

/// A fleet with one host.
pub struct Joined {
    pub tokio: tokio::runtime::Runtime,
    pub fleet: Arc<Fleet>,
    pub host: HostName,
    pub data: PathBuf,
    agent: Mutex<Option<Agent>>,
    stop: CancellationToken,
}

impl Joined {
    /// Whoever comes is let in.
    pub fn new(room: &Path) -> Joined {
        let tokio =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let identity = Identity::open(&room.join("door.json")).unwrap();
        let fleet = Arc::new(Fleet::new(tokio.handle().clone()));
        let listener = tokio.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let server = listener.local_addr().unwrap().to_string();
        let host: HostName = "n1".parse().unwrap();
        let admit: Admit = Arc::new(|entry| {
            Box::pin(async move {
                match entry {
                    Entry::Join { name, .. } => Ok(name),
                    Entry::Back { .. } => Ok("n1".parse().unwrap()),
                }
            })
        });
        let (stop, data) = (CancellationToken::new(), room.join("host"));
        let token = identity.token("andon_host_", &"0".repeat(32));
        tokio.spawn(Arc::clone(&fleet).serve(listener, identity, admit, stop.clone()));
        let joined = Joined { tokio, fleet, host: host.clone(), data, agent: Mutex::default(), stop };
        let address = Some([127, 0, 0, 1].into());
        let joining = Joining { server, token, name: host, address, labels: Default::default() };
        let (data, ended) = (joined.data.clone(), CancellationToken::new());
        let heard = ended.clone();
        let agent =
            joined.tokio.spawn(async move { remote::join(&data, EXE.into(), joining, heard, |_| ()).await });
        *joined.agent.lock().unwrap() = Some((ended, agent));
        joined.reached();
        joined
    }

    fn reached(&self) {
        until("the host is connected", || self.fleet.reaches(&self.host).then_some(()));
    }

    pub fn runtime(&self) -> Arc<dyn Runtime> {
        self.fleet.runtime(&self.host, &"shop".parse().unwrap())
    }

    /// When the agent ends.
    pub fn ends(&self) {
        let (ended, agent) = self.agent.lock().unwrap().take().unwrap();
        ended.cancel();
        self.tokio.block_on(agent).unwrap().unwrap();
        until("the connection is gone", || (!self.fleet.reaches(&self.host)).then_some(()));
    }

    /// When another one takes its place.
    pub fn anew(&self) -> Arc<dyn Runtime> {
        if self.agent.lock().unwrap().is_some() {
            self.ends();
        }
        let (data, ended) = (self.data.clone(), CancellationToken::new());
        let heard = ended.clone();
        let agent = self.tokio.spawn(async move { remote::run(&data, EXE.into(), heard, |_| ()).await });
        *self.agent.lock().unwrap() = Some((ended, agent));
        self.reached();
        self.runtime()
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
