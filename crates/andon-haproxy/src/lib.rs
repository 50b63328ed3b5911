//! HAProxy as a data plane: its configuration, its runtime socket, its counts. Starts and reloads no HAProxy; people do.
//!
//! [`config::config`] writes a configuration in which nothing that changes during a release stands: for each service
//! three backends with empty places for servers, and one line of a map that says who goes where. [`HaProxy`] fills
//! both through the socket and reads back what happened. The line of the map is replaced in one step, so weight,
//! epoch and revisions change together; who gets the new revision is a hash of the user and the release, so nobody
//! goes back on a ramp, and the share of users is the weight.
//!
//! HAProxy's memory is lost when it restarts. Therefore nothing is sent on the occasion of a change: a task compares
//! what is there with what should be, again and again, and sends the difference ([`steer`]).

pub mod config;
mod counts;
mod plane;
mod seen;
mod socket;
mod steer;

pub use config::{Config, config};
pub use plane::HaProxy;
pub use socket::SocketError;
