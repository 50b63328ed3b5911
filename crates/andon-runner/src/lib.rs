//! Executes jobs as process trees in a sandbox, in steps, so that they outlive the server; gathers what they leave behind. Schedules
//! nothing and judges nothing.
//!
//! [`execute`] is the server's side: attempts started, followed, adopted, stopped. [`shim`] is the process that holds an attempt, [`room`] the
//! directory by which both know of each other, [`order`] what is said between them, [`confine`] what a job sees. [`gather`] finds reports
//! and packs artifacts, [`parcel`] carries files between working copies. [`remote`] is the same on
//! machines that joined, [`engine`] the container engine for jobs that ask for it.

pub mod confine;
pub mod engine;
pub mod execute;
pub mod gather;
pub mod log;
pub mod order;
pub mod parcel;
pub mod remote;
pub mod room;
pub mod shim;

pub use confine::machine_env;
pub use execute::{News, Runner, Running};
pub use order::{End, Order, Service, Step, StepEnd};
pub use room::Room;
