//! The rules of stopping the line and starting it again. Sends nothing, reads no clock.
//!
//! `state` folds the journal into a [`Cord`]; `rules` says when the line stops by itself, what proves a fix and what disproves it;
//! `command` is what people do. Stopping needs a reason and nothing else; starting again needs evidence or a person with a reason.

pub mod command;
pub mod rules;
pub mod state;

pub use command::Refusal;
pub use rules::{PullOn, react, recover};
pub use state::{Andon, Cord, Fix, Hold};

#[cfg(test)]
mod tests;
