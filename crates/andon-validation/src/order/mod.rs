//! The order of tests: what tells most per second goes first. Reads no report and runs no test.
//!
//! [`history`] is what is remembered of a test, [`names`] finds it again under the name that a runner uses, [`known`] is all that is
//! remembered of a project, `near` how near a test is to what changed, [`rank`] puts tests in order and says why, [`split`] deals them out to shards, [`evaluate`] scores any recorded
//! history of tests by the measures of the field.

pub mod evaluate;
pub mod history;
pub mod known;
pub mod names;
mod near;
pub mod rank;
pub mod split;

pub use history::History;
pub use known::Known;
pub use rank::{Ranked, order};
