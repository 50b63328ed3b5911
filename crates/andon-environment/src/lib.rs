//! Desired state of environments, drift and the plan that heals it. No Docker, no Terraform, no processes.
//!
//! [`estate`] is the fold over line events: environments, deployments, instances, and what serves. [`promote`] says which artifact goes into
//! which environment next. [`parity`] holds two environments against each other. [`glass`] knows who opened a shell where. [`upkeep`] compares what should run with what was observed and says what to do about it;
//! [`hosts`] is the fold over the machines that instances run on, [`rotation`] says on which of them.

pub mod blueprint;
pub mod data;
pub mod due;
pub mod estate;
mod exception;
pub mod glass;
pub mod guard;
pub mod healing;
pub mod hosts;
pub mod infrastructure;
pub mod life;
pub mod lost;
pub mod parity;
pub mod promote;
pub mod rotation;
pub mod states;
pub mod upkeep;

pub use estate::{Deployment, DeploymentState, Environment, Estate, Instance, Landing, Serving};
pub use exception::Exception;
pub use parity::Parity;
