//! Infrastructure: the state backend that Terraform and OpenTofu speak with, and the runs of the tool that the line makes itself.
//! `backend` keeps states, `commands` is what people ask. The rules are in andon-environment.

pub mod backend;
mod commands;

/// The station's name in the journal.
const STATION: &str = "infrastructure";

pub use backend::{Scope, StateRefusal};
