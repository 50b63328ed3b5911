//! Entering a sandbox for nothing, to find out whether this host permits it. The counterpart of [`crate::Means::find`], in processes of its own.

use std::io::{self, Read, Write};
use std::process::{Command, Stdio};

use crate::{Plan, enter, leave};

/// What is said when it went well.
pub const ENTERED: &str = "entered";

/// The first process: reads a plan as JSON from its input, leaves the host's processes, and starts `again`, which calls
/// [`rehearse_inside`]. The exit status for `main`.
pub fn rehearse_outside(again: Command) -> i32 {
    told(outside(again), "")
}

/// The second one: enters the plan that comes on its input and says [`ENTERED`], or why it cannot.
pub fn rehearse_inside() -> i32 {
    told(read_plan().and_then(|plan| enter(&plan, || Ok(()))), ENTERED)
}

fn told(done: Result<(), String>, well: &str) -> i32 {
    let said = done.as_ref().map_or_else(String::as_str, |()| well);
    // Nobody to tell if this fails.
    let _ = io::stdout().write_all(said.as_bytes());
    i32::from(done.is_err())
}

fn read_plan() -> Result<Plan, String> {
    let mut text = String::new();
    io::stdin().read_to_string(&mut text).map_err(|error| format!("cannot read the plan: {error}"))?;
    serde_json::from_str(&text).map_err(|error| format!("cannot read the plan: {error}"))
}

fn outside(mut again: Command) -> Result<(), String> {
    let plan = read_plan()?;
    leave(&plan)?;
    let failed = |error: io::Error| format!("cannot start a process: {error}");
    let mut child = again.stdin(Stdio::piped()).spawn().map_err(failed)?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(&serde_json::to_vec(&plan).map_err(|error| error.to_string())?).map_err(failed)?;
    }
    // It says itself what went wrong.
    child.wait().map(drop).map_err(failed)
}
