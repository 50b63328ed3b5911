//! The process runtime behind the door that all runtimes share.

use std::collections::BTreeSet;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use andon_model::{EnvironmentName, Packages, RuntimeKind};

use super::watch::Watcher;
use super::{Foreign, Observed, Process, ProcessRuntime, lock, read};
use crate::error::RuntimeError;
use crate::health::{free_port, free_port_at};
use crate::manifest::Difference;
use crate::port::{Isolation, Runtime};
use crate::shell::{Shell, ShellOrder};
use crate::spec::{self, Spec};

impl Runtime for ProcessRuntime {
    fn kind(&self) -> RuntimeKind {
        RuntimeKind::Process
    }

    fn isolation(&self, environment: &EnvironmentName) -> Isolation {
        let mut isolation = self.means().isolation();
        isolation.has.insert(0, "ended with everything it started".into());
        let network = "network of its own".to_owned();
        let mut own =
            self.specs().into_values().filter(|spec| spec.environment.as_ref() == Some(environment));
        match &self.means().network {
            Err(why) => isolation.lacks.push((network, why.clone())),
            Ok(()) if own.any(|spec| spec.address.is_some()) => isolation.has.push(network),
            Ok(()) => isolation.lacks.push((network, "none of its services names a `port`".into())),
        }
        isolation
    }

    fn place(
        &self,
        environment: &EnvironmentName,
        used: &BTreeSet<SocketAddr>,
        port: Option<u16>,
    ) -> Result<SocketAddr, RuntimeError> {
        if let Some(address) = self.bind {
            let taken = used.iter().filter(|at| at.ip() == address).map(SocketAddr::port).collect();
            let port = free_port_at(address, &taken);
            return port
                .map(|port| SocketAddr::from((address, port)))
                .map_err(RuntimeError::disk("find a free port on", address.to_string()));
        }
        if let (Some(port), Ok(())) = (port, &self.means().network) {
            let _turn = lock(&self.wiring);
            let address = self.networks().place(environment, used).map_err(RuntimeError::Network)?;
            return Ok(SocketAddr::from((address, port)));
        }
        let port = free_port(&used.iter().map(SocketAddr::port).collect());
        port.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
            .map_err(RuntimeError::disk("find a free port on", "127.0.0.1"))
    }

    fn prepare(&self, spec: &Spec, artifact: &mut dyn Read) -> Result<(), RuntimeError> {
        ProcessRuntime::prepare(self, &spec.instance, artifact)
    }

    fn start(&self, spec: &Spec) -> Result<(), RuntimeError> {
        ProcessRuntime::start(self, spec)
    }

    fn stop(&self, id: &str) -> Result<(), RuntimeError> {
        ProcessRuntime::stop(self, id)
    }

    fn remove(&self, id: &str) -> Result<(), RuntimeError> {
        ProcessRuntime::remove(self, id)
    }

    fn list(&self) -> Result<Vec<Observed>, RuntimeError> {
        ProcessRuntime::list(self)
    }

    fn logs(&self, id: &str, lines: usize) -> Result<String, RuntimeError> {
        ProcessRuntime::logs(self, id, lines)
    }

    fn differences(&self, id: &str) -> Result<Vec<Difference>, RuntimeError> {
        ProcessRuntime::differences(self, id)
    }

    fn touched(&self) -> Option<BTreeSet<String>> {
        let watcher = self.watcher.as_ref()?;
        // Those that an earlier server started.
        for id in self.ids().ok()? {
            let dir = self.root.join(&id);
            if let Ok(Some(spec)) = read::<Spec>(&dir.join(spec::SPEC)) {
                watcher.begin(&id, &dir, &spec.writes);
            }
        }
        watcher.touched()
    }

    fn watch(&self) -> Option<tokio::sync::watch::Receiver<u64>> {
        self.watcher.as_ref().map(Watcher::changes)
    }

    fn foreign(&self) -> Result<Vec<Foreign>, RuntimeError> {
        ProcessRuntime::foreign(self)
    }

    fn kill_foreign(&self, process: Process) -> Result<bool, RuntimeError> {
        ProcessRuntime::kill_foreign(self, process)
    }

    /// Instances see the programs of the host, whatever else is hidden from them.
    fn packages(&self, _id: &str) -> Result<Option<Packages>, RuntimeError> {
        self.packages
            .of_root(Path::new("/"))
            .map(Some)
            .map_err(RuntimeError::disk("read the packages below", "/"))
    }

    fn shell(&self, id: &str, order: &ShellOrder) -> Result<Shell, RuntimeError> {
        self.open_shell(id, order)
    }

    fn clear(&self, environment: &EnvironmentName) -> Result<(), RuntimeError> {
        let _turn = lock(&self.wiring);
        self.networks().clear(environment).map_err(RuntimeError::Network)
    }
}
