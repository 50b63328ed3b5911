//! A shell inside a running instance: what is asked for, and the two ends of it. Opens none; each runtime does in its own way.

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

/// Pieces that wait in either direction: whoever reads slowly is waited for.
const WAITING: usize = 16;
/// Exit status of a shell that could not be opened; what its command says itself is 126 and 127, as shells have it.
pub const NOT_OPENED: i32 = 125;

/// What is to run inside an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShellOrder {
    /// Tells its processes from all others of this host.
    pub name: String,
    /// Program and arguments; empty: a shell to type in. No shell reads it.
    pub command: Vec<String>,
    /// The terminal it gets; none: pipes.
    pub terminal: Option<Terminal>,
}

/// A terminal as the person has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terminal {
    /// What programs know it by: `xterm-256color`.
    pub kind: String,
    /// Its size.
    pub size: Size,
}

/// Columns and rows, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Across.
    pub columns: u16,
    /// Down.
    pub rows: u16,
}

/// What a person sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Typed {
    /// As typed.
    Bytes(Vec<u8>),
    /// Nothing more will come.
    End,
    /// The terminal has another size.
    Size(Size),
}

/// What comes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// Output.
    Out(Vec<u8>),
    /// Output for errors; with a terminal everything is output.
    Err(Vec<u8>),
    /// It ended with this status, and nothing of it runs any more. None: nobody saw how.
    Ended(Option<i32>),
}

/// An open shell. Dropping it ends it with everything that it started.
#[derive(Debug)]
pub struct Shell {
    /// To it.
    pub input: mpsc::Sender<Typed>,
    /// From it.
    pub output: mpsc::Receiver<Said>,
}

/// The runtime's end of a shell.
pub(crate) struct Inner {
    pub typed: mpsc::Receiver<Typed>,
    pub said: mpsc::Sender<Said>,
}

/// Both ends.
pub(crate) fn ends() -> (Shell, Inner) {
    let (input, typed) = mpsc::channel(WAITING);
    let (said, output) = mpsc::channel(WAITING);
    (Shell { input, output }, Inner { typed, said })
}
