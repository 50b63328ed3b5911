//! What every runtime can do: the door through which the line runs instances, whatever runs them. Holds no runtime.

use std::collections::BTreeSet;
use std::io::Read;
use std::net::SocketAddr;

use andon_model::{EnvironmentName, Packages, RuntimeKind};

use crate::error::RuntimeError;
pub use crate::sandbox::Isolation;
use crate::{Difference, Foreign, Observed, Process, Shell, ShellOrder, Spec};

/// Runs instances. Everything blocks: call it from a blocking task. Each verb may be repeated; done again it is nothing.
///
/// What it runs outlives the server: a new one finds it again by [`Runtime::list`], from what the host itself tells.
pub trait Runtime: Send + Sync {
    /// Which one.
    fn kind(&self) -> RuntimeKind;

    /// What separates an instance of this environment from everything else on the host, and what is lacking.
    fn isolation(&self, environment: &EnvironmentName) -> Isolation;

    /// An address for one more instance; `used` are taken. `port` is where its service always listens: in a network of its own it may.
    fn place(
        &self,
        environment: &EnvironmentName,
        used: &BTreeSet<SocketAddr>,
        port: Option<u16>,
    ) -> Result<SocketAddr, RuntimeError>;

    /// Puts the artifact (a tar) where the instance will find it. All of it or nothing.
    fn prepare(&self, spec: &Spec, artifact: &mut dyn Read) -> Result<(), RuntimeError>;

    /// Starts it, and returns when its command runs.
    fn start(&self, spec: &Spec) -> Result<(), RuntimeError>;

    /// Ends it with everything it started: asked first, killed after its time. Returns when nothing runs.
    fn stop(&self, id: &str) -> Result<(), RuntimeError>;

    /// Stops it and removes all that was made for it. One that is not there is as good.
    fn remove(&self, id: &str) -> Result<(), RuntimeError>;

    /// Every instance that was ever started and not removed.
    fn list(&self) -> Result<Vec<Observed>, RuntimeError>;

    /// The last lines of its output.
    fn logs(&self, id: &str, lines: usize) -> Result<String, RuntimeError>;

    /// What differs between its files and its artifact.
    fn differences(&self, id: &str) -> Result<Vec<Difference>, RuntimeError>;

    /// What differs between its settings on the host and those it was started with: limits, networks.
    fn settings(&self, _id: &str) -> Result<Vec<Difference>, RuntimeError> {
        Ok(Vec::new())
    }

    /// Instances whose files may have changed since they were asked for last; none: this runtime cannot tell, look at all.
    fn touched(&self) -> Option<BTreeSet<String>> {
        None
    }

    /// Counts up when it is worth looking at once: files were touched, or an instance ended. None: only looking tells.
    fn watch(&self) -> Option<tokio::sync::watch::Receiver<u64>> {
        None
    }

    /// Packages of the operating system that an instance sees, by records that are read; none: this runtime cannot tell.
    fn packages(&self, _id: &str) -> Result<Option<Packages>, RuntimeError> {
        Ok(None)
    }

    /// Opens a shell inside an instance that runs, within what separates that from everything else.
    fn shell(&self, id: &str, _order: &ShellOrder) -> Result<Shell, RuntimeError> {
        Err(RuntimeError::NoShell { id: id.to_owned(), why: "this runtime offers no shell".into() })
    }

    /// Processes among the instances that none of them accounts for.
    fn foreign(&self) -> Result<Vec<Foreign>, RuntimeError>;

    /// Kills a process that [`Runtime::foreign`] named. False: it is gone already.
    fn kill_foreign(&self, process: Process) -> Result<bool, RuntimeError>;

    /// Removes what an environment without instances still holds on the host: networks, groups, mounts.
    fn clear(&self, environment: &EnvironmentName) -> Result<(), RuntimeError>;
}
