//! Drivers of infrastructure tools. Runs the tool that the user has, reads what it says; decides nothing and keeps nothing.
//!
//! [`terraform`] drives Terraform and OpenTofu, [`ansible`] drives Ansible; [`process`] is how either of them is run, [`mask`] takes secrets out of
//! what it said.

pub mod ansible;
pub mod mask;
pub mod process;
pub mod terraform;
