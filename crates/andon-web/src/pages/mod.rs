//! One module per page: a view of andon-line in, markup out. What may be done is offered to those who may.

pub mod andon;
pub mod change;
pub mod coverage;
pub mod environment;
pub mod flags;
pub mod flow;
pub mod hosts;
pub mod infrastructure;
pub mod parity;
pub mod queue;
pub mod recovery;
pub mod release;
pub mod run;
pub mod suite;
pub mod wall;

#[cfg(test)]
mod tests;
