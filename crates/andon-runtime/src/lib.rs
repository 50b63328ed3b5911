//! Runs instances of services as supervised processes, or as containers, that outlive the server. No release policy.
//!
//! Each instance has a directory: what runs (`spec.json`), how it is (`state.json`), its output (`log`), its files
//! (`release/`) and a `lock` that its *shim* holds for as long as it lives. The shim is the server's own binary, run
//! again as a small process of its own, without threads: it starts the command, keeps its output, stops it with
//! everything it started, and writes down how it ended. The server may be killed and updated at any time; the next one
//! reads the directories and goes on.
//!
//! What runs is confined by [`sandbox`] as far as the host permits; what it does not permit is said, with the reason.
//!
//! Everything but [`health`] blocks: call it from a blocking task.

mod docker;
mod error;
mod health;
mod manifest;
mod packages;
mod port;
mod process;
pub mod remote;
mod shell;
mod spec;
mod unpack;

pub use andon_sandbox as sandbox;
pub use docker::{About, DockerRuntime};
pub use error::RuntimeError;
pub use health::{free_port, free_port_at, health};
pub use manifest::{Difference, Entry, Inspector, Manifest, tree_digest};
pub use port::{Isolation, Runtime};
pub use process::{Foreign, Observed, Process, ProcessRuntime, shim_main};
pub use shell::{NOT_OPENED, Said, Shell, ShellOrder, Size, Terminal, Typed};
pub use spec::{Exit, Spec};
pub use unpack::{Limits, unpack};
